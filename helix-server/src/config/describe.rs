//! What DescribeConfigs tells: every configuration with its value, where that comes from, and what it would be otherwise.

use super::BrokerConfig;
use super::kind::ConfigKind;
use super::live::{Altered, LiveConfig, Overrides, Shown, find, shown};
use super::topic::{DefaultValue, TOPIC_PROPERTIES, TopicProperty};

/// Where a value comes from, with the numbers by which DescribeConfigs tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    /// The topic's own.
    DynamicTopic = 1,
    /// Altered for this broker.
    DynamicBroker = 2,
    /// Altered for all brokers.
    DynamicDefaultBroker = 3,
    /// Given when the node was started.
    StaticBroker = 4,
    /// Nobody said anything.
    Default = 5,
}

/// One configuration as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: &'static str,
    /// The value in force.
    pub value: Option<String>,
    /// Its type.
    pub kind: ConfigKind,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it can only be given when the node starts.
    pub read_only: bool,
    /// What it does.
    pub doc: &'static str,
    /// All values that were given, the one in force first.
    pub synonyms: Vec<ConfigSynonym>,
}

/// A value that would be in force if those in front of it were not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// Name of the configuration that it was given by.
    pub name: &'static str,
    /// The value.
    pub value: String,
    /// Where it comes from.
    pub source: ConfigSource,
}

/// The configuration of a topic with these overrides, on a broker of which `altered` was altered.
pub fn topic(live: &LiveConfig, own: &Overrides, altered: Altered<'_>) -> Vec<ConfigEntry> {
    let config = live.under(altered);
    TOPIC_PROPERTIES.iter().map(|property| topic_entry(live, &config, property, own, altered)).collect()
}

fn topic_entry(
    live: &LiveConfig,
    config: &BrokerConfig,
    property: &TopicProperty,
    own: &Overrides,
    altered: Altered<'_>,
) -> ConfigEntry {
    let default = match property.default {
        DefaultValue::Broker("log.retention.ms") => Some(config.retention_ms().to_string()),
        DefaultValue::Broker(name) => find(name).and_then(|shown| live.value(config, shown)),
        DefaultValue::Literal { value, .. } => {
            Some(config.topic_defaults.get(property).unwrap_or(value).to_owned())
        }
    };
    let own = own.get(property.name);
    let given = own.map(|value| ConfigSynonym {
        name: property.name,
        value: value.clone(),
        source: ConfigSource::DynamicTopic,
    });
    let of_broker = match property.default {
        DefaultValue::Broker(name) => Some(name),
        DefaultValue::Literal { brokers, .. } => brokers.name(),
    };
    let of_broker = of_broker.into_iter().flat_map(|name| broker_synonyms(live, name, altered));
    let synonyms: Vec<_> = given.into_iter().chain(of_broker).collect();
    ConfigEntry {
        name: property.name,
        value: own.map(|value| property.shown(value)).or(default),
        kind: property.kind,
        source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
        read_only: false,
        doc: property.doc,
        synonyms,
    }
}

/// The configuration of this broker.
pub fn broker(live: &LiveConfig, altered: Altered<'_>) -> Vec<ConfigEntry> {
    let config = live.under(altered);
    let entry = |shown: Shown| {
        let synonyms = broker_synonyms(live, shown.name(), altered);
        ConfigEntry {
            name: shown.name(),
            value: live.value(&config, shown),
            kind: shown.kind(),
            source: synonyms.first().map_or(ConfigSource::Default, |first| first.source),
            read_only: !shown.is_dynamic(),
            doc: shown.doc(),
            synonyms,
        }
    };
    shown().map(entry).collect()
}

/// What was altered for all brokers.
pub fn all_brokers(everywhere: &Overrides) -> Vec<ConfigEntry> {
    let source = ConfigSource::DynamicDefaultBroker;
    let altered = everywhere.iter().filter_map(|(name, value)| Some((find(name)?, value)));
    altered
        .map(|(shown, value)| ConfigEntry {
            name: shown.name(),
            value: Some(value.clone()),
            kind: shown.kind(),
            source,
            read_only: !shown.is_dynamic(),
            doc: shown.doc(),
            synonyms: vec![ConfigSynonym { name: shown.name(), value: value.clone(), source }],
        })
        .collect()
}

