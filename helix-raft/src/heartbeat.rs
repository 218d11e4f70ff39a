//! The heartbeats between nodes: who is there, in which incarnation, and whether both sides agree about who leads.
//!
//! One per node, whatever the number of groups and shards. Time is passed in as milliseconds of a clock that only
//! moves forward.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::differences::Differences;
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
    /// Buckets whose digests have differed for some heartbeats.
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
    differences: Differences,
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
            differences: Differences::default(),
        });
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
                due.push((*replica, heartbeat(&self.options, peer, now_ms, led_digests(digests, *replica))));
            }
            tell_liveness(&self.options, &mut self.events, *replica, peer, now_ms);
        }
        due
    }

    /// A heartbeat out of turn, whose answer shows that the process of `replica` is there now; `None` for a stranger. It repeats the
    /// number of the last one and brings no digests, so that it is compared with nothing.
    pub fn ask(&mut self, now_ms: u64, replica: ReplicaId) -> Option<Heartbeat> {
        self.peers.get(&replica).map(|peer| heartbeat(&self.options, peer, now_ms, Vec::new()))
    }

    /// When that heartbeat was sent whose answer is the newest, if there was one since `replica` was last known to be gone.
    pub fn answered_ms(&self, replica: ReplicaId) -> Option<u64> {
        self.peers.get(&replica)?.answered_ms
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
            // For a process that is gone. Who it is from is news all the same: else two nodes that each know the other's last
            // process would never get out of that.
            self.see_incarnation(from, heartbeat.incarnation);
            return (None, Vec::new());
        }
        if !self.hear(now_ms, from, heartbeat.incarnation) {
            return (None, Vec::new());
        }
        let Some(peer) = self.peers.get_mut(&from) else { return (None, Vec::new()) };
        let mut buckets = Vec::new();
        if heartbeat.sequence > peer.sequence_seen {
            peer.sequence_seen = heartbeat.sequence;
            buckets = peer.differences.note(&differing_buckets(digests, from, &heartbeat.digests));
        }
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

    fn see_incarnation(&mut self, from: ReplicaId, incarnation: Incarnation) {
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| incarnation > peer.incarnation) else {
            return;
        };
        peer.incarnation = incarnation;
        peer.sequence_seen = 0;
        peer.differences = Differences::default();
        self.events.push(HeartbeatEvent::Incarnation(from, incarnation));
    }

    /// Something of `from` arrived. `false` if it is from a process that is gone, or from a stranger.
    fn hear(&mut self, now_ms: u64, from: ReplicaId, incarnation: Incarnation) -> bool {
        self.see_incarnation(from, incarnation);
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.incarnation == incarnation) else {
            return false;
        };
        peer.heard_ms = Some(now_ms);
        tell_liveness(&self.options, &mut self.events, from, peer, now_ms);
        true
    }
}

