//! Where consumer groups are coordinated, and the topic that holds them.

use std::collections::BTreeMap;

use super::Broker;
use crate::controller::SubmitError;
use crate::controller::commands::{BrokerRegistration, CommandError, NewTopic};
use crate::controller::internal_topics::GROUPS_TOPIC;
use crate::coordinator::{CoordinatorError, partition_of};

/// Replicas of the topic, where there are as many nodes. As in Kafka.
const REPLICAS: usize = 3;

impl Broker {
    /// Number of partitions that groups are spread over; `None` before the first group.
    pub(crate) fn groups_partitions(&self) -> Option<usize> {
        self.image().topic_named(GROUPS_TOPIC).map(|topic| topic.partitions.len())
    }

    /// The node that coordinates a group. Makes the topic if there is none.
    ///
    /// # Errors
    /// [`CoordinatorError::NotAvailable`] when there is no leader just now.
    pub(crate) async fn find_group_coordinator(
        &self,
        group: &str,
    ) -> Result<BrokerRegistration, CoordinatorError> {
        if self.groups_partitions().is_none() {
            self.create_groups_topic().await;
        }
        let image = self.image();
        let topic = image.topic_named(GROUPS_TOPIC).ok_or(CoordinatorError::NotAvailable)?;
        let partition = &topic.partitions[partition_of(group, topic.partitions.len())];
        let node = self.live_leader(partition.group).ok_or(CoordinatorError::NotAvailable)?;
        image.broker(node).cloned().ok_or(CoordinatorError::NotAvailable)
    }

    async fn create_groups_topic(&self) {
        match self.auto_create(GROUPS_TOPIC).await {
            // Another client's question was quicker.
            Ok(_) | Err(SubmitError::Refused(CommandError::TopicExists { .. })) => {}
            Err(error) => {
                tracing::warn!(%error, "the topic that holds consumer groups cannot be made; clients ask again");
            }
        }
    }

    /// The topic that holds consumer groups, to be made.
    pub(super) fn groups_topic(&self) -> NewTopic {
        let config = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let replication_factor = match self.config().offsets_topic_replication_factor {
            Some(factor) => factor,
            None => i16::try_from(self.parts.cluster_size.min(REPLICAS)).unwrap_or(1),
        };
        NewTopic {
            name: GROUPS_TOPIC.to_owned(),
            topic_id: self.env().random_uuid(),
            partitions: self.config().offsets_topic_num_partitions,
            replication_factor,
            assignments: None,
            // Its coordinators keep it small themselves.
            configs: BTreeMap::from([
                config("cleanup.policy", "compact"),
                config("compression.type", "producer"),
            ]),
        }
    }
}
