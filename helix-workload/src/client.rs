//! What every part does with a cluster besides producing and consuming: topics and metadata.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::wait::{self, TimedOut};

/// How long a single request may take before it is asked again.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a cluster may take to say anything at all.
const FIRST_ANSWER: Duration = Duration::from_secs(15);

/// Librdkafka reaches for a group even to read assigned partitions; this one is never joined.
const READER_GROUP: &str = "helix-workload";

/// A topic to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many copies of each; `None` leaves it to the cluster.
    pub replication_factor: Option<u32>,
    /// Configurations of the topic, if it has to be made.
    pub settings: Vec<(String, String)>,
}

impl TopicSpec {
    /// A topic with the cluster's own configurations.
    pub fn new(name: &str, partitions: u32, replication_factor: Option<u32>) -> Self {
        Self { name: name.to_owned(), partitions, replication_factor, settings: Vec::new() }
    }
}

/// Where a partition is led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionLeader {
    /// The partition.
    pub partition: i32,
    /// The leading broker; -1 when there is none.
    pub leader: i32,
    /// How many copies exist.
    pub replicas: usize,
    /// How many of them are in sync.
    pub in_sync: usize,
}

/// What a cluster says about itself and a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterView {
    /// Ids of the brokers.
    pub brokers: Vec<i32>,
    /// By partition, in order; empty when the topic is unknown.
    pub partitions: Vec<PartitionLeader>,
}

/// Why the cluster could not be asked or told something.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client library refused or could not reach the cluster.
    #[error("{doing}: {source}; is a broker listening on {bootstrap}?")]
    Kafka {
        /// What was tried.
        doing: String,
        /// The address that was given.
        bootstrap: String,
        /// What the library said.
        source: Box<KafkaError>,
    },
    /// The cluster refused.
    #[error("{doing}: the cluster answers {code}")]
    Refused {
        /// What was tried.
        doing: String,
        /// The cluster's answer.
        code: RDKafkaErrorCode,
    },
    /// It took too long.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

/// A handle for metadata and topics of one cluster.
pub struct ClusterClient {
    bootstrap: String,
    metadata: BaseConsumer,
    admin: AdminClient<DefaultClientContext>,
}

