//! Administration over the wire, on whole nodes in this process: configurations that take effect on live topics, and what tools
//! ask to show how things stand.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod support;

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ApiKey, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeProducersRequest, DescribeProducersResponse,
    DescribeQuorumRequest, DescribeQuorumResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, ElectLeadersRequest, ElectLeadersResponse, FetchRequest, FetchResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, ListConfigResourcesRequest, ListConfigResourcesResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, ProduceRequest,
    ProduceResponse, TopicName, alter_configs_request, describe_producers_request, describe_quorum_request,
    describe_topic_partitions_request, elect_leaders_request,
};
use kafka_protocol::protocol::StrBytes;
use support::node::{Node, call, free_address, until};
use tokio::net::TcpStream;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const NONE: i16 = 0;
const MESSAGE_TOO_LARGE: i16 = 10;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const INVALID_TOPIC: i16 = 17;
const RECORD_LIST_TOO_LARGE: i16 = 18;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const POLICY_VIOLATION: i16 = 44;
const PREFERRED_LEADER_NOT_AVAILABLE: i16 = 80;
const ELECTION_NOT_NEEDED: i16 = 84;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A batch of one record that an idempotent producer wrote, or nobody in particular.
fn batch(value_bytes: usize, producer: Option<(i64, i32)>) -> Bytes {
    let mut record = vec![0, 0, 0, 1]; // attributes, timestamp and offset deltas, no key
    put_varint(&mut record, value_bytes);
    record.extend(std::iter::repeat_n(b'x', value_bytes));
    record.push(0); // no headers
    let mut records = Vec::new();
    put_varint(&mut records, record.len());
    records.extend_from_slice(&record);
    let (producer_id, sequence) = producer.unwrap_or((-1, -1));
    let mut checked = BytesMut::new();
    checked.put_i16(0);
    checked.put_i32(0);
    checked.put_i64(1000);
    checked.put_i64(1000);
    checked.put_i64(producer_id);
    checked.put_i16(if producer.is_some() { 0 } else { -1 });
    checked.put_i32(sequence);
    checked.put_i32(1);
    checked.extend_from_slice(&records);
    let mut out = BytesMut::new();
    out.put_i64(0);
    out.put_i32(9 + checked.len() as i32);
    out.put_i32(-1);
    out.put_i8(2);
    out.put_u32(crc32c::crc32c(&checked));
    out.extend_from_slice(&checked);
    out.freeze()
}

