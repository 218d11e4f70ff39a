//! What the APIs about configurations have in common: whose they are, and how they are changed.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;

use super::errors::ApiError;
use super::mentions::{Mention, mentions};
use super::names;
use crate::broker::Broker;
use crate::config::describe::ConfigEntry;
use crate::config::live::{Altered, BrokerConfigError};
use crate::config::{describe, topic};
use crate::controller::commands::{ConfigChange, ConfigSubject, MetadataCommand};
use crate::controller::image::{ClusterImage, TopicImage};

/// Kafka's numbers for what has configurations.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// How long a change may take; the requests do not say.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Whose configurations are meant.
#[derive(Debug, Clone)]
pub(super) enum Subject {
    Topic(Arc<TopicImage>),
    /// This broker.
    Broker,
    /// All brokers.
    Brokers,
}

/// Finds out whose configurations a client means.
pub(super) fn subject(
    broker: &Broker,
    image: &ClusterImage,
    resource_type: i8,
    name: &str,
) -> Result<Subject, ApiError> {
    match resource_type {
        TOPIC if name.is_empty() => Err(invalid_request("Default topic resources are not allowed.")),
        TOPIC => {
            names::check(name)
                .map_err(|reason| ApiError::new(ResponseError::InvalidTopicException, reason))?;
            image.topic_named(name).cloned().map(Subject::Topic).ok_or_else(|| {
                ApiError::new(
                    ResponseError::UnknownTopicOrPartition,
                    format!("The topic '{name}' does not exist."),
                )
            })
        }
        BROKER if name.is_empty() => Ok(Subject::Brokers),
        BROKER => match name.parse::<i32>() {
            Ok(node) if node == broker.node().get() => Ok(Subject::Broker),
            Ok(node) => Err(invalid_request(format!(
                "Unexpected broker id, expected {} or empty string, but received {node}",
                broker.node()
            ))),
            Err(_) => Err(invalid_request(format!("Broker id must be an integer, but it is: {name}"))),
        },
        BROKER_LOGGER => Err(invalid_request(
            "Helix does not change what is logged while it runs: restart the node with RUST_LOG set",
        )),
        CLIENT_METRICS | GROUP => Err(invalid_request(
            "Helix has configurations of topics and brokers alone: nothing would act on this one",
        )),
        other => Err(invalid_request(format!("Unknown resource type {other}"))),
    }
}

pub(super) fn invalid_request(message: impl Into<String>) -> ApiError {
    ApiError::new(ResponseError::InvalidRequest, message)
}

/// What is in force, and where it comes from.
pub(super) fn entries(broker: &Broker, image: &ClusterImage, subject: &Subject) -> Vec<ConfigEntry> {
    let (live, altered) = (broker.live_config(), broker.altered(image));
    match subject {
        Subject::Topic(topic) => describe::topic(live, &topic.configs, altered),
        Subject::Broker => describe::broker(live, altered),
        Subject::Brokers => describe::all_brokers(altered.everywhere),
    }
}

/// One change of one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Set,
    Delete,
    Append,
    Subtract,
}

/// What a client wants of one configuration.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) operation: Operation,
    pub(super) value: Option<String>,
}

/// Checks a change, and makes it unless it was only to be checked. With `replace` whatever is not wanted goes back to its default.
pub(super) async fn change(
    broker: &Broker,
    resource: (i8, &str),
    wanted: &[Wanted],
    replace: bool,
    validate_only: bool,
) -> Result<(), ApiError> {
    let change = {
        let image = broker.image();
        check_shape(wanted)?;
        let subject = subject(broker, &image, resource.0, resource.1)?;
        resolve(broker, &image, &subject, wanted, replace)?
    };
    if validate_only {
        return Ok(());
    }
    let submitted = broker.controller().submit(MetadataCommand::AlterConfigs(change), CHANGE_TIMEOUT).await;
    submitted.map(drop).map_err(|error| ApiError::from(&error))
}