impl ClusterClient {
    /// Prepares a client; nothing is connected yet.
    pub fn new(bootstrap: &str) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Kafka {
            doing: "preparing the client".into(),
            bootstrap: bootstrap.to_owned(),
            source: Box::new(source),
        };
        Ok(Self {
            bootstrap: bootstrap.to_owned(),
            metadata: reader_config(bootstrap).create().map_err(failed)?,
            admin: ClientConfig::new().set("bootstrap.servers", bootstrap).create().map_err(failed)?,
        })
    }

    /// The address that was given.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Brokers only; no topic is asked for, so none is created by asking.
    pub fn brokers(&self) -> Result<Vec<i32>, ClientError> {
        // An admin client asks for metadata without naming topics; librdkafka then asks for none or all.
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(None, REQUEST_TIMEOUT)
            .map_err(|source| self.failed("asking for the brokers", source))?;
        Ok(metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect())
    }

    /// Brokers, and where the partitions of `topic` are led.
    pub fn view(&self, topic: &str) -> Result<ClusterView, ClientError> {
        let metadata = self
            .metadata
            .fetch_metadata(Some(topic), REQUEST_TIMEOUT)
            .map_err(|source| self.failed(format!("asking where {topic} is led"), source))?;
        let mut view = ClusterView {
            brokers: metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect(),
            partitions: Vec::new(),
        };
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            view.partitions.push(PartitionLeader {
                partition: partition.id(),
                leader: partition.leader(),
                replicas: partition.replicas().len(),
                in_sync: partition.isr().len(),
            });
        }
        view.partitions.sort_by_key(|one| one.partition);
        Ok(view)
    }

    /// First and next offset of a partition, as its leader says.
    pub fn watermarks(&self, topic: &str, partition: i32) -> Result<(u64, u64), ClientError> {
        let (low, high) =
            self.metadata.fetch_watermarks(topic, partition, REQUEST_TIMEOUT).map_err(|source| {
                self.failed(format!("asking for the offsets of {topic}-{partition}"), source)
            })?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }

    /// Makes the topic unless it exists, and waits until each of its partitions has a leader.
    pub fn ensure_topic(&self, spec: &TopicSpec, deadline: Duration) -> Result<ClusterView, ClientError> {
        let view = wait::until("an answer of the cluster", deadline.min(FIRST_ANSWER), || {
            self.view(&spec.name).map_err(|error| error.to_string())
        })?;
        if view.partitions.is_empty() {
            self.create_topic(spec, deadline)?;
        }
        self.await_leaders(&spec.name, deadline)
    }

    /// Waits until every partition of the topic has a leader.
    pub fn await_leaders(&self, topic: &str, deadline: Duration) -> Result<ClusterView, ClientError> {
        let view = wait::until(format!("leaders of all partitions of {topic}"), deadline, || {
            let view = self.view(topic).map_err(|error| error.to_string())?;
            let led = view.partitions.iter().filter(|one| one.leader >= 0).count();
            if led == view.partitions.len() && led > 0 {
                return Ok(view);
            }
            Err(format!("{led} of {} partitions are led", view.partitions.len()))
        })?;
        Ok(view)
    }

    /// Waits until every replica of the topic is in sync with its leader.
    pub fn await_in_sync(&self, topic: &str, deadline: Duration) -> Result<ClusterView, ClientError> {
        let view = wait::until(format!("all replicas of {topic} to be in sync"), deadline, || {
            let view = self.view(topic).map_err(|error| error.to_string())?;
            let behind: Vec<i32> = view
                .partitions
                .iter()
                .filter(|one| one.leader < 0 || one.in_sync < one.replicas)
                .map(|one| one.partition)
                .collect();
            if behind.is_empty() && !view.partitions.is_empty() {
                return Ok(view);
            }
            Err(format!("partitions {behind:?} are not"))
        })?;
        Ok(view)
    }

    /// Removes a topic.
    pub fn delete_topic(&self, topic: &str) -> Result<(), ClientError> {
        let options = AdminOptions::new().operation_timeout(Some(REQUEST_TIMEOUT));
        let doing = format!("deleting topic {topic}");
        let answers = block_on(self.admin.delete_topics(&[topic], &options))
            .map_err(|source| self.failed(doing.clone(), source))?;
        first_refusal(answers, &doing, &[RDKafkaErrorCode::UnknownTopicOrPartition])
    }

    /// Makes a topic; it is not an error if it exists.
    pub fn create_topic(&self, spec: &TopicSpec, deadline: Duration) -> Result<(), ClientError> {
        let replication =
            spec.replication_factor.map_or(-1, |copies| i32::try_from(copies).unwrap_or(i32::MAX));
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let topic = spec.settings.iter().fold(
            NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(replication)),
            |topic, (name, value)| topic.set(name, value),
        );
        let options = AdminOptions::new().operation_timeout(Some(deadline)).request_timeout(Some(deadline));
        let doing = format!(
            "creating topic {} with {} partitions, {replication} copies each",
            spec.name, spec.partitions
        );
        let answers = block_on(self.admin.create_topics(&[topic], &options))
            .map_err(|source| self.failed(doing.clone(), source))?;
        first_refusal(answers, &doing, &[RDKafkaErrorCode::TopicAlreadyExists])
    }

    fn failed(&self, doing: impl Into<String>, source: KafkaError) -> ClientError {
        ClientError::Kafka {
            doing: doing.into(),
            bootstrap: self.bootstrap.clone(),
            source: Box::new(source),
        }
    }
}

fn first_refusal(
    answers: Vec<Result<String, (String, RDKafkaErrorCode)>>,
    doing: &str,
    tolerated: &[RDKafkaErrorCode],
) -> Result<(), ClientError> {
    for answer in answers {
        if let Err((_, code)) = answer
            && !tolerated.contains(&code)
        {
            return Err(ClientError::Refused { doing: doing.to_owned(), code });
        }
    }
    Ok(())
}

/// The settings of a client that reads assigned partitions and commits nothing.
pub fn reader_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", READER_GROUP)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true");
    config
}

/// Runs one admin call to its end. The library completes it from a thread of its own; no reactor is needed.
fn block_on<T>(call: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without IO and timers needs nothing of the system that could fail")
        .block_on(call)
}
