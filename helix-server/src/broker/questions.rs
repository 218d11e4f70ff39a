//! What one node asks another on a client's behalf: things that only the leader of a group knows or can do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use helix_raft::{GroupId, Index, ReplicaId, Term};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Broker;
use crate::cluster::ClusterLink;
use crate::controller::commands::METADATA_GROUP;
use crate::env::Env;
use crate::ids::NodeId;
use crate::peers::control::ControlMessage;
use crate::shard::Shards;

/// What the leader of a group is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Hand leadership of a group to this replica.
    HandOver {
        /// The group.
        group: GroupId,
        /// Who is to lead it.
        to: ReplicaId,
    },
    /// How does the metadata group stand?
    Quorum,
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It hands over, or why it does not.
    HandOver(Result<(), String>),
    /// How the group stands; `None` if somebody else leads it.
    Quorum(Option<QuorumStanding>),
}

/// How a group stands, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumStanding {
    /// The leader.
    pub leader: ReplicaId,
    /// Its term.
    pub term: Term,
    /// Last committed entry.
    pub commit: Index,
    /// Voters and learners.
    pub members: Vec<MemberStanding>,
}

/// How far a member of a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStanding {
    /// Its disk.
    pub replica: ReplicaId,
    /// Whether it votes.
    pub is_voter: bool,
    /// Last entry that it is known to have.
    pub matched: Index,
    /// When the leader heard of it last, in its clock's milliseconds since 1970; `None` if it does not reach it.
    pub heard_at_ms: Option<i64>,
    /// When it had everything last; `None` if that is not known.
    pub caught_up_at_ms: Option<i64>,
}

/// Why leadership was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum HandOverError {
    #[error("not in time")]
    Timeout,
    #[error("{0}")]
    Refused(String),
}

/// Asks other nodes, and answers them.
#[derive(Debug, Clone)]
pub struct Questions {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    env: Env,
    node: NodeId,
    shards: Shards,
    cluster: ClusterLink,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    next: AtomicU64,
}

impl Questions {
    /// For this node.
    pub(crate) fn new(env: Env, node: NodeId, shards: Shards, cluster: ClusterLink) -> Self {
        let (waiting, next) = (Mutex::default(), AtomicU64::new(1));
        Self { shared: Arc::new(Shared { env, node, shards, cluster, waiting, next }) }
    }

    /// Asks a node, this one perhaps. `None`: it did not answer in time.
    async fn ask(&self, node: NodeId, question: Question, until: Instant) -> Option<Answer> {
        if node == self.shared.node {
            return tokio::time::timeout_at(until, self.answer(question)).await.ok();
        }
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.shared.waiting.lock().insert(id, sender);
        let question = crate::versioned::encode(&question);
        self.shared.cluster.send_control(node, &ControlMessage::Ask { id, question });
        let answer = tokio::time::timeout_at(until, answer).await;
        self.shared.waiting.lock().remove(&id);
        answer.ok()?.ok()
    }

    async fn answer(&self, question: Question) -> Answer {
        match question {
            Question::HandOver { group, to } => {
                Answer::HandOver(self.shared.shards.hand_over_one(group, to).await)
            }
            Question::Quorum => Answer::Quorum(self.shared.shards.quorum(METADATA_GROUP).await),
        }
    }

    /// Another node asks.
    pub(crate) fn take_question(&self, from: NodeId, id: u64, question: &[u8]) {
        let question = match crate::versioned::decode::<Question>(question) {
            Ok(question) => question,
            Err(damage) => return tracing::warn!(%from, %damage, "a question cannot be read"),
        };
        let questions = self.clone();
        self.shared.env.spawn(async move {
            let answer = crate::versioned::encode(&questions.answer(question).await);
            questions.shared.cluster.send_control(from, &ControlMessage::Told { id, answer });
        });
    }

    /// Another node answers.
    pub(crate) fn take_answer(&self, id: u64, answer: &[u8]) {
        let waiting = self.shared.waiting.lock().remove(&id);
        match (waiting, crate::versioned::decode::<Answer>(answer)) {
            // Whoever asked may have given up in this very moment.
            (Some(waiting), Ok(answer)) => drop(waiting.send(answer)),
            (_, Err(damage)) => tracing::warn!(%damage, "an answer cannot be read"),
            (None, Ok(_)) => tracing::debug!(id, "an answer came too late"),
        }
    }
}

impl Broker {
    /// Has `leader` hand leadership of a group to a replica, and waits until that leads.
    ///
    /// # Errors
    /// When the leader refuses, or it takes too long.
    pub(crate) async fn hand_leadership(
        &self,
        leader: NodeId,
        group: GroupId,
        to: ReplicaId,
        deadline: Instant,
    ) -> Result<(), HandOverError> {
        match self.parts.questions.ask(leader, Question::HandOver { group, to }, deadline).await {
            Some(Answer::HandOver(Ok(()))) => {}
            Some(Answer::HandOver(Err(reason))) => return Err(HandOverError::Refused(reason)),
            _ => return Err(HandOverError::Timeout),
        }
        let mut news = self.leaders().watch();
        while self.leaders().get(group).and_then(|info| info.leader) != Some(to) {
            if !matches!(tokio::time::timeout_at(deadline, news.changed()).await, Ok(Ok(()))) {
                return Err(HandOverError::Timeout);
            }
        }
        Ok(())
    }

    /// How the metadata group stands, as its leader sees it; `None` if that was not to be found in time.
    pub(crate) async fn quorum(&self, deadline: Instant) -> Option<QuorumStanding> {
        let leader = self.live_leader(METADATA_GROUP)?;
        match self.parts.questions.ask(leader, Question::Quorum, deadline).await {
            Some(Answer::Quorum(standing)) => standing,
            _ => None,
        }
    }
}
