//! Chaos: a cluster of real processes under load, one fault after the other, and a judgement at the end.
//!
//! [`schedule`] says which [`fault`] comes when (all of it from a seed), [`world`] holds the nodes, the [`network`] between them and
//! their disks and does to them what is to be done. Meanwhile [`two_loads`] produce, [`tail`] reads, the members of consumer
//! [`groups`] come and go, and the [`timeline`] is written. At the end everything is read back and checked ([`check`](crate::check)), the logs of the replicas are
//! compared ([`replicas`]), and [`report`] and [`page`] show what came of it.
//!
//! `fault`, `schedule`, `report`, the checks in `tail` and `groups`, and the comparison in `replicas` are pure.

pub mod fault;
pub mod groups;
pub mod network;
pub mod page;
pub mod replicas;
pub mod report;
pub mod schedule;
pub mod small_disk;
pub mod tail;
pub mod timeline;
pub mod world;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use rdkafka::error::KafkaError;

use crate::client::{ClientError, ClusterClient, ClusterView};
use crate::cluster::{ClusterError, DEADLINE};
use crate::engine::LoadOutcome;
use crate::history::ReadLog;
use crate::profile::ProducerShape;
use crate::progress::{Clock, Progress};
use crate::reader::ReadError;
use crate::two_loads::{self, TOPICS, TwoLoads, TwoLoadsError, TwoLoadsOptions};
use crate::wait::{self, TimedOut};
use fault::Fault;
use groups::{Groups, GroupsReport};
use replicas::DumpError;
use report::Report;
use schedule::{Plan, Schedule, Strike};
use tail::Tail;
use timeline::{Episode, Timeline, Totals};
use world::World;

/// Producers of each of the two loads.
const PRODUCERS: u32 = 2;
/// Of each topic: few, so that each is heard of often at a moderate rate.
const PARTITIONS: u32 = 6;
/// More than is sent in the time that an election takes, so that partitions that suffer don't hold up the others.
const WINDOW_SECONDS: u32 = 15;
const SECOND: Duration = Duration::from_secs(1);

/// What to do to what.
#[derive(Debug, Clone)]
pub struct ChaosOptions {
    /// The `helix-server` to run.
    pub binary: PathBuf,
    /// Where logs and data go; emptied first, removed at the end unless something was found.
    pub directory: PathBuf,
    /// 3 or 5.
    pub nodes: u32,
    /// `--write-durability`.
    pub write_durability: String,
    /// No new fault begins after this time.
    pub duration: Duration,
    /// Nor after every kind struck so often.
    pub rounds: Option<usize>,
    /// Of the schedule.
    pub seed: u64,
    /// What may happen.
    pub faults: Vec<Fault>,
    /// Faults last half to one and a half of it.
    pub fault: Duration,
    /// Between a recovery and the next fault.
    pub calm: Duration,
    /// Sent by all producers together.
    pub messages_per_second: u32,
    /// Bytes of each message.
    pub message_size: usize,
    /// A line of JSON for everything that happens.
    pub history: Option<PathBuf>,
}