/// A zigzag number of variable length.
fn put_varint(out: &mut Vec<u8>, value: usize) {
    let mut left = value << 1;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

/// A client of one node.
struct Client {
    connection: TcpStream,
}

impl Client {
    async fn of(node: &Node) -> Self {
        Self { connection: node.connect().await }
    }

    async fn create(
        &mut self,
        topic: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> CreateTopicsResponse {
        let config = |(name, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(topic)))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(configs.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        call(&mut self.connection, ApiKey::CreateTopics, 7, &request).await
    }

    async fn produce(&mut self, topic: &str, records: Bytes) -> PartitionProduceResponse {
        let partition = PartitionProduceData::default().with_index(0).with_records(Some(records));
        let topic = TopicProduceData::default()
            .with_name(TopicName(text(topic)))
            .with_partition_data(vec![partition]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
        let mut response: ProduceResponse = call(&mut self.connection, ApiKey::Produce, 9, &request).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    /// What producing a small batch comes to.
    async fn produce_small(&mut self, topic: &str) -> i16 {
        self.produce(topic, batch(10, None)).await.error_code
    }

    async fn alter(&mut self, resource: (i8, &str), changes: &[(&str, i8, Option<&str>)]) -> (i16, String) {
        let change = |(name, operation, value): &(&str, i8, Option<&str>)| {
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(*operation)
                .with_value(value.map(text))
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(resource.0)
            .with_resource_name(text(resource.1))
            .with_configs(changes.iter().map(change).collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let response: IncrementalAlterConfigsResponse =
            call(&mut self.connection, ApiKey::IncrementalAlterConfigs, 1, &request).await;
        let result = &response.responses[0];
        (result.error_code, result.error_message.as_ref().map(ToString::to_string).unwrap_or_default())
    }

    async fn set(&mut self, topic: &str, name: &str, value: &str) {
        assert_eq!(self.alter((TOPIC, topic), &[(name, SET, Some(value))]).await, (NONE, String::new()));
    }

    async fn describe(&mut self, kind: i8, name: &str, key: &str) -> DescribeConfigsResourceResult {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(Some(vec![text(key)]));
        let request = DescribeConfigsRequest::default()
            .with_resources(vec![resource])
            .with_include_synonyms(true)
            .with_include_documentation(true);
        let mut response: DescribeConfigsResponse =
            call(&mut self.connection, ApiKey::DescribeConfigs, 4, &request).await;
        let mut result = response.results.remove(0);
        assert_eq!((result.error_code, result.configs.len()), (NONE, 1), "{key}");
        result.configs.remove(0)
    }

    /// The value of a configuration and the number of its source.
    async fn value(&mut self, kind: i8, name: &str, key: &str) -> (String, i8) {
        let entry = self.describe(kind, name, key).await;
        (entry.value.unwrap().to_string(), entry.config_source)
    }
}

fn is(expected: i16, code: i16) -> Option<()> {
    (code == expected).then_some(())
}

/// A single node with a topic of one partition.
async fn node_with_topic(directory: &Path, more: &[&str]) -> (Node, Client) {
    let node = Node::single(directory, more);
    let mut client = Client::of(&node).await;
    let created = client.create("t", 1, 1, &[]).await;
    assert_eq!(created.topics[0].error_code, NONE);
    until("a leader", async || (client.produce_small("t").await == NONE).then_some(())).await;
    (node, client)
}

#[tokio::test]
async fn what_is_altered_on_a_topic_is_in_force_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    client.set("t", "max.message.bytes", "200").await;
    until("a limit on batches", async || {
        is(MESSAGE_TOO_LARGE, client.produce("t", batch(500, None)).await.error_code)
    })
    .await;
    assert_eq!(client.produce_small("t").await, NONE);
    assert_eq!(client.alter((TOPIC, "t"), &[("max.message.bytes", DELETE, None)]).await.0, NONE);
    until("no limit", async || is(NONE, client.produce("t", batch(500, None)).await.error_code)).await;

    client.set("t", "max.message.bytes", "3000000").await;
    client.set("t", "segment.bytes", "1048576").await;
    until("a limit on what fits into a segment", async || {
        is(RECORD_LIST_TOO_LARGE, client.produce("t", batch(1_100_000, None)).await.error_code)
    })
    .await;

    client.set("t", "min.insync.replicas", "2").await;
    until("a refusal", async || is(NOT_ENOUGH_REPLICAS, client.produce_small("t").await)).await;
    client.set("t", "min.insync.replicas", "1").await;
    until("no refusal", async || is(NONE, client.produce_small("t").await)).await;

    client.set("t", "message.timestamp.type", "LogAppendTime").await;
    until("the broker's time", async || {
        (client.produce("t", batch(10, None)).await.log_append_time_ms > 1000).then_some(())
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn records_are_deleted_of_topics_alone_whose_records_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(1);
    let topic =
        DeleteRecordsTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    for (policy, code) in [("compact", POLICY_VIOLATION), ("compact,delete", NONE)] {
        client.set("t", "cleanup.policy", policy).await;
        until(policy, async || {
            let told: DeleteRecordsResponse =
                call(&mut client.connection, ApiKey::DeleteRecords, 2, &request).await;
            let told = &told.topics[0].partitions[0];
            let low_watermark = if code == NONE { 1 } else { -1 };
            ((told.error_code, told.low_watermark) == (code, low_watermark)).then_some(())
        })
        .await;
    }
    node.end().await;
}

#[tokio::test]
async fn a_kind_of_resource_that_nobody_knows_spoils_the_request() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let resource = |kind: i8, name: &str| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    };
    for (resources, expected) in [
        (vec![resource(TOPIC, "t"), resource(99, "u")], vec![INVALID_REQUEST; 2]),
        (vec![resource(TOPIC, "t"), resource(TOPIC, "")], vec![NONE, INVALID_TOPIC]),
    ] {
        let request = DescribeConfigsRequest::default().with_resources(resources);
        let told: DescribeConfigsResponse =
            call(&mut client.connection, ApiKey::DescribeConfigs, 4, &request).await;
        let codes: Vec<i16> = told.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, expected);
    }
    node.end().await;
}

/// The attributes of the batch at this offset.
async fn attributes(client: &mut Client, topic: &str, offset: i64) -> i16 {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![partition]);
    let request =
        FetchRequest::default().with_max_wait_ms(0).with_max_bytes(1 << 20).with_topics(vec![topic]);
    let response: FetchResponse = call(&mut client.connection, ApiKey::Fetch, 11, &request).await;
    let records = response.responses[0].partitions[0].records.clone().unwrap();
    i16::from_be_bytes([records[21], records[22]])
}

#[tokio::test]
async fn records_are_compressed_as_their_topic_wants_it() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    for (name, code) in [("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4), ("uncompressed", 0)] {
        client.set("t", "compression.type", name).await;
        until(name, async || {
            let produced = client.produce("t", batch(1000, None)).await;
            (attributes(&mut client, "t", produced.base_offset).await & 7 == code).then_some(())
        })
        .await;
    }
    node.end().await;
}

#[tokio::test]
async fn what_helix_does_not_do_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let refused = client.alter((TOPIC, "t"), &[("max.compaction.lag.ms", SET, Some("5"))]).await;
    assert_eq!(refused.0, INVALID_CONFIG);
    assert!(refused.1.contains("does not compact"), "{}", refused.1);
    let appended = client.alter((TOPIC, "t"), &[("cleanup.policy", APPEND, Some("compact"))]).await;
    assert_eq!(appended.0, 0, "{}", appended.1);
    let (code, message) = client.alter((TOPIC, "t"), &[("flush.messages", SET, Some("1"))]).await;
    assert_eq!(code, INVALID_CONFIG);
    assert!(message.contains("helix.write.durability=fsync"), "{message}");
    let twice = [("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))];
    assert_eq!(client.alter((TOPIC, "t"), &twice).await.0, INVALID_REQUEST);
    assert_eq!(client.alter((TOPIC, "t"), &[("retention.ms", SET, None)]).await.0, INVALID_REQUEST);
    let read_only = client.alter((BROKER, "1"), &[("num.partitions", SET, Some("2"))]).await;
    assert_eq!(read_only.0, INVALID_REQUEST);
    assert!(read_only.1.contains("Set(num.partitions)"), "{}", read_only.1);
    assert_eq!(
        client.alter((BROKER, "7"), &[("message.max.bytes", SET, Some("2"))]).await.0,
        INVALID_REQUEST
    );
    assert_eq!(client.alter((32, "group"), &[("x", SET, Some("2"))]).await.0, INVALID_REQUEST);
    assert_eq!(client.value(TOPIC, "t", "retention.ms").await, ("604800000".to_owned(), 5));
    node.end().await;
}

#[tokio::test]
async fn brokers_are_altered_one_by_one_and_all_at_once_and_stay_so() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &["--set", "message.max.bytes=5000"]).await;
    assert_eq!(client.value(BROKER, "1", "message.max.bytes").await, ("5000".to_owned(), 4));
    let all = client.alter((BROKER, ""), &[("message.max.bytes", SET, Some("4000"))]).await;
    assert_eq!(all.0, NONE);
    until("the altered value", async || {
        (client.value(BROKER, "1", "message.max.bytes").await == ("4000".to_owned(), 3)).then_some(())
    })
    .await;
    let one = client.alter((BROKER, "1"), &[("message.max.bytes", SET, Some("300"))]).await;
    assert_eq!(one.0, NONE);
    until("the topic's limit", async || {
        let code = client.produce("t", batch(1000, None)).await.error_code;
        (code == MESSAGE_TOO_LARGE).then_some(())
    })
    .await;
    assert_eq!(client.value(TOPIC, "t", "max.message.bytes").await, ("300".to_owned(), 2));
    let of_all = client.describe(BROKER, "", "message.max.bytes").await;
    assert_eq!((of_all.value.as_deref(), of_all.config_source), (Some("4000"), 3));
    node.end().await;

    let node = Node::single(directory.path(), &[]);
    let mut client = Client::of(&node).await;
    until("what was altered before the restart", async || {
        let entry = client.describe(BROKER, "1", "message.max.bytes").await;
        (entry.value.as_deref() == Some("300") && entry.synonyms.len() == 3).then_some(())
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn topics_follow_what_the_brokers_say_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &["--set", "log.segment.bytes=1048576"]).await;
    client.set("t", "max.message.bytes", "3000000").await;
    until("a limit from the start", async || {
        is(RECORD_LIST_TOO_LARGE, client.produce("t", batch(1_100_000, None)).await.error_code)
    })
    .await;
    assert_eq!(client.value(TOPIC, "t", "segment.bytes").await, ("1048576".to_owned(), 4));

    let larger = [("log.segment.bytes", SET, Some("2097152"))];
    assert_eq!(client.alter((BROKER, ""), &larger).await, (NONE, String::new()));
    until("a higher limit", async || is(NONE, client.produce("t", batch(1_100_000, None)).await.error_code))
        .await;
    assert_eq!(client.value(TOPIC, "t", "segment.bytes").await, ("2097152".to_owned(), 3));
    assert_eq!(client.alter((BROKER, ""), &[("log.segment.bytes", DELETE, None)]).await.0, NONE);
    until("the limit from the start", async || {
        is(RECORD_LIST_TOO_LARGE, client.produce("t", batch(1_100_000, None)).await.error_code)
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn a_topic_chooses_how_safely_it_is_written() {
    const SYNCED: &str = "helix_wal_appends_synced_total";
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let before = node.metric(SYNCED).await.unwrap();
    assert_eq!(client.produce_small("t").await, NONE);
    assert_eq!(node.metric(SYNCED).await.unwrap(), before, "the node does not sync before it acknowledges");
    client.set("t", "helix.write.durability", "fsync").await;
    until("a write that waits for a sync", async || {
        let before = node.metric(SYNCED).await.unwrap();
        assert_eq!(client.produce_small("t").await, NONE);
        (node.metric(SYNCED).await.unwrap() > before).then_some(())
    })
    .await;
    node.end().await;

    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &["--write-durability", "fsync"]).await;
    assert_eq!(client.value(TOPIC, "t", "helix.write.durability").await, ("fsync".to_owned(), 4));
    client.set("t", "helix.write.durability", "replication-only").await;
    until("a write that waits for no sync", async || {
        let before = node.metric(SYNCED).await.unwrap();
        assert_eq!(client.produce_small("t").await, NONE);
        (node.metric(SYNCED).await.unwrap() == before).then_some(())
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn a_created_topic_tells_its_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let created = client.create("u", 2, 1, &[("retention.ms", "777")]).await;
    let topic = &created.topics[0];
    assert_eq!((topic.error_code, topic.num_partitions, topic.replication_factor), (NONE, 2, 1));
    let configs = topic.configs.as_ref().unwrap();
    let retention = configs.iter().find(|config| config.name.as_str() == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("777"), 1));
    let policy = configs.iter().find(|config| config.name.as_str() == "cleanup.policy").unwrap();
    assert_eq!((policy.value.as_deref(), policy.config_source), (Some("delete"), 5));

    // The older API replaces everything.
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("retention.bytes"))
        .with_value(Some(text("5")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("u"))
        .with_configs(vec![config]);
    for (validate_only, retention) in [(true, "777"), (false, "604800000")] {
        let request = AlterConfigsRequest::default()
            .with_resources(vec![resource.clone()])
            .with_validate_only(validate_only);
        let altered: AlterConfigsResponse =
            call(&mut client.connection, ApiKey::AlterConfigs, 2, &request).await;
        assert_eq!(altered.responses[0].error_code, NONE);
        assert_eq!(client.value(TOPIC, "u", "retention.ms").await.0, retention);
    }
    let twice = AlterConfigsRequest::default().with_resources(vec![resource.clone(), resource]);
    let refused: AlterConfigsResponse = call(&mut client.connection, ApiKey::AlterConfigs, 2, &twice).await;
    assert_eq!(refused.responses.iter().map(|r| r.error_code).collect::<Vec<_>>(), [INVALID_REQUEST; 2]);
    node.end().await;
}

#[tokio::test]
async fn tools_are_told_how_things_stand() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    client.create("u", 3, 1, &[]).await;

    let asked = |name: &str| {
        describe_topic_partitions_request::TopicRequest::default().with_name(TopicName(text(name)))
    };
    let mut request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![asked("u"), asked("t"), asked("missing")])
        .with_response_partition_limit(2);
    let mut told = Vec::new();
    loop {
        let page: DescribeTopicPartitionsResponse =
            call(&mut client.connection, ApiKey::DescribeTopicPartitions, 0, &request).await;
        for topic in &page.topics {
            let name = topic.name.as_ref().unwrap().to_string();
            told.push((
                name,
                topic.error_code,
                topic.partitions.iter().map(|p| p.partition_index).collect::<Vec<_>>(),
            ));
        }
        let Some(next) = page.next_cursor else { break };
        let cursor = describe_topic_partitions_request::Cursor::default()
            .with_topic_name(next.topic_name)
            .with_partition_index(next.partition_index);
        request.cursor = Some(cursor);
    }
    let elsewhere =
        describe_topic_partitions_request::Cursor::default().with_topic_name(TopicName(text("a")));
    let request = request.with_cursor(Some(elsewhere));
    let refused: DescribeTopicPartitionsResponse =
        call(&mut client.connection, ApiKey::DescribeTopicPartitions, 0, &request).await;
    let codes: Vec<i16> = refused.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [INVALID_REQUEST; 3], "none of the topics is where the cursor is");
    let expected = [("missing", 3, vec![]), ("t", 0, vec![0]), ("u", 0, vec![0]), ("u", 0, vec![1, 2])];
    assert_eq!(told, expected.map(|(name, code, partitions)| (name.to_owned(), code, partitions)));

    assert_eq!(client.produce("t", batch(10_000, Some((77, 0)))).await.error_code, NONE);
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(TopicName(text("t")))
        .with_partition_indexes(vec![0, 5]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let told: DescribeProducersResponse =
        call(&mut client.connection, ApiKey::DescribeProducers, 0, &request).await;
    let partitions = &told.topics[0].partitions;
    let producer = &partitions[0].active_producers[0];
    assert_eq!((producer.producer_id.0, producer.last_sequence, producer.producer_epoch), (77, 0, 0));
    assert_eq!(partitions[1].error_code, 3);

    let request = DescribeLogDirsRequest::default().with_topics(None);
    let told: DescribeLogDirsResponse =
        call(&mut client.connection, ApiKey::DescribeLogDirs, 4, &request).await;
    let [dir] = &told.results[..] else { panic!("one directory") };
    assert!(dir.total_bytes >= dir.usable_bytes && dir.usable_bytes > 0);
    assert_eq!(dir.log_dir.as_str(), directory.path().to_str().unwrap());
    let of = |name: &str| dir.topics.iter().find(|topic| topic.name.as_str() == name).unwrap();
    assert!(of("t").partitions[0].partition_size > 10_000);
    assert_eq!(of("u").partitions.len(), 3);

    let request = ListConfigResourcesRequest::default();
    let told: ListConfigResourcesResponse =
        call(&mut client.connection, ApiKey::ListConfigResources, 1, &request).await;
    let mut names: Vec<_> =
        told.config_resources.iter().map(|r| (r.resource_type, r.resource_name.to_string())).collect();
    names.sort();
    assert_eq!(names, [(2, "t"), (2, "u"), (4, "1")].map(|(kind, name)| (kind, name.to_owned())));
    node.end().await;
}

/// What a request of a few bytes could make of a node's memory, if every mention in it were answered.
#[tokio::test]
async fn answers_end_where_there_is_no_room_for_more() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;

    // Each is answered by dozens of entries: 80,000 of them would be gigabytes.
    let broker = DescribeConfigsResource::default().with_resource_type(BROKER).with_resource_name(text("1"));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![broker; 80_000])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let told: DescribeConfigsResponse =
        call(&mut client.connection, ApiKey::DescribeConfigs, 4, &request).await;
    assert_eq!(told.results.len(), 80_000);
    let answered = told.results.iter().take_while(|result| result.error_code == NONE).count();
    assert!((100..80_000).contains(&answered), "{answered}");
    assert!(told.results[..answered].iter().all(|result| !result.configs.is_empty()));
    for refused in &told.results[answered..] {
        assert_eq!((refused.error_code, refused.configs.len()), (INVALID_REQUEST, 0));
        assert!(refused.error_message.as_ref().unwrap().contains("ask for less"));
    }
    drop(told);

    // A topic is told of its configuration even where it is only checked whether it could be made.
    let topic = |number: i32| {
        let topic = CreatableTopic::default().with_name(TopicName(text(&format!("v{number}"))));
        topic.with_num_partitions(1).with_replication_factor(1)
    };
    let request = CreateTopicsRequest::default()
        .with_topics((0..20_000).map(topic).collect())
        .with_timeout_ms(30_000)
        .with_validate_only(true);
    let told: CreateTopicsResponse = call(&mut client.connection, ApiKey::CreateTopics, 7, &request).await;
    let (first, last) = (&told.topics[0], &told.topics[19_999]);
    assert_eq!((first.error_code, first.topic_config_error_code, last.error_code), (NONE, NONE, NONE));
    assert_eq!((last.topic_config_error_code, last.configs.as_ref()), (INVALID_REQUEST, None));
    assert!(!first.configs.as_ref().unwrap().is_empty());

    assert_eq!(client.value(BROKER, "1", "node.id").await.0, "1", "the room is there again");
    until("all room is given back", async || {
        (node.metric("helix_budget_used{budget=\"answers\"}").await? == 0.0).then_some(())
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn a_group_whose_offsets_are_asked_for_many_times_is_told_while_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(7)
        .with_committed_metadata(Some(text(&"m".repeat(4000))));
    let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text("t")));
    let commit = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(vec![topic.with_partitions(vec![partition])]);
    until("a coordinator that takes an offset", async || {
        let request = FindCoordinatorRequest::default().with_key(text("g"));
        let _: FindCoordinatorResponse =
            call(&mut client.connection, ApiKey::FindCoordinator, 3, &request).await;
        let told: OffsetCommitResponse = call(&mut client.connection, ApiKey::OffsetCommit, 8, &commit).await;
        is(NONE, told.topics[0].partitions[0].error_code)
    })
    .await;

    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group; 20_000]);
    let told: OffsetFetchResponse = call(&mut client.connection, ApiKey::OffsetFetch, 9, &request).await;
    let answered = told.groups.iter().take_while(|group| group.error_code == NONE).count();
    assert!((1000..20_000).contains(&answered), "{answered}");
    assert!(told.groups[..answered].iter().all(|group| group.topics[0].partitions[0].committed_offset == 7));
    let rest = &told.groups[answered..];
    assert_eq!(rest.len(), 20_000 - answered);
    assert!(
        rest.iter().all(|group| group.error_code == COORDINATOR_LOAD_IN_PROGRESS && group.topics.is_empty())
    );
    drop(told);

    let topic = OffsetFetchRequestTopic::default().with_name(TopicName(text("t")));
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![topic.with_partition_indexes(vec![0; 100_000])]));
    let told: OffsetFetchResponse = call(&mut client.connection, ApiKey::OffsetFetch, 7, &request).await;
    let partitions = &told.topics[0].partitions;
    assert_eq!((told.error_code, partitions.len(), partitions[0].committed_offset), (NONE, 1, 7));
    node.end().await;
}

