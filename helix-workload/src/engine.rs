//! The load: producers on threads of their own, and what the rest of the program may see and steer of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rdkafka::error::KafkaError;

use crate::history::{History, ReadLog};
use crate::message::{Messages, RunId};
use crate::producer::{Counters, LatencyProbe, LoadProducer, ProducerOutcome};
use crate::profile::Profile;

/// What load to apply to what.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Kafka addresses, `HOST:PORT,...`.
    pub bootstrap: String,
    /// An existing topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: u32,
    /// Shape and size of the load; its durations are the caller's business.
    pub profile: Profile,
    /// Whether producers are idempotent.
    pub idempotent: bool,
    /// Ends each producer after so many messages.
    pub messages_per_producer: Option<u64>,
    /// Holds each producer to so many messages per second; 0 is as many as its window allows.
    pub messages_per_second: u32,
    /// Keeps track of latest latencies and of partitions that fall silent.
    pub timeline: bool,
    /// Further librdkafka settings.
    pub client_settings: Vec<(String, String)>,
}

/// Where the load is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Messages flow but are not measured.
    WarmUp,
    /// Messages flow and are measured.
    Measuring,
    /// No new messages; those in flight are awaited.
    Ending,
}

const NEVER: u64 = u64::MAX;
/// Acknowledgements that were on their way when the fault happened arrive within this time; it is well below what any
/// election takes.
const IN_TRANSIT_NS: u64 = 200_000_000;

/// How long a partition acknowledged nothing.
#[derive(Debug)]
struct Silence {
    last_ns: AtomicU64,
    longest_ns: AtomicU64,
}

impl Silence {
    fn broken(&self, now_ns: u64) {
        let last_ns = self.last_ns.swap(now_ns, Ordering::Relaxed);
        self.longest_ns.fetch_max(now_ns.saturating_sub(last_ns), Ordering::Relaxed);
    }

    fn begin_anew(&self, now_ns: u64) {
        self.last_ns.store(now_ns, Ordering::Relaxed);
        self.longest_ns.store(0, Ordering::Relaxed);
    }

    /// The one that goes on counts.
    fn longest_ns(&self, now_ns: u64) -> u64 {
        let ongoing_ns = now_ns.saturating_sub(self.last_ns.load(Ordering::Relaxed));
        self.longest_ns.load(Ordering::Relaxed).max(ongoing_ns)
    }
}

/// What the producers and the owner of the load share.
pub(crate) struct Shared {
    epoch: Instant,
    phase: AtomicU8,
    stop_deadline_ns: AtomicU64,
    /// When the fault happened that recovery is measured from.
    fault_ns: AtomicU64,
    /// By partition: when it first acknowledged a message that only a new leader can have acknowledged.
    recovered_ns: Vec<AtomicU64>,
    /// By partition; empty unless the load keeps track of it.
    silences: Vec<Silence>,
    client_errors: Mutex<Vec<String>>,
}

impl Shared {
    fn new(partitions: u32, timeline: bool) -> Self {
        let silence = || Silence { last_ns: AtomicU64::new(0), longest_ns: AtomicU64::new(0) };
        Self {
            epoch: Instant::now(),
            phase: AtomicU8::new(Phase::WarmUp as u8),
            stop_deadline_ns: AtomicU64::new(NEVER),
            fault_ns: AtomicU64::new(NEVER),
            recovered_ns: (0..partitions).map(|_| AtomicU64::new(NEVER)).collect(),
            silences: (0..if timeline { partitions } else { 0 }).map(|_| silence()).collect(),
            client_errors: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(NEVER)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::WarmUp,
            1 => Phase::Measuring,
            _ => Phase::Ending,
        }
    }

    pub(crate) fn stop_deadline_passed(&self) -> bool {
        self.now_ns() >= self.stop_deadline_ns.load(Ordering::Relaxed)
    }

    pub(crate) fn note_acknowledgement(&self, partition: i32, sent_ns: u64, now_ns: u64) {
        if let Some(silence) = usize::try_from(partition).ok().and_then(|index| self.silences.get(index)) {
            silence.broken(now_ns);
        }
        self.note_recovery(partition, sent_ns, now_ns);
    }

