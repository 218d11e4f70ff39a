//! Connections at their end, on a whole node in this process: a stopping node answers what it has read, and a request of a
//! client that is gone does not go on.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod support;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::{Decodable, StrBytes};
use support::node::{Node, answer, until, within};
use support::requests::{encoded, framed};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const TOPIC: &str = "topic";
/// Longer than any deadline.
const FOR_EVER_MS: i32 = 24 * 60 * 60 * 1000;
const FETCH_VERSION: i16 = 11;

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
    let directory = tempfile::tempdir().unwrap();
    let node = Node::single(directory.path(), &[]);
    let mut connection = node.connect_to(TOPIC).await;
    wait_in_fetch(&node, &mut connection).await;
    node.stop.send_replace(true);
    let mut body = within("the answer", answer(&mut connection)).await.expect("an answer before the end");
    FetchResponse::decode(&mut body, FETCH_VERSION).unwrap();
    assert_eq!(within("the end", answer(&mut connection)).await, None);
    node.end().await;
}

#[tokio::test]
async fn a_fetch_ends_with_its_connection() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::single(directory.path(), &[]);
    let mut connection = node.connect_to(TOPIC).await;
    wait_in_fetch(&node, &mut connection).await;
    assert_eq!(node.metric("helix_connections").await, Some(1.0));
    drop(connection);
    until("the connection's end", async || {
        node.metric("helix_connections").await.filter(|open| *open == 0.0)
    })
    .await;
    node.end().await;
}
