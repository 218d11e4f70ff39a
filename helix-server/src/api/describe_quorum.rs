//! DescribeQuorum (key 55): how the metadata group stands, as its leader sees it (KIP-595).

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_quorum_request::TopicData as AskedTopic;
use kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::{BrokerId, DescribeQuorumRequest, DescribeQuorumResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;
use uuid::Uuid;

use crate::broker::Broker;
use crate::broker::questions::{MemberStanding, QuorumStanding};
use crate::controller::image::ClusterImage;

/// What Kafka calls the log of the metadata; it has one partition.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// How long the leader is waited for.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn handle(
    broker: &Broker,
    request: DescribeQuorumRequest,
    version: i16,
) -> DescribeQuorumResponse {
    if !asks_for_metadata(&request.topics) {
        let topics = request.topics.into_iter().map(|topic| unknown(topic, version)).collect();
        return DescribeQuorumResponse::default().with_topics(topics);
    }
    let standing = broker.quorum(Instant::now() + LEADER_TIMEOUT).await;
    let image = broker.image();
    let Some(standing) = standing else {
        let reason = "no leader of the metadata was found in time: ask again".to_owned();
        let partition =
            refused(PartitionData::default(), ResponseError::NotLeaderOrFollower, reason, version);
        return DescribeQuorumResponse::default().with_topics(vec![metadata_topic(partition)]);
    };
    let response = DescribeQuorumResponse::default()
        .with_topics(vec![metadata_topic(describe(&image, &standing, version))]);
    if version >= 2 { response.with_nodes(nodes(&image, &standing)) } else { response }
}

fn asks_for_metadata(topics: &[AskedTopic]) -> bool {
    matches!(topics, [topic] if topic.topic_name.as_str() == METADATA_TOPIC
        && matches!(&topic.partitions[..], [partition] if partition.partition_index == 0))
}

fn unknown(topic: AskedTopic, version: i16) -> TopicData {
    let partitions = topic.partitions.iter().map(|partition| {
        let number = PartitionData::default().with_partition_index(partition.partition_index);
        let reason = format!("only partition 0 of {METADATA_TOPIC} has a quorum, and is asked for alone");
        refused(number, ResponseError::UnknownTopicOrPartition, reason, version)
    });
    TopicData::default().with_topic_name(topic.topic_name).with_partitions(partitions.collect())
}

fn refused(partition: PartitionData, error: ResponseError, reason: String, version: i16) -> PartitionData {
    let refused = partition.with_error_code(error.code());
    if version >= 2 { refused.with_error_message(Some(StrBytes::from_string(reason))) } else { refused }
}

fn metadata_topic(partition: PartitionData) -> TopicData {
    TopicData::default()
        .with_topic_name(TopicName(StrBytes::from_static_str(METADATA_TOPIC)))
        .with_partitions(vec![partition])
}

fn describe(image: &ClusterImage, standing: &QuorumStanding, version: i16) -> PartitionData {
    let members = |voters: bool| {
        let of_kind = standing.members.iter().filter(move |member| member.is_voter == voters);
        of_kind.filter_map(|member| replica_state(image, member, version)).collect()
    };
    let leader = image.broker_of_replica(standing.leader).map_or(-1, |broker| broker.node.get());
    PartitionData::default()
        .with_leader_id(BrokerId(leader))
        .with_leader_epoch(standing.term.0 as i32)
        // As in Kafka, the offset behind the last committed entry.
        .with_high_watermark(standing.commit.next().0 as i64)
        .with_current_voters(members(true))
        .with_observers(members(false))
}

/// `None` for a disk that no registered node has (any more).
fn replica_state(image: &ClusterImage, member: &MemberStanding, version: i16) -> Option<ReplicaState> {
    let broker = image.broker_of_replica(member.replica)?;
    let mut state = ReplicaState::default()
        .with_replica_id(BrokerId(broker.node.get()))
        .with_log_end_offset(member.matched.next().0 as i64);
    if version >= 1 {
        state.last_fetch_timestamp = member.heard_at_ms.unwrap_or(-1);
        state.last_caught_up_timestamp = member.caught_up_at_ms.unwrap_or(-1);
    }
    if version >= 2 {
        state.replica_directory_id = Uuid::from_u128(u128::from(member.replica.0));
    }
    Some(state)
}

fn nodes(image: &ClusterImage, standing: &QuorumStanding) -> Vec<Node> {
    let brokers = standing.members.iter().filter_map(|member| image.broker_of_replica(member.replica));
    brokers
        .map(|broker| {
            let listener = Listener::default()
                .with_name(StrBytes::from_static_str("PLAINTEXT"))
                .with_host(StrBytes::from_string(broker.host.clone()))
                .with_port(broker.port);
            Node::default().with_node_id(BrokerId(broker.node.get())).with_listeners(vec![listener])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_quorum_request::PartitionData as AskedPartition;

    use super::*;

    #[test]
    fn what_has_no_quorum_is_told_so_in_words_where_there_is_room() {
        let asked = AskedTopic::default()
            .with_topic_name(TopicName(StrBytes::from_static_str("t")))
            .with_partitions(vec![AskedPartition::default().with_partition_index(7)]);
        let told = |version| unknown(asked.clone(), version).partitions.remove(0);
        let code = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!((told(2).partition_index, told(2).error_code), (7, code));
        assert!(told(2).error_message.unwrap().contains(METADATA_TOPIC));
        // Older versions have no such field: the encoder takes nothing but its default.
        assert_eq!(told(1).error_message, PartitionData::default().error_message);
    }
}
