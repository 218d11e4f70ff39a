//! Starting, using and stopping the connections.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use helix_raft::Message;
use parking_lot::Mutex;

use super::codec::repair::RepairMessage;
use super::control::{self, ControlMessage};
use super::heartbeats::HeartbeatService;
use super::hello::{Identity, Lane};
use super::queue::{NotSent, Outgoing, Part};
use super::shared::{PeerStatus, Shared};
use super::{PeerEvents, PeersOptions, StartPeersError, codec, inbound, link};
use crate::durable::founded::FoundedCluster;
use crate::entry::Command;
use crate::env::Apart;
use crate::ids::{Incarnation, NodeId, ReplicaId};

/// The connections to the other nodes, while the node runs.
pub struct PeersHandle {
    shared: Arc<Shared>,
    control: Mutex<Option<Apart>>,
}

pub(super) fn start(
    options: PeersOptions,
    events: Arc<dyn PeerEvents>,
) -> Result<PeersHandle, StartPeersError> {
    let PeersOptions { me, env, listener, peers, limits, heartbeats, board, data_runtime } = options;
    let heartbeats = HeartbeatService::new(&me, heartbeats, board);
    let shared = Arc::new(Shared::new(env.clone(), me, &peers, limits, heartbeats, events));
    // Every receiver is taken here, so that a stop can't overtake the start of the tasks.
    let stop = shared.stop.subscribe();
    for link in shared.links() {
        for lane in [Lane::Data, Lane::Bulk] {
            let (shared, link) = (Arc::clone(&shared), Arc::clone(link));
            env.spawn_on(&data_runtime, link::run(shared, link, lane, stop.clone()));
        }
    }
    let control = {
        let (shared, env) = (Arc::clone(&shared), env.clone());
        async move {
            for link in shared.links() {
                env.spawn(link::run(Arc::clone(&shared), Arc::clone(link), Lane::Control, stop.clone()));
            }
            env.spawn(HeartbeatService::run(Arc::clone(&shared), stop.clone()));
            env.spawn(inbound::accept(Arc::clone(&shared), listener, data_runtime, stop));
            // All tasks hold a receiver until they end.
            shared.stop.closed().await;
        }
    };
    let control = env.run_apart("helix-control", control).map_err(StartPeersError::Thread)?;
    Ok(PeersHandle { shared, control: Mutex::new(Some(control)) })
}

impl PeersHandle {
    /// Sends a message of the Raft core on the lanes that it belongs on. Never blocks; what can't be sent is dropped
    /// and counted, and the core sends again.
    pub fn send_raft(&self, message: Message<Command>) {
        let Some(link) = self.shared.route_to(message.to) else {
            self.shared.misdirected.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // The link has counted what was not sent.
        let _ = if message.body.is_control() {
            link.push(Lane::Control, Outgoing::Raft { message, part: Part::Whole })
        } else if super::payload_bytes(&message) >= self.shared.limits.bulk_bytes {
            link.push_in_parts(message)
        } else {
            link.push(Lane::Data, Outgoing::Raft { message, part: Part::Whole })
        };
    }

    /// Sends a message on the control lane. Never blocks. A message that was taken may still be lost with the
    /// connection.
    ///
    /// # Errors
    /// When it was dropped.
    pub fn send_control(&self, to: NodeId, message: &ControlMessage) -> Result<(), NotSent> {
        let link = self.shared.link_to(to).ok_or(NotSent::UnknownNode)?;
        let bytes = control::encode(message).map_err(|_| NotSent::TooLong)?;
        if bytes.len() > self.shared.limits.max_control_frame_bytes {
            return Err(NotSent::TooLong);
        }
        link.push(Lane::Control, Outgoing::Frame { bytes, founding: message.is_founding() })
    }

    /// Sends a question or an answer about damaged entries on the data lane. Never blocks; it may be lost.
    ///
    /// # Errors
    /// When it was dropped.
    pub fn send_repair(&self, to: NodeId, message: &RepairMessage) -> Result<(), NotSent> {
        let link = self.shared.link_to(to).ok_or(NotSent::UnknownNode)?;
        let bytes = codec::repair::encode(message).map_err(|_| NotSent::TooLong)?;
        if bytes.len() > self.shared.limits.max_data_frame_bytes {
            return Err(NotSent::TooLong);
        }
        link.push(Lane::Data, Outgoing::Frame { bytes, founding: false })
    }

    /// This node belongs to a cluster from here on: the members are known by their disks, heartbeats and everything
    /// else begin. A node that knows its cluster when it starts calls this right after the start.
    pub fn join(&self, founded: &FoundedCluster) {
        self.shared.join(founded);
    }

    /// The other nodes, by ascending node id.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = self.shared.links().map(|link| link.node).collect();
        nodes.sort_unstable();
        nodes
    }

    /// The disks of the other nodes, each as its node showed it last.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaId> {
        self.shared.replicas()
    }

    /// The node that has this disk.
    #[must_use]
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        self.shared.route_to(replica).map(|link| link.node)
    }

    /// The disk that a node showed last.
    #[must_use]
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.shared.replica_on(node)
    }

    /// The cluster has seen this incarnation of a disk: whatever started earlier on it is turned away, also by a node that has
    /// not met the disk itself since its own start.
    pub fn note_incarnation(&self, replica: ReplicaId, incarnation: Incarnation) {
        self.shared.note_incarnation(replica, incarnation);
    }

    /// Asks the process that has this disk whether it is there, and returns when it has answered: never, if it is gone.
    pub async fn sign_of_life(&self, replica: ReplicaId) {
        self.shared.heartbeats.sign_of_life(&self.shared, replica).await;
    }

    /// This node as the others see it.
    #[must_use]
    pub fn me(&self) -> Identity {
        self.shared.me()
    }

    /// The process that runs as `node`, while there is a control connection to it.
    #[must_use]
    pub fn identity_of(&self, node: NodeId) -> Option<Identity> {
        self.shared.link_to(node)?.identity()
    }

    /// The connections to all other nodes, by ascending node id.
    #[must_use]
    pub fn roster(&self) -> Vec<PeerStatus> {
        let mut roster: Vec<PeerStatus> = self.shared.links().map(|link| link.status()).collect();
        roster.sort_unstable_by_key(|status| status.node);
        roster
    }

    /// Messages dropped because nobody knew where to send them, or because they came under a wrong name.
    #[must_use]
    pub fn misdirected_messages(&self) -> u64 {
        self.shared.misdirected.load(Ordering::Relaxed)
    }

    /// Bytes received on the data and bulk lanes whose permits are still held.
    #[must_use]
    pub fn receive_bytes_held(&self) -> usize {
        let limit = self.shared.limits.receive_budget_bytes;
        let budgets = [&self.shared.receive_budget, &self.shared.bulk_budget];
        budgets.iter().map(|budget| limit.saturating_sub(budget.available_permits())).sum()
    }

    /// Closes all connections and waits for their tasks. What is still queued is dropped.
    pub async fn shutdown(&self) {
        self.shared.stop.send_replace(true);
        self.shared.stop.closed().await;
        let control = self.control.lock().take();
        if let Some(control) = control
            && !control.join().await
        {
            tracing::error!("what serves the control connections has panicked");
        }
    }
}

impl Drop for PeersHandle {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}
