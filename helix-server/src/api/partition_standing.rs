//! How a partition stands, as clients are told of it: its leader, and which replicas keep up.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::BrokerId;

use super::errors;
use crate::broker::Broker;
use crate::controller::image::{ClusterImage, PartitionImage};

/// What Metadata and DescribeTopicPartitions tell of a partition.
#[derive(Debug)]
pub(super) struct PartitionStanding {
    pub(super) error_code: i16,
    /// -1 if nobody leads who can be reached.
    pub(super) leader: BrokerId,
    /// -1 if nothing was heard of a leader.
    pub(super) leader_epoch: i32,
    pub(super) replicas: Vec<BrokerId>,
    pub(super) in_sync: Vec<BrokerId>,
    pub(super) offline: Vec<BrokerId>,
}

/// How a partition stands, as far as this node knows.
pub(super) fn of(broker: &Broker, image: &ClusterImage, partition: &PartitionImage) -> PartitionStanding {
    let known = broker.leaders().get(partition.group);
    let node_of = |replica| image.broker_of_replica(replica).map(|b| b.node);
    let leader = broker.live_leader(partition.group);
    let in_sync = match &known {
        Some(info) if !info.in_sync.is_empty() => {
            info.in_sync.iter().filter_map(|r| node_of(*r)).map(|n| BrokerId(n.0)).collect()
        }
        _ => leader.map(|n| BrokerId(n.0)).into_iter().collect(),
    };
    let offline = partition.replicas.iter().filter(|r| !broker.is_alive(r.node));
    PartitionStanding {
        error_code: if leader.is_some() { errors::NONE } else { ResponseError::LeaderNotAvailable.code() },
        leader: BrokerId(leader.map_or(-1, |n| n.0)),
        leader_epoch: known.map_or(-1, |info| info.term.0 as i32),
        replicas: partition.replicas.iter().map(|r| BrokerId(r.node.0)).collect(),
        in_sync,
        offline: offline.map(|r| BrokerId(r.node.0)).collect(),
    }
}
