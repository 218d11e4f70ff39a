//! Two loads at once, for runs with faults: producers with librdkafka's defaults, and idempotent ones. No message of either
//! may fail; those of the idempotent producers must be stored once and in order.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::check::Findings;
use crate::client::{ClientError, ClusterClient, ClusterView, TopicSpec};
use crate::cluster::DEADLINE;
use crate::engine::{Load, LoadOptions, LoadOutcome, Progress, StartError};
use crate::history::{History, ReadLog};
use crate::message::Messages;
use crate::profile::{Execution, ProducerShape, Profile};
use crate::progress;
use crate::reader::ReadError;
use crate::verify;
use crate::wait::{self, TimedOut};

/// Of the plain and of the idempotent load.
pub const TOPICS: [&str; 2] = ["plain", "idempotent"];

/// Librdkafka repeats a message for 300 s before it fails.
const DRAIN: Duration = Duration::from_secs(330);

/// What both loads are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwoLoadsOptions {
    /// Partitions of each topic.
    pub partitions: u32,
    /// Copies of each partition.
    pub replication_factor: u32,
    /// Of each load.
    pub producers: ProducerShape,
    /// Holds each producer to so many messages per second; 0 is as many as its window allows.
    pub messages_per_second: u32,
    /// Keeps track of latest latencies and of partitions that fall silent.
    pub timeline: bool,
}

impl Default for TwoLoadsOptions {
    /// Windows are small, so that many rounds fit on a disk.
    fn default() -> Self {
        Self {
            partitions: 12,
            replication_factor: 3,
            producers: ProducerShape { threads: 2, inflight: 200, message_size: 400, linger_ms: 5 },
            messages_per_second: 0,
            timeline: false,
        }
    }
}

/// The loads can't be started.
#[derive(Debug, thiserror::Error)]
pub enum TwoLoadsError {
    /// Their topics can't be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Their producers can't be.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Both loads, running.
pub struct TwoLoads {
    client: ClusterClient,
    loads: [Load; 2],
    partitions: u32,
}

impl TwoLoads {
    /// Makes the topics and starts all producers.
    pub fn start(bootstrap: &str, options: &TwoLoadsOptions) -> Result<Self, TwoLoadsError> {
        let client = ClusterClient::new(bootstrap)?;
        let start = |topic: &str, idempotent: bool| -> Result<Load, TwoLoadsError> {
            let spec = TopicSpec::new(topic, options.partitions, Some(options.replication_factor));
            client.ensure_topic(&spec, DEADLINE)?;
            Ok(Load::start(LoadOptions {
                bootstrap: bootstrap.to_owned(),
                topic: topic.to_owned(),
                partitions: options.partitions,
                profile: Profile {
                    name: "faults".into(),
                    producer: options.producers.clone(),
                    execution: Execution::default(),
                },
                idempotent,
                messages_per_producer: None,
                messages_per_second: options.messages_per_second,
                timeline: options.timeline,
                client_settings: Vec::new(),
            })?)
        };
        let loads = [start(TOPICS[0], false)?, start(TOPICS[1], true)?];
        Ok(Self { client, loads, partitions: options.partitions })
    }

    /// A client of the cluster that they run against.
    pub fn client(&self) -> &ClusterClient {
        &self.client
    }

    /// Every partition: which load, and which of its partitions.
    pub fn partitions(&self) -> impl Iterator<Item = (usize, i32)> + use<> {
        let count = i32::try_from(self.partitions).unwrap_or(i32::MAX);
        (0..TOPICS.len()).flat_map(move |load| (0..count).map(move |partition| (load, partition)))
    }

    /// What the messages of each load are.
    pub fn messages(&self, load: usize) -> &Messages {
        self.loads[load].messages()
    }

    /// How far each load is.
    pub fn progress(&self) -> [Progress; 2] {
        [self.loads[0].progress(), self.loads[1].progress()]
    }

    /// Messages acknowledged by both.
    pub fn acknowledged(&self) -> u64 {
        self.progress().iter().map(|progress| progress.acknowledged).sum()
    }

    /// Latencies of what was acknowledged since the last call, in microseconds, if the loads keep track of them.
    pub fn take_latencies(&self, sum: &mut Histogram<u64>) {
        for load in &self.loads {
            load.take_latencies(sum);
        }
    }

    /// Waits until so many more messages are acknowledged.
    pub fn await_acknowledged(&self, more: u64) -> Result<(), TimedOut> {
        let target = self.acknowledged() + more;
        wait::until(format!("{more} more acknowledged messages"), DEADLINE, || {
            let now = self.acknowledged();
            if now >= target { Ok(()) } else { Err(format!("{now} of {target}")) }
        })
    }

