//! The writers of WAL and votes as tasks, for simulations: each step waits as long as the [`Stepper`] says.

use std::sync::Arc;
use std::time::Duration;

use helix_wal::disk::Disk;
use helix_wal::{OpenError, Part, Recovered, Wal, WalOptions};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::{Env, Stepper, Work};
use crate::durable::vote_writer::VoteWriter;
use crate::durable::votes::VoteStore;

/// The parts that are told of work; the background sync has its own clock.
const PARTS: [(Part, Work); 3] = [
    (Part::Writer, Work::WalWrite),
    (Part::Syncer, Work::WalSync),
    (Part::Housekeeper, Work::WalHousekeeping),
];

pub(super) fn open_wal(
    env: &Env,
    stepper: &Arc<dyn Stepper>,
    disk: Arc<dyn Disk>,
    mut options: WalOptions,
) -> Result<(Wal, Recovered), OpenError> {
    let bells: [Arc<Notify>; PARTS.len()] = Default::default();
    let background_sync = Duration::from_millis(options.background_sync_ms.max(1));
    options.on_work = Some(Arc::new({
        let bells = bells.clone();
        move |part| {
            for (bell, _) in bells.iter().zip(PARTS).filter(|(_, (known, _))| *known == part) {
                bell.notify_one();
            }
        }
    }));
    let (wal, recovered) = Wal::open_stepped(disk, options)?;
    for (bell, (part, work)) in bells.into_iter().zip(PARTS) {
        let wal = wal.clone();
        env.spawn(step_when_told(bell, Arc::clone(stepper), work, move || wal.step(part)));
    }
    env.spawn(sync_in_background(wal.clone(), background_sync));
    Ok((wal, recovered))
}

pub(super) fn start_votes(env: &Env, stepper: &Arc<dyn Stepper>, store: VoteStore) -> Arc<VoteWriter> {
    let bell = Arc::new(Notify::new());
    let ring = Arc::clone(&bell);
    let writer = Arc::new(VoteWriter::stepped(store, move || ring.notify_one()));
    let stepped = Arc::clone(&writer);
    env.spawn(step_when_told(bell, Arc::clone(stepper), Work::Votes, move || stepped.step()));
    writer
}

async fn step_when_told(bell: Arc<Notify>, stepper: Arc<dyn Stepper>, work: Work, step: impl Fn() -> bool) {
    loop {
        bell.notified().await;
        loop {
            let pause = stepper.pause_before(work);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            if !step() {
                break;
            }
        }
    }
}

async fn sync_in_background(wal: Wal, every: Duration) {
    let mut clock = tokio::time::interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        wal.step(Part::BackgroundSync);
    }
}
