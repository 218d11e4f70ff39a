//! What the tests with real processes share.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use helix_workload::client::{ClusterClient, ClusterView, TopicSpec};
use helix_workload::cluster::{Cluster, ClusterOptions, DEADLINE};
use helix_workload::engine::{Load, LoadOptions, LoadOutcome};
use helix_workload::profile::{Execution, ProducerShape, Profile};
use helix_workload::progress::{Progress, line};
use helix_workload::server_binary::server_binary;
use helix_workload::{verify, wait};

pub(crate) const PARTITIONS: u32 = 12;

/// Ends the test with the error's own words, which say what to do, instead of its debug form.
pub(crate) trait OrPanic<T> {
    fn or_panic(self) -> T;
}

impl<T, E: Display> OrPanic<T> for Result<T, E> {
    fn or_panic(self) -> T {
        self.unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Says whether a promise about time was kept. It is not asserted, because the machine may be busy with something else.
pub(crate) fn promise(promised: &str, measured: &str, kept: bool) {
    let verdict = if kept { "kept" } else { "MISSED" };
    line(&format!("promise: {promised}; measured: {measured}; {verdict}"));
}

/// An environment variable, or what is right when it is not set.
pub(crate) fn variable<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a valid value")),
        Err(_) => default,
    }
}

/// A cluster of real processes with its data below the target directory, which is on a real disk.
pub(crate) fn start_cluster(name: &str, nodes: u32, settings: &[(&str, &str)]) -> Cluster {
    let binary = server_binary().or_panic();
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    line(&format!("starting {nodes} nodes of {} in {}", binary.display(), directory.display()));
    Cluster::start(ClusterOptions {
        binary,
        directory,
        nodes,
        write_durability: std::env::var("HELIX_WRITE_DURABILITY").ok(),
        settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    })
    .or_panic()
}

/// Two loads at once: producers with librdkafka's defaults, and idempotent ones. The windows are small, so that
/// many rounds fit on a disk.
pub(crate) struct TwoLoads {
    pub(crate) client: ClusterClient,
    plain: Load,
    idempotent: Load,
}

/// Of the plain and of the idempotent load.
pub(crate) const TOPICS: [&str; 2] = ["plain", "idempotent"];

/// What both loads may be blamed for.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: u64,
    pub(crate) faults: Vec<String>,
}

impl TwoLoads {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let bootstrap = cluster.bootstrap();
        let client = ClusterClient::new(&bootstrap).or_panic();
        let start = |topic: &str, idempotent: bool| {
            let spec =
                TopicSpec { name: topic.to_owned(), partitions: PARTITIONS, replication_factor: Some(3) };
            client
                .ensure_topic(&spec, DEADLINE)
                .unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()));
            Load::start(LoadOptions {
                bootstrap: bootstrap.clone(),
                topic: topic.to_owned(),
                partitions: PARTITIONS,
                profile: Profile {
                    name: "faults".into(),
                    producer: ProducerShape { threads: 2, inflight: 200, message_size: 400, linger_ms: 5 },
                    execution: Execution::default(),
                },
                idempotent,
                messages_per_producer: None,
                client_settings: Vec::new(),
            })
            .or_panic()
        };
        let plain = start(TOPICS[0], false);
        let idempotent = start(TOPICS[1], true);
        Self { client, plain, idempotent }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.plain.progress().acknowledged + self.idempotent.progress().acknowledged
    }

    pub(crate) fn await_acknowledged(&self, more: u64) {
        let target = self.acknowledged() + more;
        wait::until(format!("{more} more acknowledged messages"), DEADLINE, || {
            let now = self.acknowledged();
            if now >= target { Ok(()) } else { Err(format!("{now} of {target}")) }
        })
        .or_panic();
    }

    /// Lets the load go on for a while, be it that so many messages are acknowledged or that a second passes: with a
    /// node stopped, all windows may be waiting for it.
    pub(crate) fn go_on(&self, more: u64) {
        let target = self.acknowledged() + more;
        let _ = wait::until("some load", Duration::from_secs(1), || {
            if self.acknowledged() >= target { Ok(()) } else { Err(String::new()) }
        });
    }

    /// Waits until every replica is in sync, and says who leads what.
    pub(crate) fn await_in_sync(&self, cluster: &mut Cluster) -> [ClusterView; 2] {
        TOPICS.map(|topic| {
            self.client.await_in_sync(topic, DEADLINE).unwrap_or_else(|error| {
                cluster.check_alive().or_panic();
                panic!("{error}\n{}", cluster.log_tails())
            })
        })
    }

    pub(crate) fn mark_fault(&self) {
        self.plain.mark_fault();
        self.idempotent.mark_fault();
    }

    /// Waits until every partition (of those that `concerns` says of) acknowledges messages again after the fault; says
    /// how long after it the last of them did.
    pub(crate) fn await_recovery(
        &self,
        cluster: &Cluster,
        concerns: impl Fn(usize, i32) -> bool,
    ) -> Duration {
        let mut longest = Duration::ZERO;
        for (index, load) in [&self.plain, &self.idempotent].into_iter().enumerate() {
            for partition in (0..PARTITIONS as i32).filter(|partition| concerns(index, *partition)) {
                let what = format!("partition {partition} of load {index} to acknowledge again");
                let took = wait::until(what, DEADLINE, || {
                    load.recovery(partition).ok_or_else(|| format!("{:?}", load.progress()))
                });
                let took = took.unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()));
                longest = longest.max(took);
            }
        }
        longest
    }

    /// Ends both loads, reads everything back and judges it. The idempotent producers' messages must be there once
    /// and in order; the others may be stored twice where they had to be repeated. No message may fail.
    pub(crate) fn judge(self) -> Verdict {
        let Self { client, plain, idempotent } = self;
        let mut faults = Vec::new();
        let mut acknowledged = 0;
        for load in [plain, idempotent] {
            let outcome = load.stop(DEADLINE * 6);
            acknowledged += outcome.history.acknowledged();
            judge_one(&client, &outcome, &mut faults);
        }
        Verdict { acknowledged, faults }
    }
}

fn judge_one(client: &ClusterClient, outcome: &LoadOutcome, faults: &mut Vec<String>) {
    let topic = &outcome.history.topic;
    if outcome.failed() > 0 {
        faults.push(format!("{topic}: {} messages failed: {:?}", outcome.failed(), outcome.errors));
    }
    let verified = verify::verify(client, &outcome.history, &Progress::detect()).or_panic();
    let findings = verified.findings;
    line(&format!(
        "{topic}: {} sent, {} acknowledged, {} failed, {} repeated; {} stored, {} lost, {} twice, {} reordered",
        outcome.history.sent(),
        outcome.history.acknowledged(),
        outcome.failed(),
        outcome.retried_messages,
        findings.stored,
        findings.lost,
        findings.duplicated,
        findings.reordered,
    ));
    let sound =
        if outcome.history.idempotent { findings.is_clean() } else { findings.holds_what_was_acknowledged() };
    if !sound {
        faults.push(format!("{topic}: {findings:#?}"));
    }
}
