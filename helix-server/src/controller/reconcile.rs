//! Makes the replicas of this node match the image: creates those it should have, deletes those of deleted topics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use helix_raft::{GroupId, Incarnation, Index, ReplicaId};
use tokio::sync::mpsc;
use tracing::{debug, info};
use uuid::Uuid;

use super::commands::METADATA_GROUP;
use super::image::{ClusterImage, PartitionImage, TopicImage};
use crate::cluster::ClusterLink;
use crate::config::BrokerConfig;
use crate::config::live::{Altered, LiveConfig};
use crate::config::topic::TopicConfig;
use crate::controller::internal_topics;
use crate::durable::founded::{FoundedCluster, FoundingMember};
use crate::durable::recovering::Finding;
use crate::env::watch;
use crate::ids::NodeId;
use crate::shard::Shards;

/// A partition replica that this node is to have.
#[derive(Debug, Clone)]
pub struct WantedPartition {
    /// Its group.
    pub group: GroupId,
    /// The replicas that the group began with.
    pub founders: Vec<ReplicaId>,
    /// The replicas that it is to have now.
    pub replicas: Vec<ReplicaId>,
    /// The topic's configuration over the broker's.
    pub config: Arc<TopicConfig>,
    /// The group began after this node had started: no earlier crash can have taken anything from it here.
    pub is_new: bool,
}

/// What differs between the image and the node.
#[derive(Debug, Default)]
struct Difference {
    create: Vec<WantedPartition>,
    /// Groups that are to have other replicas than the node was told.
    desire: Vec<(GroupId, Vec<ReplicaId>)>,
    /// Groups whose topic's configuration is another one than the node was told.
    configure: Vec<(GroupId, Arc<TopicConfig>)>,
    delete: Vec<GroupId>,
}

/// What the node's replicas are held against, and where what differs is sent.
pub(crate) struct Reconciler {
    pub(crate) me: ReplicaId,
    pub(crate) incarnation: Incarnation,
    pub(crate) findings: mpsc::UnboundedSender<Finding>,
    pub(crate) founded: Arc<FoundedCluster>,
    pub(crate) image: Arc<ArcSwap<ClusterImage>>,
    pub(crate) shards: Shards,
    pub(crate) cluster: ClusterLink,
    pub(crate) config: Arc<LiveConfig>,
    pub(crate) node: NodeId,
}

/// What a group was told last.
struct Told {
    replicas: Vec<ReplicaId>,
    /// `None` for the metadata.
    config: Option<Arc<TopicConfig>>,
}

/// What is in force for a topic, and what it was found from.
struct Resolved {
    topic: Arc<TopicImage>,
    broker: Arc<BrokerConfig>,
    config: Arc<TopicConfig>,
}

impl Resolved {
    fn of(topic: &Arc<TopicImage>, broker: &Arc<BrokerConfig>) -> Self {
        let config = TopicConfig::resolve(&topic.configs, broker);
        // Coordinators remove what they do not need any more themselves.
        let config = if internal_topics::is_internal(&topic.name) { config.kept_whole() } else { config };
        let config = Arc::new(config);
        Self { topic: Arc::clone(topic), broker: Arc::clone(broker), config }
    }

    /// An image shares with the one before it whatever was not altered.
    fn is_of(&self, topic: &Arc<TopicImage>, broker: &Arc<BrokerConfig>) -> bool {
        Arc::ptr_eq(&self.topic, topic) && Arc::ptr_eq(&self.broker, broker)
    }
}

/// What the node has.
struct Present {
    /// Groups that were asked for.
    created: BTreeMap<GroupId, Told>,
    /// What is in force for topics that have replicas here.
    configs: HashMap<Uuid, Resolved>,
    /// What the WAL holds counts as present until the image says that it was deleted.
    stored: BTreeSet<GroupId>,
    /// The groups that there were when the cluster had registered this process.
    earlier: Option<BTreeSet<GroupId>>,
}

impl Present {
    /// What is in force for a topic.
    fn config_of(&mut self, topic: &Arc<TopicImage>, broker: &Arc<BrokerConfig>) -> Arc<TopicConfig> {
        let resolved = self.configs.entry(topic.topic_id).or_insert_with(|| Resolved::of(topic, broker));
        if !resolved.is_of(topic, broker) {
            *resolved = Resolved::of(topic, broker);
        }
        Arc::clone(&resolved.config)
    }
}

/// Follows the image until its publisher is gone.
pub(crate) async fn run(
    reconciler: Reconciler,
    mut applied: watch::Receiver<Index>,
    stored: impl IntoIterator<Item = GroupId>,
) {
    let stored = stored.into_iter().filter(|group| *group != METADATA_GROUP).collect();
    let founders = reconciler.founded.members.iter().map(|member| member.replica).collect();
    let metadata = Told { replicas: founders, config: None };
    let created = [(METADATA_GROUP, metadata)].into();
    let mut present = Present { created, configs: HashMap::new(), stored, earlier: None };
    loop {
        applied.mark_unchanged();
        let image = reconciler.image.load_full();
        for broker in image.brokers() {
            reconciler.cluster.note_incarnation(broker.replica, broker.incarnation);
        }
        reconciler.note_registration(&image, &mut present);
        reconciler.alter(&image);
        let difference = reconciler.compare(&image, &mut present);
        reconciler.follow(difference, &mut present);
        if applied.changed().await.is_err() {
            return;
        }
    }
}

