//! The cluster's metadata as an immutable image: what every request reads without a lock.
//!
//! [`ClusterImage::apply`] is the only mutator. It is deterministic: the same commands in the same order give the
//! same image on every node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use helix_raft::{GroupId, ReplicaId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::commands::{
    BrokerRegistration, CommandError, CommandOutcome, CommandResult, ConfigChange, ConfigSubject,
    MAX_TOPIC_PARTITIONS, MetadataCommand, NewTopic,
};
use super::placement;
use crate::ids::NodeId;
use crate::versioned::{self, VersionedError, decode_rest, encode_as};

/// No cluster ever gives out as many ids; a checkpoint that says so is damaged.
const GROUPS_END: u64 = 1 << 62;
const PRODUCER_IDS_END: i64 = 1 << 62;

/// The longest topic name: a partition's directory in Kafka must fit a file name.
pub(crate) const MAX_TOPIC_NAME_BYTES: usize = 249;

/// One replica of a partition: the broker and the disk that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaPlace {
    /// Kafka broker id.
    pub node: NodeId,
    /// Identity of the disk at the time of the assignment.
    pub replica: ReplicaId,
}

/// One partition: its consensus group and where its replicas are meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionImage {
    /// The consensus group; never used again after the topic is deleted.
    pub group: GroupId,
    /// Desired replicas, preferred leader first. The actual ones are the group's own affair: its leader follows.
    pub replicas: Vec<ReplicaPlace>,
    /// The replicas that the group began with. Only they begin with an empty log as its voters; whoever comes later is told by the
    /// group itself.
    pub founders: Vec<ReplicaId>,
}

impl PartitionImage {
    /// Whether a disk is to hold a replica.
    pub fn has_replica(&self, replica: ReplicaId) -> bool {
        self.replicas.iter().any(|place| place.replica == replica)
    }

    /// The disks that are to hold replicas, that of the preferred leader first.
    pub fn desired(&self) -> Vec<ReplicaId> {
        self.replicas.iter().map(|place| place.replica).collect()
    }
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicImage {
    /// Topic name.
    pub name: String,
    /// Topic id.
    pub topic_id: Uuid,
    /// Partitions, by number.
    pub partitions: Vec<PartitionImage>,
    /// Configuration overrides.
    pub configs: BTreeMap<String, String>,
}

/// All metadata of the cluster as of one index of group 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterImage {
    brokers: BTreeMap<NodeId, BrokerRegistration>,
    topics: BTreeMap<Uuid, Arc<TopicImage>>,
    next_group: u64,
    next_producer_id: i64,
    /// Disks that were replaced. They may hold votes and records of a past that the cluster has left behind.
    retired: BTreeSet<ReplicaId>,
    /// What was altered of brokers' configurations.
    broker_configs: BTreeMap<ConfigSubject, BTreeMap<String, String>>,
    #[serde(skip)]
    names: HashMap<String, Uuid>,
}

/// The version of the checkpoints that are written.
const IMAGE_VERSION: u8 = 2;

/// An image as version 1 wrote it: brokers' configurations could not be altered then.
#[derive(Deserialize)]
struct FirstImage {
    brokers: BTreeMap<NodeId, BrokerRegistration>,
    topics: BTreeMap<Uuid, Arc<TopicImage>>,
    next_group: u64,
    next_producer_id: i64,
    retired: BTreeSet<ReplicaId>,
}

impl From<FirstImage> for ClusterImage {
    fn from(first: FirstImage) -> Self {
        let FirstImage { brokers, topics, next_group, next_producer_id, retired } = first;
        Self { brokers, topics, next_group, next_producer_id, retired, ..Self::default() }
    }
}

impl ClusterImage {
    /// The image of a cluster in which nothing was ever done.
    pub fn empty() -> Self {
        // Group 0 is the metadata group itself.
        Self { next_group: 1, ..Self::default() }
    }

