//! Real `helix-server` processes on loopback: started, stopped, killed and restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};

use crate::client::{ClientError, ClusterClient};
use crate::metrics::{self, HttpError, Samples};
use crate::wait::{self, TimedOut};

/// How long starting, stopping or recovering may take before it counts as failed.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How to run a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The `helix-server` to run.
    pub binary: PathBuf,
    /// Where logs and data go; emptied first.
    pub directory: PathBuf,
    /// How many nodes, numbered from 1.
    pub nodes: u32,
    /// `--write-durability`, if not the server's default.
    pub write_durability: Option<String>,
    /// `--set name=value`.
    pub settings: Vec<(String, String)>,
}

/// What went wrong with a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file or a process.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A node ended by itself.
    #[error("node {node} ended by itself ({status}); the end of {log:?}:\n{tail}")]
    Died {
        /// Which node.
        node: u32,
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },
    /// Something took too long.
    #[error("{source}; the end of the logs in {directory:?}:\n{tails}")]
    TimedOut {
        /// What took too long.
        source: TimedOut,
        /// Where the logs are.
        directory: PathBuf,
        /// The end of each.
        tails: String,
    },
    /// The cluster could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A node's HTTP endpoint did not answer.
    #[error(transparent)]
    Http(#[from] HttpError),
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    kafka: u16,
    peers: u16,
    http: u16,
}

/// One node: its place in the file system, its ports, and its process while it runs.
#[derive(Debug)]
struct Node {
    id: u32,
    ports: Ports,
    directory: PathBuf,
    data: PathBuf,
    /// Where it finds other nodes, where that is not their own address.
    routes: BTreeMap<u32, String>,
    environment: Vec<(OsString, OsString)>,
    process: Option<Child>,
}

impl Node {
    fn new(id: u32, ports: Ports, directory: PathBuf) -> Self {
        let data = directory.join("data");
        Self { id, ports, directory, data, routes: BTreeMap::new(), environment: Vec::new(), process: None }
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn http(&self) -> String {
        format!("127.0.0.1:{}", self.ports.http)
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// A running cluster. Dropping it kills what still runs; its data is removed unless the thread is panicking or it is to be kept.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    nodes: Vec<Node>,
    kept: bool,
}

impl Cluster {
    /// Starts all nodes and waits until the cluster is ready.
    pub fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let mut cluster = Self::prepare(options)?;
        cluster.run_all()?;
        Ok(cluster)
    }

    /// Makes directories and chooses ports; nothing runs yet.
    pub fn prepare(options: ClusterOptions) -> Result<Self, ClusterError> {
        if options.directory.exists() {
            fs::remove_dir_all(&options.directory)
                .map_err(|source| io_error("emptying", &options.directory, source))?;
        }
        let ports = free_ports(options.nodes as usize * 3)?;
        let mut nodes = Vec::new();
        for (id, ports) in (1..).zip(ports.chunks_exact(3)) {
            let directory = options.directory.join(id.to_string());
            fs::create_dir_all(&directory).map_err(|source| io_error("creating", &directory, source))?;
            let ports = Ports { kafka: ports[0], peers: ports[1], http: ports[2] };
            nodes.push(Node::new(id, ports, directory));
        }
        Ok(Self { options, nodes, kept: false })
    }

    /// Starts every node that does not run and waits until the cluster is ready.
    pub fn run_all(&mut self) -> Result<(), ClusterError> {
        for id in self.ids() {
            self.run(id)?;
        }
        self.await_ready()
    }

    /// Where `from` finds `to` when it is started next, instead of at its own address.
    pub fn route(&mut self, from: u32, to: u32, address: String) {
        self.node_mut(from).routes.insert(to, address);
    }

    /// What a node's environment holds, besides this process's, when it is started next.
    pub fn set_environment(&mut self, id: u32, name: impl Into<OsString>, value: impl Into<OsString>) {
        self.node_mut(id).environment.push((name.into(), value.into()));
    }

    /// Where a node keeps its data when it is started next.
    pub fn place_data(&mut self, id: u32, directory: PathBuf) {
        self.node_mut(id).data = directory;
    }

    /// Where a node keeps its data.
    pub fn data_directory(&self, id: u32) -> &Path {
        &self.node(id).data
    }

    /// Where a node's logs and, unless placed elsewhere, its data are.
    pub fn node_directory(&self, id: u32) -> &Path {
        &self.node(id).directory
    }

    /// Logs and data are not removed when the cluster is dropped.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// All node ids.
    pub fn ids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// Kafka addresses of all nodes.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.ports.kafka)).collect();
        addresses.join(",")
    }

