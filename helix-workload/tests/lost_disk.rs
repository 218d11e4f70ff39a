//! Nodes lose their disks under load, one after the other, and come back blank: each becomes a member again without anybody's help, and
//! in the end nothing acknowledged is lost although not one of the first disks is left.
//!
//! `HELIX_ROUNDS` lost disks (3 without it, one of each node).

mod support;

use helix_workload::progress::line;
use support::{OrPanic, TwoLoads, start_cluster, variable};

#[test]
fn nothing_acknowledged_is_lost_when_every_disk_is_lost_once() {
    let rounds: u32 = variable("HELIX_ROUNDS", 3);
    let mut cluster = start_cluster("lost-disk", 3, &[]);
    let loads = TwoLoads::start(&cluster);
    for round in 1..=rounds {
        loads.await_acknowledged(1_000);
        loads.await_in_sync(&mut cluster);
        let victim = 1 + (round - 1) % 3;
        loads.mark_fault();
        cluster.lose_disk(victim).or_panic();
        let served = loads.await_recovery(&cluster, |_, _| true);
        cluster.run(victim).or_panic();
        cluster.await_node(victim, 3).or_panic();
        loads.await_in_sync(&mut cluster);
        cluster.await_members().or_panic();
        line(&format!(
            "round {round} of {rounds}: node {victim} lost its disk, the others served every partition {served:.2?} \
             later; its new disk is a member of every group"
        ));
    }
    let verdict = loads.judge();
    line(&format!("{rounds} disks lost, {} messages acknowledged", verdict.acknowledged));
    cluster.check_alive().or_panic();
    assert!(verdict.faults.is_empty(), "{}", verdict.faults.join("\n"));
}