impl Reconciler {
    /// An image that knows this process holds every group that began before it: what comes later cannot have lost anything in a crash.
    fn note_registration(&self, image: &ClusterImage, present: &mut Present) {
        let registered = image.broker_of_replica(self.me).map(|broker| broker.incarnation);
        if present.earlier.is_some() || registered != Some(self.incarnation) {
            return;
        }
        let groups = image.topics().flat_map(|topic| &topic.partitions).map(|partition| partition.group);
        let earlier: BTreeSet<GroupId> = groups.chain([METADATA_GROUP]).collect();
        if self.findings.send(Finding::Hosted(earlier.clone())).is_err() {
            debug!("the node stops; which groups are suspect is narrowed down at its next start");
        }
        present.earlier = Some(earlier);
    }

    /// Puts what was altered of this broker's configuration in force.
    fn alter(&self, image: &ClusterImage) {
        let (everywhere, here) = (image.broker_configs(None), image.broker_configs(Some(self.node)));
        if self.config.alter(Altered { everywhere, here }) {
            info!(?everywhere, ?here, "the configuration of this broker was altered");
        }
    }

    fn follow(&self, difference: Difference, present: &mut Present) {
        let Difference { create, desire, configure, delete } = difference;
        if !create.is_empty() || !desire.is_empty() || !configure.is_empty() || !delete.is_empty() {
            let (create, desire) = (create.len(), desire.len());
            let (configure, delete) = (configure.len(), delete.len());
            debug!(create, desire, configure, delete, "replicas follow the metadata");
        }
        for wanted in create {
            let told = Told { replicas: wanted.replicas.clone(), config: Some(Arc::clone(&wanted.config)) };
            present.created.insert(wanted.group, told);
            self.shards.create_partition(wanted);
        }
        for (group, replicas) in desire {
            if let Some(told) = present.created.get_mut(&group) {
                told.replicas.clone_from(&replicas);
            }
            self.shards.desire(group, replicas);
        }
        for (group, config) in configure {
            if let Some(told) = present.created.get_mut(&group) {
                told.config = Some(Arc::clone(&config));
            }
            self.shards.configure(group, config);
        }
        for group in delete {
            info!(%group, "deleting the data of a deleted topic's partition");
            present.created.remove(&group);
            present.stored.remove(&group);
            self.shards.delete_group(group);
        }
    }

    fn compare(&self, image: &ClusterImage, present: &mut Present) -> Difference {
        let mut difference = Difference::default();
        let mut known = BTreeSet::from([METADATA_GROUP]);
        let desired = metadata_replicas(&self.founded, image);
        if present.created.get(&METADATA_GROUP).is_some_and(|told| told.replicas != desired) {
            difference.desire.push((METADATA_GROUP, desired));
        }
        let broker = self.config.get();
        for topic in image.topics() {
            known.extend(topic.partitions.iter().map(|partition| partition.group));
            let mut here = topic.partitions.iter().filter(|one| one.has_replica(self.me)).peekable();
            if here.peek().is_some() {
                let config = present.config_of(topic, &broker);
                here.for_each(|partition| self.compare_one(partition, &config, present, &mut difference));
            }
        }
        present.configs.retain(|topic_id, _| image.topic(*topic_id).is_some());
        let here: BTreeSet<GroupId> = present.created.keys().chain(&present.stored).copied().collect();
        difference.delete =
            here.into_iter().filter(|group| !known.contains(group) && image.was_allocated(*group)).collect();
        difference
    }

    fn compare_one(
        &self,
        partition: &PartitionImage,
        config: &Arc<TopicConfig>,
        present: &Present,
        difference: &mut Difference,
    ) {
        let group = partition.group;
        let Some(told) = present.created.get(&group) else {
            return difference.create.push(WantedPartition {
                group,
                founders: partition.founders.clone(),
                replicas: partition.desired(),
                config: Arc::clone(config),
                is_new: present.earlier.as_ref().is_some_and(|all| !all.contains(&group)),
            });
        };
        let desired = partition.desired();
        if told.replicas != desired {
            difference.desire.push((group, desired));
        }
        if told.config.as_ref() != Some(config) {
            difference.configure.push((group, Arc::clone(config)));
        }
    }
}

/// Who is to hold the metadata: the founding nodes, with the disks that they have now.
fn metadata_replicas(founded: &FoundedCluster, image: &ClusterImage) -> Vec<ReplicaId> {
    let disk = |member: &FoundingMember| {
        image.broker(member.node).map_or(member.replica, |registered| registered.replica)
    };
    founded.members.iter().map(disk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::internal_topics::GROUPS_TOPIC;

    #[test]
    fn nothing_is_removed_from_what_coordinators_keep() {
        let broker = Arc::new(BrokerConfig { log_retention_ms: Some(1), ..BrokerConfig::default() });
        let of = |name: &str| {
            let configs = [("cleanup.policy".to_owned(), "delete".to_owned())].into();
            let topic =
                TopicImage { name: name.to_owned(), topic_id: Uuid::nil(), partitions: Vec::new(), configs };
            let config = Resolved::of(&Arc::new(topic), &broker).config;
            (config.deletes, config.retention_ms)
        };
        assert_eq!(of("t"), (true, 1));
        assert_eq!(of(GROUPS_TOPIC), (false, -1));
    }
}
