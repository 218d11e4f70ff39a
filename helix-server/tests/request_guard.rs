//! Whatever the guard accepts, the decoder takes without a panic and without allocating more than the guard said.
//!
//! The samples are whole requests of every API and version, written by the decoder's own encoder, with two elements in
//! each array, a value in each field, and unknown tagged fields.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{Bytes, BytesMut};
use helix_server::net::guard::{GuardLimits, check, check_header, request_header_version};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, FetchRequest, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, ProducerId, RequestHeader, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use proptest::prelude::*;
use uuid::Uuid;

/// Counts what the current thread allocates.
struct Counting;

thread_local! {
    static ALLOCATED_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // At the end of a thread the counter is gone, and nobody asks any more.
    let _ = ALLOCATED_BYTES.try_with(|allocated| allocated.set(allocated.get() + bytes));
}

#[allow(unsafe_code)] // a global allocator cannot be written without
// SAFETY: everything is passed on unchanged to the system allocator, which keeps the contract; counting does not
// allocate, because the counter is a `Cell` that is initialised at compile time.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size);
        // SAFETY: the caller keeps the contract of this very function.
        unsafe { System.realloc(memory, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SERVED: [(ApiKey, i16, i16); 11] = [
    (ApiKey::Produce, 3, 13),
    (ApiKey::Fetch, 4, 17),
    (ApiKey::ListOffsets, 1, 10),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DescribeCluster, 0, 2),
];

const LIMITS: GuardLimits = GuardLimits { max_decoded_bytes: 1 << 20 };

fn every_version() -> impl Iterator<Item = (ApiKey, i16)> {
    SERVED.iter().flat_map(|&(key, min, max)| (min..=max).map(move |version| (key, version)))
}

fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
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

fn sample(key: ApiKey, version: i16) -> Bytes {
    match key {
        ApiKey::Produce => encoded(&produce(version), version),
        ApiKey::Fetch => encoded(&fetch(version), version),
        ApiKey::ListOffsets => encoded(&list_offsets(version), version),
        ApiKey::Metadata => encoded(&metadata(version), version),
        ApiKey::ApiVersions => encoded(&api_versions(version), version),
        ApiKey::CreateTopics => encoded(&create_topics(version), version),
        ApiKey::DeleteTopics => encoded(&delete_topics(version), version),
        ApiKey::InitProducerId => encoded(&init_producer_id(version), version),
        ApiKey::OffsetForLeaderEpoch => encoded(&offset_for_leader_epoch(version), version),
        ApiKey::CreatePartitions => encoded(&create_partitions(version), version),
        ApiKey::DescribeCluster => encoded(&describe_cluster(version), version),
        _ => unreachable!("not served"),
    }
}

fn produce(version: i16) -> ProduceRequest {
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

fn api_versions(version: i16) -> ApiVersionsRequest {
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

/// Decodes a body; `None` is a clean error. Also says how many bytes were left, and how many were allocated.
fn decode(key: ApiKey, version: i16, mut body: Bytes) -> Option<(usize, usize)> {
    fn run<T: Decodable>(body: &mut Bytes, version: i16) -> bool {
        T::decode(body, version).is_ok()
    }
    let before = ALLOCATED_BYTES.get();
    let body = &mut body;
    let decoded = match key {
        ApiKey::Produce => run::<ProduceRequest>(body, version),
        ApiKey::Fetch => run::<FetchRequest>(body, version),
        ApiKey::ListOffsets => run::<ListOffsetsRequest>(body, version),
        ApiKey::Metadata => run::<MetadataRequest>(body, version),
        ApiKey::ApiVersions => run::<ApiVersionsRequest>(body, version),
        ApiKey::CreateTopics => run::<CreateTopicsRequest>(body, version),
        ApiKey::DeleteTopics => run::<DeleteTopicsRequest>(body, version),
        ApiKey::InitProducerId => run::<InitProducerIdRequest>(body, version),
        ApiKey::OffsetForLeaderEpoch => run::<OffsetForLeaderEpochRequest>(body, version),
        ApiKey::CreatePartitions => run::<CreatePartitionsRequest>(body, version),
        ApiKey::DescribeCluster => run::<DescribeClusterRequest>(body, version),
        _ => unreachable!("not served"),
    };
    let allocated = ALLOCATED_BYTES.get() - before;
    decoded.then_some((body.len(), allocated))
}

/// Whatever the guard says of these bytes must hold; returns whether it accepts them.
fn guard_holds(key: ApiKey, version: i16, body: &Bytes) -> Result<bool, TestCaseError> {
    let Ok(report) = check(key as i16, version, body, &LIMITS) else { return Ok(false) };
    let before = ALLOCATED_BYTES.get();
    let decoded = decode(key, version, body.clone());
    // A decoder's error holds a backtrace if the environment asks for one; its size does not depend on the request.
    let allowed = report.decoded_bytes + if decoded.is_some() { 0 } else { 64 * 1024 };
    let allocated = ALLOCATED_BYTES.get() - before;
    prop_assert!(allocated <= allowed, "{key:?} {version}: {allocated} > {allowed}");
    if let Some((left, _)) = decoded {
        prop_assert_eq!(left, report.trailing_bytes, "{:?} {} leaves other bytes", key, version);
    }
    Ok(true)
}

#[test]
fn whole_requests_are_accepted_and_consumed() {
    for (key, version) in every_version() {
        let body = sample(key, version);
        let report = check(key as i16, version, &body, &LIMITS)
            .unwrap_or_else(|error| panic!("{key:?} {version} is refused: {error}"));
        let (left, allocated) =
            decode(key, version, body).unwrap_or_else(|| panic!("{key:?} {version} is not decoded"));
        assert_eq!(left, 0, "{key:?} {version}");
        assert!(
            allocated <= report.decoded_bytes,
            "{key:?} {version}: {allocated} > {}",
            report.decoded_bytes
        );
    }
}

#[test]
fn every_truncation_is_refused() {
    for (key, version) in every_version() {
        let body = sample(key, version);
        for end in 0..body.len() {
            check(key as i16, version, &body[..end], &LIMITS).expect_err("a truncated request");
        }
    }
}

#[test]
fn text_that_is_not_utf8_is_a_clean_error_of_the_decoder() {
    let body = Bytes::from_static(&[0, 0, 0, 1, 0, 2, 0xff, 0xfe]); // Metadata 0: one topic
    check(ApiKey::Metadata as i16, 0, &body, &LIMITS).expect("the guard does not look into strings");
    assert_eq!(decode(ApiKey::Metadata, 0, body), None);
}

#[test]
fn many_tagged_fields_take_no_more_than_was_said() {
    for tags in [1, 2, 11, 12, 13, 66, 67, 1000] {
        let mut request = api_versions(3);
        for tag in 0..tags {
            request.unknown_tagged_fields.insert(tag, Bytes::new());
        }
        assert!(guard_holds(ApiKey::ApiVersions, 3, &encoded(&request, 3)).expect("holds"), "accepted");
    }
}

#[test]
fn headers_are_walked_as_they_are_decoded() {
    for (key, version) in every_version() {
        let header_version = request_header_version(key as i16, version).expect("served");
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(StrBytes::from_static_str("client")));
        let mut bytes = encoded(&tags!(header, header_version == 2), header_version).to_vec();
        let length = bytes.len();
        bytes.extend_from_slice(b"body");
        assert_eq!(check_header(header_version, &bytes), Ok(length));
        for end in 0..length {
            check_header(header_version, &bytes[..end]).expect_err("a truncated header");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_requests_do_no_harm(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let all: Vec<_> = every_version().collect();
        let (key, version) = all[which.index(all.len())];
        let mut body = sample(key, version).to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len().max(1));
            if let Some(place) = body.get_mut(at) {
                *place = byte;
            }
        }
        if let Some(end) = end {
            body.truncate(end.index(body.len() + 1));
        }
        guard_holds(key, version, &body.into())?;
    }

    #[test]
    fn random_requests_do_no_harm(
        which in any::<prop::sample::Index>(),
        // Small numbers make plausible lengths.
        body in prop::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..120),
    ) {
        let all: Vec<_> = every_version().collect();
        let (key, version) = all[which.index(all.len())];
        guard_holds(key, version, &body.into())?;
    }
}
