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
use super::leaders::LeaderTable;
use crate::cluster::ClusterLink;
use crate::controller::commands::METADATA_GROUP;
use crate::env::Env;
use crate::ids::NodeId;
use crate::peers::control::ControlMessage;
use crate::shard::Shards;

/// Election timeouts after which a hand-over has failed: the leader gives it up after one, and an election that the other replica began at the
/// last moment takes two at most.
const ELECTIONS_PER_HAND_OVER: u32 = 3;

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
    waiting: Waiting,
}

/// Questions that wait for their answers.
#[derive(Debug, Default)]
struct Waiting {
    by_number: Mutex<BTreeMap<u64, oneshot::Sender<Answer>>>,
    last: AtomicU64,
}

/// A question that waits; dropped, by whatever gives the question up, it waits no longer.
#[derive(Debug)]
struct Asked<'a> {
    waiting: &'a Waiting,
    number: u64,
}

impl Waiting {
    fn ask(&self) -> (Asked<'_>, oneshot::Receiver<Answer>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, answer) = oneshot::channel();
        self.by_number.lock().insert(number, sender);
        (Asked { waiting: self, number }, answer)
    }

    fn take(&self, number: u64) -> Option<oneshot::Sender<Answer>> {
        self.by_number.lock().remove(&number)
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.waiting.take(self.number);
    }
}

impl Questions {
    /// For this node.
    pub(crate) fn new(env: Env, node: NodeId, shards: Shards, cluster: ClusterLink) -> Self {
        Self { shared: Arc::new(Shared { env, node, shards, cluster, waiting: Waiting::default() }) }
    }

    /// Asks a node, this one perhaps. `None`: it did not answer in time.
    async fn ask(&self, node: NodeId, question: Question, until: Instant) -> Option<Answer> {
        if node == self.shared.node {
            return tokio::time::timeout_at(until, self.answer(question)).await.ok();
        }
        let (asked, answer) = self.shared.waiting.ask();
        let question = crate::versioned::encode(&question);
        self.shared.cluster.send_control(node, &ControlMessage::Ask { id: asked.number, question });
        tokio::time::timeout_at(until, answer).await.ok()?.ok()
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
        let waiting = self.shared.waiting.take(id);
        match (waiting, crate::versioned::decode::<Answer>(answer)) {
            // Whoever asked may have given up in this very moment.
            (Some(waiting), Ok(answer)) => drop(waiting.send(answer)),
            (_, Err(damage)) => tracing::warn!(%damage, "an answer cannot be read"),
            (None, Ok(_)) => tracing::debug!(id, "an answer came too late"),
        }
    }
}

/// Waits until a replica leads, but not longer than the patience allows: then the hand-over was given up.
async fn taken_over(
    leaders: &LeaderTable,
    group: GroupId,
    to: ReplicaId,
    deadline: Instant,
    patience: Instant,
) -> Result<(), HandOverError> {
    let mut news = leaders.watch();
    while leaders.get(group).and_then(|info| info.leader) != Some(to) {
        if !matches!(tokio::time::timeout_at(deadline.min(patience), news.changed()).await, Ok(Ok(()))) {
            return Err(if patience < deadline {
                HandOverError::Refused(
                    "it did not take over, and the leader has given up waiting for it".to_owned(),
                )
            } else {
                HandOverError::Timeout
            });
        }
    }
    Ok(())
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
        let patience = Instant::now() + ELECTIONS_PER_HAND_OVER * self.config().election_timeout();
        taken_over(self.leaders(), group, to, deadline, patience).await
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::leaders::LeaderInfo;

    #[test]
    fn a_question_that_is_given_up_waits_no_longer() {
        let waiting = Waiting::default();
        let (one, _answer) = waiting.ask();
        let (other, mut answer) = waiting.ask();
        let answered = other.number;
        assert_ne!(one.number, answered);
        drop(one);
        assert_eq!(waiting.by_number.lock().keys().copied().collect::<Vec<_>>(), [answered]);
        waiting.take(answered).expect("it waits").send(Answer::Quorum(None)).expect("somebody listens");
        assert_eq!(answer.try_recv(), Ok(Answer::Quorum(None)));
        drop(other);
        assert!(waiting.by_number.lock().is_empty());
    }

    const GROUP: GroupId = GroupId(1);

    fn led_by(replica: u64, term: u64) -> LeaderTable {
        let leaders = LeaderTable::default();
        leaders.learn(GROUP, info(replica, term));
        leaders
    }

    fn info(replica: u64, term: u64) -> LeaderInfo {
        LeaderInfo { leader: Some(ReplicaId(replica)), term: Term(term), in_sync: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hand_over_that_fails_is_not_waited_for_as_long_as_the_client_would() {
        let (leaders, now) = (led_by(1, 1), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        let failed = taken_over(&leaders, GROUP, ReplicaId(2), after(3600), after(3)).await;
        assert!(matches!(failed, Err(HandOverError::Refused(_))), "{failed:?}");
        assert_eq!(Instant::now(), after(3));
        let late = taken_over(&leaders, GROUP, ReplicaId(2), after(5), after(60)).await;
        assert_eq!((late, Instant::now()), (Err(HandOverError::Timeout), after(5)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_hand_over_ends_when_the_other_replica_leads() {
        let (leaders, now) = (led_by(1, 1), Instant::now());
        let far = now + Duration::from_secs(3600);
        let (done, ()) = tokio::join!(taken_over(&leaders, GROUP, ReplicaId(2), far, far), async {
            leaders.learn(GROUP, info(2, 2));
        });
        assert_eq!((done, Instant::now()), (Ok(()), now));
    }
}
