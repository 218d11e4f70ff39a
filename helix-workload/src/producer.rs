//! One producer: a thread, a librdkafka client with its default settings, and a window of messages in flight.
//!
//! The window is refilled from within the delivery callback: each acknowledgement sends the next message at once, so
//! the thread only ever sleeps in `poll`, nothing is handed from thread to thread, and the window stays full.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use serde::Deserialize;

use crate::engine::{LoadOptions, Phase, Shared};
use crate::history::ProducerHistory;
use crate::message::{Identity, Messages};

/// Latencies are recorded in microseconds up to ten minutes, to three digits.
const LONGEST_LATENCY_US: u64 = 600_000_000;
const POLL: Duration = Duration::from_millis(50);
/// A producer that keeps a pace looks at the clock that often.
const PACE_LOOK: Duration = Duration::from_millis(2);
const STATISTICS_INTERVAL_MS: u32 = 500;
/// How long to wait, once everything is delivered, for the statistics that include it.
const LAST_STATISTICS: Duration = Duration::from_secs(5);

/// What one producer did.
#[derive(Debug)]
pub struct ProducerOutcome {
    /// What it sent and what was acknowledged.
    pub history: ProducerHistory,
    /// From handing a message to the client to its acknowledgement, within the measured time, in microseconds.
    pub latency_us: Histogram<u64>,
    /// Acknowledged within the measured time.
    pub measured_messages: u64,
    /// Messages transmitted more than once.
    pub retried_messages: u64,
    /// Requests transmitted more than once.
    pub retried_requests: u64,
    /// Still unacknowledged when the deadline for stopping had passed.
    pub unfinished: u64,
    /// Why messages failed, the first few.
    pub errors: Vec<String>,
}

/// Numbers of a running producer that others may look at.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Counters {
    fn add_one(counter: &AtomicU64) {
        // One writer: a plain store is enough and keeps the line unlocked.
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// A place in the window: the message that occupies it.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    seq: u64,
    sent_ns: u64,
}

/// Lets so many messages per second through, evenly; what a late caller has missed it may make up for, within limits.
#[derive(Debug, Clone, Copy)]
struct Pace {
    interval_ns: u64,
    next_ns: u64,
}

impl Pace {
    /// The most that is made up for.
    const BACKLOG_NS: u64 = 100_000_000;

    fn new(per_second: u32) -> Option<Self> {
        (per_second > 0).then(|| Self { interval_ns: 1_000_000_000 / u64::from(per_second), next_ns: 0 })
    }

    fn permits(&mut self, now_ns: u64) -> bool {
        if now_ns < self.next_ns {
            return false;
        }
        self.next_ns = self.next_ns.max(now_ns.saturating_sub(Self::BACKLOG_NS)) + self.interval_ns;
        true
    }
}

struct Window {
    slots: Vec<Slot>,
    /// Slots whose message failed, or for which it is too early; they are refilled between polls, so that a failing
    /// cluster is not hammered.
    parked: Vec<usize>,
    pace: Option<Pace>,
    occupied: u64,
    buffer: Vec<u8>,
    history: ProducerHistory,
    latency_us: Histogram<u64>,
    /// Since somebody last took them, if anybody does.
    recent_latency_us: Option<Histogram<u64>>,
    measured_messages: u64,
    errors: Vec<String>,
}

/// What librdkafka calls back into.
struct Context {
    number: u32,
    topic: String,
    limit: u64,
    messages: Arc<Messages>,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    /// Locked by the producer's own thread, by the one that keeps its pace, and now and then by whoever takes its latest latencies: the lock
    /// costs next to nothing.
    window: Mutex<Window>,
    client: OnceLock<Weak<BaseProducer<Context>>>,
    fatal: AtomicBool,
    statistics: Mutex<(u64, Statistics)>,
}

