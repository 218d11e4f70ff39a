//! What the core is told when it is created and when a group is added, and why it may refuse.

use thiserror::Error;

use crate::types::{Durability, Entry, GroupId, HardState, Incarnation, Index, Membership, ReplicaId, Term};

/// How many `Append`s may be on their way to one follower of one group.
pub const MAX_INFLIGHT_APPEND_ENTRIES: usize = 5;

/// Settings of a [`MultiRaft`](crate::MultiRaft).
#[derive(Clone, Debug)]
pub struct MultiRaftConfig {
    /// This replica.
    pub me: ReplicaId,
    /// How often its process has started, this time included.
    pub incarnation: Incarnation,
    /// Feeds every random choice.
    pub seed: u64,
    /// Ticks without a leader after which an election is due; timers run for one to two of these.
    pub election_timeout_ticks: u32,
    /// How many `Append`s may be on their way to one follower of one group.
    pub max_inflight_appends: usize,
    /// How many bytes of entries may be on their way to one follower of one group.
    pub max_inflight_bytes: usize,
    /// How many bytes of entries one `Append` carries, a single larger entry excepted.
    pub max_append_bytes: usize,
    /// How many bytes of entries are kept in memory over all groups once they are stored and committed.
    pub max_tail_bytes: usize,
}

impl MultiRaftConfig {
    /// Settings with the usual limits.
    pub const fn new(me: ReplicaId, incarnation: Incarnation, seed: u64) -> MultiRaftConfig {
        MultiRaftConfig {
            me,
            incarnation,
            seed,
            election_timeout_ticks: 10,
            max_inflight_appends: MAX_INFLIGHT_APPEND_ENTRIES,
            max_inflight_bytes: 16 << 20,
            max_append_bytes: 4 << 20,
            max_tail_bytes: 64 << 20,
        }
    }
}

/// What is known of a group when it is added: everything default for a new one but its membership.
#[derive(Clone, Debug)]
pub struct GroupOptions<P> {
    /// Configuration as of `start_index`, or as of any index from there to `committed`. A replica that is yet to hear from
    /// its group need not be in it: it waits for a leader and never campaigns.
    pub membership: Membership,
    /// Configurations in the log after that, oldest first, each at its index.
    pub memberships: Vec<(Index, Membership)>,
    /// Term and vote as they were persisted.
    pub hard_state: HardState,
    /// The log begins after this index.
    pub start_index: Index,
    /// Term of the entry at `start_index`.
    pub start_term: Term,
    /// Last index of the log.
    pub last_index: Index,
    /// Term of the entry at `last_index`.
    pub last_term: Term,
    /// Where each run of entries of one term begins, for the entries after `start_index` that `tail` does not
    /// hold, oldest first ([`term_runs`](crate::term_runs) finds them). A log is only ever cut where a term differs, so
    /// the core must know the term of every entry.
    pub terms: Vec<(Index, Term)>,
    /// The newest entries up to `last_index`; may be empty.
    pub tail: Vec<Entry<P>>,
    /// Known to be committed and already applied; at least `start_index`.
    pub committed: Index,
    /// How durably the log found at start is stored.
    pub stored: Durability,
    /// How safely an entry of this group must be stored before it counts.
    pub required: Durability,
    /// The log may lack entries that were acknowledged: no votes, no counting answers.
    pub recovering: bool,
}

impl<P> GroupOptions<P> {
    /// A group whose log is empty.
    pub const fn new(membership: Membership, required: Durability) -> GroupOptions<P> {
        GroupOptions {
            membership,
            memberships: Vec::new(),
            hard_state: HardState { term: Term::ZERO, vote: None },
            start_index: Index::ZERO,
            start_term: Term::ZERO,
            last_index: Index::ZERO,
            last_term: Term::ZERO,
            terms: Vec::new(),
            tail: Vec::new(),
            committed: Index::ZERO,
            stored: Durability::PageCache,
            required,
            recovering: false,
        }
    }
}

/// Why a group was not added.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddGroupError {
    /// It is there.
    #[error("group {0} is already here; remove it first")]
    Exists(GroupId),
    /// What is said about the log contradicts itself.
    #[error("the log of group {group} is described inconsistently: {reason}; read it again from the WAL")]
    Inconsistent {
        /// The group.
        group: GroupId,
        /// What does not fit.
        reason: &'static str,
    },
}

/// Why a proposal was refused; nothing of it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// There is no such group on this replica.
    #[error("group {0} is not on this replica; look up its replicas again")]
    UnknownGroup(GroupId),
    /// Somebody else leads.
    #[error("this replica does not lead the group; ask the leader ({leader:?})")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// Leadership is being handed over.
    #[error("leadership is being handed to {to}; try again shortly")]
    Transferring {
        /// Who gets it.
        to: ReplicaId,
    },
}

/// Why it cannot be confirmed that this replica leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfirmError {
    /// There is no such group on this replica.
    #[error("group {0} is not on this replica; look up its replicas again")]
    UnknownGroup(GroupId),
    /// It does not.
    #[error("this replica does not lead the group; ask the leader ({leader:?})")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<ReplicaId>,
    },
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// There is no such group on this replica.
    #[error("group {0} is not on this replica; look up its replicas again")]
    UnknownGroup(GroupId),
    /// Somebody else leads.
    #[error("this replica does not lead the group; ask the leader ({leader:?})")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// A transfer is under way.
    #[error("leadership is already being handed to {to}; wait for the outcome")]
    UnderWay {
        /// Who gets it.
        to: ReplicaId,
    },
    /// Only a voter whose log is sound can lead.
    #[error("{0} cannot lead the group: it is no voter of it, or it is recovering; choose another replica")]
    Unfit(ReplicaId),
}
