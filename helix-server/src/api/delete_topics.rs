//! DeleteTopics (key 20).

use std::collections::HashSet;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use uuid::Uuid;

use super::errors::ApiError;
use super::mentions::{Mention, mentions};
use crate::broker::Broker;
use crate::controller::commands::MetadataCommand;
use crate::controller::image::ClusterImage;

/// First version with ids.
const ID_FROM: i16 = 6;
/// First version with messages.
const MESSAGE_FROM: i16 = 5;

/// What a client wants to be deleted: a name, or an id.
type Asked = (Option<TopicName>, Uuid);

pub(super) async fn handle(
    broker: &Broker,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let mut wanted = request.topics;
    wanted.extend(request.topic_names.into_iter().map(|n| DeleteTopicState::default().with_name(Some(n))));
    let wanted: Vec<Asked> = wanted.into_iter().map(|topic| (topic.name, topic.topic_id)).collect();
    let checked = check(wanted, &broker.image());
    let mut responses = Vec::with_capacity(checked.len());
    for (asked, refused) in checked {
        responses.push(match refused {
            Some(reason) => shape(asked, Err(ApiError::new(ResponseError::InvalidRequest, reason)), version),
            None => delete(broker, asked, timeout, version).await,
        });
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

/// Each topic once, with what is wrong with the way in which it is asked for.
fn check(wanted: Vec<Asked>, image: &ClusterImage) -> Vec<(Asked, Option<&'static str>)> {
    let named = mentions(&wanted);
    let ids: HashSet<Uuid> = wanted.iter().filter(|(name, _)| name.is_none()).map(|(_, id)| *id).collect();
    let by_id = |name: &str| {
        let id = image.topic_named(name).map(|topic| topic.topic_id)?;
        ids.contains(&id).then_some(id)
    };
    let twice: HashSet<Uuid> = wanted.iter().filter_map(|(name, _)| by_id(name.as_ref()?)).collect();
    let mut out = Vec::new();
    for (mut asked, mention) in wanted.into_iter().zip(named) {
        let (name, id) = &asked;
        // The answer for its name is the answer for its id.
        if name.is_none() && twice.contains(id) || mention == Mention::Again {
            continue;
        }
        let refused = match name {
            None if id.is_nil() => Some("neither a topic name nor a topic id is given"),
            Some(_) if !id.is_nil() => Some("give either a topic name or a topic id, not both"),
            _ if mention == Mention::FirstOfMany => Some("the request names this topic more than once"),
            Some(name) if by_id(name).is_some() => Some("the request names this topic by its id too"),
            _ => None,
        };
        if let Some(id) = name.as_ref().and_then(|name| by_id(name)) {
            asked.1 = id;
        }
        out.push((asked, refused));
    }
    out
}

async fn delete(broker: &Broker, asked: Asked, timeout: Duration, version: i16) -> DeletableTopicResult {
    let image = broker.image();
    let found = match &asked.0 {
        Some(name) => image.topic_named(name),
        None => image.topic(asked.1),
    };
    match found {
        None => {
            let error = match asked.0 {
                Some(_) => ResponseError::UnknownTopicOrPartition,
                None => ResponseError::UnknownTopicId,
            };
            shape(asked, Err(ApiError::new(error, "this server does not host this topic")), version)
        }
        Some(topic) => {
            let command = MetadataCommand::DeleteTopic { topic_id: topic.topic_id };
            let outcome = broker.controller().submit(command, timeout).await;
            let deleted = (Some(TopicName(topic.name.clone().into())), topic.topic_id);
            shape(deleted, outcome.map(|_| ()).map_err(|error| ApiError::from(&error)), version)
        }
    }
}

fn shape((name, topic_id): Asked, outcome: Result<(), ApiError>, version: i16) -> DeletableTopicResult {
    let mut result = DeletableTopicResult::default().with_name(name);
    if version >= ID_FROM {
        result.topic_id = topic_id;
    }
    if let Err(error) = outcome {
        result.error_code = error.code;
        if version >= MESSAGE_FROM {
            result.error_message = error.text();
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, id: u128) -> Asked {
        (Some(TopicName(name.to_owned().into())), Uuid::from_u128(id))
    }

    fn refusals(wanted: Vec<Asked>) -> Vec<bool> {
        check(wanted, &ClusterImage::default()).into_iter().map(|(_, refused)| refused.is_some()).collect()
    }

    #[test]
    fn what_is_asked_for_twice_is_refused_once() {
        assert_eq!(refusals(vec![named("a", 0), named("b", 0), named("a", 0)]), [true, false]);
        let id: Asked = (None, Uuid::from_u128(7));
        assert_eq!(refusals(vec![id.clone(), id]), [true]);
    }

    #[test]
    fn a_topic_goes_by_its_name_or_by_its_id() {
        assert_eq!(refusals(vec![(None, Uuid::nil())]), [true]);
        assert_eq!(refusals(vec![named("a", 7)]), [true]);
        assert_eq!(refusals(vec![named("a", 0), (None, Uuid::from_u128(7))]), [false, false]);
    }
}
