//! Cluster metadata: group 0 and what talks to it.
//!
//! `commands` are proposed through [`Controller::submit`] on any node, replicated by the shard that owns group 0, applied by
//! `machine` to the `image` that every request reads; `reconcile` makes this node's replicas match the image.

pub mod commands;
pub mod image;
pub(crate) mod internal_topics;
pub mod machine;
pub mod placement;
pub mod reconcile;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use helix_raft::{Index, ReplicaId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::broker::leaders::LeaderTable;
use crate::cluster::ClusterLink;
use crate::env::{Env, watch};
use crate::ids::NodeId;
use crate::peers::control::ControlMessage;
use crate::shard::Shards;
use commands::{CommandError, CommandOutcome, CommandResult, METADATA_GROUP, MetadataCommand};

/// How long one attempt waits for the leader's word before the leader is looked up again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long to wait for news of a leader before looking again all the same.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Why a command did not come through.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// It was considered and refused; nothing changed.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// No leader of the metadata group took it in time; it may still be applied.
    #[error("the cluster's metadata could not be changed in time: is a majority of the nodes up?")]
    Timeout,
    /// The node is stopping.
    #[error("this broker is shutting down")]
    ShuttingDown,
}

/// What became of a command at the leader of group 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proposed {
    /// Committed and applied at this index.
    Applied {
        /// Where.
        index: Index,
        /// With this result.
        result: CommandResult,
    },
    /// This node does not lead group 0 (any more). Whether the command was appended is not known.
    NotLeader,
}

/// Submits commands to the metadata group from any node.
#[derive(Debug, Clone)]
pub struct Controller {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    env: Env,
    me: ReplicaId,
    leaders: Arc<LeaderTable>,
    shards: Shards,
    cluster: ClusterLink,
    applied: watch::Receiver<Index>,
    /// Commands forwarded to another node that has not answered yet.
    forwarded: Mutex<BTreeMap<u64, oneshot::Sender<Proposed>>>,
    next_request: AtomicU64,
}

