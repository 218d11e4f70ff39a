//! Requests that create, change and delete topics.

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{ApiKey, BrokerId, TopicName};

use super::schema::{Api, Kind, Schema, array, boolean, int16, int32, text, uuid};

pub(super) const CREATE_TOPICS: Api = Api {
    key: ApiKey::CreateTopics,
    min: 2,
    max: 7,
    flexible_from: 5,
    request: &Schema::new(
        "CreateTopicsRequest",
        &[
            array::<CreatableTopic>("topics", &Kind::Struct(&CREATABLE_TOPIC)),
            int32("timeout_ms"),
            boolean("validate_only"),
        ],
    ),
};

const CREATABLE_TOPIC: Schema = Schema::new(
    "CreatableTopic",
    &[
        text("name"),
        int32("num_partitions"),
        int16("replication_factor"),
        array::<CreatableReplicaAssignment>("assignments", &Kind::Struct(&CREATABLE_ASSIGNMENT)),
        array::<CreatableTopicConfig>("configs", &Kind::Struct(&CREATABLE_CONFIG)),
    ],
);

const CREATABLE_ASSIGNMENT: Schema = Schema::new(
    "CreatableReplicaAssignment",
    &[int32("partition_index"), array::<BrokerId>("broker_ids", &Kind::Fixed(4))],
);

const CREATABLE_CONFIG: Schema =
    Schema::new("CreatableTopicConfig", &[text("name"), text("value").nullable()]);

pub(super) const DELETE_TOPICS: Api = Api {
    key: ApiKey::DeleteTopics,
    min: 1,
    max: 6,
    flexible_from: 4,
    request: &Schema::new(
        "DeleteTopicsRequest",
        &[
            array::<DeleteTopicState>("topics", &Kind::Struct(&DELETE_TOPIC_STATE)).since(6),
            array::<TopicName>("topic_names", &Kind::Text).until(5),
            int32("timeout_ms"),
        ],
    ),
};

const DELETE_TOPIC_STATE: Schema =
    Schema::new("DeleteTopicState", &[text("name").nullable(), uuid("topic_id")]);

pub(super) const CREATE_PARTITIONS: Api = Api {
    key: ApiKey::CreatePartitions,
    min: 0,
    max: 3,
    flexible_from: 2,
    request: &Schema::new(
        "CreatePartitionsRequest",
        &[
            array::<CreatePartitionsTopic>("topics", &Kind::Struct(&CREATE_PARTITIONS_TOPIC)),
            int32("timeout_ms"),
            boolean("validate_only"),
        ],
    ),
};

const CREATE_PARTITIONS_TOPIC: Schema = Schema::new(
    "CreatePartitionsTopic",
    &[
        text("name"),
        int32("count"),
        array::<CreatePartitionsAssignment>("assignments", &Kind::Struct(&CREATE_PARTITIONS_ASSIGNMENT))
            .nullable(),
    ],
);

const CREATE_PARTITIONS_ASSIGNMENT: Schema =
    Schema::new("CreatePartitionsAssignment", &[array::<BrokerId>("broker_ids", &Kind::Fixed(4))]);
