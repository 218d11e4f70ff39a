//! The decision point of the write path: sequence checks, offsets and the leader epoch, once, before anything is replicated.
//!
//! Nothing can fail after this: what enters an entry is appended as it is. A bad batch is answered alone.

use bytes::Bytes;
use helix_raft::planted;
use helix_raft::{Index, Term};
use helix_wal::{Offset, Payload};
use tokio::time::Instant;

use super::producers::{Decision, ProducerBatch, SequenceClaim};
use super::{Partition, PendingEntry};
use crate::broker::batch::{BatchHeader, ValidBatch};
use crate::broker::produce::{Acks, AppendError, AppendReply, AppendRequest, Appended};
use crate::entry::{Command, EntryTag};
use crate::partition::view::PendingBytes;

/// Someone who waits for an entry to be decided.
#[derive(Debug)]
pub struct Waiting {
    reply: AppendReply,
    acks: Acks,
    appended: Appended,
    _pending: PendingBytes,
}

/// An entry that is ready to be proposed, and those who wait for it.
#[derive(Debug)]
pub struct Prepared {
    /// What is replicated.
    pub command: Command,
    waiting: Vec<Waiting>,
    /// Number of produce batches in it.
    pub batches: usize,
}

/// An entry under construction.
struct Building {
    index: Index,
    epoch: Term,
    base_offset: i64,
    next_offset: i64,
    max_timestamp_ms: i64,
    chunks: Vec<Bytes>,
    waiting: Vec<Waiting>,
    batches: usize,
    /// Batches were refused lately, so a gap in a sequence may come from that.
    after_refusal: bool,
}

impl Partition {
    /// Makes the gathered batches one entry, to be proposed at `index` in `term`, its first record at `next_offset`. `None` when
    /// none of them is to be appended. Everyone who is not in the entry has been answered, or waits for an earlier one.
    ///
    /// The caller proposes the entry at exactly that place and reports it with [`Self::proposed`].
    pub fn prepare(
        &mut self,
        index: Index,
        term: Term,
        next_offset: Offset,
        now: Instant,
    ) -> Option<Prepared> {
        let requests = self.batcher.take(|request| request.batch.total_bytes(), now);
        let mut entry = Building {
            index,
            epoch: term,
            base_offset: next_offset.0 as i64,
            next_offset: next_offset.0 as i64,
            max_timestamp_ms: -1,
            chunks: Vec::with_capacity(requests.len() * 2),
            waiting: Vec::with_capacity(requests.len()),
            batches: 0,
            after_refusal: self.view.refused_lately(now),
        };
        for request in requests {
            match self.refusal(request.acks) {
                Some(error) => {
                    self.view.note_refusal(now);
                    request.reply.send(Err(error));
                }
                None => self.decide(request, &mut entry, now),
            }
        }
        (entry.batches > 0).then(|| entry.finish())
    }

    /// The prepared entry was appended to the log.
    pub fn proposed(&mut self, index: Index, term: Term, waiting: Vec<Waiting>) {
        self.pending.push_back(PendingEntry { index, term, waiting });
    }

    /// Answers everything that is gathered with an error; nothing of it was appended.
    pub fn refuse_gathered(&mut self, error: &AppendError, now: Instant) {
        self.view.note_refusal(now);
        for request in self.batcher.drain() {
            request.reply.send(Err(error.clone()));
        }
    }

    /// As in Kafka, who does not wait for the replicas does not care how many there are.
    fn refusal(&self, acks: Acks) -> Option<AppendError> {
        if self.serving.is_none() {
            return Some(AppendError::NotLeader);
        }
        if acks != Acks::All {
            return None;
        }
        let (in_sync, required) = (self.view.in_sync(), self.view.config().min_insync_replicas);
        (in_sync < required).then_some(AppendError::NotEnoughReplicas { in_sync, required })
    }

