//! Creating topics, and waiting until they can be written to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use helix_raft::ReplicaId;
use tokio::time::Instant;
use uuid::Uuid;

use super::Broker;
use crate::controller::SubmitError;
use crate::controller::commands::{CommandOutcome, MetadataCommand, NewTopic};
use crate::controller::image::{PartitionImage, TopicImage};
use crate::controller::internal_topics::GROUPS_TOPIC;

/// How long an automatic creation may take before the client is told to ask again.
const AUTO_CREATE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a creation waits for leaders once the topic exists; clients would otherwise have to retry.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long after the loss of a node, or the start of this one, requests for metadata may wait for new leaders.
const FAILOVER_WINDOW: Duration = Duration::from_secs(2);
/// How long a request for metadata waits for a sign of the leaders that it would name.
const SIGN_WAIT: Duration = Duration::from_millis(100);
/// How long a request for metadata waits for new leaders.
const FAILOVER_WAIT: Duration = Duration::from_millis(500);

impl Broker {
    /// Creates a topic, and waits (a while) until its partitions have leaders.
    ///
    /// # Errors
    /// When the command is refused or nobody could take it in time. Missing leaders are no error.
    pub(crate) async fn create_topic(
        &self,
        topic: NewTopic,
        timeout: Duration,
    ) -> Result<CommandOutcome, SubmitError> {
        let deadline = Instant::now() + timeout;
        let outcome = self.controller().submit(MetadataCommand::CreateTopic(topic), timeout).await?;
        if let CommandOutcome::TopicCreated { topic_id, .. } = &outcome {
            self.wait_for_leaders(*topic_id, deadline.min(Instant::now() + LEADERS_TIMEOUT)).await;
        }
        Ok(outcome)
    }

    /// Creates a topic because a client asked for its metadata.
    pub(crate) async fn auto_create(&self, name: &str) -> Result<CommandOutcome, SubmitError> {
        let topic = match name {
            GROUPS_TOPIC => self.groups_topic(),
            _ => NewTopic {
                name: name.to_owned(),
                topic_id: self.env().random_uuid(),
                partitions: self.partitions_or_default(-1),
                replication_factor: self.replication_or_default(-1),
                assignments: None,
                configs: BTreeMap::new(),
            },
        };
        self.create_topic(topic, AUTO_CREATE_TIMEOUT).await
    }

    /// Waits a moment for new leaders of these partitions, if a node was lost, or this one started, just now. Clients ask for metadata the very moment
    /// their connection breaks: told of a leader that is gone, or of none, they would come back only much later.
    pub(crate) async fn wait_for_failover(&self, topics: &[Arc<TopicImage>]) {
        self.hear_of_leaders(topics).await;
        // A node that has just started has yet to hear who leads.
        let unsettled = || {
            let lost = self.liveness().latest_loss();
            lost.into_iter().chain([self.parts.started.elapsed()]).any(|ago| ago < FAILOVER_WINDOW)
        };
        let deadline = Instant::now() + FAILOVER_WAIT;
        let (mut news, mut nodes) = (self.leaders().watch(), self.liveness().watch());
        while unsettled() {
            let led = |group| self.live_leader(group).is_some();
            if topics.iter().flat_map(|topic| &topic.partitions).all(|partition| led(partition.group)) {
                return;
            }
            tokio::select! {
                biased;
                changed = news.changed() => if changed.is_err() { return },
                changed = nodes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(deadline) => return,
            }
        }
    }

    /// Waits a moment for the first leaders of partitions of which this node has never heard one, and a shorter one where the last one has given
    /// up. Their topic has just been made: a client that is told of no leader may take that for an error, as in Kafka a topic has its leaders from
    /// the beginning. What was waited for in vain is not waited for again before a leader was heard: its replicas are away.
    pub(crate) async fn wait_for_first_leaders(&self, topics: &[Arc<TopicImage>]) {
        let begun = Instant::now();
        let mut news = self.leaders().watch();
        loop {
            let groups =
                || topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.group);
            let wait = groups().filter_map(|group| match self.leaders().get(group) {
                None => Some((LEADERS_TIMEOUT, group)),
                Some(info) => info.leader.is_none().then_some((FAILOVER_WAIT, group)),
            });
            let wait =
                wait.filter(|(_, group)| !self.leaders().is_missed(*group)).map(|(wait, _)| wait).max();
            let Some(wait) = wait else { return };
            if !matches!(tokio::time::timeout_at(begun + wait, news.changed()).await, Ok(Ok(()))) {
                return self.leaders().note_missed(groups());
            }
        }
    }

    /// Waits a moment for a sign of every other node that leads any of these partitions. A client whose connection to a leader has just broken may
    /// ask before the same has reached this node: the sign has to be newer than the question.
    async fn hear_of_leaders(&self, topics: &[Arc<TopicImage>]) {
        let leads = |partition: &PartitionImage| self.leaders().get(partition.group)?.leader;
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        let leaders: BTreeSet<ReplicaId> = partitions.filter_map(leads).collect();
        let image = self.image();
        let others = leaders.into_iter().filter(|replica| {
            image.broker_of_replica(*replica).is_some_and(|broker| broker.node != self.parts.node)
        });
        let signs = others.map(|replica| self.hear_of(replica));
        if tokio::time::timeout(SIGN_WAIT, futures_util::future::join_all(signs)).await.is_err() {
            tracing::debug!("a leader gave no sign of life in time");
        }
    }

    /// Returns when a node has shown that it is there, or is known to be gone.
    async fn hear_of(&self, replica: ReplicaId) {
        let mut nodes = self.liveness().watch();
        let gone = async {
            while self.liveness().is_alive(replica) {
                if nodes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = gone => {}
            () = self.parts.cluster.sign_of_life(replica) => {}
        }
    }

    async fn wait_for_leaders(&self, topic_id: Uuid, deadline: Instant) {
        let mut news = self.leaders().watch();
        loop {
            let image = self.image();
            let Some(topic) = image.topic(topic_id) else { return };
            let led = |group| self.leaders().get(group).is_some_and(|info| info.leader.is_some());
            if topic.partitions.iter().all(|p| led(p.group)) {
                return;
            }
            if !matches!(tokio::time::timeout_at(deadline, news.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}
