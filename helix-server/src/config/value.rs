//! Types of values: how they are read, shown and described.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::kind::ConfigKind;
use super::suggest;

/// How a value that is not set is shown.
pub(super) const NOT_SET: &str = "not set";

/// Whose timestamps records keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The time of the append.
    LogAppendTime,
}

/// Where consumers are sent to read (KIP-392).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReplicaSelector {
    /// Always to the leader.
    #[default]
    Leader,
    /// To a replica in their rack, if there is one.
    RackAware,
}

impl ReplicaSelector {
    /// The names of Kafka's classes, and what is enough of them.
    const WORDS: &'static [(&'static str, Self)] = &[
        ("org.apache.kafka.common.replica.LeaderSelector", Self::Leader),
        ("org.apache.kafka.common.replica.RackAwareReplicaSelector", Self::RackAware),
        ("LeaderSelector", Self::Leader),
        ("RackAwareReplicaSelector", Self::RackAware),
    ];
}

/// What records are compressed with before they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CompressionType {
    /// What the producer chose.
    #[default]
    Producer,
    /// Nothing.
    Uncompressed,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl CompressionType {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("producer", Self::Producer),
        ("uncompressed", Self::Uncompressed),
        ("gzip", Self::Gzip),
        ("snappy", Self::Snappy),
        ("lz4", Self::Lz4),
        ("zstd", Self::Zstd),
    ];
}

/// A level of gzip: 1 to 9, or -1 for the usual one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GzipLevel(i32);

impl GzipLevel {
    /// What is usual.
    pub const DEFAULT: Self = Self(-1);
    /// What -1 stands for in zlib.
    const USUAL: u32 = 6;

    /// A level that was found valid.
    pub(super) const fn of(level: i32) -> Self {
        Self(level)
    }

    /// The level, from 1 to 9.
    pub fn level(self) -> u32 {
        u32::try_from(self.0).unwrap_or(Self::USUAL)
    }
}

/// A value that can be given as text.
pub(super) trait Value: Sized {
    /// What the documentation calls the type.
    const TYPE: &'static str;

    /// What Kafka calls the type.
    const KIND: ConfigKind;

    /// Reads a value, or says what would fit.
    fn read(text: &str, range: Option<&RangeInclusive<i64>>) -> Result<Self, String>;

    /// The value as it would be written.
    fn show(&self) -> String;
}

fn read_integer<T: TryFrom<i64> + std::str::FromStr + Display>(
    text: &str,
    range: Option<&RangeInclusive<i64>>,
) -> Result<T, String> {
    let range = range.expect("every integer property has a range");
    let expected = || format!("it must be a whole number from {} to {}", range.start(), range.end());
    let number: i64 = text.parse().map_err(|_| expected())?;
    if !range.contains(&number) {
        return Err(expected());
    }
    T::try_from(number).map_err(|_| expected())
}

macro_rules! integers {
    ($($type:ty: $kind:ident),+) => {$(
        impl Value for $type {
            const TYPE: &'static str = "integer";
            const KIND: ConfigKind = ConfigKind::$kind;

            fn read(text: &str, range: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
                read_integer(text, range)
            }

            fn show(&self) -> String {
                self.to_string()
            }
        }
    )+};
}

// As wide as Kafka's property of the same name, not as the type: Kafka counts in signed numbers.
integers!(i16: Int, i32: Int, i64: Long, u32: Int, u64: Long, usize: Int);

impl<T: Value> Value for Option<T> {
    const TYPE: &'static str = T::TYPE;
    const KIND: ConfigKind = T::KIND;

    fn read(text: &str, range: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
        T::read(text, range).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| NOT_SET.to_owned(), T::show)
    }
}

/// Reads one of a few words, whatever their case.
pub(super) fn read_word<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)) {
        return Ok(*value);
    }
    let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let nearest = suggest::nearest(text, words.iter().map(|(word, _)| *word));
    Err(format!("it must be {}; the nearest is {nearest}", all.join(" or ")))
}

impl Value for bool {
    const TYPE: &'static str = "true or false";
    const KIND: ConfigKind = ConfigKind::Boolean;

    fn read(text: &str, _: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
        read_word(text, &[("true", true), ("false", false)])
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for TimestampType {
    const TYPE: &'static str = "`CreateTime` or `LogAppendTime`";
    const KIND: ConfigKind = ConfigKind::String;

    fn read(text: &str, _: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
        read_word(text, &[("CreateTime", Self::CreateTime), ("LogAppendTime", Self::LogAppendTime)])
    }

    fn show(&self) -> String {
        match self {
            Self::CreateTime => "CreateTime".to_owned(),
            Self::LogAppendTime => "LogAppendTime".to_owned(),
        }
    }
}

impl Value for ReplicaSelector {
    const TYPE: &'static str =
        "`LeaderSelector` or `RackAwareReplicaSelector`, with or without `org.apache.kafka.common.replica.`";
    const KIND: ConfigKind = ConfigKind::String;

    fn read(text: &str, _: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
        read_word(text, Self::WORDS)
    }

    fn show(&self) -> String {
        match self {
            Self::Leader => "LeaderSelector".to_owned(),
            Self::RackAware => "RackAwareReplicaSelector".to_owned(),
        }
    }
}

impl Value for CompressionType {
    const TYPE: &'static str = "`producer`, `uncompressed`, `gzip`, `snappy`, `lz4` or `zstd`";
    const KIND: ConfigKind = ConfigKind::String;

    fn read(text: &str, _: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
        read_word(text, Self::WORDS)
    }

    fn show(&self) -> String {
        let word = Self::WORDS.iter().find(|(_, value)| value == self);
        word.map_or("producer", |(word, _)| word).to_owned()
    }
}

impl Value for GzipLevel {
    const TYPE: &'static str = "-1, or 1 to 9";
    const KIND: ConfigKind = ConfigKind::Int;

    fn read(text: &str, _: Option<&RangeInclusive<i64>>) -> Result<Self, String> {
        match text.parse() {
            Ok(level @ (-1 | 1..=9)) => Ok(Self(level)),
            _ => Err("it must be a whole number from 1 to 9, or -1".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}
