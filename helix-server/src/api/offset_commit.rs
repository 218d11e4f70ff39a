//! OffsetCommit (key 8): how far a consumer group has come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use helix_raft::GroupId;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use super::{errors, owned};
use crate::broker::Broker;
use crate::controller::image::TopicImage;
use crate::coordinator::CoordinatorError;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::{CommitOffsets, GroupError, NewOffset, OffsetKey};

/// Last version in which clients say how long offsets are kept.
const RETENTION_UNTIL: i16 = 4;
/// First version that tells a group that is not there from a wrong generation (KIP-848).
const NOT_FOUND_FROM: i16 = 9;
/// First version with the leader epoch (KIP-320).
const LEADER_EPOCH_FROM: i16 = 6;

pub(super) async fn handle(
    broker: &Broker,
    request: OffsetCommitRequest,
    version: i16,
) -> OffsetCommitResponse {
    let OffsetCommitRequest { group_id, generation_id_or_member_epoch, member_id, group_instance_id, .. } =
        request;
    let retention_ms = Some(request.retention_time_ms).filter(|ms| version <= RETENTION_UNTIL && *ms >= 0);
    let image = broker.image();
    let mut offsets = BTreeMap::new();
    for topic in &request.topics {
        let Some(found) = image.topic_named(&topic.name) else { continue };
        let name: Arc<str> = found.name.as_str().into();
        for partition in &topic.partitions {
            let Some(incarnation) = group_of(found, partition) else { continue };
            let new = new_offset(&name, partition, incarnation, version);
            // Of one that is named again the last counts, and is stored.
            offsets.insert(new.key.clone(), new);
        }
    }
    let call = CommitOffsets {
        group: group_id.to_string(),
        generation: generation_id_or_member_epoch,
        member: member_id.to_string(),
        instance: owned(group_instance_id.as_ref()),
        retention_ms,
        offsets: offsets.into_values().collect(),
    };
    let codes =
        if call.offsets.is_empty() { Ok(BTreeMap::new()) } else { commit(broker, call, version).await };
    let topics = request.topics.iter().map(|topic| {
        let found = image.topic_named(&topic.name).map(|topic| (topic, Arc::from(topic.name.as_str())));
        let partitions = topic.partitions.iter().map(|partition| {
            let known = found.as_ref().filter(|(topic, _)| group_of(topic, partition).is_some());
            let code = match (known, &codes) {
                (None, _) => ResponseError::UnknownTopicOrPartition.code(),
                (Some((_, name)), Ok(codes)) => {
                    codes.get(&key(name, partition.partition_index)).copied().unwrap_or(errors::NONE)
                }
                (Some(_), Err(error)) => error.code(),
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// The code for each offset.
async fn commit(
    broker: &Broker,
    call: CommitOffsets,
    version: i16,
) -> Result<BTreeMap<OffsetKey, i16>, ResponseError> {
    let group = call.group.clone();
    let asked = broker.coordinators().ask(broker, &group, |reply| GroupCall::CommitOffsets(call, reply));
    let limit = Duration::from_millis(broker.config().offsets_commit_timeout_ms);
    // What is not decided in time may be committed yet. The same code as Kafka's: found again, the coordinator is asked again.
    let answer = tokio::time::timeout(limit, asked).await.unwrap_or(Err(CoordinatorError::NotAvailable))?;
    let code = |error: &GroupError| match error {
        GroupError::GroupIdNotFound if version < NOT_FOUND_FROM => ResponseError::IllegalGeneration.code(),
        error => ResponseError::from(error).code(),
    };
    Ok(answer.into_iter().map(|(key, error)| (key, error.as_ref().map_or(errors::NONE, code))).collect())
}

fn key(topic: &Arc<str>, partition: i32) -> OffsetKey {
    OffsetKey { topic: Arc::clone(topic), partition }
}

/// The Raft group of a partition, if there is such a partition.
fn group_of(topic: &TopicImage, partition: &OffsetCommitRequestPartition) -> Option<GroupId> {
    let number = usize::try_from(partition.partition_index).ok()?;
    Some(topic.partitions.get(number)?.group)
}

fn new_offset(
    topic: &Arc<str>,
    partition: &OffsetCommitRequestPartition,
    incarnation: GroupId,
    version: i16,
) -> NewOffset {
    NewOffset {
        key: key(topic, partition.partition_index),
        offset: partition.committed_offset,
        leader_epoch: if version >= LEADER_EPOCH_FROM { partition.committed_leader_epoch } else { -1 },
        metadata: partition.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default(),
        incarnation: Some(incarnation),
    }
}
