//! What the writer, the syncer, the housekeeper and the readers share, and how they hand things to each other.
//!
//! Every lock here is held for moments and never across IO.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use crate::cache::FooterCache;
use crate::disk::{Disk, DiskLock};
use crate::error::{AppendError, FatalError};
use crate::index::Index;
use crate::options::WalOptions;
use crate::record::{Durability, Record};
use crate::residency::Residency;
use crate::segment::Segment;
use crate::space::Space;
use crate::stats::Stats;
use crate::types::{Lsn, SegmentId};
use crate::wal::Part;

pub(crate) type Done = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

/// Records that were appended together.
pub(crate) struct Unit {
    pub(crate) records: Vec<Record>,
    pub(crate) durability: Durability,
    pub(crate) done: Done,
    pub(crate) payload_bytes: u64,
}

/// What the writer is asked to do.
pub(crate) enum Command {
    Append(Unit),
    /// Write down how far the log is synced.
    Mark,
    /// Write what came before, then no more, and have the last segment sealed.
    Close,
}

#[derive(Default)]
struct Queue {
    commands: VecDeque<Command>,
    closed: bool,
}

/// What the housekeeper is asked to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// Write the footer: the frames end there and are durable.
    Seal {
        segment: Arc<Segment>,
        data_end: u64,
    },
    /// Have a segment ready for the writer.
    Prepare,
    Writeback {
        segment: Arc<Segment>,
        position: u64,
        len: u64,
    },
    RefreshSpace,
}

#[derive(Default)]
struct Jobs {
    pending: VecDeque<Job>,
    stop: bool,
}

struct SyncWaiter {
    lsn: Lsn,
    done: Done,
}

struct DirtySegment {
    segment: Arc<Segment>,
    last_lsn: Lsn,
}

#[derive(Default)]
struct SyncQueue {
    written_lsn: Lsn,
    dirty: Vec<DirtySegment>,
    waiters: Vec<SyncWaiter>,
    /// Bytes of records since the sync that covers everything before.
    dirty_bytes: u64,
    /// The synced position should be written down once the log is idle.
    mark_due: bool,
    stop: bool,
}

/// What one round of syncing covers.
pub(crate) struct SyncRound {
    pub(crate) segments: Vec<Arc<Segment>>,
    target: Lsn,
    bytes: u64,
}

/// The segments that the writer takes next, in the order of their numbers.
#[derive(Default)]
struct NextSegments {
    ready: VecDeque<Arc<Segment>>,
    /// Somebody is preparing the one behind them.
    preparing: bool,
}

/// A retired file.
pub(crate) struct SpareFile {
    pub(crate) id: SegmentId,
    pub(crate) bytes: u64,
}

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: WalOptions,
    pub(crate) index: RwLock<Index>,
    pub(crate) footers: FooterCache,
    pub(crate) residency: Residency,
    pub(crate) space: Space,
    pub(crate) stats: Stats,
    pub(crate) spares: Mutex<Vec<SpareFile>>,
    pub(crate) reclaiming: AtomicBool,
    /// Segments that are dead, and what supersedes them is durable: they may go at any time.
    pub(crate) condemned: Mutex<VecDeque<SegmentId>>,
    next: Mutex<NextSegments>,
    next_changed: Condvar,
    next_segment_id: AtomicU64,
    synced_lsn: AtomicU64,
    queue: Mutex<Queue>,
    queue_changed: Condvar,
    sync: Mutex<SyncQueue>,
    sync_changed: Condvar,
    jobs: Mutex<Jobs>,
    jobs_changed: Condvar,
    failure: OnceLock<FatalError>,
    lock: Mutex<Option<DiskLock>>,
}

/// What recovery hands to the running log.
pub(crate) struct Foundation {
    pub(crate) index: Index,
    pub(crate) spares: Vec<SpareFile>,
    pub(crate) next_segment: SegmentId,
    pub(crate) last_lsn: Lsn,
    /// The segment that was written to last, and where its frames end.
    pub(crate) previous: (SegmentId, u64),
    pub(crate) lock: DiskLock,
}

