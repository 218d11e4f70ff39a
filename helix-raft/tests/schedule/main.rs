//! Random schedules: a cluster of real cores over a simulated network and disk, with the invariants of the Raft thesis
//! checked at every step, and progress demanded at the end.
//!
//! `HELIX_SEEDS=A..B cargo test -p helix-raft --test schedule` runs other seeds, `HELIX_STEPS` sets their length.

mod checker;
mod disk;
mod heal;
mod members;
mod node;
mod profile;
mod rng;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Tally, World};

type Field = fn(&Tally) -> u64;

const SEEDS: Range<u64> = 0..200;
const STEPS: u64 = 3000;

fn steps() -> u64 {
    std::env::var("HELIX_STEPS").ok().and_then(|steps| steps.parse().ok()).unwrap_or(STEPS)
}

fn seeds() -> Range<u64> {
    let Ok(text) = std::env::var("HELIX_SEEDS") else { return SEEDS };
    let parsed = match text.split_once("..") {
        Some((from, to)) => from.parse().ok().zip(to.parse().ok()),
        None => text.parse().ok().map(|seed: u64| (seed, seed + 1)),
    };
    let (from, to) = parsed.expect("HELIX_SEEDS is a seed or a range like 0..1000");
    from..to
}

fn run(seed: u64) -> (u64, Tally) {
    let mut world = World::new(seed);
    world.run(steps());
    (world.trace, world.tally)
}

#[test]
fn invariants_hold_under_random_schedules() {
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut tallies = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            return tallies;
                        }
                        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
                        let (_, tally) = outcome.unwrap_or_else(|_| {
                            next.store(seeds.end, Ordering::Relaxed);
                            panic!(
                                "seed {seed} failed; replay: HELIX_SEEDS={seed} HELIX_STEPS={} cargo test -p \
                                 helix-raft --test schedule invariants",
                                steps()
                            )
                        });
                        tallies.push(tally);
                    }
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a seed failed, see above")).collect()
    });
    let sum = |field: Field| tallies.iter().map(field).sum::<u64>();
    let reached: [(&str, Field); 15] = [
        ("committed", |tally| tally.committed),
        ("confirmed leaderships", |tally| tally.confirmed),
        ("crashes", |tally| tally.crashes),
        ("power losses", |tally| tally.power_losses),
        ("blackouts", |tally| tally.blackouts),
        ("starts installed", |tally| tally.installs),
        ("WAL reads", |tally| tally.wal_reads),
        ("vote requests", |tally| tally.elections),
        ("membership changes", |tally| tally.changes),
        ("joins", |tally| tally.joins),
        ("deletions", |tally| tally.deletions),
        ("disks lost", |tally| tally.disks_lost),
        ("unclean recoveries", |tally| tally.unclean),
        ("forced", |tally| tally.forced),
        ("committed entries lost to blackouts", |tally| tally.entries_lost),
    ];
    let diverged = sum(|tally| tally.diverged);
    // Rare: schedules are too wild for one leader to outlive the election of the next and what that commits.
    let deposed = sum(|tally| tally.deposed_asked);
    let counts: Vec<String> = reached.iter().map(|(name, field)| format!("{} {name}", sum(*field))).collect();
    let counts = counts.join(", ");
    eprintln!(
        "{} seeds: {counts}, {diverged} replicas begun anew, {deposed} deposed leaders asked",
        tallies.len()
    );
    if tallies.len() >= 100 {
        for (name, field) in reached {
            assert!(sum(field) > 0, "the schedules have to reach every part of the protocol: no {name}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in [1, 2, 3] {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}