    /// The Kafka address of one node.
    pub fn kafka_address(&self, id: u32) -> String {
        format!("127.0.0.1:{}", self.node(id).ports.kafka)
    }

    /// The address of one node for its peers.
    pub fn peer_address(&self, id: u32) -> String {
        format!("127.0.0.1:{}", self.node(id).ports.peers)
    }

    /// The HTTP address of one node.
    pub fn http_address(&self, id: u32) -> String {
        self.node(id).http()
    }

    /// The HTTP addresses of the nodes that run.
    pub fn http_addresses(&self) -> Vec<String> {
        self.nodes.iter().filter(|node| node.process.is_some()).map(Node::http).collect()
    }

    /// Process ids of the nodes that run.
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.process.as_ref().map(Child::id)).collect()
    }

    /// Where logs and data are.
    pub fn directory(&self) -> &Path {
        &self.options.directory
    }

    /// The metrics of all running nodes, added up.
    pub fn metrics(&self) -> Result<Samples, ClusterError> {
        Ok(Samples::fetch_all(&self.http_addresses())?)
    }

    /// Starts a node that does not run.
    pub fn run(&mut self, id: u32) -> Result<(), ClusterError> {
        let mut command = self.command(id)?;
        let binary = self.options.binary.clone();
        let node = self.node_mut(id);
        if node.process.is_none() {
            node.process = Some(command.spawn().map_err(|source| io_error("starting", &binary, source))?);
        }
        Ok(())
    }

    /// kill -9, and waits until the process is gone.
    pub fn kill(&mut self, id: u32) -> Result<(), ClusterError> {
        self.end(id, |process| process.kill())
    }

    /// Takes a node's disk away: kills it and empties its data directory. It comes back blank.
    pub fn lose_disk(&mut self, id: u32) -> Result<(), ClusterError> {
        self.kill(id)?;
        let data = self.data_directory(id);
        fs::remove_dir_all(data).map_err(|source| io_error("emptying", data, source))
    }

    /// kill -9 of several nodes at once: all are signalled before any is waited for.
    pub fn kill_all(&mut self, ids: &[u32]) -> Result<(), ClusterError> {
        for id in ids {
            if let Some(process) = &mut self.node_mut(*id).process {
                process
                    .kill()
                    .map_err(|source| ClusterError::Io { doing: format!("killing node {id}"), source })?;
            }
        }
        ids.iter().try_for_each(|id| self.kill(*id))
    }

    /// SIGTERM, and waits until the process has ended by itself.
    pub fn stop(&mut self, id: u32) -> Result<(), ClusterError> {
        self.signal(id, Signal::TERM)?;
        self.await_end(id)
    }

    /// Waits until a node that was started has ended by itself.
    pub fn await_end(&mut self, id: u32) -> Result<(), ClusterError> {
        let node = self.node_mut(id);
        let Some(process) = &mut node.process else { return Ok(()) };
        let ended = wait::until(format!("node {id} to stop"), DEADLINE, || match process.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("still running".into()),
            Err(error) => Err(error.to_string()),
        });
        if ended.is_ok() {
            node.process = None;
        }
        ended.map_err(|source| self.timed_out(source))
    }

    /// Whether a node was started and has not been stopped since.
    pub fn runs(&self, id: u32) -> bool {
        self.node(id).process.is_some()
    }

    /// All that a node has logged.
    pub fn log(&self, id: u32) -> String {
        let log = fs::read(self.node(id).log()).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// SIGSTOP: the node keeps its connections but does nothing.
    pub fn pause(&mut self, id: u32) -> Result<(), ClusterError> {
        self.signal(id, Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&mut self, id: u32) -> Result<(), ClusterError> {
        self.signal(id, Signal::CONT)
    }

    /// Fails if a node that was started has ended by itself.
    pub fn check_alive(&mut self) -> Result<(), ClusterError> {
        for node in &mut self.nodes {
            let Some(process) = &mut node.process else { continue };
            if let Ok(Some(status)) = process.try_wait() {
                node.process = None;
                let (log, tail) = (node.log(), node.log_tail());
                return Err(ClusterError::Died { node: node.id, status: status.to_string(), log, tail });
            }
        }
        Ok(())
    }

    /// Waits until every running node says it is ready and its Kafka port shows all nodes.
    pub fn await_ready(&mut self) -> Result<(), ClusterError> {
        let running: Vec<u32> =
            self.nodes.iter().filter(|node| node.process.is_some()).map(|node| node.id).collect();
        let expected = running.len();
        for id in running {
            self.await_node(id, expected)?;
        }
        Ok(())
    }

    /// Waits until `/health/ready` says yes and a metadata answer lists at least `brokers` brokers.
    pub fn await_node(&mut self, id: u32, brokers: usize) -> Result<(), ClusterError> {
        let (http, kafka) = (self.node(id).http(), self.kafka_address(id));
        let client = ClusterClient::new(&kafka)?;
        let mut died = None;
        let ready = wait::until(format!("node {id} to be ready"), DEADLINE, || {
            if let Err(error) = self.check_alive() {
                died = Some(error);
                return Ok(());
            }
            let (status, body) = metrics::get(&http, "/health/ready").map_err(|error| error.to_string())?;
            if status != 200 {
                return Err(format!("/health/ready answers {status}: {}", body.trim()));
            }
            let seen = client.brokers().map_err(|error| error.to_string())?;
            if seen.len() >= brokers { Ok(()) } else { Err(format!("it knows of brokers {seen:?}")) }
        });
        match died {
            Some(error) => Err(error),
            None => ready.map_err(|source| self.timed_out(source)),
        }
    }

    /// Waits until every group has the members that it should have: lost disks are replaced, everywhere.
    pub fn await_members(&mut self) -> Result<(), ClusterError> {
        let settled = wait::until("every group to have its members", DEADLINE, || {
            let samples = self.metrics().map_err(|error| error.to_string())?;
            match samples.value("helix_groups_changing") {
                Some(0.0) => Ok(()),
                changing => Err(format!("so many are changing: {changing:?}")),
            }
        });
        settled.map_err(|source| self.timed_out(source))
    }

    /// The end of every node's log.
    pub fn log_tails(&self) -> String {
        let tail = |node: &Node| format!("--- node {}, {:?}\n{}", node.id, node.log(), node.log_tail());
        self.nodes.iter().map(tail).collect::<Vec<_>>().join("\n")
    }

    fn timed_out(&self, source: TimedOut) -> ClusterError {
        ClusterError::TimedOut { source, directory: self.options.directory.clone(), tails: self.log_tails() }
    }

    fn node(&self, id: u32) -> &Node {
        self.nodes.iter().find(|node| node.id == id).expect("callers take ids from this cluster")
    }

    fn node_mut(&mut self, id: u32) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("callers take ids from this cluster")
    }

    fn signal(&mut self, id: u32, signal: Signal) -> Result<(), ClusterError> {
        let Some(process) = &self.node(id).process else { return Ok(()) };
        kill_process(Pid::from_child(process), signal).map_err(|errno| ClusterError::Io {
            doing: format!("signalling node {id}"),
            source: errno.into(),
        })
    }

    fn end(&mut self, id: u32, how: impl FnOnce(&mut Child) -> io::Result<()>) -> Result<(), ClusterError> {
        let Some(mut process) = self.node_mut(id).process.take() else { return Ok(()) };
        how(&mut process)
            .and_then(|()| process.wait())
            .map(|_| ())
            .map_err(|source| ClusterError::Io { doing: format!("ending node {id}"), source })
    }

    fn command(&self, id: u32) -> Result<Command, ClusterError> {
        let node = self.node(id);
        let log = open_log(&node.log())?;
        let log_too = log.try_clone().map_err(|source| io_error("opening", &node.log(), source))?;
        let kafka = self.kafka_address(id);
        let mut command = Command::new(&self.options.binary);
        command
            .args(["--node-id", &id.to_string()])
            .arg("--data-dir")
            .arg(&node.data)
            .args(["--listen", &kafka, "--advertise", &kafka])
            .args(["--http-listen", &node.http()])
            .envs(node.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too);
        if self.nodes.len() > 1 {
            let way_to =
                |other: u32| node.routes.get(&other).cloned().unwrap_or_else(|| self.peer_address(other));
            let peers: Vec<String> =
                self.ids().into_iter().map(|other| format!("{other}@{}", way_to(other))).collect();
            command.args(["--peer-listen", &self.peer_address(id)]);
            command.args(["--peers", &peers.join(",")]);
        }
        if let Some(durability) = &self.options.write_durability {
            command.args(["--write-durability", durability]);
        }
        for (name, value) in &self.options.settings {
            command.args(["--set", &format!("{name}={value}")]);
        }
        Ok(command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut process) = node.process.take() {
                let _ = process.kill();
                let _ = process.wait();
            }
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails());
            eprintln!("logs and data are kept in {:?}", self.options.directory);
        } else if !self.kept {
            let _ = fs::remove_dir_all(&self.options.directory);
        }
    }
}

