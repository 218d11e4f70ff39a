//! Three real nodes, real clients, one profile: what was acknowledged must be there, once and in order.
//!
//! ```text
//! HELIX_PROFILE=throughput cargo test -p helix-workload --test steady_state_throughput
//! ```
//!
//! `HELIX_PROFILE` is a built-in name (baseline, throughput, latency, stress, sustained; baseline without it) or the
//! path of a TOML file; `HELIX_WRITE_DURABILITY=fsync` chooses the mode, `HELIX_IDEMPOTENT=true` idempotent producers,
//! `HELIX_SERVER_BIN` another binary than `cargo build --release` makes, `HELIX_REPORT` a file for the figures as
//! JSON. It fails on a failed message or on a difference in contents, never on a speed.

mod support;

use std::path::PathBuf;

use helix_workload::bench::{self, BenchOptions};
use helix_workload::client::TopicSpec;
use helix_workload::profile::Profile;
use helix_workload::progress::{Progress, line};
use support::{OrPanic, PARTITIONS, start_cluster, variable};

/// Cargo runs tests in the package's directory; paths are meant from where the user stands, mostly the one above.
fn profile() -> Profile {
    let name = variable("HELIX_PROFILE", String::from("baseline"));
    let from_workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(&name);
    let loaded = Profile::load(&name).or_else(|error| {
        if from_workspace.is_file() { Profile::load(&from_workspace.to_string_lossy()) } else { Err(error) }
    });
    loaded.or_panic()
}

#[test]
fn steady_state_throughput() {
    let profile = profile();
    let mut cluster = start_cluster("steady-state", 3, &[]);
    let options = BenchOptions {
        bootstrap: cluster.bootstrap(),
        topic: TopicSpec::new("steady-state", PARTITIONS, Some(3)),
        profile,
        idempotent: variable("HELIX_IDEMPOTENT", false),
        messages_per_second: 0,
        client_settings: Vec::new(),
        broker_pids: cluster.pids(),
        metrics: cluster.http_addresses(),
        floor_directory: Some(cluster.directory().to_owned()),
        verify: true,
    };
    let report = bench::run(&options, &Progress::detect())
        .unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()));
    let durability = variable("HELIX_WRITE_DURABILITY", String::from("replication-only"));
    line(&format!("\n3 nodes, RF 3, acks=all, {PARTITIONS} partitions, {durability}\n{report}"));
    if let Ok(path) = std::env::var("HELIX_REPORT") {
        report.save(&PathBuf::from(path)).or_panic();
    }
    cluster.check_alive().or_panic();
    if let Some(fault) = report.fault() {
        panic!("{fault}");
    }
}