/// Something can't be done on this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// Why a run could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// A node.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A node whose syncs fail ended without saying so.
    #[error("node {node} ended when its syncs failed, as it must, but did not say why")]
    SilentEnd {
        /// Which node.
        node: u32,
    },
    /// The cluster could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something took too long.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The loads could not be started.
    #[error(transparent)]
    Loads(#[from] TwoLoadsError),
    /// The consumers could not be started.
    #[error("the consumers can't be started: {0}")]
    Tail(#[from] KafkaError),
    /// What was stored could not be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The logs could not be compared.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// A file or a socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl ChaosOptions {
    fn plan(&self, world: &World) -> Plan {
        let skipped: Vec<Fault> = world.skipped().iter().map(|(fault, _)| *fault).collect();
        let possible = self.faults.iter().copied().filter(|fault| !skipped.contains(fault));
        Plan { seed: self.seed, nodes: self.nodes, faults: possible.collect(), fault: self.fault }
    }

    fn loads(&self) -> TwoLoadsOptions {
        let per_producer = (self.messages_per_second / (PRODUCERS * TOPICS.len() as u32)).max(1);
        let inflight = per_producer * WINDOW_SECONDS;
        let message_size = self.message_size;
        TwoLoadsOptions {
            partitions: PARTITIONS,
            replication_factor: self.nodes,
            producers: ProducerShape { threads: PRODUCERS, inflight, message_size, linger_ms: 5 },
            messages_per_second: per_producer,
            timeline: true,
        }
    }
}

/// Runs a cluster, lets it suffer, and judges what is left.
pub fn run(options: &ChaosOptions, progress: Progress) -> Result<Report, ChaosError> {
    let mut world = World::start(options)?;
    let timeline = Timeline::begin(options.history.as_deref())?;
    for (fault, reason) in world.skipped() {
        let text = format!("SKIPPED: {fault}: {reason}");
        progress.note(&text);
        timeline.note(&text);
    }
    let bootstrap = world.cluster().bootstrap();
    let loads = TwoLoads::start(&bootstrap, &options.loads())?;
    let tail =
        |load: usize| Tail::start(&bootstrap, TOPICS[load], PARTITIONS as i32, loads.messages(load).clone());
    let tails = [tail(0)?, tail(1)?];
    let groups = Groups::start(&bootstrap, PARTITIONS as i32, options.seed)?;
    let clock = progress.clock("chaos", options.duration);
    let doing = Mutex::new(String::from("calm"));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| sample(&loads, &tails, &timeline, &clock, &doing, &over));
        let mut run = Run {
            options,
            world: &mut world,
            loads: &loads,
            timeline: &timeline,
            clock: &clock,
            doing: &doing,
        };
        run.suffer();
        over.store(true, Ordering::Relaxed);
    });
    clock.finish();
    let load = LoadAndReaders { loads, tails, groups };
    let report = conclude(options, &mut world, load, timeline, progress)?;
    if report.violations.is_empty() {
        return Ok(report);
    }
    world.keep();
    progress.note(&format!("logs and data are kept in {}", options.directory.display()));
    Ok(report)
}

/// Writes down every second, until it is over.
fn sample(
    loads: &TwoLoads,
    tails: &[Tail; 2],
    timeline: &Timeline,
    clock: &Clock,
    doing: &Mutex<String>,
    over: &AtomicBool,
) {
    let mut latency_us = Histogram::new(3).expect("three digits are allowed");
    let mut earlier = (Instant::now(), Totals::default());
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep((earlier.0 + SECOND).saturating_duration_since(Instant::now()).min(SECOND));
        latency_us.reset();
        loads.take_latencies(&mut latency_us);
        let [plain, idempotent] = loads.progress();
        let now = Totals {
            acknowledged: [plain.acknowledged, idempotent.acknowledged],
            read: tails.iter().map(Tail::records).sum(),
            failed: plain.failed + idempotent.failed,
        };
        let second = now.second_since(&earlier.1, earlier.0.elapsed(), timeline.now_s(), &latency_us);
        earlier = (Instant::now(), now);
        clock.show(&format!(
            "{:.0} messages/s, slowest {:.0} ms, {} failed; {}",
            second.plain_per_s + second.idempotent_per_s,
            second.max_ms.unwrap_or(f64::NAN),
            second.failed,
            doing.lock(),
        ));
        timeline.second(second);
    }
}

/// A run that goes on.
struct Run<'a> {
    options: &'a ChaosOptions,
    world: &'a mut World,
    loads: &'a TwoLoads,
    timeline: &'a Timeline,
    clock: &'a Clock,
    doing: &'a Mutex<String>,
}

