//! One whole request of every API and version, written by the decoder's own encoder, with two elements in each array, a value
//! in each field, and unknown tagged fields.

use bytes::{Bytes, BytesMut};
use helix_server::api::table::SERVED;
use helix_server::net::frame::head_version;
use helix_server::net::guard::{GuardLimits, check};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest,
    DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest, FetchRequest,
    FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest,
    JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, ProducerId, RequestHeader, SyncGroupRequest, TopicName,
    TransactionalId, alter_configs_request, describe_producers_request, describe_quorum_request,
    describe_topic_partitions_request, elect_leaders_request, incremental_alter_configs_request,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use uuid::Uuid;

use super::allocations::counted;
use super::group_requests;

/// Everything that is served.
pub(crate) fn every_version() -> impl Iterator<Item = (ApiKey, i16)> {
    SERVED.iter().flat_map(|api| (api.min..=api.max).map(move |version| (api.key, version)))
}

pub(super) fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

/// The message as bytes.
pub(crate) fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).expect("the sample fits its version");
    out.freeze()
}

/// Adds two unknown tagged fields where the version can carry them.
macro_rules! tags {
    ($message:expr, $flexible:expr) => {{
        let message = $message;
        if $flexible {
            message
                .with_unknown_tagged_field(1000, Bytes::from_static(b"x"))
                .with_unknown_tagged_field(1001, Bytes::new())
        } else {
            message
        }
    }};
}

/// The body of a request.
pub(crate) fn sample(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::Produce => encoded(&produce(version), version),
        ApiKey::Fetch => encoded(&fetch(version), version),
        ApiKey::ListOffsets => encoded(&list_offsets(version), version),
        ApiKey::Metadata => encoded(&metadata(version), version),
        ApiKey::ApiVersions => encoded(&api_versions(version), version),
        ApiKey::CreateTopics => encoded(&create_topics(version), version),
        ApiKey::DeleteTopics => encoded(&delete_topics(version), version),
        ApiKey::DeleteRecords => encoded(&delete_records(version), version),
        ApiKey::InitProducerId => encoded(&init_producer_id(version), version),
        ApiKey::OffsetForLeaderEpoch => encoded(&offset_for_leader_epoch(version), version),
        ApiKey::CreatePartitions => encoded(&create_partitions(version), version),
        ApiKey::DescribeCluster => encoded(&describe_cluster(version), version),
        ApiKey::DescribeConfigs => encoded(&describe_configs(version), version),
        ApiKey::AlterConfigs => encoded(&alter_configs(version), version),
        ApiKey::IncrementalAlterConfigs => encoded(&incremental_alter_configs(version), version),
        ApiKey::ListConfigResources => encoded(&list_config_resources(version), version),
        ApiKey::DescribeLogDirs => encoded(&describe_log_dirs(version), version),
        ApiKey::ElectLeaders => encoded(&elect_leaders(version), version),
        ApiKey::DescribeQuorum => encoded(&describe_quorum(), version),
        ApiKey::DescribeProducers => encoded(&describe_producers(), version),
        ApiKey::DescribeTopicPartitions => encoded(&describe_topic_partitions(), version),
        _ => group_requests::sample(key, version).expect("not served"),
    }
}

pub(crate) fn produce(version: i16) -> ProduceRequest {
    let flexible = version >= 9;
    let partition = tags!(
        PartitionProduceData::default().with_index(1).with_records(Some(Bytes::from_static(b"records"))),
        flexible
    );
    let topic = TopicProduceData::default()
        .with_partition_data(vec![partition.clone(), partition.with_records(None)]);
    let topic = if version >= 13 { topic.with_topic_id(Uuid::max()) } else { topic.with_name(name("topic")) };
    let topic = tags!(topic, flexible);
    let request = ProduceRequest::default()
        .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("transaction"))))
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic.clone(), topic]);
    tags!(request, flexible)
}

