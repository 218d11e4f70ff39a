//! What can be configured per topic. A name that Kafka knows but Helix does not act on is refused, not ignored.

use std::collections::BTreeMap;

use thiserror::Error;

use super::value::{CompressionType, GzipLevel, TimestampType, Value, read_word};
use super::{BrokerConfig, suggest};
use crate::broker::batch::{StoredCompression, TimestampRule};

/// The configuration in force for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `max.message.bytes`: largest record batch taken.
    pub max_message_bytes: usize,
    /// `min.insync.replicas`: fewest replicas in sync for a write to be taken.
    pub min_insync_replicas: u32,
    /// `retention.ms`: how long records are kept; -1 is for ever.
    pub retention_ms: i64,
    /// `retention.bytes`: how large one partition may grow; -1 is no limit.
    pub retention_bytes: i64,
    /// `message.timestamp.type` with its limits.
    pub timestamps: TimestampRule,
    /// `compression.type` with its level.
    pub compression: StoredCompression,
}

/// A topic configuration that is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TopicConfigError {
    /// Nobody knows that name.
    #[error("there is no topic configuration {name}; the nearest one is {nearest}")]
    UnknownName {
        /// What the client wrote.
        name: String,
        /// The most similar valid name.
        nearest: &'static str,
    },
    /// Kafka knows it, Helix does not act on it.
    #[error("Helix does not support the topic configuration {name}: leave it out")]
    Unsupported {
        /// What the client wrote.
        name: String,
    },
    /// The value does not fit.
    #[error("{value:?} does not fit {name}: {expected}")]
    BadValue {
        /// Name of the configuration.
        name: String,
        /// What the client wrote.
        value: String,
        /// What would fit.
        expected: String,
    },
}

/// One configuration that a topic can have.
#[derive(Debug)]
pub struct TopicProperty {
    /// Its name, which is Kafka's.
    pub name: &'static str,
    /// The broker property that holds its default, or a fixed value.
    pub default: &'static str,
    /// What the documentation calls its type.
    pub type_name: &'static str,
    /// What it does, in Markdown.
    pub doc: &'static str,
    set: fn(&mut Draft, &str) -> Result<(), String>,
}

/// Values while they are put together: the timestamp rule and the compression are made of three of them each.
#[derive(Debug)]
struct Draft {
    config: TopicConfig,
    timestamp_type: TimestampType,
    before_max_ms: i64,
    after_max_ms: i64,
    compression_type: CompressionType,
    gzip_level: GzipLevel,
    zstd_level: i32,
}

/// Every configuration that a topic can have, in the order of the documentation.
pub static TOPIC_PROPERTIES: &[TopicProperty] = &[
    TopicProperty {
        name: "max.message.bytes",
        default: "`message.max.bytes`",
        type_name: "integer, from 1",
        doc: "Largest record batch taken, in bytes, as the client sends it.",
        set: |draft, text| {
            draft.config.max_message_bytes = usize::read(text, Some(&(1..=i64::from(i32::MAX))))?;
            Ok(())
        },
    },
    TopicProperty {
        name: "min.insync.replicas",
        default: "`min.insync.replicas`",
        type_name: "integer, from 1",
        doc: "Fewest replicas in sync for a write to be taken.",
        set: |draft, text| {
            draft.config.min_insync_replicas = u32::read(text, Some(&(1..=1000)))?;
            Ok(())
        },
    },
    TopicProperty {
        name: "retention.ms",
        default: "`log.retention.ms`",
        type_name: "integer, from -1",
        doc: "How long records are kept, in milliseconds; `-1` is for ever.",
        set: |draft, text| {
            draft.config.retention_ms = i64::read(text, Some(&(-1..=i64::MAX)))?;
            Ok(())
        },
    },
    TopicProperty {
        name: "retention.bytes",
        default: "`log.retention.bytes`",
        type_name: "integer, from -1",
        doc: "How large one partition may grow before its oldest records are removed; `-1` is no limit.",
        set: |draft, text| {
            draft.config.retention_bytes = i64::read(text, Some(&(-1..=i64::MAX)))?;
            Ok(())
        },
    },
    TopicProperty {
        name: "message.timestamp.type",
        default: "`log.message.timestamp.type`",
        type_name: TimestampType::TYPE,
        doc: "Whose timestamps records keep.",
        set: |draft, text| {
            draft.timestamp_type = TimestampType::read(text, None)?;
            Ok(())
        },
    },
    TopicProperty {
        name: "message.timestamp.before.max.ms",
        default: "`log.message.timestamp.before.max.ms`",
        type_name: "integer, from 0",
        doc: "How far a producer's timestamp may lie in the past.",
        set: |draft, text| {
            draft.before_max_ms = i64::read(text, Some(&(0..=i64::MAX)))?;
            Ok(())
        },
    },
    TopicProperty {
        name: "message.timestamp.after.max.ms",
        default: "`log.message.timestamp.after.max.ms`",
        type_name: "integer, from 0",
        doc: "How far a producer's timestamp may lie in the future.",
        set: |draft, text| {
            draft.after_max_ms = i64::read(text, Some(&(0..=i64::MAX)))?;
            Ok(())
        },
    },
    TopicProperty {
        name: "compression.type",
        default: "`compression.type`",
        type_name: CompressionType::TYPE,
        doc: "What records are compressed with before they are stored; with `producer` they stay as they came.",
        set: |draft, text| {
            draft.compression_type = CompressionType::read(text, None)?;
            Ok(())
        },
    },
    TopicProperty {
        name: "compression.gzip.level",
        default: "`compression.gzip.level`",
        type_name: GzipLevel::TYPE,
        doc: "Level of gzip, if `compression.type` is that.",
        set: |draft, text| {
            draft.gzip_level = GzipLevel::read(text, None)?;
            Ok(())
        },
    },
    TopicProperty {
        name: "compression.zstd.level",
        default: "`compression.zstd.level`",
        type_name: "integer, from -131072 to 22",
        doc: "Level of Zstandard, if `compression.type` is that.",
        set: |draft, text| {
            draft.zstd_level = i32::read(text, Some(&(-131_072..=22)))?;
            Ok(())
        },
    },
    TopicProperty {
        name: "cleanup.policy",
        default: "`delete`",
        type_name: "`delete`",
        doc: "Old records are deleted; compaction cannot be chosen.",
        set: |_, text| read_word(text, &[("delete", ())]),
    },
    TopicProperty {
        name: "unclean.leader.election.enable",
        default: "`false`",
        type_name: "`false`",
        doc: "No election gives up committed records by choice; nothing else can be chosen.",
        set: |_, text| read_word(text, &[("false", ())]),
    },
];