impl Controller {
    /// A controller client for this node.
    pub(crate) fn new(
        env: Env,
        me: ReplicaId,
        leaders: Arc<LeaderTable>,
        shards: Shards,
        cluster: ClusterLink,
        applied: watch::Receiver<Index>,
    ) -> Self {
        let shared = Shared {
            env,
            me,
            leaders,
            shards,
            cluster,
            applied,
            forwarded: Mutex::default(),
            next_request: AtomicU64::new(1),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Submits a command and waits until this node's own image shows it.
    ///
    /// # Errors
    /// When the command is refused, or nobody could take it within `timeout`.
    pub async fn submit(
        &self,
        command: MetadataCommand,
        timeout: Duration,
    ) -> Result<CommandOutcome, SubmitError> {
        let deadline = Instant::now() + timeout;
        let payload = Bytes::from(crate::versioned::encode(&command));
        let mut uncertain = false;
        loop {
            match self.attempt(payload.clone(), deadline).await {
                Some(Proposed::Applied { index, result }) => {
                    let mut applied = self.shared.applied.clone();
                    let seen = applied.wait_for(|seen| *seen >= index);
                    // A late image is no failure: the command is committed.
                    if tokio::time::timeout_at(deadline, seen).await.is_err() {
                        tracing::debug!(%index, "the image lags behind a command that this node submitted");
                    }
                    return forgive_repetition(&command, result, uncertain).map_err(SubmitError::from);
                }
                Some(Proposed::NotLeader) | None => uncertain = true,
            }
            if Instant::now() >= deadline {
                return Err(SubmitError::Timeout);
            }
        }
    }

    /// One try with whoever leads now. `None`: nobody answered.
    async fn attempt(&self, payload: Bytes, deadline: Instant) -> Option<Proposed> {
        let mut news = self.shared.leaders.watch();
        news.mark_unchanged();
        let leader = self.shared.leaders.get(METADATA_GROUP).and_then(|info| info.leader);
        let until = deadline.min(Instant::now() + ATTEMPT_TIMEOUT);
        let answer = match leader {
            Some(leader) if leader == self.shared.me => {
                tokio::time::timeout_at(until, self.shared.shards.propose_metadata(payload)).await.ok()
            }
            Some(leader) => self.forward(leader, payload, until).await,
            None => None,
        };
        if !matches!(answer, Some(Proposed::Applied { .. })) {
            let pause = deadline.min(Instant::now() + RETRY_INTERVAL);
            // Either there is news of a leader or it is time to look again.
            let _news_or_pause = tokio::time::timeout_at(pause, news.changed()).await;
        }
        answer
    }

    async fn forward(&self, leader: ReplicaId, command: Bytes, until: Instant) -> Option<Proposed> {
        let node = self.shared.cluster.node_of(leader)?;
        let request = self.shared.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.shared.forwarded.lock().insert(request, sender);
        self.shared
            .cluster
            .send_control(node, &ControlMessage::Request { id: request, command: command.to_vec() });
        let answer = tokio::time::timeout_at(until, answer).await;
        self.shared.forwarded.lock().remove(&request);
        answer.ok()?.ok()
    }

    /// Takes a command that another node forwarded, and answers that node when it is decided.
    pub(crate) fn take_forwarded(&self, from: NodeId, request: u64, command: Vec<u8>) {
        let controller = self.clone();
        self.shared.env.spawn(async move {
            let proposed = controller.shared.shards.propose_metadata(Bytes::from(command)).await;
            let answer = crate::versioned::encode(&proposed);
            controller
                .shared
                .cluster
                .send_control(from, &ControlMessage::Reply { id: request, outcome: answer });
        });
    }

    /// Takes the answer to a command that this node forwarded.
    pub(crate) fn take_answer(&self, request: u64, answer: &[u8]) {
        let waiting = self.shared.forwarded.lock().remove(&request);
        match (waiting, crate::versioned::decode::<Proposed>(answer)) {
            (Some(waiting), Ok(proposed)) => {
                // The submitter may have given up in this very moment.
                drop(waiting.send(proposed));
            }
            (_, Err(damage)) => tracing::warn!(%damage, "the answer to a forwarded command cannot be read"),
            (None, Ok(_)) => tracing::debug!(request, "an answer to a forwarded command came too late"),
        }
    }
}

/// A command that was perhaps applied before, on an earlier try, and is refused now because of it, has succeeded.
fn forgive_repetition(command: &MetadataCommand, result: CommandResult, uncertain: bool) -> CommandResult {
    match (command, &result) {
        (MetadataCommand::DeleteTopic { .. }, Err(CommandError::UnknownTopic)) if uncertain => {
            Ok(CommandOutcome::Done)
        }
        (
            MetadataCommand::CreatePartitions { total, .. },
            Err(CommandError::NotAnIncrease { current, .. }),
        ) if uncertain && current == total => Ok(CommandOutcome::Done),
        _ => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn only_a_repetition_is_forgiven() {
        let delete = MetadataCommand::DeleteTopic { topic_id: Uuid::nil() };
        let refused = Err(CommandError::UnknownTopic);
        assert_eq!(forgive_repetition(&delete, refused.clone(), true), Ok(CommandOutcome::Done));
        assert_eq!(forgive_repetition(&delete, refused.clone(), false), refused);
        let grow = MetadataCommand::CreatePartitions { topic_id: Uuid::nil(), total: 4, assignments: None };
        let same = Err(CommandError::NotAnIncrease { current: 4, requested: 4 });
        let more = Err(CommandError::NotAnIncrease { current: 5, requested: 4 });
        assert_eq!(forgive_repetition(&grow, same, true), Ok(CommandOutcome::Done));
        assert_eq!(forgive_repetition(&grow, more.clone(), true), more);
    }
}