fn fetch(version: i16) -> FetchRequest {
    let flexible = version >= 12;
    let mut partition =
        FetchPartition::default().with_partition(1).with_fetch_offset(2).with_partition_max_bytes(3);
    if version >= 9 {
        partition.current_leader_epoch = 4;
    }
    if version >= 12 {
        partition.last_fetched_epoch = 5;
    }
    if version >= 5 {
        partition.log_start_offset = 6;
    }
    if version >= 17 {
        partition.replica_directory_id = Uuid::max();
    }
    let partition = tags!(partition, flexible);
    let mut topic = FetchTopic::default().with_partitions(vec![partition.clone(), partition]);
    let mut forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
    if version >= 13 {
        topic.topic_id = Uuid::max();
        forgotten.topic_id = Uuid::max();
    } else {
        topic.topic = name("topic");
        forgotten.topic = name("forgotten");
    }
    let topic = tags!(topic, flexible);
    let forgotten = tags!(forgotten, flexible);
    let mut request = FetchRequest::default()
        .with_max_wait_ms(1)
        .with_min_bytes(2)
        .with_max_bytes(3)
        .with_isolation_level(1)
        .with_topics(vec![topic.clone(), topic]);
    if version <= 14 {
        request.replica_id = BrokerId(7);
    }
    if version >= 7 {
        request.session_id = 8;
        request.session_epoch = 9;
        request.forgotten_topics_data = vec![forgotten.clone(), forgotten];
    }
    if version >= 11 {
        request.rack_id = StrBytes::from_static_str("rack");
    }
    if version >= 12 {
        request.cluster_id = Some(StrBytes::from_static_str("cluster"));
    }
    if version >= 15 {
        request.replica_state =
            tags!(ReplicaState::default().with_replica_id(BrokerId(1)).with_replica_epoch(2), flexible);
    }
    tags!(request, flexible)
}

fn list_offsets(version: i16) -> ListOffsetsRequest {
    let flexible = version >= 6;
    let mut partition = ListOffsetsPartition::default().with_partition_index(1).with_timestamp(-1);
    if version >= 4 {
        partition.current_leader_epoch = 3;
    }
    let partition = tags!(partition, flexible);
    let topic = ListOffsetsTopic::default()
        .with_name(name("topic"))
        .with_partitions(vec![partition.clone(), partition]);
    let topic = tags!(topic, flexible);
    let mut request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic.clone(), topic]);
    if version >= 2 {
        request.isolation_level = 1;
    }
    if version >= 10 {
        request.timeout_ms = 99;
    }
    tags!(request, flexible)
}

fn delete_records(version: i16) -> DeleteRecordsRequest {
    let flexible = version >= 2;
    let partition = tags!(DeleteRecordsPartition::default().with_partition_index(1).with_offset(2), flexible);
    let topic = DeleteRecordsTopic::default()
        .with_name(name("topic"))
        .with_partitions(vec![partition.clone(), partition]);
    let topic = tags!(topic, flexible);
    let request =
        DeleteRecordsRequest::default().with_topics(vec![topic.clone(), topic]).with_timeout_ms(30_000);
    tags!(request, flexible)
}

fn metadata(version: i16) -> MetadataRequest {
    let flexible = version >= 9;
    let mut topic = MetadataRequestTopic::default().with_name(Some(name("topic")));
    if version >= 10 {
        topic.topic_id = Uuid::max();
    }
    let topic = tags!(topic, flexible);
    let mut topics = vec![topic.clone(), topic];
    if version >= 10 {
        topics[1].name = None;
    }
    let mut request =
        MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(true);
    if (8..=10).contains(&version) {
        request.include_cluster_authorized_operations = true;
    }
    if version >= 8 {
        request.include_topic_authorized_operations = true;
    }
    tags!(request, flexible)
}

pub(crate) fn api_versions(version: i16) -> ApiVersionsRequest {
    let mut request = ApiVersionsRequest::default();
    if version >= 3 {
        request.client_software_name = StrBytes::from_static_str("client");
        request.client_software_version = StrBytes::from_static_str("1.2");
    }
    tags!(request, version >= 3)
}

