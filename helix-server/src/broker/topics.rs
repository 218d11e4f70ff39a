//! Creating topics, and waiting until they can be written to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::Broker;
use crate::controller::SubmitError;
use crate::controller::commands::{CommandOutcome, MetadataCommand, NewTopic};
use crate::controller::image::TopicImage;

/// How long an automatic creation may take before the client is told to ask again.
const AUTO_CREATE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a creation waits for leaders once the topic exists; clients would otherwise have to retry.
const LEADERS_TIMEOUT: Duration = Duration::from_secs(2);
/// For how long after the loss of a node, or the start of this one, requests for metadata may wait for new leaders.
const FAILOVER_WINDOW: Duration = Duration::from_secs(2);
/// How long one such request waits.
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
        let topic = NewTopic {
            name: name.to_owned(),
            topic_id: self.env().random_uuid(),
            partitions: self.partitions_or_default(-1),
            replication_factor: self.replication_or_default(-1),
            assignments: None,
            configs: BTreeMap::new(),
        };
        self.create_topic(topic, AUTO_CREATE_TIMEOUT).await
    }

    /// Waits a moment for new leaders of these partitions, if a node was lost, or this one started, just now. Clients ask for metadata the very moment
    /// their connection breaks: told of a leader that is gone, or of none, they would come back only much later.
    pub(crate) async fn wait_for_failover(&self, topics: &[Arc<TopicImage>]) {
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
