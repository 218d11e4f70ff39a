//! librdkafka, through the crate rdkafka.

#[path = "../../common/harness.rs"]
mod harness;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use harness::{Client, DEADLINE, Message, Result, Source, WINDOW, wait_until};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::topic_partition_list::Offset;
use rdkafka::{Message as _, TopicPartitionList};
use tokio::runtime::Runtime;

const POLL: Duration = Duration::from_millis(200);

struct Librdkafka {
    bootstrap: String,
    runtime: Runtime,
    admin: AdminClient<DefaultClientContext>,
}

impl Librdkafka {
    fn connect(bootstrap: Vec<String>) -> Result<Self> {
        let bootstrap = bootstrap.join(",");
        let admin = config(&bootstrap, &[]).create()?;
        Ok(Self { bootstrap, runtime: Runtime::new()?, admin })
    }

    fn consumer(&self, settings: &[(&str, &str)]) -> Result<BaseConsumer> {
        let mut config =
            config(&self.bootstrap, &[("group.id", "unused"), ("auto.offset.reset", "earliest")]);
        config.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        Ok(config.create()?)
    }

    fn produce_with(&self, topic: &str, messages: &[Message], settings: &[(&str, &str)]) -> Result {
        let producer: FutureProducer = config(&self.bootstrap, settings).create()?;
        let mut sent = Vec::new();
        for message in messages {
            let add = |headers: OwnedHeaders, (key, value): &(String, String)| {
                headers.insert(Header { key, value: Some(value) })
            };
            let headers = message.headers.iter().fold(OwnedHeaders::new(), add);
            let mut record = FutureRecord::to(topic)
                .partition(message.partition)
                .key(&message.key)
                .payload(&message.value)
                .headers(headers);
            record.timestamp = message.timestamp_ms;
            sent.push(producer.send_result(record).map_err(|(error, _)| error)?);
        }
        self.runtime.block_on(async {
            for delivery in sent {
                tokio::time::timeout(DEADLINE, delivery).await??.map_err(|(error, _)| error)?;
            }
            Ok(())
        })
    }
}

fn config(bootstrap: &str, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("log_level", "2");
    config.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    config
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(DEADLINE)).request_timeout(Some(DEADLINE))
}

/// The first of the results that an admin operation has for its parts.
fn one<T, E: std::fmt::Display>(results: Vec<std::result::Result<T, E>>) -> Result<T> {
    let first = results.into_iter().next().ok_or("there is no result")?;
    first.map_err(|error| error.to_string().into())
}

fn code<T>(results: Vec<std::result::Result<T, (String, RDKafkaErrorCode)>>) -> Result<T> {
    one(results.into_iter().map(|result| result.map_err(|(_, code)| code)).collect())
}

fn poll(consumer: &BaseConsumer, most: usize) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    let mut wait = POLL;
    while messages.len() < most
        && let Some(polled) = consumer.poll(wait)
    {
        let polled = polled?;
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let header = |one: Header<'_, &[u8]>| (one.key.to_owned(), text(one.value));
        messages.push(Message {
            partition: polled.partition(),
            offset: polled.offset(),
            key: text(polled.key()),
            value: text(polled.payload()),
            headers: polled.headers().map(|headers| headers.iter().map(header).collect()).unwrap_or_default(),
            timestamp_ms: polled.timestamp().to_millis(),
        });
        wait = Duration::ZERO;
    }
    Ok(messages)
}

struct Member(BaseConsumer);

impl Source for Member {
    fn poll(&mut self) -> Result<Vec<Message>> {
        poll(&self.0, 500)
    }

    fn owned(&self) -> Result<BTreeSet<i32>> {
        Ok(self.0.assignment()?.elements().iter().map(|one| one.partition()).collect())
    }
}

impl Client for Librdkafka {
    fn idempotent(&self) -> bool {
        true
    }

    fn create_topic(&self, topic: &str, partitions: i32) -> Result {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        code(self.runtime.block_on(self.admin.create_topics([&new], &options()))?).map(drop)
    }

    fn partition_count(&self, topic: &str) -> Result<usize> {
        let metadata = self.admin.inner().fetch_metadata(None, DEADLINE)?;
        Ok(metadata
            .topics()
            .iter()
            .find(|one| one.name() == topic)
            .map_or(0, |found| found.partitions().len()))
    }

