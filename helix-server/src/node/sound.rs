//! Keeps the state file while the node runs: records whose log is sound again after a machine crash, and whose is given up.

use tokio::sync::mpsc;
use tracing::info;

use crate::durable::recovering::Finding;
use crate::durable::state_file::StateFile;
use crate::env::Env;
use crate::ops::fatal::Fatal;

/// Findings recorded with one write.
const MAX_AT_ONCE: usize = 10_000;

/// Records findings until all shards have ended; then gives the state file back.
pub(super) async fn keep(
    mut state: StateFile,
    mut findings: mpsc::UnboundedReceiver<Finding>,
    env: Env,
    fatal: Fatal,
) -> StateFile {
    let mut batch = Vec::new();
    while findings.recv_many(&mut batch, MAX_AT_ONCE).await > 0 {
        let batch = std::mem::take(&mut batch);
        let sound = batch.iter().filter(|finding| matches!(finding, Finding::Sound(_))).count();
        let recorded = env
            .spawn_blocking(move || {
                let result = state.note(batch);
                (state, result)
            })
            .await;
        let (back, result) = match recorded {
            Ok(recorded) => recorded,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        state = back;
        match result {
            Ok(()) if sound > 0 => info!(count = sound, "replicas are sound again"),
            Ok(()) => {}
            Err(error) => fatal.report(error.to_string()),
        }
    }
    state
}