    /// The image as bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode_as(IMAGE_VERSION, self)
    }

    /// Reads what [`Self::encode`] of this release or an earlier one wrote.
    ///
    /// # Errors
    /// When the version is newer than known, the bytes are damaged, or commands can't have led to such an image.
    pub fn decode(bytes: &[u8]) -> Result<Self, VersionedError> {
        let image = match versioned::split(bytes)? {
            (1, rest) => decode_rest::<FirstImage>(rest)?.into(),
            (IMAGE_VERSION, rest) => decode_rest::<Self>(rest)?,
            (found, _) => return Err(VersionedError::Version { found, newest: IMAGE_VERSION }),
        };
        image.reindexed().ok_or(VersionedError::Contradiction)
    }

    /// Rebuilds what is not stored, after decoding. `None` if commands can't have led to such an image.
    fn reindexed(mut self) -> Option<Self> {
        self.names = self.topics.values().map(|t| (t.name.clone(), t.topic_id)).collect();
        let credible = self.names.len() == self.topics.len()
            && self.topics.iter().all(|(id, topic)| *id == topic.topic_id && has_replicas(topic))
            && self.brokers.iter().all(|(node, broker)| *node == broker.node)
            && self.next_group < GROUPS_END
            && (0..PRODUCER_IDS_END).contains(&self.next_producer_id)
            && self
                .broker_configs
                .iter()
                .all(|(subject, configs)| !matches!(subject, ConfigSubject::Topic(_)) && !configs.is_empty());
        credible.then_some(self)
    }

    /// Registered brokers, by node id.
    pub fn brokers(&self) -> impl Iterator<Item = &BrokerRegistration> {
        self.brokers.values()
    }

    /// One broker.
    pub fn broker(&self, node: NodeId) -> Option<&BrokerRegistration> {
        self.brokers.get(&node)
    }

    /// The broker that owns a disk.
    pub fn broker_of_replica(&self, replica: ReplicaId) -> Option<&BrokerRegistration> {
        self.brokers.values().find(|b| b.replica == replica)
    }

    /// Whether the group's id was given out by now: ids are given out in order and never again, so that such a group that no
    /// topic has was deleted.
    pub fn was_allocated(&self, group: GroupId) -> bool {
        group.0 < self.next_group
    }

    /// Whether the partition of a topic that had this group was deleted; another one may have its name by now. An image that is not the latest
    /// may not know yet, but never says so of a partition that is there.
    pub fn was_deleted(&self, topic: &str, partition: i32, group: GroupId) -> bool {
        let topic = self.topic_named(topic);
        let is = topic
            .zip(usize::try_from(partition).ok())
            .and_then(|(topic, number)| topic.partitions.get(number));
        self.was_allocated(group) && is.is_none_or(|is| is.group != group)
    }

    /// What was altered of the configuration of one broker, or of all.
    pub fn broker_configs(&self, node: Option<NodeId>) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        let subject = node.map_or(ConfigSubject::Brokers, ConfigSubject::Broker);
        self.broker_configs.get(&subject).unwrap_or(&NONE)
    }

    /// The brokers of which something was altered.
    pub fn altered_brokers(&self) -> impl Iterator<Item = NodeId> {
        self.broker_configs.keys().filter_map(|subject| match subject {
            ConfigSubject::Broker(node) => Some(*node),
            _ => None,
        })
    }

    /// All topics, by id.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    /// The id of every topic, by name.
    pub fn topic_ids(&self) -> BTreeMap<String, Uuid> {
        self.topics.values().map(|topic| (topic.name.clone(), topic.topic_id)).collect()
    }

    /// A topic by id.
    pub fn topic(&self, topic_id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.get(&topic_id)
    }

    /// A topic by name.
    pub fn topic_named(&self, name: &str) -> Option<&Arc<TopicImage>> {
        // A client can send millions of bytes as a name, and have it looked up for each of as many partitions.
        if name.len() > MAX_TOPIC_NAME_BYTES {
            return None;
        }
        self.names.get(name).and_then(|id| self.topics.get(id))
    }

    /// Applies one committed command. An error is an answer to the client, the same on every node; the image is then
    /// unchanged.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn apply(&mut self, command: MetadataCommand) -> CommandResult {
        match command {
            MetadataCommand::RegisterBroker(registration) => self.register(registration),
            MetadataCommand::CreateTopic(topic) => self.create_topic(topic),
            MetadataCommand::DeleteTopic { topic_id } => self.delete_topic(topic_id),
            MetadataCommand::CreatePartitions { topic_id, total, assignments } => {
                self.create_partitions(topic_id, total, assignments)
            }
            MetadataCommand::AllocateProducerIds { count } => {
                let first = self.next_producer_id;
                self.next_producer_id += i64::from(count);
                Ok(CommandOutcome::ProducerIds { first, count })
            }
            MetadataCommand::AlterConfigs(change) => self.alter_configs(&change),
        }
    }

    fn register(&mut self, registration: BrokerRegistration) -> CommandResult {
        let (node, replica) = (registration.node, registration.replica);
        if self.retired.contains(&replica) {
            return Err(CommandError::DiskRetired { node, replica });
        }
        match self.brokers.get(&node) {
            Some(known) if known.replica != replica => {
                let old = known.replica;
                self.replace_disk(old, replica);
            }
            Some(known) if known.incarnation > registration.incarnation => {
                let (known, got) = (known.incarnation, registration.incarnation);
                return Err(CommandError::StaleIncarnation { node, known, got });
            }
            _ => {}
        }
        self.brokers.insert(registration.node, registration);
        Ok(CommandOutcome::Done)
    }

    /// A node has lost its disk: the new one is to take the place of the old one everywhere.
    fn replace_disk(&mut self, old: ReplicaId, new: ReplicaId) {
        self.retired.insert(old);
        for topic in self.topics.values_mut() {
            let places = |topic: &TopicImage| topic.partitions.iter().any(|one| one.has_replica(old));
            if places(topic) {
                let partitions = &mut Arc::make_mut(topic).partitions;
                let places = partitions.iter_mut().flat_map(|one| &mut one.replicas);
                for place in places.filter(|place| place.replica == old) {
                    place.replica = new;
                }
            }
        }
    }

    fn create_topic(&mut self, topic: NewTopic) -> CommandResult {
        let same_id = self.topics.get(&topic.topic_id);
        if let Some(existing) = self.topic_named(&topic.name).or(same_id) {
            // The same creation once more, because its first answer was lost: it has succeeded.
            return if existing.topic_id == topic.topic_id && existing.name == topic.name {
                Ok(created(existing))
            } else {
                Err(CommandError::TopicExists { name: topic.name })
            };
        }
        let requested =
            topic.assignments.as_ref().map_or(i64::from(topic.partitions), |all| all.len() as i64);
        check_partition_count(requested)?;
        let assignments = match topic.assignments {
            Some(chosen) => chosen,
            None => self.place(topic.partitions, topic.replication_factor)?,
        };
        self.check_assignments(&assignments)?;
        let partitions = self.new_partitions(&assignments);
        self.names.insert(topic.name.clone(), topic.topic_id);
        let image =
            TopicImage { name: topic.name, topic_id: topic.topic_id, partitions, configs: topic.configs };
        let outcome = created(&image);
        self.topics.insert(image.topic_id, Arc::new(image));
        Ok(outcome)
    }

    fn delete_topic(&mut self, topic_id: Uuid) -> CommandResult {
        let topic = self.topics.remove(&topic_id).ok_or(CommandError::UnknownTopic)?;
        self.names.remove(&topic.name);
        Ok(CommandOutcome::Done)
    }

    fn alter_configs(&mut self, change: &ConfigChange) -> CommandResult {
        match change.subject {
            ConfigSubject::Topic(topic_id) => {
                let topic = self.topics.get_mut(&topic_id).ok_or(CommandError::UnknownTopic)?;
                let after = change.apply_to(&topic.configs);
                if after != topic.configs {
                    Arc::make_mut(topic).configs = after;
                }
            }
            subject @ (ConfigSubject::Broker(_) | ConfigSubject::Brokers) => {
                let after = change.apply_to(self.broker_configs.get(&subject).unwrap_or(&BTreeMap::new()));
                if after.is_empty() {
                    self.broker_configs.remove(&subject);
                } else {
                    self.broker_configs.insert(subject, after);
                }
            }
        }
        Ok(CommandOutcome::Done)
    }

    fn create_partitions(
        &mut self,
        topic_id: Uuid,
        total: i32,
        assignments: Option<Vec<Vec<NodeId>>>,
    ) -> CommandResult {
        let topic = Arc::clone(self.topics.get(&topic_id).ok_or(CommandError::UnknownTopic)?);
        let current = topic.partitions.len() as i32;
        if total <= current {
            return Err(CommandError::NotAnIncrease { current, requested: total });
        }
        check_partition_count(i64::from(total))?;
        let added = total - current;
        let replication_factor = topic.partitions[0].replicas.len();
        let assignments = match assignments {
            Some(chosen) => chosen,
            None => self.place(added, replication_factor as i16)?,
        };
        if assignments.len() != added as usize || assignments.iter().any(|r| r.len() != replication_factor) {
            return Err(CommandError::InvalidAssignment {
                reason: format!(
                    "it must give {replication_factor} replica(s) for each of the {added} new partition(s)"
                ),
            });
        }
        self.check_assignments(&assignments)?;
        let mut grown = (*topic).clone();
        grown.partitions.extend(self.new_partitions(&assignments));
        self.topics.insert(topic_id, Arc::new(grown));
        Ok(CommandOutcome::Done)
    }

    fn place(&self, partitions: i32, replication_factor: i16) -> Result<Vec<Vec<NodeId>>, CommandError> {
        let brokers: Vec<NodeId> = self.brokers.keys().copied().collect();
        if partitions < 1 {
            return Err(CommandError::InvalidPartitions { requested: partitions });
        }
        if replication_factor < 1 || replication_factor as usize > brokers.len() {
            return Err(CommandError::InvalidReplicationFactor {
                requested: replication_factor,
                available: brokers.len(),
            });
        }
        Ok(placement::place(&brokers, partitions as usize, replication_factor as usize, self.next_group))
    }

    fn check_assignments(&self, assignments: &[Vec<NodeId>]) -> Result<(), CommandError> {
        let invalid = |reason: String| Err(CommandError::InvalidAssignment { reason });
        if assignments.is_empty() {
            return Err(CommandError::InvalidPartitions { requested: 0 });
        }
        for (partition, replicas) in assignments.iter().enumerate() {
            if replicas.is_empty() || replicas.len() != assignments[0].len() {
                return invalid(format!("partition {partition} has {} replicas", replicas.len()));
            }
            for (k, node) in replicas.iter().enumerate() {
                if replicas[..k].contains(node) {
                    return invalid(format!("partition {partition} names broker {node} twice"));
                }
                if !self.brokers.contains_key(node) {
                    return invalid(format!("broker {node} is not registered"));
                }
            }
        }
        Ok(())
    }

    /// Allocates groups for checked assignments.
    fn new_partitions(&mut self, assignments: &[Vec<NodeId>]) -> Vec<PartitionImage> {
        assignments
            .iter()
            .map(|nodes| {
                let group = GroupId(self.next_group);
                self.next_group += 1;
                let place = |node: &NodeId| ReplicaPlace { node: *node, replica: self.brokers[node].replica };
                let replicas: Vec<ReplicaPlace> = nodes.iter().map(place).collect();
                let founders = replicas.iter().map(|place| place.replica).collect();
                PartitionImage { group, replicas, founders }
            })
            .collect()
    }
}