fn io_error(doing: &str, path: &Path, source: io::Error) -> ClusterError {
    ClusterError::Io { doing: format!("{doing} {}", path.display()), source }
}

/// Appends: a restarted node goes on in the same log.
fn open_log(path: &Path) -> Result<File, ClusterError> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|source| io_error("opening", path, source))
}

static GIVEN_PORTS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Ports that nobody listens on, below the range from which the system takes ports for outgoing connections: a client
/// that keeps trying to reach a killed node must not be given that node's own port. No port is given away twice by one
/// process: whoever it was given to may not listen yet.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>, ClusterError> {
    let range = port_range()?;
    let mut random = SmallRng::from_os_rng();
    let mut given = GIVEN_PORTS.lock();
    let mut take = || {
        for _ in 0..1_000 {
            let port = random.random_range(range.clone());
            if !given.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                given.insert(port);
                return Ok(port);
            }
        }
        let source = io::ErrorKind::AddrInUse.into();
        Err(ClusterError::Io { doing: format!("looking for free ports in {range:?}"), source })
    };
    (0..count).map(|_| take()).collect()
}

/// Names the ports to choose from, `FIRST-LAST`, on a machine where others have theirs.
const PORTS_VARIABLE: &str = "HELIX_WORKLOAD_PORTS";

