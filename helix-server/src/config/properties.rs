//! The table of properties: from it come the typed configuration, the checks, the suggestions and the documentation.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::kind::ConfigKind;
use super::topic_defaults::TopicDefaults;
use super::value::{CompressionType, GzipLevel, NOT_SET, ReplicaSelector, TimestampType, Value};
use crate::coordinator::MAX_METADATA_BYTES_LIMIT;

/// Reads a value into its field, or says what would fit.
type Setter = fn(&mut BrokerConfig, &str, Option<&RangeInclusive<i64>>) -> Result<(), String>;

/// One line of the table.
#[derive(Debug)]
pub struct Property {
    /// Its name; Kafka's where Kafka has one.
    pub name: &'static str,
    /// What it does, in Markdown.
    pub doc: &'static str,
    /// What the documentation calls its type.
    pub type_name: &'static str,
    /// Unit of the value, empty if it has none.
    pub unit: &'static str,
    /// Valid values, for integers.
    pub range: Option<RangeInclusive<i64>>,
    /// Its type in Kafka's admin APIs, if its values are as small as Kafka's.
    narrow_kind: ConfigKind,
    /// Whether it can be altered while the node runs, for one broker or for all; Kafka's can where Kafka's can.
    pub dynamic: bool,
    set: Setter,
    show: fn(&BrokerConfig) -> String,
}

impl Property {
    /// Sets the property, or says what value would fit.
    pub(super) fn set(&self, config: &mut BrokerConfig, text: &str) -> Result<(), String> {
        (self.set)(config, text, self.range.as_ref())
    }

    /// Its type in Kafka's admin APIs.
    pub fn kind(&self) -> ConfigKind {
        if let Some((_, kind)) = KAFKA_KINDS.iter().find(|(name, _)| *name == self.name) {
            return *kind;
        }
        let wide = self.range.as_ref().is_some_and(|range| *range.end() > I32_MAX);
        if wide { ConfigKind::Long } else { self.narrow_kind }
    }

    /// The value in force; `None` if there is none.
    pub fn value(&self, config: &BrokerConfig) -> Option<String> {
        Some(self.show(config)).filter(|shown| shown != NOT_SET)
    }

    /// The value in force, in words if there is none.
    pub fn show(&self, config: &BrokerConfig) -> String {
        (self.show)(config)
    }
}

/// The property of that name.
pub(super) fn find(name: &str) -> Option<&'static Property> {
    PROPERTIES.iter().find(|property| property.name == name)
}

/// Kafka's types of what Helix counts in wider numbers than Kafka.
const KAFKA_KINDS: &[(&str, ConfigKind)] = &[
    ("group.initial.rebalance.delay.ms", ConfigKind::Int),
    ("offsets.commit.timeout.ms", ConfigKind::Int),
    ("offsets.retention.minutes", ConfigKind::Int),
    ("offsets.topic.replication.factor", ConfigKind::Short),
];

macro_rules! properties {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal => $field:ident: $type:ty = $default:expr, $unit:literal, $range:expr $(, $dynamic:ident)?;
    )+) => {
        /// How a node behaves. Each field is one property of the same name.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct BrokerConfig {
            $(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nProperty `", $name, "`.")]
                pub $field: $type,
            )+
            /// What it says for topics, beyond the properties above.
            pub topic_defaults: TopicDefaults,
        }

        impl Default for BrokerConfig {
            fn default() -> Self {
                Self { $($field: $default,)+ topic_defaults: TopicDefaults::default() }
            }
        }

        /// Every property, in the order of the documentation.
        pub static PROPERTIES: &[Property] = &[
            $(Property {
                name: $name,
                doc: concat!($($doc),+),
                type_name: <$type as Value>::TYPE,
                unit: $unit,
                range: $range,
                narrow_kind: <$type as Value>::KIND,
                dynamic: [$(stringify!($dynamic),)? ""].len() > 1,
                set: |config, text, range| {
                    config.$field = <$type as Value>::read(text, range)?;
                    Ok(())
                },
                show: |config| config.$field.show(),
            },)+
        ];
    };
}

