//! Founding a cluster: how nodes that know nothing but their `--peers` agree on a cluster, once.
//!
//! A cluster is founded only when every node of `--peers` answers and all of them are blank: a node that lost its disk
//! looks like a blank one, and two of them must never outvote the third, which still has the data. A blank node that hears of a
//! cluster in which it had another disk joins that one, as a new replica that has to be filled.
//!
//! Every node tells all others its [`FoundingStatus`]. When the node with the lowest id has heard that all are blank, it
//! draws up a record: a random cluster id, and each node with the identity of its disk. It accepts the record by
//! storing it, and tells so; a blank node whose disk is in the record accepts it in the same way. A node that has
//! accepted a record never accepts another one. Once a node knows that all members have accepted, the cluster is
//! founded. A crash anywhere in between changes nothing: what was accepted is told again.

mod driver;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::durable::founded::{FoundedCluster, Founding, FoundingMember};
use crate::ids::{ClusterId, NodeId, ReplicaId};
use crate::peers::hello::Identity;

pub use driver::{FoundingEvent, answer, run};

/// What a node says about itself until it belongs to a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingStatus {
    /// The nodes of its `--peers`, itself included, ascending.
    pub peers: Vec<NodeId>,
    /// How far it has come. Durable before it is told.
    pub founding: Founding,
}

/// What keeps a cluster from being founded until somebody does something about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Obstacle {
    /// Two lists.
    #[error(
        "node {node} was started with other --peers ({}) than this node ({}): the list must be the same on every node",
        list(.theirs), list(.ours)
    )]
    DifferentPeers {
        /// The other node.
        node: NodeId,
        /// Its list.
        theirs: Vec<NodeId>,
        /// The list here.
        ours: Vec<NodeId>,
    },
    /// This disk is new, the node is not, and whether the cluster exists is not known.
    #[error(
        "cluster {cluster} was about to be founded, as node {node} knows, when this node had another disk: put its old \
         data directory back, or start all nodes with blank data directories (nothing is stored yet)"
    )]
    DiskReplaced {
        /// The other node.
        node: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// The cluster exists without this node.
    #[error(
        "node {node} belongs to cluster {cluster}, which was founded without this node. \
         Adding nodes is not supported yet: remove this node from --peers"
    )]
    NotAMember {
        /// The other node.
        node: NodeId,
        /// Its cluster.
        cluster: ClusterId,
    },
    /// This node has accepted a record, and the other one's disk is not in it.
    #[error(
        "node {node} has another disk than when cluster {cluster} was about to be founded: \
         put its old data directory back, or start all nodes with blank data directories (nothing is stored yet)"
    )]
    OtherDiskReplaced {
        /// The other node.
        node: NodeId,
        /// The cluster.
        cluster: ClusterId,
    },
    /// Two records.
    #[error(
        "node {node} belongs to cluster {theirs}, not to {ours}: check the addresses in --peers and --data-dir"
    )]
    OtherCluster {
        /// The other node.
        node: NodeId,
        /// Its cluster.
        theirs: ClusterId,
        /// The cluster here.
        ours: ClusterId,
    },
}

fn list(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Where the founding stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// The cluster exists.
    Founded(FoundedCluster),
    /// These nodes have not answered, or not accepted yet.
    WaitingFor(Vec<NodeId>),
    /// It does not go on by itself.
    Blocked(Vec<Obstacle>),
}

#[derive(Clone, Debug)]
struct Heard {
    replica: ReplicaId,
    status: FoundingStatus,
}

/// One node's part in it. Pure: the owner passes in what was heard and stores what is to be stored.
#[derive(Clone, Debug)]
pub struct FoundingMachine {
    me: FoundingMember,
    peers: Vec<NodeId>,
    /// As stored.
    founding: Founding,
    heard: BTreeMap<NodeId, Heard>,
}

impl FoundingMachine {
    /// Begins with what is stored. `peers` are the nodes of `--peers`; this node is added if it is missing.
    #[must_use]
    pub fn new(me: FoundingMember, peers: impl IntoIterator<Item = NodeId>, stored: Founding) -> Self {
        let mut peers: Vec<NodeId> = peers.into_iter().chain([me.node]).collect();
        peers.sort_unstable();
        peers.dedup();
        Self { me, peers, founding: stored, heard: BTreeMap::new() }
    }

    /// What this node tells the others.
    #[must_use]
    pub fn status(&self) -> FoundingStatus {
        FoundingStatus { peers: self.peers.clone(), founding: self.founding.clone() }
    }

    /// Another node told its status. Returns whether that is news.
    pub fn heard(&mut self, from: &Identity, status: FoundingStatus) -> bool {
        if from.node == self.me.node || !self.peers.contains(&from.node) {
            return false;
        }
        let heard = Heard { replica: from.replica, status };
        let known = self.heard.get(&from.node);
        let news = known.is_none_or(|known| known.replica != heard.replica || known.status != heard.status);
        // A disk that has accepted a record stays with it: whoever says otherwise was overtaken on the way.
        let overtaken = known.is_some_and(|known| {
            known.replica == heard.replica
                && progress(&known.status.founding) > progress(&heard.status.founding)
        });
        if news && !overtaken {
            self.heard.insert(from.node, heard);
        }
        news && !overtaken
    }

