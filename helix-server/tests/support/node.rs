//! Whole nodes in this process, and what talks to them.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::future::Future;
use std::net::TcpListener as StdListener;
use std::thread;
use std::time::Duration;

use bytes::{Buf, Bytes};
use helix_server::cli::{self, Command};
use helix_server::env::{Env, watch};
use helix_server::node as server;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::requests::{encoded, framed};

/// The topic that tests use.
pub(crate) const TOPIC: &str = "topic";
/// A test that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);
const METADATA_VERSION: i16 = 8;

/// A node, alone or of a cluster.
pub(crate) struct Node {
    kafka: String,
    http: String,
    pub(crate) stop: watch::Sender<bool>,
    running: thread::JoinHandle<Result<(), server::NodeError>>,
    _directory: TempDir,
}

impl Node {
    /// A single node.
    pub(crate) fn start(settings: &[&str]) -> Self {
        Self::with(&assignments(settings))
    }

    /// A cluster of one node in each of these racks, with node numbers from 1 on.
    pub(crate) fn cluster(racks: &[&str], settings: &[&str]) -> Vec<Self> {
        let addresses: Vec<String> = racks.iter().map(|_| free_address()).collect();
        let peers: Vec<String> =
            addresses.iter().enumerate().map(|(at, address)| format!("{}@{address}", at + 1)).collect();
        let peers = peers.join(",");
        let start = |(at, rack): (usize, &&str)| {
            let number = (at + 1).to_string();
            let mut arguments = vec!["--node-id", &number, "--peers", &peers, "--rack", rack];
            arguments.extend(assignments(settings));
            Self::with(&arguments)
        };
        racks.iter().enumerate().map(start).collect()
    }

    fn with(more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (kafka, http) = (free_address(), free_address());
        let mut arguments = vec![
            "helix-server".as_ref(),
            "--data-dir".as_ref(),
            directory.path().as_os_str(),
            "--listen".as_ref(),
            kafka.as_ref(),
            "--http-listen".as_ref(),
            http.as_ref(),
        ];
        arguments.extend(more.iter().map(std::ffi::OsStr::new));
        let Command::Run(config) = cli::parse(arguments.into_iter().map(Into::into)).unwrap() else {
            unreachable!()
        };
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let running = thread::spawn(move || runtime.block_on(server::run(Env::real(), *config, stopped)));
        Self { kafka, http, stop, running, _directory: directory }
    }

    /// A connection to a node that serves the topic, which has one partition.
    pub(crate) async fn connect(&self) -> TcpStream {
        let mut connection = until("a connection", async || TcpStream::connect(&self.kafka).await.ok()).await;
        let topic =
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(TOPIC))));
        let request =
            MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(true);
        let request = framed(ApiKey::Metadata, METADATA_VERSION, &encoded(&request, METADATA_VERSION));
        until("a leader of the topic", async || {
            connection.write_all(&request).await.unwrap();
            let mut body = answer(&mut connection).await.unwrap();
            let metadata = MetadataResponse::decode(&mut body, METADATA_VERSION).unwrap();
            let mut partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.any(|partition| partition.error_code == 0).then_some(())
        })
        .await;
        connection
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

fn free_address() -> String {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
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

/// The body of the next answer, of a version whose header has no tagged fields; `None` at the end of the connection.
pub(crate) async fn answer(connection: &mut TcpStream) -> Option<Bytes> {
    let length = connection.read_u32().await.ok()?;
    let mut answer = vec![0; length as usize];
    connection.read_exact(&mut answer).await.ok()?;
    let mut answer = Bytes::from(answer);
    answer.advance(4); // the correlation id
    Some(answer)
}

/// Sends a request and reads its answer.
pub(crate) async fn ask<T: Decodable>(
    connection: &mut TcpStream,
    key: ApiKey,
    version: i16,
    request: &impl Encodable,
) -> T {
    connection.write_all(&framed(key, version, &encoded(request, version))).await.unwrap();
    let mut body = within("an answer", answer(connection)).await.expect("an answer");
    if key.response_header_version(version) >= 1 {
        body.advance(1); // no tagged fields
    }
    T::decode(&mut body, version).unwrap()
}