/// The part of librdkafka's statistics that is used.
#[derive(Debug, Clone, Default, Deserialize)]
struct Statistics {
    txmsgs: u64,
    #[serde(default)]
    brokers: std::collections::HashMap<String, BrokerStatistics>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct BrokerStatistics {
    txretries: u64,
}

impl ClientContext for Context {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn stats_raw(&self, statistics: &[u8]) {
        if let Ok(parsed) = serde_json::from_slice(statistics) {
            let mut slot = self.statistics.lock();
            *slot = (slot.0 + 1, parsed);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let KafkaError::Global(rdkafka::types::RDKafkaErrorCode::Fatal) = error {
            self.fatal.store(true, Ordering::Relaxed);
        }
        self.shared.note_client_error(&format!("{error}: {reason}"));
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        let now_ns = self.shared.now_ns();
        let mut window = self.window.lock();
        window.occupied -= 1;
        match result {
            Ok(message) => {
                self.acknowledged(&mut window, message, slot, now_ns);
                self.refill(&mut window, slot, now_ns);
            }
            Err((error, _)) => {
                Counters::add_one(&self.counters.failed);
                window.history.failed += 1;
                note(&mut window.errors, error.to_string());
                window.parked.push(slot);
            }
        }
    }
}

impl Context {
    fn acknowledged(&self, window: &mut Window, message: &BorrowedMessage<'_>, slot: usize, now_ns: u64) {
        let Slot { seq, sent_ns } = window.slots[slot];
        let partition = message.partition();
        window.history.acks.acknowledge(partition, seq, u64::try_from(message.offset()).ok());
        Counters::add_one(&self.counters.acknowledged);
        let latency_us = now_ns.saturating_sub(sent_ns) / 1_000;
        if self.shared.phase() == Phase::Measuring {
            window.measured_messages += 1;
            window.latency_us.saturating_record(latency_us);
        }
        if let Some(recent) = &mut window.recent_latency_us {
            recent.saturating_record(latency_us);
        }
        self.shared.note_acknowledgement(partition, sent_ns, now_ns);
    }

    /// Sends the next message from `slot`, unless the load is ending. Returns whether it did.
    fn refill(&self, window: &mut Window, slot: usize, now_ns: u64) -> bool {
        let seq = window.history.sent;
        let ending = self.shared.phase() == Phase::Ending || self.fatal.load(Ordering::Relaxed);
        let Some(client) = self.client.get().and_then(Weak::upgrade) else { return false };
        if ending || seq >= self.limit {
            return false;
        }
        if window.pace.as_mut().is_some_and(|pace| !pace.permits(now_ns)) {
            window.parked.push(slot);
            return false;
        }
        let Window { buffer, slots, history, parked, occupied, errors, .. } = window;
        self.messages.write(Identity { producer: self.number, seq }, buffer);
        slots[slot] = Slot { seq, sent_ns: now_ns };
        let record: BaseRecord<'_, (), [u8], usize> =
            BaseRecord::with_opaque_to(&self.topic, slot).payload(buffer.as_slice());
        match client.send(record) {
            Ok(()) => {
                history.sent += 1;
                *occupied += 1;
                true
            }
            Err((error, _)) => {
                note(errors, format!("not accepted by the client: {error}"));
                parked.push(slot);
                false
            }
        }
    }

    fn unpark(&self) {
        let mut window = self.window.lock();
        let now_ns = self.shared.now_ns();
        while let Some(slot) = window.parked.pop() {
            if !self.refill(&mut window, slot, now_ns) {
                break;
            }
        }
    }

    /// Whether nothing is in flight and nothing more will be.
    fn is_done(&self) -> bool {
        let window = self.window.lock();
        let ending = self.shared.phase() == Phase::Ending || self.fatal.load(Ordering::Relaxed);
        window.occupied == 0 && (ending || window.history.sent >= self.limit)
    }
}

fn note(errors: &mut Vec<String>, error: String) {
    if errors.len() < 5 && !errors.contains(&error) {
        errors.push(error);
    }
}

/// A producer that is ready to run on a thread of its own.
pub(crate) struct LoadProducer {
    client: Arc<BaseProducer<Context>>,
    context: Arc<Context>,
    keeps_pace: bool,
}

/// Sees the latest latencies of a producer that runs.
pub(crate) struct LatencyProbe(Arc<Context>);

impl LatencyProbe {
    /// Adds what was acknowledged since the last call, in microseconds. Nothing unless the load keeps track of it.
    pub(crate) fn take_into(&self, sum: &mut Histogram<u64>) {
        if let Some(recent) = &mut self.0.window.lock().recent_latency_us {
            sum.add(&*recent).expect("this histogram resizes itself, so that any other fits");
            recent.reset();
        }
    }
}

fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_LATENCY_US, 3)
        .expect("the bounds are constants within what the histogram allows")
}

