//! What tools are told of a cluster, and what they have it do.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, ListOffsetsResponse};

use super::*;

/// Asks for where a partition begins.
const EARLIEST: i64 = -2;

#[tokio::test]
async fn tools_are_told_how_things_stand() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    client.create("u", 3, 1, &[]).await;

    let asked = |name: &str| {
        describe_topic_partitions_request::TopicRequest::default().with_name(TopicName(text(name)))
    };
    let mut request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![asked("u"), asked("t"), asked("missing")])
        .with_response_partition_limit(2);
    let mut told = Vec::new();
    loop {
        let page: DescribeTopicPartitionsResponse =
            call(&mut client.connection, ApiKey::DescribeTopicPartitions, 0, &request).await;
        for topic in &page.topics {
            let name = topic.name.as_ref().unwrap().to_string();
            told.push((
                name,
                topic.error_code,
                topic.partitions.iter().map(|p| p.partition_index).collect::<Vec<_>>(),
            ));
        }
        let Some(next) = page.next_cursor else { break };
        let cursor = describe_topic_partitions_request::Cursor::default()
            .with_topic_name(next.topic_name)
            .with_partition_index(next.partition_index);
        request.cursor = Some(cursor);
    }
    let elsewhere =
        describe_topic_partitions_request::Cursor::default().with_topic_name(TopicName(text("a")));
    let request = request.with_cursor(Some(elsewhere));
    let refused: DescribeTopicPartitionsResponse =
        call(&mut client.connection, ApiKey::DescribeTopicPartitions, 0, &request).await;
    let codes: Vec<i16> = refused.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [INVALID_REQUEST; 3], "none of the topics is where the cursor is");
    let expected = [("missing", 3, vec![]), ("t", 0, vec![0]), ("u", 0, vec![0]), ("u", 0, vec![1, 2])];
    assert_eq!(told, expected.map(|(name, code, partitions)| (name.to_owned(), code, partitions)));

    assert_eq!(client.produce("t", batch(10_000, Some((77, 0)))).await.error_code, NONE);
    let topic = describe_producers_request::TopicRequest::default()
        .with_name(TopicName(text("t")))
        .with_partition_indexes(vec![0, 5]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let told: DescribeProducersResponse =
        call(&mut client.connection, ApiKey::DescribeProducers, 0, &request).await;
    let partitions = &told.topics[0].partitions;
    let producer = &partitions[0].active_producers[0];
    assert_eq!((producer.producer_id.0, producer.last_sequence, producer.producer_epoch), (77, 0, 0));
    assert_eq!(partitions[1].error_code, 3);

    let request = DescribeLogDirsRequest::default().with_topics(None);
    let told: DescribeLogDirsResponse =
        call(&mut client.connection, ApiKey::DescribeLogDirs, 4, &request).await;
    let [dir] = &told.results[..] else { panic!("one directory") };
    assert!(dir.total_bytes >= dir.usable_bytes && dir.usable_bytes > 0);
    assert_eq!(dir.log_dir.as_str(), directory.path().to_str().unwrap());
    let of = |name: &str| dir.topics.iter().find(|topic| topic.name.as_str() == name).unwrap();
    assert!(of("t").partitions[0].partition_size > 10_000);
    assert_eq!(of("u").partitions.len(), 3);

    let request = ListConfigResourcesRequest::default();
    let told: ListConfigResourcesResponse =
        call(&mut client.connection, ApiKey::ListConfigResources, 1, &request).await;
    let mut names: Vec<_> =
        told.config_resources.iter().map(|r| (r.resource_type, r.resource_name.to_string())).collect();
    names.sort();
    assert_eq!(names, [(2, "t"), (2, "u"), (4, "1")].map(|(kind, name)| (kind, name.to_owned())));
    node.end().await;
}

/// Nodes 1 to 3 of one cluster.
struct Cluster {
    directories: Vec<tempfile::TempDir>,
    addresses: Vec<[String; 2]>,
    peers: String,
}