/// As in Kafka, a value that was given by another name is told only behind one that was given by this name.
fn broker_synonyms(live: &LiveConfig, name: &'static str, altered: Altered<'_>) -> Vec<ConfigSynonym> {
    use ConfigSource::{Default, DynamicBroker, DynamicDefaultBroker, StaticBroker};
    let mut found = Vec::new();
    let names = Shown::synonyms(name);
    for source in [DynamicBroker, DynamicDefaultBroker, StaticBroker, Default] {
        for name in &names {
            let value = match source {
                DynamicBroker => altered.here.get(*name).cloned(),
                DynamicDefaultBroker => altered.everywhere.get(*name).cloned(),
                StaticBroker => find(name).and_then(|shown| live.given_value(shown)),
                _ => find(name).and_then(LiveConfig::default_value),
            };
            found.extend(value.map(|value| ConfigSynonym { name, value, source }));
        }
    }
    found.into_iter().skip_while(|synonym| synonym.name != name).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Given, Source, resolve};

    fn live(values: &[(&str, &str)]) -> LiveConfig {
        let given = |(name, value): &(&str, &str)| Given {
            source: Source::Set,
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        LiveConfig::new(Arc::new(resolve(values.iter().map(given).collect()).unwrap()))
    }

    fn one(name: &str, value: &str) -> Overrides {
        [(name.to_owned(), value.to_owned())].into()
    }

    fn shown_as(entry: &ConfigEntry) -> String {
        let value = entry.value.as_deref().unwrap_or("null");
        let synonyms = entry.synonyms.iter().map(|s| format!("{}={}:{:?}", s.name, s.value, s.source));
        format!("{value} {:?} {}", entry.source, synonyms.collect::<Vec<_>>().join(","))
    }

    fn topic_shown(live: &LiveConfig, name: &str, own: &Overrides, altered: Altered<'_>) -> String {
        shown_as(topic(live, own, altered).iter().find(|entry| entry.name == name).unwrap())
    }

    // Each of these is what Apache Kafka 4.1 says in the same situation. What was altered is told before it is in force.
    #[test]
    fn a_topic_tells_where_its_values_come_from() {
        let (none, live) = (Overrides::new(), live(&[("log.retention.hours", "100")]));
        let untouched = Altered { everywhere: &none, here: &none };
        assert_eq!(
            topic_shown(&live, "cleanup.policy", &none, untouched),
            "delete Default log.cleanup.policy=delete:Default"
        );
        assert_eq!(topic_shown(&live, "segment.ms", &none, untouched), "604800000 Default ");
        assert_eq!(topic_shown(&live, "retention.ms", &none, untouched), "360000000 Default ");
        let live = self::live(&[("log.retention.hours", "100"), ("log.roll.ms", "60000")]);
        assert_eq!(
            topic_shown(&live, "segment.ms", &none, untouched),
            "60000 StaticBroker log.roll.ms=60000:StaticBroker"
        );
        let own = one("retention.ms", "12345");
        assert_eq!(
            topic_shown(&live, "retention.ms", &own, untouched),
            "12345 DynamicTopic retention.ms=12345:DynamicTopic"
        );
        let everywhere = one("log.retention.ms", "777777");
        let altered = Altered { everywhere: &everywhere, here: &none };
        assert_eq!(
            topic_shown(&live, "retention.ms", &own, altered),
            "12345 DynamicTopic retention.ms=12345:DynamicTopic,log.retention.ms=777777:DynamicDefaultBroker,\
             log.retention.hours=100:StaticBroker,log.retention.hours=168:Default"
        );
        assert!(
            topic_shown(&live, "retention.ms", &none, altered).starts_with("777777 DynamicDefaultBroker")
        );
    }

    #[test]
    fn a_broker_tells_where_its_values_come_from() {
        let (none, live) = (Overrides::new(), live(&[("log.retention.hours", "100"), ("node-id", "7")]));
        let here = one("message.max.bytes", "999999");
        let altered = Altered { everywhere: &none, here: &here };
        let all = broker(&live, altered);
        let told = |name: &str| {
            let entry = all.iter().find(|entry| entry.name == name).unwrap();
            format!("{} {}", shown_as(entry), if entry.read_only { "read-only" } else { "dynamic" })
        };
        assert_eq!(
            told("message.max.bytes"),
            "999999 DynamicBroker message.max.bytes=999999:DynamicBroker,message.max.bytes=1048588:Default dynamic"
        );
        assert_eq!(
            told("log.retention.hours"),
            "100 StaticBroker log.retention.hours=100:StaticBroker,log.retention.hours=168:Default read-only"
        );
        assert_eq!(told("log.retention.ms"), "null Default  dynamic");
        assert_eq!(told("node.id"), "7 StaticBroker node.id=7:StaticBroker read-only");
        assert_eq!(told("broker.rack"), "null Default  read-only");
    }

    #[test]
    fn only_what_was_altered_for_all_brokers_is_told_of_them() {
        let everywhere = one("log.retention.ms", "88888");
        let entries = all_brokers(&everywhere);
        assert_eq!(entries.len(), 1);
        assert_eq!(
            shown_as(&entries[0]),
            "88888 DynamicDefaultBroker log.retention.ms=88888:DynamicDefaultBroker"
        );
    }
}
