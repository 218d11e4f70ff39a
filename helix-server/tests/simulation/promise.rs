//! The table of what an acknowledgement survives, cell by cell: nothing but the faults of one cell strikes, and nothing may be lost.

use crate::explore::{self, STEPS, Summary};
use crate::faults::Fault;
use crate::plan::Plan;

/// Schedules for each cell.
const SEEDS: u64 = 6;

/// A minority of machines: power, page cache and disks.
const A_MINORITY_OF_MACHINES: &[(Fault, u32)] =
    &[(Fault::Power, 5), (Fault::DiskLost, 1), (Fault::TornWrite, 1)];
/// Every process at once, to be started again in any order.
const EVERY_PROCESS: &[(Fault, u32)] = &[(Fault::KillAll, 1)];
/// The power of every machine at once.
const EVERY_MACHINE: &[(Fault, u32)] = &[(Fault::PowerEverywhere, 1)];

fn run(synced: bool, harsh: bool, faults: &'static [(Fault, u32)]) -> Summary {
    let plan = |seed| Plan { synced, harsh, may_lose: false, faults, ..Plan::new(seed, STEPS) };
    explore::run_plans(0..SEEDS, plan, None, |seed, outcome| {
        if let Some(verdict) = &outcome.verdict {
            eprintln!("seed {seed}: {verdict}");
        }
    })
}

fn is_kept(synced: bool, faults: &'static [(Fault, u32)]) {
    let summary = run(synced, false, faults);
    eprintln!("{summary}");
    assert!(summary.broken.is_empty(), "{:#?}", summary.broken);
    assert!(summary.acknowledged > 0 && summary.seen.crashes > SEEDS, "{summary}");
}

#[test]
fn replication_only_survives_the_loss_of_a_minority_of_machines() {
    is_kept(false, A_MINORITY_OF_MACHINES);
}

#[test]
fn replication_only_survives_the_end_of_every_process() {
    is_kept(false, EVERY_PROCESS);
}

#[test]
fn fsync_survives_the_loss_of_a_minority_of_machines() {
    is_kept(true, A_MINORITY_OF_MACHINES);
}

#[test]
fn fsync_survives_the_end_of_every_process() {
    is_kept(true, EVERY_PROCESS);
}

#[test]
fn fsync_survives_the_power_loss_of_every_machine() {
    is_kept(true, EVERY_MACHINE);
}

/// What is not promised is not kept either, so these tests would see it.
#[test]
fn replication_only_does_not_survive_the_power_loss_of_every_machine() {
    let summary = run(false, true, EVERY_MACHINE);
    assert!(!summary.broken.is_empty(), "{summary}");
}
