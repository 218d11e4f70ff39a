//! The coordinator behind one led partition, for as long as the leadership lasts: reads the log, takes calls one by one, writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use helix_raft::planted;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::log::{self, LogRecord};
use super::{Effects, Now, ReplayError, StateMachine, Write, WriteError};
use crate::broker::Broker;
use crate::broker::fetch::{self, FetchError};
use crate::broker::produce::{Acks, AppendError, AppendRequest, AppendResult, expect_answers};
use crate::env::watch;
use crate::partition::view::{Leadership, PartitionView};
use crate::shard::ShardMessage;

/// Read at a time while loading.
const LOAD_BYTES: usize = 4 << 20;
/// How long loading waits after the log could not be read.
const LOAD_RETRY: Duration = Duration::from_secs(1);
/// Writes on their way at one time; further calls wait.
const MAX_IN_FLIGHT: usize = 1000;
/// A log is written anew when it has this many times the bytes of what is live in it.
const GARBAGE_FACTOR: u64 = 3;
/// Bytes of records in one batch when the log is written anew.
const SNAPSHOT_BATCH_BYTES: usize = 512 << 10;
/// An append waits for its outcome as long as the leadership lasts: its end is the only other one.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Why a coordinator could not begin.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Read(#[from] FetchError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
}

/// Why a coordinator ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to.
    Stopped,
    /// Another replica leads, or will.
    NotLeader,
    /// Its log holds what this release cannot read: there is no coordinator until an operator has seen to it.
    Unreadable,
}

/// What an append is for.
enum Purpose<T> {
    Write(Write<T>),
    /// Nothing but to know that all before it is committed.
    Barrier,
    /// A part of the log written anew.
    Snapshot {
        is_first: bool,
        is_last: bool,
    },
}

/// The end of an append.
struct Decided<T> {
    purpose: Purpose<T>,
    batch_bytes: u64,
    result: AppendResult,
}

/// A leadership of this node.
#[derive(Clone)]
pub(super) struct Led {
    pub(super) broker: Arc<Broker>,
    pub(super) view: Arc<PartitionView>,
    /// Appends in another epoch are refused.
    pub(super) epoch: i32,
}

impl Led {
    /// Whether it goes on.
    pub(super) fn lasts(&self) -> bool {
        self.view.leadership() == Leadership { epoch: self.epoch, serving: true }
    }
}

/// One coordinator.
pub(super) struct Runtime<M: StateMachine> {
    led: Led,
    /// Nobody else has written in this leadership.
    is_first: bool,
    machine: M,
    in_flight: FuturesOrdered<BoxFuture<'static, Decided<M::Then>>>,
    garbage: Garbage,
    clock: Clock,
}

/// The clock of the machine. It stands while no calls are taken: heartbeats that wait meanwhile must not count as missing.
#[derive(Debug, Default)]
struct Clock {
    /// For how long it has stood.
    lost: Duration,
    stands_since: Option<Instant>,
}

impl Clock {
    /// Stops it, or lets it go on.
    fn stand(&mut self, stand: bool, now: Instant) {
        match (stand, self.stands_since) {
            (true, None) => self.stands_since = Some(now),
            (false, Some(since)) => {
                self.lost += now.saturating_duration_since(since);
                self.stands_since = None;
            }
            _ => {}
        }
    }

    /// What it says.
    fn read(&self, now: Instant) -> Instant {
        self.stands_since.unwrap_or(now) - self.lost
    }

    /// When it will say this, if it does not stand.
    fn when(&self, deadline: Instant) -> Instant {
        deadline + self.lost
    }
}

/// How large the log is, and where it is written anew.
#[derive(Debug, Default)]
struct Garbage {
    log_bytes: u64,
    /// The log is written anew when it reaches this.
    limit_bytes: u64,
    /// It is to be written anew as soon as nothing is on its way.
    due: bool,
    /// Where the part begins that is being written anew, and its bytes; `None` when that has failed, or is not going on.
    begun: Option<(i64, u64)>,
}

impl Garbage {
    const fn is_full(&self) -> bool {
        self.log_bytes >= self.limit_bytes
    }

    /// So much of the log is live. It is not written anew below `least_bytes`.
    fn set_limit(&mut self, live_bytes: u64, least_bytes: u64) {
        self.limit_bytes = live_bytes.saturating_mul(GARBAGE_FACTOR).max(least_bytes);
    }
}

