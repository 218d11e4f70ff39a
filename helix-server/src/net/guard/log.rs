//! Requests about the records of partitions.

use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

use super::schema::{Api, Field, Kind, Schema, array, blob, int8, int16, int32, int64, text, uuid};

pub(super) const PRODUCE: Api = Api {
    key: ApiKey::Produce,
    min: 3,
    max: 13,
    flexible_from: 9,
    request: &Schema::new(
        "ProduceRequest",
        &[
            text("transactional_id").nullable(),
            int16("acks"),
            int32("timeout_ms"),
            array::<TopicProduceData>("topic_data", &Kind::Struct(&PRODUCE_TOPIC)),
        ],
    ),
};

const PRODUCE_TOPIC: Schema = Schema::new(
    "TopicProduceData",
    &[
        text("name").until(12),
        uuid("topic_id").since(13),
        array::<PartitionProduceData>("partition_data", &Kind::Struct(&PRODUCE_PARTITION)),
    ],
);

const PRODUCE_PARTITION: Schema =
    Schema::new("PartitionProduceData", &[int32("index"), blob("records").nullable()]);

pub(super) const FETCH: Api = Api {
    key: ApiKey::Fetch,
    min: 4,
    max: 17,
    flexible_from: 12,
    request: &Schema::new(
        "FetchRequest",
        &[
            int32("replica_id").until(14),
            int32("max_wait_ms"),
            int32("min_bytes"),
            int32("max_bytes"),
            int8("isolation_level"),
            int32("session_id").since(7),
            int32("session_epoch").since(7),
            array::<FetchTopic>("topics", &Kind::Struct(&FETCH_TOPIC)),
            array::<ForgottenTopic>("forgotten_topics_data", &Kind::Struct(&FORGOTTEN_TOPIC)).since(7),
            text("rack_id").since(11),
        ],
    )
    .tagged(&[
        (0, text("cluster_id").nullable()),
        (1, Field::new("replica_state", Kind::Struct(&REPLICA_STATE)).since(15)),
    ]),
};

const REPLICA_STATE: Schema = Schema::new("ReplicaState", &[int32("replica_id"), int64("replica_epoch")]);

const FETCH_TOPIC: Schema = Schema::new(
    "FetchTopic",
    &[
        text("topic").until(12),
        uuid("topic_id").since(13),
        array::<FetchPartition>("partitions", &Kind::Struct(&FETCH_PARTITION)),
    ],
);

const FETCH_PARTITION: Schema = Schema::new(
    "FetchPartition",
    &[
        int32("partition"),
        int32("current_leader_epoch").since(9),
        int64("fetch_offset"),
        int32("last_fetched_epoch").since(12),
        int64("log_start_offset").since(5),
        int32("partition_max_bytes"),
    ],
)
.tagged(&[(0, uuid("replica_directory_id").since(17)), (1, int64("high_watermark").since(18))]);

const FORGOTTEN_TOPIC: Schema = Schema::new(
    "ForgottenTopic",
    &[text("topic").until(12), uuid("topic_id").since(13), array::<i32>("partitions", &Kind::Fixed(4))],
);

pub(super) const LIST_OFFSETS: Api = Api {
    key: ApiKey::ListOffsets,
    min: 1,
    max: 10,
    flexible_from: 6,
    request: &Schema::new(
        "ListOffsetsRequest",
        &[
            int32("replica_id"),
            int8("isolation_level").since(2),
            array::<ListOffsetsTopic>("topics", &Kind::Struct(&LIST_OFFSETS_TOPIC)),
            int32("timeout_ms").since(10),
        ],
    ),
};

const LIST_OFFSETS_TOPIC: Schema = Schema::new(
    "ListOffsetsTopic",
    &[text("name"), array::<ListOffsetsPartition>("partitions", &Kind::Struct(&LIST_OFFSETS_PARTITION))],
);

const LIST_OFFSETS_PARTITION: Schema = Schema::new(
    "ListOffsetsPartition",
    &[int32("partition_index"), int32("current_leader_epoch").since(4), int64("timestamp")],
);

pub(super) const DELETE_RECORDS: Api = Api {
    key: ApiKey::DeleteRecords,
    min: 0,
    max: 2,
    flexible_from: 2,
    request: &Schema::new(
        "DeleteRecordsRequest",
        &[array::<DeleteRecordsTopic>("topics", &Kind::Struct(&DELETE_RECORDS_TOPIC)), int32("timeout_ms")],
    ),
};

const DELETE_RECORDS_TOPIC: Schema = Schema::new(
    "DeleteRecordsTopic",
    &[text("name"), array::<DeleteRecordsPartition>("partitions", &Kind::Struct(&DELETE_RECORDS_PARTITION))],
);

const DELETE_RECORDS_PARTITION: Schema =
    Schema::new("DeleteRecordsPartition", &[int32("partition_index"), int64("offset")]);

pub(super) const OFFSET_FOR_LEADER_EPOCH: Api = Api {
    key: ApiKey::OffsetForLeaderEpoch,
    min: 2,
    max: 4,
    flexible_from: 4,
    request: &Schema::new(
        "OffsetForLeaderEpochRequest",
        &[
            int32("replica_id").since(3),
            array::<OffsetForLeaderTopic>("topics", &Kind::Struct(&OFFSET_FOR_LEADER_TOPIC)),
        ],
    ),
};

const OFFSET_FOR_LEADER_TOPIC: Schema = Schema::new(
    "OffsetForLeaderTopic",
    &[
        text("topic"),
        array::<OffsetForLeaderPartition>("partitions", &Kind::Struct(&OFFSET_FOR_LEADER_PARTITION)),
    ],
);

const OFFSET_FOR_LEADER_PARTITION: Schema = Schema::new(
    "OffsetForLeaderPartition",
    &[int32("partition"), int32("current_leader_epoch"), int32("leader_epoch")],
);
