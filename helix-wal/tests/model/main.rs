//! The log against a reference model, on a disk that goes down after every single operation.
//!
//! Whatever was acknowledged must be there at the durability that was claimed, nothing that was not written may ever be
//! read, and opening a log twice must find the same.
//!
//! `HELIX_WAL_SEEDS=40` tries more seeds, `HELIX_WAL_SEED=5` one of them, and with `HELIX_WAL_DUMP` set the files are printed
//! after each crash.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod reference;
mod world;

use helix_wal::disk::Crash;
use world::World;

/// `count` seeds from `first` on; `HELIX_WAL_SEEDS=10` tries ten times as many, `HELIX_WAL_SEED=5` only that one.
fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("HELIX_WAL_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + count * number("HELIX_WAL_SEEDS").unwrap_or(1),
    }
}

/// Runs `steps` actions, opening the log first. Stops early when the disk does.
fn live(world: &mut World, steps: usize) -> bool {
    world.open() && (0..steps).all(|_| world.act())
}

/// Opens after a crash; now and then the disk stops within the recovery too.
fn come_back(world: &mut World, seed: u64) {
    for attempt in 0..3 {
        world.disk.stop_after(seed.wrapping_mul(7 + attempt) % 9);
        world.open();
        world.crash(if seed.is_multiple_of(2) { Crash::Machine } else { Crash::Process });
    }
    assert!(world.open(), "the disk works");
}

/// The same story, cut short after each operation of the disk.
fn crash_everywhere(seed: u64, steps: usize, crash: Crash) {
    let mut whole = World::new(seed);
    assert!(live(&mut whole, steps));
    let operations = whole.disk.operations();
    for stop in 0..operations {
        // Shown only if something fails.
        println!("seed {seed}, stopping after operation {stop} of {operations}");
        let mut world = World::new(seed);
        world.disk.stop_after(stop);
        assert!(!live(&mut world, steps), "seed {seed}: operation {stop} did not happen the second time");
        world.crash(crash);
        come_back(&mut world, seed.wrapping_add(stop));
    }
}

#[test]
fn nothing_is_lost_without_crashes() {
    for seed in seeds(0, 40) {
        let mut world = World::new(seed);
        assert!(live(&mut world, 400), "seed {seed}");
        world.check_again();
    }
}

#[test]
fn a_process_crash_after_any_operation_loses_nothing_acknowledged() {
    for seed in seeds(1_000_000, 4) {
        crash_everywhere(seed, 120, Crash::Process);
    }
}

#[test]
fn a_machine_crash_after_any_operation_loses_nothing_synced() {
    for seed in seeds(2_000_000, 4) {
        crash_everywhere(seed, 120, Crash::Machine);
    }
}

#[test]
fn a_life_of_many_crashes() {
    for seed in seeds(3_000_000, 20) {
        let mut world = World::new(seed);
        for life in 0..12 {
            println!("seed {seed}, life {life}");
            world.disk.stop_after(20 + (seed * 31 + life * 17) % 120);
            live(&mut world, 300);
            world.crash(if (seed + life) % 3 == 0 { Crash::Process } else { Crash::Machine });
            come_back(&mut world, seed + life);
            world.check_again();
            world.crash(Crash::Process);
        }
    }
}
