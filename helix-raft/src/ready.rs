//! What a group wants done, and what it tells about itself.

use crate::message::{Message, Start};
use crate::types::{Durability, Entry, HardState, Index, Membership, Position, ReplicaId, Role, Term};

/// What the driver has to do for one group. Nothing in here waits for anything else in here, except that `append`
/// goes to the WAL in the order of the `Ready`s, and `committed` is applied in that order.
#[derive(Clone, Debug)]
pub struct Ready<P> {
    /// Persist, then call `hard_state_persisted`. Whatever depends on it is held back until then.
    pub hard_state: Option<HardState>,
    /// Write to the WAL as one suffix replacement, then call `appended` with the last index and term of it.
    pub append: Vec<Entry<P>>,
    /// How durably `append` must be stored before `appended` is called.
    pub append_required: Durability,
    /// Sync what is written up to here, then call `appended` with this position and `Durability::Synced`.
    pub sync: Option<Position>,
    /// May leave now.
    pub messages: Vec<Message<P>>,
    /// Entries to apply, in order, each once per start of the process.
    pub committed: Vec<Entry<P>>,
    /// Committed entries that are no longer in memory: read them from the WAL, apply them, call `committed_read`. No
    /// other committed entry is handed out before that.
    pub committed_to_read: Option<CommittedRange>,
    /// Entries that a follower needs and that are no longer in memory: read them and call `entries_read`.
    pub reads: Vec<ReadRequest>,
    /// Followers whose log ends before this one begins: call `start_provided` for each.
    pub need_start: Vec<ReplicaId>,
    /// Replace log and state by this, durably, then call `start_installed`.
    pub install: Option<Start<P>>,
    /// A configuration became committed. Once one excludes this replica, and it is the one in force here
    /// ([`MultiRaft::is_removed`](crate::MultiRaft::is_removed)), the data of the group may go.
    pub membership: Option<CommittedMembership>,
    /// Set when role, term or leader changed.
    pub role_changed: Option<RoleChange>,
    /// This leader has just committed, and handed out for apply, the first entry of its own term.
    pub leader_ready: bool,
    /// A majority has shown that this replica still led when the round of this number began: whatever asked
    /// [`MultiRaft::confirm_leadership`](crate::MultiRaft::confirm_leadership) and got this number or a lower one, in this leadership.
    pub confirmed: Option<u64>,
    /// The log of this recovering replica is sound again; to be persisted.
    pub sound: bool,
    /// This replica leads without having been elected by a majority of sound ones: whatever the machines lost is lost. To be
    /// logged and counted.
    pub unclean_recovery: bool,
    /// The leader's history lacks or contradicts what is committed here, at this position: the others have lost it in an
    /// unclean recovery. The replica takes part in nothing any more. Its log has to be deleted, and the replica added again
    /// with an empty one, its term and vote, and as recovering.
    pub diverged: Option<Position>,
}

impl<P> Ready<P> {
    pub(crate) const fn empty() -> Ready<P> {
        Ready {
            hard_state: None,
            append: Vec::new(),
            append_required: Durability::PageCache,
            sync: None,
            messages: Vec::new(),
            committed: Vec::new(),
            committed_to_read: None,
            reads: Vec::new(),
            need_start: Vec::new(),
            install: None,
            membership: None,
            role_changed: None,
            leader_ready: false,
            confirmed: None,
            sound: false,
            unclean_recovery: false,
            diverged: None,
        }
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.hard_state.is_none()
            && self.append.is_empty()
            && self.sync.is_none()
            && self.messages.is_empty()
            && self.committed.is_empty()
            && self.committed_to_read.is_none()
            && self.reads.is_empty()
            && self.need_start.is_empty()
            && self.install.is_none()
            && self.membership.is_none()
            && self.role_changed.is_none()
            && !self.leader_ready
            && self.confirmed.is_none()
            && !self.sound
            && !self.unclean_recovery
            && self.diverged.is_none()
    }
}

