//! What a broker says for topics that do not say it themselves, where that has no property of its own in the broker's table.

use std::collections::BTreeMap;

use super::topic::{DefaultValue, TOPIC_PROPERTIES, TopicConfigError, TopicProperty};

/// Kafka's name on brokers for the default of a topic's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBrokers {
    /// Kafka has none.
    Nothing,
    /// This one, and its default is the topics'.
    Same(&'static str),
    /// This one, and it is not set by default: the topics' default comes from another one, in another unit.
    NotSet(&'static str),
}

impl OnBrokers {
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Same(name) | Self::NotSet(name) => Some(name),
        }
    }
}

/// Values by the topics' names. What is here was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicDefaults(BTreeMap<&'static str, String>);

impl TopicDefaults {
    /// Takes a value for all topics that have none.
    ///
    /// # Errors
    /// As for a topic.
    pub(super) fn set(&mut self, of: &'static TopicProperty, value: &str) -> Result<(), TopicConfigError> {
        of.check(value)?;
        self.0.insert(of.name, of.shown(value));
        Ok(())
    }

    pub(super) fn get(&self, of: &TopicProperty) -> Option<&str> {
        self.0.get(of.name).map(String::as_str)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }
}

/// The topics' configuration whose default has that name on brokers, with that name.
pub(super) fn find(name: &str) -> Option<(&'static str, &'static TopicProperty)> {
    let on_brokers = |property: &TopicProperty| match property.default {
        DefaultValue::Literal { brokers, .. } => brokers.name(),
        DefaultValue::Broker(_) => None,
    };
    let mut all = TOPIC_PROPERTIES.iter().filter_map(|property| Some((on_brokers(property)?, property)));
    all.find(|(known, _)| *known == name)
}