fn check_shape(wanted: &[Wanted]) -> Result<(), ApiError> {
    if mentions(wanted.iter().map(|one| &one.name)).into_iter().any(Mention::is_of_many) {
        return Err(invalid_request("Error due to duplicate config keys"));
    }
    let null = |one: &&Wanted| one.value.is_none() && one.operation != Operation::Delete;
    let nulls: Vec<&str> = wanted.iter().filter(null).map(|one| one.name.as_str()).collect();
    if nulls.is_empty() {
        Ok(())
    } else {
        Err(invalid_request(format!("Null value not supported for : {}", nulls.join(", "))))
    }
}

fn resolve(
    broker: &Broker,
    image: &ClusterImage,
    subject: &Subject,
    wanted: &[Wanted],
    replace: bool,
) -> Result<ConfigChange, ApiError> {
    let entries = entries(broker, image, subject);
    let of = match subject {
        Subject::Topic(topic) => ConfigSubject::Topic(topic.topic_id),
        Subject::Broker => ConfigSubject::Broker(broker.node()),
        Subject::Brokers => ConfigSubject::Brokers,
    };
    let mut change = ConfigChange { subject: of, replace, values: std::collections::BTreeMap::new() };
    for one in wanted {
        let value = match one.operation {
            Operation::Delete => None,
            Operation::Set => one.value.as_deref().map(|value| value.trim().to_owned()),
            Operation::Append | Operation::Subtract => Some(listed(&entries, subject, one)?),
        };
        change.values.insert(one.name.clone(), value);
    }
    let altered = broker.altered(image);
    match subject {
        Subject::Topic(_) => check_topic(&change)?,
        Subject::Broker => {
            let here = change.apply_to(altered.here);
            check_broker(broker, Altered { here: &here, ..altered }, &change)?;
        }
        Subject::Brokers => {
            let everywhere = change.apply_to(altered.everywhere);
            check_broker(broker, Altered { everywhere: &everywhere, ..altered }, &change)?;
        }
    }
    Ok(change)
}

/// A list with words more, or fewer.
fn listed(entries: &[ConfigEntry], subject: &Subject, wanted: &Wanted) -> Result<String, ApiError> {
    use crate::config::kind::{ConfigKind, list};
    let entry = entries.iter().find(|entry| entry.name == wanted.name && entry.kind == ConfigKind::List);
    let append = wanted.operation == Operation::Append;
    let Some(entry) = entry else {
        return Err(ApiError::new(
            ResponseError::InvalidConfig,
            match subject {
                Subject::Topic(_) => format!(
                    "Can't {} to key {} because its type is not LIST.",
                    if append { "APPEND" } else { "SUBTRACT" },
                    wanted.name
                ),
                Subject::Broker | Subject::Brokers => format!(
                    "Config value {} is not allowed for config key: {}",
                    if append { "append" } else { "subtract" },
                    wanted.name
                ),
            },
        ));
    };
    let mut words = list(entry.value.as_deref().unwrap_or_default());
    for word in list(wanted.value.as_deref().unwrap_or_default()) {
        if !append {
            words.retain(|known| *known != word);
        } else if !words.contains(&word) {
            words.push(word);
        }
    }
    Ok(words.join(","))
}

fn check_topic(change: &ConfigChange) -> Result<(), ApiError> {
    for (name, value) in &change.values {
        if let Some(value) = value {
            topic::check(name, value)
                .map_err(|error| ApiError::new(ResponseError::InvalidConfig, error.to_string()))?;
        }
    }
    Ok(())
}

fn check_broker(broker: &Broker, altered: Altered<'_>, change: &ConfigChange) -> Result<(), ApiError> {
    broker.live_config().check(altered, |name| change.values.contains_key(name)).map_err(|error| {
        let code = match error {
            BrokerConfigError::UnknownName { .. } | BrokerConfigError::Unsupported { .. } => {
                ResponseError::InvalidConfig
            }
            BrokerConfigError::ReadOnly { .. }
            | BrokerConfigError::BadValue { .. }
            | BrokerConfigError::Contradiction(_) => ResponseError::InvalidRequest,
        };
        ApiError::new(code, error.to_string())
    })
}

/// The answer for a resource that a request names more than once: it is not changed.
pub(super) fn repetition() -> ApiError {
    invalid_request("Each resource must appear at most once.")
}
