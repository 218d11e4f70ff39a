//! What the tests with real processes share.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use helix_workload::client::{ClusterClient, ClusterView};
use helix_workload::cluster::{Cluster, ClusterOptions};
use helix_workload::history::ReadLog;
use helix_workload::progress::{Progress, line};
use helix_workload::server_binary::server_binary;
use helix_workload::two_loads::{self, TwoLoadsOptions, Verdict};
use helix_workload::wait;

pub(crate) const PARTITIONS: u32 = 12;
/// Of the plain and of the idempotent load.
pub(crate) const TOPICS: [&str; 2] = two_loads::TOPICS;

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
    let mut cluster = prepare_cluster(name, nodes, settings);
    cluster.run_all().or_panic();
    cluster
}

/// The same, before any of it runs.
pub(crate) fn prepare_cluster(name: &str, nodes: u32, settings: &[(&str, &str)]) -> Cluster {
    let binary = server_binary().or_panic();
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    line(&format!("starting {nodes} nodes of {} in {}", binary.display(), directory.display()));
    Cluster::prepare(ClusterOptions {
        binary,
        directory,
        nodes,
        write_durability: std::env::var("HELIX_WRITE_DURABILITY").ok(),
        settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    })
    .or_panic()
}

/// Two loads at once, of which a test knows that they must not suffer.
pub(crate) struct TwoLoads(two_loads::TwoLoads);

impl TwoLoads {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let loads = two_loads::TwoLoads::start(&cluster.bootstrap(), &TwoLoadsOptions::default());
        Self(loads.unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails())))
    }

    pub(crate) fn client(&self) -> &ClusterClient {
        self.0.client()
    }

    pub(crate) fn await_acknowledged(&self, more: u64) {
        self.0.await_acknowledged(more).or_panic();
    }

    /// Lets the load go on for a while, be it that so many messages are acknowledged or that a second passes: with a
    /// node stopped, all windows may be waiting for it.
    pub(crate) fn go_on(&self, more: u64) {
        let target = self.0.acknowledged() + more;
        let _ = wait::until("some load", Duration::from_secs(1), || {
            if self.0.acknowledged() >= target { Ok(()) } else { Err(String::new()) }
        });
    }

    /// Waits until every replica is in sync, and says who leads what.
    pub(crate) fn await_in_sync(&self, cluster: &mut Cluster) -> [ClusterView; 2] {
        self.0.await_in_sync().unwrap_or_else(|error| {
            cluster.check_alive().or_panic();
            panic!("{error}\n{}", cluster.log_tails())
        })
    }

    pub(crate) fn mark_fault(&self) {
        self.0.mark_fault();
    }

    /// Waits until every partition (of those that `concerns` says of) acknowledges messages again after the fault; says
    /// how long after it the last of them did.
    pub(crate) fn await_recovery(
        &self,
        cluster: &Cluster,
        concerns: impl Fn(usize, i32) -> bool,
    ) -> Duration {
        let recovered = self.0.await_recovery(concerns);
        recovered.unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()))
    }

    /// Ends both loads, reads everything back and judges it.
    pub(crate) fn judge(self) -> Verdict {
        let (client, outcomes) = self.0.stop();
        two_loads::judge(&client, outcomes, [ReadLog::default(), ReadLog::default()], Progress::detect())
            .or_panic()
    }
}