impl<M: StateMachine> Runtime<M> {
    pub(super) fn new(led: Led, machine: M, is_first: bool) -> Self {
        let limit_bytes = led.broker.config().coordinator_log_bytes;
        let garbage = Garbage { limit_bytes, ..Garbage::default() };
        Self { led, is_first, machine, in_flight: FuturesOrdered::new(), garbage, clock: Clock::default() }
    }

    /// Loads, tells `loaded`, and serves until the leadership ends or `stop` says so.
    pub(super) async fn run(
        mut self,
        calls: &mut mpsc::Receiver<M::Call>,
        stop: &mut watch::Receiver<bool>,
        loaded: impl FnOnce() + Send,
    ) -> Ended {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Ended::Stopped,
            done = self.load() => if let Err(ended) = done {
                return ended;
            },
        }
        let mut effects = Effects::new();
        self.machine.loaded(self.now(), &mut effects);
        self.write(effects);
        loaded();
        loop {
            let busy = self.in_flight.len() >= MAX_IN_FLIGHT || self.garbage.due;
            self.clock.stand(busy, Instant::now());
            let deadline = self.machine.next_deadline().map(|deadline| self.clock.when(deadline));
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ended::Stopped,
                Some(decided) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    if let Err(ended) = self.decided(decided) {
                        return ended;
                    }
                }
                () = until(deadline), if !busy => self.step(|machine, now, effects| machine.expire(now, effects)),
                call = calls.recv(), if !busy => match call {
                    Some(call) => self.step(|machine, now, effects| machine.handle(call, now, effects)),
                    None => return Ended::Stopped,
                },
            }
            self.collect_garbage();
        }
    }

    fn view(&self) -> &Arc<PartitionView> {
        &self.led.view
    }

    fn now(&self) -> Now {
        Now { instant: self.clock.read(Instant::now()), unix_ms: self.led.broker.env().unix_ms() }
    }

    fn step(&mut self, what: impl FnOnce(&mut M, Now, &mut Effects<M::Then>)) {
        let mut effects = Effects::new();
        let now = self.now();
        what(&mut self.machine, now, &mut effects);
        self.write(effects);
    }

    /// Replays what is committed. The leader has applied an entry of its own term, so that is all that its predecessors wrote.
    async fn load(&mut self) -> Result<(), Ended> {
        let begun = Instant::now();
        let through = if self.is_first { self.view().high_watermark() } else { self.pass_barrier().await? };
        let mut offset = self.view().log_start();
        while offset < through {
            match self.load_some(offset).await {
                Ok(next) => offset = next,
                Err(LoadError::Replay(error)) => {
                    let group = self.view().group;
                    tracing::error!(%group, %error, "a coordinator's log cannot be understood: nothing is coordinated here");
                    return Err(Ended::Unreadable);
                }
                Err(LoadError::Read(error)) => {
                    warn!(group = %self.view().group, %error, "a coordinator cannot read its log; it tries again");
                    tokio::time::sleep(LOAD_RETRY).await;
                }
            }
        }
        if self.garbage.is_full() {
            // What it holds may all be live.
            let parts = parts_of(self.machine.snapshot(), M::barrier);
            self.garbage.set_limit(bytes_of(&parts), self.least_bytes());
        }
        let (bytes, group) = (self.garbage.log_bytes, self.view().group);
        debug!(%group, epoch = self.led.epoch, bytes, took = ?begun.elapsed(), "coordinator loaded");
        Ok(())
    }

    /// Writes something, and waits until it is committed; returns the offset behind it. An earlier coordinator of the same leadership may have
    /// left appends on their way: they lie in front of this one.
    async fn pass_barrier(&mut self) -> Result<i64, Ended> {
        let barrier = M::barrier();
        let batch = log::to_batch(&[barrier], self.now().unix_ms).map_err(|_| Ended::NotLeader)?;
        self.append(batch, Purpose::Barrier);
        match self.in_flight.next().await {
            Some(Decided { result: Ok(appended), .. }) => Ok(appended.base_offset + 1),
            _ => Err(Ended::NotLeader),
        }
    }

    /// Replays some of the log; returns where to go on.
    async fn load_some(&mut self, offset: i64) -> Result<i64, LoadError> {
        let slice = fetch::read(&self.led.broker, &self.led.view, offset, LOAD_BYTES, true).await?;
        let mut bytes = BytesMut::with_capacity(slice.bytes);
        slice.chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
        let records = log::from_batches(bytes.freeze(), offset)?;
        let Some((last, _)) = records.last() else {
            // There is nothing behind it that could be read: the log's start has moved on.
            return Ok(self.view().log_start().max(offset.saturating_add(1)));
        };
        let next = last + 1;
        self.garbage.log_bytes += slice.bytes as u64;
        for (at, record) in records.into_iter().filter(|(at, _)| *at >= offset) {
            self.machine.replay(&record).map_err(|reason| ReplayError { offset: at, reason })?;
        }
        Ok(next)
    }

    /// Appends what the machine wants to be written.
    fn write(&mut self, effects: Effects<M::Then>) {
        let mut waiting = effects.writes;
        while !waiting.is_empty() {
            let mut more = Effects::new();
            for write in waiting {
                match log::to_batch(&write.records, self.led.broker.env().unix_ms()) {
                    Ok(batch) => self.append(batch, Purpose::Write(write)),
                    Err(error) => {
                        debug!(group = %self.view().group, %error, "a coordinator's write was refused");
                        let now = self.now();
                        self.machine.refused(write.then, &error, now, &mut more);
                    }
                }
            }
            waiting = more.writes;
        }
    }

    fn append(&mut self, batch: crate::broker::batch::ValidBatch, purpose: Purpose<M::Then>) {
        let batch_bytes = batch.total_bytes();
        let (mut replies, outcome) = expect_answers(1, Vec::new());
        let Some(reply) = replies.pop() else { return };
        self.led.broker.append(AppendRequest {
            group: self.view().group,
            batch,
            acks: Acks::All,
            leader_epoch: Some(self.led.epoch),
            after_rejection: false,
            reply,
            pending: self.view().add_pending(batch_bytes),
        });
        self.in_flight.push_back(Box::pin(async move {
            let result = outcome.wait(FOR_EVER).await.pop().unwrap_or(Err(AppendError::NotLeader));
            Decided { purpose, batch_bytes: batch_bytes as u64, result }
        }));
    }

    /// Takes the end of an append over. [`Ended::NotLeader`]: the leadership has ended, and what is not decided never will be here.
    fn decided(&mut self, decided: Decided<M::Then>) -> Result<(), Ended> {
        let Decided { purpose, batch_bytes, result } = decided;
        match result {
            Ok(appended) => {
                self.garbage.log_bytes += batch_bytes;
                match purpose {
                    Purpose::Write(write) => self.committed(write, appended.base_offset),
                    Purpose::Barrier => Ok(()),
                    Purpose::Snapshot { is_first, is_last } => {
                        self.snapshot_written(appended.base_offset, batch_bytes, is_first, is_last);
                        Ok(())
                    }
                }
            }
            Err(AppendError::NotLeader | AppendError::Timeout | AppendError::UnknownPartition) => {
                Err(Ended::NotLeader)
            }
            Err(error) => {
                match purpose {
                    Purpose::Write(write) => {
                        let error = WriteError::Refused(error);
                        self.step(|machine, now, effects| machine.refused(write.then, &error, now, effects));
                    }
                    Purpose::Barrier => {}
                    Purpose::Snapshot { .. } => self.garbage.begun = None,
                }
                Ok(())
            }
        }
    }

    fn committed(&mut self, write: Write<M::Then>, base_offset: i64) -> Result<(), Ended> {
        let Write { records, then } = write;
        for (offset, record) in (base_offset..).zip(&records) {
            if let Err(reason) = self.machine.replay(record) {
                let error = ReplayError { offset, reason };
                tracing::error!(group = %self.view().group, %error, "a coordinator cannot read what it wrote");
                return Err(Ended::Unreadable);
            }
        }
        let now = self.now();
        self.machine.committed(then, now);
        Ok(())
    }

    /// Writes the log anew when it is much larger than what is live in it. What is on its way would come to lie in front of an older state of the
    /// same, so this waits until nothing is.
    fn collect_garbage(&mut self) {
        self.garbage.due |= self.garbage.is_full();
        let busy = !self.in_flight.is_empty() && !planted("rewritten-while-busy");
        if !self.garbage.due || busy {
            return;
        }
        self.garbage.due = false;
        let parts = parts_of(self.machine.snapshot(), M::barrier);
        let last = parts.len().saturating_sub(1);
        // Should it fail, it is tried again when as much has come.
        self.garbage.limit_bytes = self.garbage.log_bytes.saturating_mul(2);
        for (number, records) in parts.into_iter().enumerate() {
            match log::to_batch(&records, self.led.broker.env().unix_ms()) {
                Ok(batch) => {
                    let (is_first, is_last) = (number == 0, number == last);
                    self.append(batch, Purpose::Snapshot { is_first, is_last });
                }
                Err(error) => {
                    warn!(group = %self.view().group, %error, "a coordinator's log keeps what is not needed any more");
                    return;
                }
            }
        }
    }

    fn least_bytes(&self) -> u64 {
        self.led.broker.config().coordinator_log_bytes
    }

    fn snapshot_written(&mut self, base_offset: i64, batch_bytes: u64, is_first: bool, is_last: bool) {
        if is_first {
            self.garbage.begun = Some((base_offset, 0));
        }
        let Some((begin, bytes)) = &mut self.garbage.begun else { return };
        *bytes += batch_bytes;
        if !is_last {
            return;
        }
        let (log_start, live_bytes) = (*begin, *bytes);
        debug!(group = %self.view().group, log_start, live_bytes, "a coordinator's log was written anew");
        self.garbage = Garbage { log_bytes: live_bytes, ..Garbage::default() };
        self.garbage.set_limit(live_bytes, self.least_bytes());
        let group = self.view().group;
        self.led.broker.parts.shards.send(group, ShardMessage::Retire { group, log_start });
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Records in parts that are not too large for a batch each. There is at least one part: something has to lie where an empty log is to begin.
fn parts_of(records: Vec<LogRecord>, barrier: impl FnOnce() -> LogRecord) -> Vec<Vec<LogRecord>> {
    if records.is_empty() {
        return vec![vec![barrier()]];
    }
    let mut parts: Vec<Vec<LogRecord>> = Vec::new();
    let mut bytes = 0;
    for record in records {
        let len = record.len_bytes();
        match parts.last_mut() {
            Some(part) if bytes + len <= SNAPSHOT_BATCH_BYTES => {
                bytes += len;
                part.push(record);
            }
            _ => {
                bytes = len;
                parts.push(vec![record]);
            }
        }
    }
    parts
}

/// Bytes of these parts as batches.
fn bytes_of(parts: &[Vec<LogRecord>]) -> u64 {
    // A part that is no batch is not written anew either.
    let bytes = |part: &Vec<LogRecord>| log::to_batch(part, 0).map_or(0, |batch| batch.total_bytes() as u64);
    parts.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(value: &'static str) -> LogRecord {
        LogRecord { key: Bytes::from_static(b"key"), value: Some(Bytes::from_static(value.as_bytes())) }
    }

    #[test]
    fn a_log_in_which_nothing_is_live_can_begin_anew() {
        let parts = parts_of(Vec::new(), || record("barrier"));
        assert_eq!(parts, [[record("barrier")]]);
        assert_eq!(parts_of(vec![record("live")], || record("barrier")), [[record("live")]]);
    }

    #[test]
    fn a_log_that_is_all_live_is_not_written_anew_when_it_is_read() {
        let parts = parts_of(vec![record("live"); 100], || record("barrier"));
        let live_bytes = bytes_of(&parts);
        assert!(live_bytes > 700, "key and value of each, at least: {live_bytes}");
        let mut garbage = Garbage { log_bytes: live_bytes, limit_bytes: 500, ..Garbage::default() };
        assert!(garbage.is_full());
        garbage.set_limit(live_bytes, 500);
        assert!(!garbage.is_full());
        garbage.log_bytes = 3 * live_bytes;
        assert!(garbage.is_full());
        garbage.set_limit(10, 500);
        assert_eq!(garbage.limit_bytes, 500, "little is not worth it");
    }

    #[test]
    fn the_clock_stands_while_no_calls_are_taken() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let mut clock = Clock::default();
        assert_eq!((clock.read(at(5)), clock.when(at(20))), (at(5), at(20)));
        clock.stand(true, at(10));
        clock.stand(true, at(15));
        assert_eq!(clock.read(at(40)), at(10), "a deadline at 20 is not over");
        clock.stand(false, at(40));
        assert_eq!((clock.read(at(40)), clock.when(at(20))), (at(10), at(50)));
        clock.stand(false, at(45));
        clock.stand(true, at(60));
        clock.stand(false, at(61));
        assert_eq!((clock.read(at(61)), clock.when(at(20))), (at(30), at(51)));
    }
}
