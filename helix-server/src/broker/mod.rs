//! What the Kafka APIs call: one node's view of the cluster and the way to its partitions.

pub mod batch;
pub mod batcher;
pub mod budget;
mod coordination;
pub mod delete_records;
pub mod fetch;
pub mod fetch_sessions;
pub mod leaders;
pub mod lookup;
pub mod partitions;
pub mod produce;
pub mod producer_ids;
pub mod questions;
pub(crate) mod replica_selector;
pub(crate) mod retention;
pub mod topics;

use std::sync::Arc;

use arc_swap::ArcSwap;
use helix_raft::{GroupId, Index, ReplicaId};
use helix_wal::Wal;
use kafka_protocol::ResponseError;
use tokio::time::Instant;

use crate::cluster::{ClusterLink, NodeLiveness};
use crate::config::BrokerConfig;
use crate::config::live::{Altered, LiveConfig};
use crate::controller::image::{ClusterImage, TopicImage};
use crate::controller::{Controller, commands::METADATA_GROUP};
use crate::coordinator::Coordinators;
use crate::env::{Env, watch};
use crate::ids::{ClusterId, NodeId};
use crate::ops::metrics::Metrics;
use crate::partition::producers::ProducerBatch;
use crate::partition::view::PartitionView;
use crate::repair::Repairs;
use crate::shard::Shards;
use budget::Budget;
use fetch_sessions::FetchSessions;
use leaders::{CurrentLeader, LeaderTable};
use partitions::PartitionTable;
use produce::AppendRequest;
use producer_ids::ProducerIds;
use questions::Questions;

/// The budgets that bound the node's memory. They are separate so that one kind of work never starves another: two nodes
/// that are both full must never refuse each other's appends.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// Bytes of produce requests, from the length prefix until every partition has decided.
    pub produce_bytes: Budget,
    /// Number of produce requests in that state.
    pub produce_requests: Budget,
    /// Bytes of all other requests until they are answered.
    pub other_requests: Budget,
    /// Bytes of fetch responses until they have left.
    pub fetch: Budget,
    /// Searches by timestamp that run at one time.
    pub searches: Budget,
    /// Bytes of answers that can be much larger than their requests, until they have left.
    pub answers: Budget,
}

/// Everything a request needs, shared by all connections.
pub struct Broker {
    pub(crate) parts: BrokerParts,
}

