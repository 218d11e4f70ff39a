//! State of idempotent producers: which batches were appended, so that a retry is recognised and a gap refused.
//!
//! There are two layers. The [`ProducerTable`] holds what committed entries say; it is the same on every replica and is
//! part of the partition's checkpoint. Over it the leader keeps batches that it appended and that are not committed
//! yet; these die with its leadership. The decision about a batch looks at both, once, when the batch is appended.

mod codec;
mod table;

use std::collections::{HashMap, VecDeque};

use thiserror::Error;

pub use codec::ProducerCodecError;
pub use table::{KEPT_BATCHES, ProducerState, ProducerTable};

use crate::broker::batch::{BatchHeader, add_sequence};

/// A batch of an idempotent producer at its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub first_sequence: i32,
    /// Sequence of the last record; sequences wrap from `i32::MAX` to 0.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// Largest timestamp of the batch.
    pub timestamp_ms: i64,
}

impl ProducerBatch {
    /// The batch of this header, stored at `base_offset`; `None` if no idempotent producer wrote it.
    pub fn from_header(header: &BatchHeader, base_offset: i64) -> Option<Self> {
        header.has_producer_id().then(|| Self {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
            last_offset: base_offset.saturating_add(i64::from(header.last_offset_delta)),
            timestamp_ms: header.max_timestamp_ms,
        })
    }
}

/// What is asked before a batch is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceClaim {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub first_sequence: i32,
    /// Number of records, at least 1.
    pub record_count: i32,
    /// The broker itself refused an earlier batch that came the same way, so a gap is its own doing.
    pub after_rejection: bool,
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is the next one: append it, then call [`Producers::append_pending`].
    Append,
    /// It was appended and committed before: answer with this place.
    DuplicateCommitted {
        /// Offset of the first record.
        base_offset: i64,
        /// Timestamp of that batch.
        timestamp_ms: i64,
    },
    /// It was appended before, and the answer must wait for the outcome of that entry.
    DuplicatePending {
        /// Raft index of the entry.
        index: u64,
        /// Offset that the first record gets if the entry commits.
        base_offset: i64,
        /// Timestamp of that batch.
        timestamp_ms: i64,
    },
    /// It must not be appended.
    Reject(SequenceError),
}

/// Why a batch must not be appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SequenceError {
    /// A newer instance of the producer took over (47).
    #[error("the producer's epoch is older than the newest one seen: a newer instance fenced it")]
    InvalidProducerEpoch,
    /// A batch is missing in between (45).
    #[error("out of order sequence number: a batch of this producer is missing in between")]
    OutOfOrder,
    /// Appended before, too long ago to say where (46).
    #[error("duplicate sequence number, older than the batches that are remembered")]
    Duplicate,
    /// The producer was idle for so long that nothing is known of it any more (59).
    #[error(
        "nothing is known of this producer id any more: it was idle for longer than producer.id.expiration.ms"
    )]
    UnknownProducer,
    /// A gap that the broker made itself by refusing an earlier batch (19): the client sends both again.
    #[error("an earlier batch of this producer was refused, so this one must wait for it: send both again")]
    AfterRejection,
}

impl SequenceError {
    /// The Kafka error code that a client gets.
    pub fn code(self) -> i16 {
        use kafka_protocol::error::ResponseError;
        match self {
            Self::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
            Self::OutOfOrder => ResponseError::OutOfOrderSequenceNumber,
            Self::Duplicate => ResponseError::DuplicateSequenceNumber,
            Self::UnknownProducer => ResponseError::UnknownProducerId,
            Self::AfterRejection => ResponseError::NotEnoughReplicas,
        }
        .code()
    }
}

/// Committed producer state and, on a leader, what it appended since.
#[derive(Debug, Clone, Default)]
pub struct Producers {
    table: ProducerTable,
    overlay: HashMap<i64, VecDeque<PendingBatch>>,
}

#[derive(Debug, Clone, Copy)]
struct PendingBatch {
    index: u64,
    batch: ProducerBatch,
}

impl Producers {
    /// State that starts from a checkpoint.
    pub fn new(table: ProducerTable) -> Self {
        Self { table, overlay: HashMap::new() }
    }

    /// What is committed.
    pub fn table(&self) -> &ProducerTable {
        &self.table
    }

    /// Decides about a batch. Nothing changes.
    pub fn decide(&self, claim: &SequenceClaim) -> Decision {
        let pending = self.overlay.get(&claim.producer_id);
        let committed = self.table.get(claim.producer_id);
        let last_pending = pending.and_then(VecDeque::back).map(|pending| &pending.batch);
        let Some(current_epoch) =
            last_pending.map(|batch| batch.epoch).or(committed.map(|state| state.epoch))
        else {
            return self.decide_unknown(claim);
        };
        if claim.epoch < current_epoch {
            return Decision::Reject(SequenceError::InvalidProducerEpoch);
        }
        if claim.epoch > current_epoch {
            return if claim.first_sequence == 0 { Decision::Append } else { gap(claim) };
        }
        if let Some(duplicate) = self.find_duplicate(claim) {
            return duplicate;
        }
        let Some(last) = last_pending.or_else(|| committed.and_then(ProducerState::last_batch)) else {
            // An unclean recovery has lost its batches: it may go on where it was.
            return if claim.after_rejection && claim.first_sequence != 0 {
                gap(claim)
            } else {
                Decision::Append
            };
        };
        if claim.first_sequence == add_sequence(last.last_sequence, 1) {
            return Decision::Append;
        }
        if self.was_appended_long_ago(claim) {
            Decision::Reject(SequenceError::Duplicate)
        } else {
            gap(claim)
        }
    }

