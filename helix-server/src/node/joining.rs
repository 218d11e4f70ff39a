//! How a node finds its cluster, or founds it, before it starts anything on its disk.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;
use tracing::info;

use super::events::NodeEvents;
use super::storage::Storage;
use super::{NodeError, Parts};
use crate::durable::founded::{FoundedCluster, FoundingMember};
use crate::durable::state::NodeState;
use crate::durable::state_file::{StateFile, WriteStateError};
use crate::env::{Env, PeerListener};
use crate::founding;
use crate::ids::{ClusterId, NodeId};
use crate::peers::hello::Identity;
use crate::peers::{HeartbeatTiming, PeerLimits, Peers, PeersHandle, PeersOptions};

/// Founding events that may wait; more are dropped, since statuses are repeated.
const FOUNDING_QUEUE: usize = 256;

/// The disk, the way to the other nodes, and the cluster that both belong to.
pub(super) struct Joined {
    pub(super) storage: Storage,
    pub(super) events: Arc<NodeEvents>,
    pub(super) peers: Option<Arc<PeersHandle>>,
    pub(super) founded: Arc<FoundedCluster>,
}

/// Connects to the other nodes and finds, or founds, the cluster.
pub(super) async fn join(
    parts: &Parts,
    mut storage: Storage,
    listener: Option<Box<dyn PeerListener>>,
) -> Result<Joined, NodeError> {
    let (founding, mut founding_events) = mpsc::channel(FOUNDING_QUEUE);
    let listed: Vec<NodeId> = parts.config.peers.iter().map(|peer| peer.node).collect();
    let events = Arc::new(NodeEvents {
        shards: parts.shards.clone(),
        leaders: Arc::clone(&parts.leaders),
        liveness: Arc::clone(&parts.liveness),
        founding,
        listed: listed.clone(),
        running: ArcSwapOption::empty(),
    });
    let Some(listener) = listener else {
        let founded = Arc::new(found_alone(&parts.env, &mut storage.state)?);
        return Ok(Joined { storage, events, peers: None, founded });
    };
    let peers = Arc::new(Peers::start(peer_options(parts, &storage, listener), events.clone())?);
    let founded =
        founding::run(&parts.env, &peers, &listed, &mut storage.state, &mut founding_events).await?;
    peers.join(&founded);
    Ok(Joined { storage, events, peers: Some(peers), founded: Arc::new(founded) })
}

fn peer_options(parts: &Parts, storage: &Storage, listener: Box<dyn PeerListener>) -> PeersOptions {
    let broker = &parts.config.broker;
    let state = storage.state.state();
    PeersOptions {
        me: identity(state, state.founding.founded().map(|record| record.cluster)),
        env: parts.env.clone(),
        listener,
        peers: parts.config.peers.iter().map(|peer| (peer.node, peer.address.to_string())).collect(),
        limits: PeerLimits {
            bulk_bytes: broker.peer_bulk_bytes,
            receive_budget_bytes: broker.peer_max_pending_bytes,
            // An entry is at most a full batch and one request more.
            max_data_frame_bytes: (broker.batch_max_bytes + broker.socket_request_max_bytes + (1 << 20))
                .max(PeerLimits::default().max_data_frame_bytes),
            ..PeerLimits::default()
        },
        heartbeats: HeartbeatTiming {
            interval: Duration::from_millis(broker.heartbeat_interval_ms),
            timeout: Duration::from_millis(broker.election_timeout_ms),
        },
        board: Arc::clone(&parts.board),
        data_runtime: tokio::runtime::Handle::current(),
    }
}

pub(super) fn identity(state: &NodeState, cluster: Option<ClusterId>) -> Identity {
    Identity { node: state.node, replica: state.replica, incarnation: state.incarnation, cluster }
}

/// A single node is a cluster of its own.
fn found_alone(env: &Env, state: &mut StateFile) -> Result<FoundedCluster, WriteStateError> {
    if let Some(record) = state.state().founding.record() {
        return Ok(record.clone());
    }
    let me = FoundingMember { node: state.state().node, replica: state.state().replica };
    let record = FoundedCluster { cluster: env.random_cluster_id(), members: vec![me] };
    state.complete_founding(&record)?;
    info!(cluster = %record.cluster, "a cluster of one node is founded");
    Ok(record)
}
