//! What replicas of a group say to each other.

use serde::{Deserialize, Serialize};

use crate::types::{Durability, Entry, GroupId, Incarnation, Index, Membership, ReplicaId, Term};

/// A message between two replicas of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<P> {
    /// The group it is about.
    pub group: GroupId,
    /// The sender.
    pub from: ReplicaId,
    /// The receiver.
    pub to: ReplicaId,
    /// The sender's incarnation.
    pub from_incarnation: Incarnation,
    /// The receiver's incarnation as far as the sender knows it; 0 if it does not.
    pub to_incarnation: Incarnation,
    /// The sender's term; in `PreVote` and in a granted `PreVoteAnswer` the term that is being prepared.
    pub term: Term,
    /// What is said.
    pub body: MessageBody<P>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageBody<P> {
    /// Would you vote for me?
    PreVote {
        /// Last index of the sender's log.
        last_index: Index,
        /// Term of that entry.
        last_term: Term,
        /// Recovering replicas are asked too: no majority of sound ones is left, or the operator forces it.
        unclean: bool,
    },
    /// Answer to `PreVote`.
    PreVoteAnswer {
        /// Whether the vote would be given.
        granted: bool,
        /// The sender's log may lack what it once acknowledged.
        recovering: bool,
    },
    /// Vote for me.
    Vote {
        /// Last index of the sender's log.
        last_index: Index,
        /// Term of that entry.
        last_term: Term,
        /// As in `PreVote`.
        unclean: bool,
    },
    /// Answer to `Vote`.
    VoteAnswer {
        /// Whether the vote is given.
        granted: bool,
        /// As in `PreVoteAnswer`.
        recovering: bool,
    },
    /// Entries, or none: then it asks whether the log matches.
    Append(Append<P>),
    /// Answer to `Append`, `Heartbeat` and to anything of a leader whose term has passed.
    AppendAnswer(AppendAnswer),
    /// I lead; everything up to `commit` is committed. Never carries entries and is never refused.
    Heartbeat {
        /// Number of this message in the stream from this leader to this follower.
        seq: u64,
        /// Commit index, no higher than what the leader knows the receiver to hold.
        commit: Index,
    },
    /// Campaign at once: the leader hands over.
    TimeoutNow,
    /// Your log ends before mine begins: start here.
    InstallStart {
        /// The beginning.
        start: Start<P>,
    },
    /// Answer to `InstallStart`: the log of the sender begins after `index` now, durably.
    InstallStartAnswer {
        /// Last index covered by the start.
        index: Index,
    },
}

/// Entries from a leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append<P> {
    /// Number of this message in the stream from this leader to this follower.
    pub seq: u64,
    /// Index of the entry before the first one here.
    pub prev_index: Index,
    /// Its term.
    pub prev_term: Term,
    /// The entries, contiguous.
    pub entries: Vec<Entry<P>>,
    /// The leader's commit index.
    pub commit: Index,
    /// How safely the entries must be stored before they are answered for.
    pub required: Durability,
    /// For a recovering replica: its log is sound again once it matches the leader's through this index.
    pub sound_through: Option<Index>,
}

/// What a follower holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendAnswer {
    /// The highest `seq` that the sender has seen from this leader; in a mismatch that of the append answered.
    pub seq: u64,
    /// What became of the append.
    pub result: AppendResult,
    /// The sender's log may lack what it once acknowledged, so this answer does not count.
    pub recovering: bool,
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppendResult {
    /// The logs match.
    Matched {
        /// The log matches the leader's and is stored at least in the page cache up to here.
        stored: Index,
        /// The log matches the leader's and is synced up to here.
        synced: Index,
        /// The log matches the leader's up to here, but what lies above `stored` is still in memory alone.
        received: Index,
        /// The sender's commit index.
        commit: Index,
    },
    /// The logs do not match at `prev_index`.
    Mismatch {
        /// `prev_index` of the append that is answered.
        prev_index: Index,
        /// The highest index at which the logs may still match.
        hint_index: Index,
        /// Term of the sender's entry there.
        hint_term: Term,
    },
    /// The term of the append has passed; the message carries the newer one.
    OldTerm,
}

/// The state of a group as of an index, in place of the log up to there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start<P> {
    /// Last index that is covered.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Configuration as of that index.
    pub membership: Membership,
    /// The user's state, opaque here.
    pub payload: P,
}