    /// A producer id of which no batch is known. Kafka takes any sequence here; that lets a batch in whose
    /// predecessor was just refused, and the predecessor then never fits again. So a new producer starts at 0.
    fn decide_unknown(&self, claim: &SequenceClaim) -> Decision {
        if claim.first_sequence == 0 {
            Decision::Append
        } else if claim.after_rejection {
            gap(claim)
        } else if self.table.was_expired(claim.producer_id) {
            Decision::Append
        } else if self.table.forgot_expired() {
            Decision::Reject(SequenceError::UnknownProducer)
        } else {
            gap(claim)
        }
    }

    fn find_duplicate(&self, claim: &SequenceClaim) -> Option<Decision> {
        let same = |batch: &ProducerBatch| {
            (batch.epoch, batch.first_sequence, batch.last_sequence)
                == (claim.epoch, claim.first_sequence, claim.last_sequence())
        };
        let pending = self.overlay.get(&claim.producer_id).into_iter().flatten();
        if let Some(pending) = pending.rev().find(|pending| same(&pending.batch)) {
            return Some(Decision::DuplicatePending {
                index: pending.index,
                base_offset: pending.batch.base_offset,
                timestamp_ms: pending.batch.timestamp_ms,
            });
        }
        let state = self.table.get(claim.producer_id)?;
        state.batches().find(|batch| same(batch)).map(|batch| Decision::DuplicateCommitted {
            base_offset: batch.base_offset,
            timestamp_ms: batch.timestamp_ms,
        })
    }

    /// Whether the claim, which is of the current epoch, lies entirely in front of the batches that are remembered and
    /// within the unbroken run of sequences that was appended. Clients take the answer for success, so a sequence in
    /// front of that run (an expired producer went on in the middle) must not count.
    fn was_appended_long_ago(&self, claim: &SequenceClaim) -> bool {
        let committed = self.table.get(claim.producer_id).filter(|state| state.epoch == claim.epoch);
        let pending = self.overlay.get(&claim.producer_id).into_iter().flatten().map(|pending| pending.batch);
        let mut kept = committed.into_iter().flat_map(ProducerState::batches).chain(pending);
        let Some(oldest) = kept.find(|batch| batch.epoch == claim.epoch) else { return false };
        let run_start = committed.map_or(oldest.first_sequence, |state| state.run_start);
        is_before(claim.last_sequence(), oldest.first_sequence)
            && (run_start == 0 || !is_before(claim.first_sequence, run_start))
    }

    /// Notes a batch that the leader just appended in the entry at `index`. Indexes never go down.
    pub fn append_pending(&mut self, index: u64, batch: ProducerBatch) {
        self.overlay.entry(batch.producer_id).or_default().push_back(PendingBatch { index, batch });
    }

    /// Applies a committed entry with all its batches; an entry that was applied before changes nothing. `now_ms` is
    /// this replica's clock.
    pub fn commit(&mut self, index: u64, batches: &[ProducerBatch], now_ms: i64) {
        self.table.apply(index, batches, now_ms);
        for batch in batches {
            self.forget_pending(batch.producer_id, index);
        }
    }

    fn forget_pending(&mut self, producer_id: i64, through_index: u64) {
        if let Some(pending) = self.overlay.get_mut(&producer_id) {
            while pending.front().is_some_and(|first| first.index <= through_index) {
                pending.pop_front();
            }
            if pending.is_empty() {
                self.overlay.remove(&producer_id);
            }
        }
    }

    /// Leadership is lost: what was appended may never commit.
    pub fn drop_overlay(&mut self) {
        self.overlay.clear();
    }

    /// Producers of which nothing was applied here for `limit_ms` and nothing is pending, in ascending order. The leader
    /// proposes their removal; nobody removes them by his own clock.
    pub fn expired(&self, now_ms: i64, limit_ms: i64) -> Vec<i64> {
        let mut expired = self.table.expired(now_ms, limit_ms);
        expired.retain(|producer_id| !self.overlay.contains_key(producer_id));
        expired
    }

    /// Applies the committed decision at `index` to forget these producers. One that is in use again (something of it
    /// is pending) is forgotten all the same, on every replica alike; its pending batches are applied after this.
    pub fn remove(&mut self, index: u64, producer_ids: &[i64]) {
        self.table.remove(index, producer_ids);
    }
}

impl SequenceClaim {
    fn last_sequence(&self) -> i32 {
        add_sequence(self.first_sequence, self.record_count - 1)
    }
}

fn gap(claim: &SequenceClaim) -> Decision {
    Decision::Reject(if claim.after_rejection {
        SequenceError::AfterRejection
    } else {
        SequenceError::OutOfOrder
    })
}

/// Whether sequence `a` lies before `b` on the circle of sequences, by less than half of it.
fn is_before(a: i32, b: i32) -> bool {
    const HALF: i32 = 1 << 30;
    let distance = add_sequence(b, a.wrapping_neg());
    distance != 0 && distance < HALF
}

#[cfg(test)]
mod tests;
