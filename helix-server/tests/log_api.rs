//! The log as its owners see it, on whole nodes in this process: fetch sessions, deleted records, offsets, and reading from a follower.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

#[path = "simulation/clients/message.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod message;
mod support;

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteRecordsRequest, DeleteRecordsResponse, FetchRequest, FetchResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, ProduceRequest,
    ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};
use tokio::net::TcpStream;
use uuid::Uuid;

use message::{MessageId, NOBODY};
use support::node::{Node, call, until};

/// The topic that they use.
const TOPIC: &str = "topic";

/// Long enough for anything that is waited for.
const PATIENCE_MS: i32 = 30_000;
/// The records are of another time than the clock.
const ANY_TIME: &str = "log.message.timestamp.after.max.ms=9223372036854775807";
/// What a client is told that is to try again.
const NOT_ENOUGH_REPLICAS: i16 = 19;
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;

fn topic_name() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

/// Writes this many records in one batch, and waits for all replicas.
async fn produce(connection: &mut TcpStream, records: u32) {
    let response = try_produce(connection, records).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

async fn try_produce(connection: &mut TcpStream, records: u32) -> ProduceResponse {
    write(connection, message::batch(MessageId { lane: 0, number: 0 }, records, 10, NOBODY, -1)).await
}

async fn write(connection: &mut TcpStream, batch: Bytes) -> ProduceResponse {
    let partition = PartitionProduceData::default().with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(topic_name()).with_partition_data(vec![partition]);
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(PATIENCE_MS).with_topic_data(vec![topic]);
    call(connection, ApiKey::Produce, 11, &request).await
}

/// Writes one batch with a record for each of these timestamps.
async fn produce_at(connection: &mut TcpStream, timestamps_ms: &[i64]) {
    let record = |(offset, timestamp_ms): (i64, &i64)| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset,
        sequence: offset as i32 - 1, // the first one has none
        timestamp: *timestamp_ms,
        key: Some(Bytes::from_static(b"key")),
        value: None,
        headers: Default::default(),
    };
    let records: Vec<Record> = (0..).zip(timestamps_ms).map(record).collect();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let mut batch = BytesMut::new();
    RecordBatchEncoder::encode(&mut batch, &records, &options).unwrap();
    let response = write(connection, batch.freeze()).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

/// A fetch of one partition, or of nothing but what the session has.
struct Fetch {
    version: i16,
    session: (i32, i32),
    /// The topic's id, which is used from version 13 on.
    topic_id: Uuid,
    offset: Option<i64>,
    max_wait_ms: i32,
    min_bytes: i32,
    partition_max_bytes: i32,
    rack: &'static str,
}

impl Default for Fetch {
    fn default() -> Self {
        Self {
            version: 12,
            session: (0, -1),
            topic_id: Uuid::nil(),
            offset: Some(0),
            max_wait_ms: 0,
            min_bytes: 1,
            partition_max_bytes: 1 << 20,
            rack: "",
        }
    }
}

impl Fetch {
    async fn send(self, connection: &mut TcpStream) -> FetchResponse {
        let one = |offset| {
            let partition = FetchPartition::default()
                .with_fetch_offset(offset)
                .with_current_leader_epoch(-1)
                .with_last_fetched_epoch(-1)
                .with_partition_max_bytes(self.partition_max_bytes);
            let topic = FetchTopic::default().with_partitions(vec![partition]);
            if self.version >= 13 {
                topic.with_topic_id(self.topic_id)
            } else {
                topic.with_topic(topic_name())
            }
        };
        let request = FetchRequest::default()
            .with_max_wait_ms(self.max_wait_ms)
            .with_min_bytes(self.min_bytes)
            .with_max_bytes(1 << 20)
            .with_session_id(self.session.0)
            .with_session_epoch(self.session.1)
            .with_rack_id(StrBytes::from_static_str(self.rack))
            .with_topics(self.offset.map(one).into_iter().collect());
        call(connection, ApiKey::Fetch, self.version, &request).await
    }

    /// What it says of the one partition.
    async fn partition(self, connection: &mut TcpStream) -> PartitionData {
        let mut response = self.send(connection).await;
        assert_eq!(response.error_code, 0);
        response.responses.remove(0).partitions.remove(0)
    }
}

fn has_records(partition: &PartitionData) -> bool {
    partition.records.as_ref().is_some_and(|records| !records.is_empty())
}

#[tokio::test]
async fn a_session_is_told_what_is_new() {
    let node = Node::alone(&[ANY_TIME]);
    let mut connection = node.connect_to(TOPIC).await;
    produce(&mut connection, 3).await;
    let begun = Fetch { session: (0, 0), ..Fetch::default() }.send(&mut connection).await;
    let id = begun.session_id;
    assert_ne!(id, 0);
    assert!(has_records(&begun.responses[0].partitions[0]));
    let moved = Fetch { session: (id, 1), offset: Some(3), ..Fetch::default() }.send(&mut connection).await;
    assert_eq!((moved.error_code, moved.session_id, moved.responses.len()), (0, id, 0));
    produce(&mut connection, 1).await;
    let waits = || Fetch { offset: None, max_wait_ms: PATIENCE_MS, ..Fetch::default() };
    let news = Fetch { session: (id, 2), ..waits() }.partition(&mut connection).await;
    assert_eq!((news.high_watermark, has_records(&news)), (4, true));
    let wrong = Fetch { session: (id, 7), ..waits() }.send(&mut connection).await;
    assert_eq!(wrong.error_code, ResponseError::InvalidFetchSessionEpoch.code());
    // A request that ends the session.
    Fetch { session: (id, -1), ..Fetch::default() }.send(&mut connection).await;
    let gone = Fetch { session: (id, 3), ..waits() }.send(&mut connection).await;
    assert_eq!(gone.error_code, ResponseError::FetchSessionIdNotFound.code());
    drop(connection);
    node.end().await;
}

async fn list_offset(connection: &mut TcpStream, timestamp: i64) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(topic_name()).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let mut response: ListOffsetsResponse = call(connection, ApiKey::ListOffsets, 10, &request).await;
    response.topics.remove(0).partitions.remove(0)
}

