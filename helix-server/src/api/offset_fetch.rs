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

use super::answer_room::AnswerRoom;
use super::errors;
use crate::broker::Broker;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::{CommittedOffset, FetchOffsets, FetchedOffsets};

/// First version that asks for several groups at once (KIP-709).
const BATCHED_FROM: i16 = 8;
/// First version that has an error for the whole request.
const ERROR_FROM: i16 = 2;

/// Groups of one request whose offsets are looked up at the same time.
const MAX_FETCHES: usize = 64;
/// Where there is no room. Clients ask once more for the groups that are answered so, and for them alone.
const NO_ROOM: ResponseError = ResponseError::CoordinatorLoadInProgress;

/// Partitions that are asked for, by topic; each once, however often it is named.
type Partitions = BTreeMap<Arc<str>, BTreeSet<i32>>;

pub(super) async fn handle(
    broker: &Broker,
    request: OffsetFetchRequest,
    version: i16,
    room: &mut AnswerRoom,
) -> OffsetFetchResponse {
    if version < BATCHED_FROM {
        let topics = request
            .topics
            .map(|topics| by_topic(topics.into_iter().map(|topic| (topic.name, topic.partition_indexes))));
        let found = fetch(broker, &request.group_id, topics.clone()).await;
        return single(charged(room, found).await, topics.unwrap_or_default(), version);
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    let mut asked = request.groups.into_iter();
    loop {
        // Side by side: groups of one coordinator share the round in which it is confirmed.
        let full = room.is_full();
        let some = asked.by_ref().take(MAX_FETCHES).map(|group| fetch_one_of_many(broker, group, full));
        let found = join_all(some).await;
        if found.is_empty() {
            return OffsetFetchResponse::default().with_groups(groups);
        }
        for (group, found) in found {
            let out = OffsetFetchResponseGroup::default().with_group_id(group);
            groups.push(match charged(room, found).await {
                Ok(found) => out.with_topics(found.into_iter().map(of_group).collect()),
                Err(error) => out.with_error_code(error.code()),
            });
        }
    }
}

async fn fetch_one_of_many(
    broker: &Broker,
    group: OffsetFetchRequestGroup,
    full: bool,
) -> (GroupId, Result<FetchedOffsets, ResponseError>) {
    if full {
        return (group.group_id, Err(NO_ROOM));
    }
    let topics = group
        .topics
        .map(|topics| by_topic(topics.into_iter().map(|topic| (topic.name, topic.partition_indexes))));
    let found = fetch(broker, &group.group_id, topics).await;
    (group.group_id, found)
}

/// What was found, if there is room for it.
async fn charged(
    room: &mut AnswerRoom,
    found: Result<FetchedOffsets, ResponseError>,
) -> Result<FetchedOffsets, ResponseError> {
    let found = room.hold(async { found }, |found| found.as_ref().map_or(0, bytes)).await;
    found.unwrap_or(Err(NO_ROOM))
}

fn bytes(found: &FetchedOffsets) -> usize {
    let of_partition = |(_, committed): &Fetched| {
        // Once as a value and once encoded.
        let metadata = committed.as_ref().map_or(0, |committed| committed.metadata.len());
        size_of::<Fetched>() + size_of::<OffsetFetchResponsePartitions>() + 2 * metadata
    };
    found.iter().map(|(topic, all)| 2 * topic.len() + all.iter().map(of_partition).sum::<usize>()).sum()
}

fn by_topic(topics: impl Iterator<Item = (TopicName, Vec<i32>)>) -> Partitions {
    let mut all = Partitions::new();
    for (topic, partitions) in topics {
        all.entry(Arc::from(topic.as_str())).or_default().extend(partitions);
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
    use super::*;

    #[test]
    fn what_is_named_often_is_asked_for_once() {
        let asked = [("t", vec![1, 1, 0]), ("u", vec![2]), ("t", vec![1])];
        let asked = by_topic(asked.into_iter().map(|(topic, partitions)| (name(topic), partitions)));
        let each = [("t".into(), BTreeSet::from([0, 1])), ("u".into(), BTreeSet::from([2]))];
        assert_eq!(asked, Partitions::from(each));
    }
}
