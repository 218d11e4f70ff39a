//! DeleteTopics (key 20).

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use super::errors::ApiError;
use crate::broker::Broker;
use crate::controller::commands::MetadataCommand;

pub(super) async fn handle(
    broker: &Broker,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let mut wanted = request.topics;
    wanted.extend(request.topic_names.into_iter().map(|n| DeleteTopicState::default().with_name(Some(n))));
    let mut responses = Vec::with_capacity(wanted.len());
    for topic in wanted {
        responses.push(delete(broker, topic, timeout, version).await);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete(
    broker: &Broker,
    asked: DeleteTopicState,
    timeout: Duration,
    version: i16,
) -> DeletableTopicResult {
    let image = broker.image();
    let found = match &asked.name {
        Some(name) => image.topic_named(name),
        None => image.topic(asked.topic_id),
    };
    let mut result = DeletableTopicResult::default().with_name(asked.name.clone());
    let outcome = match found {
        None if asked.name.is_some() => {
            Err(ApiError::new(ResponseError::UnknownTopicOrPartition, "this server does not host this topic"))
        }
        None => Err(ApiError::new(ResponseError::UnknownTopicId, "this server does not host this topic id")),
        Some(topic) => {
            result.name = Some(TopicName(topic.name.clone().into()));
            if version >= 6 {
                result.topic_id = topic.topic_id;
            }
            let command = MetadataCommand::DeleteTopic { topic_id: topic.topic_id };
            broker.controller().submit(command, timeout).await.map_err(|error| ApiError::from(&error))
        }
    };
    if let Err(error) = outcome {
        result.error_code = error.code;
        if version >= 5 {
            result.error_message = error.text();
        }
        if version >= 6 && result.topic_id == Uuid::nil() {
            result.topic_id = asked.topic_id;
        }
    }
    result
}
