//! A short chaos: every fault that can be injected here strikes once. Nothing acknowledged is lost, no message fails, replicas
//! are equal, the cluster is whole again after each fault, and what consumer groups committed stays. Times are measured and shown; none is asserted.
//!
//! `HELIX_ROUNDS` rounds (1 without it), `HELIX_SEED` repeats a schedule, `HELIX_WRITE_DURABILITY` is the mode
//! (`replication-only` without it). `helix-workload chaos` does the same for as long as one likes.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use helix_workload::chaos::fault::Fault;
use helix_workload::chaos::{self, ChaosOptions, page};
use helix_workload::progress::{Progress, line};
use helix_workload::server_binary::server_binary;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::{OrPanic, variable};

#[test]
fn every_fault_is_survived() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("chaos");
    let page_file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("chaos.html");
    let rounds: usize = variable("HELIX_ROUNDS", 1);
    let options = ChaosOptions {
        binary: server_binary().or_panic(),
        directory: directory.clone(),
        nodes: 3,
        write_durability: variable("HELIX_WRITE_DURABILITY", "replication-only".to_owned()),
        // The number of rounds decides; a machine that is too slow even for this has another problem.
        duration: Duration::from_secs(3600),
        rounds: Some(rounds),
        seed: variable("HELIX_SEED", SmallRng::from_os_rng().random()),
        faults: Fault::ALL.to_vec(),
        fault: Duration::from_secs(2),
        calm: Duration::from_secs(1),
        messages_per_second: 2_000,
        message_size: 400,
        history: Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("chaos.jsonl")),
    };
    line(&format!("seed {}", options.seed));
    let report = chaos::run(&options, Progress::Lines).or_panic();
    std::fs::write(&page_file, page::render(&report).or_panic()).or_panic();
    line(&format!("\n{report}\nthe same as a page: {}", page_file.display()));
    let expected = rounds * (Fault::ALL.len() - report.skipped.len());
    assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
    assert_eq!(report.episodes.len(), expected, "every fault that is possible here was injected");
    let groups = &report.groups.tally;
    assert!(groups.looks > 0 && groups.commits > 0 && groups.assignments > 0, "{report}");
    assert!(groups.described > 0 && groups.delivered > 0, "{report}");
    assert!(report.acknowledged > 0 && report.read > 0 && report.replicas.entries > 0, "{report}");
}
