//! One node is lost for good and the logs of the two others may have lost their ends: no election is safe, and every group waits for
//! the lost node, until the operator lets a majority decide.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use helix_workload::cluster::{Cluster, DEADLINE};
use helix_workload::progress::line;
use helix_workload::server_binary::server_binary;
use helix_workload::wait;
use support::{OrPanic, TwoLoads, start_cluster};

/// Overwrites a stretch of the segment that a killed node was writing to, longer than a frame: nobody can tell whose records are lost.
fn damage_last_segment(cluster: &Cluster, node: u32, tenths: u64) {
    let directory = cluster.directory().join(node.to_string()).join("data/wal");
    let entries = fs::read_dir(&directory).expect("the node has a log");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let segments = paths.filter(|path| path.extension().is_some_and(|kind| kind == "wal"));
    let used = segments.filter_map(|path| {
        let end = fs::read(&path).expect("it can be read").iter().rposition(|byte| *byte != 0)?;
        Some((path, end as u64))
    });
    let (path, end) = used.max().expect("it has stored something");
    let file = File::options().write(true).open(path).expect("it can be opened");
    file.write_all_at(&[0x55; 4096], (end * tenths / 10) & !7).expect("it can be written");
}

/// Runs `helix-server recover` against a node. Returns whether it says that nothing waits, and what it says.
fn recover(cluster: &Cluster, node: u32, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(server_binary().or_panic());
    command.arg("recover").args(["--http", &cluster.http_address(node)]).args(arguments);
    let output = command.output().expect("it can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn an_operator_lets_a_majority_go_on_without_a_lost_voter() {
    let mut cluster = start_cluster("recover", 3, &[]);
    let loads = TwoLoads::start(&cluster);
    loads.await_acknowledged(5_000);
    loads.await_in_sync(&mut cluster);
    let (nothing_waits, text) = recover(&cluster, 1, &[]);
    assert!(nothing_waits, "{text}");

    loads.mark_fault();
    cluster.kill_all(&[1, 2, 3]).or_panic();
    cluster.lose_disk(3).or_panic();
    damage_last_segment(&cluster, 1, 3);
    damage_last_segment(&cluster, 2, 6);
    cluster.run(1).or_panic();
    cluster.run(2).or_panic();
    let report = wait::until("the metadata to wait for the lost voter", DEADLINE, || {
        let (nothing_waits, text) = recover(&cluster, 1, &["--metadata"]);
        // Both say that they are recovering: only the answer of the third would do.
        let stuck = !nothing_waits && text.contains("2 have answered, 0 of them sound");
        if stuck { Ok(text) } else { Err(text) }
    });
    let report = report.unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()));
    line(report.trim());
    let (refused, text) = recover(&cluster, 1, &["--force"]);
    assert!(!refused && text.contains("--all"), "{text}");

    for groups in ["--metadata", "--all"] {
        let recovered = wait::until(format!("{groups} to be recovered"), DEADLINE, || {
            // Whichever holds more wins.
            for node in [1, 2] {
                let (nothing_waits, text) = recover(&cluster, node, &["--force", groups]);
                line(text.trim().lines().last().unwrap_or_default());
                if nothing_waits {
                    return Ok(());
                }
            }
            Err("some still wait".to_owned())
        });
        recovered.unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()));
    }
    cluster.await_node(1, 2).or_panic();
    let took = loads.await_recovery(&cluster, |_, _| true);
    line(&format!("every partition acknowledges again, {took:.2?} after the fault"));

    // With a new disk the third node becomes a member again.
    cluster.run(3).or_panic();
    cluster.await_node(3, 3).or_panic();
    loads.await_in_sync(&mut cluster);
    cluster.await_members().or_panic();
    let unclean = cluster.metrics().or_panic().value("helix_unclean_recoveries_total");
    line(&format!("{unclean:?} unclean recoveries"));
    assert!(unclean.is_some_and(|count| count > 0.0), "the forced elections are counted");
    let verdict = loads.judge();
    cluster.check_alive().or_panic();
    // Both held all of it, and have told each other what was damaged.
    assert!(verdict.faults.is_empty(), "{}", verdict.faults.join("\n"));
}