#[tokio::test]
async fn each_mention_of_a_partition_is_answered_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let asked = |topic: &str, partitions: Vec<i32>| {
        elect_leaders_request::TopicPartitions::default()
            .with_topic(TopicName(text(topic)))
            .with_partitions(partitions)
    };
    let topics = vec![asked("t", vec![0, 9, 0]), asked("missing", vec![0]), asked("t", vec![0; 100_000])];
    let request = ElectLeadersRequest::default().with_topic_partitions(Some(topics)).with_timeout_ms(30_000);
    let told: ElectLeadersResponse = call(&mut client.connection, ApiKey::ElectLeaders, 2, &request).await;
    let codes: Vec<(String, Vec<i16>)> = told
        .replica_election_results
        .iter()
        .map(|topic| {
            let codes = topic.partition_result.iter().map(|partition| partition.error_code);
            (topic.topic.to_string(), codes.collect())
        })
        .collect();
    const UNKNOWN: i16 = 3;
    let expected = [
        ("t", vec![ELECTION_NOT_NEEDED, UNKNOWN, ELECTION_NOT_NEEDED]),
        ("missing", vec![UNKNOWN]),
        ("t", vec![ELECTION_NOT_NEEDED; 100_000]),
    ];
    assert_eq!(codes, expected.map(|(topic, codes)| (topic.to_owned(), codes)));

    let request = ElectLeadersRequest::default()
        .with_election_type(7)
        .with_topic_partitions(Some(vec![asked("t", vec![0, 0])]))
        .with_timeout_ms(30_000);
    let told: ElectLeadersResponse = call(&mut client.connection, ApiKey::ElectLeaders, 2, &request).await;
    let partitions = &told.replica_election_results[0].partition_result;
    assert_eq!((told.error_code, partitions.len()), (INVALID_REQUEST, 2));
    assert!(partitions.iter().all(|partition| partition.error_code == INVALID_REQUEST));
    node.end().await;
}

