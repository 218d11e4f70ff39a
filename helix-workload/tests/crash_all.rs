//! kill -9 of all three nodes at once under load, restarted in any order: nothing acknowledged is lost.
//!
//! `HELIX_ROUNDS` rounds (2 without it). In every other round one node is stopped for a moment before the kill, so that
//! it lags far behind, and the two that lag are restarted first and must serve every partition without the third.

mod support;

use std::collections::HashMap;

use helix_workload::client::ClusterView;
use helix_workload::cluster::Cluster;
use helix_workload::progress::line;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use support::{OrPanic, TwoLoads, start_cluster, variable};

/// Nodes in the order of what they lead, fewest first: those that lead little have the most to catch up with.
fn laggards_first(cluster: &Cluster, views: &[ClusterView]) -> Vec<u32> {
    let mut led: HashMap<i32, u32> = HashMap::new();
    for one in views.iter().flat_map(|view| &view.partitions) {
        *led.entry(one.leader).or_default() += 1;
    }
    let mut ids = cluster.ids();
    ids.sort_by_key(|id| led.get(&(*id as i32)).copied().unwrap_or(0));
    ids
}

/// Stops the node that comes back first, lets the others go on for a while, and kills all.
fn crash_with_laggards(cluster: &mut Cluster, loads: &TwoLoads, laggard: u32) {
    cluster.pause(laggard).or_panic();
    loads.go_on(2_000);
    loads.mark_fault();
    cluster.kill_all(&cluster.ids()).or_panic();
}

#[test]
fn nothing_acknowledged_is_lost_when_all_nodes_are_killed() {
    let rounds: u32 = variable("HELIX_ROUNDS", 2);
    let mut random = SmallRng::seed_from_u64(variable("HELIX_SEED", SmallRng::from_os_rng().random()));
    let mut cluster = start_cluster("crash-all", 3, &[]);
    let loads = TwoLoads::start(&cluster);
    for round in 1..=rounds {
        loads.await_acknowledged(1_000);
        let views = loads.await_in_sync(&mut cluster);
        let mut order = laggards_first(&cluster, &views);
        let lagging = round % 2 == 1;
        if lagging {
            crash_with_laggards(&mut cluster, &loads, order[0]);
        } else {
            order.shuffle(&mut random);
            loads.mark_fault();
            cluster.kill_all(&cluster.ids()).or_panic();
        }
        cluster.run(order[0]).or_panic();
        cluster.run(order[1]).or_panic();
        let served = loads.await_recovery(&cluster, |_, _| true);
        cluster.run(order[2]).or_panic();
        cluster.await_ready().or_panic();
        let how = if lagging { "laggards first" } else { "any order" };
        line(&format!(
            "round {round} of {rounds}: all killed, restarted {order:?} ({how}); two of them served every partition \
             {served:.2?} after the kill"
        ));
    }
    loads.await_in_sync(&mut cluster);
    let verdict = loads.judge();
    line(&format!("{rounds} rounds, {} messages acknowledged", verdict.acknowledged));
    cluster.check_alive().or_panic();
    assert!(verdict.faults.is_empty(), "{}", verdict.faults.join("\n"));
}
