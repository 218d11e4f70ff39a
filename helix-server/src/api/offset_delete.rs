//! OffsetDelete (key 47): forgets what a group has committed for partitions that it does not read (KIP-496).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use super::errors;
use crate::broker::Broker;
use crate::coordinator::CoordinatorError;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::{DeleteOffsets, GroupError, OffsetKey};

pub(super) async fn handle(broker: &Broker, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    // Offsets can be committed for a group without a name, but not deleted.
    if request.group_id.is_empty() {
        return OffsetDeleteResponse::default().with_error_code(ResponseError::InvalidGroupId.code());
    }
    let image = broker.image();
    let key = |topic: &Arc<str>, partition: i32| OffsetKey { topic: Arc::clone(topic), partition };
    let mut keys = BTreeSet::new();
    for topic in &request.topics {
        let Some(found) = image.topic_named(&topic.name) else { continue };
        let name: Arc<str> = found.name.as_str().into();
        let numbers = topic.partitions.iter().map(|partition| partition.partition_index);
        let exists =
            |number: &i32| usize::try_from(*number).is_ok_and(|number| number < found.partitions.len());
        keys.extend(numbers.filter(exists).map(|number| key(&name, number)));
    }
    let call = DeleteOffsets { group: request.group_id.to_string(), keys: keys.into_iter().collect() };
    let codes = match delete(broker, call).await {
        Ok(codes) => codes,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(error.code()),
    };
    let topics = request.topics.iter().map(|topic| {
        let name = image.topic_named(&topic.name).map(|topic| Arc::from(topic.name.as_str()));
        let partitions = topic.partitions.iter().map(|partition| {
            let number = partition.partition_index;
            let unknown = ResponseError::UnknownTopicOrPartition.code();
            let code =
                name.as_ref().and_then(|name| codes.get(&key(name, number))).copied().unwrap_or(unknown);
            OffsetDeleteResponsePartition::default().with_partition_index(number).with_error_code(code)
        });
        OffsetDeleteResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

async fn delete(broker: &Broker, call: DeleteOffsets) -> Result<BTreeMap<OffsetKey, i16>, ResponseError> {
    let group = call.group.clone();
    let asked = broker.coordinators().ask(broker, &group, |reply| GroupCall::DeleteOffsets(call, reply));
    let limit = Duration::from_millis(broker.config().offsets_commit_timeout_ms);
    let answer = tokio::time::timeout(limit, asked).await.unwrap_or(Err(CoordinatorError::NotAvailable))?;
    let results = answer.map_err(|error| ResponseError::from(&error))?;
    let code = |error: Option<&GroupError>| error.map_or(errors::NONE, |e| ResponseError::from(e).code());
    Ok(results.into_iter().map(|(key, error)| (key, code(error.as_ref()))).collect())
}