fn port_range() -> Result<Range<u16>, ClusterError> {
    let highest = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_ascii_whitespace().next()?.parse::<u16>().ok())
        .filter(|lowest_outgoing| *lowest_outgoing > 11_000)
        .unwrap_or(32_768);
    let Ok(wanted) = std::env::var(PORTS_VARIABLE) else { return Ok(10_000..highest) };
    let read = || {
        let (first, last) = wanted.split_once('-')?;
        let range = first.trim().parse().ok()?..last.trim().parse::<u16>().ok()?.checked_add(1)?;
        (!range.is_empty()).then_some(range)
    };
    read().ok_or_else(|| ClusterError::Io {
        doing: format!("reading {PORTS_VARIABLE}={wanted}, which is to be like 25000-25999"),
        source: io::ErrorKind::InvalidInput.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_distinct() {
        let mut ports = [free_ports(9).unwrap(), free_ports(9).unwrap()].concat();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 18);
    }

    #[test]
    fn a_node_that_ends_by_itself_is_reported_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let error = Cluster::start(ClusterOptions {
            binary: "/bin/false".into(),
            directory: directory.path().join("cluster"),
            nodes: 1,
            write_durability: None,
            settings: Vec::new(),
        })
        .unwrap_err();
        assert!(matches!(error, ClusterError::Died { node: 1, .. }), "{error}");
    }
}
