//! One valid request of every API and version that is served, as the material for invalid ones.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::api_versions_request::ApiVersionsRequest;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use kafka_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use kafka_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use kafka_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use kafka_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::{ApiKey, BrokerId, RequestHeader, TopicName, TransactionalId};
use kafka_protocol::protocol::{Encodable, StrBytes, encode_request_header_into_buffer};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use uuid::Uuid;

/// The topic that hostile requests name.
pub(crate) const TOPIC: &str = "hostile";

/// Every API that is served, with its versions.
const SERVED: [(ApiKey, std::ops::RangeInclusive<i16>); 11] = [
    (ApiKey::ApiVersions, 0..=4),
    (ApiKey::Metadata, 0..=13),
    (ApiKey::Produce, 3..=13),
    (ApiKey::Fetch, 4..=17),
    (ApiKey::ListOffsets, 1..=10),
    (ApiKey::CreateTopics, 2..=7),
    (ApiKey::DeleteTopics, 1..=6),
    (ApiKey::CreatePartitions, 0..=3),
    (ApiKey::InitProducerId, 0..=5),
    (ApiKey::DescribeCluster, 0..=2),
    (ApiKey::OffsetForLeaderEpoch, 2..=4),
];

/// Each request (header and body, without the length in front) with where its body begins.
pub(crate) fn valid_requests() -> Vec<(Vec<u8>, usize)> {
    let mut requests = Vec::new();
    for (api, versions) in SERVED {
        for version in versions {
            let mut buffer = BytesMut::new();
            let header = RequestHeader::default()
                .with_request_api_key(api as i16)
                .with_request_api_version(version)
                .with_correlation_id(7)
                .with_client_id(Some(StrBytes::from_static_str("hostile")));
            encode_request_header_into_buffer(&mut buffer, &header).expect("the header is valid");
            let body_at = buffer.len();
            encode_body(api, version, &mut buffer);
            requests.push((buffer.to_vec(), body_at));
        }
    }
    requests
}

fn encode_body(api: ApiKey, version: i16, buffer: &mut BytesMut) {
    let encoded = match api {
        ApiKey::ApiVersions => api_versions().encode(buffer, version),
        ApiKey::Metadata => metadata(version).encode(buffer, version),
        ApiKey::Produce => produce(version).encode(buffer, version),
        ApiKey::Fetch => fetch(version).encode(buffer, version),
        ApiKey::ListOffsets => list_offsets().encode(buffer, version),
        ApiKey::CreateTopics => create_topics().encode(buffer, version),
        ApiKey::DeleteTopics => delete_topics(version).encode(buffer, version),
        ApiKey::CreatePartitions => create_partitions().encode(buffer, version),
        ApiKey::InitProducerId => init_producer_id(version).encode(buffer, version),
        ApiKey::DescribeCluster => DescribeClusterRequest::default().encode(buffer, version),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch().encode(buffer, version),
        other => panic!("{other:?} is not among the served ones"),
    };
    encoded.unwrap_or_else(|error| panic!("{api:?} version {version}: {error}"));
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("hostile"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

fn metadata(version: i16) -> MetadataRequest {
    let topics = (0..3).map(|_| MetadataRequestTopic::default().with_name(Some(topic()))).collect();
    MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(version < 4)
}

fn records() -> Bytes {
    let record = |offset: i64| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 0,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: -1,
        timestamp: 1,
        key: Some(Bytes::from_static(b"key")),
        value: Some(Bytes::from_static(b"value")),
        headers: [(StrBytes::from_static_str("header"), Some(Bytes::from_static(b"x")))]
            .into_iter()
            .collect(),
    };
    let mut buffer = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut buffer, &[record(0), record(1), record(2)], &options)
        .expect("the records are valid");
    buffer.freeze()
}

fn produce(version: i16) -> ProduceRequest {
    let partitions = (0..2)
        .map(|index| PartitionProduceData::default().with_index(index).with_records(Some(records())))
        .collect();
    let data = TopicProduceData::default().with_partition_data(partitions);
    // From version 13 on topics go by id; nobody has this one.
    let data = if version < 13 { data.with_name(topic()) } else { data.with_topic_id(unknown_id()) };
    ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![data])
}

fn unknown_id() -> Uuid {
    Uuid::from_u128(0x1234_5678)
}

fn fetch(version: i16) -> FetchRequest {
    let partitions = (0..2)
        .map(|partition| FetchPartition::default().with_partition(partition).with_partition_max_bytes(1_000))
        .collect();
    let wanted = FetchTopic::default().with_partitions(partitions);
    let wanted = if version < 13 { wanted.with_topic(topic()) } else { wanted.with_topic_id(unknown_id()) };
    let request = FetchRequest::default()
        .with_max_wait_ms(1)
        .with_min_bytes(1)
        .with_max_bytes(10_000)
        .with_topics(vec![wanted]);
    if version < 15 { request.with_replica_id(BrokerId(-1)) } else { request }
}

fn list_offsets() -> ListOffsetsRequest {
    let partitions =
        (0..2).map(|index| ListOffsetsPartition::default().with_partition_index(index)).collect();
    let wanted = ListOffsetsTopic::default().with_name(topic()).with_partitions(partitions);
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted])
}

/// Validated only, so that the cluster does not fill up with the topics of hostile requests.
fn create_topics() -> CreateTopicsRequest {
    let config = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("retention.ms"))
        .with_value(Some(StrBytes::from_static_str("1000")));
    let wanted = CreatableTopic::default()
        .with_name(topic())
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![config]);
    CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(1_000).with_validate_only(true)
}

fn delete_topics(version: i16) -> DeleteTopicsRequest {
    let name = TopicName(StrBytes::from_static_str("hostile-unknown"));
    let request = DeleteTopicsRequest::default().with_timeout_ms(1_000);
    if version < 6 {
        request.with_topic_names(vec![name])
    } else {
        request.with_topics(vec![DeleteTopicState::default().with_name(Some(name))])
    }
}

fn create_partitions() -> CreatePartitionsRequest {
    let wanted =
        CreatePartitionsTopic::default().with_name(topic()).with_count(4).with_assignments(Some(Vec::new()));
    CreatePartitionsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(1_000)
        .with_validate_only(true)
}

fn init_producer_id(version: i16) -> InitProducerIdRequest {
    let transactional = (version % 2 == 1).then(|| TransactionalId(StrBytes::from_static_str("t")));
    InitProducerIdRequest::default().with_transactional_id(transactional).with_transaction_timeout_ms(1_000)
}

fn offset_for_leader_epoch() -> OffsetForLeaderEpochRequest {
    let partitions = (0..2).map(|index| OffsetForLeaderPartition::default().with_partition(index)).collect();
    let wanted = OffsetForLeaderTopic::default().with_topic(topic()).with_partitions(partitions);
    OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![wanted])
}
