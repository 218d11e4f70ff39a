//! The nodes of the cluster as this node reaches them: who they are, and how to send to them.

use std::collections::HashSet;
use std::sync::Arc;

use helix_raft::{Liveness, Message, ReplicaId};
use parking_lot::RwLock;
use tracing::trace;

use crate::durable::founded::FoundedCluster;
use crate::entry::Command;
use crate::ids::NodeId;
use crate::peers::PeersHandle;
use crate::peers::control::ControlMessage;

/// The way to the other nodes. A single node has none, and nothing is ever sent.
#[derive(Clone)]
pub(crate) struct ClusterLink {
    me: ReplicaId,
    founded: Arc<FoundedCluster>,
    peers: Option<Arc<PeersHandle>>,
}

impl std::fmt::Debug for ClusterLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterLink")
            .field("me", &self.me)
            .field("founded", &self.founded)
            .finish_non_exhaustive()
    }
}

impl ClusterLink {
    pub(crate) fn new(me: ReplicaId, founded: Arc<FoundedCluster>, peers: Option<Arc<PeersHandle>>) -> Self {
        Self { me, founded, peers }
    }

    /// The other members' replica ids.
    pub(crate) fn others(&self) -> impl Iterator<Item = ReplicaId> {
        self.founded.members.iter().map(|member| member.replica).filter(|replica| *replica != self.me)
    }

    /// The node with this disk.
    pub(crate) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.founded.members.iter().find(|member| member.replica == replica).map(|member| member.node)
    }

    /// Sends a Raft message. What cannot be sent is dropped and counted; the core sends again.
    pub(crate) fn send_raft(&self, message: Message<Command>) {
        if let Some(peers) = &self.peers {
            peers.send_raft(message);
        }
    }

    /// Sends a control message; what cannot be sent is dropped, and whoever waits for an answer tries again.
    pub(crate) fn send_control(&self, to: NodeId, message: &ControlMessage) {
        if let Some(peers) = &self.peers
            && let Err(reason) = peers.send_control(to, message)
        {
            trace!(%to, ?reason, "a control message was not sent");
        }
    }

    /// Sends a control message to all other nodes.
    pub(crate) fn broadcast(&self, message: &ControlMessage) {
        for member in self.founded.members.iter().filter(|member| member.replica != self.me) {
            self.send_control(member.node, message);
        }
    }

    /// Bytes received from other nodes that are not stored yet.
    pub(crate) fn receive_bytes_held(&self) -> usize {
        self.peers.as_ref().map_or(0, |peers| peers.receive_bytes_held())
    }

    /// Ends all connections to other nodes.
    pub(crate) async fn shutdown(&self) {
        if let Some(peers) = &self.peers {
            peers.shutdown().await;
        }
    }
}

/// Which nodes were not heard of within the election timeout. A node counts as alive until it had its chance. Written by the
/// heartbeats, read by metadata requests.
#[derive(Debug, Default)]
pub(crate) struct NodeLiveness {
    silent: RwLock<HashSet<ReplicaId>>,
}

impl NodeLiveness {
    pub(crate) fn is_alive(&self, replica: ReplicaId) -> bool {
        !self.silent.read().contains(&replica)
    }

    pub(crate) fn set(&self, replica: ReplicaId, liveness: Liveness) {
        let mut silent = self.silent.write();
        if liveness.heard {
            silent.remove(&replica);
        } else {
            silent.insert(replica);
        }
    }
}
