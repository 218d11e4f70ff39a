//! What comes from other nodes, on its way into mailboxes.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use helix_raft::{HeartbeatEvent, Wake};
use tokio::sync::mpsc;

use crate::broker::leaders::{LeaderInfo, LeaderTable};
use crate::broker::questions::Questions;
use crate::cluster::{ClusterLink, NodeLiveness};
use crate::controller::Controller;
use crate::founding::{self, FoundingEvent};
use crate::ids::NodeId;
use crate::peers::codec::repair::RepairMessage;
use crate::peers::control::ControlMessage;
use crate::peers::hello::Identity;
use crate::peers::{Inbound, PeerEvents, PeerState, ReceivePermit};
use crate::repair::Repairs;
use crate::shard::Shards;

/// Distributes events. Parts that come to life after the connections do are set once.
pub(super) struct NodeEvents {
    pub(super) shards: Shards,
    pub(super) leaders: Arc<LeaderTable>,
    pub(super) liveness: Arc<NodeLiveness>,
    pub(super) founding: mpsc::Sender<FoundingEvent>,
    pub(super) listed: Vec<NodeId>,
    pub(super) running: ArcSwapOption<Running>,
}

/// What exists once the cluster is founded.
pub(super) struct Running {
    pub(super) me: Identity,
    pub(super) founded: Arc<crate::durable::founded::FoundedCluster>,
    pub(super) cluster: ClusterLink,
    pub(super) controller: Controller,
    pub(super) repairs: Repairs,
    pub(super) questions: Questions,
}

/// For as long as this lives events get to what runs. That leads back here, so without an end to it nothing of all that would ever be freed.
pub(super) struct Delivery {
    events: Arc<NodeEvents>,
}

impl Delivery {
    pub(super) fn begin(events: &Arc<NodeEvents>, running: Running) -> Self {
        events.running.store(Some(Arc::new(running)));
        Self { events: Arc::clone(events) }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.events.running.store(None);
    }
}

impl PeerEvents for NodeEvents {
    fn raft(&self, messages: Vec<Inbound>) {
        self.shards.peer_messages(messages);
    }

    fn control(&self, from: Identity, message: ControlMessage) {
        match (message, self.running.load().as_deref()) {
            (ControlMessage::Founding(status), Some(running)) => {
                if let Some(answer) = founding::answer(&running.founded, &self.listed, &from, &status) {
                    running.cluster.send_control(from.node, &answer);
                }
            }
            (ControlMessage::Founding(status), None) => {
                self.tell_founding(FoundingEvent::Status(from, status));
            }
            (ControlMessage::Leaders(deltas), _) => {
                for delta in deltas {
                    self.leaders.learn(delta.group, LeaderInfo::from(delta));
                }
            }
            (ControlMessage::Request { id, command }, Some(running)) => {
                running.controller.take_forwarded(from.node, id, command);
            }
            (ControlMessage::Reply { id, outcome }, Some(running)) => {
                running.controller.take_answer(id, &outcome);
            }
            (ControlMessage::Ask { id, question }, Some(running)) => {
                running.questions.take_question(from.node, id, &question);
            }
            (ControlMessage::Told { id, answer }, Some(running)) => {
                running.questions.take_answer(id, &answer);
            }
            // Whoever asked asks again; heartbeats never get here.
            (
                ControlMessage::Request { .. }
                | ControlMessage::Reply { .. }
                | ControlMessage::Ask { .. }
                | ControlMessage::Told { .. },
                None,
            )
            | (ControlMessage::Heartbeat(_) | ControlMessage::HeartbeatAnswer(_), _) => {}
        }
    }

    fn repair(&self, from: NodeId, message: RepairMessage, permit: Option<ReceivePermit>) {
        if let Some(running) = self.running.load().as_deref() {
            running.repairs.take(from, message, permit);
        }
    }

    fn peer_state(&self, node: NodeId, state: PeerState) {
        if let Some(running) = self.running.load().as_deref() {
            match &state {
                PeerState::Connected(identity) => self.liveness.set_connected(identity.replica, true),
                _ => {
                    if let Some(replica) = running.cluster.replica_on(node) {
                        self.liveness.set_connected(replica, false);
                    }
                }
            }
        }
        if let (PeerState::Connected(_), Some(running)) = (&state, self.running.load().as_deref()) {
            // A node that has just (re)connected has missed the news: it gets everything that is led here.
            let led = self.leaders.led_by(running.me.replica);
            let deltas = led.iter().map(|(group, info)| info.delta(*group)).collect();
            running.cluster.send_control(node, &ControlMessage::Leaders(deltas));
        }
        self.tell_founding(FoundingEvent::Peer(node, state));
    }

    fn heartbeat(&self, event: HeartbeatEvent) {
        tracing::debug!(?event, "heartbeats");
        match event {
            HeartbeatEvent::Liveness(replica, liveness) => {
                self.liveness.set_heard(replica, liveness);
                self.shards.peer_liveness(replica, liveness);
            }
            HeartbeatEvent::Incarnation(replica, incarnation) => {
                self.shards.peer_incarnation(replica, incarnation);
            }
        }
    }

    fn wake(&self, wake: Wake) {
        self.shards.wake(wake.replica, wake.bucket);
    }
}

impl NodeEvents {
    fn tell_founding(&self, event: FoundingEvent) {
        // Statuses are repeated; after the founding nobody listens.
        if self.founding.try_send(event).is_err() {
            tracing::trace!("an event found nobody who is founding a cluster");
        }
    }
}
