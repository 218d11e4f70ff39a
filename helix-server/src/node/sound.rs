//! Keeps the state file while the node runs: records which replicas are sound again after a machine crash.

use helix_raft::GroupId;
use tokio::sync::mpsc;
use tracing::info;

use crate::durable::state_file::StateFile;
use crate::env::Env;
use crate::ops::fatal::Fatal;

/// Groups recorded with one write.
const MAX_AT_ONCE: usize = 10_000;

/// Records groups as they become sound, until all shards have ended; then gives the state file back.
pub(super) async fn keep(
    mut state: StateFile,
    mut sound: mpsc::UnboundedReceiver<GroupId>,
    env: Env,
    fatal: Fatal,
) -> StateFile {
    let mut groups = Vec::new();
    while sound.recv_many(&mut groups, MAX_AT_ONCE).await > 0 {
        let batch = std::mem::take(&mut groups);
        let recorded = env
            .spawn_blocking(move || {
                let result = state.mark_sound(&batch);
                (state, batch.len(), result)
            })
            .await;
        let (back, count, result) = match recorded {
            Ok(recorded) => recorded,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        state = back;
        match result {
            Ok(()) => info!(count, "replicas are sound again"),
            Err(error) => fatal.report(error.to_string()),
        }
    }
    state
}
