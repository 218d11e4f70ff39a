//! What an idle cluster costs: CPU of three nodes that each hold `HELIX_IDLE_PARTITIONS` (1,000) idle partitions,
//! over `HELIX_IDLE_SECS` seconds (5). The time is a promise that a busy machine may break, so a missed one is pointed out. What
//! can be counted is asserted: while nobody stands for election, idle partitions write nothing.

mod support;

use std::time::{Duration, Instant};

use helix_workload::client::{ClusterClient, TopicSpec};
use helix_workload::cluster::DEADLINE;
use helix_workload::process::usage_of_all;
use helix_workload::progress::line;
use helix_workload::{reader, wait};
use support::{OrPanic, promise, start_cluster, variable};

/// Below this share of a core the cluster counts as having settled.
const SETTLED_PERCENT: f64 = 10.0;
const PROMISED_PERCENT: f64 = 5.0;

fn cpu_percent(pids: &[u32], over: Duration) -> f64 {
    let begun = Instant::now();
    let before = usage_of_all(pids).or_panic().cpu;
    let _ = wait::until::<()>("the measured time", over, || Err("not yet".into()));
    let used = usage_of_all(pids).or_panic().cpu - before;
    100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64()
}

#[test]
fn idle_partitions_cost_next_to_nothing() {
    let partitions: u32 = variable("HELIX_IDLE_PARTITIONS", 1_000);
    let seconds: u64 = variable("HELIX_IDLE_SECS", 5);
    let mut cluster = start_cluster("idle-cost", 3, &[]);
    let client = ClusterClient::new(&cluster.bootstrap()).or_panic();
    let empty = cpu_percent(&cluster.pids(), Duration::from_secs(2));
    let begun = Instant::now();
    let topic = TopicSpec::new("idle", partitions, Some(3));
    client
        .ensure_topic(&topic, DEADLINE)
        .and_then(|_| client.await_in_sync("idle", DEADLINE))
        .unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()));
    // Each partition's leader must answer for it, not only be named.
    let answered = reader::whole_topic(&client, "idle").or_panic().len();
    assert_eq!(answered, partitions as usize);
    line(&format!("{partitions} partitions, 3 copies each, ready after {:.1?}", begun.elapsed()));
    // The topic's creation has an aftermath: a measured second below the limit says that it is over.
    let settled = wait::until("the cluster to settle", DEADLINE, || {
        let percent = cpu_percent(&cluster.pids(), Duration::from_secs(1));
        if percent < SETTLED_PERCENT { Ok(()) } else { Err(format!("{percent:.1} % of a core")) }
    });
    if let Err(error) = settled {
        line(&format!("{error}"));
    }
    let before = cluster.metrics().or_panic();
    let percent = cpu_percent(&cluster.pids(), Duration::from_secs(seconds));
    let after = cluster.metrics().or_panic();
    let memory = usage_of_all(&cluster.pids()).or_panic().peak_bytes as f64 / 1e6;
    line(&format!(
        "three nodes with {partitions} idle partitions each: {percent:.2} % of one core over {seconds} s \
         ({empty:.2} % without them), peak {memory:.0} MB of one node"
    ));
    promise(
        &format!("less than {PROMISED_PERCENT} % of one core for three idle nodes"),
        &format!("{percent:.2} %"),
        percent <= PROMISED_PERCENT,
    );
    let grown = |name| after.growth(&before, name).unwrap_or_else(|| panic!("no node has {name}"));
    let (elections, appends) = (grown("helix_elections_started_total"), grown("helix_wal_appends_total"));
    line(&format!("meanwhile {elections} elections, {appends} appends to the logs"));
    assert!(elections > 0.0 || appends == 0.0, "idle partitions wrote {appends} times");
    cluster.check_alive().or_panic();
}