impl Run<'_> {
    /// One fault after the other, until the time is over or the cluster does not recover.
    fn suffer(&mut self) {
        let until = Instant::now() + self.options.duration;
        let plan = self.options.plan(self.world);
        let most = self.options.rounds.map_or(usize::MAX, |rounds| rounds * plan.faults.len());
        let mut views = self.world.await_whole(self.loads);
        for strike in Schedule::new(plan).take(most) {
            let Ok(whole) = &views else { break };
            if Instant::now() >= until {
                break;
            }
            let outcome = self.episode(&strike, whole);
            views = self.recovered(&strike, outcome);
        }
        if let Err(error) = views {
            self.violation(format!("the cluster is not whole again: {error}"));
        }
        *self.doing.lock() = "calm".into();
    }

    /// A node that ended by itself is started again: one such finding must not keep others from being found.
    fn recovered(
        &mut self,
        strike: &Strike,
        outcome: Result<[ClusterView; 2], ChaosError>,
    ) -> Result<[ClusterView; 2], ChaosError> {
        match outcome {
            Err(error) if world::says_died(&error) || matches!(error, ChaosError::SilentEnd { .. }) => {
                self.violation(format!("in or before {}: {error}", strike.fault));
                self.world.heal(&strike.order)?;
                self.world.await_whole(self.loads)
            }
            other => other,
        }
    }

    fn violation(&self, text: String) {
        self.clock.note(&format!("VIOLATION at {:.1} s: {text}", self.timeline.now_s()));
        self.timeline.violation(text);
    }

    /// A calm, a fault, and the recovery from it.
    fn episode(&mut self, strike: &Strike, views: &[ClusterView; 2]) -> Result<[ClusterView; 2], ChaosError> {
        *self.doing.lock() = "calm".into();
        let (before_per_s, silence_before) = self.calm()?;
        let victims = self.world.victims(strike, views);
        let particulars = particulars(strike);
        *self.doing.lock() = format!("{} of {victims:?}", strike.fault);
        self.clock.note(&format!(
            "{:>7.1} s  {} of {victims:?} {particulars}",
            self.timeline.now_s(),
            strike.fault
        ));
        self.timeline.fault_begins(strike.fault, &victims, &particulars);
        self.loads.mark_silence();
        let begun_s = self.timeline.now_s();
        let (begun, acknowledged) = (Instant::now(), self.loads.acknowledged());
        self.world.begin(strike, &victims)?;
        self.world.last(strike, &victims, self.loads)?;
        let during_per_s = (self.loads.acknowledged() - acknowledged) as f64 / begun.elapsed().as_secs_f64();
        let (healed, healed_s) = (Instant::now(), self.timeline.now_s());
        self.timeline.fault_ends(strike.fault);
        *self.doing.lock() = format!("recovering from {}", strike.fault);
        self.loads.mark_fault();
        self.world.heal(&strike.order)?;
        let serving = self.loads.await_recovery(|_, _| true);
        let led = |load: usize, partition: i32| is_led_by(&views[load], partition, &victims);
        let longest = |of_victims: bool| {
            let silence = self.loads.longest_silence(|load, partition| led(load, partition) == of_victims);
            silence.map(milliseconds)
        };
        let mut episode = Episode {
            fault: strike.fault,
            particulars,
            begun_s,
            healed_s,
            serving_after_ms: serving.as_ref().ok().copied().map(milliseconds),
            whole_after_ms: None,
            before_per_s,
            during_per_s,
            silence_before_ms: milliseconds(silence_before),
            interruption_led_ms: longest(true),
            interruption_others_ms: longest(false),
            nodes: victims,
        };
        let whole = match serving {
            Ok(_) => self.world.await_whole(self.loads),
            Err(error) => Err(error.into()),
        };
        episode.whole_after_ms = whole.is_ok().then(|| milliseconds(healed.elapsed()));
        self.clock.note(&report::episode_line(&episode));
        self.timeline.episode(episode);
        whole
    }

    /// Messages acknowledged per second, and the longest silence of a partition, while nothing happens.
    fn calm(&mut self) -> Result<(f64, Duration), ChaosError> {
        self.loads.mark_silence();
        let (begun, acknowledged) = (Instant::now(), self.loads.acknowledged());
        self.world.wait(begun + self.options.calm)?;
        let silence = self.loads.longest_silence(|_, _| true).unwrap_or_default();
        let rate = (self.loads.acknowledged() - acknowledged) as f64 / begun.elapsed().as_secs_f64();
        Ok((rate, silence))
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn is_led_by(view: &ClusterView, partition: i32, victims: &[u32]) -> bool {
    let leader = view.partitions.iter().find(|one| one.partition == partition).map(|one| one.leader);
    leader.and_then(|leader| u32::try_from(leader).ok()).is_some_and(|leader| victims.contains(&leader))
}

fn particulars(strike: &Strike) -> String {
    match strike.fault {
        Fault::OneWayCut if strike.outward => "not heard by the others".into(),
        Fault::OneWayCut => "hearing nothing".into(),
        Fault::SlowLinks => {
            let kb_per_s = strike.slowness.bytes_per_second.unwrap_or(0) / 1000;
            format!("{} ms later, {kb_per_s} kB/s", strike.slowness.delay.as_millis())
        }
        Fault::AllKilled | Fault::AllMachinesRestarted => {
            format!("started again in the order {:?}", strike.order)
        }
        _ => String::new(),
    }
}

/// Who uses the cluster.
struct LoadAndReaders {
    loads: TwoLoads,
    tails: [Tail; 2],
    groups: Groups,
}

/// All that clients were told.
struct Told {
    client: ClusterClient,
    outcomes: [LoadOutcome; 2],
    reads: [ReadLog; 2],
    groups: GroupsReport,
}

/// Ends the load; readers and groups have been shown everything when it returns, or that is a violation.
fn end(load: LoadAndReaders, timeline: &Timeline) -> Told {
    let LoadAndReaders { loads, tails, groups } = load;
    let settled = groups.settle();
    let (client, outcomes) = loads.stop();
    for (load, tail) in tails.iter().enumerate() {
        if let Err(late) = await_end_of(&client, TOPICS[load], tail) {
            timeline.violation(format!("consumers of {}: {late}", TOPICS[load]));
        }
    }
    let mut reads: [ReadLog; 2] = Default::default();
    for (load, tail) in tails.into_iter().enumerate() {
        let (log, findings) = tail.stop();
        if !findings.holds_what_was_acknowledged() {
            timeline.violation(format!("consumers of {}: {findings:#?}", TOPICS[load]));
        }
        reads[load] = log;
    }
    let (groups, violations) = groups.finish(&client, settled);
    violations.into_iter().for_each(|violation| timeline.violation(violation));
    Told { client, outcomes, reads, groups }
}

/// Ends the load and checks everything.
fn conclude(
    options: &ChaosOptions,
    world: &mut World,
    load: LoadAndReaders,
    timeline: Timeline,
    progress: Progress,
) -> Result<Report, ChaosError> {
    let seconds = timeline.now_s();
    let Told { client, outcomes, reads, groups } = end(load, &timeline);
    let read = reads.iter().map(ReadLog::count).sum();
    let repeated = outcomes.iter().map(|outcome| outcome.retried_messages).sum();
    let failed = outcomes.iter().map(LoadOutcome::failed).sum();
    let verdict = two_loads::judge(&client, outcomes, reads, progress);
    if let Err(died) = world.check_alive() {
        timeline.violation(format!("after the last fault: {died}"));
    }
    let comparison = world.compare_replicas(&options.binary)?;
    match &verdict {
        Ok(verdict) => verdict.faults.iter().for_each(|fault| timeline.violation(fault.clone())),
        Err(error) => timeline.violation(format!("not everything can be read back: {error}")),
    }
    if !comparison.is_clean() {
        timeline.violation(format!("replicas differ: {comparison:#?}"));
    }
    let (samples, episodes, violations) = timeline.finish()?;
    let verdict = verdict.ok();
    Ok(Report {
        nodes: options.nodes,
        write_durability: options.write_durability.clone(),
        seed: options.seed,
        seconds,
        messages_per_second: options.messages_per_second,
        message_size: options.message_size,
        acknowledged: verdict.as_ref().map_or(0, |verdict| verdict.acknowledged),
        failed,
        repeated,
        read,
        groups,
        findings: verdict.map(|verdict| verdict.findings),
        replicas: comparison,
        skipped: world.skipped().iter().map(|(fault, reason)| (*fault, reason.0.clone())).collect(),
        violations,
        episodes,
        samples,
    })
}

/// Waits until a consumer has been shown everything that there is.
fn await_end_of(client: &ClusterClient, topic: &str, tail: &Tail) -> Result<(), TimedOut> {
    for partition in 0..PARTITIONS as i32 {
        wait::until(format!("the end of partition {partition}"), DEADLINE, || {
            let (_, end) = client.watermarks(topic, partition).map_err(|error| error.to_string())?;
            let next = tail.next(partition);
            if next >= end { Ok(()) } else { Err(format!("offset {next} of {end}")) }
        })?;
    }
    Ok(())
}
