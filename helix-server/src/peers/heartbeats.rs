//! Heartbeats on the control lane: the clock and the connections for [`helix_raft::Heartbeats`].

use std::sync::Arc;
use std::time::Duration;

use helix_raft::{Heartbeat, HeartbeatAnswer, HeartbeatOptions, Heartbeats, Wake};
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::HeartbeatTiming;
use super::board::DigestBoard;
use super::control::{self, ControlMessage};
use super::hello::{Identity, Lane};
use super::queue::Outgoing;
use super::shared::Shared;
use crate::env::watch;
use crate::ids::{NodeId, ReplicaId};

/// Runs on the thread of the control lane; the lock is for the calls of a start and a founding from elsewhere.
pub(super) struct HeartbeatService {
    core: Mutex<Heartbeats>,
    /// Counts the answers.
    answers: watch::Sender<u64>,
    board: Arc<DigestBoard>,
    timing: HeartbeatTiming,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl HeartbeatService {
    pub(super) fn new(me: &Identity, timing: HeartbeatTiming, board: Arc<DigestBoard>) -> Self {
        let options = HeartbeatOptions {
            me: me.replica,
            incarnation: me.incarnation,
            interval_ms: ms(timing.interval).max(1),
            timeout_ms: ms(timing.timeout).max(1),
        };
        let core = Mutex::new(Heartbeats::new(options));
        Self { core, answers: watch::Sender::new(0), board, timing }
    }

    pub(super) fn add_peer(&self, now_ms: u64, replica: ReplicaId) {
        self.core.lock().add_peer(now_ms, replica);
    }

    /// Sends heartbeats and watches for missing ones until told to stop.
    pub(super) async fn run(shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
        // Twice per interval, so that a heartbeat is late by half an interval at most.
        let mut clock =
            tokio::time::interval((shared.heartbeats.timing.interval / 2).max(Duration::from_millis(1)));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                _ = clock.tick() => shared.heartbeats.tick(&shared),
            }
        }
    }

    fn tick(&self, shared: &Shared) {
        let due = self.core.lock().tick(shared.now_ms(), &*self.board);
        for (replica, heartbeat) in due {
            send(shared, replica, &ControlMessage::Heartbeat(heartbeat));
            self.renew_if_silent(shared, replica);
        }
        self.pass_events_on(shared);
    }

    /// A connection on which nothing comes back may be dead without either end knowing.
    fn renew_if_silent(&self, shared: &Shared, replica: ReplicaId) {
        let liveness = self.core.lock().liveness(replica);
        if liveness.is_some_and(|liveness| !liveness.heard || !liveness.round_trip)
            && let Some(link) = shared.route_to(replica)
        {
            link.renew_if_older((2 * self.timing.timeout).max(Duration::from_secs(1)));
        }
    }

    pub(super) fn on_heartbeat(&self, shared: &Shared, from: &Identity, heartbeat: &Heartbeat) {
        let now_ms = shared.now_ms();
        let (answer, wakes) = self.core.lock().on_heartbeat(now_ms, from.replica, heartbeat, &*self.board);
        if let Some(answer) = answer {
            send(shared, from.replica, &ControlMessage::HeartbeatAnswer(answer));
        }
        self.wake(shared, wakes);
    }

    pub(super) fn on_answer(&self, shared: &Shared, from: &Identity, answer: &HeartbeatAnswer) {
        let wakes = self.core.lock().on_answer(shared.now_ms(), from.replica, answer);
        self.answers.send_modify(|answers| *answers += 1);
        self.wake(shared, wakes);
    }

    /// Asks a process whether it is there, and waits for its answer; for ever, if it is not.
    pub(super) async fn sign_of_life(&self, shared: &Shared, replica: ReplicaId) {
        let asked_ms = shared.now_ms();
        let mut answers = self.answers.subscribe();
        let Some(heartbeat) = self.core.lock().ask(asked_ms, replica) else { return };
        send(shared, replica, &ControlMessage::Heartbeat(heartbeat));
        while self.core.lock().answered_ms(replica).is_none_or(|answered_ms| answered_ms < asked_ms) {
            if answers.changed().await.is_err() {
                return;
            }
        }
    }

    /// Nobody listens on the node's address: its process is gone, and nobody needs to wait for a timeout.
    pub(super) fn refused(&self, shared: &Shared, node: NodeId) {
        if let Some(replica) = shared.replica_on(node) {
            self.core.lock().refused(shared.now_ms(), replica);
            self.pass_events_on(shared);
        }
    }

    fn wake(&self, shared: &Shared, wakes: Vec<Wake>) {
        self.pass_events_on(shared);
        for wake in wakes {
            shared.events.wake(wake);
        }
    }

    fn pass_events_on(&self, shared: &Shared) {
        let events = self.core.lock().take_events();
        for event in events {
            shared.events.heartbeat(event);
        }
    }
}

fn send(shared: &Shared, to: ReplicaId, message: &ControlMessage) {
    // Without a connection there is no heartbeat, which is just what the other side then notices.
    if let (Some(link), Ok(bytes)) = (shared.route_to(to), control::encode(message)) {
        let _ = link.push(Lane::Control, Outgoing::Frame { bytes, founding: false });
    }
}