/// What Kafka knows beyond that.
const UNSUPPORTED: &[&str] = &[
    "compression.lz4.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "message.downconversion.enable",
    "message.format.version",
    "message.timestamp.difference.max.ms",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "preallocate",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
];

/// Checks one configuration that a client wants a topic to have.
///
/// # Errors
/// When the name is unknown or not acted on, or the value does not fit. Clients get it as `INVALID_CONFIG`.
pub fn check(name: &str, value: &str) -> Result<(), TopicConfigError> {
    apply(&mut Draft::new(&BrokerConfig::default()), name, value)
}

fn apply(draft: &mut Draft, name: &str, value: &str) -> Result<(), TopicConfigError> {
    let Some(property) = TOPIC_PROPERTIES.iter().find(|property| property.name == name) else {
        let name = name.to_owned();
        return Err(if UNSUPPORTED.contains(&name.as_str()) {
            TopicConfigError::Unsupported { name }
        } else {
            let names = TOPIC_PROPERTIES.iter().map(|property| property.name);
            TopicConfigError::UnknownName { nearest: suggest::nearest(&name, names), name }
        });
    };
    (property.set)(draft, value.trim()).map_err(|expected| TopicConfigError::BadValue {
        name: name.to_owned(),
        value: value.to_owned(),
        expected,
    })
}

impl Draft {
    fn new(broker: &BrokerConfig) -> Self {
        Self {
            config: TopicConfig {
                max_message_bytes: broker.message_max_bytes,
                min_insync_replicas: broker.min_insync_replicas,
                retention_ms: broker.retention_ms(),
                retention_bytes: broker.log_retention_bytes,
                timestamps: TimestampRule::LogAppendTime,
                compression: StoredCompression::AsProduced,
            },
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
        TopicConfig { timestamps, compression, ..self.config }
    }
}

impl TopicConfig {
    /// A topic's own configuration over the broker's defaults. What was stored by a release that knew more, and is
    /// not valid here, is passed over: it was checked when it was stored.
    pub fn resolve(own: &BTreeMap<String, String>, broker: &BrokerConfig) -> Self {
        let mut draft = Draft::new(broker);
        for (name, value) in own {
            if let Err(error) = apply(&mut draft, name, value) {
                tracing::warn!(%error, "a stored topic configuration is not in force");
            }
        }
        draft.finish()
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
            ("min.insync.replicas", "3"),
            ("message.timestamp.type", "LogAppendTime"),
            ("compression.zstd.level", "-7"),
            ("compression.type", "zstd"),
            ("from.a.newer.release", "8"),
        ];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let config = TopicConfig::resolve(&own, &BrokerConfig::default());
        assert_eq!(
            config,
            TopicConfig {
                max_message_bytes: 7,
                min_insync_replicas: 3,
                retention_ms: 5,
                retention_bytes: 6,
                timestamps: TimestampRule::LogAppendTime,
                compression: StoredCompression::Zstd(-7),
            }
        );
    }

    #[test]
    fn nothing_is_accepted_and_ignored() {
        let refusal = |name, value| check(name, value).expect_err("refused").to_string();
        assert_eq!(
            refusal("retention.mss", "5"),
            "there is no topic configuration retention.mss; the nearest one is retention.ms"
        );
        assert_eq!(
            refusal("segment.bytes", "5"),
            "Helix does not support the topic configuration segment.bytes: leave it out"
        );
        assert_eq!(
            refusal("cleanup.policy", "compact"),
            "\"compact\" does not fit cleanup.policy: it must be delete; the nearest is delete"
        );
        assert!(refusal("retention.ms", "-2").contains("from -1 to"));
        assert!(refusal("compression.type", "zip").contains("gzip"));
        assert!(refusal("compression.gzip.level", "0").contains("1 to 9"));
        assert!(refusal("compression.lz4.level", "9").contains("does not support"));
        check("compression.gzip.level", "-1").expect("the usual one");
        check("cleanup.policy", "delete").expect("what Helix does");
        check("compression.type", "producer").expect("what Helix does");
    }

    #[test]
    fn names_are_in_one_table_only() {
        for property in TOPIC_PROPERTIES {
            assert!(!UNSUPPORTED.contains(&property.name));
        }
    }
}