const KIB: i64 = 1024;
const MIB: i64 = 1024 * KIB;
const GIB: i64 = 1024 * MIB;
const I32_MAX: i64 = i32::MAX as i64;
/// Upper end for durations: beyond any real one, and far from overflow when added to a clock.
const MAX_MS: i64 = i64::MAX / 4;

properties! {
    /// Partitions of a topic whose creator does not say how many, and of topics created on first use.
    "num.partitions" => num_partitions: i32 = 1, "", Some(1..=100_000);
    /// Replicas of a topic whose creator does not say how many, and of topics created on first use.
    "default.replication.factor" => default_replication_factor: i16 = 1, "", Some(1..=1000);
    /// Whether a client's first use of a topic creates it.
    "auto.create.topics.enable" => auto_create_topics_enable: bool = true, "", None;
    /// Largest record batch taken, as the client sends it (compressed). Topics can override it with `max.message.bytes`.
    "message.max.bytes" => message_max_bytes: usize = 1_048_588, "bytes", Some(1..=I32_MAX), dynamic;
    /// What records are compressed with before they are stored. Anything but `producer` costs the broker the compression of every
    /// batch that came otherwise. Topics can override it.
    "compression.type" => compression_type: CompressionType = CompressionType::Producer, "", None, dynamic;
    /// Level of gzip where the broker compresses with it. Topics can override it.
    "compression.gzip.level" => compression_gzip_level: GzipLevel = GzipLevel::DEFAULT, "", None, dynamic;
    /// Level of Zstandard where the broker compresses with it. Topics can override it.
    "compression.zstd.level" => compression_zstd_level: i32 = 3, "", Some(-131_072..=22), dynamic;
    /// Fewest replicas in sync for a write with `acks=all` to be taken. A majority is always needed to commit; this matters only above
    /// that. Topics can override it.
    "min.insync.replicas" => min_insync_replicas: u32 = 1, "", Some(1..=1000), dynamic;
    /// Largest request read from a client; the connection of a larger one is closed.
    "socket.request.max.bytes" => socket_request_max_bytes: usize = 104_857_600, "bytes", Some(1024..=I32_MAX);
    /// Most client connections at one time; further ones are closed at once.
    "max.connections" => max_connections: usize = 10_000, "", Some(1..=1_000_000), dynamic;
    /// A client connection that was silent for this long is closed.
    "connections.max.idle.ms" => connections_max_idle_ms: u64 = 600_000, "ms", Some(1000..=MAX_MS);
    /// How long records are kept; `-1` is for ever. Wins over the two below. Topics can override it with `retention.ms`.
    "log.retention.ms" => log_retention_ms: Option<i64> = None, "ms", Some(-1..=i64::MAX), dynamic;
    /// As `log.retention.ms`, in minutes. Wins over the one below.
    "log.retention.minutes" => log_retention_minutes: Option<i32> = None, "minutes", Some(-1..=I32_MAX);
    /// As `log.retention.ms`, in hours.
    "log.retention.hours" => log_retention_hours: i32 = 168, "hours", Some(-1..=I32_MAX);
    /// How large the log of one partition may grow before its oldest records are removed; `-1` is no limit. Topics can
    /// override it with `retention.bytes`.
    "log.retention.bytes" => log_retention_bytes: i64 = -1, "bytes", Some(-1..=i64::MAX), dynamic;
    /// How often the leader of a partition looks for records past their retention.
    "log.retention.check.interval.ms" => log_retention_check_interval_ms: u64 = 300_000, "ms", Some(100..=86_400_000);
    /// Whose timestamps records keep: the producer's, or the time of the append. Topics can override it with
    /// `message.timestamp.type`.
    "log.message.timestamp.type" => log_message_timestamp_type: TimestampType = TimestampType::CreateTime, "", None, dynamic;
    /// How far a producer's timestamp may lie in the past. Topics can override it.
    "log.message.timestamp.before.max.ms" => log_message_timestamp_before_max_ms: i64 = i64::MAX, "ms",
        Some(0..=i64::MAX), dynamic;
    /// How far a producer's timestamp may lie in the future. Topics can override it.
    "log.message.timestamp.after.max.ms" => log_message_timestamp_after_max_ms: i64 = 3_600_000, "ms",
        Some(0..=i64::MAX), dynamic;
    /// A replica that has not caught up for this long is no longer shown as in sync.
    "replica.lag.time.max.ms" => replica_lag_time_max_ms: u64 = 30_000, "ms", Some(100..=MAX_MS);
    /// Where consumers read that say in which rack they are (`client.rack`): from the leader, or from a replica in sync in their own rack, if
    /// there is one.
    "replica.selector.class" => replica_selector_class: ReplicaSelector = ReplicaSelector::Leader, "", None;
    /// Most bytes of records in one fetch response, whatever the client asks for. A single larger batch is still sent.
    "fetch.max.bytes" => fetch_max_bytes: usize = 57_671_680, "bytes", Some(1024..=I32_MAX);
    /// Most fetch sessions that a node keeps for its clients; 0 is none. A client without one sends more with each fetch.
    "max.incremental.fetch.session.cache.slots" => max_incremental_fetch_session_cache_slots: usize = 1000, "",
        Some(0..=100_000);
    /// An idempotent producer that wrote nothing to a partition for this long is forgotten there.
    "producer.id.expiration.ms" => producer_id_expiration_ms: i32 = 86_400_000, "ms", Some(1000..=I32_MAX), dynamic;
    /// Partitions of the topic that holds consumer groups and their offsets, when it is made.
    "offsets.topic.num.partitions" => offsets_topic_num_partitions: i32 = 50, "", Some(1..=10_000);
    /// Replicas of that topic, when it is made. By default 3, or as many as there are nodes in `--peers` if they are fewer.
    "offsets.topic.replication.factor" => offsets_topic_replication_factor: Option<i16> = None, "", Some(1..=1000);
    /// How long the offsets of a group are kept after its last member is gone, and those of who is no member after the
    /// last commit.
    "offsets.retention.minutes" => offsets_retention_minutes: i64 = 10_080, "minutes", Some(1..=1_000_000_000);
    /// How often expired offsets are looked for.
    "offsets.retention.check.interval.ms" => offsets_retention_check_interval_ms: u64 = 600_000, "ms", Some(1..=MAX_MS);
    /// How long a commit of offsets may take before the client is told to ask again.
    "offsets.commit.timeout.ms" => offsets_commit_timeout_ms: u64 = 5000, "ms", Some(1..=I32_MAX);
    /// Longest text that may be committed with an offset.
    "offset.metadata.max.bytes" => offset_metadata_max_bytes: usize = 4096, "bytes", Some(0..=MAX_METADATA_BYTES_LIMIT);
    /// How long an empty group waits for more members when the first one comes.
    "group.initial.rebalance.delay.ms" => group_initial_rebalance_delay_ms: u64 = 3000, "ms", Some(0..=I32_MAX);
    /// Shortest session timeout that a member may ask for.
    "group.min.session.timeout.ms" => group_min_session_timeout_ms: i32 = 6000, "ms", Some(1..=I32_MAX);
    /// Longest session timeout that a member may ask for.
    "group.max.session.timeout.ms" => group_max_session_timeout_ms: i32 = 1_800_000, "ms", Some(1..=I32_MAX);
    /// Most members of a group.
    "group.max.size" => group_max_size: usize = 2_147_483_647, "", Some(1..=I32_MAX);

    /// A coordinator's log that is larger than this, and several times as large as what is live in it, is written anew.
    "helix.coordinator.log.bytes" => coordinator_log_bytes: u64 = 4 << 20, "bytes", Some(KIB..=GIB);
    /// How long a partition gathers batches for one entry while earlier ones are in flight. An idle partition does not
    /// wait.
    "helix.batch.linger.ms" => batch_linger_ms: u64 = 1, "ms", Some(0..=1000);
    /// An entry that has this many bytes is not made to wait for more.
    "helix.batch.max.bytes" => batch_max_bytes: usize = 4 << 20, "bytes", Some(KIB..=256 * MIB);
    /// An entry that has the batches of this many requests is not made to wait for more.
    "helix.batch.max.requests" => batch_max_requests: usize = 1000, "requests", Some(1..=100_000);
    /// Most produce requests that wait for their outcome on this node. At the limit the node stops reading produce
    /// requests; clients wait, and none fails.
    "helix.produce.max.pending.requests" => produce_max_pending_requests: usize = 2000, "requests",
        Some(1..=1_000_000);
    /// Most bytes of produce requests that wait for their outcome on this node.
    "helix.produce.max.pending.bytes" => produce_max_pending_bytes: usize = 100 << 20, "bytes",
        Some(MIB..=256 * GIB);
    /// Most bytes of requests other than produce that are being worked on.
    "helix.request.max.pending.bytes" => request_max_pending_bytes: usize = 64 << 20, "bytes", Some(MIB..=256 * GIB);
    /// Most bytes of replication traffic from other nodes that are being worked on, and again of large entries.
    "helix.peer.max.pending.bytes" => peer_max_pending_bytes: usize = 128 << 20, "bytes", Some(MIB..=256 * GIB);
    /// Entries from this size on are sent to followers on a connection of their own, so that small ones do not wait behind them.
    "helix.peer.bulk.bytes" => peer_bulk_bytes: usize = 1 << 20, "bytes", Some(1024..=256 * GIB);
    /// Most bytes of fetch responses that are on their way to clients.
    "helix.fetch.max.pending.bytes" => fetch_max_pending_bytes: usize = 128 << 20, "bytes", Some(MIB..=256 * GIB);
    /// Memory for the newest records of all partitions, from which consumers and followers that keep up are fed.
    "helix.tail.max.bytes" => tail_max_bytes: usize = 64 << 20, "bytes", Some(MIB..=256 * GIB);
    /// Threads that own partitions; 0 is one for each core.
    "helix.shards" => shards: usize = 0, "", Some(0..=1024);
    /// How often a node tells the others that it is alive.
    "helix.heartbeat.interval.ms" => heartbeat_interval_ms: u64 = 100, "ms", Some(5..=60_000);
    /// Without a sign of life for this long a leader is replaced. At least three heartbeat intervals.
    "helix.election.timeout.ms" => election_timeout_ms: u64 = 1000, "ms", Some(15..=600_000);
    /// Longest wait for a write to commit, if the client allows even more. Then the outcome is unknown to the client.
    "helix.commit.timeout.ms" => commit_timeout_ms: u64 = 30_000, "ms", Some(100..=600_000);
    /// Size of the files of the write-ahead log, which all partitions of a node share.
    "helix.wal.segment.bytes" => wal_segment_bytes: u64 = 128 << 20, "bytes", Some(MIB..=16 * GIB);
    /// With `--write-durability replication-only`: data is synced to disk in the background after this time. It bounds
    /// what a power loss of every machine at once can take.
    "helix.wal.background.sync.ms" => wal_background_sync_ms: u64 = 1000, "ms", Some(1..=3_600_000);
    /// As above, after this many bytes.
    "helix.wal.background.sync.bytes" => wal_background_sync_bytes: u64 = 64 << 20, "bytes", Some(MIB..=64 * GIB);
    /// How much of the newest part of the write-ahead log stays in the system's page cache; not set, a quarter of the memory. What is
    /// older, on disk and not being read is given back, so that the log does not push everything else out of memory.
    "helix.wal.page.cache.bytes" => wal_page_cache_bytes: Option<u64> = None, "bytes", Some(0..=16_384 * GIB);
    /// How often a node looks for disk space that it can give back: files in which nothing is kept any more, or little.
    "helix.wal.reclaim.interval.ms" => wal_reclaim_interval_ms: u64 = 10_000, "ms", Some(100..=86_400_000);
    /// Disk space that producers cannot use, so that a full disk leaves room for the cluster's own records and for
    /// clearing up.
    "helix.disk.reserve.bytes" => disk_reserve_bytes: u64 = 256 << 20, "bytes", Some(0..=1024 * GIB);
}