fn create_topics(version: i16) -> CreateTopicsRequest {
    let flexible = version >= 5;
    let assignment = tags!(
        CreatableReplicaAssignment::default()
            .with_partition_index(1)
            .with_broker_ids(vec![BrokerId(1), BrokerId(2)]),
        flexible
    );
    let config = tags!(
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str("retention.ms"))
            .with_value(Some(StrBytes::from_static_str("1"))),
        flexible
    );
    let topic = CreatableTopic::default()
        .with_name(name("topic"))
        .with_num_partitions(3)
        .with_replication_factor(1)
        .with_assignments(vec![assignment.clone(), assignment])
        .with_configs(vec![config.clone(), config.with_value(None)]);
    let topic = tags!(topic, flexible);
    tags!(CreateTopicsRequest::default().with_topics(vec![topic.clone(), topic]).with_timeout_ms(5), flexible)
}

fn delete_topics(version: i16) -> DeleteTopicsRequest {
    let flexible = version >= 4;
    let request = DeleteTopicsRequest::default().with_timeout_ms(5);
    let request = if version >= 6 {
        let topic = tags!(
            DeleteTopicState::default().with_name(Some(name("topic"))).with_topic_id(Uuid::max()),
            flexible
        );
        request.with_topics(vec![topic.clone(), topic.with_name(None)])
    } else {
        request.with_topic_names(vec![name("one"), name("two")])
    };
    tags!(request, flexible)
}

fn init_producer_id(version: i16) -> InitProducerIdRequest {
    let mut request = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("transaction"))))
        .with_transaction_timeout_ms(5);
    if version >= 3 {
        request.producer_id = ProducerId(9);
        request.producer_epoch = 2;
    }
    tags!(request, version >= 2)
}

fn offset_for_leader_epoch(version: i16) -> OffsetForLeaderEpochRequest {
    let flexible = version >= 4;
    let partition = tags!(
        OffsetForLeaderPartition::default()
            .with_partition(1)
            .with_current_leader_epoch(2)
            .with_leader_epoch(3),
        flexible
    );
    let topic = OffsetForLeaderTopic::default()
        .with_topic(name("topic"))
        .with_partitions(vec![partition.clone(), partition]);
    let topic = tags!(topic, flexible);
    let mut request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic.clone(), topic]);
    if version >= 3 {
        request.replica_id = BrokerId(-1);
    }
    tags!(request, flexible)
}

fn create_partitions(version: i16) -> CreatePartitionsRequest {
    let flexible = version >= 2;
    let assignment =
        tags!(CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(1)]), flexible);
    let topic = CreatePartitionsTopic::default()
        .with_name(name("topic"))
        .with_count(5)
        .with_assignments(Some(vec![assignment.clone(), assignment]));
    let topic = tags!(topic, flexible);
    let topics = vec![topic.clone(), topic.with_assignments(None)];
    tags!(CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(5), flexible)
}

fn describe_cluster(version: i16) -> DescribeClusterRequest {
    let mut request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    if version >= 1 {
        request.endpoint_type = 2;
    }
    if version >= 2 {
        request.include_fenced_brokers = true;
    }
    tags!(request, true)
}

fn describe_configs(version: i16) -> DescribeConfigsRequest {
    let flexible = version >= 4;
    let text = StrBytes::from_static_str;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("topic"))
        .with_configuration_keys(Some(vec![text("retention.ms"), text("retention.bytes")]));
    let resource = tags!(resource, flexible);
    let mut request = DescribeConfigsRequest::default()
        .with_resources(vec![resource.clone(), resource.with_configuration_keys(None)])
        .with_include_synonyms(true);
    if version >= 3 {
        request.include_documentation = true;
    }
    tags!(request, flexible)
}

fn alter_configs(version: i16) -> AlterConfigsRequest {
    let flexible = version >= 2;
    let text = StrBytes::from_static_str;
    let config = tags!(
        alter_configs_request::AlterableConfig::default()
            .with_name(text("retention.ms"))
            .with_value(Some(text("1"))),
        flexible
    );
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("topic"))
        .with_configs(vec![config.clone(), config.with_value(None)]);
    let resource = tags!(resource, flexible);
    let request = AlterConfigsRequest::default()
        .with_resources(vec![resource.clone(), resource])
        .with_validate_only(true);
    tags!(request, flexible)
}

