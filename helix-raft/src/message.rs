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
