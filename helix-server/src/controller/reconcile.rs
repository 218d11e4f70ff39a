//! Makes the replicas of this node match the image: creates those it should have, deletes those of deleted topics.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use helix_raft::{GroupId, Index, Membership, ReplicaId};
use tracing::{debug, info};

use super::image::ClusterImage;
use crate::config::BrokerConfig;
use crate::config::topic::TopicConfig;
use crate::env::watch;
use crate::shard::Shards;

/// A partition replica that this node is to have.
#[derive(Debug, Clone)]
pub struct WantedPartition {
    /// Its group.
    pub group: GroupId,
    /// Its replicas as of the topic's creation.
    pub membership: Membership,
    /// The topic's configuration over the broker's.
    pub config: Arc<TopicConfig>,
}

/// What differs between the image and the node.
#[derive(Debug, Default)]
struct Difference {
    create: Vec<WantedPartition>,
    delete: Vec<GroupId>,
}

/// Follows the image until its publisher is gone.
pub(crate) async fn run(
    me: ReplicaId,
    image: Arc<ArcSwap<ClusterImage>>,
    mut applied: watch::Receiver<Index>,
    shards: Shards,
    config: Arc<BrokerConfig>,
    stored: Vec<GroupId>,
) {
    // What the WAL holds counts as present until the image says that it was deleted.
    let mut created: HashSet<GroupId> = HashSet::new();
    let mut stored: HashSet<GroupId> = stored.into_iter().filter(|group| group.0 != 0).collect();
    loop {
        applied.mark_unchanged();
        let now = image.load_full();
        let difference = compare(me, &now, &created, &stored, &config);
        if !difference.create.is_empty() || !difference.delete.is_empty() {
            debug!(
                create = difference.create.len(),
                delete = difference.delete.len(),
                "replicas follow the metadata"
            );
        }
        for wanted in difference.create {
            created.insert(wanted.group);
            shards.create_partition(wanted);
        }
        for group in difference.delete {
            info!(%group, "deleting the data of a deleted topic's partition");
            created.remove(&group);
            stored.remove(&group);
            shards.delete_group(group);
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

fn compare(
    me: ReplicaId,
    image: &ClusterImage,
    created: &HashSet<GroupId>,
    stored: &HashSet<GroupId>,
    config: &BrokerConfig,
) -> Difference {
    let mut difference = Difference::default();
    let mut known = HashSet::new();
    for topic in image.topics() {
        let mut resolved: Option<Arc<TopicConfig>> = None;
        for partition in &topic.partitions {
            known.insert(partition.group);
            let mine = partition.replicas.iter().any(|place| place.replica == me);
            if !mine || created.contains(&partition.group) {
                continue;
            }
            let config =
                resolved.get_or_insert_with(|| Arc::new(TopicConfig::resolve(&topic.configs, config)));
            difference.create.push(WantedPartition {
                group: partition.group,
                membership: Membership::of_voters(partition.replicas.iter().map(|p| p.replica).collect()),
                config: Arc::clone(config),
            });
        }
    }
    difference.delete = created
        .union(stored)
        .filter(|group| !known.contains(group) && image.was_allocated(**group))
        .copied()
        .collect();
    difference.delete.sort_unstable();
    difference
}
