//! Which offsets of a partition were delivered. Pure.

use std::collections::BTreeMap;

/// Offsets, kept as intervals: in the end there is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivered {
    /// From the first offset of each interval to that behind its last.
    intervals: BTreeMap<u64, u64>,
}

impl Delivered {
    /// An offset is delivered; says whether it is for the first time.
    pub fn add(&mut self, offset: u64) -> bool {
        let before = self.intervals.range_mut(..=offset).next_back();
        let start = match before {
            Some((_, end)) if *end > offset => return false,
            Some((start, end)) if *end == offset => {
                *end = offset + 1;
                *start
            }
            _ => {
                self.intervals.insert(offset, offset + 1);
                offset
            }
        };
        if let Some(end) = self.intervals.remove(&(offset + 1)) {
            self.intervals.insert(start, end);
        }
        true
    }

    /// The first offset below `end` that was not delivered.
    pub fn first_missing(&self, end: u64) -> Option<u64> {
        let first = self.intervals.get(&0).copied().unwrap_or(0);
        (first < end).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hole_is_found_until_it_is_filled() {
        let mut delivered = Delivered::default();
        assert_eq!(delivered.first_missing(0), None);
        assert_eq!(delivered.first_missing(1), Some(0));
        assert!([0, 1, 3, 4].into_iter().all(|offset| delivered.add(offset)));
        assert!(!delivered.add(3));
        assert_eq!((delivered.first_missing(2), delivered.first_missing(5)), (None, Some(2)));
        assert!(delivered.add(2));
        assert_eq!((delivered.first_missing(5), delivered.intervals.len()), (None, 1));
    }

    proptest! {
        #[test]
        fn it_is_a_set(offsets in proptest::collection::vec(0_u64..40, 0..120)) {
            let mut set = std::collections::BTreeSet::new();
            let mut delivered = Delivered::default();
            for offset in offsets {
                prop_assert_eq!(delivered.add(offset), set.insert(offset));
                let missing = (0..41).find(|offset| !set.contains(offset));
                prop_assert_eq!(delivered.first_missing(41), missing);
            }
        }
    }
}
