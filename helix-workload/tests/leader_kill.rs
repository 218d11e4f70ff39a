//! kill -9 of a leader under load: with librdkafka's default settings no message fails, an idempotent producer's
//! messages are stored once and in order, and the time until production goes on is printed for each round.
//!
//! `HELIX_ROUNDS` rounds (2 without it). The time is a promise and not a benchmark, so a missed one is pointed out; it
//! does not fail the test, because the machine that runs it may be busy with something else.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use helix_workload::client::{ClusterClient, ClusterView};
use helix_workload::cluster::{Cluster, DEADLINE};
use helix_workload::progress::line;
use helix_workload::wait;
use support::{OrPanic, TOPICS, TwoLoads, promise, start_cluster, variable};

const PROMISED: Duration = Duration::from_secs(2);

fn leads_most(views: &[ClusterView]) -> u32 {
    let mut led: HashMap<i32, u32> = HashMap::new();
    for one in views.iter().flat_map(|view| &view.partitions) {
        *led.entry(one.leader).or_default() += 1;
    }
    let (leader, _) =
        led.into_iter().max_by_key(|(leader, count)| (*count, *leader)).expect("topics have partitions");
    u32::try_from(leader).or_panic()
}

fn other_than(cluster: &Cluster, victim: u32) -> u32 {
    cluster.ids().into_iter().find(|id| *id != victim).expect("there are three nodes")
}

/// The brokers' share of the interruption: until a survivor names another leader for everything. The rest is the
/// clients' own waiting before they ask again.
fn await_other_leaders(survivor: &ClusterClient, victim: u32) {
    for topic in TOPICS {
        wait::until(format!("other leaders for {topic}"), DEADLINE, || {
            let view = survivor.view(topic).map_err(|error| error.to_string())?;
            let gone = |leader: i32| leader < 0 || leader == victim as i32;
            let waiting = view.partitions.iter().filter(|one| gone(one.leader)).count();
            if waiting == 0 { Ok(()) } else { Err(format!("{waiting} partitions wait for one")) }
        })
        .or_panic();
    }
}

#[test]
fn no_message_fails_and_none_is_stored_twice_when_leaders_are_killed() {
    let rounds: u32 = variable("HELIX_ROUNDS", 2);
    let mut cluster = start_cluster("leader-kill", 3, &[]);
    let loads = TwoLoads::start(&cluster);
    let mut longest = Duration::ZERO;
    let mut late = 0;
    for round in 1..=rounds {
        loads.await_acknowledged(1_000);
        let views = loads.await_in_sync(&mut cluster);
        let victim = leads_most(&views);
        let led = |load: usize, partition: i32| {
            views[load].partitions.iter().any(|one| one.partition == partition && one.leader == victim as i32)
        };
        let survivor = ClusterClient::new(&cluster.kafka_address(other_than(&cluster, victim))).or_panic();
        survivor.view(TOPICS[0]).or_panic();
        let begun = Instant::now();
        loads.mark_fault();
        cluster.kill(victim).or_panic();
        await_other_leaders(&survivor, victim);
        let elected = begun.elapsed();
        let took = loads.await_recovery(&cluster, led);
        longest = longest.max(took);
        late += u32::from(took > PROMISED);
        line(&format!(
            "round {round} of {rounds}: killed node {victim}, all it led is led by others after {elected:.2?} and went \
             on after {took:.2?}"
        ));
        cluster.run(victim).or_panic();
        cluster.await_node(victim, 3).or_panic();
    }
    loads.await_in_sync(&mut cluster);
    let verdict = loads.judge();
    line(&format!("{rounds} rounds, {} messages acknowledged", verdict.acknowledged));
    promise(
        &format!("production goes on within {PROMISED:?}"),
        &format!("{longest:.2?} at the longest, {late} of {rounds} rounds above it"),
        late == 0,
    );
    cluster.check_alive().or_panic();
    assert!(verdict.faults.is_empty(), "{}", verdict.faults.join("\n"));
}