impl Shared {
    pub(crate) fn new(disk: Arc<dyn Disk>, options: WalOptions, foundation: Foundation) -> Self {
        let shared = Self {
            footers: FooterCache::new(options.footer_cache_bytes),
            residency: Residency::new(options.page_cache_bytes),
            disk,
            options,
            index: RwLock::new(foundation.index),
            space: Space::default(),
            stats: Stats::default(),
            spares: Mutex::new(foundation.spares),
            reclaiming: AtomicBool::new(false),
            condemned: Mutex::default(),
            next: Mutex::default(),
            next_changed: Condvar::new(),
            next_segment_id: AtomicU64::new(foundation.next_segment.0),
            synced_lsn: AtomicU64::new(foundation.last_lsn.0),
            queue: Mutex::default(),
            queue_changed: Condvar::new(),
            sync: Mutex::new(SyncQueue { written_lsn: foundation.last_lsn, ..SyncQueue::default() }),
            sync_changed: Condvar::new(),
            jobs: Mutex::default(),
            jobs_changed: Condvar::new(),
            failure: OnceLock::new(),
            lock: Mutex::new(Some(foundation.lock)),
        };
        shared.space.refresh(&*shared.disk);
        shared.count_spares();
        shared
    }

    pub(crate) fn allocate_segment_id(&self) -> SegmentId {
        SegmentId(self.next_segment_id.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn synced_lsn(&self) -> Lsn {
        Lsn(self.synced_lsn.load(Ordering::Acquire))
    }

    pub(crate) fn release_lock(&self) {
        drop(self.lock.lock().take());
    }

    // ---- failure ----

    pub(crate) fn failure(&self) -> Option<&FatalError> {
        self.failure.get()
    }

    /// Stops the log. Only the first failure counts; whoever waits for a sync is told.
    pub(crate) fn fail(&self, error: &FatalError) {
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!(%error, "the log stopped");
            (self.options.on_fatal)(error);
        }
        self.fail_waiters();
        self.next_changed.notify_all();
    }

    fn fail_waiters(&self) {
        let waiters = std::mem::take(&mut self.sync.lock().waiters);
        for waiter in waiters {
            (waiter.done)(Err(self.stop_reason()));
        }
    }

    /// Why nothing can be appended any more.
    pub(crate) fn stop_reason(&self) -> AppendError {
        self.failure().map_or(AppendError::Closed, |error| AppendError::Failed(error.clone()))
    }

    /// Threads wait for their condition variables; whoever steps the log is told.
    fn tell_stepper(&self, part: Part) {
        if let Some(on_work) = &self.options.on_work {
            on_work(part);
        }
    }

    // ---- appenders -> writer ----

    /// Gives the command back if the log is closed.
    pub(crate) fn enqueue(&self, command: Command) -> Result<(), Command> {
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(command);
            }
            if let Command::Append(unit) = &command {
                self.stats.queue_bytes.add(unit.payload_bytes);
                self.stats.queue_units.add(1);
                self.space.queued_bytes.add(unit.payload_bytes);
            }
            queue.closed = matches!(command, Command::Close);
            queue.commands.push_back(command);
        }
        self.queue_changed.notify_one();
        self.tell_stepper(Part::Writer);
        Ok(())
    }

    /// Everything that is queued, or nothing.
    pub(crate) fn take_commands(&self) -> VecDeque<Command> {
        std::mem::take(&mut self.queue.lock().commands)
    }

    /// Everything that is queued; waits for something. `None` once the log is abandoned.
    pub(crate) fn wait_commands(&self) -> Option<VecDeque<Command>> {
        let mut queue = self.queue.lock();
        while queue.commands.is_empty() {
            if queue.closed {
                return None;
            }
            self.queue_changed.wait(&mut queue);
        }
        Some(std::mem::take(&mut queue.commands))
    }

    /// Nobody has a handle any more: lets the threads end without writing anything.
    pub(crate) fn abandon(&self) {
        {
            let mut queue = self.queue.lock();
            queue.closed = true;
        }
        self.queue_changed.notify_all();
        self.stop_syncer();
        self.stop_housekeeper();
    }

    /// Lets the syncer end once nobody waits for it.
    pub(crate) fn stop_syncer(&self) {
        self.sync.lock().stop = true;
        self.sync_changed.notify_all();
    }

    /// Lets the housekeeper end once it has no job left.
    pub(crate) fn stop_housekeeper(&self) {
        self.jobs.lock().stop = true;
        self.jobs_changed.notify_all();
    }

    // ---- writer -> syncer ----

    /// Notes that frames up to `lsn` have been written to `segment`.
    pub(crate) fn written(&self, segment: &Arc<Segment>, lsn: Lsn, record_bytes: u64, waiters: Vec<Done>) {
        let notify = {
            let mut sync = self.sync.lock();
            sync.written_lsn = lsn;
            sync.dirty_bytes += record_bytes;
            match sync.dirty.last_mut() {
                Some(dirty) if dirty.segment.id == segment.id => dirty.last_lsn = lsn,
                _ => sync.dirty.push(DirtySegment { segment: Arc::clone(segment), last_lsn: lsn }),
            }
            self.stats.unsynced_bytes.set(sync.dirty_bytes);
            let before = sync.dirty_bytes.saturating_sub(record_bytes);
            let threshold = self.options.background_sync_bytes;
            let notify =
                !waiters.is_empty() || before == 0 || (before < threshold && sync.dirty_bytes >= threshold);
            sync.waiters.extend(waiters.into_iter().map(|done| SyncWaiter { lsn, done }));
            notify
        };
        if notify {
            self.sync_changed.notify_one();
            self.tell_stepper(Part::Syncer);
        }
    }

    /// Calls `done` once everything written so far is durable.
    pub(crate) fn when_synced(&self, done: Done) {
        if self.failure().is_some() {
            done(Err(self.stop_reason()));
            return;
        }
        {
            let mut sync = self.sync.lock();
            let lsn = sync.written_lsn;
            sync.waiters.push(SyncWaiter { lsn, done });
        }
        self.sync_changed.notify_one();
        self.tell_stepper(Part::Syncer);
        if self.failure().is_some() {
            // It failed in between; nobody else would look at the waiter.
            self.fail_waiters();
        }
    }

    // ---- syncer ----

    /// What there is to sync. Without `background` only if somebody waits or there is much.
    pub(crate) fn sync_round(&self, background: bool) -> Option<SyncRound> {
        if self.failure().is_some() {
            self.fail_waiters();
            return None;
        }
        let sync = self.sync.lock();
        let due = !sync.waiters.is_empty()
            || sync.dirty_bytes >= self.options.background_sync_bytes
            || (background && sync.dirty_bytes > 0);
        due.then(|| SyncRound {
            segments: sync.dirty.iter().map(|dirty| Arc::clone(&dirty.segment)).collect(),
            target: sync.written_lsn,
            bytes: sync.dirty_bytes,
        })
    }

    /// The round was done: all of it is durable.
    pub(crate) fn synced(&self, round: &SyncRound) {
        let ready = {
            let mut sync = self.sync.lock();
            sync.dirty.retain(|dirty| dirty.last_lsn > round.target);
            sync.dirty_bytes -= round.bytes;
            sync.mark_due |= round.bytes > 0;
            self.stats.unsynced_bytes.set(sync.dirty_bytes);
            let (ready, rest) =
                std::mem::take(&mut sync.waiters).into_iter().partition(|waiter| waiter.lsn <= round.target);
            sync.waiters = rest;
            let ready: Vec<SyncWaiter> = ready;
            ready
        };
        self.synced_lsn.fetch_max(round.target.0, Ordering::Release);
        for waiter in ready {
            (waiter.done)(Ok(()));
        }
    }

    /// Whether the synced position is to be written down: everything is synced, and no frame says so yet.
    pub(crate) fn take_mark_due(&self) -> bool {
        let mut sync = self.sync.lock();
        sync.dirty_bytes == 0 && std::mem::take(&mut sync.mark_due)
    }

    /// Waits until there may be something to sync. True if the time is up, `None` when the syncer shall end.
    pub(crate) fn wait_for_sync(&self, wait: Duration) -> Option<bool> {
        let mut sync = self.sync.lock();
        let failed = self.failure().is_some();
        let much = !failed && sync.dirty_bytes >= self.options.background_sync_bytes;
        if !sync.waiters.is_empty() || much {
            return Some(false);
        }
        if sync.stop {
            return None;
        }
        if failed || (sync.dirty_bytes == 0 && !sync.mark_due) {
            self.sync_changed.wait(&mut sync);
            return Some(false);
        }
        Some(self.sync_changed.wait_for(&mut sync, wait).timed_out())
    }

    // ---- anyone -> housekeeper ----

    pub(crate) fn push_job(&self, job: Job) {
        self.jobs.lock().pending.push_back(job);
        // Not everybody who waits does every job.
        self.jobs_changed.notify_all();
        self.tell_stepper(Part::Housekeeper);
    }

    /// Has the file system asked for its free space, unless somebody is about to.
    pub(crate) fn refresh_space_soon(&self) {
        let is_due = self.jobs.lock().pending.iter().any(|job| matches!(job, Job::RefreshSpace));
        if !is_due {
            self.push_job(Job::RefreshSpace);
        }
    }

    pub(crate) fn take_job(&self) -> Option<Job> {
        self.jobs.lock().pending.pop_front()
    }

    /// The next job of this kind; waits for one. `None` when whoever does them shall end.
    pub(crate) fn wait_job(&self, wanted: impl Fn(&Job) -> bool) -> Option<Job> {
        let mut jobs = self.jobs.lock();
        loop {
            if let Some(next) = jobs.pending.iter().position(&wanted) {
                return jobs.pending.remove(next);
            }
            if jobs.stop {
                return None;
            }
            self.jobs_changed.wait(&mut jobs);
        }
    }

    // ---- the next segments ----

    /// Takes the first segment that is prepared. If there is none and somebody is preparing one, waits for it. `None`: the caller
    /// shall prepare one itself, and call [`Shared::put_next`] with nothing when that has ended. Nobody else prepares one meanwhile: segments
    /// have to be written to in the order of their numbers, by which recovery tells what is newer.
    pub(crate) fn take_next(&self) -> Option<Arc<Segment>> {
        let mut next = self.next.lock();
        if next.ready.is_empty() {
            self.stats.roll_stalls.add(1);
        }
        while next.ready.is_empty() && next.preparing && self.failure().is_none() {
            self.next_changed.wait(&mut next);
        }
        let taken = next.ready.pop_front();
        next.preparing |= taken.is_none();
        taken
    }

    /// What was taken could not be used and is the first to be taken again.
    pub(crate) fn return_next(&self, segment: Arc<Segment>) {
        self.next.lock().ready.push_front(segment);
        self.count_spares();
    }

    /// True if another should be prepared and nobody does it; then the caller has to call [`Shared::put_next`].
    pub(crate) fn begin_preparing(&self) -> bool {
        let wanted = if self.has_room_ahead() { self.options.prepared_segments } else { 1 };
        let mut next = self.next.lock();
        let begin = !next.preparing && next.ready.len() < wanted;
        next.preparing |= begin;
        begin
    }

    /// Whether a segment more can be prepared without taking what is kept free for others than the log.
    fn has_room_ahead(&self) -> bool {
        let left = self.space.free_bytes.get().checked_sub(self.options.segment_bytes);
        left.is_some_and(|left| left >= self.options.reserve_bytes) || !self.spares.lock().is_empty()
    }

    /// Preparing ended, with a segment or without.
    pub(crate) fn put_next(&self, segment: Option<Arc<Segment>>) {
        {
            let mut next = self.next.lock();
            next.ready.extend(segment);
            next.preparing = false;
        }
        self.next_changed.notify_all();
        self.count_spares();
    }

    /// Recounts the segments that are there but not in use.
    pub(crate) fn count_spares(&self) {
        let ready = self.next.lock().ready.len();
        self.space.spare_segments.set((ready + self.spares.lock().len()) as u64);
    }

    /// Bytes of files that are not in the index.
    pub(crate) fn spare_bytes(&self) -> u64 {
        let ready = self.next.lock().ready.len() as u64;
        let spares: u64 = self.spares.lock().iter().map(|spare| spare.bytes).sum();
        spares + ready * self.options.segment_bytes
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
