//! How far one follower is, as its leader sees it, and what it may be sent.

use crate::inflights::Inflights;
use crate::types::{Durability, Incarnation, Index};

/// How a follower is being fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgressState {
    /// Where the logs agree is being found out, one message at a time.
    Probe,
    /// Entries are streamed, `next` runs ahead of what is acknowledged.
    Replicate,
    /// The follower's log ends before the leader's begins; it is being given a start.
    Start,
}

#[derive(Clone, Debug)]
pub(crate) struct Progress {
    pub(crate) state: ProgressState,
    pub(crate) incarnation: Incarnation,
    /// Stored by the follower, at least in the page cache.
    pub(crate) matched: Index,
    pub(crate) synced: Index,
    /// The next entry to send.
    pub(crate) next: Index,
    pub(crate) inflights: Inflights,
    /// Entries from here are being read from the WAL.
    pub(crate) reading: Option<Index>,
    /// Number of the last message sent.
    pub(crate) seq: u64,
    /// Answers to lower numbers are about a log of this replica that has been deleted since.
    pub(crate) first_seq: u64,
    /// A probe is under way, with this number.
    pub(crate) probe_seq: Option<u64>,
    /// A message that only tells the commit index is under way, with this number.
    pub(crate) commit_seq: Option<u64>,
    /// Highest commit index the follower was sent, and has confirmed.
    pub(crate) commit_sent: Index,
    pub(crate) commit_known: Index,
    /// Ticks since anything came back while something is under way.
    pub(crate) silent_ticks: u32,
    /// Ticks since the follower last held the whole log.
    pub(crate) lagging_ticks: u32,
    /// The follower's log is suspect: its answers do not count.
    pub(crate) recovering: bool,
    /// The follower's log is sound again once it matches through this index.
    pub(crate) sound_through: Option<Index>,
}

impl Progress {
    pub(crate) const fn new(next: Index, incarnation: Incarnation, inflights: Inflights) -> Progress {
        Progress {
            state: ProgressState::Probe,
            incarnation,
            matched: Index::ZERO,
            synced: Index::ZERO,
            next,
            inflights,
            reading: None,
            seq: 0,
            first_seq: 0,
            probe_seq: None,
            commit_seq: None,
            commit_sent: Index::ZERO,
            commit_known: Index::ZERO,
            silent_ticks: 0,
            lagging_ticks: 0,
            recovering: false,
            sound_through: None,
        }
    }

    /// Counts messages from above `seq` on.
    pub(crate) const fn numbered_after(mut self, seq: u64) -> Progress {
        self.seq = seq;
        self.first_seq = if seq == 0 { 0 } else { seq + 1 };
        self
    }

    pub(crate) const fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }

    /// How far the follower's log counts towards a majority.
    pub(crate) const fn counted(&self, durability: Durability) -> Index {
        if self.recovering {
            return Index::ZERO;
        }
        match durability {
            Durability::PageCache => self.matched,
            Durability::Synced => self.synced,
        }
    }

    /// The follower came back with a new process: nothing that was under way arrived for certain, and what it stored
    /// has to be found out again.
    pub(crate) fn reset(&mut self, incarnation: Incarnation) {
        let next = if self.state == ProgressState::Probe { self.next } else { self.matched.next() };
        let (seq, first_seq) = (self.seq, self.first_seq);
        *self = Progress { seq, first_seq, ..Progress::new(next, incarnation, self.inflights.clone()) };
        self.inflights.clear();
    }

    /// Something came back: `seq` is the highest number the follower has seen.
    pub(crate) fn answered(&mut self, seq: u64) {
        // While a start is under way other answers say nothing about it: it may be lost.
        if self.state != ProgressState::Start {
            self.silent_ticks = 0;
        }
        self.commit_seq = self.commit_seq.filter(|sent| *sent > seq);
    }

    /// The follower has seen everything that was sent, and knows its log to match through `received` and to be
    /// committed through `commit_known`.
    pub(crate) fn all_seen(&mut self, received: Index) {
        self.commit_sent = self.commit_known;
        if self.state == ProgressState::Replicate && received < self.matched {
            // It has turned away from this leader and back: it has to be shown again that the logs match.
            self.become_probe(self.matched.next());
        }
    }

    /// The follower stored more. Returns whether that was news.
    pub(crate) fn stored(&mut self, matched: Index, synced: Index) -> bool {
        let news = matched > self.matched || synced > self.synced;
        self.matched = self.matched.max(matched);
        self.synced = self.synced.max(synced);
        self.inflights.free_to(self.matched);
        self.next = self.next.max(self.matched.next());
        news
    }

    /// The follower's log agrees with the leader's no further than `last`.
    pub(crate) fn limit_stored(&mut self, last: Index) {
        self.matched = self.matched.min(last);
        self.synced = self.synced.min(last);
        self.commit_known = self.commit_known.min(last);
    }

    /// Begins to stream after `received`, of which the follower may hold a part in memory only.
    pub(crate) fn become_replicate(&mut self, received: Index) {
        self.state = ProgressState::Replicate;
        self.probe_seq = None;
        self.reading = None;
        self.inflights.clear();
        self.next = received.max(self.matched).next();
        if received > self.matched {
            self.inflights.block_until(received);
        }
    }

    /// Asks where the logs agree, beginning before `next`.
    pub(crate) fn become_probe(&mut self, next: Index) {
        self.state = ProgressState::Probe;
        self.probe_seq = None;
        self.reading = None;
        self.inflights.clear();
        self.next = next.max(self.matched.next());
    }

    pub(crate) fn become_start(&mut self) {
        self.state = ProgressState::Start;
        self.probe_seq = None;
        self.reading = None;
        self.inflights.clear();
    }

    /// Ticks of silence after which what is under way counts as lost.
    pub(crate) const fn patience(&self, election_timeout_ticks: u32) -> u32 {
        match self.state {
            // A start is made on demand and may be large.
            ProgressState::Start => 4 * election_timeout_ticks + 1,
            _ => election_timeout_ticks / 2 + 1,
        }
    }

    /// Whether an answer is owed for something.
    pub(crate) fn is_waiting(&self) -> bool {
        match self.state {
            ProgressState::Start => true,
            ProgressState::Probe => self.probe_seq.is_some(),
            ProgressState::Replicate => !self.inflights.is_empty() || self.commit_seq.is_some(),
        }
    }

    /// Nothing came back for too long: what was under way counts as lost.
    pub(crate) fn give_up_waiting(&mut self) {
        self.silent_ticks = 0;
        self.commit_seq = None;
        self.commit_sent = self.commit_known;
        match self.state {
            // What was found out so far stays true.
            ProgressState::Probe => self.become_probe(self.next),
            ProgressState::Replicate if self.inflights.is_empty() && !self.recovering => {}
            ProgressState::Replicate | ProgressState::Start => self.become_probe(self.matched.next()),
        }
    }

    /// Whether the follower lacks nothing: all entries stored, and the commit index known.
    pub(crate) const fn is_up_to_date(&self, last: Index, committed: Index) -> bool {
        self.matched.get() >= last.get() && self.commit_known.get() >= committed.get() && !self.recovering
    }
}
