//! Administration over the wire, on whole nodes in this process: configurations that take effect on live topics, and what tools
//! ask to show how things stand.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod answers;
mod cluster;
mod configs;
#[path = "../support/mod.rs"]
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
const TOPIC_EXISTS: i16 = 36;
const INVALID_CONFIG: i16 = 40;
const INVALID_REQUEST: i16 = 42;
const POLICY_VIOLATION: i16 = 44;
const PREFERRED_LEADER_NOT_AVAILABLE: i16 = 80;
const INVALID_RECORD: i16 = 87;
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