    fn leader(&self, topic: &str, partition: i32) -> Result<i32> {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), DEADLINE)?;
        let found =
            metadata.topics().iter().flat_map(|one| one.partitions()).find(|one| one.id() == partition);
        Ok(found.ok_or("there is no such partition")?.leader())
    }

    fn add_partitions(&self, topic: &str, total: usize) -> Result {
        code(
            self.runtime
                .block_on(self.admin.create_partitions([&NewPartitions::new(topic, total)], &options()))?,
        )
        .map(drop)
    }

    fn delete_topic(&self, topic: &str) -> Result {
        code(self.runtime.block_on(self.admin.delete_topics(&[topic], &options()))?).map(drop)
    }

    fn delete_records(&self, topic: &str, partition: i32, before: i64) -> Result {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(before))?;
        let results = self.runtime.block_on(self.admin.delete_records(&offsets, &options()))?;
        Ok(results.elements().iter().try_for_each(|one| one.error())?)
    }

    fn topic_config(&self, topic: &str, name: &str) -> Result<String> {
        let described = one(self
            .runtime
            .block_on(self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options()))?)?;
        Ok(described.get(name).and_then(|entry| entry.value.clone()).ok_or("it has no value")?)
    }

    fn set_topic_config(&self, topic: &str, name: &str, value: &str) -> Result {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let result = self.runtime.block_on(self.admin.alter_configs([&change], &options()))?;
        one(result.into_iter().map(|result| result.map_err(|(_, code)| code)).collect()).map(drop)
    }

    fn groups(&self) -> Result<Vec<String>> {
        let listed = self.admin.inner().fetch_group_list(None, DEADLINE)?;
        Ok(listed.groups().iter().map(|group| group.name().to_owned()).collect())
    }

    fn describe_group(&self, group: &str) -> Result<(String, usize)> {
        let listed = self.admin.inner().fetch_group_list(Some(group), DEADLINE)?;
        let found = listed.groups().first().ok_or("there is no such group")?;
        Ok((found.state().to_owned(), found.members().len()))
    }

    fn delete_group(&self, group: &str) -> Result {
        code(self.runtime.block_on(self.admin.delete_groups(&[group], &options()))?).map(drop)
    }

    fn produce(&self, topic: &str, messages: &[Message], codec: &str) -> Result {
        self.produce_with(topic, messages, &[("compression.type", codec)])
    }

    fn produce_idempotent(&self, topic: &str, messages: &[Message]) -> Result {
        self.produce_with(topic, messages, &[("enable.idempotence", "true")])
    }

    fn produce_while(&self, topic: &str, going: &dyn Fn() -> bool, acknowledged: &dyn Fn(usize)) -> Result {
        let producer: FutureProducer = config(&self.bootstrap, &[("enable.idempotence", "true")]).create()?;
        let mut sent = VecDeque::new();
        let mut number = 0_usize;
        while going() || !sent.is_empty() {
            while going() && sent.len() < WINDOW {
                let value = number.to_string();
                let record = FutureRecord::<(), _>::to(topic).partition(0).payload(&value);
                sent.push_back((number, producer.send_result(record).map_err(|(error, _)| error)?));
                number += 1;
            }
            if let Some((number, delivery)) = sent.pop_front() {
                let delivered =
                    self.runtime.block_on(async { tokio::time::timeout(2 * DEADLINE, delivery).await })?;
                delivered?.map_err(|(error, _)| error)?;
                acknowledged(number);
            }
        }
        Ok(producer.flush(DEADLINE)?)
    }

    fn read(&self, topic: &str) -> Result<Vec<Message>> {
        let consumer = self.consumer(&[("enable.auto.commit", "false")])?;
        let mut partitions = TopicPartitionList::new();
        let mut unread = BTreeMap::new();
        for partition in 0..self.partition_count(topic)? as i32 {
            partitions.add_partition_offset(topic, partition, Offset::Beginning)?;
            let (low, high) = consumer.fetch_watermarks(topic, partition, DEADLINE)?;
            if high > low {
                unread.insert(partition, high);
            }
        }
        consumer.assign(&partitions)?;
        let mut messages = Vec::new();
        wait_until(&format!("the end of {topic}"), || {
            for message in poll(&consumer, 500)? {
                if unread.get(&message.partition).is_some_and(|high| message.offset + 1 >= *high) {
                    unread.remove(&message.partition);
                }
                messages.push(message);
            }
            Ok(unread.is_empty())
        })?;
        Ok(messages)
    }

    fn read_from_time(&self, topic: &str, timestamp_ms: i64) -> Result<Message> {
        let consumer = self.consumer(&[("enable.auto.commit", "false")])?;
        let mut times = TopicPartitionList::new();
        times.add_partition_offset(topic, 0, Offset::Offset(timestamp_ms))?;
        consumer.assign(&consumer.offsets_for_times(times, DEADLINE)?)?;
        let mut messages = Vec::new();
        wait_until("a record", || {
            messages.extend(poll(&consumer, 1)?);
            Ok(!messages.is_empty())
        })?;
        Ok(messages.swap_remove(0))
    }

    fn member(&self, topic: &str, group: &str) -> Result<Box<dyn Source>> {
        let consumer = self.consumer(&[("group.id", group)])?;
        consumer.subscribe(&[topic])?;
        Ok(Box::new(Member(consumer)))
    }

    fn take(&self, topic: &str, group: &str, count: usize) -> Result<Vec<Message>> {
        let consumer = self.consumer(&[("group.id", group), ("enable.auto.commit", "false")])?;
        consumer.subscribe(&[topic])?;
        let mut messages = Vec::new();
        wait_until(&format!("{count} records of {topic} in group {group}"), || {
            messages.extend(poll(&consumer, 20)?);
            Ok(messages.len() >= count)
        })?;
        consumer.commit_consumer_state(CommitMode::Sync)?;
        Ok(messages)
    }
}

fn main() -> Result {
    let (_, version) = rdkafka::util::get_rdkafka_version();
    harness::run("librdkafka", &version, Librdkafka::connect)
}
