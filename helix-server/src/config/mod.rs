//! What the operator can set, from where, and what is in force.
//!
//! Settings (who a node is and where it listens) are flags; properties (how it behaves) are set with `--set`. A
//! configuration file holds both. Where a value is given more than once, flags win over `--set`, `--set` over the file.

mod address;
pub mod describe;
#[cfg(test)]
mod docs;
mod file;
pub mod kind;
pub mod live;
mod properties;
mod settings;
mod suggest;
pub mod topic;
mod topic_defaults;
mod topic_table;
mod value;

use std::collections::BTreeSet;
use std::path::PathBuf;

use thiserror::Error;

pub use address::{AddressError, HostPort, Peer, parse_peers};
pub use properties::{BrokerConfig, PROPERTIES, Property};
pub use settings::{SETTINGS, ServerConfig, Setting, WriteDurability};
use topic::TopicConfigError;
pub use value::{CompressionType, GzipLevel, ReplicaSelector, TimestampType};

/// Where a value was given, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The file of `--config`.
    File,
    /// `--set name=value`.
    Set,
    /// A flag of its own.
    Flag,
}

/// One value that somebody gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Where it comes from.
    pub source: Source,
    /// Name of a property or setting.
    pub name: String,
    /// The value as text.
    pub value: String,
}

impl Given {
    /// How the operator wrote it, for messages.
    fn place(&self) -> String {
        match self.source {
            Source::File => format!("{} in the configuration file", self.name),
            Source::Set => format!("--set {}", self.name),
            Source::Flag => format!("--{}", self.name),
        }
    }
}

/// Why the server does not start with this configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// Nobody knows that name.
    #[error("{place}: there is no such setting; the nearest one is {nearest}")]
    UnknownName {
        /// Where it was given.
        place: String,
        /// The most similar valid name.
        nearest: &'static str,
    },
    /// The name is Kafka's for something that is set differently here.
    #[error("{place}: {advice}")]
    KafkaName {
        /// Where it was given.
        place: String,
        /// What to use.
        advice: &'static str,
    },
    /// The value does not fit.
    #[error("{place}: {value:?} does not fit: {expected}")]
    BadValue {
        /// Where it was given.
        place: String,
        /// The value as written.
        value: String,
        /// What would fit.
        expected: String,
    },
    /// `--set` without `=`.
    #[error("--set {text}: write it as name=value, for instance --set num.partitions=3")]
    NotAnAssignment {
        /// What was written.
        text: String,
    },
    /// The file cannot be read.
    #[error("the configuration file {} can't be read: {source}", path.display())]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("the configuration file {} is not valid TOML: {reason}", path.display())]
    FileSyntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line.
        reason: String,
    },
    /// A value in the file that is neither text, number nor true or false.
    #[error("{name} in the configuration file must be text, a number, true or false, not {found}")]
    FileType {
        /// The full name.
        name: String,
        /// What it is.
        found: &'static str,
    },
    /// Values that do not fit together.
    #[error("{0}")]
    Contradiction(String),
}

/// Puts together what was given; later entries of the same source win over earlier ones.
///
/// # Errors
/// When a name is unknown, a value does not fit, or the values contradict each other.
pub fn resolve(mut given: Vec<Given>) -> Result<ServerConfig, ConfigError> {
    given.sort_by_key(|given| given.source); // stable: order within a source is kept
    let mut broker = BrokerConfig::default();
    let mut raw = settings::RawSettings::default();
    let mut names = BTreeSet::new();
    for given in &given {
        let expected =
            |expected| ConfigError::BadValue { place: given.place(), value: given.value.clone(), expected };
        if let Some(property) = properties::find(&given.name) {
            property.set(&mut broker, &given.value).map_err(expected)?;
            names.insert(property.name);
        } else if let Some(setting) = settings::find(&given.name) {
            (setting.set)(&mut raw, &given.value).map_err(expected)?;
            names.insert(setting.name);
        } else if let Some((name, property)) = topic_defaults::find(&given.name) {
            broker.topic_defaults.set(property, &given.value).map_err(|error| of_topics(given, error))?;
            names.insert(name);
        } else {
            return Err(unknown(given));
        }
    }
    broker.check().map_err(ConfigError::Contradiction)?;
    raw.resolve(broker, names)
}

/// Reads `name=value` of `--set`.
///
/// # Errors
/// When there is no `=`.
pub fn parse_assignment(text: &str) -> Result<Given, ConfigError> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| ConfigError::NotAnAssignment { text: text.to_owned() })?;
    Ok(Given { source: Source::Set, name: name.trim().to_owned(), value: value.trim().to_owned() })
}

/// Reads the configuration file.
///
/// # Errors
/// When it cannot be read or is not valid.
pub fn read_file(path: &std::path::Path) -> Result<Vec<Given>, ConfigError> {
    file::read(path)
}

/// Why a default for topics is refused.
fn of_topics(given: &Given, error: TopicConfigError) -> ConfigError {
    let place = given.place();
    match error {
        TopicConfigError::BadValue { value, reason, .. } => {
            ConfigError::BadValue { place, value, expected: reason }
        }
        TopicConfigError::Unsupported { advice, .. } => {
            ConfigError::KafkaName { place, advice: suggest::kafka_advice(&given.name).unwrap_or(advice) }
        }
        TopicConfigError::UnknownName { nearest, .. } => ConfigError::UnknownName { place, nearest },
    }
}

fn unknown(given: &Given) -> ConfigError {
    let place = given.place();
    if let Some(advice) = suggest::kafka_advice(&given.name) {
        return ConfigError::KafkaName { place, advice };
    }
    let names =
        PROPERTIES.iter().map(|property| property.name).chain(SETTINGS.iter().map(|setting| setting.name));
    ConfigError::UnknownName { place, nearest: suggest::nearest(&given.name, names) }
}

#[cfg(test)]
mod tests;