impl BrokerConfig {
    /// How long records are kept unless the topic says otherwise; -1 is for ever.
    pub fn retention_ms(&self) -> i64 {
        let scaled = |amount: i32, unit_ms: i64| if amount < 0 { -1 } else { i64::from(amount) * unit_ms };
        self.log_retention_ms
            .or(self.log_retention_minutes.map(|minutes| scaled(minutes, 60_000)))
            .unwrap_or(scaled(self.log_retention_hours, 3_600_000))
    }

    /// `connections.max.idle.ms`.
    pub fn connections_max_idle(&self) -> Duration {
        Duration::from_millis(self.connections_max_idle_ms)
    }

    /// `log.retention.check.interval.ms`.
    pub fn log_retention_check_interval(&self) -> Duration {
        Duration::from_millis(self.log_retention_check_interval_ms)
    }

    /// `helix.batch.linger.ms`.
    pub fn batch_linger(&self) -> Duration {
        Duration::from_millis(self.batch_linger_ms)
    }

    /// `helix.wal.reclaim.interval.ms`.
    pub fn wal_reclaim_interval(&self) -> Duration {
        Duration::from_millis(self.wal_reclaim_interval_ms)
    }

    /// `helix.heartbeat.interval.ms`.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms)
    }

    /// `helix.election.timeout.ms`.
    pub fn election_timeout(&self) -> Duration {
        Duration::from_millis(self.election_timeout_ms)
    }

    /// `helix.commit.timeout.ms`.
    pub fn commit_timeout(&self) -> Duration {
        Duration::from_millis(self.commit_timeout_ms)
    }

    /// Checks what no single property can.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.election_timeout_ms < 3 * self.heartbeat_interval_ms {
            return Err(format!(
                "helix.election.timeout.ms ({}) must be at least three times helix.heartbeat.interval.ms ({})",
                self.election_timeout_ms, self.heartbeat_interval_ms
            ));
        }
        if self.message_max_bytes > self.socket_request_max_bytes {
            return Err(format!(
                "message.max.bytes ({}) must not be above socket.request.max.bytes ({}), or such a batch can't arrive",
                self.message_max_bytes, self.socket_request_max_bytes
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_kafkas_and_hold_every_valid_value() {
        let kind = |name| find(name).expect("a property").kind();
        assert_eq!(kind("offsets.retention.minutes"), ConfigKind::Int);
        assert_eq!(kind("offsets.topic.replication.factor"), ConfigKind::Short);
        assert_eq!(kind("log.retention.check.interval.ms"), ConfigKind::Long);
        assert_eq!(kind("num.partitions"), ConfigKind::Int);
        for property in PROPERTIES {
            let most = match property.kind() {
                ConfigKind::Short => i64::from(i16::MAX),
                ConfigKind::Int => I32_MAX,
                _ => i64::MAX,
            };
            assert!(property.range.as_ref().is_none_or(|range| *range.end() <= most), "{}", property.name);
        }
    }

    #[test]
    fn every_exception_is_one_of_a_property() {
        for (name, _) in KAFKA_KINDS {
            assert!(find(name).is_some(), "{name}");
        }
    }
}
