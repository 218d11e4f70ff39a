//! Runs a [`FoundingMachine`] over the control lane.

use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, MissedTickBehavior};

use super::{FoundingMachine, FoundingStatus, Outlook};
use crate::durable::founded::{FoundedCluster, Founding, FoundingMember};
use crate::durable::state_file::{StateFile, WriteStateError};
use crate::env::Env;
use crate::ids::NodeId;
use crate::peers::control::ControlMessage;
use crate::peers::hello::Identity;
use crate::peers::{PeerState, PeersHandle};

/// How often every node tells its status.
const ANNOUNCE: Duration = Duration::from_millis(200);
/// How often an unchanged outlook is logged.
const LOG_AGAIN: Duration = Duration::from_secs(10);

/// What happens on the control lane while a cluster is founded. Comes from the node's
/// [`PeerEvents`](crate::peers::PeerEvents); an event that finds no room may be dropped, as statuses are repeated.
#[derive(Clone, Debug)]
pub enum FoundingEvent {
    /// A node told its status.
    Status(Identity, FoundingStatus),
    /// A connection came up or went down.
    Peer(NodeId, PeerState),
}

/// Founds a cluster with the other nodes of `--peers`, or finds the one that this disk belongs to, and returns it once
/// it exists. Waits for as long as it takes, and says for what. May be dropped at any point.
///
/// Blocks for the disk when something has to be stored: nothing else runs on the node before this is done.
///
/// # Errors
/// When the state can't be stored. The node must stop then.
pub async fn run(
    env: &Env,
    peers: &PeersHandle,
    listed: &[NodeId],
    state: &mut StateFile,
    events: &mut Receiver<FoundingEvent>,
) -> Result<FoundedCluster, WriteStateError> {
    let me = FoundingMember { node: state.state().node, replica: state.state().replica };
    let mut machine = FoundingMachine::new(me, listed.iter().copied(), state.state().founding.clone());
    let others: Vec<NodeId> = machine.status().peers.into_iter().filter(|node| *node != me.node).collect();
    let mut clock = tokio::time::interval(ANNOUNCE);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut log = Log::default();
    loop {
        let mut news = false;
        while let Some(step) = machine.next_step(|| env.random_cluster_id()) {
            store(state, &step)?;
            machine.stored(step);
            news = true;
        }
        if news {
            announce(peers, &others, &machine);
        }
        let outlook = machine.outlook();
        if let Outlook::Founded(record) = outlook {
            return Ok(record);
        }
        log.say(outlook);
        tokio::select! {
            biased;
            _ = clock.tick() => announce(peers, &others, &machine),
            event = events.recv() => match event {
                Some(FoundingEvent::Status(from, status)) => {
                    if machine.heard(&from, status) {
                        announce(peers, &[from.node], &machine);
                    }
                }
                Some(FoundingEvent::Peer(node, PeerState::Connected(_))) => announce(peers, &[node], &machine),
                Some(FoundingEvent::Peer(node, _)) => machine.lost(node),
                // Nobody reports events any more: the node is being stopped, and this future with it.
                None => std::future::pending().await,
            },
        }
    }
}

fn store(state: &mut StateFile, step: &Founding) -> Result<(), WriteStateError> {
    match step {
        Founding::Blank => Ok(()),
        Founding::Accepted(record) => {
            tracing::info!(cluster = %record.cluster, "founding cluster {}", record.cluster);
            state.accept_founding(record)
        }
        Founding::Founded(record) => {
            state.complete_founding(record)?;
            if record.has_replica(state.state().replica) {
                tracing::info!(cluster = %record.cluster, "cluster {} is founded", record.cluster);
            } else {
                tracing::warn!(
                    cluster = %record.cluster, replica = %state.state().replica,
                    "this node had another disk in cluster {}: it joins with a new one, which is filled from the other nodes",
                    record.cluster
                );
            }
            Ok(())
        }
    }
}

fn announce(peers: &PeersHandle, to: &[NodeId], machine: &FoundingMachine) {
    let message = ControlMessage::Founding(machine.status());
    for node in to {
        // Without a connection there is nobody to tell; the next round tells again.
        let _ = peers.send_control(*node, &message);
    }
}

/// What a node that belongs to a cluster tells one that is still looking for its own.
#[must_use]
pub fn answer(
    record: &FoundedCluster,
    listed: &[NodeId],
    from: &Identity,
    status: &FoundingStatus,
) -> Option<ControlMessage> {
    if status.founding.founded().is_some() {
        return None;
    }
    if record.replica_of(from.node) != Some(from.replica) {
        tracing::debug!(node = %from.node, "a node with a disk that is not in the cluster asks to found one");
    }
    let mut peers = listed.to_vec();
    peers.extend(record.members.iter().map(|member| member.node));
    peers.sort_unstable();
    peers.dedup();
    Some(ControlMessage::Founding(FoundingStatus { peers, founding: Founding::Founded(record.clone()) }))
}

/// Says how it stands: at once when that changes, and now and then while it does not.
#[derive(Default)]
struct Log {
    last: Option<(Outlook, Instant)>,
}

impl Log {
    fn say(&mut self, outlook: Outlook) {
        if self.last.as_ref().is_some_and(|(last, at)| *last == outlook && at.elapsed() < LOG_AGAIN) {
            return;
        }
        match &outlook {
            Outlook::Founded(_) => {}
            Outlook::WaitingFor(nodes) if nodes.is_empty() => {
                tracing::info!("all nodes of --peers answer: waiting for the one with the lowest id");
            }
            Outlook::WaitingFor(nodes) => {
                tracing::info!("waiting for {} of --peers to found a cluster with", super::list(nodes));
            }
            Outlook::Blocked(obstacles) => {
                for obstacle in obstacles {
                    tracing::error!("can't join or found a cluster: {obstacle}");
                }
            }
        }
        self.last = Some((outlook, Instant::now()));
    }
}

#[cfg(test)]
mod tests;
