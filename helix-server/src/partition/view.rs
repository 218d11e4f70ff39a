//! What readers see of a partition: published by its owner (the shard), read by every connection without waiting.

use helix_raft::planted;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use helix_raft::GroupId;
use helix_wal::Payload;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::epochs::EpochCache;
use super::slices::{self, Slice};
use crate::config::topic::TopicConfig;

/// For this long after a refusal, gaps in the sequences of producers may be the broker's own doing. Clients wait no longer for an answer (60 s is
/// the `socket.timeout.ms` of librdkafka) before they send everything again, in order.
const REFUSAL_MEMORY: Duration = Duration::from_secs(60);

/// A committed entry that is still in memory.
#[derive(Debug, Clone)]
pub struct TailEntry {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset after its last record.
    pub next_offset: i64,
    /// Its record batches.
    pub payload: Payload,
}

/// The published state of one partition replica.
#[derive(Debug)]
pub struct PartitionView {
    /// The consensus group behind the partition.
    pub group: GroupId,
    config: ArcSwap<TopicConfig>,
    high_watermark: AtomicI64,
    applied_index: AtomicU64,
    log_start: AtomicI64,
    log_end: AtomicI64,
    /// Leader epoch (Raft term) shifted left by one; bit 0 says that this replica leads and may answer clients.
    leadership: AtomicU64,
    quorum_contact: AtomicBool,
    /// This replica follows a leader that it hears.
    following: AtomicBool,
    in_sync: AtomicU32,
    pending_bytes: AtomicUsize,
    tail: RwLock<VecDeque<TailEntry>>,
    epochs: ArcSwap<EpochCache>,
    /// When this replica last refused batches that it might have taken.
    refused_at: Mutex<Option<Instant>>,
    waiters: Waiters,
    room_waiters: Waiters,
}

/// Whether this replica answers clients, and in which epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// Raft term, which is the leader epoch that clients see.
    pub epoch: i32,
    /// This replica leads and has applied an entry of its own term.
    pub serving: bool,
}

impl PartitionView {
    /// A view of a replica that knows nothing yet beyond its recovered bounds.
    pub fn new(
        group: GroupId,
        config: Arc<TopicConfig>,
        log_start: i64,
        high_watermark: i64,
        epochs: EpochCache,
    ) -> Self {
        Self {
            group,
            config: ArcSwap::new(config),
            high_watermark: AtomicI64::new(high_watermark),
            applied_index: AtomicU64::new(0),
            log_start: AtomicI64::new(log_start),
            log_end: AtomicI64::new(high_watermark),
            leadership: AtomicU64::new(0),
            quorum_contact: AtomicBool::new(false),
            following: AtomicBool::new(false),
            in_sync: AtomicU32::new(0),
            pending_bytes: AtomicUsize::new(0),
            tail: RwLock::default(),
            epochs: ArcSwap::from_pointee(epochs),
            refused_at: Mutex::default(),
            waiters: Waiters::default(),
            room_waiters: Waiters::default(),
        }
    }

