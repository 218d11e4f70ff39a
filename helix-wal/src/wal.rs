//! The handle: opens a log, runs its threads, passes calls on.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use crate::disk::{Disk, is_out_of_space};
use crate::error::{AppendError, CloseError, OpenError, OutOfSpace, ReadError, ReclaimError, RepairError};
use crate::housekeeper;
use crate::options::{SpaceClass, WalOptions};
use crate::reader::{self, ReadLimit};
use crate::record::{Bounds, Durability, Record, StoredRecord};
use crate::recovered::{DamagedRange, Recovered};
use crate::recovery::recover;
use crate::repair;
use crate::retention::{self, ReclaimReport};
use crate::shared::{Command, Shared, Unit};
use crate::stats::WalStats;
use crate::syncer;
use crate::types::{GroupId, Index, Offset, Term};
use crate::writer::{self, Writer};

/// Segments smaller than this would be more header than data.
const MIN_SEGMENT_BYTES: u64 = 4096;

/// How much room the file system of a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What is not taken, in bytes.
    pub free_bytes: u64,
}

/// A log. Clones are handles to the same one.
///
/// When the last handle goes without [`Wal::close`], the log stops as if the process had died: what was written is there,
/// what was queued may not be.
#[derive(Clone)]
pub struct Wal {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    engine: Engine,
}

/// Who does the work.
enum Engine {
    Threads(Mutex<Option<Threads>>),
    /// The caller, step by step.
    Stepped(Box<Mutex<Writer>>),
}

