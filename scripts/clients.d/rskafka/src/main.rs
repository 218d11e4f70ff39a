//! rskafka: pure Rust, without groups, and with a client per partition.

#[path = "../../common/harness.rs"]
mod harness;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use harness::{Cannot, Client, DEADLINE, Message, Result, Source, WINDOW};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client as Connection, ClientBuilder};
use rskafka::record::{Record, RecordAndOffset};
use tokio::runtime::Runtime;

const NO_GROUPS: Cannot = Cannot("the client has no groups");
const TIMEOUT_MS: i32 = 30_000;
const FETCH_BYTES: std::ops::Range<i32> = 1..1_000_000;
const MAX_WAIT_MS: i32 = 200;

struct Rskafka {
    runtime: Runtime,
    connection: Connection,
}

impl Rskafka {
    fn connect(bootstrap: Vec<String>) -> Result<Self> {
        let runtime = Runtime::new()?;
        let connection = runtime.block_on(ClientBuilder::new(bootstrap).build())?;
        Ok(Self { runtime, connection })
    }

    /// Waits for what the client does, which retries for ever by default.
    fn within<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
        what: impl Future<Output = std::result::Result<T, E>>,
    ) -> Result<T> {
        let waited = self.runtime.block_on(async { tokio::time::timeout(2 * DEADLINE, what).await });
        waited.map_err(|_| format!("waited {:?}", 2 * DEADLINE))?.map_err(Into::into)
    }

    fn partition(&self, topic: &str, partition: i32) -> Result<Arc<PartitionClient>> {
        Ok(Arc::new(self.within(self.connection.partition_client(
            topic,
            partition,
            UnknownTopicHandling::Retry,
        ))?))
    }

    fn read_partition(&self, topic: &str, partition: i32, from: OffsetAt) -> Result<Vec<Message>> {
        let client = self.partition(topic, partition)?;
        let mut next = self.within(client.get_offset(from))?;
        let end = self.within(client.get_offset(OffsetAt::Latest))?;
        let mut messages = Vec::new();
        while next < end {
            let (records, _) = self.within(client.fetch_records(next, FETCH_BYTES, MAX_WAIT_MS))?;
            next = records.last().map_or(next, |last| last.offset + 1);
            messages.extend(records.into_iter().map(|record| message_of(partition, record)));
        }
        Ok(messages)
    }
}

fn text(bytes: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn message_of(partition: i32, RecordAndOffset { record, offset }: RecordAndOffset) -> Message {
    Message {
        partition,
        offset,
        key: text(record.key),
        value: text(record.value),
        headers: record.headers.into_iter().map(|(key, value)| (key, text(Some(value)))).collect(),
        timestamp_ms: Some(record.timestamp.timestamp_millis()),
    }
}

fn record_of(message: &Message) -> Record {
    Record {
        key: (!message.key.is_empty()).then(|| message.key.clone().into_bytes()),
        value: Some(message.value.clone().into_bytes()),
        headers: message
            .headers
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into_bytes()))
            .collect(),
        timestamp: message.timestamp_ms.and_then(DateTime::from_timestamp_millis).unwrap_or_else(Utc::now),
    }
}

fn compression(codec: &str) -> Compression {
    match codec {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => Compression::NoCompression,
    }
}

impl Client for Rskafka {
    fn idempotent(&self) -> bool {
        false
    }

    fn create_topic(&self, topic: &str, partitions: i32) -> Result {
        self.within(self.connection.controller_client()?.create_topic(topic, partitions, -1, TIMEOUT_MS))
    }

    fn partition_count(&self, topic: &str) -> Result<usize> {
        let topics = self.within(self.connection.list_topics())?;
        Ok(topics.into_iter().find(|one| one.name == topic).map_or(0, |found| found.partitions.len()))
    }

    /// It tells nobody; who started the cluster knows.
    fn leader(&self, topic: &str, _: i32) -> Result<i32> {
        Ok(harness::control(&["leader", topic])?.parse()?)
    }

    fn add_partitions(&self, _: &str, _: usize) -> Result {
        Err(Cannot("the client adds no partitions").into())
    }

    fn delete_topic(&self, topic: &str) -> Result {
        self.within(self.connection.controller_client()?.delete_topic(topic, TIMEOUT_MS))
    }

    fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result {
        self.within(self.partition(topic, partition)?.delete_records(before, TIMEOUT_MS))
    }

    fn topic_config(&self, _: &str, _: &str) -> Result<String> {
        Err(Cannot("the client describes no configs").into())
    }

    fn set_topic_config(&self, _: &str, _: &str, _: &str) -> Result {
        Err(Cannot("the client alters no configs").into())
    }

    fn groups(&self) -> Result<Vec<String>> {
        Err(NO_GROUPS.into())
    }

    fn describe_group(&self, _: &str) -> Result<(String, usize)> {
        Err(NO_GROUPS.into())
    }

    fn delete_group(&self, _: &str) -> Result {
        Err(NO_GROUPS.into())
    }

    fn produce(&self, topic: &str, messages: &[Message], codec: &str) -> Result {
        let last = messages.iter().map(|message| message.partition).max().unwrap_or(0);
        for partition in 0..=last {
            let records =
                messages.iter().filter(|message| message.partition == partition).map(record_of).collect();
            self.within(self.partition(topic, partition)?.produce(records, compression(codec)))?;
        }
        Ok(())
    }

    fn produce_idempotent(&self, _: &str, _: &[Message]) -> Result {
        Err(Cannot("the client has no idempotent producer").into())
    }

    fn produce_while(&self, topic: &str, going: &dyn Fn() -> bool, acknowledged: &dyn Fn(usize)) -> Result {
        let partition = self.partition(topic, 0)?;
        let mut first = 0;
        while going() {
            let batch = first..first + WINDOW;
            let record =
                |number: usize| record_of(&Message { value: number.to_string(), ..Message::default() });
            self.within(partition.produce(batch.clone().map(record).collect(), Compression::NoCompression))?;
            batch.for_each(acknowledged);
            first += WINDOW;
        }
        Ok(())
    }

    fn read(&self, topic: &str) -> Result<Vec<Message>> {
        let mut messages = Vec::new();
        for partition in 0..self.partition_count(topic)? as i32 {
            messages.extend(self.read_partition(topic, partition, OffsetAt::Earliest)?);
        }
        Ok(messages)
    }

    fn read_from_time(&self, topic: &str, timestamp_ms: i64) -> Result<Message> {
        let time = DateTime::from_timestamp_millis(timestamp_ms).ok_or("no such time")?;
        let found = self.read_partition(topic, 0, OffsetAt::Timestamp(time))?;
        Ok(found.into_iter().next().ok_or("there is no record")?)
    }

    fn member(&self, _: &str, _: &str) -> Result<Box<dyn Source>> {
        Err(NO_GROUPS.into())
    }

    fn take(&self, _: &str, _: &str, _: usize) -> Result<Vec<Message>> {
        Err(NO_GROUPS.into())
    }
}

fn main() -> Result {
    harness::run("rskafka", "0.6.0", Rskafka::connect)
}