/// A configuration that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedMembership {
    /// Where it was appended; or where the log began when it was learned from a start.
    pub index: Index,
    /// The configuration.
    pub membership: Membership,
}

/// Committed entries that have to be read from the WAL before they can be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedRange {
    /// The first one.
    pub from: Index,
    /// The last one, included.
    pub through: Index,
}

/// Entries that a follower needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The follower.
    pub to: ReplicaId,
    /// The first entry.
    pub from: Index,
    /// Stop here at the latest, so that no more is read than memory lacks.
    pub through: Index,
    /// Read about this many bytes, but at least one entry.
    pub max_bytes: usize,
}

/// A replica's new place in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleChange {
    /// What it is now.
    pub role: Role,
    /// In which term.
    pub term: Term,
    /// Who leads, as far as is known.
    pub leader: Option<ReplicaId>,
}

/// A look at a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What this replica is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// Who leads, as far as is known.
    pub leader: Option<ReplicaId>,
    /// Highest index known to be committed.
    pub commit: Index,
    /// Highest index handed out for apply.
    pub applied: Index,
    /// The log begins after this index.
    pub start_index: Index,
    /// Last index of the log.
    pub last_index: Index,
    /// Last index of the log that is stored here, at least in the page cache.
    pub stored_index: Index,
    /// As a leader: an entry of its own term is committed and handed out for apply.
    pub leader_ready: bool,
    /// As a leader: a majority answers within the election timeout. As a follower: the leader does.
    pub quorum_contact: bool,
    /// The log is suspect.
    pub recovering: bool,
    /// As a candidate: what the voters have said so far, this one included.
    pub ballots: BallotCount,
    /// Who gets leadership, while it is being handed over.
    pub transferring_to: Option<ReplicaId>,
    /// As a leader: every other member.
    pub progress: Vec<ReplicaProgress>,
    /// The configuration in force, committed or not.
    pub membership: Membership,
    /// The last configuration known to be committed.
    pub committed_membership: CommittedMembership,
}

/// Voters that have answered a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BallotCount {
    /// How many there are, whatever they answered.
    pub answered: usize,
    /// How many of them are sound.
    pub sound: usize,
}

/// How far a follower is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaProgress {
    /// The follower.
    pub replica: ReplicaId,
    /// Its log is stored and matches up to here.
    pub matched: Index,
    /// Entries are streamed to it.
    pub replicating: bool,
    /// Ticks since it last held the whole log; 0 while it does.
    pub lagging_ticks: u32,
    /// It is heard of within the election timeout.
    pub heard: bool,
    /// Its log is suspect.
    pub recovering: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_thing_to_do_is_something_to_do() {
        let empty = Ready::<Vec<u8>>::empty;
        assert!(empty().is_empty());
        let at = Position::default();
        let range = CommittedRange { from: Index(1), through: Index(1) };
        let read = ReadRequest { to: ReplicaId(1), from: Index(1), through: Index(1), max_bytes: 1 };
        let role = RoleChange { role: Role::Follower, term: Term(1), leader: None };
        let membership = CommittedMembership { index: Index(1), membership: Membership::default() };
        let each = [
            Ready { hard_state: Some(HardState::default()), ..empty() },
            Ready { sync: Some(at), ..empty() },
            Ready { committed_to_read: Some(range), ..empty() },
            Ready { reads: vec![read], ..empty() },
            Ready { need_start: vec![ReplicaId(1)], ..empty() },
            Ready { membership: Some(membership), ..empty() },
            Ready { role_changed: Some(role), ..empty() },
            Ready { leader_ready: true, ..empty() },
            Ready { confirmed: Some(1), ..empty() },
            Ready { sound: true, ..empty() },
            Ready { unclean_recovery: true, ..empty() },
            Ready { diverged: Some(at), ..empty() },
        ];
        assert!(each.iter().all(|ready| !ready.is_empty()));
    }
}
