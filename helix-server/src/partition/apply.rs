//! The commit path of a partition: what a committed entry changes, on leader and follower alike.

use helix_raft::{Index, Term};
use tracing::error;

use super::producers::ProducerBatch;
use super::retention;
use super::view::TailEntry;
use super::{Partition, slices};
use crate::broker::batch::{BATCH_HEADER_BYTES, BatchHeader};
use crate::entry::{Command, EntryTag};

/// What the owner has to do after an entry was applied.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Bytes that now lie in the partition's memory tail.
    pub tail_bytes: usize,
    /// The log starts later now: at this offset.
    pub new_log_start: Option<i64>,
}

impl Partition {
    /// Applies a committed command.
    pub fn apply(&mut self, index: Index, term: Term, command: &Command, now_ms: i64) -> Applied {
        let mut applied = Applied::default();
        match command.tag {
            EntryTag::Data => applied.tail_bytes = self.apply_data(index, term, command, now_ms),
            EntryTag::LogStart => applied.new_log_start = self.apply_log_start(command),
            EntryTag::ProducerExpiry => {
                self.producers.remove(index.0, &retention::decode_expiry(&command.payload.to_bytes()));
            }
            EntryTag::NoOp | EntryTag::Metadata | EntryTag::Membership => {
                error!(group = %self.view.group, %index, tag = ?command.tag, "an entry that no partition has was skipped");
            }
        }
        self.finish(index, term);
        applied
    }

    /// Applies an entry that carries nothing for the partition: the first one of a term, or a change of its replicas.
    pub fn apply_bare(&mut self, index: Index, term: Term) {
        // As in Kafka, an epoch begins where its leader began, even before its first record.
        self.note_epoch(term, self.view.high_watermark());
        self.finish(index, term);
    }

    fn finish(&mut self, index: Index, term: Term) {
        self.applied = index;
        self.view.set_applied_index(index.0);
        while self.pending.front().is_some_and(|entry| entry.index <= index) {
            // An entry of another term took the place of the one that was waited for: that one is lost, and
            // dropping it unanswered says that another replica leads.
            if let Some(entry) =
                self.pending.pop_front().filter(|entry| entry.index == index && entry.term == term)
            {
                entry.answer();
            }
        }
        self.answer_starts(index, term);
    }

    fn apply_data(&mut self, index: Index, term: Term, command: &Command, now_ms: i64) -> usize {
        let batches: Vec<ProducerBatch> = slices::headers::<BATCH_HEADER_BYTES>(&command.payload)
            .filter_map(|bytes| BatchHeader::parse(&bytes).ok())
            .filter_map(|header| ProducerBatch::from_header(&header, header.base_offset))
            .collect();
        self.producers.commit(index.0, &batches, now_ms);
        let base_offset = command.base_offset.0 as i64;
        self.note_epoch(term, base_offset);
        let tail = TailEntry {
            base_offset,
            next_offset: base_offset + i64::from(command.offset_count),
            payload: command.payload.clone(),
        };
        let bytes = tail.payload.len();
        self.view.commit(tail);
        bytes
    }

    fn note_epoch(&mut self, term: Term, offset: i64) {
        if self.epochs.assign(term.0 as i32, offset) {
            self.view.set_epochs(self.epochs.clone());
        }
    }

    fn apply_log_start(&mut self, command: &Command) -> Option<i64> {
        let wanted = retention::decode_log_start(&command.payload.to_bytes())?;
        let log_start = wanted.min(self.view.high_watermark());
        if log_start <= self.view.log_start() {
            return None;
        }
        self.epochs.truncate_from_start(log_start);
        self.view.set_epochs(self.epochs.clone());
        self.view.set_log_start(log_start);
        Some(log_start)
    }
}
