//! The broker's configuration in force: what the node was started with, under what was altered since, for all brokers or for this
//! one (KIP-226).

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use thiserror::Error;

use super::kind::ConfigKind;
use super::topic::{DefaultValue, OnBrokers, TOPIC_PROPERTIES, TopicConfigError, TopicProperty};
use super::{BrokerConfig, PROPERTIES, Property, ServerConfig, suggest};

/// Configurations that were altered, by name.
pub type Overrides = BTreeMap<String, String>;

/// The names of one configuration in three units, in the order in which they win.
const RETENTION_TIMES: [&str; 3] = ["log.retention.ms", "log.retention.minutes", "log.retention.hours"];

/// What was altered of the brokers' configuration since they were started.
#[derive(Debug, Clone, Copy)]
pub struct Altered<'a> {
    /// For all brokers.
    pub everywhere: &'a Overrides,
    /// For this one; wins.
    pub here: &'a Overrides,
}

/// The configuration of this node, which follows what is altered.
#[derive(Debug)]
pub struct LiveConfig {
    started: Arc<ServerConfig>,
    in_force: ArcSwap<BrokerConfig>,
}

/// A change of a broker's configuration that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BrokerConfigError {
    /// Nobody knows that name.
    #[error("Unknown broker config name: {name}; the nearest one is {nearest}")]
    UnknownName {
        /// What the client wrote.
        name: String,
        /// The most similar valid name.
        nearest: &'static str,
    },
    /// It is set when the node starts.
    #[error("Cannot update these configs dynamically: Set({name}): restart the node with another value")]
    ReadOnly {
        /// What the client wrote.
        name: String,
    },
    /// Kafka would do it, Helix does not.
    #[error("{name}={value} is not supported: {advice}")]
    Unsupported {
        /// Name of the configuration.
        name: String,
        /// What the client wrote.
        value: String,
        /// What to do instead.
        advice: &'static str,
    },
    /// The value does not fit.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    BadValue {
        /// Name of the configuration.
        name: String,
        /// What the client wrote.
        value: String,
        /// What would fit.
        reason: String,
    },
    /// The values do not fit together.
    #[error("{0}")]
    Contradiction(String),
}

