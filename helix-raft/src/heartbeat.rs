//! The heartbeats between nodes: who is there, in which incarnation, and whether both sides agree about who leads.
//!
//! One per node, whatever the number of groups and shards. Time is passed in as milliseconds of a clock that only
//! moves forward.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::peers::Liveness;
use crate::types::{BUCKETS, Bucket, Incarnation, ReplicaId};

/// Settings of [`Heartbeats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeartbeatOptions {
    /// This replica.
    pub me: ReplicaId,
    /// How often its process has started.
    pub incarnation: Incarnation,
    /// How often each peer gets a heartbeat.
    pub interval_ms: u64,
    /// After how long without a sign of it a peer counts as gone.
    pub timeout_ms: u64,
}

/// What a node tells each other node, a few times per election timeout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// The receiver's incarnation as far as the sender knows it; 0 if it does not.
    pub to_incarnation: Incarnation,
    /// Number of this heartbeat.
    pub sequence: u64,
    /// When it was sent, by the sender's clock; comes back in the answer.
    pub sent_ms: u64,
    /// Digests of the groups that the sender leads and the receiver is a member of, by bucket; zeros are left out.
    pub digests: Vec<(u8, u64)>,
}

/// Answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// The answering node's incarnation.
    pub incarnation: Incarnation,
    /// Incarnation of the process that sent the heartbeat.
    pub to_incarnation: Incarnation,
    /// Number of the heartbeat.
    pub sequence: u64,
    /// `sent_ms` of the heartbeat.
    pub echo_sent_ms: u64,
    /// Buckets whose digests differed twice in a row.
    pub differing: Vec<u8>,
}

/// Where digests come from: the sums over all shards of a node.
pub trait DigestSource {
    /// Digest of the groups of a bucket that are led from here and of which `to` is a member.
    fn led_digest(&self, to: ReplicaId, bucket: Bucket) -> u64;
    /// Digest of the groups of a bucket that `leader` leads, as far as is known here.
    fn followed_digest(&self, leader: ReplicaId, bucket: Bucket) -> u64;
}

impl<P: crate::types::Payload> DigestSource for crate::multi::MultiRaft<P> {
    fn led_digest(&self, to: ReplicaId, bucket: Bucket) -> u64 {
        self.led_digest(to, bucket)
    }

    fn followed_digest(&self, leader: ReplicaId, bucket: Bucket) -> u64 {
        self.followed_digest(leader, bucket)
    }
}

/// A bucket to be passed to [`MultiRaft::wake`](crate::MultiRaft::wake) of the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// The node with which there is a difference.
    pub replica: ReplicaId,
    /// The bucket.
    pub bucket: Bucket,
}

/// Something that all shards have to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeartbeatEvent {
    /// For [`MultiRaft::peer_liveness`](crate::MultiRaft::peer_liveness).
    Liveness(ReplicaId, Liveness),
    /// For [`MultiRaft::peer_incarnation`](crate::MultiRaft::peer_incarnation).
    Incarnation(ReplicaId, Incarnation),
}

#[derive(Clone, Debug)]
struct Peer {
    incarnation: Incarnation,
    /// When anything of it arrived last, or when it was added: until it had its chance, nothing is said about it.
    heard_ms: Option<u64>,
    /// When the heartbeat was sent whose answer is the newest.
    answered_ms: Option<u64>,
    told: Option<Liveness>,
    next_due_ms: u64,
    sequence: u64,
    sequence_seen: u64,
    /// Buckets that differed in the last heartbeat, one bit each.
    differed: u64,
}

/// The heartbeats of one node with all others.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    options: HeartbeatOptions,
    peers: BTreeMap<ReplicaId, Peer>,
    events: Vec<HeartbeatEvent>,
}

impl Heartbeats {
    /// No peers yet.
    pub const fn new(options: HeartbeatOptions) -> Heartbeats {
        Heartbeats { options, peers: BTreeMap::new(), events: Vec::new() }
    }

    /// Begins to exchange heartbeats with `replica`; it counts as live until it had a timeout's time to show itself.
    pub fn add_peer(&mut self, now_ms: u64, replica: ReplicaId) {
        self.peers.entry(replica).or_insert(Peer {
            incarnation: Incarnation::UNKNOWN,
            heard_ms: Some(now_ms),
            answered_ms: Some(now_ms),
            told: None,
            next_due_ms: now_ms,
            sequence: 0,
            sequence_seen: 0,
            differed: 0,
        });
    }

    /// Forgets `replica`.
    pub fn remove_peer(&mut self, replica: ReplicaId) {
        self.peers.remove(&replica);
    }

    /// What is known of `replica`.
    pub fn liveness(&self, replica: ReplicaId) -> Option<Liveness> {
        self.peers.get(&replica)?.told
    }

    /// The latest incarnation of `replica` seen; 0 if none was.
    pub fn incarnation(&self, replica: ReplicaId) -> Incarnation {
        self.peers.get(&replica).map_or(Incarnation::UNKNOWN, |peer| peer.incarnation)
    }

    /// Time passes: returns the heartbeats that are due.
    pub fn tick(&mut self, now_ms: u64, digests: &dyn DigestSource) -> Vec<(ReplicaId, Heartbeat)> {
        let mut due = Vec::new();
        for (replica, peer) in &mut self.peers {
            if now_ms >= peer.next_due_ms {
                peer.next_due_ms = now_ms + self.options.interval_ms;
                peer.sequence += 1;
                let heartbeat = Heartbeat {
                    incarnation: self.options.incarnation,
                    to_incarnation: peer.incarnation,
                    sequence: peer.sequence,
                    sent_ms: now_ms,
                    digests: led_digests(digests, *replica),
                };
                due.push((*replica, heartbeat));
            }
            tell_liveness(&self.options, &mut self.events, *replica, peer, now_ms);
        }
        due
    }

