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
    /// A message that asks whether the follower is still this leader's is under way: its number, and the round.
    pub(crate) asked_round: Option<(u64, u64)>,
    /// The last round in which the follower was.
    pub(crate) agreed_round: u64,
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
            asked_round: None,
            agreed_round: 0,
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
        let (seq, first_seq, agreed_round) = (self.seq, self.first_seq, self.agreed_round);
        *self = Progress {
            seq,
            first_seq,
            agreed_round,
            ..Progress::new(next, incarnation, self.inflights.clone())
        };
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

    /// As [`Self::answered`]: whether that is an answer to the question of a round.
    pub(crate) fn agrees(&mut self, seq: u64) -> bool {
        let Some((_, round)) = self.asked_round.take_if(|(asked, _)| *asked <= seq) else { return false };
        self.agreed_round = round;
        true
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back late from the log that was deleted is told apart by its number, whichever process sends it.
    #[test]
    fn numbers_go_on_when_a_follower_starts_anew() {
        let mut progress = Progress::new(Index(5), Incarnation(1), Inflights::new(4, 1000)).numbered_after(7);
        assert_eq!(progress.next_seq(), 8);
        progress.reset(Incarnation(2));
        assert_eq!((progress.incarnation, progress.first_seq), (Incarnation(2), 8));
        assert_eq!(progress.next_seq(), 9);
    }

    fn streaming(matched: u64) -> Progress {
        let mut progress = Progress::new(Index(1), Incarnation(1), Inflights::new(4, 1000));
        progress.become_replicate(Index(matched));
        progress.stored(Index(matched), Index(0));
        progress
    }

    #[test]
    fn answers_end_the_silence_but_not_that_of_a_start() {
        let mut progress = streaming(5);
        (progress.silent_ticks, progress.commit_seq) = (3, Some(7));
        progress.answered(6);
        assert_eq!((progress.silent_ticks, progress.commit_seq), (0, Some(7)));
        progress.answered(7);
        assert_eq!(progress.commit_seq, None);
        progress.become_start();
        progress.silent_ticks = 3;
        progress.answered(8);
        assert_eq!(progress.silent_ticks, 3);
    }

    #[test]
    fn who_has_turned_away_and_back_is_asked_where_the_logs_agree() {
        let mut progress = streaming(5);
        (progress.commit_sent, progress.commit_known) = (Index(5), Index(4));
        progress.all_seen(Index(5));
        assert_eq!((progress.state, progress.commit_sent), (ProgressState::Replicate, Index(4)));
        progress.all_seen(Index(6));
        assert_eq!(progress.state, ProgressState::Replicate);
        progress.all_seen(Index(3));
        assert_eq!((progress.state, progress.next), (ProgressState::Probe, Index(6)));
        progress.become_start();
        progress.all_seen(Index(3));
        assert_eq!(progress.state, ProgressState::Start, "that is its own question");
    }

    #[test]
    fn more_stored_or_more_synced_is_news() {
        let mut progress = streaming(5);
        let mut news = |matched, synced| progress.stored(Index(matched), Index(synced));
        assert!(!news(5, 0) && !news(4, 0), "known");
        assert!(news(5, 3), "more is synced");
        assert!(news(6, 3), "more is stored");
        assert!(!news(6, 3) && !news(6, 2));
        assert_eq!((progress.matched, progress.synced, progress.next), (Index(6), Index(3), Index(7)));
    }

    #[test]
    fn what_a_follower_turns_out_to_lack_counts_no_more() {
        let mut progress = streaming(5);
        progress.stored(Index(5), Index(5));
        progress.commit_known = Index(4);
        progress.limit_stored(Index(2));
        assert_eq!([progress.matched, progress.synced, progress.commit_known], [Index(2); 3]);
        progress.limit_stored(Index(9));
        assert_eq!(progress.counted(Durability::Synced), Index(2));
    }

    #[test]
    fn nothing_is_streamed_on_top_of_what_the_follower_has_not_stored() {
        let mut progress = streaming(5);
        progress.become_replicate(Index(3));
        assert_eq!(progress.next, Index(6));
        assert!(progress.inflights.room().is_some(), "all of it is stored");
        progress.become_replicate(Index(7));
        assert_eq!((progress.next, progress.inflights.room()), (Index(8), None));
        progress.stored(Index(7), Index(0));
        assert!(progress.inflights.room().is_some());
    }

    #[test]
    fn an_answer_is_owed_for_what_is_under_way_and_a_start_may_take_longer() {
        let mut progress = streaming(5);
        assert!(!progress.is_waiting());
        assert_eq!(progress.patience(10), 6);
        progress.commit_seq = Some(1);
        assert!(progress.is_waiting());
        progress.become_probe(Index(3));
        assert!(!progress.is_waiting());
        progress.probe_seq = Some(2);
        assert!(progress.is_waiting());
        assert_eq!(progress.patience(10), 6);
        progress.become_start();
        assert!(progress.is_waiting());
        assert_eq!(progress.patience(10), 41);
    }

    #[test]
    fn who_lacks_nothing_and_is_sound_is_up_to_date() {
        let mut progress = streaming(5);
        progress.commit_known = Index(4);
        assert!(progress.is_up_to_date(Index(5), Index(4)));
        assert!(!progress.is_up_to_date(Index(6), Index(4)));
        assert!(!progress.is_up_to_date(Index(5), Index(5)));
        progress.recovering = true;
        assert!(!progress.is_up_to_date(Index(5), Index(4)));
        assert_eq!(progress.counted(Durability::PageCache), Index(0));
    }
}
