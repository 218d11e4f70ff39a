//! The clusters that are measured. They are started when the first row needs them and then stay, so that both contenders are warm.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::full_memory::FullMemory;
use super::row::Row;
use super::{CompareOptions, Scale};
use crate::bench::BenchError;
use crate::client::{ClientError, TopicSpec};
use crate::cluster::{Cluster, ClusterError, ClusterOptions};
use crate::flood::FloodError;
use crate::floor::FloorError;
use crate::kafka::{KafkaCluster, KafkaError, KafkaOptions};
use crate::metrics::HttpError;
use crate::process::ProcessError;
use crate::progress::Progress;
use crate::reader::ReadError;
use crate::wait::TimedOut;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// Helix.
    Helix,
    /// Apache Kafka.
    Kafka,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Helix => "Helix",
            Self::Kafka => "Apache Kafka",
        })
    }
}

/// Why a measurement has no figures.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Messages failed, or what is stored is not what was acknowledged.
    #[error("{0}")]
    Wrong(String),
    /// Helix could not be run.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Apache Kafka could not be run.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A load could not be measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// A load could not be measured.
    #[error(transparent)]
    Flood(#[from] FloodError),
    /// The floor could not be measured.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The cluster could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Not everything could be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A node's metrics could not be read.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A broker's process could not be observed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Something took too long.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// A file or a connection.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl CompareError {
    /// Says what was tried.
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// What a load needs to know of a cluster.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) bootstrap: String,
    pub(super) pids: Vec<u32>,
    /// `HOST:PORT` of each node's `/metrics`.
    pub(super) metrics: Vec<String>,
}

impl Subject {
    pub(super) fn of(cluster: &Cluster) -> Self {
        Self { bootstrap: cluster.bootstrap(), pids: cluster.pids(), metrics: cluster.http_addresses() }
    }

    fn of_kafka(cluster: &KafkaCluster) -> Self {
        Self { bootstrap: cluster.bootstrap().to_owned(), pids: cluster.pids(), metrics: Vec::new() }
    }
}

/// The clusters of a run.
pub(super) struct Subjects<'a> {
    options: &'a CompareOptions,
    pub(super) progress: Progress,
    helix: Option<Cluster>,
    helix_fsync: Option<Cluster>,
    kafka: Option<KafkaCluster>,
    topics: u32,
    memory: Option<FullMemory>,
}

const NODES: u32 = 3;

impl<'a> Subjects<'a> {
    pub(super) fn new(options: &'a CompareOptions, progress: Progress) -> Self {
        Self { options, progress, helix: None, helix_fsync: None, kafka: None, topics: 0, memory: None }
    }

    /// Who is measured for a row, in turn.
    pub(super) fn contenders(&self, row: &Row) -> Vec<Contender> {
        if row.against_kafka && self.options.kafka_libs.is_some() {
            vec![Contender::Helix, Contender::Kafka]
        } else {
            vec![Contender::Helix]
        }
    }

    /// Whoever is measured next finds the memory of the machine full and nothing waiting for its disk, if that is wanted.
    pub(super) fn settle(&mut self) -> Result<(), CompareError> {
        if !self.options.settle {
            return Ok(());
        }
        let filling = || CompareError::io("filling the page cache");
        let memory = match &mut self.memory {
            Some(memory) => memory,
            none => none.insert(FullMemory::new(&self.options.directory).map_err(filling())?),
        };
        memory.fill().map_err(filling())?;
        rustix::fs::sync();
        Ok(())
    }

    pub(super) fn scale(&self) -> Scale {
        self.options.scale
    }

    /// On the disk of the clusters.
    pub(super) fn directory(&self) -> PathBuf {
        self.options.directory.clone()
    }

    /// The cluster of three nodes that most rows are measured on.
    pub(super) fn three_nodes(&mut self, contender: Contender) -> Result<Subject, CompareError> {
        match contender {
            Contender::Helix => {
                let cluster = match self.helix.take() {
                    Some(running) => running,
                    None => self.start_helix("helix", NODES, "replication-only", &[])?,
                };
                Ok(Subject::of(self.helix.insert(cluster)))
            }
            Contender::Kafka => self.kafka(),
        }
    }

