//! How the nodes of a cluster talk to each other.
//!
//! Between each pair of nodes there are three *lanes*. Heartbeats, votes and everything else that must not wait go over
//! the *control* lane, which a thread of its own serves; entries and their answers go over the *data* lane, but for the payloads of
//! large ones, which have the *bulk* lane, so that nothing small queues behind them. On each lane each node dials the other: it sends on the connection that it dialled and receives on the one that it
//! accepted, so a connection carries bytes in one direction only.
//!
//! Nothing here is reliable. What can't be sent is dropped and counted, and whoever sent it sends again if it still
//! matters: the Raft core does. Nothing here blocks its caller, and every queue is bounded in bytes.
//!
//! Read [`hello`] (who may talk to whom), [`frame`] and [`codec`] (the bytes), then `link` (sending), `inbound`
//! (receiving), `bulk` (where large payloads meet their messages) and `heartbeats`.

mod backoff;
pub mod board;
mod bulk;
pub mod codec;
pub mod control;
pub mod frame;
mod handle;
mod heartbeats;
pub mod hello;
mod inbound;
mod link;
mod queue;
mod reader;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use helix_raft::{HeartbeatEvent, Message, MessageBody, Payload, Wake};
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use crate::entry::Command;
use crate::env::{Env, PeerListener};
use crate::ids::NodeId;
use board::DigestBoard;
use codec::repair::RepairMessage;
use control::ControlMessage;
use hello::{Identity, Refusal};

pub use handle::PeersHandle;
pub use queue::NotSent;
pub use shared::{LaneStatus, PeerStatus};

/// What happens on the connections. Every method is called on a thread that serves connections and must return at
/// once: it puts its argument into a mailbox.
pub trait PeerEvents: Send + Sync + 'static {
    /// Messages for the Raft core, from the process that they name as their sender.
    fn raft(&self, messages: Vec<Inbound>);

    /// A control message other than a heartbeat. `from` does not share a cluster with this node if the message is
    /// about founding.
    fn control(&self, from: Identity, message: ControlMessage);

    /// A question or an answer about damaged entries. The permit is its share of the receive budget.
    fn repair(&self, from: NodeId, message: RepairMessage, permit: Option<ReceivePermit>);

    /// The control connection to a node came up or went down.
    fn peer_state(&self, node: NodeId, state: PeerState);

    /// Liveness or incarnation of a node changed, as told by heartbeats.
    fn heartbeat(&self, event: HeartbeatEvent);

    /// This node and another disagree about who leads.
    fn wake(&self, wake: Wake);
}

/// A message for the Raft core.
#[derive(Debug)]
pub struct Inbound {
    /// The message.
    pub message: Message<Command>,
    /// Its share of the receive budget; dropped when the message no longer takes memory, that is after the WAL write.
    pub permit: Option<ReceivePermit>,
}

/// A share of the receive budget of a lane. While too much is held, nothing is read from its connections.
#[derive(Debug)]
pub struct ReceivePermit(#[expect(dead_code, reason = "it is held, not looked at")] OwnedSemaphorePermit);

/// What became of the control connection to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It stands, with this process.
    Connected(Identity),
    /// It broke.
    Lost,
    /// The node's machine is there and nobody listens: its process is gone.
    Refused,
    /// The node can't be reached.
    Unreachable,
    /// The node does not want to talk to this one.
    TurnedAway(Refusal),
}

/// Limits; the defaults suit a node with a few GiB of memory.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    /// Appends with so much in them send their payloads on the bulk lane.
    pub bulk_bytes: usize,
    /// The longest frame on the data and the bulk lane. Must hold the longest entry.
    pub max_data_frame_bytes: usize,
    /// The longest frame on the control lane.
    pub max_control_frame_bytes: usize,
    /// What may wait to be sent to one node on the data lane, and again on the bulk lane.
    pub data_queue_bytes: usize,
    /// What may wait to be sent to one node on the control lane.
    pub control_queue_bytes: usize,
    /// What may be received on all data lanes and not yet be written, and again on all bulk lanes.
    pub receive_budget_bytes: usize,
    /// After how long without progress in the middle of a frame a connection is given up.
    pub stall: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            bulk_bytes: 1 << 20,
            max_data_frame_bytes: 128 << 20,
            max_control_frame_bytes: 1 << 20,
            data_queue_bytes: 64 << 20,
            control_queue_bytes: 4 << 20,
            receive_budget_bytes: 64 << 20,
            stall: Duration::from_secs(30),
        }
    }
}

/// When heartbeats are sent and missed.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatTiming {
    /// How often each node gets one.
    pub interval: Duration,
    /// After how long without one a node counts as gone: the election timeout.
    pub timeout: Duration,
}

/// What [`Peers::start`] needs.
pub struct PeersOptions {
    /// This node.
    pub me: Identity,
    /// The world that it runs in.
    pub env: Env,
    /// Where other nodes connect.
    pub listener: Box<dyn PeerListener>,
    /// `--peers`; this node may be among them.
    pub peers: Vec<(NodeId, String)>,
    /// Limits.
    pub limits: PeerLimits,
    /// Heartbeats.
    pub heartbeats: HeartbeatTiming,
    /// The digests that heartbeats carry.
    pub board: Arc<DigestBoard>,
    /// The runtime that serves the data and bulk lanes.
    pub data_runtime: tokio::runtime::Handle,
}

/// Why the connections to other nodes could not be set up.
#[derive(Debug, Error)]
pub enum StartPeersError {
    /// The system has no room.
    #[error("can't start the thread of the control connections: {0}")]
    Thread(#[source] std::io::Error),
}

/// The connections to the other nodes.
pub struct Peers;

impl Peers {
    /// Begins to listen, to dial and to send heartbeats.
    ///
    /// # Errors
    /// When the listener can't be used or no thread can be started.
    pub fn start(options: PeersOptions, events: Arc<dyn PeerEvents>) -> Result<PeersHandle, StartPeersError> {
        handle::start(options, events)
    }
}

/// What a message takes in a queue: its payloads and about what its head takes.
fn raft_message_bytes(message: &Message<Command>) -> usize {
    const HEAD_BYTES: usize = 128;
    let body = match &message.body {
        MessageBody::Append(append) => append.entries.iter().map(helix_raft::Entry::len_bytes).sum(),
        MessageBody::InstallStart { start } => start.payload.len_bytes(),
        _ => 0,
    };
    HEAD_BYTES + body
}

/// The payloads of an append.
fn payload_bytes(message: &Message<Command>) -> usize {
    codec::payloads(message).map(bytes::Bytes::len).sum()
}
