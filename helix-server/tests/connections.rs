//! Connections at their end, on a whole node in this process: a stopping node answers what it has read, and a request of a
//! client that is gone does not go on.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod support;

use std::future::Future;
use std::net::TcpListener as StdListener;
use std::thread;
use std::time::Duration;

use bytes::{Buf, Bytes};
use helix_server::cli::{self, Command};
use helix_server::env::{Env, watch};
use helix_server::node;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use support::requests::{encoded, framed};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TOPIC: &str = "topic";
/// A test that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(60);
/// Longer than any deadline.
const FOR_EVER_MS: i32 = 24 * 60 * 60 * 1000;
const FETCH_VERSION: i16 = 11;
const METADATA_VERSION: i16 = 8;

/// A single node.
struct Node {
    kafka: String,
    http: String,
    stop: watch::Sender<bool>,
    running: thread::JoinHandle<Result<(), node::NodeError>>,
    _directory: TempDir,
}

impl Node {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (kafka, http) = (free_address(), free_address());
        let arguments = [
            "helix-server".as_ref(),
            "--data-dir".as_ref(),
            directory.path().as_os_str(),
            "--listen".as_ref(),
            kafka.as_ref(),
            "--http-listen".as_ref(),
            http.as_ref(),
        ];
        let Command::Run(config) = cli::parse(arguments.map(Into::into)).unwrap() else { unreachable!() };
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let running = thread::spawn(move || runtime.block_on(node::run(Env::real(), *config, stopped)));
        Self { kafka, http, stop, running, _directory: directory }
    }

    /// A connection to a node that serves the topic, which has one partition.
    async fn connect(&self) -> TcpStream {
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
    async fn metric(&self, name: &str) -> Option<f64> {
        let mut connection = TcpStream::connect(&self.http).await.ok()?;
        connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.ok()?;
        let mut text = String::new();
        connection.read_to_string(&mut text).await.ok()?;
        let line = text.lines().find(|line| line.split(' ').next() == Some(name))?;
        line.split(' ').nth(1)?.parse().ok()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        within("the node's end", tokio::task::spawn_blocking(|| self.running.join()))
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

fn free_address() -> String {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or_else(|_| panic!("{what} took more than {DEADLINE:?}"))
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
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
async fn answer(connection: &mut TcpStream) -> Option<Bytes> {
    let length = connection.read_u32().await.ok()?;
    let mut answer = vec![0; length as usize];
    connection.read_exact(&mut answer).await.ok()?;
    let mut answer = Bytes::from(answer);
    answer.advance(4); // the correlation id
    Some(answer)
}

/// A fetch of an empty partition that is never satisfied.
fn endless_fetch() -> Vec<u8> {
    let partition =
        FetchPartition::default().with_partition(0).with_fetch_offset(0).with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(FOR_EVER_MS)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    framed(ApiKey::Fetch, FETCH_VERSION, &encoded(&request, FETCH_VERSION))
}

/// Sends a fetch that waits, and comes back once it does.
async fn wait_in_fetch(node: &Node, connection: &mut TcpStream) {
    connection.write_all(&endless_fetch()).await.unwrap();
    until("the fetch's arrival", async || {
        node.metric("helix_requests_total{api=\"Fetch\"}").await.filter(|count| *count >= 1.0)
    })
    .await;
}

#[tokio::test]
async fn a_stopping_node_answers_what_it_has_read() {
    let node = Node::start();
    let mut connection = node.connect().await;
    wait_in_fetch(&node, &mut connection).await;
    node.stop.send_replace(true);
    let mut body = within("the answer", answer(&mut connection)).await.expect("an answer before the end");
    FetchResponse::decode(&mut body, FETCH_VERSION).unwrap();
    assert_eq!(within("the end", answer(&mut connection)).await, None);
    node.end().await;
}

#[tokio::test]
async fn a_fetch_ends_with_its_connection() {
    let node = Node::start();
    let mut connection = node.connect().await;
    wait_in_fetch(&node, &mut connection).await;
    assert_eq!(node.metric("helix_connections").await, Some(1.0));
    drop(connection);
    until("the connection's end", async || {
        node.metric("helix_connections").await.filter(|open| *open == 0.0)
    })
    .await;
    node.end().await;
}