/// A broker configuration that is shown to clients.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown {
    /// One of the properties.
    Property(&'static Property),
    /// A setting, under Kafka's name.
    Setting(&'static ShownSetting),
    /// The default of a topics' configuration that has no property of its own, with what it is if nobody says anything.
    TopicDefault { name: &'static str, value: Option<&'static str>, topic: &'static TopicProperty },
}

/// A setting as Kafka's clients know it.
#[derive(Debug)]
pub(super) struct ShownSetting {
    pub(super) name: &'static str,
    pub(super) kind: ConfigKind,
    pub(super) doc: &'static str,
    /// The flag that sets it.
    flag: &'static str,
    value: fn(&ServerConfig) -> Option<String>,
}

static SHOWN_SETTINGS: &[ShownSetting] = &[
    ShownSetting {
        name: "advertised.listeners",
        kind: ConfigKind::String,
        doc: "The address that clients are told to connect to (`--advertise`).",
        flag: "advertise",
        value: |config| Some(format!("PLAINTEXT://{}", config.advertise)),
    },
    ShownSetting {
        name: "broker.id",
        kind: ConfigKind::Int,
        doc: "Number of this node (`--node-id`).",
        flag: "node-id",
        value: |config| Some(config.node_id.to_string()),
    },
    ShownSetting {
        name: "broker.rack",
        kind: ConfigKind::String,
        doc: "The rack or zone of this node (`--rack`).",
        flag: "rack",
        value: |config| config.rack.clone(),
    },
    ShownSetting {
        name: "listeners",
        kind: ConfigKind::String,
        doc: "Where Kafka clients connect (`--listen`).",
        flag: "listen",
        value: |config| Some(format!("PLAINTEXT://{}", config.listen)),
    },
    ShownSetting {
        name: "log.dirs",
        kind: ConfigKind::String,
        doc: "Where everything is stored (`--data-dir`).",
        flag: "data-dir",
        value: |config| Some(config.data_dir.display().to_string()),
    },
    ShownSetting {
        name: "node.id",
        kind: ConfigKind::Int,
        doc: "Number of this node (`--node-id`).",
        flag: "node-id",
        value: |config| Some(config.node_id.to_string()),
    },
    ShownSetting {
        name: "helix.write.durability",
        kind: ConfigKind::String,
        doc: "What an acknowledgement of `acks=all` means (`--write-durability`). Topics can override it.",
        flag: "write-durability",
        value: |config| Some(config.write_durability.name().to_owned()),
    },
];

/// Every broker configuration that is shown.
pub(super) fn shown() -> impl Iterator<Item = Shown> {
    let of_topics = TOPIC_PROPERTIES.iter().filter_map(|topic| match topic.default {
        DefaultValue::Literal { value, brokers: OnBrokers::Same(name) } => {
            Some(Shown::TopicDefault { name, value: Some(value), topic })
        }
        DefaultValue::Literal { brokers: OnBrokers::NotSet(name), .. } => {
            Some(Shown::TopicDefault { name, value: None, topic })
        }
        DefaultValue::Literal { brokers: OnBrokers::Nothing, .. } | DefaultValue::Broker(_) => None,
    });
    PROPERTIES.iter().map(Shown::Property).chain(SHOWN_SETTINGS.iter().map(Shown::Setting)).chain(of_topics)
}

pub(super) fn find(name: &str) -> Option<Shown> {
    shown().find(|shown| shown.name() == name)
}

impl Shown {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Property(property) => property.name,
            Self::Setting(setting) => setting.name,
            Self::TopicDefault { name, .. } => name,
        }
    }

    pub(super) fn kind(self) -> ConfigKind {
        match self {
            Self::Property(property) => property.kind(),
            Self::Setting(setting) => setting.kind,
            Self::TopicDefault { topic, .. } => topic.kind,
        }
    }

    pub(super) fn doc(self) -> &'static str {
        match self {
            Self::Property(property) => property.doc.trim(),
            Self::Setting(setting) => setting.doc,
            Self::TopicDefault { topic, .. } => topic.doc,
        }
    }

    pub(super) fn is_dynamic(self) -> bool {
        match self {
            Self::Property(property) => property.dynamic,
            Self::Setting(_) => false,
            Self::TopicDefault { topic, .. } => topic.advice().is_empty(),
        }
    }

    /// The names under which the same thing can be configured, this one included.
    pub(super) fn synonyms(name: &'static str) -> Vec<&'static str> {
        if RETENTION_TIMES.contains(&name) { RETENTION_TIMES.to_vec() } else { vec![name] }
    }
}

impl LiveConfig {
    /// What the node was started with.
    pub fn new(started: Arc<ServerConfig>) -> Self {
        let in_force = ArcSwap::from_pointee(started.broker.clone());
        Self { started, in_force }
    }

    /// What the node was started with.
    pub fn started(&self) -> &ServerConfig {
        &self.started
    }

    /// What is in force now.
    pub fn get(&self) -> Arc<BrokerConfig> {
        self.in_force.load_full()
    }

    /// Puts what was altered in force. Returns whether that changes anything.
    pub fn alter(&self, altered: Altered<'_>) -> bool {
        let (next, refused) = self.with(altered);
        for (_, error) in refused {
            tracing::warn!(%error, "a stored broker configuration is not in force");
        }
        let changed = *self.in_force.load_full() != next;
        if changed {
            self.in_force.store(Arc::new(next));
        }
        changed
    }

    /// Checks what is to be altered of the names that are new, and that all of it fits together.
    ///
    /// # Errors
    /// When a name is unknown, can't be altered while the node runs, or a value does not fit.
    pub fn check(&self, altered: Altered<'_>, new: impl Fn(&str) -> bool) -> Result<(), BrokerConfigError> {
        let (next, refused) = self.with(altered);
        match refused.into_iter().find(|(name, _)| new(name)) {
            Some((_, refused)) => Err(refused),
            None => next.check().or_else(|reason| {
                // A node may have been started again with what contradicts something altered before. That must not stand in the way
                // of everything else.
                let before = |all: &Overrides| -> Overrides {
                    all.clone().into_iter().filter(|(name, _)| !new(name)).collect()
                };
                let (everywhere, here) = (before(altered.everywhere), before(altered.here));
                match self.under(Altered { everywhere: &everywhere, here: &here }).check() {
                    Ok(()) => Err(BrokerConfigError::Contradiction(reason)),
                    Err(_) => Ok(()),
                }
            }),
        }
    }

