//! CreateTopics (key 19).

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use kafka_protocol::protocol::StrBytes;

use super::answer_room::{AnswerRoom, part_bytes};
use super::errors::ApiError;
use super::mentions::{Mention, mentions};
use super::names;
use crate::broker::Broker;
use crate::config::{describe, topic};
use crate::controller::commands::{CommandOutcome, MetadataCommand, NewTopic};
use crate::ids::NodeId;

/// First version that tells the configuration of what was created (KIP-525).
const CONFIGS_FROM: i16 = 5;

pub(super) async fn handle(
    broker: &Broker,
    request: CreateTopicsRequest,
    version: i16,
    room: &mut AnswerRoom,
) -> CreateTopicsResponse {
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let named = mentions(request.topics.iter().map(|topic| &topic.name));
    let mut results = Vec::with_capacity(request.topics.len());
    for (topic, mention) in request.topics.into_iter().zip(named) {
        let outcome = match mention {
            Mention::Only => create(broker, &topic, request.validate_only, timeout).await,
            Mention::FirstOfMany => Err(ApiError::new(
                ResponseError::InvalidRequest,
                "the request names this topic more than once",
            )),
            // A name that is there more than once is refused once.
            Mention::Again => continue,
        };
        results.push(shape(broker, topic, outcome, version, room).await);
        tokio::task::consume_budget().await;
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create(
    broker: &Broker,
    topic: &CreatableTopic,
    validate_only: bool,
    timeout: Duration,
) -> Result<CommandOutcome, ApiError> {
    let new_topic = resolve(broker, topic)?;
    if validate_only {
        let outcome = broker.image().as_ref().clone().apply(MetadataCommand::CreateTopic(new_topic));
        return outcome.map_err(|refused| ApiError::from(&crate::controller::SubmitError::Refused(refused)));
    }
    broker.create_topic(new_topic, timeout).await.map_err(|error| ApiError::from(&error))
}

/// Turns what the client wrote into a command: defaults filled in, everything checked that needs no other topic.
fn resolve(broker: &Broker, topic: &CreatableTopic) -> Result<NewTopic, ApiError> {
    names::check(&topic.name)
        .map_err(|reason| ApiError::new(ResponseError::InvalidTopicException, reason))?;
    if topic.num_partitions == 0 || topic.num_partitions < -1 {
        return Err(ApiError::new(
            ResponseError::InvalidPartitions,
            "number of partitions must be at least 1",
        ));
    }
    if topic.replication_factor == 0 || topic.replication_factor < -1 {
        return Err(ApiError::new(
            ResponseError::InvalidReplicationFactor,
            "replication factor must be at least 1, or -1 for the broker's default",
        ));
    }
    check_collision(broker, &topic.name)?;
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let reason = format!("{} has no value; leave it out to take the default", config.name.as_str());
            return Err(ApiError::new(ResponseError::InvalidConfig, reason));
        };
        topic::check(&config.name, value)
            .map_err(|error| ApiError::new(ResponseError::InvalidConfig, error.to_string()))?;
        configs.insert(config.name.to_string(), value.trim().to_owned());
    }
    Ok(NewTopic {
        name: topic.name.to_string(),
        topic_id: broker.env().random_uuid(),
        partitions: broker.partitions_or_default(topic.num_partitions),
        replication_factor: broker.replication_or_default(topic.replication_factor),
        assignments: assignments(topic)?,
        configs,
    })
}

/// Names that are the same but for '.' and '_' are the same in names of metrics: as in Kafka, there is no second such topic.
fn check_collision(broker: &Broker, name: &str) -> Result<(), ApiError> {
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let image = broker.image();
    let other = image.topics().find(|other| other.name != name && names::collide(&other.name, name));
    other.map_or(Ok(()), |other| {
        let reason =
            format!("topic name {name:?} collides with {:?}: '.' and '_' count as the same", other.name);
        Err(ApiError::new(ResponseError::InvalidTopicException, reason))
    })
}

fn assignments(topic: &CreatableTopic) -> Result<Option<Vec<Vec<NodeId>>>, ApiError> {
    if topic.assignments.is_empty() {
        return Ok(None);
    }
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        return Err(ApiError::new(
            ResponseError::InvalidRequest,
            "give either an assignment, or partitions and replication factor: with an assignment both must be -1",
        ));
    }
    let mut sorted: Vec<&CreatableReplicaAssignment> = topic.assignments.iter().collect();
    sorted.sort_by_key(|a| a.partition_index);
    if sorted.iter().enumerate().any(|(expected, a)| a.partition_index != expected as i32) {
        return Err(ApiError::new(
            ResponseError::InvalidReplicaAssignment,
            "the assignment must name the partitions 0, 1, 2, ... without a gap",
        ));
    }
    Ok(Some(sorted.iter().map(|a| a.broker_ids.iter().map(|b| NodeId(b.0)).collect()).collect()))
}

/// The configuration that the topic has now, or would have (KIP-525).
fn configs(broker: &Broker, topic: &CreatableTopic) -> Vec<CreatableTopicConfigs> {
    let own = topic
        .configs
        .iter()
        .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.trim().to_owned())));
    let image = broker.image();
    let entries = describe::topic(broker.live_config(), &own.collect(), broker.altered(&image));
    let shape = |entry: describe::ConfigEntry| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(entry.name))
            .with_value(entry.value.map(StrBytes::from_string))
            .with_read_only(entry.read_only)
            .with_config_source(entry.source as i8)
    };
    entries.into_iter().map(shape).collect()
}

async fn shape(
    broker: &Broker,
    topic: CreatableTopic,
    outcome: Result<CommandOutcome, ApiError>,
    version: i16,
    room: &mut AnswerRoom,
) -> CreatableTopicResult {
    let shown = if version >= CONFIGS_FROM && outcome.is_ok() {
        let bytes = |configs: &Vec<CreatableTopicConfigs>| {
            configs.iter().map(|one| part_bytes::<_, ()>(one, 0, version)).sum()
        };
        room.hold(async { configs(broker, &topic) }, bytes).await
    } else {
        None
    };
    let result = CreatableTopicResult::default().with_name(topic.name).with_error_message(None);
    match outcome {
        Ok(CommandOutcome::TopicCreated { topic_id, partitions, replication_factor }) => {
            let result = if version >= 7 { result.with_topic_id(topic_id) } else { result };
            if version < CONFIGS_FROM {
                return result;
            }
            let result = result.with_num_partitions(partitions).with_replication_factor(replication_factor);
            match shown {
                Some(shown) => result.with_configs(Some(shown)),
                // The topic is there all the same.
                None => result
                    .with_configs(None)
                    .with_topic_config_error_code(ResponseError::InvalidRequest.code()),
            }
        }
        Ok(_) => result,
        Err(error) => {
            let message = error.text();
            result.with_error_code(error.code).with_error_message(message)
        }
    }
}
