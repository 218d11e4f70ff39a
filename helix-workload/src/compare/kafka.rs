//! Apache Kafka on loopback: three nodes that are broker and controller each, from the published jar files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::subjects::Subject;
use crate::client::ClusterClient;
use crate::cluster::{ClusterError, free_ports};
use crate::wait::{self, TimedOut};

const NODES: usize = 3;
/// The same on all nodes; any 16 bytes in base 64 do.
const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const HEAP: [&str; 2] = ["-Xmx1g", "-Xms1g"];
const DEADLINE: Duration = Duration::from_secs(120);

/// Apache Kafka could not be run.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// A file or a process.
    #[error("{doing}: {source}; is Java installed?")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its storage could not be prepared.
    #[error("formatting {directory:?} failed:\n{output}")]
    Format {
        /// Where it was to be.
        directory: PathBuf,
        /// What the tool said.
        output: String,
    },
    /// No ports are free.
    #[error(transparent)]
    Ports(#[from] Box<ClusterError>),
    /// It did not come up.
    #[error("{source}; the logs are in {directory:?}")]
    TimedOut {
        /// What was waited for.
        source: TimedOut,
        /// Where the logs are.
        directory: PathBuf,
    },
}

/// A running cluster. Dropping it ends it and removes its data.
#[derive(Debug)]
pub(super) struct KafkaCluster {
    libs: PathBuf,
    directory: PathBuf,
    bootstrap: String,
    /// In the order of their ids, from 1 on.
    nodes: Vec<Child>,
}

impl KafkaCluster {
    /// Starts all nodes and waits until each says that it knows all.
    pub(super) fn start(libs: &Path, directory: &Path) -> Result<Self, KafkaError> {
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(io_error("emptying", directory))?;
        }
        fs::create_dir_all(directory).map_err(io_error("creating", directory))?;
        let ports = free_ports(2 * NODES).map_err(Box::new)?;
        let (brokers, controllers) = ports.split_at(NODES);
        let addresses: Vec<String> = brokers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let voters: Vec<String> =
            (1..).zip(controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let bootstrap = addresses.join(",");
        let mut cluster =
            Self { libs: libs.to_owned(), directory: directory.to_owned(), bootstrap, nodes: Vec::new() };
        for (id, (broker, controller)) in (1..).zip(brokers.iter().zip(controllers)) {
            let text = properties(id, *broker, *controller, &voters.join(","), directory);
            format_node(libs, directory, id, &text)?;
            cluster.nodes.push(start_node(libs, directory, id)?);
        }
        cluster.await_ready()?;
        Ok(cluster)
    }

    pub(super) fn subject(&self) -> Subject {
        Subject {
            bootstrap: self.bootstrap.clone(),
            pids: self.nodes.iter().map(Child::id).collect(),
            metrics: Vec::new(),
        }
    }

    /// kill -9 of one node, and waits until the process is gone.
    pub(super) fn kill(&mut self, id: u32) -> Result<(), KafkaError> {
        let directory = self.directory.clone();
        let node = self.node(id)?;
        node.kill().and_then(|()| node.wait()).map_err(io_error("killing a node in", &directory))?;
        Ok(())
    }

    /// Starts a node again that was killed, and waits until every node knows all.
    pub(super) fn revive(&mut self, id: u32) -> Result<(), KafkaError> {
        let started = start_node(&self.libs, &self.directory, id as usize)?;
        *self.node(id)? = started;
        self.await_ready()
    }

    fn node(&mut self, id: u32) -> Result<&mut Child, KafkaError> {
        let node = (id as usize).checked_sub(1).and_then(|index| self.nodes.get_mut(index));
        node.ok_or_else(|| KafkaError::Io {
            doing: format!("looking for node {id}"),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    fn await_ready(&self) -> Result<(), KafkaError> {
        for address in self.bootstrap.split(',') {
            wait::until(format!("Apache Kafka at {address} to know all nodes"), DEADLINE, || {
                let client = ClusterClient::new(address).map_err(|error| error.to_string())?;
                let brokers = client.brokers().map_err(|error| error.to_string())?;
                if brokers.len() == NODES { Ok(()) } else { Err(format!("it knows {brokers:?}")) }
            })
            .map_err(|source| KafkaError::TimedOut { source, directory: self.directory.clone() })?;
        }
        Ok(())
    }
}

impl Drop for KafkaCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // It may have ended by itself; there is nobody left to tell.
            let _ = node.kill();
            let _ = node.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn properties(id: usize, broker: u16, controller: u16, voters: &str, directory: &Path) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{broker}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={}\n\
         default.replication.factor={NODES}\n\
         offsets.topic.replication.factor={NODES}\n\
         min.insync.replicas=2\n",
        directory.join(format!("data-{id}")).display()
    )
}

fn properties_file(directory: &Path, id: usize) -> PathBuf {
    directory.join(format!("{id}.properties"))
}

/// Prepares the storage of a node.
fn format_node(libs: &Path, directory: &Path, id: usize, properties: &str) -> Result<(), KafkaError> {
    let path = properties_file(directory, id);
    fs::write(&path, properties).map_err(io_error("writing", &path))?;
    let formatted = Command::new("java")
        .arg("-cp")
        .arg(libs.join("*"))
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(&path)
        .output()
        .map_err(io_error("starting java for", &path))?;
    if formatted.status.success() {
        return Ok(());
    }
    let output = [formatted.stdout, formatted.stderr].concat();
    let output = String::from_utf8_lossy(&output).into_owned();
    Err(KafkaError::Format { directory: directory.to_owned(), output })
}

fn start_node(libs: &Path, directory: &Path, id: usize) -> Result<Child, KafkaError> {
    let path = properties_file(directory, id);
    let log_path = directory.join(format!("{id}.log"));
    let log =
        File::options().create(true).append(true).open(&log_path).map_err(io_error("opening", &log_path))?;
    let log_too = log.try_clone().map_err(io_error("opening", &log_path))?;
    Command::new("java")
        .args(HEAP)
        .arg("-cp")
        .arg(libs.join("*"))
        .arg("kafka.Kafka")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_too)
        .spawn()
        .map_err(io_error("starting java for", &path))
}

fn io_error(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> KafkaError {
    let doing = format!("{doing} {}", path.display());
    move |source| KafkaError::Io { doing, source }
}
