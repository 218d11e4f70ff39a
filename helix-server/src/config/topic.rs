//! What can be configured per topic. A name that Kafka knows but Helix does not act on is refused, not ignored, unless its value
//! is what Helix does anyway.

use std::collections::BTreeMap;

use thiserror::Error;

use super::kind::{ConfigKind, Parsed, Valid, parse};
pub use super::topic_defaults::OnBrokers;
pub use super::topic_table::TOPIC_PROPERTIES;
use super::value::{CompressionType, GzipLevel, TimestampType};
use super::{BrokerConfig, WriteDurability, suggest};
use crate::broker::batch::{StoredCompression, TimestampRule};

/// `segment.bytes` of a topic that says nothing.
const DEFAULT_SEGMENT_BYTES: usize = 1 << 30;

/// The configuration in force for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `max.message.bytes`: largest record batch taken.
    pub max_message_bytes: usize,
    /// `segment.bytes`: no record batch may be larger than that either.
    pub segment_bytes: usize,
    /// `min.insync.replicas`: fewest replicas in sync for a write to be taken.
    pub min_insync_replicas: u32,
    /// `retention.ms`: how long records are kept; -1 is for ever.
    pub retention_ms: i64,
    /// `retention.bytes`: how large one partition may grow; -1 is no limit.
    pub retention_bytes: i64,
    /// `cleanup.policy`: whether old records are deleted; of what is only compacted they are not, not even on request.
    pub deletes: bool,
    /// `cleanup.policy`: whether only the newest record of each key matters, so that each has to have one.
    pub compacts: bool,
    /// `message.timestamp.type` with its limits.
    pub timestamps: TimestampRule,
    /// `compression.type` with its levels.
    pub compression: StoredCompression,
    /// `helix.write.durability`; `None` is what the node was started with.
    pub write_durability: Option<WriteDurability>,
}

/// A topic configuration that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopicConfigError {
    /// Nobody knows that name.
    #[error("Unknown topic config name: {name}; the nearest one is {nearest}")]
    UnknownName {
        /// What the client wrote.
        name: String,
        /// The most similar valid name.
        nearest: &'static str,
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
        /// What is wrong with it, in Kafka's words.
        reason: String,
    },
}

/// One configuration that a topic can have.
#[derive(Debug)]
pub struct TopicProperty {
    /// Its name, which is Kafka's where Kafka has one.
    pub name: &'static str,
    /// Its type.
    pub kind: ConfigKind,
    /// What Kafka takes for it.
    pub valid: Valid,
    /// What is in force for a topic that says nothing.
    pub default: DefaultValue,
    /// What it does, in Markdown.
    pub doc: &'static str,
    /// What Helix makes of it.
    pub effect: Effect,
}

/// Where a topic's default comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// The broker's property of that name.
    Broker(&'static str),
    /// This value, unless the broker was given another one for topics.
    Literal {
        /// The value.
        value: &'static str,
        /// What a broker is given it by.
        brokers: OnBrokers,
    },
}

/// What Helix makes of a configuration.
#[derive(Debug, Clone, Copy)]
pub enum Effect {
    /// It acts on the number.
    Number(fn(&mut Draft, i64)),
    /// It acts on the word.
    Text(fn(&mut Draft, &str)),
    /// It acts on the words.
    List(fn(&mut Draft, &[String])),
    /// Any valid value is kept and shown, because what it asks for holds without it. This is why.
    NoneNeeded(&'static str),
    /// It does what the default says, and nothing else. This is what to do instead.
    OnlyDefault(&'static str),
}

/// Values while they are put together: some rules are made of several of them.
#[derive(Debug)]
pub struct Draft {
    pub(super) config: TopicConfig,
    /// `cleanup.policy` says that old records go.
    pub(super) deletes: bool,
    pub(super) timestamp_type: TimestampType,
    pub(super) before_max_ms: i64,
    pub(super) after_max_ms: i64,
    pub(super) compression_type: CompressionType,
    pub(super) gzip_level: GzipLevel,
    pub(super) zstd_level: i32,
}

/// The topic configuration of that name.
pub fn find(name: &str) -> Option<&'static TopicProperty> {
    TOPIC_PROPERTIES.iter().find(|property| property.name == name)
}

/// Checks one configuration that a client wants a topic to have.
///
/// # Errors
/// When the name is unknown or not acted on, or the value does not fit. Clients get it as `INVALID_CONFIG`.
pub fn check(name: &str, value: &str) -> Result<(), TopicConfigError> {
    apply(&mut Draft::new(&BrokerConfig::default()), name, value)
}

fn apply(draft: &mut Draft, name: &str, value: &str) -> Result<(), TopicConfigError> {
    let Some(property) = find(name) else {
        let nearest = suggest::nearest(name, TOPIC_PROPERTIES.iter().map(|property| property.name));
        return Err(TopicConfigError::UnknownName { name: name.to_owned(), nearest });
    };
    property.apply(draft, value)
}

impl TopicProperty {
    /// Checks a value that a client wants.
    ///
    /// # Errors
    /// When it does not fit, or is not acted on.
    pub fn check(&self, value: &str) -> Result<(), TopicConfigError> {
        self.apply(&mut Draft::new(&BrokerConfig::default()), value)
    }

