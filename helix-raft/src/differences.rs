//! Which buckets of groups two nodes do not agree about, and when it is time to do something about it.

use std::collections::BTreeMap;

use crate::types::Bucket;

/// What differs in one heartbeat may be under way; what differs in the next one too is not.
const FIRST_PATIENCE: u32 = 2;
/// While thousands of groups are made or moved, their buckets differ all the time and waking changes nothing. It must not cost so much
/// that it never ends, so it is done less often the longer a bucket differs; this many heartbeats are less than an election timeout.
const MOST_PATIENCE: u32 = 8;

#[derive(Clone, Copy, Debug)]
struct Difference {
    /// Heartbeats in a row in which the bucket has differed, since it was woken last.
    heartbeats: u32,
    /// In how many it has to before it is woken.
    patience: u32,
}

/// The buckets that differed in the last heartbeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct Differences {
    buckets: BTreeMap<Bucket, Difference>,
}

impl Differences {
    /// A heartbeat, in which exactly these buckets differ. Returns those that are to be woken now.
    pub(crate) fn note(&mut self, differing: &[Bucket]) -> Vec<Bucket> {
        self.buckets.retain(|bucket, _| differing.contains(bucket));
        let mut due = Vec::new();
        for bucket in differing {
            let new = Difference { heartbeats: 0, patience: FIRST_PATIENCE };
            let difference = self.buckets.entry(*bucket).or_insert(new);
            difference.heartbeats += 1;
            if difference.heartbeats == difference.patience {
                difference.heartbeats = 0;
                difference.patience = MOST_PATIENCE.min(2 * difference.patience);
                due.push(*bucket);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The heartbeats, counted from 1, after which bucket 3 was woken, if it differed in those of which `differs` says so.
    fn woken(heartbeats: u32, differs: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut differences = Differences::default();
        let other = Bucket(5);
        (1..=heartbeats)
            .filter(|heartbeat| {
                let differing = if differs(*heartbeat) { vec![Bucket(3)] } else { vec![other] };
                differences.note(&differing).contains(&Bucket(3))
            })
            .collect()
    }

    #[test]
    fn what_goes_on_differing_is_woken_less_and_less_often() {
        assert_eq!(woken(40, |_| true), [2, 6, 14, 22, 30, 38]);
    }

    #[test]
    fn what_has_agreed_is_new_when_it_differs_again() {
        assert_eq!(woken(40, |heartbeat| heartbeat % 2 == 0), [0; 0]);
        assert_eq!(woken(10, |heartbeat| heartbeat != 4), [2, 6, 10]);
        assert_eq!(woken(12, |heartbeat| heartbeat != 7), [2, 6, 9]);
    }

    #[test]
    fn buckets_do_not_wait_for_each_other() {
        let mut differences = Differences::default();
        assert_eq!(differences.note(&[Bucket(1)]), []);
        assert_eq!(differences.note(&[Bucket(1), Bucket(2)]), [Bucket(1)]);
        assert_eq!(differences.note(&[Bucket(1), Bucket(2)]), [Bucket(2)]);
    }
}