    /// The connection to a node is gone: what it said may no longer hold.
    pub fn lost(&mut self, node: NodeId) {
        self.heard.remove(&node);
    }

    /// What has to be stored next, if anything. Call [`Self::stored`] once it is, and ask again.
    #[must_use]
    pub fn next_step(&self, draw_id: impl FnOnce() -> ClusterId) -> Option<Founding> {
        if !self.obstacles().is_empty() {
            return None;
        }
        match &self.founding {
            Founding::Founded(_) => None,
            Founding::Accepted(record) => {
                let complete = self.heard.values().any(|heard| heard.status.founding.founded().is_some())
                    || self.waiting_for().is_empty();
                complete.then(|| Founding::Founded(record.clone()))
            }
            Founding::Blank => {
                // All records are the same and name this node, or there would be an obstacle.
                if let Some(record) = self.heard.values().find_map(|heard| heard.status.founding.record()) {
                    let record = record.clone();
                    return Some(if record.has_replica(self.me.replica) {
                        Founding::Accepted(record)
                    } else {
                        Founding::Founded(record)
                    });
                }
                let lowest = self.peers.first() == Some(&self.me.node);
                (lowest && self.waiting_for().is_empty()).then(|| Founding::Accepted(self.draw_up(draw_id())))
            }
        }
    }

    /// What [`Self::next_step`] returned is durable.
    pub fn stored(&mut self, founding: Founding) {
        self.founding = founding;
    }

    /// Where it stands.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        if let Some(record) = self.founding.founded() {
            return Outlook::Founded(record.clone());
        }
        let obstacles = self.obstacles();
        if obstacles.is_empty() {
            Outlook::WaitingFor(self.waiting_for())
        } else {
            Outlook::Blocked(obstacles)
        }
    }

    fn draw_up(&self, cluster: ClusterId) -> FoundedCluster {
        let others = self.heard.iter().map(|(&node, heard)| FoundingMember { node, replica: heard.replica });
        let mut members: Vec<FoundingMember> = others.chain([self.me]).collect();
        members.sort_unstable_by_key(|member| member.node);
        FoundedCluster { cluster, members }
    }

    /// The other nodes that have not answered, or, once there is a record, not accepted it.
    fn waiting_for(&self) -> Vec<NodeId> {
        let others = self.peers.iter().copied().filter(|node| *node != self.me.node);
        let record = self.founding.record();
        let done = |heard: &Heard| record.is_none() || heard.status.founding.record() == record;
        others.filter(|node| !self.heard.get(node).is_some_and(done)).collect()
    }

    fn obstacles(&self) -> Vec<Obstacle> {
        if self.founding.founded().is_some() {
            return Vec::new();
        }
        let mut obstacles = Vec::new();
        // A record that the blank node has heard of stands in for the one that it would accept.
        let mut record = self.founding.record();
        for (&node, heard) in &self.heard {
            let theirs = heard.status.founding.record();
            let obstacle = match (record, theirs) {
                _ if heard.status.peers != self.peers => {
                    let (theirs, ours) = (heard.status.peers.clone(), self.peers.clone());
                    Some(Obstacle::DifferentPeers { node, theirs, ours })
                }
                (Some(ours), Some(theirs)) if ours != theirs => {
                    Some(Obstacle::OtherCluster { node, theirs: theirs.cluster, ours: ours.cluster })
                }
                (None, Some(_)) => self.exclusion(node, &heard.status.founding),
                (Some(ours), None)
                    if self.founding.record().is_some() && !ours.has_replica(heard.replica) =>
                {
                    Some(Obstacle::OtherDiskReplaced { node, cluster: ours.cluster })
                }
                _ => None,
            };
            obstacles.extend(obstacle);
            record = record.or(theirs);
        }
        obstacles
    }

    /// What keeps this blank node out of a cluster that another node belongs to. Once a cluster exists a new disk can join it; while
    /// it is being founded nothing can be lost, and a record without this disk never comes to anything.
    fn exclusion(&self, node: NodeId, theirs: &Founding) -> Option<Obstacle> {
        let record = theirs.record()?;
        let cluster = record.cluster;
        let exists = self.heard.values().any(|heard| heard.status.founding.founded() == Some(record));
        match record.replica_of(self.me.node) {
            Some(replica) if replica == self.me.replica => None,
            Some(_) if exists => None,
            Some(_) => Some(Obstacle::DiskReplaced { node, cluster }),
            None => Some(Obstacle::NotAMember { node, cluster }),
        }
    }
}

const fn progress(founding: &Founding) -> u8 {
    match founding {
        Founding::Blank => 0,
        Founding::Accepted(_) => 1,
        Founding::Founded(_) => 2,
    }
}
