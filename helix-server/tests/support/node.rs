//! Whole nodes in this process, on the real network and disk.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

use std::future::Future;
use std::net::TcpListener as StdListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use bytes::{Buf, Bytes};
use helix_server::cli::{self, Command};
use helix_server::env::{Env, watch};
use helix_server::node;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::requests::{encoded, framed};

/// A test that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);
const METADATA_VERSION: i16 = 8;

/// A running node.
pub(crate) struct Node {
    pub(crate) kafka: String,
    pub(crate) http: String,
    pub(crate) stop: watch::Sender<bool>,
    running: thread::JoinHandle<Result<(), node::NodeError>>,
    /// Of a node that has one of its own.
    directory: Option<TempDir>,
}

impl Node {
    /// Starts a node on these addresses with further arguments.
    pub(crate) fn start(directory: &Path, addresses: [&str; 2], more: &[&str]) -> Self {
        let [kafka, http] = addresses;
        let mut arguments =
            vec!["helix-server".into(), "--data-dir".into(), directory.as_os_str().to_owned()];
        arguments.extend(["--listen", kafka, "--http-listen", http].map(Into::into));
        arguments.extend(more.iter().map(Into::into));
        let Command::Run(config) = cli::parse(arguments).unwrap() else { unreachable!() };
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let running = thread::spawn(move || runtime.block_on(node::run(Env::real(), *config, stopped)));
        Self { kafka: kafka.to_owned(), http: http.to_owned(), stop, running, directory: None }
    }

    /// Starts a single node on free addresses.
    pub(crate) fn single(directory: &Path, more: &[&str]) -> Self {
        Self::start(directory, [&free_address(), &free_address()], more)
    }

    /// Starts a single node with these settings, and a directory of its own.
    pub(crate) fn alone(settings: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Self::single(directory.path(), &assignments(settings));
        Self { directory: Some(directory), ..node }
    }

    /// Starts a cluster of one node in each of these racks, with node numbers from 1 on.
    pub(crate) fn cluster(racks: &[&str], settings: &[&str]) -> Vec<Self> {
        let addresses: Vec<String> = racks.iter().map(|_| free_address()).collect();
        let peers: Vec<String> =
            addresses.iter().enumerate().map(|(at, address)| format!("{}@{address}", at + 1)).collect();
        let peers = peers.join(",");
        let start = |(at, rack): (usize, &&str)| {
            let number = (at + 1).to_string();
            let mut arguments = vec!["--node-id", &number, "--peers", &peers, "--rack", rack];
            arguments.extend(assignments(settings));
            let directory = tempfile::tempdir().unwrap();
            let node = Self::single(directory.path(), &arguments);
            Self { directory: Some(directory), ..node }
        };
        racks.iter().enumerate().map(start).collect()
    }

    /// A connection to a node that serves the topic, which is made with one partition if there is none.
    pub(crate) async fn connect_to(&self, topic: &'static str) -> TcpStream {
        let mut connection = self.connect().await;
        let topic =
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(topic))));
        let request =
            MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true);
        until("a leader of the topic", async || {
            let metadata: MetadataResponse =
                call(&mut connection, ApiKey::Metadata, METADATA_VERSION, &request).await;
            let mut partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.any(|partition| partition.error_code == 0).then_some(())
        })
        .await;
        connection
    }

    /// A connection to the node, once it takes any.
    pub(crate) async fn connect(&self) -> TcpStream {
        until("a connection", async || TcpStream::connect(&self.kafka).await.ok()).await
    }

    /// The value of a metric.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let mut connection = TcpStream::connect(&self.http).await.ok()?;
        connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.ok()?;
        let mut text = String::new();
        connection.read_to_string(&mut text).await.ok()?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
        line.split(' ').nth(1)?.parse().ok()
    }

    /// Stops it and waits for its end.
    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        within("the node's end", tokio::task::spawn_blocking(|| self.running.join()))
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

fn assignments<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings.iter().flat_map(|setting| ["--set", *setting]).collect()
}

/// Above the ports that the system takes for outgoing connections: who keeps trying to reach a node that does not listen yet could be
/// given that node's own port, and be connected with itself.
const PORTS: std::ops::Range<u16> = 61_000..65_535;
static PORTS_GIVEN: AtomicU32 = AtomicU32::new(0);

/// An address where nobody listens. None is given away twice by one process: whoever it was given to may not listen yet.
pub(crate) fn free_address() -> String {
    let first = std::process::id().wrapping_mul(101);
    for _ in PORTS {
        let at = first.wrapping_add(PORTS_GIVEN.fetch_add(1, Ordering::Relaxed)) % PORTS.len() as u32;
        let address = format!("127.0.0.1:{}", PORTS.start + at as u16);
        if StdListener::bind(&address).is_ok() {
            return address;
        }
    }
    panic!("somebody listens on every port of {PORTS:?}");
}

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| panic!("{what} took more than {DEADLINE:?}"))
}

pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            // Nothing of this tells anybody when it changes: so often it is looked at.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// The body of the next answer; `None` at the end of the connection.
pub(crate) async fn answer(connection: &mut TcpStream) -> Option<Bytes> {
    let length = connection.read_u32().await.ok()?;
    let mut answer = vec![0; length as usize];
    connection.read_exact(&mut answer).await.ok()?;
    let mut answer = Bytes::from(answer);
    answer.advance(4); // the correlation id
    Some(answer)
}

/// Sends a request and reads its answer.
pub(crate) async fn call<T: Decodable>(
    connection: &mut TcpStream,
    key: ApiKey,
    version: i16,
    request: &impl Encodable,
) -> T {
    connection.write_all(&framed(key, version, &encoded(request, version))).await.unwrap();
    let mut body = within("an answer", answer(connection)).await.expect("an answer");
    if key.response_header_version(version) >= 1 {
        assert_eq!(body.get_u8(), 0, "no tagged fields");
    }
    let response = T::decode(&mut body, version).unwrap();
    assert_eq!(body.len(), 0, "{key:?} {version} is read to its end");
    response
}