impl Cluster {
    fn new() -> Self {
        let peers: Vec<String> = (1..=3).map(|id| format!("{id}@{}", free_address())).collect();
        Self {
            directories: (0..3).map(|_| tempfile::tempdir().unwrap()).collect(),
            addresses: (0..3).map(|_| [free_address(), free_address()]).collect(),
            peers: peers.join(","),
        }
    }

    fn start(&self, number: usize, more: &[&str]) -> Node {
        let [kafka, http] = &self.addresses[number];
        let id = (number + 1).to_string();
        let mut arguments = vec!["--node-id", &id, "--peers", &self.peers];
        arguments.extend(more);
        Node::start(self.directories[number].path(), [kafka, http], &arguments)
    }
}

/// Who leads the only partition, as a node knows it, and who is in sync with it.
async fn leader(client: &mut Client) -> (i32, Vec<i32>) {
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![
            describe_topic_partitions_request::TopicRequest::default().with_name(TopicName(text("t"))),
        ])
        .with_response_partition_limit(10);
    let told: DescribeTopicPartitionsResponse =
        call(&mut client.connection, ApiKey::DescribeTopicPartitions, 0, &request).await;
    let Some(partition) = told.topics[0].partitions.first() else { return (-1, Vec::new()) };
    let mut in_sync: Vec<i32> = partition.isr_nodes.iter().map(|node| node.0).collect();
    in_sync.sort_unstable();
    (partition.leader_id.0, in_sync)
}

async fn elect(client: &mut Client) -> i16 {
    let partitions = elect_leaders_request::TopicPartitions::default()
        .with_topic(TopicName(text("t")))
        .with_partitions(vec![0]);
    let request =
        ElectLeadersRequest::default().with_topic_partitions(Some(vec![partitions])).with_timeout_ms(30_000);
    let told: ElectLeadersResponse = call(&mut client.connection, ApiKey::ElectLeaders, 2, &request).await;
    told.replica_election_results[0].partition_result[0].error_code
}

