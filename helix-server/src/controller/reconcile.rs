//! Makes the replicas of this node match the image: creates those it should have, deletes those of deleted topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use helix_raft::{GroupId, Incarnation, Index, ReplicaId};
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::commands::METADATA_GROUP;
use super::image::ClusterImage;
use crate::cluster::ClusterLink;
use crate::config::BrokerConfig;
use crate::config::topic::TopicConfig;
use crate::durable::founded::{FoundedCluster, FoundingMember};
use crate::durable::recovering::Finding;
use crate::env::watch;
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
    pub(crate) config: Arc<BrokerConfig>,
}

/// What the node has.
struct Present {
    /// Groups that were asked for, with the replicas that they are to have.
    created: BTreeMap<GroupId, Vec<ReplicaId>>,
    /// What the WAL holds counts as present until the image says that it was deleted.
    stored: BTreeSet<GroupId>,
    /// The groups that there were when the cluster had registered this process.
    earlier: Option<BTreeSet<GroupId>>,
}

/// Follows the image until its publisher is gone.
pub(crate) async fn run(
    reconciler: Reconciler,
    mut applied: watch::Receiver<Index>,
    stored: impl IntoIterator<Item = GroupId>,
) {
    let stored = stored.into_iter().filter(|group| *group != METADATA_GROUP).collect();
    let founders = reconciler.founded.members.iter().map(|member| member.replica).collect();
    let mut present = Present { created: [(METADATA_GROUP, founders)].into(), stored, earlier: None };
    loop {
        applied.mark_unchanged();
        let image = reconciler.image.load_full();
        for broker in image.brokers() {
            reconciler.cluster.note_incarnation(broker.replica, broker.incarnation);
        }
        reconciler.note_registration(&image, &mut present);
        let difference = reconciler.compare(&image, &present);
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

    fn follow(&self, difference: Difference, present: &mut Present) {
        let Difference { create, desire, delete } = difference;
        if !create.is_empty() || !desire.is_empty() || !delete.is_empty() {
            let (create, desire, delete) = (create.len(), desire.len(), delete.len());
            debug!(create, desire, delete, "replicas follow the metadata");
        }
        for wanted in create {
            present.created.insert(wanted.group, wanted.replicas.clone());
            self.shards.create_partition(wanted);
        }
        for (group, replicas) in desire {
            present.created.insert(group, replicas.clone());
            self.shards.desire(group, replicas);
        }
        for group in delete {
            info!(%group, "deleting the data of a deleted topic's partition");
            present.created.remove(&group);
            present.stored.remove(&group);
            self.shards.delete_group(group);
        }
    }

    fn compare(&self, image: &ClusterImage, present: &Present) -> Difference {
        let mut difference = Difference::default();
        let mut known = BTreeSet::from([METADATA_GROUP]);
        let mut desire = |group: GroupId, replicas: Vec<ReplicaId>| {
            if present.created.get(&group).is_some_and(|told| *told != replicas) {
                difference.desire.push((group, replicas));
            }
        };
        desire(METADATA_GROUP, metadata_replicas(&self.founded, image));
        for topic in image.topics() {
            let mut resolved: Option<Arc<TopicConfig>> = None;
            for partition in &topic.partitions {
                known.insert(partition.group);
                if !partition.has_replica(self.me) {
                    continue;
                }
                if present.created.contains_key(&partition.group) {
                    desire(partition.group, partition.desired());
                    continue;
                }
                let config = resolved
                    .get_or_insert_with(|| Arc::new(TopicConfig::resolve(&topic.configs, &self.config)));
                difference.create.push(WantedPartition {
                    group: partition.group,
                    founders: partition.founders.clone(),
                    replicas: partition.desired(),
                    config: Arc::clone(config),
                    is_new: present.earlier.as_ref().is_some_and(|all| !all.contains(&partition.group)),
                });
            }
        }
        let here: BTreeSet<GroupId> = present.created.keys().chain(&present.stored).copied().collect();
        difference.delete =
            here.into_iter().filter(|group| !known.contains(group) && image.was_allocated(*group)).collect();
        difference
    }
}

/// Who is to hold the metadata: the founding nodes, with the disks that they have now.
fn metadata_replicas(founded: &FoundedCluster, image: &ClusterImage) -> Vec<ReplicaId> {
    let disk = |member: &FoundingMember| {
        image.broker(member.node).map_or(member.replica, |registered| registered.replica)
    };
    founded.members.iter().map(disk).collect()
}