fn incremental_alter_configs(version: i16) -> IncrementalAlterConfigsRequest {
    let flexible = version >= 1;
    let text = StrBytes::from_static_str;
    let config = tags!(
        incremental_alter_configs_request::AlterableConfig::default()
            .with_name(text("cleanup.policy"))
            .with_config_operation(2)
            .with_value(Some(text("delete"))),
        flexible
    );
    let resource = incremental_alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("topic"))
        .with_configs(vec![config.clone(), config.with_value(None)]);
    let resource = tags!(resource, flexible);
    let request = IncrementalAlterConfigsRequest::default()
        .with_resources(vec![resource.clone(), resource])
        .with_validate_only(true);
    tags!(request, flexible)
}

fn list_config_resources(version: i16) -> ListConfigResourcesRequest {
    let mut request = ListConfigResourcesRequest::default();
    if version >= 1 {
        request.resource_types = vec![2, 4];
    }
    tags!(request, true)
}

fn describe_log_dirs(version: i16) -> DescribeLogDirsRequest {
    let flexible = version >= 2;
    let topic = tags!(
        DescribableLogDirTopic::default().with_topic(name("topic")).with_partitions(vec![0, 1]),
        flexible
    );
    tags!(DescribeLogDirsRequest::default().with_topics(Some(vec![topic.clone(), topic])), flexible)
}

fn elect_leaders(version: i16) -> ElectLeadersRequest {
    let flexible = version >= 2;
    let topic = tags!(
        elect_leaders_request::TopicPartitions::default()
            .with_topic(name("topic"))
            .with_partitions(vec![0, 1]),
        flexible
    );
    let mut request = ElectLeadersRequest::default()
        .with_topic_partitions(Some(vec![topic.clone(), topic]))
        .with_timeout_ms(5);
    if version >= 1 {
        request.election_type = 1;
    }
    tags!(request, flexible)
}

fn describe_quorum() -> DescribeQuorumRequest {
    let partition = tags!(describe_quorum_request::PartitionData::default().with_partition_index(1), true);
    let topic = tags!(
        describe_quorum_request::TopicData::default()
            .with_topic_name(name("__cluster_metadata"))
            .with_partitions(vec![partition.clone(), partition]),
        true
    );
    tags!(DescribeQuorumRequest::default().with_topics(vec![topic.clone(), topic]), true)
}

fn describe_producers() -> DescribeProducersRequest {
    let topic = tags!(
        describe_producers_request::TopicRequest::default()
            .with_name(name("topic"))
            .with_partition_indexes(vec![0, 1]),
        true
    );
    tags!(DescribeProducersRequest::default().with_topics(vec![topic.clone(), topic]), true)
}

fn describe_topic_partitions() -> DescribeTopicPartitionsRequest {
    let topic =
        tags!(describe_topic_partitions_request::TopicRequest::default().with_name(name("topic")), true);
    let cursor = tags!(
        describe_topic_partitions_request::Cursor::default()
            .with_topic_name(name("topic"))
            .with_partition_index(3),
        true
    );
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![topic.clone(), topic])
        .with_response_partition_limit(5)
        .with_cursor(Some(cursor));
    tags!(request, true)
}

/// A whole frame: length, header, body.
pub(crate) fn framed(key: ApiKey, version: i16, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("client")));
    let mut frame = BytesMut::new();
    header.encode(&mut frame, head_version(key as i16, version)).expect("a header can be encoded");
    frame.extend_from_slice(body);
    [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
}