/// Error code and low watermark.
async fn delete_records(connection: &mut TcpStream, offset: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(topic_name()).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_timeout_ms(PATIENCE_MS).with_topics(vec![topic]);
    let response: DeleteRecordsResponse = call(connection, ApiKey::DeleteRecords, 2, &request).await;
    let partition = &response.topics[0].partitions[0];
    (partition.error_code, partition.low_watermark)
}

#[tokio::test]
async fn deleted_records_are_gone() {
    let node = Node::alone(&[ANY_TIME]);
    let mut connection = node.connect_to(TOPIC).await;
    produce(&mut connection, 5).await;
    assert_eq!(list_offset(&mut connection, EARLIEST).await.offset, 0);
    assert_eq!(delete_records(&mut connection, 2).await, (0, 2));
    assert_eq!(list_offset(&mut connection, EARLIEST).await.offset, 2);
    assert_eq!(list_offset(&mut connection, 0).await.offset, 2, "the first that is left, by timestamp");
    let out_of_range = ResponseError::OffsetOutOfRange.code();
    assert_eq!(Fetch::default().partition(&mut connection).await.error_code, out_of_range);
    let left = Fetch { offset: Some(2), ..Fetch::default() }.partition(&mut connection).await;
    assert_eq!((left.log_start_offset, has_records(&left)), (2, true));
    assert_eq!(delete_records(&mut connection, 1).await, (0, 2), "gone already");
    assert_eq!(delete_records(&mut connection, 6).await, (out_of_range, -1));
    assert_eq!(delete_records(&mut connection, -1).await, (0, 5), "everything");
    let latest = list_offset(&mut connection, LATEST).await;
    assert_eq!((latest.offset, latest.timestamp), (5, -1));
    let epoch = latest.leader_epoch;
    assert!(epoch >= 0);
    assert_eq!(list_offset(&mut connection, EARLIEST).await.leader_epoch, epoch);
    drop(connection);
    node.end().await;
}

#[tokio::test]
async fn records_without_timestamps_grow_old_from_their_append_on() {
    let settings = ["log.retention.ms=3600000", "log.retention.check.interval.ms=100"];
    let node = Node::alone(&[ANY_TIME, settings[0], settings[1]]);
    let mut connection = node.connect_to(TOPIC).await;
    produce_at(&mut connection, &[1]).await;
    produce_at(&mut connection, &[-1, -1]).await;
    let start = until("retention", async || {
        let start = list_offset(&mut connection, EARLIEST).await.offset;
        (start > 0).then_some(start)
    })
    .await;
    assert_eq!(start, 1, "the old one is gone, and nothing else");
    drop(connection);
    node.end().await;
}