    /// A value that was found valid, as it is shown.
    pub(super) fn shown(&self, value: &str) -> String {
        parse(self.kind, self.valid, value).map_or_else(|_| value.to_owned(), |parsed| parsed.to_string())
    }

    /// What to do instead of changing what Helix does not change; empty for what it does.
    pub fn advice(&self) -> &'static str {
        if let Effect::OnlyDefault(advice) = self.effect { advice } else { "" }
    }

    /// Why what it asks for holds with every value; empty for what a value changes, and for what cannot be changed.
    pub fn holds_because(&self) -> &'static str {
        if let Effect::NoneNeeded(why) = self.effect { why } else { "" }
    }

    fn apply(&self, draft: &mut Draft, value: &str) -> Result<(), TopicConfigError> {
        let (name, shown) = (self.name.to_owned(), value.to_owned());
        let parsed = parse(self.kind, self.valid, value).map_err(|reason| TopicConfigError::BadValue {
            name: name.clone(),
            value: shown.clone(),
            reason,
        })?;
        match (self.effect, &parsed) {
            (Effect::Number(set), Parsed::Number(number)) => set(draft, *number),
            (Effect::Text(set), Parsed::Text(text)) => set(draft, text),
            (Effect::List(set), Parsed::List(words)) => set(draft, words),
            (Effect::OnlyDefault(advice), _) if !self.is_default(&parsed) => {
                return Err(TopicConfigError::Unsupported { name, value: shown, advice });
            }
            _ => {}
        }
        Ok(())
    }

    fn is_default(&self, parsed: &Parsed) -> bool {
        let DefaultValue::Literal { value, .. } = self.default else { return false };
        parse(self.kind, self.valid, value).as_ref() == Ok(parsed)
    }
}

impl Draft {
    fn new(broker: &BrokerConfig) -> Self {
        Self {
            config: TopicConfig {
                max_message_bytes: broker.message_max_bytes,
                segment_bytes: DEFAULT_SEGMENT_BYTES,
                min_insync_replicas: broker.min_insync_replicas,
                retention_ms: broker.retention_ms(),
                retention_bytes: broker.log_retention_bytes,
                deletes: true,
                compacts: false,
                timestamps: TimestampRule::LogAppendTime,
                compression: StoredCompression::AsProduced,
                write_durability: None,
            },
            deletes: true,
            compression_type: broker.compression_type,
            gzip_level: broker.compression_gzip_level,
            zstd_level: broker.compression_zstd_level,
            timestamp_type: broker.log_message_timestamp_type,
            before_max_ms: broker.log_message_timestamp_before_max_ms,
            after_max_ms: broker.log_message_timestamp_after_max_ms,
        }
    }

    fn finish(self) -> TopicConfig {
        let timestamps = match self.timestamp_type {
            TimestampType::CreateTime => TimestampRule::CreateTime {
                before_max_ms: self.before_max_ms,
                after_max_ms: self.after_max_ms,
            },
            TimestampType::LogAppendTime => TimestampRule::LogAppendTime,
        };
        let compression = match self.compression_type {
            CompressionType::Producer => StoredCompression::AsProduced,
            CompressionType::Uncompressed => StoredCompression::Uncompressed,
            CompressionType::Gzip => StoredCompression::Gzip(self.gzip_level.level()),
            CompressionType::Snappy => StoredCompression::Snappy,
            CompressionType::Lz4 => StoredCompression::Lz4,
            CompressionType::Zstd => StoredCompression::Zstd(self.zstd_level),
        };
        let (retention_ms, retention_bytes) = match self.deletes {
            true => (self.config.retention_ms, self.config.retention_bytes),
            false => (-1, -1),
        };
        let deletes = self.deletes;
        TopicConfig { timestamps, compression, retention_ms, retention_bytes, deletes, ..self.config }
    }
}

impl TopicConfig {
    /// A topic's own configuration over the broker's defaults. What was stored by a release that knew more, and is
    /// not valid here, is passed over: it was checked when it was stored.
    pub fn resolve(own: &BTreeMap<String, String>, broker: &BrokerConfig) -> Self {
        let mut draft = Draft::new(broker);
        let defaults = broker.topic_defaults.iter();
        for (name, value) in defaults.chain(own.iter().map(|(name, value)| (name.as_str(), value.as_str()))) {
            if let Err(error) = apply(&mut draft, name, value) {
                tracing::warn!(%error, "a stored topic configuration is not in force");
            }
        }
        draft.finish()
    }