#[tokio::test]
async fn no_change_of_a_list_is_lost_to_another_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let mut other = Client::of(&node).await;
    let name = "cleanup.policy";
    let change = async |client: &mut Client, operation: i8, word: &str| {
        let outcome = client.alter((TOPIC, "t"), &[(name, operation, Some(word))]).await;
        assert_eq!(outcome, (NONE, String::new()));
    };
    for _ in 0..20 {
        client.set("t", name, "delete").await;
        tokio::join!(change(&mut client, APPEND, "compact"), change(&mut other, SUBTRACT, "delete"));
        assert_eq!(client.value(TOPIC, "t", name).await.0, "compact");
    }
    assert_eq!(client.alter((TOPIC, "t"), &[(name, DELETE, None)]).await.0, NONE);
    change(&mut client, APPEND, "compact").await;
    assert_eq!(client.value(TOPIC, "t", name).await.0, "delete,compact", "of what is inherited");
    let (code, message) = client.alter((TOPIC, "t"), &[(name, APPEND, Some("shred"))]).await;
    assert_eq!(code, INVALID_CONFIG, "{message}");
    let (code, message) = client.alter((TOPIC, "t"), &[("retention.ms", SUBTRACT, Some("1"))]).await;
    assert_eq!((code, message.contains("not LIST")), (INVALID_CONFIG, true), "{message}");

    // Of a broker's list too.
    let of_brokers = [("log.cleanup.policy", APPEND, Some("compact"))];
    assert_eq!(client.alter((BROKER, ""), &of_brokers).await, (NONE, String::new()));
    assert_eq!(client.value(BROKER, "", "log.cleanup.policy").await.0, "delete,compact");
    let shredded = [("log.cleanup.policy", APPEND, Some("shred"))];
    let (code, message) = client.alter((BROKER, "1"), &shredded).await;
    assert_eq!((code, message.contains("shred")), (INVALID_REQUEST, true), "{message}");
    node.end().await;
}

