//! Answers `helix-server recover`: from names to groups, to their shards, and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use helix_raft::{GroupId, ReplicaId};

use crate::controller::commands::METADATA_GROUP;
use crate::controller::image::{ClusterImage, TopicImage};
use crate::ops::recovery::{GroupReport, RecoverAnswer, RecoverRequest, Selection};
use crate::shard::{Shards, Standing};

/// How long shards may take to answer. They do not before the node has found its cluster.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What is known of groups from the outside.
#[derive(Clone)]
pub(super) struct Recovery {
    pub(super) image: Arc<ArcSwap<ClusterImage>>,
    pub(super) shards: Shards,
}

impl Recovery {
    /// Reports on the groups that are asked for, and forces elections if that is asked for.
    pub(super) async fn answer(self, request: RecoverRequest) -> Result<RecoverAnswer, String> {
        let image = self.image.load_full();
        let groups = select(&image, &request.groups)?;
        let asked = self.shards.standings(groups.as_ref(), request.force);
        let standings = tokio::time::timeout(ANSWER_LIMIT, asked).await.map_err(|_| {
            "the node has not come far enough to know its groups: see /health/ready".to_owned()
        })?;
        let names = names(&image);
        let mut groups: Vec<_> = standings.into_iter().map(|one| report(&image, &names, one)).collect();
        groups.sort_by_key(|report| report.group);
        Ok(RecoverAnswer { groups })
    }
}

fn select(image: &ClusterImage, selection: &Selection) -> Result<Option<BTreeSet<GroupId>>, String> {
    let (name, partition) = match selection {
        Selection::All => return Ok(None),
        Selection::Metadata => return Ok(Some([METADATA_GROUP].into())),
        Selection::Topic { name, partition } => (name, *partition),
    };
    let topic = image.topic_named(name).ok_or_else(|| format!("there is no topic {name:?}"))?;
    let Some(number) = partition else {
        return Ok(Some(topic.partitions.iter().map(|partition| partition.group).collect()));
    };
    let partition = usize::try_from(number).ok().and_then(|number| topic.partitions.get(number));
    let group = partition.map(|partition| partition.group);
    let group = group.ok_or_else(|| {
        format!("topic {name:?} has {} partition(s), {number} is none of them", topic.partitions.len())
    })?;
    Ok(Some([group].into()))
}

fn names(image: &ClusterImage) -> BTreeMap<GroupId, String> {
    let of_topic = |topic: &Arc<TopicImage>| {
        let topic = Arc::clone(topic);
        (0..topic.partitions.len())
            .map(move |number| (topic.partitions[number].group, format!("{}-{number}", topic.name)))
    };
    let partitions = image.topics().flat_map(of_topic);
    std::iter::once((METADATA_GROUP, "the cluster's metadata".to_owned())).chain(partitions).collect()
}

fn report(image: &ClusterImage, names: &BTreeMap<GroupId, String>, standing: Standing) -> GroupReport {
    let node = |replica: ReplicaId| image.broker_of_replica(replica).map(|broker| broker.node.get());
    let Standing { group, leader, voters, answered, sound, replica, last, forced } = standing;
    GroupReport {
        group: group.0,
        name: names.get(&group).cloned().unwrap_or_else(|| "a partition of an unknown topic".to_owned()),
        // A leader that the metadata does not know is one nevertheless.
        led_by: leader.map(|leader| node(leader).unwrap_or(-1)),
        voters,
        answered,
        sound,
        replica,
        last_term: last.0.0,
        last_index: last.1.0,
        forced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_there_are_explained() {
        let image = ClusterImage::empty();
        let topic = Selection::Topic { name: "nobody".to_owned(), partition: None };
        assert_eq!(select(&image, &topic), Err("there is no topic \"nobody\"".to_owned()));
        assert_eq!(select(&image, &Selection::Metadata), Ok(Some([METADATA_GROUP].into())));
        assert_eq!(select(&image, &Selection::All), Ok(None));
    }
}