    /// A heartbeat arrived. Returns the answer, unless it is from or for a process that is gone or from a stranger, and
    /// what to wake on this side.
    pub fn on_heartbeat(
        &mut self,
        now_ms: u64,
        from: ReplicaId,
        heartbeat: &Heartbeat,
        digests: &dyn DigestSource,
    ) -> (Option<HeartbeatAnswer>, Vec<Wake>) {
        let addressee = heartbeat.to_incarnation;
        if addressee != Incarnation::UNKNOWN && addressee != self.options.incarnation {
            return (None, Vec::new());
        }
        if !self.hear(now_ms, from, heartbeat.incarnation) {
            return (None, Vec::new());
        }
        let Some(peer) = self.peers.get_mut(&from) else { return (None, Vec::new()) };
        let mut twice = 0;
        if heartbeat.sequence > peer.sequence_seen {
            peer.sequence_seen = heartbeat.sequence;
            let differing = differing_buckets(digests, from, &heartbeat.digests);
            twice = differing & peer.differed;
            peer.differed = differing & !twice;
        }
        let buckets = buckets_of(twice);
        let answer = HeartbeatAnswer {
            incarnation: self.options.incarnation,
            to_incarnation: heartbeat.incarnation,
            sequence: heartbeat.sequence,
            echo_sent_ms: heartbeat.sent_ms,
            differing: buckets.iter().map(|bucket| bucket.0).collect(),
        };
        (Some(answer), wakes(from, buckets))
    }

    /// An answer arrived. Returns what to wake on this side.
    pub fn on_answer(&mut self, now_ms: u64, from: ReplicaId, answer: &HeartbeatAnswer) -> Vec<Wake> {
        if answer.to_incarnation != self.options.incarnation || !self.hear(now_ms, from, answer.incarnation) {
            return Vec::new();
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            let sent_ms = answer.echo_sent_ms.min(now_ms);
            peer.answered_ms = peer.answered_ms.max(Some(sent_ms));
            tell_liveness(&self.options, &mut self.events, from, peer, now_ms);
        }
        let buckets =
            answer.differing.iter().copied().filter(|bucket| *bucket < BUCKETS).map(Bucket).collect();
        wakes(from, buckets)
    }

    /// A connection to `replica` was refused: its node is there and its process is not.
    pub fn refused(&mut self, now_ms: u64, replica: ReplicaId) {
        if let Some(peer) = self.peers.get_mut(&replica) {
            peer.heard_ms = None;
            peer.answered_ms = None;
            tell_liveness(&self.options, &mut self.events, replica, peer, now_ms);
        }
    }

    /// What all shards have to be told, oldest first.
    pub fn take_events(&mut self) -> Vec<HeartbeatEvent> {
        std::mem::take(&mut self.events)
    }

    /// Something of `from` arrived. `false` if it is from a process that is gone, or from a stranger.
    fn hear(&mut self, now_ms: u64, from: ReplicaId, incarnation: Incarnation) -> bool {
        let Some(peer) = self.peers.get_mut(&from) else { return false };
        if incarnation < peer.incarnation {
            return false;
        }
        if incarnation > peer.incarnation {
            peer.incarnation = incarnation;
            peer.sequence_seen = 0;
            peer.differed = 0;
            self.events.push(HeartbeatEvent::Incarnation(from, incarnation));
        }
        peer.heard_ms = Some(now_ms);
        tell_liveness(&self.options, &mut self.events, from, peer, now_ms);
        true
    }
}

fn tell_liveness(
    options: &HeartbeatOptions,
    events: &mut Vec<HeartbeatEvent>,
    replica: ReplicaId,
    peer: &mut Peer,
    now_ms: u64,
) {
    let recent = |at: Option<u64>| at.is_some_and(|at| now_ms.saturating_sub(at) < options.timeout_ms);
    let liveness = Liveness { heard: recent(peer.heard_ms), round_trip: recent(peer.answered_ms) };
    // Being live is what everybody assumes of a peer that nothing was said about.
    let before = peer.told.unwrap_or(Liveness { heard: true, round_trip: true });
    if liveness != before {
        events.push(HeartbeatEvent::Liveness(replica, liveness));
    }
    peer.told = Some(liveness);
}

fn led_digests(digests: &dyn DigestSource, to: ReplicaId) -> Vec<(u8, u64)> {
    Bucket::all()
        .map(|bucket| (bucket.0, digests.led_digest(to, bucket)))
        .filter(|(_, digest)| *digest != 0)
        .collect()
}

fn differing_buckets(digests: &dyn DigestSource, leader: ReplicaId, theirs: &[(u8, u64)]) -> u64 {
    let theirs: BTreeMap<u8, u64> = theirs.iter().copied().collect();
    Bucket::all().fold(0, |mask, bucket| {
        let led = theirs.get(&bucket.0).copied().unwrap_or(0);
        if led == digests.followed_digest(leader, bucket) { mask } else { mask | 1 << bucket.0 }
    })
}

fn buckets_of(mask: u64) -> Vec<Bucket> {
    Bucket::all().filter(|bucket| mask & (1 << bucket.0) != 0).collect()
}

fn wakes(replica: ReplicaId, buckets: Vec<Bucket>) -> Vec<Wake> {
    buckets.into_iter().map(|bucket| Wake { replica, bucket }).collect()
}