    /// The cluster that syncs before it acknowledges; with Apache Kafka that is a matter of the topic.
    pub(super) fn three_nodes_fsync(&mut self, contender: Contender) -> Result<Subject, CompareError> {
        match contender {
            Contender::Helix => {
                let cluster = match self.helix_fsync.take() {
                    Some(running) => running,
                    None => self.start_helix("helix-fsync", NODES, "fsync", &[])?,
                };
                Ok(Subject::of(self.helix_fsync.insert(cluster)))
            }
            Contender::Kafka => self.kafka(),
        }
    }

    /// A cluster for one measurement alone.
    pub(super) fn own_helix(&self, name: &str, nodes: u32) -> Result<Cluster, CompareError> {
        self.own_helix_with(name, nodes, &[])
    }

    /// The same with further configurations.
    pub(super) fn own_helix_with(
        &self,
        name: &str,
        nodes: u32,
        settings: &[(&str, String)],
    ) -> Result<Cluster, CompareError> {
        self.start_helix(name, nodes, "replication-only", settings)
    }

    /// kill -9 of one of the nodes that [`Subjects::three_nodes`] names.
    pub(super) fn kill(&mut self, contender: Contender, id: u32) -> Result<(), CompareError> {
        match (contender, &mut self.helix, &mut self.kafka) {
            (Contender::Helix, Some(cluster), _) => Ok(cluster.kill(id)?),
            (Contender::Kafka, _, Some(cluster)) => Ok(cluster.kill(id)?),
            _ => Err(CompareError::Wrong(format!("{contender} does not run"))),
        }
    }

    /// Starts it again, and waits until every node knows all.
    pub(super) fn revive(&mut self, contender: Contender, id: u32) -> Result<(), CompareError> {
        match (contender, &mut self.helix, &mut self.kafka) {
            (Contender::Helix, Some(cluster), _) => {
                cluster.run(id)?;
                Ok(cluster.await_ready()?)
            }
            (Contender::Kafka, _, Some(cluster)) => Ok(cluster.revive(id)?),
            _ => Err(CompareError::Wrong(format!("{contender} does not run"))),
        }
    }

    /// A topic that no other measurement uses, replicated to all nodes.
    pub(super) fn topic(&mut self, partitions: u32, settings: &[(&str, &str)]) -> TopicSpec {
        self.topics += 1;
        TopicSpec {
            name: format!("compare-{}", self.topics),
            partitions,
            replication_factor: Some(NODES),
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    fn start_helix(
        &self,
        name: &str,
        nodes: u32,
        write_durability: &str,
        settings: &[(&str, String)],
    ) -> Result<Cluster, CompareError> {
        let page_cache = ("helix.wal.page.cache.bytes", page_cache_of_each().to_string());
        let settings = std::iter::once(&page_cache).chain(settings);
        Ok(Cluster::start(ClusterOptions {
            binary: self.options.binary.clone(),
            directory: self.options.directory.join(name),
            nodes,
            write_durability: Some(write_durability.into()),
            settings: settings.map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        })?)
    }

    fn kafka(&mut self) -> Result<Subject, CompareError> {
        if self.kafka.is_none() {
            let libs = self.options.kafka_libs.as_deref().ok_or_else(|| {
                CompareError::Wrong("Apache Kafka is to be measured, but not where its jars are".into())
            })?;
            self.progress.note("starting Apache Kafka");
            let cluster = KafkaCluster::start(&KafkaOptions {
                libs: libs.to_owned(),
                directory: self.options.directory.join("kafka"),
                nodes: NODES as usize,
                heap: "1g",
                settings: Vec::new(),
            })?;
            let subject = Subject::of_kafka(&cluster);
            self.kafka = Some(cluster);
            super::rows_load::warm_up(self, &subject, self.options.kafka_warmup)?;
            self.settle()?;
        }
        self.kafka
            .as_ref()
            .map(Subject::of_kafka)
            .ok_or_else(|| CompareError::Wrong("Apache Kafka does not run".into()))
    }
}

/// A node takes a quarter of its machine's memory for the newest part of its log; here three share one machine.
fn page_cache_of_each() -> u64 {
    let system = rustix::system::sysinfo();
    system.totalram.saturating_mul(u64::from(system.mem_unit)) / 4 / u64::from(NODES)
}
