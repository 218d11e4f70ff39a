//! Apache Kafka on loopback: nodes that are broker and controller each, from the published jar files.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::ClusterClient;
use crate::cluster::{ClusterError, free_ports};
use crate::wait::{self, TimedOut};

/// The same on all nodes; any 16 bytes in base 64 do.
const CLUSTER_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";
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

/// How to run Apache Kafka.
#[derive(Debug, Clone)]
pub(crate) struct KafkaOptions {
    /// Its jar files.
    pub(crate) libs: PathBuf,
    /// Where logs and data go; emptied first.
    pub(crate) directory: PathBuf,
    /// How many nodes, numbered from 1; topics have that many replicas.
    pub(crate) nodes: usize,
    /// How much memory the JVM of each node takes, in its own notation.
    pub(crate) heap: &'static str,
    /// Further lines of `server.properties`.
    pub(crate) settings: Vec<(&'static str, String)>,
}

/// A running cluster. Dropping it ends it and removes its data.
#[derive(Debug)]
pub(crate) struct KafkaCluster {
    options: KafkaOptions,
    directory: PathBuf,
    bootstrap: String,
    /// In the order of their ids, from 1 on.
    nodes: Vec<Child>,
}

impl KafkaCluster {
    /// Starts all nodes and waits until each says that it knows all.
    pub(crate) fn start(options: &KafkaOptions) -> Result<Self, KafkaError> {
        let KafkaOptions { directory, nodes, .. } = options;
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(io_error("emptying", directory))?;
        }
        fs::create_dir_all(directory).map_err(io_error("creating", directory))?;
        let ports = free_ports(2 * nodes).map_err(Box::new)?;
        let (brokers, controllers) = ports.split_at(*nodes);
        let addresses: Vec<String> = brokers.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let voters: Vec<String> =
            (1..).zip(controllers).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let bootstrap = addresses.join(",");
        let mut cluster =
            Self { options: options.clone(), directory: directory.clone(), bootstrap, nodes: Vec::new() };
        for (id, (broker, controller)) in (1..).zip(brokers.iter().zip(controllers)) {
            let text = properties(id, *broker, *controller, &voters.join(","), options);
            format_node(options, id, &text)?;
            cluster.nodes.push(start_node(options, id)?);
        }
        cluster.await_ready()?;
        Ok(cluster)
    }

    /// Kafka addresses of all nodes.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Process ids of all nodes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(Child::id).collect()
    }

    /// kill -9 of one node, and waits until the process is gone.
    pub(crate) fn kill(&mut self, id: u32) -> Result<(), KafkaError> {
        let directory = self.directory.clone();
        let node = self.node(id)?;
        node.kill().and_then(|()| node.wait()).map_err(io_error("killing a node in", &directory))?;
        Ok(())
    }

    /// Starts a node again that was killed, and waits until every node knows all.
    pub(crate) fn revive(&mut self, id: u32) -> Result<(), KafkaError> {
        let started = start_node(&self.options, id as usize)?;
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
                if brokers.len() == self.nodes.len() { Ok(()) } else { Err(format!("it knows {brokers:?}")) }
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

fn properties(id: usize, broker: u16, controller: u16, voters: &str, options: &KafkaOptions) -> String {
    let KafkaOptions { directory, nodes, settings, .. } = options;
    let further: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         controller.quorum.voters={voters}\n\
         listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{broker}\n\
         controller.listener.names=CONTROLLER\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={}\n\
         default.replication.factor={nodes}\n\
         offsets.topic.replication.factor={nodes}\n\
         min.insync.replicas={}\n{further}",
        directory.join(format!("data-{id}")).display(),
        nodes / 2 + 1,
    )
}

fn properties_file(directory: &Path, id: usize) -> PathBuf {
    directory.join(format!("{id}.properties"))
}

/// Prepares the storage of a node.
fn format_node(options: &KafkaOptions, id: usize, properties: &str) -> Result<(), KafkaError> {
    let KafkaOptions { libs, directory, .. } = options;
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
    Err(KafkaError::Format { directory: directory.clone(), output })
}

fn start_node(options: &KafkaOptions, id: usize) -> Result<Child, KafkaError> {
    let KafkaOptions { libs, directory, heap, .. } = options;
    let path = properties_file(directory, id);
    let log_path = directory.join(format!("{id}.log"));
    let log =
        File::options().create(true).append(true).open(&log_path).map_err(io_error("opening", &log_path))?;
    let log_too = log.try_clone().map_err(io_error("opening", &log_path))?;
    Command::new("java")
        .args([format!("-Xmx{heap}"), format!("-Xms{heap}")])
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
