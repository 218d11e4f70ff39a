//! Where replicas go: pure functions of the registered brokers.

use crate::ids::NodeId;

/// Replicas of `partitions` partitions, `replication_factor` each, spread over `brokers` (sorted, distinct).
///
/// The first replica (the preferred leader) walks round-robin from `seed`; the following replicas are the next
/// brokers, shifted by one more on every full round so that one broker's partners vary. As in Kafka's
/// `StripedReplicaPlacer`, without racks.
///
/// The caller guarantees `1 <= replication_factor <= brokers.len()`.
pub fn place(
    brokers: &[NodeId],
    partitions: usize,
    replication_factor: usize,
    seed: u64,
) -> Vec<Vec<NodeId>> {
    let count = brokers.len() as u64;
    (0..partitions as u64)
        .map(|partition| {
            let turn = seed.wrapping_add(partition);
            let first = turn % count;
            let shift = if count > 1 { (turn / count) % (count - 1) } else { 0 };
            (0..replication_factor as u64)
                .map(|k| {
                    let step = if k == 0 { 0 } else { 1 + (shift + k - 1) % (count - 1) };
                    brokers[((first + step) % count) as usize]
                })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn replicas_are_distinct_and_leaders_are_balanced(brokers in 1usize..8, partitions in 0usize..50, rf in 1usize..8, seed: u64) {
            let rf = rf.min(brokers);
            let ids: Vec<NodeId> = (0..brokers as i32).map(NodeId).collect();
            let placed = place(&ids, partitions, rf, seed % 1_000_000);
            prop_assert_eq!(placed.len(), partitions);
            let mut led = vec![0usize; brokers];
            for replicas in &placed {
                let mut distinct = replicas.clone();
                distinct.sort();
                distinct.dedup();
                prop_assert_eq!(distinct.len(), rf);
                led[replicas[0].0 as usize] += 1;
            }
            let (low, high) = (led.iter().min().unwrap(), led.iter().max().unwrap());
            prop_assert!(high - low <= 1);
        }
    }
}