    /// Waits until every replica is in sync, and says who leads what.
    pub fn await_in_sync(&self) -> Result<[ClusterView; 2], ClientError> {
        let await_one = |topic| self.client.await_in_sync(topic, DEADLINE);
        Ok([await_one(TOPICS[0])?, await_one(TOPICS[1])?])
    }

    /// A fault happens now; see [`Load::mark_fault`].
    pub fn mark_fault(&self) {
        for load in &self.loads {
            load.mark_fault();
        }
    }

    /// From now on silences are measured anew.
    pub fn mark_silence(&self) {
        for load in &self.loads {
            load.mark_silence();
        }
    }

    /// The longest that any partition, of those that `concerns` says of, acknowledged nothing. `None` if there are none.
    pub fn longest_silence(&self, concerns: impl Fn(usize, i32) -> bool) -> Option<Duration> {
        let of_interest = self.partitions().filter(|(load, partition)| concerns(*load, *partition));
        of_interest.filter_map(|(load, partition)| self.loads[load].longest_silence(partition)).max()
    }

    /// Waits until every partition (of those that `concerns` says of) acknowledges messages again after the fault; says
    /// how long after it the last of them did.
    pub fn await_recovery(&self, concerns: impl Fn(usize, i32) -> bool) -> Result<Duration, TimedOut> {
        let mut longest = Duration::ZERO;
        for (load, partition) in self.partitions().filter(|(load, partition)| concerns(*load, *partition)) {
            let what = format!("partition {partition} of {} to acknowledge again", TOPICS[load]);
            let took = wait::until(what, DEADLINE, || {
                let load = &self.loads[load];
                load.recovery(partition).ok_or_else(|| format!("{:?}", load.progress()))
            })?;
            longest = longest.max(took);
        }
        Ok(longest)
    }

    /// Ends both loads and waits for what is in flight.
    pub fn stop(self) -> (ClusterClient, [LoadOutcome; 2]) {
        let [plain, idempotent] = self.loads;
        (self.client, [plain.stop(DRAIN), idempotent.stop(DRAIN)])
    }
}

/// What both loads may be blamed for.
#[derive(Debug)]
pub struct Verdict {
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// By load.
    pub findings: [Findings; 2],
    /// In words; empty if everything is as it should be.
    pub faults: Vec<String>,
}

/// Reads everything back and judges it. The idempotent producers' messages must be there once and in order; the others may
/// be stored twice where they had to be repeated. No message may fail, and what consumers were shown (`reads`) must be there.
pub fn judge(
    client: &ClusterClient,
    outcomes: [LoadOutcome; 2],
    reads: [ReadLog; 2],
    progress: progress::Progress,
) -> Result<Verdict, ReadError> {
    let mut verdict = Verdict { acknowledged: 0, findings: Default::default(), faults: Vec::new() };
    for (index, (mut outcome, reads)) in outcomes.into_iter().zip(reads).enumerate() {
        outcome.history.reads = reads;
        verdict.acknowledged += outcome.history.acknowledged();
        if outcome.failed() > 0 {
            let (failed, errors) = (outcome.failed(), &outcome.errors);
            verdict.faults.push(format!("{}: {failed} messages failed: {errors:?}", TOPICS[index]));
        }
        let findings = verify::verify(client, &outcome.history, &progress)?.findings;
        progress.note(&summary(&outcome, &findings));
        if !is_sound(&outcome.history, &findings) {
            verdict.faults.push(format!("{}: {findings:#?}", TOPICS[index]));
        }
        verdict.findings[index] = findings;
    }
    Ok(verdict)
}

fn is_sound(history: &History, findings: &Findings) -> bool {
    if history.idempotent { findings.is_clean() } else { findings.holds_what_was_acknowledged() }
}

fn summary(outcome: &LoadOutcome, findings: &Findings) -> String {
    format!(
        "{}: {} sent, {} acknowledged, {} failed, {} repeated; {} stored, {} lost, {} twice, {} reordered",
        outcome.history.topic,
        outcome.history.sent(),
        outcome.history.acknowledged(),
        outcome.failed(),
        outcome.retried_messages,
        findings.stored,
        findings.lost,
        findings.duplicated,
        findings.reordered,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(idempotent: bool) -> History {
        History {
            run: 1,
            topic: "t".into(),
            message_size: 64,
            idempotent,
            producers: Vec::new(),
            reads: ReadLog::default(),
        }
    }

    #[test]
    fn copies_are_a_fault_of_idempotent_producers_alone_and_losses_of_both() {
        let twice = Findings { duplicated: 1, ..Findings::default() };
        assert!(is_sound(&history(false), &twice) && !is_sound(&history(true), &twice));
        for wrong in [
            Findings { lost: 1, ..Findings::default() },
            Findings { withdrawn: 1, ..Findings::default() },
            Findings { went_back: 1, ..Findings::default() },
        ] {
            assert!(!is_sound(&history(false), &wrong) && !is_sound(&history(true), &wrong));
        }
    }
}