    /// The topic's configuration over the broker's, as it is now.
    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.load_full()
    }

    /// Offset after the last committed record.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Index of the last entry known to be committed and applied here.
    pub fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::Acquire)
    }

    /// Offset of the first record that is kept.
    pub fn log_start(&self) -> i64 {
        self.log_start.load(Ordering::Acquire)
    }

    /// Offset after the last appended record, committed or not.
    pub fn log_end(&self) -> i64 {
        self.log_end.load(Ordering::Acquire)
    }

    /// Whether this replica answers clients, and its epoch.
    pub fn leadership(&self) -> Leadership {
        let packed = self.leadership.load(Ordering::Acquire);
        Leadership { epoch: (packed >> 1) as i32, serving: packed & 1 == 1 }
    }

    /// Whether a majority answered this leader within the election timeout.
    pub fn quorum_contact(&self) -> bool {
        self.quorum_contact.load(Ordering::Acquire)
    }

    /// Whether this replica follows a leader that was heard within the election timeout, and its log can be relied on: what is committed
    /// here is what the leader would show, or a little less.
    pub fn is_following(&self) -> bool {
        self.following.load(Ordering::Acquire)
    }

    /// Number of replicas in sync, as the leader sees it.
    pub fn in_sync(&self) -> u32 {
        self.in_sync.load(Ordering::Acquire)
    }

    /// Committed leader epochs.
    pub fn epochs(&self) -> Arc<EpochCache> {
        self.epochs.load_full()
    }

    /// Produce bytes admitted for this partition and not yet answered.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes.load(Ordering::Acquire)
    }

    /// Counts admitted produce bytes; the returned guard takes them off again.
    pub fn add_pending(self: &Arc<Self>, bytes: usize) -> PendingBytes {
        self.pending_bytes.fetch_add(bytes, Ordering::AcqRel);
        PendingBytes { view: Arc::clone(self), bytes }
    }

    /// Reads committed batches from memory, from the batch that holds `offset`. `None` when memory does not reach back that
    /// far. Takes at least one whole batch if there is one, whatever its size, when `at_least_one`.
    pub fn read_tail(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Option<Slice> {
        let tail = self.tail.read();
        if tail.front()?.base_offset > offset {
            return None;
        }
        let first = tail.partition_point(|entry| entry.next_offset <= offset);
        let mut out = Slice::default();
        for entry in tail.range(first..) {
            if !slices::take_batches(&entry.payload, offset, max_bytes, at_least_one, &mut out) {
                break;
            }
        }
        Some(out)
    }

    /// Registers to be notified when the high watermark moves or leadership changes.
    pub fn watch(self: &Arc<Self>, notify: &Arc<Notify>) -> WatchGuard {
        self.register(News::Log, notify)
    }

    /// Registers to be notified when admitted produce bytes are answered.
    pub fn watch_room(self: &Arc<Self>, notify: &Arc<Notify>) -> WatchGuard {
        self.register(News::Room, notify)
    }

    fn register(self: &Arc<Self>, news: News, notify: &Arc<Notify>) -> WatchGuard {
        let id = self.waiters_for(news).add(Arc::clone(notify));
        WatchGuard { view: Arc::clone(self), news, id }
    }

    fn waiters_for(&self, news: News) -> &Waiters {
        match news {
            News::Log => &self.waiters,
            News::Room => &self.room_waiters,
        }
    }

    /// Batches are refused although nothing is wrong with them. What their producers sent behind them is out of sequence now, and
    /// must not be blamed for it.
    pub fn note_refusal(&self, now: Instant) {
        *self.refused_at.lock() = Some(now);
    }

    /// Whether batches were refused so lately that a gap in a producer's sequence may come from it.
    pub fn refused_lately(&self, now: Instant) -> bool {
        self.refused_at.lock().is_some_and(|at| now.saturating_duration_since(at) < REFUSAL_MEMORY)
    }

    // What follows is called by the owner alone.

    /// The topic was altered, or the broker.
    pub(crate) fn set_config(&self, config: Arc<TopicConfig>) {
        self.config.store(config);
    }

    /// Publishes a committed entry and moves the high watermark past it.
    pub(crate) fn commit(&self, entry: TailEntry) {
        let next_offset = entry.next_offset;
        self.tail.write().push_back(entry);
        self.high_watermark.store(next_offset, Ordering::Release);
        self.waiters.notify_all();
    }

    /// Publishes how far the log is applied.
    pub(crate) fn set_applied_index(&self, index: u64) {
        self.applied_index.store(index, Ordering::Release);
    }

    /// Drops the oldest entry from memory; returns its bytes.
    pub(crate) fn drop_oldest(&self) -> usize {
        self.tail.write().pop_front().map_or(0, |entry| entry.payload.len())
    }

    /// Moves the bounds without data: after recovery, or when the log was replaced by "start here".
    pub(crate) fn reset(&self, log_start: i64, high_watermark: i64) {
        let mut tail = self.tail.write();
        tail.clear();
        self.log_start.store(log_start, Ordering::Release);
        self.high_watermark.store(high_watermark, Ordering::Release);
        drop(tail);
        self.waiters.notify_all();
    }

    /// Publishes that records below `log_start` are gone for clients.
    pub(crate) fn set_log_start(&self, log_start: i64) {
        self.log_start.store(log_start, Ordering::Release);
    }

    /// Publishes where the log ends.
    pub(crate) fn set_log_end(&self, log_end: i64) {
        self.log_end.store(log_end, Ordering::Release);
        if planted("uncommitted-is-readable") {
            self.high_watermark.store(log_end, Ordering::Release);
        }
    }

    /// Publishes whether this replica answers clients.
    pub(crate) fn set_leadership(&self, leadership: Leadership) {
        let packed = ((leadership.epoch as u64) << 1) | u64::from(leadership.serving);
        if self.leadership.swap(packed, Ordering::AcqRel) != packed {
            self.waiters.notify_all();
        }
    }

    /// Publishes whether this replica follows a leader that it hears. Whoever waits for news of it is woken when it no longer does.
    pub(crate) fn set_following(&self, following: bool) {
        if self.following.swap(following, Ordering::AcqRel) && !following {
            self.waiters.notify_all();
        }
    }

    /// Publishes the quorum contact and the number of replicas in sync.
    pub(crate) fn set_contact(&self, quorum_contact: bool, in_sync: u32) {
        self.quorum_contact.store(quorum_contact, Ordering::Release);
        self.in_sync.store(in_sync, Ordering::Release);
    }

    /// Publishes the committed leader epochs.
    pub(crate) fn set_epochs(&self, epochs: EpochCache) {
        self.epochs.store(Arc::new(epochs));
    }
}

/// Produce bytes counted against a partition until dropped.
#[derive(Debug)]
pub struct PendingBytes {
    view: Arc<PartitionView>,
    bytes: usize,
}

impl Drop for PendingBytes {
    fn drop(&mut self) {
        self.view.pending_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.view.room_waiters.notify_all();
    }
}

/// Those who wait for news of the partition. Held for moments only, never across a wait.
#[derive(Debug, Default)]
struct Waiters {
    next_id: AtomicU64,
    waiting: Mutex<Vec<(u64, Arc<Notify>)>>,
}

impl Waiters {
    fn add(&self, notify: Arc<Notify>) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().push((id, notify));
        id
    }

    fn remove(&self, id: u64) {
        let mut waiting = self.waiting.lock();
        if let Some(at) = waiting.iter().position(|(other, _)| *other == id) {
            waiting.swap_remove(at);
        }
    }

    fn notify_all(&self) {
        for (_, notify) in self.waiting.lock().iter() {
            notify.notify_one();
        }
    }
}

/// What one can wait for.
#[derive(Debug, Clone, Copy)]
enum News {
    /// The high watermark moved, or leadership changed.
    Log,
    /// Produce bytes were answered.
    Room,
}

/// A registration for news; ends when dropped.
#[derive(Debug)]
pub struct WatchGuard {
    view: Arc<PartitionView>,
    news: News,
    id: u64,
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        self.view.waiters_for(self.news).remove(self.id);
    }
}