#[tokio::test]
async fn leadership_goes_back_to_whom_it_is_meant_for() {
    let cluster = Cluster::new();
    let mut nodes: Vec<Option<Node>> = (0..3).map(|number| Some(cluster.start(number, &[]))).collect();
    let mut clients = Vec::new();
    for node in nodes.iter().flatten() {
        clients.push(Client::of(node).await);
    }
    until("a topic", async || {
        let created = clients[0].create("t", 1, 3, &[]).await;
        [NONE, TOPIC_EXISTS].contains(&created.topics[0].error_code).then_some(())
    })
    .await;
    let preferred = until("a leader that all follow", async || {
        let (leader, in_sync) = leader(&mut clients[0]).await;
        (leader > 0 && in_sync == [1, 2, 3]).then_some(leader)
    })
    .await;
    assert_eq!(elect(&mut clients[0]).await, ELECTION_NOT_NEEDED);

    let away = preferred as usize - 1;
    let (other, third) = ((away + 1) % 3, (away + 2) % 3);
    nodes[away].take().unwrap().end().await;
    let leads_now = until("another leader", async || {
        let (leader, _) = leader(&mut clients[other]).await;
        (leader > 0 && leader != preferred).then_some(leader)
    })
    .await;
    nodes[away] = Some(cluster.start(away, &[]));
    // Whoever does not lead the partition has to ask the one that does.
    let asked = if leads_now as usize - 1 == other { third } else { other };
    until("an election", async || {
        let code = elect(&mut clients[asked]).await;
        assert!([NONE, PREFERRED_LEADER_NOT_AVAILABLE].contains(&code), "{code}");
        is(NONE, code)
    })
    .await;
    for client in [other, third] {
        until("the preferred leader", async || {
            (leader(&mut clients[client]).await.0 == preferred).then_some(())
        })
        .await;
        assert_eq!(elect(&mut clients[client]).await, ELECTION_NOT_NEEDED);
    }

    let partition = describe_quorum_request::PartitionData::default().with_partition_index(0);
    let topic = describe_quorum_request::TopicData::default()
        .with_topic_name(TopicName(text("__cluster_metadata")))
        .with_partitions(vec![partition]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    for client in [other, third] {
        let connection = &mut clients[client].connection;
        let told: DescribeQuorumResponse = call(connection, ApiKey::DescribeQuorum, 2, &request).await;
        let partition = &told.topics[0].partitions[0];
        assert_eq!(partition.error_code, NONE);
        let mut voters: Vec<i32> = partition.current_voters.iter().map(|voter| voter.replica_id.0).collect();
        voters.sort_unstable();
        assert_eq!((voters, told.nodes.len()), (vec![1, 2, 3], 3));
        let leader = partition.current_voters.iter().find(|voter| voter.replica_id == partition.leader_id);
        assert!(leader.unwrap().log_end_offset >= partition.high_watermark && partition.high_watermark > 1);
    }
    for node in nodes.into_iter().flatten() {
        node.end().await;
    }
}

/// Where the only partition begins, if the node leads it.
async fn log_start(client: &mut Client) -> Option<i64> {
    let partition = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(EARLIEST);
    let topic = ListOffsetsTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let told: ListOffsetsResponse = call(&mut client.connection, ApiKey::ListOffsets, 7, &request).await;
    let partition = &told.topics[0].partitions[0];
    (partition.error_code == NONE).then_some(partition.offset)
}

#[tokio::test]
async fn nothing_is_removed_by_what_was_wanted_before_a_node_went() {
    const EVERY_DAY: [&str; 2] = ["--set", "log.retention.check.interval.ms=86400000"];
    const ALL_THE_TIME: [&str; 2] = ["--set", "log.retention.check.interval.ms=100"];
    let cluster = Cluster::new();
    let mut nodes: Vec<Option<Node>> = (0..3).map(|number| Some(cluster.start(number, &EVERY_DAY))).collect();
    let mut client = Client::of(nodes[0].as_ref().unwrap()).await;
    until("a topic", async || {
        let created = client.create("t", 1, 1, &[("retention.ms", "1000")]).await;
        [NONE, TOPIC_EXISTS].contains(&created.topics[0].error_code).then_some(())
    })
    .await;
    let of = until("its leader", async || {
        let (leader, _) = leader(&mut client).await;
        usize::try_from(leader - 1).ok()
    })
    .await;
    let mut client = Client::of(nodes[of].as_ref().unwrap()).await;
    until("a record of long ago", async || is(NONE, client.produce_small("t").await)).await;
    drop(client);
    nodes[of].take().unwrap().end().await;

    let others = [(of + 1) % 3, (of + 2) % 3];
    let mut client = Client::of(nodes[others[0]].as_ref().unwrap()).await;
    until("a change", async || {
        is(NONE, client.alter((TOPIC, "t"), &[("retention.ms", SET, Some("-1"))]).await.0)
    })
    .await;
    drop(client);
    for other in others {
        nodes[other].take().unwrap().end().await;
    }
    let alone = cluster.start(of, &ALL_THE_TIME);
    until("the only replica to lead", async || {
        alone.metric("helix_leaders").await.filter(|leaders| *leaders > 0.0)
    })
    .await;
    for other in others {
        nodes[other] = Some(cluster.start(other, &ALL_THE_TIME));
    }
    let mut client = Client::of(&alone).await;
    let kept = until("the new retention", async || {
        let changed = client.value(TOPIC, "t", "retention.ms").await.0 == "-1";
        log_start(&mut client).await.filter(|_| changed)
    })
    .await;
    assert_eq!(kept, 0, "it is to be kept for ever by now");
    drop(client);
    alone.end().await;
    for node in nodes.into_iter().flatten() {
        node.end().await;
    }
}
