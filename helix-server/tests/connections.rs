//! Connections at their end, on a whole node in this process: a stopping node answers what it has read, and a request of a
//! client that is gone does not go on.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod support;

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{
    ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, FetchRequest, FetchResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, JoinGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, StrBytes};
use support::node::{Node, answer, call, until, within};
use support::requests::{encoded, framed};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const TOPIC: &str = "topic";
/// Longer than any deadline.
const FOR_EVER_MS: i32 = 24 * 60 * 60 * 1000;
const FETCH_VERSION: i16 = 11;
/// The last version whose members need no id to begin with.
const JOIN_VERSION: i16 = 3;
const GROUP: GroupId = GroupId(StrBytes::from_static_str("group"));

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

/// A node whose groups wait for more members for ever, once it coordinates the group.
async fn coordinator_of_patient_groups(settings: &[&str]) -> Node {
    let patient = ["group.initial.rebalance.delay.ms=86400000", "offsets.topic.num.partitions=1"];
    let node = Node::alone(&[&patient, settings].concat());
    let mut connection = node.connect().await;
    let find = FindCoordinatorRequest::default().with_key(GROUP.0);
    until("a coordinator", async || {
        let found: FindCoordinatorResponse = call(&mut connection, ApiKey::FindCoordinator, 0, &find).await;
        (found.error_code == 0).then_some(())
    })
    .await;
    let describe = DescribeGroupsRequest::default().with_groups(vec![GROUP]);
    until("the group", async || {
        let described: DescribeGroupsResponse =
            call(&mut connection, ApiKey::DescribeGroups, 0, &describe).await;
        (described.groups[0].error_code == 0).then_some(())
    })
    .await;
    node
}

/// The request of a new member that says this much of itself.
fn join(metadata_bytes: usize) -> Vec<u8> {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(StrBytes::from_static_str("range"))
        .with_metadata(Bytes::from(vec![0; metadata_bytes]));
    let request = JoinGroupRequest::default()
        .with_group_id(GROUP)
        .with_session_timeout_ms(600_000)
        .with_rebalance_timeout_ms(FOR_EVER_MS)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol]);
    framed(ApiKey::JoinGroup, JOIN_VERSION, &encoded(&request, JOIN_VERSION))
}

/// Sends the request of a new member, and comes back when it waits in the group.
async fn wait_in_group(node: &Node, connection: &mut TcpStream, metadata_bytes: usize, members: usize) {
    connection.write_all(&join(metadata_bytes)).await.unwrap();
    let mut other = node.connect().await;
    until("the member", async || (members_of_group(&mut other).await == members).then_some(())).await;
}

async fn members_of_group(connection: &mut TcpStream) -> usize {
    let describe = DescribeGroupsRequest::default().with_groups(vec![GROUP]);
    let described: DescribeGroupsResponse = call(connection, ApiKey::DescribeGroups, 0, &describe).await;
    described.groups[0].members.len()
}

#[tokio::test]
async fn nobody_becomes_a_member_whose_connection_ended_before() {
    let node = coordinator_of_patient_groups(&[]).await;
    let mut connection = node.connect_to(TOPIC).await;
    wait_in_fetch(&node, &mut connection).await;
    connection.write_all(&join(100)).await.unwrap();
    until("the request behind it", async || {
        node.metric("helix_requests_total{api=\"JoinGroup\"}").await.filter(|count| *count >= 1.0)
    })
    .await;
    drop(connection);
    until("the connection's end", async || {
        node.metric("helix_connections").await.filter(|open| *open == 0.0)
    })
    .await;
    let mut other = node.connect().await;
    assert_eq!(members_of_group(&mut other).await, 0);
    drop(other);
    node.end().await;
}

#[tokio::test]
async fn members_that_wait_keep_nobodys_requests_from_being_read() {
    let node = coordinator_of_patient_groups(&["helix.request.max.pending.bytes=1048576"]).await;
    let mut connections = Vec::new();
    for members in 1..=3 {
        let mut connection = node.connect().await;
        // Two of these do not fit into what may be pending.
        wait_in_group(&node, &mut connection, 700_000, members).await;
        connections.push(connection);
    }
    node.end().await;
}

#[tokio::test]
async fn a_wait_for_other_members_ends_with_its_connection() {
    let node = coordinator_of_patient_groups(&[]).await;
    until("no connection", async || node.metric("helix_connections").await.filter(|open| *open == 0.0)).await;
    let mut connection = node.connect().await;
    wait_in_group(&node, &mut connection, 100, 1).await;
    drop(connection);
    until("the connection's end", async || {
        node.metric("helix_connections").await.filter(|open| *open == 0.0)
    })
    .await;
    node.end().await;
}