/// Nodes 1 to 3 of one cluster.
struct Cluster {
    directories: Vec<tempfile::TempDir>,
    addresses: Vec<[String; 2]>,
    peers: String,
}

impl Cluster {
    fn new() -> Self {
        let peers: Vec<String> = (1..=3).map(|id| format!("{id}@{}", free_address())).collect();
        Self {
            directories: (0..3).map(|_| tempfile::tempdir().unwrap()).collect(),
            addresses: (0..3).map(|_| [free_address(), free_address()]).collect(),
            peers: peers.join(","),
        }
    }

    fn start(&self, number: usize) -> Node {
        let [kafka, http] = &self.addresses[number];
        let id = (number + 1).to_string();
        Node::start(
            self.directories[number].path(),
            [kafka, http],
            &["--node-id", &id, "--peers", &self.peers],
        )
    }
}

/// Who leads the only partition, as a node knows it, and who is in sync with it.
async fn leader(client: &mut Client) -> (i32, Vec<i32>) {
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![
            describe_topic_partitions_request::TopicRequest::default().with_name(TopicName(text("t"))),
        ])
        .with_response_partition_limit(10);
    let told: DescribeTopicPartitionsResponse =
        call(&mut client.connection, ApiKey::DescribeTopicPartitions, 0, &request).await;
    let Some(partition) = told.topics[0].partitions.first() else { return (-1, Vec::new()) };
    let mut in_sync: Vec<i32> = partition.isr_nodes.iter().map(|node| node.0).collect();
    in_sync.sort_unstable();
    (partition.leader_id.0, in_sync)
}

