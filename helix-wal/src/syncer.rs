//! Runs `fdatasync` beside the writer. One round covers everything written before it began and completes all who asked
//! for that; whoever comes later waits for the next round.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::FatalError;
use crate::shared::{Command, Shared};

/// Syncs until told to stop.
pub(crate) fn run(shared: &Arc<Shared>) {
    let wait = Duration::from_millis(shared.options.background_sync_ms.max(1));
    while let Some(time_is_up) = shared.wait_for_sync(wait) {
        step(shared, time_is_up);
    }
}

/// One round, if one is due. With `background`, whatever is unsynced is due.
pub(crate) fn step(shared: &Shared, background: bool) -> bool {
    let Some(round) = shared.sync_round(background) else {
        return background && shared.take_mark_due() && shared.enqueue(Command::Mark).is_ok();
    };
    let begun = Instant::now();
    for segment in &round.segments {
        if let Err(error) = segment.file.sync_data() {
            shared.fail(&FatalError::new(format!("syncing segment {}", segment.id), error));
            return true;
        }
    }
    if !round.segments.is_empty() {
        shared.stats.syncs.add(1);
        shared.stats.sync_latency.record(begun.elapsed());
    }
    shared.synced(&round);
    true
}
