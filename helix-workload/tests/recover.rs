//! One node is lost for good while the machines of the two others were started again, so their logs may have lost their ends: no election is
//! safe, and every partition waits for the lost node, until the operator lets a majority decide.

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

use helix_workload::cluster::{Cluster, DEADLINE};
use helix_workload::preload::Preload;
use helix_workload::progress::line;
use helix_workload::server_binary::server_binary;
use helix_workload::wait;
use support::{OrPanic, TOPICS, TwoLoads, prepare_cluster, variable};

/// Runs `helix-server recover` against a node. Returns whether it says that nothing waits, and what it says.
fn recover(cluster: &Cluster, node: u32, arguments: &[&str]) -> (bool, String) {
    static BINARY: LazyLock<PathBuf> = LazyLock::new(|| server_binary().or_panic());
    let mut command = Command::new(&*BINARY);
    command.arg("recover").args(["--http", &cluster.http_address(node)]).args(arguments);
    let output = command.output().expect("it can be started");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// A cluster whose machines can be made to have been started again.
fn start() -> (Cluster, Preload) {
    let mode: String = variable("HELIX_WRITE_DURABILITY", "replication-only".to_owned());
    assert_eq!(mode, "replication-only", "what was synced is not suspect, so nobody would wait for anybody");
    let mut cluster = prepare_cluster("recover", 3, &[]);
    let preload = Preload::prepare(cluster.directory()).or_panic();
    for id in cluster.ids() {
        for (name, value) in preload.environment(cluster.node_directory(id)) {
            cluster.set_environment(id, name, value);
        }
    }
    cluster.run_all().or_panic();
    (cluster, preload)
}

/// Waits until a partition says that it has nobody left to wait for but the lost voter.
fn await_stuck(cluster: &Cluster) -> String {
    let partition = ["--topic", TOPICS[0], "--partition", "0"];
    let stuck = wait::until("a partition to wait for the lost voter", DEADLINE, || {
        let (nothing_waits, text) = recover(cluster, 1, &partition);
        let stuck = !nothing_waits && text.contains("2 have answered, 0 of them sound");
        if stuck { Ok(text) } else { Err(text) }
    });
    stuck.unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()))
}

fn force_all(cluster: &Cluster) {
    let recovered = wait::until("all partitions to be recovered", DEADLINE, || {
        // Whichever of the two holds more wins, and which one that is differs from partition to partition.
        for node in [1, 2] {
            let (nothing_waits, text) = recover(cluster, node, &["--force", "--all"]);
            line(text.trim().lines().last().unwrap_or_default());
            if nothing_waits {
                return Ok(());
            }
        }
        Err("some still wait".to_owned())
    });
    recovered.unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()));
}

#[test]
fn an_operator_lets_a_majority_go_on_without_a_lost_voter() {
    let (mut cluster, preload) = start();
    let loads = TwoLoads::start(&cluster);
    loads.await_acknowledged(5_000);
    loads.await_in_sync(&mut cluster);
    let (nothing_waits, text) = recover(&cluster, 1, &[]);
    assert!(nothing_waits, "{text}");

    loads.mark_fault();
    cluster.kill_all(&[1, 2, 3]).or_panic();
    cluster.lose_disk(3).or_panic();
    for id in [1, 2] {
        preload.restart_machine(cluster.node_directory(id)).or_panic();
        cluster.run(id).or_panic();
    }
    line(await_stuck(&cluster).trim());
    let (allowed, text) = recover(&cluster, 1, &["--force"]);
    assert!(!allowed && text.contains("--all"), "{text}");

    force_all(&cluster);
    let took = loads.await_recovery(&cluster, |_, _| true);
    line(&format!("every partition acknowledges again, {took:.2?} after the fault"));

    // With a new disk the third node becomes a member again.
    cluster.run(3).or_panic();
    cluster.await_ready().or_panic();
    loads.await_in_sync(&mut cluster);
    cluster.await_members().or_panic();
    let unclean = cluster.metrics().or_panic().value("helix_unclean_recoveries_total");
    line(&format!("{unclean:?} unclean recoveries"));
    assert!(unclean.is_some_and(|count| count > 0.0), "the forced elections are counted");
    let verdict = loads.judge();
    cluster.check_alive().or_panic();
    // Whatever was acknowledged was in one of the two logs.
    assert!(verdict.faults.is_empty(), "{}", verdict.faults.join("\n"));
}
