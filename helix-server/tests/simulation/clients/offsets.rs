//! What members of groups were told: who owned what in which generation, and what is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::ledger::{Ledger, Partition};
use super::member::GROUPS_TOPIC;

/// Shared by all members of all groups.
pub(crate) struct Offsets {
    ledger: Arc<Ledger>,
    /// Partitions of the topic that holds groups.
    topic_partitions: i32,
    told: Mutex<BTreeMap<String, Told>>,
}

/// What members of one group were told.
#[derive(Default)]
struct Told {
    /// Owners by generation and partition.
    owners: BTreeMap<(i32, i32), BTreeSet<String>>,
    /// The highest offset of which somebody was told that it is committed, by partition: who committed it, or anybody who asked.
    committed: BTreeMap<i32, i64>,
}

impl Told {
    fn committed(&mut self, partition: i32, offset: i64) {
        let known = self.committed.entry(partition).or_insert(offset);
        *known = offset.max(*known);
    }
}

impl Offsets {
    pub(crate) fn new(ledger: Arc<Ledger>, topic_partitions: i32) -> Arc<Self> {
        Arc::new(Self { ledger, topic_partitions, told: Mutex::default() })
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Whether an unclean recovery may have taken something of the groups. It is not asked which of them are where.
    fn has_lost(&self) -> bool {
        let partition = |number| Partition { topic: GROUPS_TOPIC.to_owned(), number };
        (0..self.topic_partitions).any(|number| self.ledger.has_lost(&partition(number)))
    }

    /// A member was told that these partitions are its own.
    pub(crate) fn owns(&self, group: &str, generation: i32, partitions: &[i32], member: &str) {
        self.ledger.witness().count(|seen| seen.generations += 1);
        let mut told = self.told.lock();
        let told = told.entry(group.to_owned()).or_default();
        for partition in partitions {
            let owners = told.owners.entry((generation, *partition)).or_default();
            owners.insert(member.to_owned());
            if owners.len() > 1 && !self.has_lost() {
                self.ledger.accuse(format!(
                    "group {group}: partition {partition} is owned by {owners:?} in generation {generation}"
                ));
            }
        }
    }

    /// A commit was acknowledged.
    pub(crate) fn acknowledged(&self, group: &str, partition: i32, offset: i64) {
        self.ledger.witness().count(|seen| seen.offset_commits += 1);
        self.told.lock().entry(group.to_owned()).or_default().committed(partition, offset);
    }

    /// What is known to be committed so far, by partition; -1 where nothing is.
    pub(crate) fn all_committed(&self, group: &str, partitions: i32) -> Vec<i64> {
        let told = self.told.lock();
        let of_group = told.get(group);
        let committed = |number| of_group.and_then(|told| told.committed.get(&number)).copied().unwrap_or(-1);
        (0..partitions).map(committed).collect()
    }

    /// The coordinator says what is committed; `before` was known to be when it was asked.
    pub(crate) fn seen(&self, group: &str, before: &[i64], committed: &[i64]) {
        let back = before.iter().zip(committed).any(|(before, committed)| committed < before);
        if back && !self.has_lost() {
            self.ledger
                .accuse(format!("group {group}: {before:?} was committed, and {committed:?} is said to be"));
        }
        let mut told = self.told.lock();
        let told = told.entry(group.to_owned()).or_default();
        for (partition, offset) in (0..).zip(committed) {
            told.committed(partition, *offset);
        }
    }
}
