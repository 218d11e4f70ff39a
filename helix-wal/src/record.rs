//! What is appended and what is read back.

use crate::payload::Payload;
use crate::types::{GroupId, Index, Lsn, Offset, Term};

/// What a record does to its group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// One entry of the log. Supersedes all earlier records of its group with an index at or above its own.
    Entry {
        /// Of the user; stored and handed back, never looked at.
        tag: u8,
    },
    /// The log begins after this record's index, with its term and, as `base_offset`, the next offset. Supersedes
    /// everything of its group up to that index, and everything at all if the log does not contain (index, term). At index 0
    /// it begins the log anew: nothing is kept.
    Start,
    /// State of the user as of this record's index. Supersedes only the group's earlier checkpoints; superseded, like all
    /// earlier records, by an entry at or below its index.
    Checkpoint,
    /// The group is gone for good.
    Delete,
}

/// One record, as the user hands it over.
///
/// The log relies on what Raft calls log matching: two entries of a group with the same index and term are the same
/// entry and have the same entries before them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The log it belongs to.
    pub group: GroupId,
    /// What it does.
    pub kind: RecordKind,
    /// Its place in the group's log. Entries must follow the last one or replace an existing one.
    pub index: Index,
    /// The term of the entry at `index`.
    pub term: Term,
    /// The term of the entry before; recovery ends a group where this does not match.
    pub prev_term: Term,
    /// First offset covered; of a [`RecordKind::Start`] the next offset to be given.
    pub base_offset: Offset,
    /// How many offsets are covered; zero for entries that consumers do not see.
    pub offset_count: u32,
    /// The largest timestamp among what is covered; below -1 if nothing there has one, see [`without_timestamps`].
    pub max_timestamp_ms: i64,
    /// The bytes.
    pub payload: Payload,
}

/// What stands for the largest timestamp of an entry whose records have none: no timestamp that is looked for, and yet when it was
/// appended, in milliseconds since 1970, so that retention knows how old it is.
#[must_use]
pub fn without_timestamps(appended_ms: i64) -> i64 {
    -2 - appended_ms.max(0)
}

/// The age of an entry with this largest timestamp: that, or when it was appended if there is none.
pub(crate) fn written_ms(max_timestamp_ms: i64) -> i64 {
    if max_timestamp_ms < -1 { -2 - max_timestamp_ms } else { max_timestamp_ms }
}

impl Record {
    /// The offset after the last one covered.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(u64::from(self.offset_count)))
    }
}

/// A record as reads and recovery give it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The record.
    pub record: Record,
    /// When it was first written, relative to all others.
    pub lsn: Lsn,
}

/// How far a record must have come before its completion runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// Written to the page cache: survives the process.
    PageCache,
    /// Synced to the device: survives the machine.
    Synced,
}

/// The extent of a group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The log begins after this index.
    pub start_index: Index,
    /// The term at `start_index`.
    pub start_term: Term,
    /// The offset at which the log begins.
    pub start_offset: Offset,
    /// The last entry, or `start_index` if there is none.
    pub last_index: Index,
    /// The term at `last_index`.
    pub last_term: Term,
    /// The offset after the last one.
    pub next_offset: Offset,
    /// Bytes that the live entries occupy. An estimate where a sealed segment is live only in part.
    pub bytes: u64,
}
