//! Every entry that was ever appended anywhere, and who holds it how durably.

use std::collections::{BTreeMap, HashMap};

use helix_raft::{Durability, Entry, GroupId, Incarnation, Index, ReplicaId, Term};
use helix_server::entry::Command;

use super::shadow::{Digest, Logged, Shadow};
use crate::network::Place;

/// One entry, wherever it lies.
struct Known {
    digest: Digest,
    prev_term: Term,
    /// The nodes that have stored it, a bit each: in the page cache, and synced.
    cached: u32,
    synced: u32,
}

/// Where an entry was lost, of which replica, and by which start of it.
type Loss = (Place, ReplicaId, Incarnation);
type Key = (GroupId, Index, Term);

/// The entries of all groups.
#[derive(Default)]
pub(super) struct Holdings {
    entries: HashMap<Key, Known>,
    /// Who has lost an entry again, and with which start.
    lost: HashMap<Key, Vec<Loss>>,
    /// Who runs where.
    identities: BTreeMap<Place, (ReplicaId, Incarnation)>,
}

impl Holdings {
    /// A process has started.
    pub(super) fn runs(&mut self, place: Place, replica: ReplicaId, incarnation: Incarnation) {
        self.identities.insert(place, (replica, incarnation));
    }

    /// An entry is appended somewhere: false if there is another one of its index and term.
    pub(super) fn note(&mut self, group: GroupId, entry: &Entry<Command>) -> (Logged, bool) {
        let digest = Digest::of(&entry.body);
        let fresh = || Known { digest, prev_term: entry.prev_term, cached: 0, synced: 0 };
        let known = self.entries.entry((group, entry.index, entry.term)).or_insert_with(fresh);
        let is_the_same = known.digest == digest && known.prev_term == entry.prev_term;
        (Logged { term: entry.term, digest }, is_the_same)
    }

    /// Whether anybody has appended the entry.
    pub(super) fn knows(&self, group: GroupId, index: Index, term: Term) -> bool {
        self.entries.contains_key(&(group, index, term))
    }

    /// A node has stored an entry.
    pub(super) fn mark(
        &mut self,
        place: Place,
        group: GroupId,
        index: Index,
        term: Term,
        durability: Durability,
    ) {
        if let Some(known) = self.entries.get_mut(&(group, index, term)) {
            match durability {
                Durability::PageCache => known.cached |= 1 << place,
                Durability::Synced => known.synced |= 1 << place,
            }
        }
    }

    /// A node has stored everything that its log holds.
    pub(super) fn mark_all(&mut self, place: Place, group: GroupId, log: &Shadow) {
        for (durability, held) in log.held() {
            for (index, logged) in held {
                self.mark(place, group, index, logged.term, durability);
            }
        }
    }

    /// What a node does not hold any more does not count as stored there.
    pub(super) fn unmark_lost(
        &mut self,
        place: Place,
        group: GroupId,
        before: Vec<(Index, Logged)>,
        holds: impl Fn(Index, Logged) -> bool,
    ) {
        let Some((replica, incarnation)) = self.identities.get(&place).copied() else { return };
        for (index, logged) in before {
            let key = (group, index, logged.term);
            if !holds(index, logged)
                && let Some(known) = self.entries.get_mut(&key)
                && (known.cached | known.synced) & (1 << place) != 0
            {
                known.cached &= !(1 << place);
                known.synced &= !(1 << place);
                self.lost.entry(key).or_default().push((place, replica, incarnation));
            }
        }
    }

    /// The nodes that count as holders of an entry, a bit each, for whoever has `heard_of` these processes; `None` if nobody has appended it.
    ///
    /// What a replica has said that it holds counts until whoever counts has heard that it has started again since: it may have said so just
    /// before it lost it.
    pub(super) fn holders(
        &self,
        group: GroupId,
        (index, term): (Index, Term),
        must_be_synced: bool,
        heard_of: &[(ReplicaId, Incarnation)],
    ) -> Option<u32> {
        let key = (group, index, term);
        let known = self.entries.get(&key)?;
        let held_by = if must_be_synced { known.synced } else { known.cached | known.synced };
        let lost_unheard = |at: &&Loss| {
            heard_of.iter().any(|(replica, incarnation)| *replica == at.1 && *incarnation < at.2)
        };
        let lost = self.lost.get(&key).into_iter().flatten();
        Some(lost.filter(lost_unheard).fold(held_by, |held_by, (at, ..)| held_by | 1 << at))
    }
}
