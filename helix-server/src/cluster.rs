//! The nodes of the cluster as this node reaches them: who they are, and how to send to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use helix_raft::{Incarnation, Liveness, Message, ReplicaId};
use parking_lot::RwLock;
use tokio::time::Instant;
use tracing::trace;

use crate::entry::Command;
use crate::env::watch;
use crate::ids::NodeId;
use crate::peers::PeersHandle;
use crate::peers::codec::repair::RepairMessage;
use crate::peers::control::ControlMessage;

/// The way to the other nodes. A single node has none, and nothing is ever sent.
#[derive(Clone)]
pub(crate) struct ClusterLink {
    peers: Option<Arc<PeersHandle>>,
}

impl std::fmt::Debug for ClusterLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterLink").field("single", &self.peers.is_none()).finish_non_exhaustive()
    }
}

impl ClusterLink {
    pub(crate) fn new(peers: Option<Arc<PeersHandle>>) -> Self {
        Self { peers }
    }

    /// The disks of the other nodes, as they showed themselves last.
    pub(crate) fn others(&self) -> Vec<ReplicaId> {
        self.peers.as_ref().map_or_else(Vec::new, |peers| peers.replicas())
    }

    /// The other node that has this disk.
    pub(crate) fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.peers.as_ref()?.node_of(replica)
    }

    /// The disk that another node showed last.
    pub(crate) fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.peers.as_ref()?.replica_on(node)
    }

    /// Processes of this disk that started earlier are not listened to.
    pub(crate) fn note_incarnation(&self, replica: ReplicaId, incarnation: Incarnation) {
        if let Some(peers) = &self.peers {
            peers.note_incarnation(replica, incarnation);
        }
    }

    /// Returns when the process that has this disk has shown that it is there now; never, if it is gone.
    pub(crate) async fn sign_of_life(&self, replica: ReplicaId) {
        if let Some(peers) = &self.peers {
            peers.sign_of_life(replica).await;
        }
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

    /// Sends a question or an answer about damaged entries. Whether it is on its way.
    pub(crate) fn send_repair(&self, to: NodeId, message: &RepairMessage) -> bool {
        self.peers.as_ref().is_some_and(|peers| match peers.send_repair(to, message) {
            Ok(()) => true,
            Err(reason) => {
                trace!(%to, ?reason, "a message about damaged entries was not sent");
                false
            }
        })
    }

    /// The other nodes.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.peers.as_ref().map_or_else(Vec::new, |peers| peers.nodes())
    }

    /// Sends a control message to all other nodes.
    pub(crate) fn broadcast(&self, message: &ControlMessage) {
        for node in self.nodes() {
            self.send_control(node, message);
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

/// Which nodes can be reached. A node counts as alive until it had its chance to show itself, and as gone from the moment its
/// control connection breaks. Written by what the connections and heartbeats tell, read by metadata requests.
#[derive(Debug)]
pub(crate) struct NodeLiveness {
    gone: RwLock<HashMap<ReplicaId, Gone>>,
    changed: watch::Sender<u64>,
}

/// Why a node counts as gone, and since when.
#[derive(Debug)]
struct Gone {
    since: Instant,
    disconnected: bool,
    silent: bool,
}

impl Default for NodeLiveness {
    fn default() -> Self {
        Self { gone: RwLock::default(), changed: watch::Sender::new(0) }
    }
}

impl NodeLiveness {
    pub(crate) fn is_alive(&self, replica: ReplicaId) -> bool {
        !self.gone.read().contains_key(&replica)
    }

    /// How long ago the node that went last went, if any is gone.
    pub(crate) fn latest_loss(&self) -> Option<Duration> {
        self.gone.read().values().map(|gone| gone.since.elapsed()).min()
    }

    /// A receiver that wakes whenever a node comes or goes.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What heartbeats say of a node.
    pub(crate) fn set_heard(&self, replica: ReplicaId, liveness: Liveness) {
        self.update(replica, |gone| gone.silent = !liveness.heard);
    }

    /// The control connection to a node came up or went down.
    pub(crate) fn set_connected(&self, replica: ReplicaId, connected: bool) {
        self.update(replica, |gone| gone.disconnected = !connected);
    }

    fn update(&self, replica: ReplicaId, change: impl FnOnce(&mut Gone)) {
        let mut all = self.gone.write();
        let before = all.contains_key(&replica);
        let gone = all.entry(replica).or_insert_with(|| Gone {
            since: Instant::now(),
            disconnected: false,
            silent: false,
        });
        change(gone);
        let after = gone.disconnected || gone.silent;
        if !after {
            all.remove(&replica);
        }
        drop(all);
        if before != after {
            self.changed.send_modify(|version| *version += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_back_only_when_it_is_connected_and_heard() {
        let nodes = NodeLiveness::default();
        let node = ReplicaId(7);
        assert!(nodes.is_alive(node));
        nodes.set_connected(node, false);
        nodes.set_heard(node, Liveness { heard: false, round_trip: false });
        assert!(!nodes.is_alive(node) && nodes.latest_loss().is_some());
        nodes.set_connected(node, true);
        assert!(!nodes.is_alive(node));
        nodes.set_heard(node, Liveness { heard: true, round_trip: true });
        assert!(nodes.is_alive(node) && nodes.latest_loss().is_none());
    }
}