struct Threads {
    writer: JoinHandle<()>,
    syncer: JoinHandle<()>,
    housekeeper: JoinHandle<()>,
    preparer: JoinHandle<()>,
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
        let (shared, writer, recovered) = open_shared(disk, options)?;
        let threads = Threads::start(&shared, writer)
            .map_err(|source| OpenError::Io { operation: "starting the log's threads".to_owned(), source })?;
        let engine = Engine::Threads(Mutex::new(Some(threads)));
        Ok((Self { handle: Arc::new(Handle { shared, engine }) }, recovered))
    }

    /// Like [`Wal::open`] without threads: things happen when [`Wal::step`] is called, and in `sync_now`, `reclaim` and
    /// `close`. [`WalOptions::on_work`] tells when there is something to do.
    pub fn open_stepped(disk: Arc<dyn Disk>, options: WalOptions) -> Result<(Self, Recovered), OpenError> {
        let (shared, writer, recovered) = open_shared(disk, options)?;
        let engine = Engine::Stepped(Box::new(Mutex::new(writer)));
        Ok((Self { handle: Arc::new(Handle { shared, engine }) }, recovered))
    }

    /// Does one turn of one part of a log opened with [`Wal::open_stepped`]. Whether there was anything to do.
    pub fn step(&self, part: Part) -> bool {
        let Engine::Stepped(writer) = &self.handle.engine else { return false };
        match part {
            Part::Writer => writer.lock().step(),
            Part::Syncer => syncer::step(self.shared(), false),
            Part::BackgroundSync => syncer::step(self.shared(), true),
            Part::Housekeeper => housekeeper::step(self.shared()),
        }
    }

    /// Steps all parts of a log opened with [`Wal::open_stepped`] until none has anything to do.
    pub fn step_until_idle(&self) {
        while [Part::Writer, Part::Syncer, Part::Housekeeper].map(|part| self.step(part)).contains(&true) {}
    }

    /// Queues records, of any groups and in order, as one unit. Never blocks, and never refuses for the length of the queue:
    /// to bound what is in flight is the caller's. `done` runs on a thread of the log once all of
    /// them are stored that durably; on an error the first of them may be stored nevertheless.
    pub fn append(
        &self,
        records: Vec<Record>,
        durability: Durability,
        done: impl FnOnce(Result<(), AppendError>) + Send + 'static,
    ) {
        let payload_bytes = records.iter().map(|record| record.payload.len() as u64).sum();
        self.enqueue(Unit { records, durability, done: Box::new(done), payload_bytes });
    }

    /// Calls `done` once everything appended before this call is durable.
    pub fn sync(&self, done: impl FnOnce(Result<(), AppendError>) + Send + 'static) {
        self.append(Vec::new(), Durability::Synced, done);
    }

    fn enqueue(&self, unit: Unit) {
        if let Err(Command::Append(unit)) = self.shared().enqueue(Command::Append(unit)) {
            self.shared().stats.appends_failed.add(1);
            (unit.done)(Err(self.shared().stop_reason()));
        }
    }

    /// Whether `bytes` more can be stored. Cheap; to be asked before an entry leaves the node. A refusal has the file system
    /// asked anew, because whoever is refused appends nothing, and only appending would show that there is space again.
    pub fn check_space(&self, bytes: u64, class: SpaceClass) -> Result<(), OutOfSpace> {
        let options = &self.shared().options;
        let outcome = self.shared().space.check(bytes, class, options.segment_bytes, options.reserve_bytes);
        if outcome.is_err() {
            self.shared().refresh_space_soon();
        }
        outcome
    }

    /// How large the file system is, and what of it is still to be had. Asks the operating system.
    pub fn disk_space(&self) -> std::io::Result<DiskSpace> {
        let disk = &self.shared().disk;
        Ok(DiskSpace { total_bytes: disk.total_bytes()?, free_bytes: disk.free_bytes()? })
    }

    /// The extent of a group's log, as written so far.
    #[must_use]
    pub fn bounds(&self, group: GroupId) -> Option<Bounds> {
        self.shared().index.read().groups.get(&group).map(crate::index::GroupLog::bounds)
    }

    /// Entries from `from` on, without gaps; at least one if it exists, whatever its size. Empty above the last one. Blocks
    /// on the disk.
    pub fn read(
        &self,
        group: GroupId,
        from: Index,
        limit: ReadLimit,
    ) -> Result<Vec<StoredRecord>, ReadError> {
        reader::read(self.shared(), group, from, limit)
    }

    /// The term of the entry at `index`, or of the start of the log if it begins there; `None` outside the log.
    pub fn term_at(&self, group: GroupId, index: Index) -> Result<Option<Term>, ReadError> {
        reader::term_at(self.shared(), group, index)
    }

    /// The first entry that ends above `offset`; `None` if the log ends below.
    pub fn index_at_offset(&self, group: GroupId, offset: Offset) -> Result<Option<Index>, ReadError> {
        reader::index_at_offset(self.shared(), group, offset)
    }

    /// The first entry from `from` on that has offsets and whose largest timestamp is not below `timestamp_ms`.
    pub fn index_at_timestamp(
        &self,
        group: GroupId,
        from: Index,
        timestamp_ms: i64,
    ) -> Result<Option<Index>, ReadError> {
        reader::index_at_timestamp(self.shared(), group, from, timestamp_ms)
    }

    /// The first entry with offsets that is not older than `oldest_ms`, by its largest timestamp or, if it has none, by when it was
    /// appended (see [`without_timestamps`](crate::without_timestamps)).
    pub fn index_written_since(&self, group: GroupId, oldest_ms: i64) -> Result<Option<Index>, ReadError> {
        reader::index_written_since(self.shared(), group, oldest_ms)
    }

    /// The first entry that has the largest timestamp of all with offsets below `end`.
    pub fn index_of_max_timestamp(&self, group: GroupId, end: Offset) -> Result<Option<Index>, ReadError> {
        reader::index_of_max_timestamp(self.shared(), group, end)
    }

    /// Where the log of the group could begin so that at least its newest `bytes` are kept; `None` if that is all of it. Counts
    /// whole segments, so that nothing has to be read.
    pub fn index_keeping(&self, group: GroupId, bytes: u64) -> Result<Option<Index>, ReadError> {
        reader::index_keeping(self.shared(), group, bytes)
    }

    /// Gives back the space of what is superseded. Segments that are mostly dead are rewritten if all that lives in them
    /// is committed; `committed` says up to which index. Blocks on the disk; must not be called from a completion.
    pub fn reclaim(&self, committed: &dyn Fn(GroupId) -> Index) -> Result<ReclaimReport, ReclaimError> {
        self.reclaim_some(committed, u64::MAX)
    }

    /// As [`Wal::reclaim`], a part at a time: files of at most `allowed_bytes` go, but one at least. Where many files go at once, whoever
    /// writes has to wait until the file system is done with it. [`ReclaimReport::unfinished`] says whether there is more.
    pub fn reclaim_some(
        &self,
        committed: &dyn Fn(GroupId) -> Index,
        allowed_bytes: u64,
    ) -> Result<ReclaimReport, ReclaimError> {
        retention::reclaim(self.shared(), committed, &|| self.sync_now(), allowed_bytes)
    }

    /// The damaged entries of a group from `from` on, through the end of what is there in one segment, or of a hole. Reads all of
    /// that; blocks on the disk.
    pub fn find_damage(&self, group: GroupId, from: Index) -> Result<Vec<DamagedRange>, ReadError> {
        repair::find(self.shared(), group, from)
    }

    /// Puts back damaged entries: consecutive ones of a group, as another replica has them. Those that are whole here are passed
    /// over. The last one must be the last of its damaged range, or be followed by one that is whole: terms prove that they are what
    /// was there. Returns how many were written, durably. Blocks on the disk; must not be called from a completion.
    pub fn repair(&self, entries: &[Record]) -> Result<u64, RepairError> {
        repair::repair(self.shared(), entries, &|| self.sync_now())
    }

    /// Waits until everything appended before this call is durable. Blocks on the disk; must not be called from a completion.
    pub fn sync_now(&self) -> Result<(), AppendError> {
        let (done, outcome) = mpsc::channel();
        self.sync(move |result| {
            // The receiver is gone only if this very function was left.
            let _ = done.send(result);
        });
        if matches!(self.handle.engine, Engine::Stepped(_)) {
            self.step_until_idle();
        }
        outcome.recv().unwrap_or(Err(AppendError::Closed))
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> WalStats {
        let mut stats = self.shared().stats.snapshot();
        {
            let index = self.shared().index.read();
            stats.segments = index.segments.len() as u64;
            stats.disk_bytes = index.segments.values().map(|entry| entry.file_bytes).sum();
        }
        stats.disk_bytes += self.shared().spare_bytes();
        stats
    }

    /// Writes and syncs what is queued, seals the last segment and ends the threads. Later appends fail, reads still work.
    /// Must not be called from a completion.
    pub fn close(&self) -> Result<(), CloseError> {
        let shared = self.shared();
        // If somebody else has closed it already, there is nothing left to queue.
        let _ = shared.enqueue(Command::Close);
        match &self.handle.engine {
            Engine::Stepped(_) => self.step_until_idle(),
            Engine::Threads(threads) => {
                let threads = threads.lock().take();
                if let Some(threads) = threads {
                    threads.end(shared);
                }
            }
        }
        shared.release_lock();
        shared.failure().map_or(Ok(()), |error| Err(CloseError::Failed(error.clone())))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

impl Threads {
    fn start(shared: &Arc<Shared>, writer: Writer) -> std::io::Result<Self> {
        let named = |name: &str| thread::Builder::new().name(name.to_owned());
        let for_syncer = Arc::clone(shared);
        let (for_housekeeper, for_preparer) = (Arc::clone(shared), Arc::clone(shared));
        Ok(Self {
            writer: named("wal-writer").spawn(move || writer::run(writer))?,
            syncer: named("wal-syncer").spawn(move || syncer::run(&for_syncer))?,
            housekeeper: named("wal-keeper").spawn(move || housekeeper::run(&for_housekeeper))?,
            preparer: named("wal-preparer").spawn(move || housekeeper::run_preparer(&for_preparer))?,
        })
    }

    /// Ends the threads in the order in which they hand things to each other.
    fn end(self, shared: &Shared) {
        join(self.writer);
        shared.stop_syncer();
        join(self.syncer);
        shared.stop_housekeeper();
        join(self.housekeeper);
        join(self.preparer);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the log panicked");
    }
}

fn open_shared(
    disk: Arc<dyn Disk>,
    options: WalOptions,
) -> Result<(Arc<Shared>, Writer, Recovered), OpenError> {
    if options.segment_bytes < MIN_SEGMENT_BYTES {
        return Err(OpenError::Options(format!("segment_bytes must be at least {MIN_SEGMENT_BYTES}")));
    }
    let (foundation, recovered) = recover(&*disk, &options)?;
    let (last_lsn, previous) = (foundation.last_lsn, foundation.previous);
    let shared = Arc::new(Shared::new(disk, options, foundation));
    match housekeeper::prepare(&shared) {
        Ok(segment) => shared.put_next(Some(segment)),
        // Reading works all the same, and so does writing once there is space.
        Err(error) if is_out_of_space(&error) => {}
        Err(source) => {
            return Err(OpenError::Io { operation: "preparing a segment".to_owned(), source });
        }
    }
    shared.space.refresh(&*shared.disk);
    let writer = Writer::new(Arc::clone(&shared), last_lsn, previous);
    Ok((shared, writer, recovered))
}
