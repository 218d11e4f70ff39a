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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ReplicaId;

    fn of(voters: &[u64]) -> Membership {
        Membership::of_voters(voters.iter().copied().map(ReplicaId).collect())
    }

    /// In force from 10, 20 and 30 on.
    fn three() -> Memberships {
        Memberships::new(Index(10), of(&[1]), vec![(Index(20), of(&[1, 2])), (Index(30), of(&[1, 2, 3]))])
    }

    #[test]
    fn each_is_in_force_from_its_entry_on() {
        let three = three();
        let at = |index| three.at(Index(index)).0.get();
        assert_eq!([10, 19, 20, 29, 30, 99].map(at), [10, 10, 20, 20, 30, 30]);
        let since =
            |index| three.since(Index(index)).map(|membership| membership.voters.len()).collect::<Vec<_>>();
        assert_eq!((since(19), since(20), since(30)), (vec![1, 2, 3], vec![2, 3], vec![3]));
        assert_eq!(three.all().map(|membership| membership.voters.len()).collect::<Vec<_>>(), [1, 2, 3]);
        let first_after = |index| three.first_after(Index(index)).map(Index::get);
        assert_eq!([19, 20, 30].map(first_after), [Some(20), Some(30), None]);
        assert!(three.changes_within(Index(19), Index(20)) && three.changes_within(Index(15), Index(30)));
        assert!(!three.changes_within(Index(20), Index(29)) && !three.changes_within(Index(15), Index(19)));
    }

    #[test]
    fn what_is_cut_off_is_in_force_no_more() {
        let mut three = three();
        assert!(!three.truncate_from(Index(31)));
        assert_eq!(three.current_index(), Index(30));
        assert!(three.truncate_from(Index(30)));
        assert_eq!((three.current_index(), three.current()), (Index(20), &of(&[1, 2])));
        assert!(three.truncate_from(Index(15)));
        assert_eq!(three.current_index(), Index(10), "the base is never cut off");
    }

    #[test]
    fn the_log_begins_with_what_is_in_force_there() {
        let mut three = three();
        three.move_start(Index(19));
        assert_eq!(three.all().count(), 3);
        three.move_start(Index(20));
        assert_eq!((three.at(Index(20)), three.all().count()), (&(Index(20), of(&[1, 2])), 2));
        three.move_start(Index(99));
        assert_eq!((three.at(Index(99)), three.all().count()), (&(Index(30), of(&[1, 2, 3])), 1));
    }
}
