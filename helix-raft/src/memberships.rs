//! The configurations along a log: each is in force from the moment its entry is appended.

use crate::types::{Index, Membership};

#[derive(Clone, Debug)]
pub(crate) struct Memberships {
    base: (Index, Membership),
    changes: Vec<(Index, Membership)>,
}

impl Memberships {
    /// `base` is in force at `index`, where the log begins; `changes` follow, oldest first.
    pub(crate) const fn new(
        index: Index,
        base: Membership,
        changes: Vec<(Index, Membership)>,
    ) -> Memberships {
        Memberships { base: (index, base), changes }
    }

    fn last(&self) -> &(Index, Membership) {
        self.changes.last().unwrap_or(&self.base)
    }

    pub(crate) fn current(&self) -> &Membership {
        &self.last().1
    }

    /// Where the configuration in force was appended.
    pub(crate) fn current_index(&self) -> Index {
        self.last().0
    }

    /// The configuration in force at `index`, and where it was appended.
    pub(crate) fn at(&self, index: Index) -> &(Index, Membership) {
        let before = self.changes.partition_point(|change| change.0 <= index);
        self.changes[..before].last().unwrap_or(&self.base)
    }

    /// Every configuration that is known, oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Membership> {
        std::iter::once(&self.base).chain(&self.changes).map(|change| &change.1)
    }

    /// The configuration in force at `index` and every later one.
    pub(crate) fn since(&self, index: Index) -> impl Iterator<Item = &Membership> {
        let after = self.changes.partition_point(|change| change.0 <= index);
        std::iter::once(self.at(index)).chain(&self.changes[after..]).map(|change| &change.1)
    }

    pub(crate) fn push(&mut self, index: Index, membership: Membership) {
        self.changes.push((index, membership));
    }

    /// Takes back every change from `index` on; tells whether there was one.
    pub(crate) fn truncate_from(&mut self, index: Index) -> bool {
        let kept = self.changes.partition_point(|change| change.0 < index);
        let rolled_back = kept < self.changes.len();
        self.changes.truncate(kept);
        rolled_back
    }

    /// Folds the changes up to `index` into the base.
    pub(crate) fn move_start(&mut self, index: Index) {
        let folded = self.changes.partition_point(|change| change.0 <= index);
        if let Some(newest) = self.changes.drain(..folded).next_back() {
            self.base = newest;
        }
    }

    /// Index of the first change above `index`.
    pub(crate) fn first_after(&self, index: Index) -> Option<Index> {
        let next = self.changes.partition_point(|change| change.0 <= index);
        self.changes.get(next).map(|change| change.0)
    }

    /// Whether there is a change in `(after, through]`.
    pub(crate) fn changes_within(&self, after: Index, through: Index) -> bool {
        self.first_after(after).is_some_and(|index| index <= through)
    }
}