#[tokio::test]
async fn offsets_are_found_in_later_entries() {
    let node = Node::alone(&[ANY_TIME]);
    let mut connection = node.connect_to(TOPIC).await;
    produce_at(&mut connection, &[5000, 1000]).await;
    produce_at(&mut connection, &[-1]).await;
    produce_at(&mut connection, &[3000]).await;
    let found = async |connection: &mut _, timestamp| {
        let found = list_offset(connection, timestamp).await;
        (found.offset, found.timestamp)
    };
    assert_eq!(found(&mut connection, MAX_TIMESTAMP).await, (0, 5000));
    assert_eq!(found(&mut connection, 2000).await, (0, 5000));
    // The index knows the first entry as one with a later timestamp than any that is left in it.
    assert_eq!(delete_records(&mut connection, 1).await, (0, 1));
    assert_eq!(found(&mut connection, 2000).await, (3, 3000));
    assert_eq!(found(&mut connection, 1000).await, (1, 1000));
    assert_eq!(found(&mut connection, 6000).await, (-1, -1));
    drop(connection);
    node.end().await;
}

#[tokio::test]
async fn what_fills_no_answer_is_not_waited_for() {
    let node = Node::alone(&[ANY_TIME]);
    let mut connection = node.connect_to(TOPIC).await;
    produce(&mut connection, 1).await;
    produce(&mut connection, 1).await;
    // Room for one and a half of these batches, of which two are there.
    let one = Fetch { offset: Some(1), ..Fetch::default() }.partition(&mut connection).await;
    let bytes = one.records.unwrap().len() as i32 * 3 / 2;
    let full =
        Fetch { min_bytes: bytes, partition_max_bytes: bytes, max_wait_ms: i32::MAX, ..Fetch::default() };
    assert!(has_records(&full.partition(&mut connection).await));
    drop(connection);
    node.end().await;
}

#[tokio::test]
async fn what_is_compacted_is_not_deleted_on_demand() {
    let node = Node::alone(&[ANY_TIME]);
    let mut connection = node.connect().await;
    let policy = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("cleanup.policy"))
        .with_value(Some(StrBytes::from_static_str("compact")));
    let topic = CreatableTopic::default()
        .with_name(topic_name())
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(vec![policy]);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(PATIENCE_MS);
    let created: CreateTopicsResponse = call(&mut connection, ApiKey::CreateTopics, 6, &request).await;
    assert_eq!(created.topics[0].error_code, 0);
    let mut connection = node.connect_to(TOPIC).await;
    produce_at(&mut connection, &[1, 2]).await;
    let refused = ResponseError::PolicyViolation.code();
    assert_eq!(delete_records(&mut connection, 1).await, (refused, -1));
    assert_eq!(list_offset(&mut connection, EARLIEST).await.offset, 0);
    drop(connection);
    node.end().await;
}

#[tokio::test]
async fn the_topic_of_groups_does_not_grow() {
    let node = Node::alone(&["offsets.topic.num.partitions=2"]);
    let mut connection = node.connect_to("__consumer_offsets").await;
    let topic = CreatePartitionsTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("__consumer_offsets")))
        .with_count(3);
    let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(PATIENCE_MS);
    let refused: CreatePartitionsResponse =
        call(&mut connection, ApiKey::CreatePartitions, 3, &request).await;
    assert_eq!(refused.results[0].error_code, ResponseError::InvalidTopicException.code());
    drop(connection);
    node.end().await;
}

/// The same batch with compressed records.
fn compressed(batch: &Bytes) -> Bytes {
    const HEADER_BYTES: usize = 61;
    let mut out = batch[..HEADER_BYTES].to_vec();
    out.extend(zstd::encode_all(&batch[HEADER_BYTES..], 1).unwrap());
    let length = out.len() as i32 - 12;
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[21..23].copy_from_slice(&4i16.to_be_bytes());
    let checksum = crc32c::crc32c(&out[21..]);
    out[17..21].copy_from_slice(&checksum.to_be_bytes());
    out.into()
}

#[tokio::test]
async fn what_grows_when_it_is_stored_is_admitted_anew() {
    let settings = ["compression.type=uncompressed", "helix.produce.max.pending.bytes=1048576"];
    let node = Node::alone(&[ANY_TIME, "num.partitions=3", settings[0], settings[1]]);
    let mut connection = node.connect_to(TOPIC).await;
    let batch = compressed(&message::batch(MessageId { lane: 0, number: 0 }, 1, 600_000, NOBODY, -1));
    assert!(batch.len() < 10_000);
    let all = |partitions: Range<i32>| {
        let one =
            |number| PartitionProduceData::default().with_index(number).with_records(Some(batch.clone()));
        let topic = TopicProduceData::default()
            .with_name(topic_name())
            .with_partition_data(partitions.map(one).collect());
        ProduceRequest::default().with_acks(-1).with_timeout_ms(4000).with_topic_data(vec![topic])
    };
    for (partitions, codes) in [(0..1, vec![0]), (0..3, vec![0, NOT_ENOUGH_REPLICAS, NOT_ENOUGH_REPLICAS])] {
        let response: ProduceResponse = call(&mut connection, ApiKey::Produce, 11, &all(partitions)).await;
        let told = response.responses[0].partition_responses.iter().map(|one| one.error_code);
        assert_eq!(told.collect::<Vec<_>>(), codes);
    }
    drop(connection);
    node.end().await;
}