    fn with<'a>(&self, altered: Altered<'a>) -> (BrokerConfig, Vec<(&'a str, BrokerConfigError)>) {
        let mut config = self.started.broker.clone();
        let mut refused = Vec::new();
        for (name, value) in altered.everywhere.iter().chain(altered.here) {
            refused.extend(set(&mut config, name, value).err().map(|error| (name.as_str(), error)));
        }
        (config, refused)
    }

    /// What is in force where that was altered: now, or in a moment.
    pub(super) fn under(&self, altered: Altered<'_>) -> BrokerConfig {
        self.with(altered).0
    }

    /// The value of a broker configuration where `config` is in force.
    pub(super) fn value(&self, config: &BrokerConfig, shown: Shown) -> Option<String> {
        match shown {
            Shown::Property(property) => property.value(config),
            Shown::Setting(setting) => (setting.value)(&self.started),
            Shown::TopicDefault { value, topic, .. } => {
                config.topic_defaults.get(topic).or(value).map(str::to_owned)
            }
        }
    }

    /// What the node was started with, if that was said.
    pub(super) fn given_value(&self, shown: Shown) -> Option<String> {
        let given = |name| self.started.given.contains(name);
        match shown {
            Shown::Property(property) if given(property.name) => property.value(&self.started.broker),
            Shown::Setting(setting) if given(setting.flag) => (setting.value)(&self.started),
            Shown::TopicDefault { name, topic, .. } if given(name) => {
                self.started.broker.topic_defaults.get(topic).map(str::to_owned)
            }
            _ => None,
        }
    }

    /// What is in force if nobody says anything.
    pub(super) fn default_value(shown: Shown) -> Option<String> {
        match shown {
            Shown::Property(property) => property.value(&BrokerConfig::default()),
            Shown::Setting(setting) if setting.name == "helix.write.durability" => {
                Some(super::WriteDurability::ReplicationOnly.name().to_owned())
            }
            Shown::Setting(_) => None,
            Shown::TopicDefault { value, .. } => value.map(str::to_owned),
        }
    }
}