/// What a [`Broker`] is made of.
pub(crate) struct BrokerParts {
    pub(crate) env: Env,
    pub(crate) node: NodeId,
    pub(crate) started: Instant,
    pub(crate) cluster_id: ClusterId,
    pub(crate) config: Arc<LiveConfig>,
    pub(crate) image: Arc<ArcSwap<ClusterImage>>,
    pub(crate) leaders: Arc<LeaderTable>,
    pub(crate) partitions: Arc<PartitionTable>,
    pub(crate) liveness: Arc<NodeLiveness>,
    pub(crate) cluster: ClusterLink,
    pub(crate) shards: Shards,
    pub(crate) controller: Controller,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) coordinators: Coordinators,
    /// What of the metadata is in the image.
    pub(crate) metadata_applied: watch::Receiver<Index>,
    /// Nodes that are to be in the cluster.
    pub(crate) cluster_size: usize,
    pub(crate) wal: Wal,
    pub(crate) repairs: Repairs,
    pub(crate) questions: Questions,
    pub(crate) budgets: Budgets,
    pub(crate) fetch_sessions: Arc<FetchSessions>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Broker {
    /// The cluster's metadata as this node knows it.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.parts.image.load_full()
    }

    pub(crate) fn env(&self) -> &Env {
        &self.parts.env
    }

    /// The configuration in force now.
    pub(crate) fn config(&self) -> Arc<BrokerConfig> {
        self.parts.config.get()
    }

    /// Where that comes from.
    pub(crate) fn live_config(&self) -> &LiveConfig {
        &self.parts.config
    }

    /// What was altered of it.
    pub(crate) fn altered<'a>(&self, image: &'a ClusterImage) -> Altered<'a> {
        Altered { everywhere: image.broker_configs(None), here: image.broker_configs(Some(self.parts.node)) }
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.parts.node
    }

    pub(crate) fn cluster_id(&self) -> ClusterId {
        self.parts.cluster_id
    }

    pub(crate) fn leaders(&self) -> &LeaderTable {
        &self.parts.leaders
    }

    pub(crate) fn controller(&self) -> &Controller {
        &self.parts.controller
    }

    pub(crate) fn producer_ids(&self) -> &ProducerIds {
        &self.parts.producer_ids
    }

    pub(crate) fn coordinators(&self) -> &Coordinators {
        &self.parts.coordinators
    }

    pub(crate) fn wal(&self) -> &Wal {
        &self.parts.wal
    }

    pub(crate) fn repairs(&self) -> &Repairs {
        &self.parts.repairs
    }

    pub(crate) fn budgets(&self) -> &Budgets {
        &self.parts.budgets
    }

    pub(crate) fn fetch_sessions(&self) -> &Arc<FetchSessions> {
        &self.parts.fetch_sessions
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// Whether a node is this one or was heard of lately.
    pub(crate) fn is_alive(&self, node: NodeId) -> bool {
        node == self.parts.node
            || self.image().broker(node).is_some_and(|broker| self.parts.liveness.is_alive(broker.replica))
    }

    /// What tells whether nodes can be reached.
    pub(crate) fn liveness(&self) -> &NodeLiveness {
        &self.parts.liveness
    }

    /// The node that clients should send administrative requests to: the leader of the metadata group if it is known, else this
    /// one, which forwards them.
    pub(crate) fn controller_node(&self) -> NodeId {
        self.live_leader(METADATA_GROUP).unwrap_or(self.parts.node)
    }

    /// The node that leads a group, if it is known and can be reached.
    pub(crate) fn live_leader(&self, group: GroupId) -> Option<NodeId> {
        self.node_leading(group).filter(|node| self.is_alive(*node))
    }

    fn node_leading(&self, group: GroupId) -> Option<NodeId> {
        let leader: ReplicaId = self.leaders().get(group)?.leader?;
        self.image().broker_of_replica(leader).map(|b| b.node)
    }

    /// A group's leader as clients know it.
    pub(crate) fn current_leader(&self, group: GroupId) -> Option<CurrentLeader> {
        let info = self.leaders().get(group)?;
        let node = self.image().broker_of_replica(info.leader?)?.node;
        Some(CurrentLeader { node, epoch: info.term.0 as i32 })
    }

    /// The partition of a topic given by name, if this node leads it and the client's leader epoch is right.
    pub(crate) fn leading_view(
        &self,
        topic: &str,
        partition: i32,
        current_leader_epoch: i32,
    ) -> Result<Arc<PartitionView>, ResponseError> {
        let image = self.image();
        let topic = image.topic_named(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
        self.leading_view_of(topic, partition, current_leader_epoch)
    }

    /// A partition of a topic, if this node leads it and the client's leader epoch is right (KIP-320; -1 is not checked).
    pub(crate) fn leading_view_of(
        &self,
        topic: &TopicImage,
        partition: i32,
        current_leader_epoch: i32,
    ) -> Result<Arc<PartitionView>, ResponseError> {
        let view = self.view_of(topic, partition, current_leader_epoch)?;
        if view.leadership().serving { Ok(view) } else { Err(ResponseError::NotLeaderOrFollower) }
    }

    /// A partition of which this node has a replica, if the client's leader epoch is the one known here (KIP-320; -1 is not checked).
    pub(crate) fn view_of(
        &self,
        topic: &TopicImage,
        partition: i32,
        current_leader_epoch: i32,
    ) -> Result<Arc<PartitionView>, ResponseError> {
        let partition = usize::try_from(partition)
            .ok()
            .and_then(|number| topic.partitions.get(number))
            .ok_or(ResponseError::UnknownTopicOrPartition)?;
        let view = self.parts.partitions.get(partition.group).ok_or(ResponseError::NotLeaderOrFollower)?;
        let leadership = view.leadership();
        if current_leader_epoch >= 0 {
            if current_leader_epoch < leadership.epoch {
                return Err(ResponseError::FencedLeaderEpoch);
            }
            if current_leader_epoch > leadership.epoch {
                return Err(ResponseError::UnknownLeaderEpoch);
            }
        }
        Ok(view)
    }

    /// A partition replica of this node.
    pub(crate) fn partition(&self, group: GroupId) -> Option<Arc<PartitionView>> {
        self.parts.partitions.get(group)
    }

    /// The last batch of every producer that a partition of this node remembers.
    pub(crate) async fn producers(&self, group: GroupId) -> Option<Vec<ProducerBatch>> {
        self.parts.shards.producers(group).await
    }

    /// Hands a batch to the owner of its partition.
    pub(crate) fn append(&self, request: AppendRequest) {
        self.parts.shards.append(request);
    }

    pub(crate) fn partitions_or_default(&self, asked: i32) -> i32 {
        if asked == -1 { self.config().num_partitions } else { asked }
    }

    pub(crate) fn replication_or_default(&self, asked: i16) -> i16 {
        if asked == -1 { self.config().default_replication_factor } else { asked }
    }
}
