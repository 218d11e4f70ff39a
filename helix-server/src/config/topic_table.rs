//! The table of what can be configured per topic: every name of Apache Kafka 4.1, and Helix's own.

use super::kind::ConfigKind;
use super::kind::Valid::{Any, AtLeast, Between, BetweenOr, Words};
use super::settings::WriteDurability;
use super::topic::DefaultValue::{Broker, Literal};
use super::topic::Effect::{List, NoneNeeded, Number, OnlyDefault, Text};
use super::topic::TopicProperty;
use super::topic_defaults::OnBrokers::{NotSet, Nothing, Same};
use super::value::{CompressionType, GzipLevel, TimestampType};

/// Every configuration that a topic can have: Kafka's in the order of the alphabet, then Helix's own.
pub static TOPIC_PROPERTIES: &[TopicProperty] = &[
    TopicProperty {
        name: "cleanup.policy",
        kind: ConfigKind::List,
        valid: Words(&["compact", "delete"]),
        default: Literal { value: "delete", brokers: Same("log.cleanup.policy") },
        doc: "What becomes of old records. With `delete` they go after `retention.ms` and above `retention.bytes`. With `compact` alone all stay: readers find the newest value of every key, and older ones too, since Helix does not remove these yet; the disk has to have room for them. With `compact`, alone or not, records without a key are refused.",
        effect: List(|draft, words| {
            draft.deletes = words.iter().any(|word| word == "delete");
            draft.config.compacts = words.iter().any(|word| word == "compact");
        }),
    },
    TopicProperty {
        name: "compression.gzip.level",
        kind: ConfigKind::Int,
        valid: BetweenOr(1, 9, -1),
        default: Broker("compression.gzip.level"),
        doc: "Level of `compression.type=gzip`.",
        effect: Number(|draft, number| draft.gzip_level = GzipLevel::of(number as i32)),
    },
    TopicProperty {
        name: "compression.lz4.level",
        kind: ConfigKind::Int,
        valid: Between(1, 17),
        default: Literal { value: "9", brokers: Same("compression.lz4.level") },
        doc: "Level of `compression.type=lz4`.",
        effect: OnlyDefault("LZ4 has one level here: leave it out, or use compression.type=zstd for more"),
    },
    TopicProperty {
        name: "compression.type",
        kind: ConfigKind::String,
        valid: Words(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        default: Broker("compression.type"),
        doc: "How records are stored and sent. `producer`: as the producer compressed them. Anything else has the leader compress anew what the producer compressed differently.",
        effect: Text(|draft, text| draft.compression_type = compression(text)),
    },
    TopicProperty {
        name: "compression.zstd.level",
        kind: ConfigKind::Int,
        valid: Between(-131_072, 22),
        default: Broker("compression.zstd.level"),
        doc: "Level of `compression.type=zstd`.",
        effect: Number(|draft, number| draft.zstd_level = number as i32),
    },
    TopicProperty {
        name: "delete.retention.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(0),
        default: Literal { value: "86400000", brokers: Same("log.cleaner.delete.retention.ms") },
        doc: "How long tombstones stay in a compacted topic at least.",
        effect: NoneNeeded("tombstones are not removed at all"),
    },
    TopicProperty {
        name: "file.delete.delay.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(0),
        default: Literal { value: "60000", brokers: Same("log.segment.delete.delay.ms") },
        doc: "How long files stay before they are deleted.",
        effect: NoneNeeded("a file goes when nobody reads from it any more"),
    },
    TopicProperty {
        name: "flush.messages",
        kind: ConfigKind::Long,
        valid: AtLeast(1),
        default: Literal { value: "9223372036854775807", brokers: Same("log.flush.interval.messages") },
        doc: "After how many records a log is synced to disk.",
        effect: OnlyDefault("use helix.write.durability=fsync, which syncs before it acknowledges"),
    },
    TopicProperty {
        name: "flush.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(0),
        default: Literal { value: "9223372036854775807", brokers: NotSet("log.flush.interval.ms") },
        doc: "After how long a log is synced to disk.",
        effect: OnlyDefault("use helix.write.durability=fsync, which syncs before it acknowledges"),
    },
    TopicProperty {
        name: "follower.replication.throttled.replicas",
        kind: ConfigKind::List,
        valid: Any,
        default: Literal { value: "", brokers: Nothing },
        doc: "Followers whose replication is throttled.",
        effect: OnlyDefault("Helix does not throttle replication: leave it out"),
    },
    TopicProperty {
        name: "index.interval.bytes",
        kind: ConfigKind::Int,
        valid: AtLeast(0),
        default: Literal { value: "4096", brokers: Same("log.index.interval.bytes") },
        doc: "How often a record is entered into the index of offsets.",
        effect: NoneNeeded("every entry of the log is in its index"),
    },
    TopicProperty {
        name: "leader.replication.throttled.replicas",
        kind: ConfigKind::List,
        valid: Any,
        default: Literal { value: "", brokers: Nothing },
        doc: "Leaders whose replication is throttled.",
        effect: OnlyDefault("Helix does not throttle replication: leave it out"),
    },
    TopicProperty {
        name: "local.retention.bytes",
        kind: ConfigKind::Long,
        valid: AtLeast(-2),
        default: Literal { value: "-2", brokers: Same("log.local.retention.bytes") },
        doc: "How much of a tiered log is kept on local disks.",
        effect: OnlyDefault("Helix has no tiered storage: leave it out"),
    },
    TopicProperty {
        name: "local.retention.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(-2),
        default: Literal { value: "-2", brokers: Same("log.local.retention.ms") },
        doc: "How long records of a tiered log are kept on local disks.",
        effect: OnlyDefault("Helix has no tiered storage: leave it out"),
    },
    TopicProperty {
        name: "max.compaction.lag.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(1),
        default: Literal { value: "9223372036854775807", brokers: Same("log.cleaner.max.compaction.lag.ms") },
        doc: "After how long a record may be compacted at the latest.",
        effect: OnlyDefault("Helix does not compact topics: leave it out"),
    },
    TopicProperty {
        name: "max.message.bytes",
        kind: ConfigKind::Int,
        valid: AtLeast(0),
        default: Broker("message.max.bytes"),
        doc: "Largest record batch taken, in bytes, as the client sends it.",
        effect: Number(|draft, number| draft.config.max_message_bytes = number as usize),
    },
    TopicProperty {
        name: "message.timestamp.after.max.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(0),
        default: Broker("log.message.timestamp.after.max.ms"),
        doc: "How far a producer's timestamp may lie in the future.",
        effect: Number(|draft, number| draft.after_max_ms = number),
    },
    TopicProperty {
        name: "message.timestamp.before.max.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(0),
        default: Broker("log.message.timestamp.before.max.ms"),
        doc: "How far a producer's timestamp may lie in the past.",
        effect: Number(|draft, number| draft.before_max_ms = number),
    },
    TopicProperty {
        name: "message.timestamp.type",
        kind: ConfigKind::String,
        valid: Words(&["CreateTime", "LogAppendTime"]),
        default: Broker("log.message.timestamp.type"),
        doc: "Whose timestamps records keep: the producer's, or the time of the append.",
        effect: Text(|draft, text| {
            draft.timestamp_type =
                if text == "LogAppendTime" { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
        }),
    },
    TopicProperty {
        name: "min.cleanable.dirty.ratio",
        kind: ConfigKind::Double,
        valid: Between(0, 1),
        default: Literal { value: "0.5", brokers: Same("log.cleaner.min.cleanable.ratio") },
        doc: "How much of a log has to be superseded before it is compacted.",
        effect: NoneNeeded("nothing is compacted"),
    },
    TopicProperty {
        name: "min.compaction.lag.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(0),
        default: Literal { value: "0", brokers: Same("log.cleaner.min.compaction.lag.ms") },
        doc: "How long a record stays uncompacted at least.",
        effect: NoneNeeded("nothing is compacted"),
    },
    TopicProperty {
        name: "min.insync.replicas",
        kind: ConfigKind::Int,
        valid: AtLeast(1),
        default: Broker("min.insync.replicas"),
        doc: "Fewest replicas in sync for a write with `acks=all` to be taken. A majority is always needed to commit; this matters only above that.",
        effect: Number(|draft, number| draft.config.min_insync_replicas = number as u32),
    },
    TopicProperty {
        name: "preallocate",
        kind: ConfigKind::Boolean,
        valid: Any,
        default: Literal { value: "false", brokers: Same("log.preallocate") },
        doc: "Whether files get their size when they are created.",
        effect: NoneNeeded("files always get their size when they are created"),
    },
    TopicProperty {
        name: "remote.log.copy.disable",
        kind: ConfigKind::Boolean,
        valid: Any,
        default: Literal { value: "false", brokers: Nothing },
        doc: "Whether a tiered log is no longer copied.",
        effect: OnlyDefault("Helix has no tiered storage: leave it out"),
    },
    TopicProperty {
        name: "remote.log.delete.on.disable",
        kind: ConfigKind::Boolean,
        valid: Any,
        default: Literal { value: "false", brokers: Nothing },
        doc: "Whether the remote part of a log goes when tiering ends.",
        effect: OnlyDefault("Helix has no tiered storage: leave it out"),
    },
    TopicProperty {
        name: "remote.storage.enable",
        kind: ConfigKind::Boolean,
        valid: Any,
        default: Literal { value: "false", brokers: Nothing },
        doc: "Whether the log is tiered.",
        effect: OnlyDefault("Helix has no tiered storage: leave it out"),
    },
    TopicProperty {
        name: "retention.bytes",
        kind: ConfigKind::Long,
        valid: Any,
        default: Broker("log.retention.bytes"),
        doc: "How large one partition may grow before its oldest records are removed; `-1` is no limit.",
        effect: Number(|draft, number| draft.config.retention_bytes = number),
    },
    TopicProperty {
        name: "retention.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(-1),
        default: Broker("log.retention.ms"),
        doc: "How long records are kept, in milliseconds; `-1` is for ever.",
        effect: Number(|draft, number| draft.config.retention_ms = number),
    },
    TopicProperty {
        name: "segment.bytes",
        kind: ConfigKind::Int,
        valid: AtLeast(1_048_576),
        default: Literal { value: "1073741824", brokers: Same("log.segment.bytes") },
        doc: "A larger record batch is refused, as in Kafka, where it would not fit into a file of the partition's log. The partitions of a node share one log, whose files have `helix.wal.segment.bytes`.",
        effect: Number(|draft, number| draft.config.segment_bytes = number as usize),
    },
    TopicProperty {
        name: "segment.index.bytes",
        kind: ConfigKind::Int,
        valid: AtLeast(4),
        default: Literal { value: "10485760", brokers: Same("log.index.size.max.bytes") },
        doc: "Size of the index of offsets.",
        effect: NoneNeeded("the index has no limit of its own"),
    },
    TopicProperty {
        name: "segment.jitter.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(0),
        default: Literal { value: "0", brokers: NotSet("log.roll.jitter.ms") },
        doc: "By how much the time of a new file varies.",
        effect: NoneNeeded("retention does not wait for a file to end"),
    },
    TopicProperty {
        name: "segment.ms",
        kind: ConfigKind::Long,
        valid: AtLeast(1),
        default: Literal { value: "604800000", brokers: NotSet("log.roll.ms") },
        doc: "After how long a new file is begun, so that retention can remove the old one.",
        effect: NoneNeeded("retention does not wait for a file to end"),
    },
    TopicProperty {
        name: "unclean.leader.election.enable",
        kind: ConfigKind::Boolean,
        valid: Any,
        default: Literal { value: "false", brokers: Same("unclean.leader.election.enable") },
        doc: "Whether an election may give up committed records by choice. None does.",
        effect: OnlyDefault("no election here gives up committed records by choice: use false"),
    },
    TopicProperty {
        name: "helix.write.durability",
        kind: ConfigKind::String,
        valid: Words(&["replication-only", "fsync"]),
        default: Broker("helix.write.durability"),
        doc: "What an acknowledgement of `acks=all` means: in the page cache of a majority of replicas, or synced to disk by a majority. The default of a node is its `--write-durability`.",
        effect: Text(|draft, text| {
            draft.config.write_durability =
                Some(if text == "fsync" { WriteDurability::Fsync } else { WriteDurability::ReplicationOnly });
        }),
    },
];

fn compression(text: &str) -> CompressionType {
    match text {
        "uncompressed" => CompressionType::Uncompressed,
        "gzip" => CompressionType::Gzip,
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4,
        "zstd" => CompressionType::Zstd,
        _ => CompressionType::Producer,
    }
}