impl<P> Append<P> {
    /// Last index of the leader's log that this append vouches for.
    pub fn last_index(&self) -> Index {
        self.entries.last().map_or(self.prev_index, |entry| entry.index)
    }

    /// Whether the entries follow each other and `prev_index`, in terms that never fall and never exceed `term`.
    pub fn is_well_formed(&self, term: Term) -> bool {
        let mut index = self.prev_index;
        let mut entry_term = self.prev_term;
        self.entries.iter().all(|entry| {
            let follows = index.get().checked_add(1) == Some(entry.index.get())
                && entry.prev_term == entry_term
                && entry_term <= entry.term
                && entry.term <= term;
            index = entry.index;
            entry_term = entry.term;
            follows
        })
    }
}

impl<P> MessageBody<P> {
    /// A short name, for logs and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            MessageBody::PreVote { .. } => "pre-vote",
            MessageBody::PreVoteAnswer { .. } => "pre-vote-answer",
            MessageBody::Vote { .. } => "vote",
            MessageBody::VoteAnswer { .. } => "vote-answer",
            MessageBody::Append(_) => "append",
            MessageBody::AppendAnswer(_) => "append-answer",
            MessageBody::Heartbeat { .. } => "heartbeat",
            MessageBody::TimeoutNow => "timeout-now",
            MessageBody::InstallStart { .. } => "install-start",
            MessageBody::InstallStartAnswer { .. } => "install-start-answer",
        }
    }

    /// Whether the message belongs on the connection of liveness and votes, which no payload may hold up.
    pub const fn is_control(&self) -> bool {
        matches!(
            self,
            MessageBody::PreVote { .. }
                | MessageBody::PreVoteAnswer { .. }
                | MessageBody::Vote { .. }
                | MessageBody::VoteAnswer { .. }
                | MessageBody::TimeoutNow
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Body;

    fn append(prev: (u64, u64), entries: &[(u64, u64, u64)]) -> Append<Vec<u8>> {
        let entry = |(index, term, prev_term): &(u64, u64, u64)| Entry {
            index: Index(*index),
            term: Term(*term),
            prev_term: Term(*prev_term),
            body: Body::NoOp,
        };
        Append {
            seq: 1,
            prev_index: Index(prev.0),
            prev_term: Term(prev.1),
            entries: entries.iter().map(entry).collect(),
            commit: Index::ZERO,
            required: Durability::PageCache,
            sound_through: None,
        }
    }

    #[test]
    fn entries_follow_each_other_in_terms_that_do_not_fall() {
        let well_formed = |prev, entries| append(prev, entries).is_well_formed(Term(5));
        assert!(well_formed((7, 3), &[]));
        assert!(well_formed((7, 3), &[(8, 3, 3), (9, 5, 3)]));
        assert!(!well_formed((7, 3), &[(9, 3, 3)]), "a gap");
        assert!(!well_formed((7, 3), &[(8, 3, 3), (8, 3, 3)]), "the same twice");
        assert!(!well_formed((u64::MAX, 3), &[(0, 3, 3)]), "nothing follows the last index");
        assert!(!well_formed((7, 3), &[(8, 4, 2)]), "another entry before it");
        assert!(!well_formed((7, 3), &[(8, 2, 3)]), "its term falls");
        assert!(!well_formed((7, 3), &[(8, 6, 3)]), "its term is to come");
    }

    #[test]
    fn elections_go_by_the_connection_that_no_payload_holds_up() {
        let (last_index, last_term, unclean) = (Index(1), Term(1), false);
        let control: [MessageBody<Vec<u8>>; 5] = [
            MessageBody::PreVote { last_index, last_term, unclean },
            MessageBody::PreVoteAnswer { granted: true, recovering: false },
            MessageBody::Vote { last_index, last_term, unclean },
            MessageBody::VoteAnswer { granted: true, recovering: false },
            MessageBody::TimeoutNow,
        ];
        assert!(control.iter().all(MessageBody::is_control));
        let data = [
            MessageBody::Append(append((0, 0), &[])),
            MessageBody::Heartbeat { seq: 1, commit: Index(1) },
            MessageBody::InstallStartAnswer { index: Index(1) },
        ];
        assert!(!data.iter().any(MessageBody::is_control));
    }
}