    fn note_recovery(&self, partition: i32, sent_ns: u64, now_ns: u64) {
        let fault_ns = self.fault_ns.load(Ordering::Relaxed);
        if sent_ns <= fault_ns && now_ns <= fault_ns.saturating_add(IN_TRANSIT_NS) {
            return;
        }
        if let Some(slot) = usize::try_from(partition).ok().and_then(|index| self.recovered_ns.get(index)) {
            // Only the first one writes; afterwards this is a read of a line that nobody changes.
            if slot.load(Ordering::Relaxed) == NEVER {
                slot.fetch_min(now_ns, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn note_client_error(&self, error: &str) {
        let mut errors = self.client_errors.lock();
        if errors.len() < 20 && !errors.iter().any(|known| known == error) {
            errors.push(error.to_owned());
        }
    }
}

/// How far a running load is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages acknowledged so far.
    pub acknowledged: u64,
    /// Messages failed so far.
    pub failed: u64,
}

/// What a load did.
#[derive(Debug)]
pub struct LoadOutcome {
    /// What was sent and what was acknowledged, to be verified.
    pub history: History,
    /// Acknowledged within the measured time.
    pub measured_messages: u64,
    /// The measured time.
    pub measured: Duration,
    /// Latencies within the measured time, in microseconds.
    pub latency_us: Histogram<u64>,
    /// Messages transmitted more than once.
    pub retried_messages: u64,
    /// Requests transmitted more than once.
    pub retried_requests: u64,
    /// Messages of which nothing was heard until the deadline.
    pub unfinished: u64,
    /// Why messages failed and what the clients complained about, the first few.
    pub errors: Vec<String>,
}

impl LoadOutcome {
    /// Messages that failed, or of which nothing was heard.
    pub fn failed(&self) -> u64 {
        self.history.failed() + self.unfinished
    }
}

/// The load could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the producer can't be started: {0}; check --bootstrap and the client settings")]
pub struct StartError(#[from] KafkaError);

/// A running load.
pub struct Load {
    options: LoadOptions,
    messages: Arc<Messages>,
    shared: Arc<Shared>,
    counters: Vec<Arc<Counters>>,
    probes: Vec<LatencyProbe>,
    threads: Vec<JoinHandle<ProducerOutcome>>,
    measured_from: Option<Instant>,
    measured: Duration,
}

impl Load {
    /// Starts all producers.
    pub fn start(options: LoadOptions) -> Result<Self, StartError> {
        let run = RunId(SmallRng::from_os_rng().random());
        let messages = Arc::new(Messages::new(run, options.profile.producer.message_size));
        let shared = Arc::new(Shared::new(options.partitions, options.timeline));
        let mut producers: Vec<LoadProducer> = Vec::new();
        let mut counters = Vec::new();
        for number in 0..options.profile.producer.threads {
            let own = Arc::new(Counters::default());
            counters.push(Arc::clone(&own));
            let (messages, shared) = (Arc::clone(&messages), Arc::clone(&shared));
            producers.push(LoadProducer::new(number, &options, messages, shared, own)?);
        }
        let probes = producers.iter().map(LoadProducer::latency_probe).collect();
        let threads = producers.into_iter().map(|one| std::thread::spawn(move || one.run())).collect();
        Ok(Self {
            options,
            messages,
            shared,
            counters,
            probes,
            threads,
            measured_from: None,
            measured: Duration::ZERO,
        })
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for counters in &self.counters {
            progress.acknowledged += counters.acknowledged.load(Ordering::Relaxed);
            progress.failed += counters.failed.load(Ordering::Relaxed);
        }
        progress
    }

    /// The messages of this load.
    pub fn messages(&self) -> &Arc<Messages> {
        &self.messages
    }

    /// Adds the latencies of what was acknowledged since the last call, in microseconds, if the load keeps track of them.
    pub fn take_latencies(&self, sum: &mut Histogram<u64>) {
        for probe in &self.probes {
            probe.take_into(sum);
        }
    }

    /// From now on silences of partitions are measured anew.
    pub fn mark_silence(&self) {
        let now_ns = self.shared.now_ns();
        for silence in &self.shared.silences {
            silence.begin_anew(now_ns);
        }
    }

    /// The longest time that a partition acknowledged nothing, if the load keeps track of it.
    pub fn longest_silence(&self, partition: i32) -> Option<Duration> {
        let silence = self.shared.silences.get(usize::try_from(partition).ok()?)?;
        Some(Duration::from_nanos(silence.longest_ns(self.shared.now_ns())))
    }

    /// From now on messages are measured.
    pub fn begin_measuring(&mut self) {
        self.measured_from = Some(Instant::now());
        self.shared.phase.store(Phase::Measuring as u8, Ordering::Relaxed);
    }

    /// From now on they are not, but flow on.
    pub fn end_measuring(&mut self) {
        if let Some(from) = self.measured_from.take() {
            self.shared.phase.store(Phase::WarmUp as u8, Ordering::Relaxed);
            self.measured = from.elapsed();
        }
    }

    /// Whether all producers have sent what they were told to send and heard of it.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// A fault happens now: forget earlier recoveries, and note for each partition when it first acknowledges a message
    /// that was sent after the fault, or that is acknowledged too late to have been acknowledged before it.
    pub fn mark_fault(&self) {
        self.shared.fault_ns.store(NEVER, Ordering::SeqCst);
        for slot in &self.shared.recovered_ns {
            slot.store(NEVER, Ordering::SeqCst);
        }
        self.shared.fault_ns.store(self.shared.now_ns(), Ordering::Relaxed);
    }

    /// How long after the fault a partition acknowledged messages again; `None` until then.
    pub fn recovery(&self, partition: i32) -> Option<Duration> {
        let slot = self.shared.recovered_ns.get(usize::try_from(partition).ok()?)?;
        let fault_ns = self.shared.fault_ns.load(Ordering::Relaxed);
        match slot.load(Ordering::Relaxed) {
            NEVER => None,
            at => Some(Duration::from_nanos(at.saturating_sub(fault_ns))),
        }
    }

    /// Sends nothing new, waits for what is in flight (at most `deadline`) and says what happened.
    pub fn stop(mut self, deadline: Duration) -> LoadOutcome {
        self.end_measuring();
        let deadline_ns = self.shared.now_ns().saturating_add(deadline.as_nanos() as u64);
        self.shared.stop_deadline_ns.store(deadline_ns, Ordering::Relaxed);
        self.shared.phase.store(Phase::Ending as u8, Ordering::Relaxed);
        self.join()
    }

    /// Waits until all producers have sent their `messages_per_producer`.
    pub fn finish(mut self) -> LoadOutcome {
        self.measured = self.measured_from.take().map_or(Duration::ZERO, |from| {
            while !self.is_finished() && !self.all_acknowledged() {
                std::thread::sleep(Duration::from_millis(1));
            }
            from.elapsed()
        });
        self.join()
    }

    fn all_acknowledged(&self) -> bool {
        let progress = self.progress();
        let each = self.options.messages_per_producer.unwrap_or(u64::MAX);
        progress.acknowledged >= each.saturating_mul(self.counters.len() as u64)
    }

    fn join(self) -> LoadOutcome {
        let mut outcomes = Vec::new();
        for thread in self.threads {
            match thread.join() {
                Ok(outcome) => outcomes.push(outcome),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        let mut outcome = LoadOutcome {
            history: History {
                run: self.messages.run().0,
                topic: self.options.topic,
                message_size: self.messages.size(),
                idempotent: self.options.idempotent,
                producers: Vec::new(),
                reads: ReadLog::default(),
            },
            measured_messages: 0,
            measured: self.measured,
            latency_us: Histogram::new(3).expect("three digits are allowed"),
            retried_messages: 0,
            retried_requests: 0,
            unfinished: 0,
            errors: self.shared.client_errors.lock().clone(),
        };
        for one in outcomes {
            outcome.absorb(one);
        }
        outcome
    }
}

impl LoadOutcome {
    fn absorb(&mut self, one: ProducerOutcome) {
        self.measured_messages += one.measured_messages;
        self.retried_messages += one.retried_messages;
        self.retried_requests += one.retried_requests;
        self.unfinished += one.unfinished;
        self.errors.extend(one.errors);
        self.latency_us.add(&one.latency_us).expect("this histogram resizes itself, so that any other fits");
        self.history.producers.push(one.history);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_counts_also_while_it_goes_on() {
        let shared = Shared::new(2, true);
        for now_ns in [10, 30, 35] {
            shared.note_acknowledgement(1, 0, now_ns);
        }
        let longest = |now_ns| shared.silences[1].longest_ns(now_ns);
        assert_eq!((longest(35), longest(40), longest(95)), (20, 20, 60));
        shared.silences[1].begin_anew(100);
        assert_eq!((longest(100), longest(103)), (0, 3));
    }
}
