//! OffsetFetch (key 9): how far consumer groups have come.

use std::collections::{BTreeMap, HashSet};

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::answer_room::AnswerRoom;
use super::mentions::first_mentions;
use super::{errors, names};
use crate::broker::Broker;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::{CommittedOffset, FetchOffsets, OffsetKey};

/// First version that asks for several groups at once (KIP-709).
const BATCHED_FROM: i16 = 8;
/// First version that has an error for the whole request.
const ERROR_FROM: i16 = 2;

/// Groups of one request whose offsets are looked up at the same time.
const MAX_FETCHES: usize = 64;
/// Where there is no room. Clients ask once more for the groups that are answered so, and for them alone.
const NO_ROOM: ResponseError = ResponseError::CoordinatorLoadInProgress;

/// A partition, and what is committed for it.
type Fetched = (i32, Option<CommittedOffset>);
/// What is committed, by topic.
type Found = BTreeMap<String, Vec<Fetched>>;

pub(super) async fn handle(
    broker: &Broker,
    request: OffsetFetchRequest,
    version: i16,
    room: &mut AnswerRoom,
) -> OffsetFetchResponse {
    if version < BATCHED_FROM {
        let asked: Option<Vec<_>> = request.topics.map(|topics| {
            topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect()
        });
        let found = fetch(broker, &request.group_id, asked.as_deref()).await;
        return single(charged(room, found).await, asked.unwrap_or_default(), version);
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut asked = request.groups.into_iter();
    loop {
        let fetches: Vec<_> = asked
            .by_ref()
            .take(MAX_FETCHES)
            .map(|group| fetch_group(broker, group, room.is_full()))
            .collect();
        if fetches.is_empty() {
            break;
        }
        for (id, found) in join_all(fetches).await {
            let out = OffsetFetchResponseGroup::default().with_group_id(id);
            groups.push(match charged(room, found).await {
                Ok(found) => out.with_topics(found.into_iter().map(of_group).collect()),
                Err(error) => out.with_error_code(error.code()),
            });
        }
    }
    OffsetFetchResponse::default().with_groups(groups)
}

async fn fetch_group(
    broker: &Broker,
    group: OffsetFetchRequestGroup,
    full: bool,
) -> (GroupId, Result<Found, ResponseError>) {
    if full {
        return (group.group_id, Err(NO_ROOM));
    }
    let asked: Option<Vec<_>> = group.topics.map(|topics| {
        topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect()
    });
    let found = fetch(broker, &group.group_id, asked.as_deref()).await;
    (group.group_id, found)
}

/// What was found, if there is room for it.
async fn charged(room: &mut AnswerRoom, found: Result<Found, ResponseError>) -> Result<Found, ResponseError> {
    let found = room.hold(async { found }, |found| found.as_ref().map_or(0, bytes)).await;
    found.unwrap_or(Err(NO_ROOM))
}

fn bytes(found: &Found) -> usize {
    let of_partition = |(_, committed): &Fetched| {
        // Once as a value and once encoded.
        let metadata = committed.as_ref().map_or(0, |committed| committed.metadata.len());
        size_of::<Fetched>() + size_of::<OffsetFetchResponsePartitions>() + 2 * metadata
    };
    found.iter().map(|(topic, all)| 2 * topic.len() + all.iter().map(of_partition).sum::<usize>()).sum()
}

async fn fetch(
    broker: &Broker,
    group: &str,
    asked: Option<&[(String, Vec<i32>)]>,
) -> Result<Found, ResponseError> {
    let named = asked.into_iter().flatten().map(|(topic, _)| (topic.clone(), Vec::new()));
    let mut found: Found = named.collect();
    let keys = asked.map(|asked| keys(asked, &mut found));
    let call = FetchOffsets { group: group.to_owned(), keys };
    let answer =
        broker.coordinators().ask_latest(broker, group, |reply| GroupCall::FetchOffsets(call, reply)).await?;
    for one in answer.map_err(|error| ResponseError::from(&error))? {
        found.entry(one.key.topic).or_default().push((one.key.partition, one.committed));
    }
    Ok(found)
}

/// Each partition once of those that something can be committed for; of the others nothing is.
fn keys(asked: &[(String, Vec<i32>)], found: &mut Found) -> Vec<OffsetKey> {
    let mut seen = HashSet::new();
    let mut keys = Vec::new();
    let topics = first_mentions(asked.iter().map(|(topic, _)| topic));
    for ((topic, partitions), number) in asked.iter().zip(topics) {
        let distinct = partitions.iter().copied().filter(|partition| seen.insert((number, *partition)));
        if names::check(topic).is_ok() {
            keys.extend(distinct.map(|partition| OffsetKey { topic: topic.clone(), partition }));
        } else if let Some(of_topic) = found.get_mut(topic) {
            // Its name may be of any length, and is not copied for each partition.
            of_topic.extend(distinct.map(|partition| (partition, None)));
        }
    }
    keys
}

/// The answer of versions that ask for one group.
fn single(
    found: Result<Found, ResponseError>,
    asked: Vec<(String, Vec<i32>)>,
    version: i16,
) -> OffsetFetchResponse {
    match found {
        Ok(found) => {
            let topics = found.into_iter().map(|(topic, offsets)| {
                let partitions = offsets.into_iter().map(|one| partition(one, version)).collect();
                OffsetFetchResponseTopic::default().with_name(name(topic)).with_partitions(partitions)
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
                OffsetFetchResponseTopic::default().with_name(name(topic)).with_partitions(refused.collect())
            });
            OffsetFetchResponse::default().with_topics(topics.collect())
        }
    }
}

fn name(topic: String) -> TopicName {
    TopicName(StrBytes::from_string(topic))
}

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

fn of_group((topic, offsets): (String, Vec<Fetched>)) -> OffsetFetchResponseTopics {
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
    OffsetFetchResponseTopics::default().with_name(name(topic)).with_partitions(partitions.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_is_asked_for_once_and_none_of_what_is_no_topic() {
        let no_topic = "x".repeat(1000);
        let asked = [
            ("a".to_owned(), vec![1, 0, 1]),
            (no_topic.clone(), vec![0, 0]),
            ("b".to_owned(), vec![0]),
            ("a".to_owned(), vec![0, 2]),
        ];
        let mut found = Found::from([(no_topic.clone(), Vec::new())]);
        let keys: Vec<_> =
            keys(&asked, &mut found).into_iter().map(|key| (key.topic, key.partition)).collect();
        assert_eq!(keys, [("a", 1), ("a", 0), ("b", 0), ("a", 2)].map(|(topic, n)| (topic.to_owned(), n)));
        assert_eq!(found, Found::from([(no_topic, vec![(0, None)])]));
    }
}
