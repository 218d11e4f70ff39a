//! Gives disk space back from time to time: segments in which nothing lives go, mostly dead ones are rewritten.
//!
//! Many files that go at once make whoever writes wait, because the file system discards their blocks before it goes on. So they go a
//! few at a time, as many as it takes to give back faster than is written.

use std::sync::Arc;
use std::time::Duration;

use helix_raft::{GroupId, Index};
use helix_wal::{ReclaimError, ReclaimReport, SpaceClass, Wal};
use tokio::task::JoinError;
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use crate::broker::partitions::PartitionTable;
use crate::env::{Env, watch};
use crate::ops::fatal::Fatal;

/// Pause between two steps.
const STEP: Duration = Duration::from_millis(250);
/// The disk is nearly full when not even so many more segments fit.
const NEARLY_FULL_SEGMENTS: u64 = 4;
/// In a step so many times what was written since the last one may go.
const AHEAD_OF_WRITING: u64 = 2;

/// How much may go in each step of giving space back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    /// What may go in any case.
    least_bytes: u64,
    /// Bytes that were ever written, as of the last step.
    written_bytes: u64,
}

impl Pace {
    /// At the first step: what was written until now says nothing about how fast things have to go.
    fn begin(least_bytes: u64, written_bytes: u64) -> Self {
        Self { least_bytes, written_bytes }
    }

    /// Bytes that may go in the next step. A disk that is nearly full cannot wait.
    fn next_step(&mut self, written_bytes: u64, nearly_full: bool) -> u64 {
        let written_since = written_bytes.saturating_sub(self.written_bytes);
        self.written_bytes = written_bytes;
        if nearly_full {
            u64::MAX
        } else {
            self.least_bytes.max(written_since.saturating_mul(AHEAD_OF_WRITING))
        }
    }
}

/// Looks for space every `interval`, until it is aborted. A segment file has `segment_bytes`.
pub(super) async fn run(
    env: Env,
    interval: Duration,
    segment_bytes: u64,
    wal: Wal,
    partitions: Arc<PartitionTable>,
    metadata_applied: watch::Receiver<Index>,
    fatal: Fatal,
) {
    let mut clock = tokio::time::interval(interval);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let mut pace = Pace::begin(segment_bytes, wal.stats().bytes);
        loop {
            let nearly_full =
                wal.check_space(NEARLY_FULL_SEGMENTS * segment_bytes, SpaceClass::Normal).is_err();
            let allowed_bytes = pace.next_step(wal.stats().bytes, nearly_full);
            let (wal, partitions, metadata) =
                (wal.clone(), Arc::clone(&partitions), metadata_applied.clone());
            let reclaimed = env
                .spawn_blocking(move || {
                    let committed =
                        |group: helix_wal::GroupId| committed(&partitions, &metadata, GroupId(group.0));
                    wal.reclaim_some(&committed, allowed_bytes)
                })
                .await;
            if !goes_on(reclaimed, &fatal) {
                break;
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

/// Whether there is more to give back.
fn goes_on(reclaimed: Result<Result<ReclaimReport, ReclaimError>, JoinError>, fatal: &Fatal) -> bool {
    match reclaimed {
        Ok(Ok(report)) => {
            debug!(?report, "looked for disk space");
            return report.unfinished;
        }
        Ok(Err(ReclaimError::NotSynced(error))) => fatal.report(error.to_string()),
        Ok(Err(error)) => warn!(%error, "disk space could not be given back"),
        Err(error) => warn!(%error, "giving back disk space ended badly"),
    }
    false
}

/// Only what is known to be committed may be rewritten.
fn committed(
    partitions: &PartitionTable,
    metadata: &watch::Receiver<Index>,
    group: GroupId,
) -> helix_wal::Index {
    let index = if group == crate::controller::commands::METADATA_GROUP {
        metadata.get().0
    } else {
        partitions.get(group).map_or(0, |view| view.applied_index())
    };
    helix_wal::Index(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_comes_back_faster_than_it_is_used_and_not_all_at_once() {
        let mut pace = Pace::begin(100, 5000);
        assert_eq!(pace.next_step(5000, false), 100, "what was written before does not count");
        assert_eq!(pace.next_step(5040, false), 100);
        assert_eq!(pace.next_step(5340, false), 600, "twice what was written");
        assert_eq!(pace.next_step(5340, false), 100, "and each byte counts once");
        assert_eq!(pace.next_step(5350, true), u64::MAX);
        assert_eq!(pace.next_step(5350, false), 100);
    }

    #[test]
    fn the_backlog_shrinks_however_fast_is_written() {
        // Each step something is written, and has to go in turn.
        for written_per_step in [0, 10, 99, 100, 1000, 1 << 40] {
            let mut pace = Pace::begin(100, 0);
            let (mut written, mut backlog) = (0, 10_000_u64);
            let mut steps = 0;
            while backlog > 0 {
                let before = backlog;
                backlog = backlog.saturating_sub(pace.next_step(written, false));
                assert!(steps == 0 || backlog < before, "{written_per_step}");
                if backlog > 0 {
                    written += written_per_step;
                    backlog += written_per_step;
                    steps += 1;
                }
                assert!(steps < 10_000, "{written_per_step} in each step is never given back");
            }
        }
    }
}
