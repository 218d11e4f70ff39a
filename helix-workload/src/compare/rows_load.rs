//! Rows that put a load on a cluster of three nodes.

use std::time::Duration;

use super::Scale;
use super::results::Figures;
use super::rows::{
    ALONE_P99_MS, CLIENT_CPU_PER_GB, CPU_PER_GB, CPU_PER_REQUEST, ELECTIONS, FLOOR, MB_PER_S, P50_MS, P99_MS,
    P999_MS, PEAK_MB, REQUESTS_PER_S,
};
use super::subjects::{CompareError, Contender, Subject, Subjects};
use crate::bench::{self, BenchOptions};
use crate::client::{ClusterClient, TopicSpec};
use crate::flood::{self, FloodOptions, FloodReport, Stream};
use crate::floor::{self, Storing};
use crate::process::forget_peak;
use crate::profile::Profile;
use crate::report::{Latency, Report};

pub(super) const PARTITIONS: u32 = 12;
/// What latency is looked at of, while something else goes on.
pub(super) const FEW_SMALL: Stream =
    Stream { connections: 4, in_flight: 64, messages: 1, bytes: 1024, rate: 200 };
/// The disk is so many times slower than the page cache, or more.
const SYNCED_FLOOR_PARTS: u64 = 4;

pub(super) fn one_producer(
    subjects: &mut Subjects<'_>,
    contender: Contender,
) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    producers(subjects, contender, &subject, 1)
}

pub(super) fn six_producers(
    subjects: &mut Subjects<'_>,
    contender: Contender,
) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    producers(subjects, contender, &subject, 6)
}

fn producers(
    subjects: &mut Subjects<'_>,
    contender: Contender,
    subject: &Subject,
    threads: u32,
) -> Result<Figures, CompareError> {
    let mut profile = profile("throughput", subjects.scale(), subjects.scale().measured);
    profile.producer.threads = threads;
    let report = Measured::new(subjects, contender, profile).on(subject)?;
    Ok(throughput(&report))
}

pub(super) fn stress(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    let profile = profile("stress", subjects.scale(), subjects.scale().stress);
    subject.pids.iter().try_for_each(|pid| forget_peak(*pid))?;
    let report = Measured::new(subjects, contender, profile).on(&subject)?;
    let elections = report.counters.and_then(|counters| counters.elections);
    let peak_mb = report.brokers.map(|brokers| brokers.peak_mb_of_one);
    Ok(throughput(&report).with_known(PEAK_MB, peak_mb).with_known(ELECTIONS, elections))
}

pub(super) fn fsync(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes_fsync(contender)?;
    let profile = profile("throughput", subjects.scale(), subjects.scale().measured);
    let directory = subjects.directory();
    let floor_bytes = subjects.scale().floor_bytes() / SYNCED_FLOOR_PARTS;
    let floor = |contender| match contender {
        Contender::Helix => floor::measure(&directory, floor_bytes, Storing::Synced).map(Some),
        Contender::Kafka => Ok(None),
    };
    let before = floor(contender)?;
    let mut measured = Measured::new(subjects, contender, profile);
    if contender == Contender::Kafka {
        measured.topic.settings = vec![("flush.messages".into(), "1".into())];
    }
    let report = measured.on(&subject)?;
    let both = before.zip(floor(contender)?);
    let floor = both.map(|(before, after)| f64::midpoint(before.mb_per_s, after.mb_per_s));
    Ok(throughput(&report).with_known(FLOOR, floor))
}

pub(super) fn own_load(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    let measured = subjects.scale().measured;
    let directory = subjects.directory();
    let topic = subjects.topic(PARTITIONS, &[]);
    let floor_bytes = subjects.scale().floor_bytes();
    let floor = || floor::measure(&directory, floor_bytes, Storing::PageCache);
    let before = floor()?;
    let report = flood_with(subjects, &subject, topic, &[Stream::default()], measured)?;
    let floor = f64::midpoint(before.mb_per_s, floor()?.mb_per_s);
    let figures = Figures::default()
        .with(MB_PER_S, report.mb_per_s)
        .with(CLIENT_CPU_PER_GB, report.client_cpu_s_per_gb)
        .with_known(CPU_PER_GB, report.broker_cpu_s_per_gb)
        .with(FLOOR, floor);
    Ok(with_latency(figures, &report.streams[0].latency))
}

pub(super) fn small(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    let subject = subjects.three_nodes(contender)?;
    let measured = subjects.scale().measured;
    let topic = subjects.topic(PARTITIONS, &[]);
    let stream = Stream { connections: 200, in_flight: 1, messages: 1, bytes: 100, rate: 0 };
    let report = flood_with(subjects, &subject, topic, &[stream], measured)?;
    let figures = Figures::default()
        .with(REQUESTS_PER_S, report.streams[0].requests_per_s)
        .with_known(CPU_PER_REQUEST, report.broker_cpu_us_per_request);
    Ok(with_latency(figures, &report.streams[0].latency))
}

