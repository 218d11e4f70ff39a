//! Requests that tell how partitions, disks and groups stand, and that move leaders.

use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_response::PartitionResponse;
use kafka_protocol::messages::elect_leaders_response::PartitionResult;
use kafka_protocol::messages::{
    ApiKey, describe_producers_request, describe_quorum_request, describe_topic_partitions_request,
    elect_leaders_request,
};

use super::schema::{Api, Field, Kind, Schema, answered_array, array, int8, int32, text};

pub(super) const DESCRIBE_LOG_DIRS: Api = Api {
    key: ApiKey::DescribeLogDirs,
    min: 1,
    max: 4,
    flexible_from: 2,
    request: &Schema::new(
        "DescribeLogDirsRequest",
        &[array::<DescribableLogDirTopic>("topics", &Kind::Struct(&LOG_DIR_TOPIC)).nullable()],
    ),
};

const LOG_DIR_TOPIC: Schema =
    Schema::new("DescribableLogDirTopic", &[text("topic"), array::<i32>("partitions", &Kind::Fixed(4))]);

pub(super) const ELECT_LEADERS: Api = Api {
    key: ApiKey::ElectLeaders,
    min: 0,
    max: 2,
    flexible_from: 2,
    request: &Schema::new(
        "ElectLeadersRequest",
        &[
            int8("election_type").since(1),
            array::<elect_leaders_request::TopicPartitions>(
                "topic_partitions",
                &Kind::Struct(&ELECTED_TOPIC),
            )
            .nullable(),
            int32("timeout_ms"),
        ],
    ),
};

const ELECTED_TOPIC: Schema = Schema::new(
    "TopicPartitions",
    &[text("topic"), answered_array::<i32, PartitionResult>("partitions", &Kind::Fixed(4))],
);

pub(super) const DESCRIBE_QUORUM: Api = Api {
    key: ApiKey::DescribeQuorum,
    min: 0,
    max: 2,
    flexible_from: 0,
    request: &Schema::new(
        "DescribeQuorumRequest",
        &[array::<describe_quorum_request::TopicData>("topics", &Kind::Struct(&QUORUM_TOPIC))],
    ),
};

const QUORUM_TOPIC: Schema = Schema::new(
    "TopicData",
    &[
        text("topic_name"),
        array::<describe_quorum_request::PartitionData>("partitions", &Kind::Struct(&QUORUM_PARTITION)),
    ],
);

const QUORUM_PARTITION: Schema = Schema::new("PartitionData", &[int32("partition_index")]);

pub(super) const DESCRIBE_PRODUCERS: Api = Api {
    key: ApiKey::DescribeProducers,
    min: 0,
    max: 0,
    flexible_from: 0,
    request: &Schema::new(
        "DescribeProducersRequest",
        &[array::<describe_producers_request::TopicRequest>("topics", &Kind::Struct(&PRODUCERS_TOPIC))],
    ),
};

const PRODUCERS_TOPIC: Schema = Schema::new(
    "TopicRequest",
    &[text("name"), answered_array::<i32, PartitionResponse>("partition_indexes", &Kind::Fixed(4))],
);

pub(super) const DESCRIBE_TOPIC_PARTITIONS: Api = Api {
    key: ApiKey::DescribeTopicPartitions,
    min: 0,
    max: 0,
    flexible_from: 0,
    request: &Schema::new(
        "DescribeTopicPartitionsRequest",
        &[
            array::<describe_topic_partitions_request::TopicRequest>(
                "topics",
                &Kind::Struct(&PARTITIONS_TOPIC),
            ),
            int32("response_partition_limit"),
            Field::new("cursor", Kind::OptionalStruct(&CURSOR)).nullable(),
        ],
    ),
};

const PARTITIONS_TOPIC: Schema = Schema::new("TopicRequest", &[text("name")]);

const CURSOR: Schema = Schema::new("Cursor", &[text("topic_name"), int32("partition_index")]);
