//! Requests about the cluster and the connection, and the header in front of every request.

use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

use super::schema::{Api, Field, Kind, Schema, array, boolean, int8, int16, int32, int64, text, uuid};

/// Versions 1 and 2; the client id keeps its 16-bit length in both.
pub(super) const REQUEST_HEADER: Schema = Schema::new(
    "RequestHeader",
    &[
        int16("request_api_key"),
        int16("request_api_version"),
        int32("correlation_id"),
        Field::new("client_id", Kind::OldText).nullable(),
    ],
);

pub(super) const API_VERSIONS: Api = Api {
    key: ApiKey::ApiVersions,
    min: 0,
    max: 4,
    flexible_from: 3,
    request: &Schema::new(
        "ApiVersionsRequest",
        &[text("client_software_name").since(3), text("client_software_version").since(3)],
    ),
};

pub(super) const METADATA: Api = Api {
    key: ApiKey::Metadata,
    min: 0,
    max: 13,
    flexible_from: 9,
    request: &Schema::new(
        "MetadataRequest",
        &[
            array::<MetadataRequestTopic>("topics", &Kind::Struct(&METADATA_TOPIC)).nullable(),
            boolean("allow_auto_topic_creation").since(4),
            boolean("include_cluster_authorized_operations").since(8).until(10),
            boolean("include_topic_authorized_operations").since(8),
        ],
    ),
};

const METADATA_TOPIC: Schema =
    Schema::new("MetadataRequestTopic", &[uuid("topic_id").since(10), text("name").nullable()]);

pub(super) const INIT_PRODUCER_ID: Api = Api {
    key: ApiKey::InitProducerId,
    min: 0,
    max: 5,
    flexible_from: 2,
    request: &Schema::new(
        "InitProducerIdRequest",
        &[
            text("transactional_id").nullable(),
            int32("transaction_timeout_ms"),
            int64("producer_id").since(3),
            int16("producer_epoch").since(3),
        ],
    ),
};

pub(super) const DESCRIBE_CLUSTER: Api = Api {
    key: ApiKey::DescribeCluster,
    min: 0,
    max: 2,
    flexible_from: 0,
    request: &Schema::new(
        "DescribeClusterRequest",
        &[
            boolean("include_cluster_authorized_operations"),
            int8("endpoint_type").since(1),
            boolean("include_fenced_brokers").since(2),
        ],
    ),
};