pub(super) fn mixed(subjects: &mut Subjects<'_>, contender: Contender) -> Result<Figures, CompareError> {
    const LARGE_BYTES: u32 = 8 << 20;
    let subject = subjects.three_nodes(contender)?;
    let measured = subjects.scale().measured;
    let large = Stream { connections: 2, in_flight: 4, messages: 1, bytes: LARGE_BYTES, rate: 6 };
    let mut with = |streams: &[Stream]| {
        let topic = subjects.topic(PARTITIONS, &[("max.message.bytes", "16777216")]);
        flood_with(subjects, &subject, topic, streams, measured)
    };
    let alone = with(&[FEW_SMALL])?;
    let beside = with(&[FEW_SMALL, large])?;
    let figures = Figures::default()
        .with(ALONE_P99_MS, alone.streams[0].latency.p99_ms)
        .with("MB/s of large ones", beside.streams[1].mb_per_s)
        .with("p99 ms of large ones", beside.streams[1].latency.p99_ms);
    Ok(with_latency(figures, &beside.streams[0].latency))
}

/// Gives a cluster load that is not measured.
pub(super) fn warm_up(
    subjects: &mut Subjects<'_>,
    subject: &Subject,
    time: Duration,
) -> Result<(), CompareError> {
    let profile = profile("throughput", subjects.scale(), time);
    Measured::new(subjects, Contender::Kafka, profile).on(subject).map(|_| ())
}

pub(super) fn profile(name: &str, scale: Scale, measured: Duration) -> Profile {
    let mut profile = Profile::built_in(name).expect("rows name built-in profiles");
    profile.execution.warmup_secs = scale.warm_up().as_secs();
    profile.execution.duration_secs = measured.as_secs().max(1);
    profile
}

/// A load of librdkafka's that is measured.
pub(super) struct Measured {
    topic: TopicSpec,
    profile: Profile,
    /// Of each producer; 0 is as many as go.
    pub(super) messages_per_second: u32,
    verify: bool,
    progress: crate::progress::Progress,
}

impl Measured {
    pub(super) fn new(subjects: &mut Subjects<'_>, contender: Contender, profile: Profile) -> Self {
        Self {
            topic: subjects.topic(PARTITIONS, &[]),
            profile,
            messages_per_second: 0,
            verify: contender == Contender::Helix,
            progress: subjects.progress,
        }
    }

    pub(super) fn on(self, subject: &Subject) -> Result<Report, CompareError> {
        let options = BenchOptions {
            bootstrap: subject.bootstrap.clone(),
            topic: self.topic,
            profile: self.profile,
            idempotent: false,
            messages_per_second: self.messages_per_second,
            client_settings: Vec::new(),
            broker_pids: subject.pids.clone(),
            metrics: subject.metrics.clone(),
            floor_directory: None,
            verify: self.verify,
        };
        let report = bench::run(&options, &self.progress)?;
        ClusterClient::new(&subject.bootstrap)?.delete_topic(&options.topic.name)?;
        report.fault().map_or(Ok(report), |fault| Err(CompareError::Wrong(fault)))
    }
}

pub(super) fn flood_with(
    subjects: &Subjects<'_>,
    subject: &Subject,
    topic: TopicSpec,
    streams: &[Stream],
    duration: Duration,
) -> Result<FloodReport, CompareError> {
    let options = FloodOptions {
        bootstrap: subject.bootstrap.clone(),
        topic,
        streams: streams.to_vec(),
        warmup: subjects.scale().warm_up(),
        duration,
        broker_pids: subject.pids.clone(),
        floor_directory: None,
    };
    let report = flood::run(&options, &subjects.progress)?;
    ClusterClient::new(&subject.bootstrap)?.delete_topic(&options.topic.name)?;
    report.fault().map_or(Ok(report), |fault| Err(CompareError::Wrong(fault)))
}

fn throughput(report: &Report) -> Figures {
    let figures = Figures::default()
        .with(MB_PER_S, report.mb_per_s)
        .with(CLIENT_CPU_PER_GB, report.client_cpu_s_per_gb)
        .with_known(CPU_PER_GB, report.brokers.map(|brokers| brokers.cpu_s_per_gb));
    with_latency(figures, &report.latency)
}

pub(super) fn with_latency(figures: Figures, latency: &Latency) -> Figures {
    figures.with(P50_MS, latency.p50_ms).with(P99_MS, latency.p99_ms).with(P999_MS, latency.p999_ms)
}
