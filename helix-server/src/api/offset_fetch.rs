//! OffsetFetch (key 9): how far consumer groups have come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::errors;
use crate::broker::Broker;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::{CommittedOffset, FetchOffsets, FetchedOffsets};

/// First version that asks for several groups at once (KIP-709).
const BATCHED_FROM: i16 = 8;
/// First version that has an error for the whole request.
const ERROR_FROM: i16 = 2;

/// Partitions that are asked for, by topic; each once, however often it is named.
type Partitions = BTreeMap<Arc<str>, BTreeSet<i32>>;

pub(super) async fn handle(
    broker: &Broker,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version < BATCHED_FROM {
        let topics = request
            .topics
            .map(|topics| by_topic(topics.into_iter().map(|topic| (topic.name, topic.partition_indexes))));
        let found = fetch(broker, &request.group_id, topics.clone()).await;
        return single(found, topics.unwrap_or_default(), version);
    }
    // All at once: groups of one coordinator share the round in which it is confirmed.
    let asked = by_group(request.groups).into_iter();
    let groups =
        join_all(asked.map(|(group, partitions)| fetch_one_of_many(broker, group, partitions))).await;
    OffsetFetchResponse::default().with_groups(groups)
}

async fn fetch_one_of_many(
    broker: &Broker,
    group: GroupId,
    partitions: Option<Partitions>,
) -> OffsetFetchResponseGroup {
    let found = fetch(broker, &group, partitions).await;
    let out = OffsetFetchResponseGroup::default().with_group_id(group);
    match found {
        Ok(found) => out.with_topics(found.into_iter().map(of_group).collect()),
        Err(error) => out.with_error_code(error.code()),
    }
}

fn by_topic(topics: impl Iterator<Item = (TopicName, Vec<i32>)>) -> Partitions {
    let mut all = Partitions::new();
    for (topic, partitions) in topics {
        all.entry(Arc::from(topic.as_str())).or_default().extend(partitions);
    }
    all
}

/// What is asked of each group, in the order in which they are named first; `None`: everything.
fn by_group(asked: Vec<OffsetFetchRequestGroup>) -> Vec<(GroupId, Option<Partitions>)> {
    let mut all: Vec<(GroupId, Option<Partitions>)> = Vec::new();
    let mut places = BTreeMap::new();
    for group in asked {
        let topics = group
            .topics
            .map(|topics| by_topic(topics.into_iter().map(|topic| (topic.name, topic.partition_indexes))));
        match places.get(&group.group_id).map(|place: &usize| &mut all[*place].1) {
            None => {
                places.insert(group.group_id.clone(), all.len());
                all.push((group.group_id, topics));
            }
            Some(before) => match (before.as_mut(), topics) {
                (Some(before), Some(topics)) => topics
                    .into_iter()
                    .for_each(|(topic, partitions)| before.entry(topic).or_default().extend(partitions)),
                _ => *before = None,
            },
        }
    }
    all
}

async fn fetch(
    broker: &Broker,
    group: &str,
    partitions: Option<Partitions>,
) -> Result<FetchedOffsets, ResponseError> {
    let call = FetchOffsets { group: group.to_owned(), partitions };
    let answer =
        broker.coordinators().ask_latest(broker, group, |reply| GroupCall::FetchOffsets(call, reply)).await?;
    answer.map_err(|error| ResponseError::from(&error))
}

/// The answer of versions that ask for one group.
fn single(
    found: Result<FetchedOffsets, ResponseError>,
    asked: Partitions,
    version: i16,
) -> OffsetFetchResponse {
    match found {
        Ok(found) => {
            let topics = found.into_iter().map(|(topic, offsets)| {
                let partitions = offsets.into_iter().map(|one| partition(one, version)).collect();
                OffsetFetchResponseTopic::default().with_name(name(&topic)).with_partitions(partitions)
            });
            OffsetFetchResponse::default().with_topics(topics.collect())
        }
        Err(error) if version >= ERROR_FROM => OffsetFetchResponse::default().with_error_code(error.code()),
        // It has nowhere to go but to the partitions.
        Err(error) => {
            let topics = asked.into_iter().map(|(topic, partitions)| {
                let refused = partitions.into_iter().map(|index| {
                    OffsetFetchResponsePartition::default()
                        .with_partition_index(index)
                        .with_committed_offset(-1)
                        .with_metadata(Some(StrBytes::default()))
                        .with_error_code(error.code())
                });
                OffsetFetchResponseTopic::default().with_name(name(&topic)).with_partitions(refused.collect())
            });
            OffsetFetchResponse::default().with_topics(topics.collect())
        }
    }
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

type Fetched = (i32, Option<CommittedOffset>);

fn partition((index, committed): Fetched, version: i16) -> OffsetFetchResponsePartition {
    let out =
        OffsetFetchResponsePartition::default().with_partition_index(index).with_error_code(errors::NONE);
    let Some(committed) = committed else {
        return out.with_committed_offset(-1).with_metadata(Some(StrBytes::default()));
    };
    let out = out
        .with_committed_offset(committed.offset)
        .with_metadata(Some(StrBytes::from_string(committed.metadata)));
    // Sent from version 5 on.
    if version >= 5 { out.with_committed_leader_epoch(committed.leader_epoch) } else { out }
}

fn of_group((topic, offsets): (Arc<str>, Vec<Fetched>)) -> OffsetFetchResponseTopics {
    let partitions = offsets.into_iter().map(|(index, committed)| {
        let out = OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_error_code(errors::NONE);
        match committed {
            None => out.with_committed_offset(-1).with_metadata(Some(StrBytes::default())),
            Some(committed) => out
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(StrBytes::from_string(committed.metadata))),
        }
    });
    OffsetFetchResponseTopics::default().with_name(name(&topic)).with_partitions(partitions.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics;

    use super::*;

    fn group(id: &str, topics: Option<&[(&str, &[i32])]>) -> OffsetFetchRequestGroup {
        let topic = |(topic, partitions): &(&str, &[i32])| {
            OffsetFetchRequestTopics::default()
                .with_name(name(topic))
                .with_partition_indexes(partitions.to_vec())
        };
        OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(id.to_owned())))
            .with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
    }

    #[test]
    fn what_is_named_often_is_asked_for_once() {
        let asked = by_group(vec![
            group("a", Some(&[("t", &[1, 1, 0]), ("t", &[1])])),
            group("b", Some(&[("t", &[0])])),
            group("a", Some(&[("u", &[2]), ("t", &[2])])),
            group("b", None),
            group("b", Some(&[("t", &[0])])),
        ]);
        let all =
            Partitions::from([("t".into(), BTreeSet::from([0, 1, 2])), ("u".into(), BTreeSet::from([2]))]);
        let asked: Vec<_> = asked.iter().map(|(group, asked)| (group.as_str(), asked.clone())).collect();
        assert_eq!(asked, [("a", Some(all)), ("b", None)]);
    }
}
