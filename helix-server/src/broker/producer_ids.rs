//! Producer ids: taken from blocks that the metadata group hands out, so that no two producers of the cluster ever share one.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::warn;

use crate::controller::Controller;
use crate::controller::commands::{CommandOutcome, MetadataCommand};
use crate::env::Env;

/// Ids per block: one command of the metadata group serves this many producers.
const BLOCK: u32 = 1000;
/// Requests that may wait for a block.
const MAX_WAITING: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(10);

/// Hands out producer ids.
#[derive(Debug, Clone)]
pub struct ProducerIds {
    requests: mpsc::Sender<oneshot::Sender<i64>>,
}

impl ProducerIds {
    /// Starts the owner of this node's block. It ends when all handles are gone.
    pub(crate) fn start(env: &Env, controller: Controller) -> (Self, JoinHandle<()>) {
        let (requests, queue) = mpsc::channel(MAX_WAITING);
        (Self { requests }, env.spawn(hand_out(queue, controller)))
    }

    /// The next id; `None` if no block could be had just now.
    pub async fn next(&self) -> Option<i64> {
        let (answer, id) = oneshot::channel();
        self.requests.send(answer).await.ok()?;
        id.await.ok()
    }
}

async fn hand_out(mut queue: mpsc::Receiver<oneshot::Sender<i64>>, controller: Controller) {
    let mut block = 0..0i64;
    while let Some(answer) = queue.recv().await {
        if block.is_empty() {
            match controller.submit(MetadataCommand::AllocateProducerIds { count: BLOCK }, TIMEOUT).await {
                Ok(CommandOutcome::ProducerIds { first, count }) => block = first..first + i64::from(count),
                Ok(other) => warn!(?other, "unexpected answer to a request for producer ids"),
                Err(error) => warn!(%error, "no producer ids to be had; clients will ask again"),
            }
        }
        // Dropping the sender tells the client to ask again; a vanished client costs one id of 2^63.
        if let Some(id) = block.next()
            && answer.send(id).is_err()
        {
            tracing::debug!(id, "the client that asked for a producer id is gone");
        }
    }
}
