//! Gives disk space back from time to time: segments in which nothing lives go, mostly dead ones are rewritten.

use std::sync::Arc;
use std::time::Duration;

use helix_raft::{GroupId, Index};
use helix_wal::{ReclaimError, Wal};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use crate::broker::partitions::PartitionTable;
use crate::env::{Env, watch};
use crate::ops::fatal::Fatal;

/// Looks for space every `interval`, until it is aborted.
pub(super) async fn run(
    env: Env,
    interval: Duration,
    wal: Wal,
    partitions: Arc<PartitionTable>,
    metadata_applied: watch::Receiver<Index>,
    fatal: Fatal,
) {
    let mut clock = tokio::time::interval(interval);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let (wal, partitions, metadata) = (wal.clone(), Arc::clone(&partitions), metadata_applied.clone());
        let reclaimed = env
            .spawn_blocking(move || wal.reclaim(&|group| committed(&partitions, &metadata, GroupId(group.0))))
            .await;
        match reclaimed {
            Ok(Ok(report)) => debug!(?report, "looked for disk space"),
            Ok(Err(ReclaimError::NotSynced(error))) => fatal.report(error.to_string()),
            Ok(Err(error)) => warn!(%error, "disk space could not be given back"),
            Err(error) => warn!(%error, "giving back disk space ended badly"),
        }
    }
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
