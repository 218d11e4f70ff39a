//! What is committed in every group, and what it says about members.

use std::collections::BTreeMap;

use helix_raft::{Body, GroupId, Index, Membership, ReplicaId, Term};
use helix_server::entry::Command;

use super::shadow::{Logged, Shadow};

/// The committed logs of all groups, as whoever was first to apply an entry has shown them.
#[derive(Default)]
pub(super) struct Committed {
    logs: BTreeMap<GroupId, BTreeMap<Index, Logged>>,
    /// Up to where somebody has said that a log is committed.
    counted: BTreeMap<GroupId, Index>,
    memberships: BTreeMap<GroupId, Membership>,
    /// From which offset on unclean recoveries have taken records.
    losses: BTreeMap<GroupId, u64>,
}

impl Committed {
    pub(super) fn last(&self, group: GroupId) -> Index {
        self.logs.get(&group).and_then(|log| log.keys().next_back().copied()).unwrap_or(Index::ZERO)
    }

    /// The last entry of an earlier term than `term`.
    pub(super) fn last_before(&self, group: GroupId, term: Term) -> Option<(Index, Logged)> {
        let mut newest_first = self.logs.get(&group)?.iter().rev();
        newest_first.find(|(_, logged)| logged.term < term).map(|(index, logged)| (*index, *logged))
    }

    /// Somebody counts as committed what it has through `through`: returns what nobody had counted before.
    pub(super) fn count(&mut self, group: GroupId, through: Index, log: &Shadow) -> Vec<(Index, Logged)> {
        let counted = self.counted.entry(group).or_default();
        let news = log.between(*counted, through);
        *counted = through.max(*counted);
        news
    }

    /// Somebody applies an entry. `Ok(true)` if it is the first to do so; the entry that was committed before if it is another one.
    pub(super) fn apply(&mut self, group: GroupId, index: Index, logged: Logged) -> Result<bool, Logged> {
        match self.logs.entry(group).or_default().entry(index) {
            std::collections::btree_map::Entry::Occupied(other) if *other.get() != logged => {
                Err(*other.get())
            }
            std::collections::btree_map::Entry::Occupied(_) => Ok(false),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(logged);
                Ok(true)
            }
        }
    }

    /// Takes notice of a configuration that is committed. Whether `body` is one.
    pub(super) fn learn_members(&mut self, group: GroupId, body: &Body<Command>) -> bool {
        let Body::Membership(membership) = body else { return false };
        self.memberships.insert(group, membership.clone());
        true
    }

    /// Whether the newest committed configuration of a group has the disk; of one that began with `founders`.
    pub(super) fn is_member(&self, group: GroupId, replica: ReplicaId, founders: &[ReplicaId]) -> bool {
        let known = self.memberships.get(&group);
        known.map_or_else(|| founders.contains(&replica), |membership| membership.contains(replica))
    }

    /// How many voters a group has, that began with `at_first`.
    pub(super) fn voters(&self, group: GroupId, at_first: usize) -> usize {
        self.memberships.get(&group).map_or(at_first, |membership| membership.voters.len())
    }

    /// An election by every voter was won by `winner`: what it does not hold is no longer committed. Returns that.
    pub(super) fn take_back(&mut self, group: GroupId, winner: &Shadow) -> Vec<(Index, Logged)> {
        let log = self.logs.entry(group).or_default();
        let lost: Vec<(Index, Logged)> = log
            .iter()
            .filter(|(index, logged)| !winner.holds(**index, **logged))
            .map(|(index, logged)| (*index, *logged))
            .collect();
        for (index, _) in &lost {
            log.remove(index);
        }
        if let (Some((first, _)), Some(counted)) = (lost.first(), self.counted.get_mut(&group)) {
            *counted = first.prev().min(*counted);
        }
        if let Some(offset) = lost.iter().filter_map(|(_, logged)| logged.digest.base_offset()).min() {
            let known = self.losses.entry(group).or_insert(offset);
            *known = offset.min(*known);
        }
        lost
    }

    /// From which offset on unclean recoveries have taken records of a group.
    pub(super) fn lost_from(&self, group: GroupId) -> Option<u64> {
        self.losses.get(&group).copied()
    }
}