    fn decide(&mut self, request: AppendRequest, entry: &mut Building, now: Instant) {
        let header = *request.batch.header();
        if request.leader_epoch.is_some_and(|epoch| epoch != entry.epoch.0 as i32) {
            request.reply.send(Err(AppendError::NotLeader));
            return;
        }
        if !entry.has_room_for(&header) {
            // Only batches that claim absurd numbers of records get here. Nothing of this one is appended: send it again.
            self.view.note_refusal(now);
            request.reply.send(Err(AppendError::Overloaded));
            return;
        }
        if !header.has_producer_id() {
            self.take(request, &header, entry);
            return;
        }
        let claim = SequenceClaim {
            producer_id: header.producer_id,
            epoch: header.producer_epoch,
            first_sequence: header.base_sequence,
            record_count: header.record_count,
            after_rejection: request.after_rejection || entry.after_refusal,
        };
        match self.producers.decide(&claim) {
            Decision::Append => {
                if let Some(batch) = ProducerBatch::from_header(&header, entry.next_offset) {
                    self.producers.append_pending(entry.index.0, batch);
                }
                self.take(request, &header, entry);
            }
            Decision::DuplicateCommitted { base_offset, timestamp_ms } => {
                request.reply.send(Ok(self.appended(&header, base_offset, timestamp_ms)));
            }
            Decision::DuplicatePending { index, base_offset, timestamp_ms } => {
                let appended = self.appended(&header, base_offset, timestamp_ms);
                let waiting = waiting(request, appended);
                if index == entry.index.0 {
                    entry.waiting.push(waiting);
                } else if let Some(pending) = self.pending.iter_mut().find(|p| p.index.0 == index) {
                    pending.waiting.push(waiting);
                }
                // Otherwise the entry is not this leadership's: dropping the reply says so.
            }
            Decision::Reject(error) => request.reply.send(Err(AppendError::Sequence(error))),
        }
    }

    fn take(&self, request: AppendRequest, header: &BatchHeader, entry: &mut Building) {
        let appended = self.appended(header, entry.next_offset, header.max_timestamp_ms);
        entry.push(&request.batch);
        entry.waiting.push(waiting(request, appended));
    }

    fn appended(&self, header: &BatchHeader, base_offset: i64, timestamp_ms: i64) -> Appended {
        Appended {
            base_offset,
            log_append_time_ms: if header.has_log_append_time() { timestamp_ms } else { -1 },
            log_start_offset: self.view.log_start(),
        }
    }
}

fn waiting(request: AppendRequest, appended: Appended) -> Waiting {
    Waiting { reply: request.reply, acks: request.acks, appended, _pending: request.pending }
}

impl Building {
    /// Whether the number of offsets still fits the entry's field with this batch.
    fn has_room_for(&self, header: &BatchHeader) -> bool {
        let next_offset = self.next_offset + i64::from(header.last_offset_delta) + 1;
        u32::try_from(next_offset - self.base_offset).is_ok()
    }

    fn push(&mut self, batch: &ValidBatch) {
        let header = batch.header();
        let epoch = if planted("epoch-not-patched") { -1 } else { self.epoch.0 as i32 };
        self.chunks.extend(batch.chunks(self.next_offset, epoch));
        self.next_offset += i64::from(header.last_offset_delta) + 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(header.max_timestamp_ms);
        self.batches += 1;
    }

    fn finish(self) -> Prepared {
        let command = Command {
            tag: EntryTag::Data,
            base_offset: Offset(self.base_offset as u64),
            offset_count: (self.next_offset - self.base_offset) as u32,
            max_timestamp_ms: self.max_timestamp_ms,
            payload: Payload::from_chunks(self.chunks),
        };
        Prepared { command, waiting: self.waiting, batches: self.batches }
    }
}

impl Prepared {
    /// Splits the entry from those who wait for it.
    pub fn into_parts(self) -> (Command, Vec<Waiting>) {
        (self.command, self.waiting)
    }
}

impl PendingEntry {
    /// Committed: everyone who still waits gets the answer.
    pub(super) fn answer(self) {
        for waiting in self.waiting {
            waiting.reply.send(Ok(waiting.appended));
        }
    }

    /// Stored on the leader: those who asked for no more get the answer.
    pub(super) fn answer_acks_one(&mut self) {
        let all = std::mem::take(&mut self.waiting);
        for waiting in all {
            if waiting.acks == Acks::All {
                self.waiting.push(waiting);
            } else {
                waiting.reply.send(Ok(waiting.appended));
            }
        }
    }
}

#[cfg(test)]
mod tests;