/// At least one partition, and at least one replica of each.
fn has_replicas(topic: &TopicImage) -> bool {
    !topic.partitions.is_empty() && topic.partitions.iter().all(|partition| !partition.replicas.is_empty())
}

fn check_partition_count(requested: i64) -> Result<(), CommandError> {
    if requested > i64::from(MAX_TOPIC_PARTITIONS) {
        return Err(CommandError::TooManyPartitions { requested, limit: MAX_TOPIC_PARTITIONS });
    }
    Ok(())
}

fn created(topic: &TopicImage) -> CommandOutcome {
    CommandOutcome::TopicCreated {
        topic_id: topic.topic_id,
        partitions: topic.partitions.len() as i32,
        replication_factor: topic.partitions[0].replicas.len() as i16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::commands::ConfigOperation;
    use helix_raft::Incarnation;

    fn broker(node: i32, incarnation: u64) -> MetadataCommand {
        MetadataCommand::RegisterBroker(BrokerRegistration {
            node: NodeId(node),
            replica: ReplicaId(node as u64 * 100),
            incarnation: Incarnation(incarnation),
            host: "h".into(),
            port: 9092,
            rack: None,
        })
    }

    fn topic(name: &str, partitions: i32, replication_factor: i16) -> MetadataCommand {
        MetadataCommand::CreateTopic(NewTopic {
            name: name.into(),
            topic_id: Uuid::new_v4(),
            partitions,
            replication_factor,
            assignments: None,
            configs: BTreeMap::new(),
        })
    }

    fn cluster() -> ClusterImage {
        let mut image = ClusterImage::empty();
        for node in 1..=3 {
            image.apply(broker(node, 1)).unwrap();
        }
        image
    }

    #[test]
    fn two_topics_never_share_an_id() {
        // Otherwise a node that starts from a checkpoint would know fewer names than one that was there.
        let mut image = cluster();
        let named = |name: &str| match topic(name, 1, 1) {
            MetadataCommand::CreateTopic(new) => {
                MetadataCommand::CreateTopic(NewTopic { topic_id: Uuid::from_u128(5), ..new })
            }
            other => other,
        };
        let created = image.apply(named("a")).unwrap();
        assert_eq!(image.apply(named("a")), Ok(created), "once more");
        image.apply(named("b")).expect_err("another name");
        assert!(image.topic_named("b").is_none());
    }

    #[test]
    fn a_name_that_no_topic_can_have_is_not_looked_up() {
        let mut image = cluster();
        let longest = "x".repeat(MAX_TOPIC_NAME_BYTES);
        image.apply(topic(&longest, 1, 1)).unwrap();
        assert!(image.topic_named(&longest).is_some());
        // Looked at whole each time this would take hours.
        let long = "x".repeat(100_000_000);
        assert!((0..1_000_000).all(|_| image.topic_named(&long).is_none()));
    }

    #[test]
    fn group_ids_are_never_used_again() {
        let mut image = cluster();
        image.apply(topic("a", 4, 3)).unwrap();
        let first = image.topic_named("a").unwrap().clone();
        image.apply(MetadataCommand::DeleteTopic { topic_id: first.topic_id }).unwrap();
        assert!(image.topic_named("a").is_none());
        image.apply(topic("a", 4, 3)).unwrap();
        let second = image.topic_named("a").unwrap();
        let highest = first.partitions.iter().map(|p| p.group).max().unwrap();
        assert!(second.partitions.iter().all(|p| p.group > highest));
    }

    #[test]
    fn a_partition_is_known_to_be_deleted_whoever_has_its_name() {
        let mut image = cluster();
        let before = image.clone();
        image.apply(topic("a", 1, 3)).unwrap();
        let first = image.topic_named("a").unwrap().clone();
        let group = first.partitions[0].group;
        assert!(!before.was_deleted("a", 0, group), "not made yet, as far as is known there");
        assert!(!image.was_deleted("a", 0, group));
        image.apply(MetadataCommand::DeleteTopic { topic_id: first.topic_id }).unwrap();
        assert!(image.was_deleted("a", 0, group));
        image.apply(topic("a", 1, 3)).unwrap();
        assert!(image.was_deleted("a", 0, group));
        assert!(!image.was_deleted("a", 0, image.topic_named("a").unwrap().partitions[0].group));
    }

    fn with_disk(node: i32, replica: u64, incarnation: u64) -> MetadataCommand {
        match broker(node, incarnation) {
            MetadataCommand::RegisterBroker(known) => {
                MetadataCommand::RegisterBroker(BrokerRegistration { replica: ReplicaId(replica), ..known })
            }
            other => other,
        }
    }

    #[test]
    fn a_new_disk_takes_the_place_of_the_old_one_for_good() {
        let mut image = cluster();
        image.apply(topic("a", 3, 3)).unwrap();
        image.apply(with_disk(3, 301, 1)).unwrap();
        let partitions = |image: &ClusterImage| image.topic_named("a").unwrap().partitions.clone();
        for partition in partitions(&image) {
            assert!(partition.has_replica(ReplicaId(301)) && !partition.has_replica(ReplicaId(300)));
            assert!(partition.founders.contains(&ReplicaId(300)), "it is history");
            let places = partition.replicas.iter().filter(|place| place.node == NodeId(3));
            assert_eq!(places.count(), 1);
        }
        let before = image.clone();
        let late = image.apply(with_disk(3, 300, 99));
        assert_eq!(late, Err(CommandError::DiskRetired { node: NodeId(3), replica: ReplicaId(300) }));
        assert_eq!(image, before);
        image.apply(topic("b", 1, 3)).unwrap();
        assert!(image.topic_named("b").unwrap().partitions[0].founders.contains(&ReplicaId(301)));
    }

    #[test]
    fn a_refused_command_changes_nothing() {
        let mut image = cluster();
        image.apply(topic("a", 1, 1)).unwrap();
        let before = image.clone();
        assert!(matches!(image.apply(topic("a", 1, 1)), Err(CommandError::TopicExists { .. })));
        assert!(matches!(image.apply(topic("b", 1, 4)), Err(CommandError::InvalidReplicationFactor { .. })));
        assert!(matches!(image.apply(topic("b", 0, 1)), Err(CommandError::InvalidPartitions { .. })));
        assert!(matches!(
            image.apply(topic("b", i32::MAX, 3)),
            Err(CommandError::TooManyPartitions { requested: 2_147_483_647, limit: 10_000 })
        ));
        assert!(matches!(image.apply(broker(1, 0)), Err(CommandError::StaleIncarnation { .. })));
        let topic_id = image.topic_named("a").unwrap().topic_id;
        let shrink = MetadataCommand::CreatePartitions { topic_id, total: 1, assignments: None };
        assert!(matches!(image.apply(shrink), Err(CommandError::NotAnIncrease { .. })));
        let swell = MetadataCommand::CreatePartitions { topic_id, total: i32::MAX, assignments: None };
        assert!(matches!(image.apply(swell), Err(CommandError::TooManyPartitions { .. })));
        assert_eq!(image, before);
    }

    #[test]
    fn an_image_survives_its_checkpoint() {
        let mut image = cluster();
        image.apply(topic("a", 2, 3)).unwrap();
        image.apply(MetadataCommand::AllocateProducerIds { count: 1000 }).unwrap();
        image.apply(alter(ConfigSubject::Brokers, false, &[("message.max.bytes", Some("5"))])).unwrap();
        let restored = ClusterImage::decode(&image.encode()).unwrap();
        assert_eq!(restored, image);
        assert!(restored.topic_named("a").is_some());
    }

    fn alter(subject: ConfigSubject, replace: bool, values: &[(&str, Option<&str>)]) -> MetadataCommand {
        let operation = |value: &Option<&str>| match value {
            Some(value) => ConfigOperation::Set((*value).to_owned()),
            None => ConfigOperation::Delete,
        };
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), operation(value)));
        MetadataCommand::AlterConfigs(ConfigChange { subject, replace, values: values.collect() })
    }

    #[test]
    fn configurations_are_altered_one_by_one_or_all_at_once() {
        let mut image = cluster();
        image.apply(topic("a", 1, 1)).unwrap();
        let topic_id = image.topic_named("a").unwrap().topic_id;
        let subject = ConfigSubject::Topic(topic_id);
        image.apply(alter(subject, false, &[("x", Some("1")), ("y", Some("2"))])).unwrap();
        image.apply(alter(subject, false, &[("x", None), ("z", Some("3"))])).unwrap();
        let configs = |image: &ClusterImage| image.topic(topic_id).unwrap().configs.clone();
        let expected = [("y", "2"), ("z", "3")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(configs(&image), expected.into());
        image.apply(alter(subject, true, &[("x", Some("4"))])).unwrap();
        assert_eq!(configs(&image), [("x".to_owned(), "4".to_owned())].into());
        let unknown = ConfigSubject::Topic(Uuid::nil());
        assert_eq!(image.apply(alter(unknown, false, &[])), Err(CommandError::UnknownTopic));
    }

    #[test]
    fn brokers_have_configurations_alone_and_together() {
        let mut image = cluster();
        let one = ConfigSubject::Broker(NodeId(2));
        image.apply(alter(one, false, &[("x", Some("1"))])).unwrap();
        image.apply(alter(ConfigSubject::Brokers, false, &[("x", Some("2"))])).unwrap();
        assert_eq!(image.broker_configs(Some(NodeId(2)))["x"], "1");
        assert_eq!(image.broker_configs(None)["x"], "2");
        assert!(image.broker_configs(Some(NodeId(1))).is_empty());
        assert_eq!(image.altered_brokers().collect::<Vec<_>>(), [NodeId(2)]);
        image.apply(alter(one, false, &[("x", None)])).unwrap();
        assert_eq!(image.altered_brokers().count(), 0);
    }

    #[test]
    fn a_checkpoint_of_version_one_is_read() {
        let mut image = cluster();
        image.apply(topic("a", 1, 1)).unwrap();
        let mut first = image.encode();
        assert_eq!((first[0], first.pop()), (IMAGE_VERSION, Some(0)), "the last field is an empty map");
        first[0] = 1;
        assert_eq!(ClusterImage::decode(&first).unwrap(), image);
        first[0] = IMAGE_VERSION;
        assert!(matches!(ClusterImage::decode(&first), Err(VersionedError::Damaged(_))));
    }
}
