//! The handle.

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::{AppendError, CloseError, OpenError, OutOfSpace, ReadError, ReclaimError};
use crate::options::{SpaceClass, WalOptions};
use crate::reader::ReadLimit;
use crate::recovered::Recovered;
use crate::record::{Bounds, Durability, Record, StoredRecord};
use crate::retention::ReclaimReport;
use crate::stats::WalStats;
use crate::types::{GroupId, Index, Offset, Term};

/// A log. Clones are handles to the same one.
#[derive(Clone)]
pub struct Wal {
    shared: Arc<()>,
}

/// The activities of a log, for those who drive them themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Writes what is queued.
    Writer,
    /// Syncs if somebody waits for it.
    Syncer,
    /// Syncs if anything is unsynced.
    BackgroundSync,
    /// Seals, prepares and recycles segments.
    Housekeeper,
}

impl Wal {
    /// Opens the log in `disk`, recovers what is there, and starts its threads.
    pub fn open(disk: Arc<dyn Disk>, options: WalOptions) -> Result<(Self, Recovered), OpenError> {
        let _ = (disk, options);
        todo!()
    }

    /// Like [`Wal::open`] without threads: things happen when [`Wal::step`] is called, and in `reclaim` and `close`.
    pub fn open_stepped(disk: Arc<dyn Disk>, options: WalOptions) -> Result<(Self, Recovered), OpenError> {
        let _ = (disk, options);
        todo!()
    }

    /// Does one turn of one part of a log opened with [`Wal::open_stepped`]. Whether there was anything to do.
    pub fn step(&self, part: Part) -> bool {
        let _ = part;
        todo!()
    }

    /// Queues records, of any groups and in order, as one unit. Never blocks. `done` runs on a thread of the log.
    pub fn append(
        &self,
        records: Vec<Record>,
        durability: Durability,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) {
        let _ = (records, durability, done, &self.shared);
        todo!()
    }

    /// Calls `done` once everything appended before this call is durable.
    pub fn sync(&self, done: impl FnOnce(Result<(), AppendError>) + Send + 'static) {
        let _ = done;
        todo!()
    }

    /// Whether `bytes` more can be stored. Cheap; to be asked before an entry leaves the node.
    pub fn check_space(&self, bytes: u64, class: SpaceClass) -> Result<(), OutOfSpace> {
        let _ = (bytes, class);
        todo!()
    }

    /// The extent of a group's log, as written so far.
    #[must_use]
    pub fn bounds(&self, group: GroupId) -> Option<Bounds> {
        let _ = group;
        todo!()
    }

    /// Entries from `from` on, without gaps; at least one if it exists, whatever its size. Blocks on the disk.
    pub fn read(&self, group: GroupId, from: Index, limit: ReadLimit) -> Result<Vec<StoredRecord>, ReadError> {
        let _ = (group, from, limit);
        todo!()
    }

    /// The term of the entry at `index`, or of the start of the log if it begins there; `None` outside the log.
    pub fn term_at(&self, group: GroupId, index: Index) -> Result<Option<Term>, ReadError> {
        let _ = (group, index);
        todo!()
    }

    /// The first entry that ends above `offset`; `None` if the log ends below.
    pub fn index_at_offset(&self, group: GroupId, offset: Offset) -> Result<Option<Index>, ReadError> {
        let _ = (group, offset);
        todo!()
    }

    /// The first entry with offsets whose largest timestamp is not below `timestamp_ms`.
    pub fn index_at_timestamp(&self, group: GroupId, timestamp_ms: i64) -> Result<Option<Index>, ReadError> {
        let _ = (group, timestamp_ms);
        todo!()
    }

    /// The first entry with offsets that has the largest timestamp of all.
    pub fn index_of_max_timestamp(&self, group: GroupId) -> Result<Option<Index>, ReadError> {
        let _ = group;
        todo!()
    }

    /// Gives back the space of what is superseded. Segments that are mostly dead are rewritten if all that lives in them
    /// is committed; `committed` says up to which index. Blocks on the disk.
    pub fn reclaim(&self, committed: &dyn Fn(GroupId) -> Index) -> Result<ReclaimReport, ReclaimError> {
        let _ = committed;
        todo!()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        todo!()
    }

    /// Writes and syncs what is queued, seals the last segment and ends the threads. Later appends fail.
    pub fn close(&self) -> Result<(), CloseError> {
        todo!()
    }
}
