//! Committed producer state: the same on every replica that applied the same entries.

use std::collections::{BTreeMap, VecDeque};

use super::ProducerBatch;

/// Batches that are remembered per producer, as in Kafka: clients keep at most five requests in flight.
pub const KEPT_BATCHES: usize = 5;
/// Expired producer ids that are remembered as such.
pub(super) const KEPT_EXPIRED: usize = 1024;

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerState {
    /// The newest epoch.
    pub epoch: i16,
    /// First sequence of the unbroken run that ends with the newest batch; 0 unless an expired producer went on in
    /// the middle.
    pub(super) run_start: i32,
    /// This replica's clock when the last batch was applied. It only says when the removal is proposed, is not part
    /// of the checkpoint, and differs between replicas. The records' own timestamps would not do: who copies old
    /// records with their timestamps would be forgotten at once.
    pub(super) last_active_ms: i64,
    /// The last batches of that epoch, oldest first, at most [`KEPT_BATCHES`]. None where the state is as of an earlier entry and they are
    /// behind it: see [`ProducerTable::as_of`].
    pub(super) batches: VecDeque<ProducerBatch>,
}

impl ProducerState {
    /// The last batches of the current epoch, oldest first.
    pub fn batches(&self) -> impl Iterator<Item = ProducerBatch> {
        self.batches.iter().copied()
    }

    /// The newest batch of the current epoch.
    pub fn last_batch(&self) -> Option<&ProducerBatch> {
        self.batches.back()
    }

    /// An older epoch was refused before it was appended; if one comes all the same, every replica skips it alike.
    fn push(&mut self, batch: ProducerBatch, now_ms: i64) {
        if batch.epoch < self.epoch {
            return;
        }
        if batch.epoch > self.epoch {
            self.epoch = batch.epoch;
            self.run_start = batch.first_sequence;
            self.batches.clear();
        }
        if self.batches.len() == KEPT_BATCHES {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
        self.last_active_ms = self.last_active_ms.max(now_ms);
    }
}

/// Committed producer state of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerTable {
    /// Index of the last entry applied.
    pub(super) applied_index: u64,
    pub(super) producers: BTreeMap<i64, ProducerState>,
    /// Producers that were removed for being idle, oldest first: they may go on where they were.
    pub(super) expired: VecDeque<i64>,
    /// Some expired producer is no longer in `expired`.
    pub(super) forgot_expired: bool,
}

impl ProducerTable {
    /// What is known of a producer.
    pub fn get(&self, producer_id: i64) -> Option<&ProducerState> {
        self.producers.get(&producer_id)
    }

    /// The newest batch of every producer, in the order of their ids.
    pub fn last_batches(&self) -> Vec<ProducerBatch> {
        let mut last: Vec<_> =
            self.producers.values().filter_map(ProducerState::last_batch).copied().collect();
        last.sort_unstable_by_key(|batch| batch.producer_id);
        last
    }

    /// Number of producers known.
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// Whether no producer is known.
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// Index of the last entry applied.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The state as of the earlier entry at `index`, behind which `next_offset` follows: without the batches behind it. What they have pushed out
    /// is gone, so this knows less than was known then, and something else too (epochs, who expired): just so much that applying
    /// the entries behind `index` leads to the same state again, and that whoever goes on where none of them are left is let in.
    #[must_use]
    pub fn as_of(mut self, index: u64, next_offset: i64) -> Self {
        self.applied_index = self.applied_index.min(index);
        for state in self.producers.values_mut() {
            state.batches.retain(|batch| batch.base_offset < next_offset);
        }
        self
    }

    pub(super) fn was_expired(&self, producer_id: i64) -> bool {
        self.expired.contains(&producer_id)
    }

    pub(super) fn forgot_expired(&self) -> bool {
        self.forgot_expired
    }

    /// Applies the batches of the committed entry at `index`, once. `now_ms` is this replica's clock.
    pub fn apply(&mut self, index: u64, batches: &[ProducerBatch], now_ms: i64) {
        if index <= self.applied_index {
            return;
        }
        self.applied_index = index;
        for batch in batches {
            self.apply_batch(*batch, now_ms);
        }
    }

    fn apply_batch(&mut self, batch: ProducerBatch, now_ms: i64) {
        let known = self.producers.len();
        let state = self.producers.entry(batch.producer_id).or_insert_with(|| ProducerState {
            epoch: batch.epoch,
            run_start: batch.first_sequence,
            last_active_ms: now_ms,
            batches: VecDeque::new(),
        });
        state.push(batch, now_ms);
        if self.producers.len() > known {
            self.expired.retain(|&producer_id| producer_id != batch.producer_id);
        }
    }

    /// Producers of which nothing was applied here for `limit_ms`, in ascending order.
    pub fn expired(&self, now_ms: i64, limit_ms: i64) -> Vec<i64> {
        let too_old = |state: &ProducerState| now_ms.saturating_sub(state.last_active_ms) > limit_ms;
        self.producers
            .iter()
            .filter(|(_, state)| too_old(state))
            .map(|(&producer_id, _)| producer_id)
            .collect()
    }

    /// Applies the committed decision at `index` to forget these producers, once.
    pub fn remove(&mut self, index: u64, producer_ids: &[i64]) {
        if index <= self.applied_index {
            return;
        }
        self.applied_index = index;
        for &producer_id in producer_ids {
            let was_expired = self.was_expired(producer_id);
            if was_expired {
                self.expired.retain(|&other| other != producer_id);
            }
            if self.producers.remove(&producer_id).is_some() || was_expired {
                self.expired.push_back(producer_id);
            }
        }
        while self.expired.len() > KEPT_EXPIRED {
            self.expired.pop_front();
            self.forgot_expired = true;
        }
    }
}
