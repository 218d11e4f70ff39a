//! CreatePartitions (key 37): a topic can grow, never shrink.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::errors::ApiError;
use super::mentions::{Mention, mentions};
use crate::broker::Broker;
use crate::controller::SubmitError;
use crate::controller::commands::{CommandOutcome, MetadataCommand};
use crate::controller::internal_topics;
use crate::ids::NodeId;

pub(super) async fn handle(broker: &Broker, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let mut results = Vec::with_capacity(request.topics.len());
    let named = mentions(request.topics.iter().map(|topic| &topic.name));
    for (topic, mention) in request.topics.iter().zip(named) {
        let outcome = match mention {
            Mention::Only => grow(broker, topic, request.validate_only, timeout).await,
            Mention::FirstOfMany => Err(ApiError::new(
                ResponseError::InvalidRequest,
                "the request names this topic more than once",
            )),
            // A name that is there more than once is refused once.
            Mention::Again => continue,
        };
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        results.push(match outcome {
            Ok(_) => result,
            Err(error) => result.with_error_code(error.code).with_error_message(error.text()),
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(
    broker: &Broker,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
    timeout: Duration,
) -> Result<CommandOutcome, ApiError> {
    let image = broker.image();
    let found = image.topic_named(&topic.name).ok_or_else(|| {
        ApiError::new(ResponseError::UnknownTopicOrPartition, "this server does not host this topic")
    })?;
    let assignments = topic
        .assignments
        .as_ref()
        .map(|all| all.iter().map(|one| one.broker_ids.iter().map(|b| NodeId(b.0)).collect()).collect());
    if internal_topics::is_internal(&topic.name) {
        let message = "how many partitions it has says which of them holds what: it cannot grow";
        return Err(ApiError::new(ResponseError::InvalidTopicException, message));
    }
    let command =
        MetadataCommand::CreatePartitions { topic_id: found.topic_id, total: topic.count, assignments };
    let outcome = if validate_only {
        image.as_ref().clone().apply(command).map_err(SubmitError::Refused)
    } else {
        broker.controller().submit(command, timeout).await
    };
    outcome.map_err(|error| ApiError::from(&error))
}