async fn elect(client: &mut Client) -> i16 {
    let partitions = elect_leaders_request::TopicPartitions::default()
        .with_topic(TopicName(text("t")))
        .with_partitions(vec![0]);
    let request =
        ElectLeadersRequest::default().with_topic_partitions(Some(vec![partitions])).with_timeout_ms(30_000);
    let told: ElectLeadersResponse = call(&mut client.connection, ApiKey::ElectLeaders, 2, &request).await;
    told.replica_election_results[0].partition_result[0].error_code
}

#[tokio::test]
async fn leadership_goes_back_to_whom_it_is_meant_for() {
    let cluster = Cluster::new();
    let mut nodes: Vec<Option<Node>> = (0..3).map(|number| Some(cluster.start(number))).collect();
    let mut clients = Vec::new();
    for node in nodes.iter().flatten() {
        clients.push(Client::of(node).await);
    }
    until("a topic", async || {
        let created = clients[0].create("t", 1, 3, &[]).await;
        [NONE, 36].contains(&created.topics[0].error_code).then_some(()) // 36: it exists already
    })
    .await;
    let preferred = until("a leader that all follow", async || {
        let (leader, in_sync) = leader(&mut clients[0]).await;
        (leader > 0 && in_sync == [1, 2, 3]).then_some(leader)
    })
    .await;
    assert_eq!(elect(&mut clients[0]).await, ELECTION_NOT_NEEDED);

    let away = preferred as usize - 1;
    let (other, third) = ((away + 1) % 3, (away + 2) % 3);
    nodes[away].take().unwrap().end().await;
    let leads_now = until("another leader", async || {
        let (leader, _) = leader(&mut clients[other]).await;
        (leader > 0 && leader != preferred).then_some(leader)
    })
    .await;
    nodes[away] = Some(cluster.start(away));
    // Whoever does not lead the partition has to ask the one that does.
    let asked = if leads_now as usize - 1 == other { third } else { other };
    until("an election", async || {
        let code = elect(&mut clients[asked]).await;
        assert!([NONE, PREFERRED_LEADER_NOT_AVAILABLE].contains(&code), "{code}");
        is(NONE, code)
    })
    .await;
    for client in [other, third] {
        until("the preferred leader", async || {
            (leader(&mut clients[client]).await.0 == preferred).then_some(())
        })
        .await;
        assert_eq!(elect(&mut clients[client]).await, ELECTION_NOT_NEEDED);
    }

    let partition = describe_quorum_request::PartitionData::default().with_partition_index(0);
    let topic = describe_quorum_request::TopicData::default()
        .with_topic_name(TopicName(text("__cluster_metadata")))
        .with_partitions(vec![partition]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    for client in [other, third] {
        let connection = &mut clients[client].connection;
        let told: DescribeQuorumResponse = call(connection, ApiKey::DescribeQuorum, 2, &request).await;
        let partition = &told.topics[0].partitions[0];
        assert_eq!(partition.error_code, NONE);
        let mut voters: Vec<i32> = partition.current_voters.iter().map(|voter| voter.replica_id.0).collect();
        voters.sort_unstable();
        assert_eq!((voters, told.nodes.len()), (vec![1, 2, 3], 3));
        let leader = partition.current_voters.iter().find(|voter| voter.replica_id == partition.leader_id);
        assert!(leader.unwrap().log_end_offset >= partition.high_watermark && partition.high_watermark > 1);
    }
    for node in nodes.into_iter().flatten() {
        node.end().await;
    }
}
