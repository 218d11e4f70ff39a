//! One measurement from end to end: floor, load, floor, reading back, report.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::client::{ClientError, ClusterClient, TopicSpec};
use crate::engine::{Load, LoadOptions, LoadOutcome, StartError};
use crate::floor::{self, FloorError};
use crate::metrics::{HttpError, Samples};
use crate::process::{ProcessError, Used};
use crate::profile::Profile;
use crate::progress::Progress;
use crate::reader::ReadError;
use crate::report::{BrokerCounters, BrokerUsage, Floors, Latency, Report, Verification};
use crate::verify;

/// After the load, how long to wait for messages in flight: longer than librdkafka itself keeps trying.
const DRAIN: Duration = Duration::from_secs(330);
const TOPIC_DEADLINE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Kafka addresses.
    pub bootstrap: String,
    /// The topic, made if it does not exist.
    pub topic: TopicSpec,
    /// The load.
    pub profile: Profile,
    /// Whether producers are idempotent.
    pub idempotent: bool,
    /// Holds each producer to so many messages per second; 0 is as many as its window allows.
    pub messages_per_second: u32,
    /// Further librdkafka settings.
    pub client_settings: Vec<(String, String)>,
    /// Processes whose CPU time and memory are the brokers'.
    pub broker_pids: Vec<u32>,
    /// `HOST:PORT` of each broker's `/metrics`.
    pub metrics: Vec<String>,
    /// Where the floor writes its files; without it there is no floor.
    pub floor_directory: Option<PathBuf>,
    /// Whether everything is read back and checked.
    pub verify: bool,
}

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The cluster could not be asked, or not make the topic.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The load could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The floor could not be measured.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// Not everything could be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A broker's process could not be observed.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A broker's metrics could not be read.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// Runs the measurement.
pub fn run(options: &BenchOptions, progress: &Progress) -> Result<Report, BenchError> {
    let client = ClusterClient::new(&options.bootstrap)?;
    let view = client.ensure_topic(&options.topic, TOPIC_DEADLINE)?;
    let floor = |when| floor::beside(options.floor_directory.as_deref(), when, progress);
    let floor_before = floor("before")?;
    let before = Observation::take(options)?;
    let load = Load::start(LoadOptions {
        bootstrap: options.bootstrap.clone(),
        topic: options.topic.name.clone(),
        partitions: view.partitions.len() as u32,
        profile: options.profile.clone(),
        idempotent: options.idempotent,
        messages_per_producer: None,
        messages_per_second: options.messages_per_second,
        timeline: false,
        client_settings: options.client_settings.clone(),
    })?;
    let (outcome, used) = drive(load, options, progress)?;
    let after = Observation::take(options)?;
    let floor_after = floor("after")?;
    let verification = if options.verify { Some(read_back(&client, &outcome, progress)?) } else { None };
    let mut report = summarise(options, &outcome);
    // What the topic has, whether or not the number was asked for.
    report.replicas = view.partitions.iter().map(|one| one.replicas as u32).max().unwrap_or(1);
    report.client_cpu_s_per_gb = per_gb(used.client.cpu, &outcome);
    report.brokers = used.brokers.map(|usage| BrokerUsage {
        cpu_s_per_gb: per_gb(usage.cpu, &outcome),
        peak_mb_of_one: usage.peak_bytes as f64 / 1e6,
    });
    report.counters = after.counters_since(&before);
    report.floors = floor_before.zip(floor_after).map(|(before, after)| Floors { before, after });
    report.verification = verification;
    Ok(report)
}

/// Warm-up, measured time, and the end.
fn drive(
    mut load: Load,
    options: &BenchOptions,
    progress: &Progress,
) -> Result<(LoadOutcome, Used), BenchError> {
    let execution = &options.profile.execution;
    let bar = progress.stage(&options.profile.name, None);
    let watch = |load: &Load, seconds: u64| {
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until && !load.is_finished() {
            std::thread::sleep(LOOK);
            bar.set(load.progress().acknowledged);
        }
    };
    watch(&load, execution.warmup_secs);
    let before = Used::look(&options.broker_pids)?;
    load.begin_measuring();
    watch(&load, execution.duration_secs);
    load.end_measuring();
    let used = Used::look(&options.broker_pids)?.since(before);
    bar.finish();
    Ok((load.stop(DRAIN), used))
}

fn read_back(
    client: &ClusterClient,
    outcome: &LoadOutcome,
    progress: &Progress,
) -> Result<Verification, BenchError> {
    let verified = verify::verify(client, &outcome.history, progress)?;
    Ok(Verification {
        records: verified.records,
        mb_per_s: verified.bytes as f64 / 1e6 / verified.took.as_secs_f64(),
        findings: verified.findings,
    })
}

fn per_gb(cpu: Duration, outcome: &LoadOutcome) -> f64 {
    let bytes = outcome.measured_messages * outcome.history.message_size as u64;
    cpu.as_secs_f64() / (bytes.max(1) as f64 / 1e9)
}

/// The report's part that the load alone determines.
pub fn summarise(options: &BenchOptions, outcome: &LoadOutcome) -> Report {
    let shape = &options.profile.producer;
    let seconds = outcome.measured.as_secs_f64().max(f64::MIN_POSITIVE);
    let bytes = outcome.measured_messages as f64 * outcome.history.message_size as f64;
    Report {
        profile: options.profile.name.clone(),
        shape: format!(
            "{} producers{}, {} in flight each, {} bytes, linger {} ms",
            shape.threads,
            if options.idempotent { ", idempotent" } else { "" },
            shape.inflight,
            shape.message_size,
            shape.linger_ms
        ),
        seconds,
        messages: outcome.measured_messages,
        mb_per_s: bytes / 1e6 / seconds,
        messages_per_s: outcome.measured_messages as f64 / seconds,
        failed: outcome.failed(),
        retried_messages: outcome.retried_messages,
        retried_requests: outcome.retried_requests,
        latency: Latency::of(&outcome.latency_us),
        client_cpu_s_per_gb: 0.0,
        brokers: None,
        counters: None,
        replicas: options.topic.replication_factor.unwrap_or(1),
        floors: None,
        verification: None,
        errors: outcome.errors.clone(),
    }
}

/// The brokers' counters at one moment.
struct Observation {
    samples: Option<Samples>,
}

impl Observation {
    fn take(options: &BenchOptions) -> Result<Self, BenchError> {
        let known = !options.metrics.is_empty();
        Ok(Self { samples: known.then(|| Samples::fetch_all(&options.metrics)).transpose()? })
    }

    fn counters_since(&self, before: &Self) -> Option<BrokerCounters> {
        let (after, before) = (self.samples.as_ref()?, before.samples.as_ref()?);
        // Names of helix-server; another cluster has none of them, and then nothing is reported.
        let growth = |name| after.growth(before, name);
        let entries = growth("helix_entry_batches_count").filter(|entries| *entries > 0.0);
        Some(BrokerCounters {
            elections: growth("helix_elections_started_total"),
            syncs: growth("helix_wal_syncs_total"),
            produce_requests: growth("helix_requests_total{api=\"Produce\"}"),
            requests_held: growth("helix_produce_held_total"),
            requests_refused: growth("helix_produce_refused_total"),
            batches_per_entry: growth("helix_entry_batches_sum").zip(entries).map(|(sum, count)| sum / count),
        })
    }
}