fn set(config: &mut BrokerConfig, name: &str, value: &str) -> Result<(), BrokerConfigError> {
    let (name_, value_) = (name.to_owned(), value.to_owned());
    match find(name) {
        Some(Shown::Property(property)) if property.dynamic => property
            .set(config, value.trim())
            .map_err(|reason| BrokerConfigError::BadValue { name: name_, value: value_, reason }),
        Some(Shown::Property(_) | Shown::Setting(_)) => Err(BrokerConfigError::ReadOnly { name: name_ }),
        Some(Shown::TopicDefault { topic, .. }) => {
            config.topic_defaults.set(topic, value).map_err(|error| match error {
                TopicConfigError::Unsupported { value, advice, .. } => {
                    BrokerConfigError::Unsupported { name: name_, value, advice }
                }
                TopicConfigError::BadValue { value, reason, .. } => {
                    BrokerConfigError::BadValue { name: name_, value, reason }
                }
                TopicConfigError::UnknownName { name, nearest } => {
                    BrokerConfigError::UnknownName { name, nearest }
                }
            })
        }
        None => {
            let nearest = suggest::nearest(name, shown().map(Shown::name));
            Err(BrokerConfigError::UnknownName { name: name_, nearest })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::topic::TopicConfig;
    use crate::config::{Given, Source, resolve};

    fn started(values: &[(&str, &str)]) -> LiveConfig {
        let given = |(name, value): &(&str, &str)| Given {
            source: Source::Set,
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        LiveConfig::new(Arc::new(resolve(values.iter().map(given).collect()).unwrap()))
    }

    fn overrides(values: &[(&str, &str)]) -> Overrides {
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_was_altered_wins_and_this_broker_over_all() {
        let live = started(&[("message.max.bytes", "1000"), ("log.retention.hours", "1")]);
        let everywhere = overrides(&[("message.max.bytes", "2000"), ("min.insync.replicas", "2")]);
        let here = overrides(&[("message.max.bytes", "3000"), ("log.retention.ms", "5")]);
        assert!(live.alter(Altered { everywhere: &everywhere, here: &here }));
        let config = live.get();
        assert_eq!((config.message_max_bytes, config.min_insync_replicas), (3000, 2));
        assert_eq!(config.retention_ms(), 5);
        assert!(!live.alter(Altered { everywhere: &everywhere, here: &here }), "nothing new");
        let none = Overrides::new();
        assert!(live.alter(Altered { everywhere: &none, here: &none }));
        assert_eq!((live.get().message_max_bytes, live.get().retention_ms()), (1000, 3_600_000));
    }

    #[test]
    fn what_cannot_be_altered_is_refused() {
        let live = started(&[]);
        let none = Overrides::new();
        let refusal = |name, value| {
            let here = overrides(&[(name, value)]);
            live.check(Altered { everywhere: &none, here: &here }, |_| true).expect_err("refused").to_string()
        };
        assert!(
            refusal("num.partitions", "3")
                .starts_with("Cannot update these configs dynamically: Set(num.partitions)")
        );
        assert!(refusal("node.id", "3").contains("Set(node.id)"));
        assert!(refusal("message.max.byte", "3").contains("nearest one is message.max.bytes"));
        assert!(
            refusal("message.max.bytes", "x")
                .starts_with("Invalid value x for configuration message.max.bytes")
        );
        assert!(refusal("message.max.bytes", "200000000").contains("socket.request.max.bytes"));
        assert_eq!(
            refusal("log.preallocate", "perhaps"),
            "Invalid value perhaps for configuration log.preallocate: Expected value to be either true or false"
        );
        assert!(refusal("log.flush.interval.ms", "1").contains("helix.write.durability=fsync"));
        assert!(refusal("unclean.leader.election.enable", "true").contains("use false"));
        let same = overrides(&[("unclean.leader.election.enable", "false")]);
        live.check(Altered { everywhere: &same, here: &none }, |_| true).expect("what Helix does");
    }

    #[test]
    fn an_old_contradiction_stands_in_nobodys_way() {
        let live = started(&[("socket.request.max.bytes", "50000000")]);
        let none = Overrides::new();
        let old = ("message.max.bytes", "80000000");
        let check = |name: &str, all: &[(&str, &str)]| {
            live.check(Altered { everywhere: &overrides(all), here: &none }, |new| new == name)
        };
        check("max.connections", &[old, ("max.connections", "5000")]).expect("another thing");
        let refusal = check("message.max.bytes", &[old]).expect_err("the contradiction itself");
        assert!(matches!(refusal, BrokerConfigError::Contradiction(_)), "{refusal}");
    }

    #[test]
    fn for_ever_is_said_in_several_ways() {
        let live = started(&[("log.retention.hours", "2147483647")]);
        assert_eq!(live.get().retention_ms(), 2_147_483_647 * 3_600_000);
        let (here, none) = (overrides(&[("log.retention.ms", "9223372036854775807")]), Overrides::new());
        assert!(live.alter(Altered { everywhere: &none, here: &here }));
        assert_eq!(live.get().retention_ms(), i64::MAX);
    }

    #[test]
    fn topics_follow_what_is_altered_for_them_on_brokers() {
        let live = started(&[("log.segment.bytes", "3000000")]);
        let resolved = || {
            let config = TopicConfig::resolve(&Overrides::new(), &live.get());
            (config.deletes, config.segment_bytes)
        };
        assert_eq!(resolved(), (true, 3_000_000));
        let everywhere = overrides(&[("log.cleanup.policy", "compact"), ("log.segment.bytes", "4000000")]);
        let here = overrides(&[("log.segment.bytes", "5000000"), ("log.roll.ms", "1000")]);
        let altered = Altered { everywhere: &everywhere, here: &here };
        live.check(altered, |_| true).expect("all valid");
        assert!(live.alter(altered));
        assert_eq!(resolved(), (false, 5_000_000));
        let none = Overrides::new();
        assert!(live.alter(Altered { everywhere: &none, here: &none }));
        assert_eq!(resolved(), (true, 3_000_000));
    }

    #[test]
    fn names_are_shown_once() {
        let mut names: Vec<_> = shown().map(Shown::name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
