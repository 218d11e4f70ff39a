//! What the APIs about configurations have in common: whose they are, and how they are changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;

use super::errors::ApiError;
use super::mentions::{Mention, mentions};
use super::names;
use crate::broker::Broker;
use crate::config::describe::{ConfigEntry, ConfigSource};
use crate::config::kind::{ConfigKind, list};
use crate::config::live::{Altered, BrokerConfigError, Overrides};
use crate::config::{describe, topic};
use crate::controller::commands::{
    ConfigChange, ConfigOperation, ConfigSubject, ListChange, MetadataCommand,
};
use crate::controller::image::{ClusterImage, TopicImage};

/// Kafka's numbers for what has configurations.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;
/// All of them.
pub(super) const TYPES: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

/// Configurations of one resource that a request may change: more than there are, and few enough to suggest a name for each that is wrong.
const MAX_WANTED: usize = 1000;
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
        other => Err(unknown_type(other)),
    }
}

/// The answer for a kind of resource that nobody knows.
pub(super) fn unknown_type(resource_type: i8) -> ApiError {
    invalid_request(format!("Unknown resource type {resource_type}"))
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
    // What is refused takes no time of its own, but a request may hold very many changes.
    tokio::task::consume_budget().await;
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
    if wanted.len() > MAX_WANTED {
        return Err(invalid_request(format!(
            "{} configurations are to be changed at once, and {MAX_WANTED} are more than there are",
            wanted.len()
        )));
    }
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
    let of = match subject {
        Subject::Topic(topic) => ConfigSubject::Topic(topic.topic_id),
        Subject::Broker => ConfigSubject::Broker(broker.node()),
        Subject::Brokers => ConfigSubject::Brokers,
    };
    let mut change = ConfigChange { subject: of, replace, values: BTreeMap::new() };
    let inherited = inherited(broker, image, subject);
    for one in wanted {
        change.values.insert(one.name.clone(), operation(&inherited, subject, one)?);
    }
    let altered = broker.altered(image);
    match subject {
        Subject::Topic(topic) => check_topic(&change, &topic.configs)?,
        Subject::Broker => {
            let here = change.apply_to(altered.here);
            check_broker(broker, Altered { here: &here, ..altered }, &change)?;
        }
        Subject::Brokers => {
            let everywhere = change.apply_to(altered.everywhere);
            // Whoever is asked: what this one has of its own does not count.
            let here = Overrides::new();
            check_broker(broker, Altered { everywhere: &everywhere, here: &here }, &change)?;
        }
    }
    Ok(change)
}

/// Every configuration that the subject can have, with what is in force where nobody has set it for the subject itself.
fn inherited(broker: &Broker, image: &ClusterImage, subject: &Subject) -> HashMap<&'static str, ConfigEntry> {
    use ConfigSource::{DynamicBroker, DynamicDefaultBroker};
    let (live, altered) = (broker.live_config(), broker.altered(image));
    let without = |own: &[ConfigSource]| {
        let inherited = |entry: ConfigEntry| {
            let given = entry.synonyms.iter().find(|given| !own.contains(&given.source));
            ConfigEntry { value: given.map(|given| given.value.clone()), ..entry }
        };
        describe::broker(live, altered).into_iter().map(inherited).collect()
    };
    let own = Overrides::new();
    let entries: Vec<_> = match subject {
        // The same on whichever node is asked.
        Subject::Topic(_) => describe::topic(live, &own, Altered { here: &own, ..altered }),
        Subject::Broker => without(&[DynamicBroker]),
        Subject::Brokers => without(&[DynamicBroker, DynamicDefaultBroker]),
    };
    entries.into_iter().map(|entry| (entry.name, entry)).collect()
}

/// What a client wants, as it is to be applied.
fn operation(
    inherited: &HashMap<&'static str, ConfigEntry>,
    subject: &Subject,
    wanted: &Wanted,
) -> Result<ConfigOperation, ApiError> {
    let value = wanted.value.as_deref().unwrap_or_default();
    let as_list = inherited.get(wanted.name.as_str()).filter(|entry| entry.kind == ConfigKind::List);
    let change = || -> Result<ListChange, ApiError> {
        let as_list = as_list.ok_or_else(|| no_list(subject, wanted))?;
        Ok(ListChange { words: list(value), inherited: as_list.value.clone().unwrap_or_default() })
    };
    Ok(match wanted.operation {
        Operation::Delete => ConfigOperation::Delete,
        // As it is stored: without the blanks around it, or around the words of a list.
        Operation::Set if as_list.is_some() => ConfigOperation::Set(list(value).join(",")),
        Operation::Set => ConfigOperation::Set(value.trim().to_owned()),
        Operation::Append => ConfigOperation::Append(change()?),
        Operation::Subtract => ConfigOperation::Subtract(change()?),
    })
}

fn no_list(subject: &Subject, wanted: &Wanted) -> ApiError {
    let append = wanted.operation == Operation::Append;
    let name = &wanted.name;
    let message = match subject {
        Subject::Topic(_) => format!(
            "Can't {} to key {name} because its type is not LIST.",
            if append { "APPEND" } else { "SUBTRACT" }
        ),
        Subject::Broker | Subject::Brokers => format!(
            "Config value {} is not allowed for config key: {name}",
            if append { "append" } else { "subtract" }
        ),
    };
    ApiError::new(ResponseError::InvalidConfig, message)
}

/// Checks the values that a topic would have now: of a list that somebody else changes at the same time every word was checked by whoever
/// wanted it.
fn check_topic(change: &ConfigChange, before: &Overrides) -> Result<(), ApiError> {
    let after = change.apply_to(before);
    for name in change.values.keys() {
        if let Some(value) = after.get(name) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: impl Into<String>, operation: Operation, value: Option<&str>) -> Wanted {
        Wanted { name: name.into(), operation, value: value.map(str::to_owned) }
    }

    #[test]
    fn a_change_names_each_configuration_once_and_no_more_than_there_are() {
        let message =
            |wanted: &[Wanted]| check_shape(wanted).expect_err("refused").message.expect("a message");
        let set = |name: &str| wanted(name, Operation::Set, Some("1"));
        assert!(message(&[set("a"), set("b"), set("a")]).contains("duplicate"));
        let nulls = [wanted("a", Operation::Set, None), wanted("b", Operation::Append, None), set("c")];
        assert!(message(&nulls).ends_with("a, b"));
        let many: Vec<_> = (0..=MAX_WANTED).map(|number| set(&number.to_string())).collect();
        assert!(message(&many).contains("1001 configurations"));
        check_shape(&many[1..]).expect("as many as may be");
        check_shape(&[wanted("a", Operation::Delete, None)]).expect("what goes needs no value");
    }
}
