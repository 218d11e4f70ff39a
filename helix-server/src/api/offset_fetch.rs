//! OffsetFetch (key 9): how far consumer groups have come.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::errors;
use crate::broker::Broker;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::{FetchOffsets, FetchedOffset, OffsetKey};

/// First version that asks for several groups at once (KIP-709).
const BATCHED_FROM: i16 = 8;
/// First version that has an error for the whole request.
const ERROR_FROM: i16 = 2;

/// What is committed, by topic.
type Found = BTreeMap<String, Vec<FetchedOffset>>;

pub(super) async fn handle(
    broker: &Broker,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version < BATCHED_FROM {
        let asked: Option<Vec<_>> = request.topics.map(|topics| {
            topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect()
        });
        let found = fetch(broker, &request.group_id, asked.as_deref()).await;
        return single(found, asked.unwrap_or_default(), version);
    }
    // All at once: groups of one coordinator share the round in which it is confirmed.
    let groups = join_all(request.groups.into_iter().map(|group| fetch_one_of_many(broker, group))).await;
    OffsetFetchResponse::default().with_groups(groups)
}

async fn fetch_one_of_many(broker: &Broker, group: OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let asked: Option<Vec<_>> = group.topics.map(|topics| {
        topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect()
    });
    let found = fetch(broker, &group.group_id, asked.as_deref()).await;
    let out = OffsetFetchResponseGroup::default().with_group_id(group.group_id);
    match found {
        Ok(found) => out.with_topics(found.into_iter().map(of_group).collect()),
        Err(error) => out.with_error_code(error.code()),
    }
}

async fn fetch(
    broker: &Broker,
    group: &str,
    asked: Option<&[(String, Vec<i32>)]>,
) -> Result<Found, ResponseError> {
    let keys = asked.map(|topics| {
        let of_topic = |(topic, partitions): &(String, Vec<i32>)| -> Vec<OffsetKey> {
            partitions.iter().map(|&partition| OffsetKey { topic: topic.clone(), partition }).collect()
        };
        topics.iter().flat_map(of_topic).collect()
    });
    let named = asked.into_iter().flatten().map(|(topic, _)| (topic.clone(), Vec::new()));
    let mut found: Found = named.collect();
    let call = FetchOffsets { group: group.to_owned(), keys };
    let answer =
        broker.coordinators().ask_latest(broker, group, |reply| GroupCall::FetchOffsets(call, reply)).await?;
    for one in answer.map_err(|error| ResponseError::from(&error))? {
        found.entry(one.key.topic.clone()).or_default().push(one);
    }
    Ok(found)
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

fn partition(one: FetchedOffset, version: i16) -> OffsetFetchResponsePartition {
    let out = OffsetFetchResponsePartition::default()
        .with_partition_index(one.key.partition)
        .with_error_code(errors::NONE);
    let Some(committed) = one.committed else {
        return out.with_committed_offset(-1).with_metadata(Some(StrBytes::default()));
    };
    let out = out
        .with_committed_offset(committed.offset)
        .with_metadata(Some(StrBytes::from_string(committed.metadata)));
    // Sent from version 5 on.
    if version >= 5 { out.with_committed_leader_epoch(committed.leader_epoch) } else { out }
}

fn of_group((topic, offsets): (String, Vec<FetchedOffset>)) -> OffsetFetchResponseTopics {
    let partitions = offsets.into_iter().map(|one| {
        let out = OffsetFetchResponsePartitions::default()
            .with_partition_index(one.key.partition)
            .with_error_code(errors::NONE);
        match one.committed {
            None => out.with_committed_offset(-1).with_metadata(Some(StrBytes::default())),
            Some(committed) => out
                .with_committed_offset(committed.offset)
                .with_committed_leader_epoch(committed.leader_epoch)
                .with_metadata(Some(StrBytes::from_string(committed.metadata))),
        }
    });
    OffsetFetchResponseTopics::default().with_name(name(topic)).with_partitions(partitions.collect())
}