fn heartbeat(options: &HeartbeatOptions, peer: &Peer, sent_ms: u64, digests: Vec<(u8, u64)>) -> Heartbeat {
    Heartbeat {
        incarnation: options.incarnation,
        to_incarnation: peer.incarnation,
        sequence: peer.sequence,
        sent_ms,
        digests,
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

fn differing_buckets(digests: &dyn DigestSource, leader: ReplicaId, theirs: &[(u8, u64)]) -> Vec<Bucket> {
    let theirs: BTreeMap<u8, u64> = theirs.iter().copied().collect();
    let differs = |bucket: &Bucket| {
        let led = theirs.get(&bucket.0).copied().unwrap_or(0);
        led != digests.followed_digest(leader, *bucket)
    };
    Bucket::all().filter(differs).collect()
}

fn wakes(replica: ReplicaId, buckets: Vec<Bucket>) -> Vec<Wake> {
    buckets.into_iter().map(|bucket| Wake { replica, bucket }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of one bucket, as led and as followed.
    #[derive(Default)]
    struct Fixed {
        led: u64,
        followed: u64,
    }

    impl DigestSource for Fixed {
        fn led_digest(&self, _: ReplicaId, bucket: Bucket) -> u64 {
            if bucket == Bucket(3) { self.led } else { 0 }
        }

        fn followed_digest(&self, _: ReplicaId, bucket: Bucket) -> u64 {
            if bucket == Bucket(3) { self.followed } else { 0 }
        }
    }

    #[test]
    fn who_is_asked_out_of_turn_answers_and_wakes_nobody() {
        let mut one = heartbeats(ONE, 5, TWO, 0);
        let mut two = heartbeats(TWO, 7, ONE, 0);
        let leads = Fixed { led: 1, followed: 0 };
        let (_, usual) = one.tick(0, &leads).remove(0);
        let (answer, woken) = two.on_heartbeat(1, ONE, &usual, &Fixed::default());
        assert!(woken.is_empty(), "a digest that differs once may be news on its way");
        one.on_answer(2, TWO, &answer.unwrap());
        assert_eq!(one.answered_ms(TWO), Some(0));
        let asked = one.ask(50, TWO).unwrap();
        let (answer, woken) = two.on_heartbeat(51, ONE, &asked, &Fixed::default());
        assert!(woken.is_empty(), "it differs for the second time, and nobody compares");
        one.on_answer(52, TWO, &answer.unwrap());
        assert_eq!(one.answered_ms(TWO), Some(50));
        assert!(one.ask(60, ReplicaId(9)).is_none());
    }

    const ONE: ReplicaId = ReplicaId(1);
    const TWO: ReplicaId = ReplicaId(2);

    fn heartbeats(me: ReplicaId, incarnation: u64, peer: ReplicaId, now_ms: u64) -> Heartbeats {
        let options =
            HeartbeatOptions { me, incarnation: Incarnation(incarnation), interval_ms: 100, timeout_ms: 500 };
        let mut heartbeats = Heartbeats::new(options);
        heartbeats.add_peer(now_ms, peer);
        heartbeats
    }

    fn exchange(
        now_ms: u64,
        one: &mut Heartbeats,
        two: &mut Heartbeats,
        led: &Fixed,
        followed: &Fixed,
    ) -> Vec<Wake> {
        let mut woken = Vec::new();
        for (_, heartbeat) in one.tick(now_ms, led) {
            let (answer, wakes) = two.on_heartbeat(now_ms, ONE, &heartbeat, followed);
            woken.extend(wakes);
            if let Some(answer) = answer {
                woken.extend(one.on_answer(now_ms, TWO, &answer));
            }
        }
        woken
    }

    #[test]
    fn a_peer_that_never_shows_itself_is_reported_once_after_the_timeout() {
        let mut one = heartbeats(ONE, 1, TWO, 0);
        for now_ms in (0..500).step_by(100) {
            assert_eq!(one.tick(now_ms, &Fixed::default()).len(), 1);
            assert_eq!(one.take_events(), []);
        }
        one.tick(500, &Fixed::default());
        let gone = Liveness { heard: false, round_trip: false };
        assert_eq!(one.take_events(), [HeartbeatEvent::Liveness(TWO, gone)]);
        one.tick(2000, &Fixed::default());
        assert_eq!(one.take_events(), []);
    }

    #[test]
    fn a_one_way_connection_is_heard_and_no_round_trip() {
        let mut one = heartbeats(ONE, 1, TWO, 0);
        let mut two = heartbeats(TWO, 1, ONE, 0);
        for now_ms in (0..=600).step_by(100) {
            for (_, heartbeat) in one.tick(now_ms, &Fixed::default()) {
                // Its answers are lost.
                assert!(two.on_heartbeat(now_ms, ONE, &heartbeat, &Fixed::default()).0.is_some());
            }
            two.tick(now_ms, &Fixed::default());
        }
        assert_eq!(two.liveness(ONE), Some(Liveness { heard: true, round_trip: false }));
        assert_eq!(one.liveness(TWO), Some(Liveness { heard: false, round_trip: false }));
    }

    #[test]
    fn an_old_answer_proves_no_contact() {
        let mut one = heartbeats(ONE, 1, TWO, 0);
        let mut two = heartbeats(TWO, 1, ONE, 0);
        let (_, heartbeat) = one.tick(0, &Fixed::default()).remove(0);
        let (answer, _) = two.on_heartbeat(0, ONE, &heartbeat, &Fixed::default());
        one.on_answer(700, TWO, &answer.unwrap());
        assert_eq!(one.liveness(TWO), Some(Liveness { heard: true, round_trip: false }));
    }

    #[test]
    fn a_refused_connection_counts_at_once() {
        let mut one = heartbeats(ONE, 1, TWO, 0);
        let mut two = heartbeats(TWO, 1, ONE, 0);
        exchange(100, &mut one, &mut two, &Fixed::default(), &Fixed::default());
        one.take_events();
        one.refused(150, TWO);
        let gone = Liveness { heard: false, round_trip: false };
        assert_eq!(one.take_events(), [HeartbeatEvent::Liveness(TWO, gone)]);
    }

    #[test]
    fn a_difference_acts_when_it_is_seen_twice_in_a_row() {
        let mut one = heartbeats(ONE, 1, TWO, 0);
        let mut two = heartbeats(TWO, 1, ONE, 0);
        let (led, same, differs) =
            (Fixed { led: 7, followed: 0 }, Fixed { led: 0, followed: 7 }, Fixed { led: 0, followed: 8 });
        let both = [Wake { replica: ONE, bucket: Bucket(3) }, Wake { replica: TWO, bucket: Bucket(3) }];
        assert_eq!(exchange(0, &mut one, &mut two, &led, &differs), []);
        assert_eq!(exchange(100, &mut one, &mut two, &led, &same), []);
        assert_eq!(exchange(200, &mut one, &mut two, &led, &differs), []);
        assert_eq!(exchange(300, &mut one, &mut two, &led, &differs), both);
        for at_ms in [400, 500, 600] {
            assert_eq!(exchange(at_ms, &mut one, &mut two, &led, &differs), [], "it takes more to act again");
        }
        assert_eq!(exchange(700, &mut one, &mut two, &led, &differs), both);
    }

    #[test]
    fn a_duplicate_is_not_a_second_sight() {
        let mut one = heartbeats(ONE, 1, TWO, 0);
        let mut two = heartbeats(TWO, 1, ONE, 0);
        let (_, heartbeat) = one.tick(0, &Fixed { led: 7, followed: 0 }).remove(0);
        for _ in 0..3 {
            assert_eq!(two.on_heartbeat(0, ONE, &heartbeat, &Fixed::default()).1, []);
        }
    }

    #[test]
    fn a_new_incarnation_is_an_event_and_the_old_one_is_not_heard_any_more() {
        let mut old = heartbeats(ONE, 1, TWO, 0);
        let mut new = heartbeats(ONE, 2, TWO, 0);
        let mut two = heartbeats(TWO, 1, ONE, 0);
        exchange(0, &mut old, &mut two, &Fixed::default(), &Fixed::default());
        assert_eq!(two.take_events(), [HeartbeatEvent::Incarnation(ONE, Incarnation(1))]);
        exchange(0, &mut new, &mut two, &Fixed::default(), &Fixed::default());
        assert_eq!(two.take_events(), [HeartbeatEvent::Incarnation(ONE, Incarnation(2))]);
        assert_eq!(two.incarnation(ONE), Incarnation(2));
        let (_, late) = old.tick(100, &Fixed::default()).remove(0);
        assert_eq!(two.on_heartbeat(100, ONE, &late, &Fixed::default()).0, None);
    }

    #[test]
    fn two_nodes_that_know_each_others_last_process_find_out() {
        let (mut one, mut two) = (heartbeats(ONE, 2, TWO, 0), heartbeats(TWO, 2, ONE, 0));
        let (_, late) = heartbeats(TWO, 1, ONE, 0).tick(0, &Fixed::default()).remove(0);
        one.on_heartbeat(0, TWO, &late, &Fixed::default());
        let (_, late) = heartbeats(ONE, 1, TWO, 0).tick(0, &Fixed::default()).remove(0);
        two.on_heartbeat(0, ONE, &late, &Fixed::default());
        for now_ms in [100, 200] {
            exchange(now_ms, &mut one, &mut two, &Fixed::default(), &Fixed::default());
            for (_, heartbeat) in two.tick(now_ms, &Fixed::default()) {
                one.on_heartbeat(now_ms, TWO, &heartbeat, &Fixed::default());
            }
        }
        assert_eq!((one.incarnation(TWO), two.incarnation(ONE)), (Incarnation(2), Incarnation(2)));
    }

    #[test]
    fn an_answer_about_buckets_that_there_are_not_wakes_nothing() {
        let mut one = heartbeats(ONE, 1, TWO, 0);
        let differing = vec![BUCKETS - 1, BUCKETS, u8::MAX];
        let answer = HeartbeatAnswer {
            incarnation: Incarnation(1),
            to_incarnation: Incarnation(1),
            sequence: 0,
            echo_sent_ms: 0,
            differing,
        };
        assert_eq!(one.on_answer(0, TWO, &answer), [Wake { replica: TWO, bucket: Bucket(BUCKETS - 1) }]);
    }
}
