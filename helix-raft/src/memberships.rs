//! The configurations along a log: each is in force from the moment its entry is appended.

use crate::types::{Index, Membership};

#[derive(Clone, Debug)]
pub(crate) struct Memberships {
    base: Membership,
    changes: Vec<(Index, Membership)>,
}

impl Memberships {
    pub(crate) const fn new(base: Membership, changes: Vec<(Index, Membership)>) -> Memberships {
        Memberships { base, changes }
    }

    pub(crate) fn current(&self) -> &Membership {
        self.changes.last().map_or(&self.base, |change| &change.1)
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
        if let Some((_, membership)) = self.changes.drain(..folded).next_back() {
            self.base = membership;
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
