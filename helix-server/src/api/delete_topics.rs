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
    let refusals: Vec<Option<ApiError>> = wanted.iter().map(|topic| refusal(topic, &wanted)).collect();
    let mut responses = Vec::with_capacity(wanted.len());
    for (topic, refusal) in wanted.into_iter().zip(refusals) {
        responses.push(match refusal {
            Some(error) => shape_refusal(topic, &error, version),
            None => delete(broker, topic, timeout, version).await,
        });
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

/// What is wrong with the way in which a topic is named.
fn refusal(topic: &DeleteTopicState, all: &[DeleteTopicState]) -> Option<ApiError> {
    let repeated = || all.iter().filter(|other| *other == topic).count() > 1;
    let message = match (&topic.name, topic.topic_id.is_nil()) {
        (None, true) => "Neither topic name nor id were specified.",
        (Some(_), false) => "You may not specify both topic name and topic id.",
        (Some(_), true) if repeated() => "Duplicate topic name.",
        (None, false) if repeated() => "Duplicate topic id.",
        _ => return None,
    };
    Some(ApiError::new(ResponseError::InvalidRequest, message))
}

fn shape_refusal(topic: DeleteTopicState, error: &ApiError, version: i16) -> DeletableTopicResult {
    let mut result = DeletableTopicResult::default().with_name(topic.name).with_error_code(error.code);
    if version >= 5 {
        result.error_message = error.text();
    }
    if version >= 6 {
        result.topic_id = topic.topic_id;
    }
    result
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_named_once_and_in_one_way() {
        let topic = |name: Option<&'static str>, id: u128| {
            DeleteTopicState::default()
                .with_name(name.map(|name| TopicName(name.into())))
                .with_topic_id(Uuid::from_u128(id))
        };
        let all = [
            topic(None, 0),
            topic(Some("a"), 1),
            topic(Some("b"), 0),
            topic(Some("b"), 0),
            topic(None, 2),
            topic(None, 2),
            topic(Some("c"), 0),
            topic(None, 3),
        ];
        let message = |topic| refusal(topic, &all).map(|error| error.message.unwrap());
        let messages: Vec<_> = all.iter().map(message).collect();
        let expected = [
            Some("Neither topic name nor id were specified."),
            Some("You may not specify both topic name and topic id."),
            Some("Duplicate topic name."),
            Some("Duplicate topic name."),
            Some("Duplicate topic id."),
            Some("Duplicate topic id."),
            None,
            None,
        ];
        assert_eq!(messages, expected.map(|message| message.map(str::to_owned)));
    }
}