impl LoadProducer {
    pub(crate) fn new(
        number: u32,
        options: &LoadOptions,
        messages: Arc<Messages>,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
    ) -> Result<Self, KafkaError> {
        let inflight = options.profile.producer.inflight as usize;
        let pace = Pace::new(options.messages_per_second);
        let keeps_pace = pace.is_some();
        let context = Context {
            number,
            topic: options.topic.clone(),
            limit: options.messages_per_producer.unwrap_or(u64::MAX),
            messages,
            shared,
            counters,
            window: Mutex::new(Window {
                slots: vec![Slot::default(); inflight],
                parked: (0..inflight).collect(),
                pace,
                occupied: 0,
                buffer: Vec::new(),
                history: ProducerHistory::default(),
                latency_us: latencies(),
                recent_latency_us: options.timeline.then(latencies),
                measured_messages: 0,
                errors: Vec::new(),
            }),
            client: OnceLock::new(),
            fatal: AtomicBool::new(false),
            statistics: Mutex::new((0, Statistics::default())),
        };
        let client = Arc::new(BaseProducer::from_config_and_context(&client_config(options), context)?);
        let context = Arc::clone(client.context());
        context.client.get_or_init(|| Arc::downgrade(&client));
        Ok(Self { client, context, keeps_pace })
    }

    pub(crate) fn latency_probe(&self) -> LatencyProbe {
        LatencyProbe(Arc::clone(&self.context))
    }

    /// Produces until the load ends, then waits for what is in flight.
    pub(crate) fn run(self) -> ProducerOutcome {
        std::thread::scope(|scope| {
            if self.keeps_pace {
                scope.spawn(|| self.keep_pace());
            }
            while !self.is_over() {
                self.context.unpark();
                self.client.poll(POLL);
            }
        });
        let statistics = self.last_statistics();
        let mut window = self.context.window.lock();
        let history = std::mem::take(&mut window.history);
        // What was transmitted and not acknowledged was transmitted in vain; every other surplus is a repetition.
        let settled = history.acks.acknowledged() + history.failed + window.occupied;
        ProducerOutcome {
            retried_messages: statistics.txmsgs.saturating_sub(settled),
            retried_requests: statistics.brokers.values().map(|broker| broker.txretries).sum(),
            unfinished: window.occupied,
            measured_messages: window.measured_messages,
            latency_us: window.latency_us.clone(),
            errors: std::mem::take(&mut window.errors),
            history,
        }
    }

    fn is_over(&self) -> bool {
        self.context.is_done() || self.context.shared.stop_deadline_passed()
    }

    /// Sends what is due, on a thread of its own: the client's binding spins through the last millisecond of a poll, so many short ones
    /// would cost more than the messages.
    fn keep_pace(&self) {
        while !self.is_over() {
            self.context.unpark();
            std::thread::sleep(PACE_LOOK);
        }
    }

    fn last_statistics(&self) -> Statistics {
        let generation = self.context.statistics.lock().0;
        let begun = Instant::now();
        while self.context.statistics.lock().0 == generation && begun.elapsed() < LAST_STATISTICS {
            self.client.poll(POLL);
        }
        self.context.statistics.lock().1.clone()
    }
}

/// Librdkafka's defaults (acks=all among them), the profile's linger, and room for windows beyond the default queue.
fn client_config(options: &LoadOptions) -> ClientConfig {
    let shape = &options.profile.producer;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.bootstrap)
        .set("client.id", "helix-workload")
        .set("acks", "all")
        .set("linger.ms", shape.linger_ms.to_string())
        .set("enable.idempotence", options.idempotent.to_string())
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS.to_string());
    if shape.inflight > 100_000 {
        config.set("queue.buffering.max.messages", shape.inflight.to_string());
    }
    let window_kbytes = shape.inflight as usize * shape.message_size / 1024 * 2;
    if window_kbytes > 1_048_576 {
        config.set("queue.buffering.max.kbytes", window_kbytes.to_string());
    }
    for (name, value) in &options.client_settings {
        config.set(name, value);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_and_only_a_short_delay_is_made_up_for() {
        assert!(Pace::new(0).is_none());
        let mut pace = Pace::new(1_000).unwrap();
        let passed = |pace: &mut Pace, now_ns| (0..1_000).take_while(|_| pace.permits(now_ns)).count();
        let second = 1_000_000_000;
        assert_eq!(passed(&mut pace, second), 101);
        assert_eq!(passed(&mut pace, second), 0);
        assert_eq!(passed(&mut pace, second + 5_000_000), 5);
        assert_eq!(passed(&mut pace, 60 * second), 101);
    }
}
