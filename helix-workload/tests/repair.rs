//! Bits of a node's log are flipped while it is down, in sealed segments or in the last one: it comes back, gets what is damaged from the
//! others, serves nothing wrong meanwhile, and holds its own when another node is gone.
//!
//! `HELIX_ROUNDS` rounds (1 without it).

mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use helix_workload::cluster::{Cluster, DEADLINE};
use helix_workload::metrics::Samples;
use helix_workload::progress::line;
use helix_workload::reader::{self, ReadCounters};
use helix_workload::wait;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use support::{OrPanic, TOPICS, TwoLoads, start_cluster, variable};

/// Small segments and little memory, so that most of what is read comes from several files.
const SETTINGS: [(&str, &str); 3] =
    [("helix.wal.segment.bytes", "1048576"), ("helix.tail.max.bytes", "1048576"), ("helix.shards", "2")];
/// Behind the header of a segment.
const FIRST_FRAME: u64 = 64;

/// The segments of a node that hold anything, oldest first, each with the end of what is in it.
fn segments(cluster: &Cluster, node: u32) -> Vec<(PathBuf, u64)> {
    let directory = cluster.directory().join(node.to_string()).join("data/wal");
    let entries = fs::read_dir(&directory).expect("the node has a log");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "wal"));
    paths.sort();
    let used = |path: PathBuf| {
        let bytes = fs::read(&path).expect("it can be read");
        let end = bytes.iter().rposition(|byte| *byte != 0)?;
        Some((path, end as u64)).filter(|(_, end)| *end > FIRST_FRAME)
    };
    paths.into_iter().filter_map(used).collect()
}

/// Flips one bit in each of so many places between the first frame and `end`.
fn flip_bits(path: &PathBuf, end: u64, places: usize, random: &mut SmallRng) {
    let file = File::options().read(true).write(true).open(path).expect("it can be opened");
    for _ in 0..places {
        let position = random.random_range(FIRST_FRAME..end);
        let mut byte = [0];
        file.read_exact_at(&mut byte, position).expect("it is that long");
        byte[0] ^= 1 << random.random_range(0..8);
        file.write_all_at(&byte, position).expect("it can be written");
    }
}

/// Reads every record of both topics from whoever leads now.
fn read_everything(loads: &TwoLoads, cluster: &Cluster) -> u64 {
    let counters = ReadCounters::default();
    for topic in TOPICS {
        let ranges = reader::whole_topic(loads.client(), topic).or_panic();
        let read = reader::read(&cluster.bootstrap(), topic, &ranges, &counters, |_, _, _| {});
        read.unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()));
    }
    counters.records.into_inner()
}

fn metric(cluster: &Cluster, node: u32, name: &str) -> f64 {
    let samples = Samples::fetch(&cluster.http_address(node)).or_panic();
    samples.value(name).unwrap_or_else(|| panic!("node {node} has no metric {name}"))
}

fn await_repaired(cluster: &Cluster, node: u32) -> f64 {
    let repaired = wait::until(format!("the log of node {node} to be whole"), DEADLINE, || {
        match metric(cluster, node, "helix_damaged_places") {
            0.0 => Ok(()),
            places => Err(format!("{places} places are damaged")),
        }
    });
    repaired.unwrap_or_else(|error| panic!("{error}\n{}", cluster.log_tails()));
    metric(cluster, node, "helix_entries_repaired_total")
}

#[test]
fn damaged_logs_are_repaired_from_the_others() {
    let rounds: u32 = variable("HELIX_ROUNDS", 1);
    let seed: u64 = variable("HELIX_SEED", SmallRng::from_os_rng().random());
    line(&format!("HELIX_SEED={seed}"));
    let mut random = SmallRng::seed_from_u64(seed);
    let mut cluster = start_cluster("repair", 3, &SETTINGS);
    let loads = TwoLoads::start(&cluster);
    let mut repaired = 0.0;
    for round in 1..=rounds {
        loads.await_acknowledged(15_000);
        loads.await_in_sync(&mut cluster);
        let (victim, other) = (1 + round % 3, 1 + (round + 1) % 3);
        // Stopped it has sealed everything; killed, its last segment is looked through at the next start.
        let sealed = round % 2 == 1;
        if sealed {
            cluster.stop(victim).or_panic();
        } else {
            cluster.kill(victim).or_panic();
        }
        let all = segments(&cluster, victim);
        let (last, older) = all.split_last().expect("it has stored something");
        let damaged = if sealed { older } else { std::slice::from_ref(last) };
        for (path, end) in damaged {
            flip_bits(path, *end * 9 / 10, 8, &mut random);
        }
        cluster.run(victim).or_panic();
        cluster.await_node(victim, 3).or_panic();
        loads.await_in_sync(&mut cluster);
        read_everything(&loads, &cluster);
        // The repaired node and the third one have to do.
        loads.mark_fault();
        cluster.kill(other).or_panic();
        loads.await_recovery(&cluster, |_, _| true);
        let read = read_everything(&loads, &cluster);
        let here = await_repaired(&cluster, victim);
        repaired += here;
        cluster.run(other).or_panic();
        cluster.await_node(other, 3).or_panic();
        loads.await_in_sync(&mut cluster);
        line(&format!(
            "round {round} of {rounds}: {} segment(s) of node {victim} damaged, {here} entries repaired; {read} records read without \
             node {other}",
            damaged.len()
        ));
    }
    let verdict = loads.judge();
    line(&format!("{repaired} entries repaired, {} messages acknowledged", verdict.acknowledged));
    cluster.check_alive().or_panic();
    assert!(verdict.faults.is_empty(), "{}", verdict.faults.join("\n"));
    assert!(repaired > 0.0, "no damage was found: the test has damaged nothing that is read");
}