/// Decodes a body and says how many bytes were left; `None` is a clean error.
pub(crate) fn decode(key: ApiKey, version: i16, mut body: Bytes) -> Option<usize> {
    fn run<T: Decodable>(body: &mut Bytes, version: i16) -> bool {
        T::decode(body, version).is_ok()
    }
    let bytes = &mut body;
    let decoded = match key {
        ApiKey::Produce => run::<ProduceRequest>(bytes, version),
        ApiKey::Fetch => run::<FetchRequest>(bytes, version),
        ApiKey::ListOffsets => run::<ListOffsetsRequest>(bytes, version),
        ApiKey::Metadata => run::<MetadataRequest>(bytes, version),
        ApiKey::ApiVersions => run::<ApiVersionsRequest>(bytes, version),
        ApiKey::CreateTopics => run::<CreateTopicsRequest>(bytes, version),
        ApiKey::DeleteTopics => run::<DeleteTopicsRequest>(bytes, version),
        ApiKey::DeleteRecords => run::<DeleteRecordsRequest>(bytes, version),
        ApiKey::InitProducerId => run::<InitProducerIdRequest>(bytes, version),
        ApiKey::OffsetForLeaderEpoch => run::<OffsetForLeaderEpochRequest>(bytes, version),
        ApiKey::CreatePartitions => run::<CreatePartitionsRequest>(bytes, version),
        ApiKey::DescribeCluster => run::<DescribeClusterRequest>(bytes, version),
        ApiKey::OffsetCommit => run::<OffsetCommitRequest>(bytes, version),
        ApiKey::OffsetFetch => run::<OffsetFetchRequest>(bytes, version),
        ApiKey::FindCoordinator => run::<FindCoordinatorRequest>(bytes, version),
        ApiKey::JoinGroup => run::<JoinGroupRequest>(bytes, version),
        ApiKey::Heartbeat => run::<HeartbeatRequest>(bytes, version),
        ApiKey::LeaveGroup => run::<LeaveGroupRequest>(bytes, version),
        ApiKey::SyncGroup => run::<SyncGroupRequest>(bytes, version),
        ApiKey::DescribeGroups => run::<DescribeGroupsRequest>(bytes, version),
        ApiKey::ListGroups => run::<ListGroupsRequest>(bytes, version),
        ApiKey::DeleteGroups => run::<DeleteGroupsRequest>(bytes, version),
        ApiKey::OffsetDelete => run::<OffsetDeleteRequest>(bytes, version),
        ApiKey::DescribeConfigs => run::<DescribeConfigsRequest>(bytes, version),
        ApiKey::AlterConfigs => run::<AlterConfigsRequest>(bytes, version),
        ApiKey::IncrementalAlterConfigs => run::<IncrementalAlterConfigsRequest>(bytes, version),
        ApiKey::ListConfigResources => run::<ListConfigResourcesRequest>(bytes, version),
        ApiKey::DescribeLogDirs => run::<DescribeLogDirsRequest>(bytes, version),
        ApiKey::ElectLeaders => run::<ElectLeadersRequest>(bytes, version),
        ApiKey::DescribeQuorum => run::<DescribeQuorumRequest>(bytes, version),
        ApiKey::DescribeProducers => run::<DescribeProducersRequest>(bytes, version),
        ApiKey::DescribeTopicPartitions => run::<DescribeTopicPartitionsRequest>(bytes, version),
        _ => unreachable!("not served"),
    };
    decoded.then_some(body.len())
}

/// Whatever the guard says of these bytes must hold; returns whether it accepts them.
pub(crate) fn guard_holds(key: ApiKey, version: i16, body: &Bytes, limits: &GuardLimits) -> bool {
    let (report, allocated) = counted(|| check(key as i16, version, body, limits));
    assert!(allocated <= 1024, "{key:?} {version}: the guard itself allocates {allocated} bytes");
    let Ok(report) = report else { return false };
    let (decoded, allocated) = counted(|| decode(key, version, body.clone()));
    // A decoder's error holds a backtrace if the environment asks for one; its size does not depend on the request.
    let allowed = report.decoded_bytes + if decoded.is_some() { 0 } else { 64 * 1024 };
    assert!(allocated <= allowed, "{key:?} {version}: {allocated} > {allowed}");
    if let Some(left) = decoded {
        assert_eq!(left, report.trailing_bytes, "{key:?} {version} leaves other bytes");
    }
    true
}