    /// The same, but nothing is removed.
    pub fn kept_whole(self) -> Self {
        Self { deletes: false, retention_ms: -1, retention_bytes: -1, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_starts_from_the_brokers_defaults() {
        let broker =
            BrokerConfig { log_retention_hours: 2, min_insync_replicas: 2, ..BrokerConfig::default() };
        let config = TopicConfig::resolve(&BTreeMap::new(), &broker);
        assert_eq!((config.retention_ms, config.min_insync_replicas), (7_200_000, 2));
        let limits = TimestampRule::CreateTime { before_max_ms: i64::MAX, after_max_ms: 3_600_000 };
        assert_eq!(config.timestamps, limits);
    }

    #[test]
    fn a_topics_own_configuration_wins() {
        let own = [
            ("retention.ms", "5"),
            ("retention.bytes", "6"),
            ("max.message.bytes", "7"),
            ("segment.bytes", "2000000"),
            ("min.insync.replicas", "3"),
            ("message.timestamp.type", "LogAppendTime"),
            ("compression.type", "zstd"),
            ("compression.zstd.level", "19"),
            ("helix.write.durability", "fsync"),
            ("from.a.newer.release", "8"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let config = TopicConfig::resolve(&own, &BrokerConfig::default());
        assert_eq!(
            config,
            TopicConfig {
                max_message_bytes: 7,
                segment_bytes: 2_000_000,
                min_insync_replicas: 3,
                retention_ms: 5,
                retention_bytes: 6,
                deletes: true,
                compacts: false,
                timestamps: TimestampRule::LogAppendTime,
                compression: StoredCompression::Zstd(19),
                write_durability: Some(WriteDurability::Fsync),
            }
        );
    }

    #[test]
    fn a_broker_gives_a_default_to_topics_that_say_nothing() {
        let mut broker = BrokerConfig::default();
        for (name, value) in [("cleanup.policy", "compact"), ("segment.bytes", " 2000000 ")] {
            broker.topic_defaults.set(find(name).expect("a name"), value).expect("valid");
        }
        let config = TopicConfig::resolve(&BTreeMap::new(), &broker);
        assert_eq!((config.deletes, config.segment_bytes), (false, 2_000_000));
        let own = [("cleanup.policy".to_owned(), "delete".to_owned())].into();
        let config = TopicConfig::resolve(&own, &broker);
        assert_eq!((config.deletes, config.segment_bytes), (true, 2_000_000));
    }

    #[test]
    fn what_is_compacted_is_not_deleted() {
        let resolved = |policy: &str| {
            let own = [("cleanup.policy", policy), ("retention.ms", "5"), ("retention.bytes", "6")];
            let own = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let config = TopicConfig::resolve(&own, &BrokerConfig::default());
            (config.retention_ms, config.retention_bytes, config.deletes, config.compacts)
        };
        assert_eq!(resolved("compact"), (-1, -1, false, true));
        assert_eq!(resolved("delete"), (5, 6, true, false));
        assert_eq!(resolved("compact,delete"), (5, 6, true, true));
    }

    #[test]
    fn what_would_have_to_be_acted_on_and_is_not_is_refused() {
        let refusal = |name, value| check(name, value).expect_err("refused").to_string();
        assert_eq!(
            refusal("retention.mss", "5"),
            "Unknown topic config name: retention.mss; the nearest one is retention.ms"
        );
        assert_eq!(
            refusal("remote.storage.enable", "true"),
            format!(
                "remote.storage.enable=true is not supported: {}",
                find("remote.storage.enable").expect("a name of Kafka's").advice()
            )
        );
        assert_eq!(
            refusal("retention.ms", "-2"),
            "Invalid value -2 for configuration retention.ms: Value must be at least -1"
        );
        assert!(refusal("flush.messages", "1").contains("helix.write.durability=fsync"));
        check("cleanup.policy", " delete ").expect("what Helix does");
        assert!(refusal("compression.lz4.level", "12").contains("one level"));
        assert!(refusal("compression.gzip.level", "0").contains("between 1 and 9 or equal to -1"));
    }

    #[test]
    fn what_holds_with_every_value_takes_every_valid_value() {
        check("min.cleanable.dirty.ratio", "0.1").expect("valid");
        check("segment.ms", "3600000").expect("valid");
        let refusal = check("segment.ms", "0").expect_err("refused").to_string();
        assert_eq!(refusal, "Invalid value 0 for configuration segment.ms: Value must be at least 1");
        assert!(check("preallocate", "perhaps").is_err());
    }

    #[test]
    fn every_literal_default_is_valid_and_accepted() {
        for property in TOPIC_PROPERTIES {
            if let DefaultValue::Literal { value, .. } = property.default {
                check(property.name, value).unwrap_or_else(|error| panic!("{}: {error}", property.name));
            }
        }
    }

    #[test]
    fn the_default_segment_size_is_the_one_shown() {
        let own = [("segment.bytes".to_owned(), "1073741824".to_owned())].into();
        let broker = BrokerConfig::default();
        assert_eq!(TopicConfig::resolve(&own, &broker), TopicConfig::resolve(&BTreeMap::new(), &broker));
        assert!(find("segment.bytes").unwrap().is_default(&Parsed::Number(1_073_741_824)));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = TOPIC_PROPERTIES.iter().map(|property| property.name).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