/// The leader's node number and the topic's id, once all three replicas are in sync.
async fn leader(connection: &mut TcpStream) -> (i32, Uuid) {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name()));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    until("three replicas in sync", async || {
        let metadata: MetadataResponse = call(connection, ApiKey::Metadata, 12, &request).await;
        let topic = &metadata.topics[0];
        let partition = topic.partitions.first()?;
        (partition.isr_nodes.len() == 3).then_some((partition.leader_id.0, topic.topic_id))
    })
    .await
}

#[tokio::test]
async fn consumers_read_in_their_own_rack() {
    let racks = ["a", "b", "c"];
    let settings =
        [ANY_TIME, "default.replication.factor=3", "replica.selector.class=RackAwareReplicaSelector"];
    let nodes = Node::cluster(&racks, &settings);
    let mut connections = Vec::new();
    for node in &nodes {
        connections.push(node.connect_to(TOPIC).await);
    }
    let (leader, _) = leader(&mut connections[0]).await;
    let (at_leader, at_follower) = (leader as usize - 1, leader as usize % 3);
    produce(&mut connections[at_leader], 3).await;
    let near = racks[at_follower];
    let to_rack = |rack, offset| Fetch { rack, offset: Some(offset), ..Fetch::default() };

    let sent_on = to_rack(near, 0).partition(&mut connections[at_leader]).await;
    assert_eq!((sent_on.error_code, sent_on.preferred_read_replica.0), (0, at_follower as i32 + 1));
    assert!(!has_records(&sent_on));
    for elsewhere in [racks[at_leader], "d", ""] {
        let served = to_rack(elsewhere, 0).partition(&mut connections[at_leader]).await;
        assert_eq!((served.preferred_read_replica.0, has_records(&served)), (-1, true), "{elsewhere}");
    }
    let beyond = to_rack(near, 4).partition(&mut connections[at_leader]).await;
    assert_eq!(beyond.error_code, ResponseError::OffsetOutOfRange.code(), "the leader says it itself");

    // The follower hears a little later what is committed, and that it is followed.
    let follower = &mut connections[at_follower];
    let read = until("records from the follower", async || {
        let read = to_rack(near, 0).partition(follower).await;
        has_records(&read).then_some(read)
    })
    .await;
    assert_eq!((read.high_watermark, read.preferred_read_replica.0), (3, -1));
    let ahead = to_rack(near, 4).partition(follower).await;
    assert_eq!((ahead.error_code, has_records(&ahead)), (0, false), "what it does not know of yet");

    // Who does not say where it is is sent to the leader.
    let mut refused = Fetch { version: 12, ..Fetch::default() }.send(follower).await;
    let partition = refused.responses.remove(0).partitions.remove(0);
    assert_eq!(partition.error_code, ResponseError::NotLeaderOrFollower.code());
    assert_eq!(partition.current_leader.leader_id.0, -1, "that version does not say who leads");
    drop(connections);
    for node in nodes {
        node.end().await;
    }
}

#[tokio::test]
async fn clients_are_told_who_leads() {
    let nodes = Node::cluster(&["a", "b", "c"], &[ANY_TIME, "default.replication.factor=3"]);
    let mut connections = Vec::new();
    for node in &nodes {
        connections.push(node.connect_to(TOPIC).await);
    }
    let (leader, topic_id) = leader(&mut connections[0]).await;
    let follower = &mut connections[leader as usize % 3];
    let moved = ResponseError::NotLeaderOrFollower.code();

    let written = try_produce(follower, 1).await;
    let partition = &written.responses[0].partition_responses[0];
    let (hint, endpoints) = (&partition.current_leader, &written.node_endpoints);
    assert_eq!((partition.error_code, hint.leader_id.0, endpoints[0].node_id.0), (moved, leader, leader));
    assert!(hint.leader_epoch > 0 && endpoints[0].port > 0);

    let fetched = Fetch { version: 16, topic_id, ..Fetch::default() }.send(follower).await;
    let partition = &fetched.responses[0].partitions[0];
    let (hint, endpoints) = (&partition.current_leader, &fetched.node_endpoints);
    assert_eq!((partition.error_code, hint.leader_id.0, endpoints[0].node_id.0), (moved, leader, leader));
    assert!(hint.leader_epoch > 0 && endpoints[0].port > 0);
    drop(connections);
    for node in nodes {
        node.end().await;
    }
}
