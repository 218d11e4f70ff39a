//! Why a batch is refused, and what the client is told.

use kafka_protocol::error::ResponseError;
use thiserror::Error;

/// Why a batch is refused, or why a stored one cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BatchError {
    /// The records field is null or empty.
    #[error("the produce request holds no record batch for this partition")]
    Empty,
    /// The bytes end before the batch does.
    #[error("the record batch needs {needed} bytes but only {available} are there")]
    Truncated {
        /// Bytes that the batch claims.
        needed: usize,
        /// Bytes present.
        available: usize,
    },
    /// More bytes follow the first batch.
    #[error(
        "a produce request may hold exactly one record batch per partition, but {trailing} more bytes follow"
    )]
    NotAlone {
        /// Bytes behind the first batch.
        trailing: usize,
    },
    /// Another record format than version 2.
    #[error("record format version {magic} is not served; only version 2 is (Kafka 0.11 and newer clients)")]
    Magic {
        /// The version found.
        magic: i8,
    },
    /// The length field is impossible.
    #[error("the record batch claims a length of {length} bytes, which is impossible")]
    Length {
        /// The length field.
        length: i32,
    },
    /// Larger than `max.message.bytes`.
    #[error("the record batch has {bytes} bytes, more than max.message.bytes ({limit}) allows")]
    TooLarge {
        /// Size of the whole batch.
        bytes: usize,
        /// The limit of the topic.
        limit: usize,
    },
    /// Larger than `segment.bytes`.
    #[error("the record batch has {bytes} bytes, more than segment.bytes ({limit}) allows")]
    LargerThanSegment {
        /// Size of the whole batch.
        bytes: usize,
        /// The limit of the topic.
        limit: usize,
    },
    /// The checksum does not match.
    #[error("the record batch is corrupt: its CRC32C is {computed:#010x} but {stored:#010x} is stored")]
    Checksum {
        /// Checksum in the header.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// A client sent a batch whose base offset is not zero.
    #[error("the base offset of a produced batch must be 0, not {base_offset}")]
    BaseOffset {
        /// The offset found.
        base_offset: i64,
    },
    /// Record count and offset range disagree.
    #[error("the record batch counts {count} records but its last offset delta is {last_offset_delta}")]
    Count {
        /// Records according to the header.
        count: i32,
        /// Last offset delta according to the header.
        last_offset_delta: i32,
    },
    /// A client sent a control batch.
    #[error("clients must not write control batches")]
    Control,
    /// Producer id, epoch and sequence do not fit each other.
    #[error("producer id {producer_id}, epoch {epoch} and sequence {sequence} do not fit each other")]
    Producer {
        /// Producer id of the header.
        producer_id: i64,
        /// Producer epoch of the header.
        epoch: i16,
        /// Base sequence of the header.
        sequence: i32,
    },
    /// Transactional without a producer id.
    #[error("a transactional batch needs a producer id")]
    TransactionalWithoutProducer,
    /// A compression id nobody defined.
    #[error("compression type {id} is unknown; use none, gzip, snappy, lz4 or zstd")]
    Compression {
        /// The id found.
        id: i16,
    },
    /// zstd in a Produce version that does not allow it.
    #[error("zstd needs Produce version 7 or newer; use another compression or a newer client")]
    ZstdTooOld,
    /// A record is too far in the past or the future.
    #[error(
        "timestamp {timestamp_ms} is out of range: at most {before_max_ms} ms before and {after_max_ms} ms after the \
         broker's clock ({now_ms})"
    )]
    Timestamp {
        /// The offending timestamp.
        timestamp_ms: i64,
        /// The broker's clock.
        now_ms: i64,
        /// `message.timestamp.before.max.ms`.
        before_max_ms: i64,
        /// `message.timestamp.after.max.ms`.
        after_max_ms: i64,
    },
    /// A client claimed log append time.
    #[error("clients must not set the timestamp type to LogAppendTime")]
    TimestampType,
    /// A record is malformed.
    #[error("record {ordinal} of the batch is malformed: {reason}")]
    Record {
        /// Position of the record in the batch, from 0.
        ordinal: i32,
        /// What is wrong.
        reason: &'static str,
    },
    /// A record of a compacted topic has no key.
    #[error(
        "record {ordinal} of the batch has no key, which a compacted topic cannot do without: give it one"
    )]
    WithoutKey {
        /// Position of the record in the batch, from 0.
        ordinal: i32,
    },
    /// A compressed batch could not be decompressed.
    #[error("the record batch could not be decompressed: {reason}")]
    Decompress {
        /// What the decompressor said.
        reason: String,
    },
    /// A compressed batch is larger than what is read.
    #[error("the record batch decompresses to more than {limit} bytes, which is not read")]
    DecompressedTooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

impl BatchError {
    /// The Kafka error code that a client gets.
    pub fn code(&self) -> i16 {
        self.kafka_error().code()
    }

    /// The Kafka error that a client gets.
    pub fn kafka_error(&self) -> ResponseError {
        match self {
            Self::Empty
            | Self::Truncated { .. }
            | Self::NotAlone { .. }
            | Self::BaseOffset { .. }
            | Self::Count { .. }
            | Self::Control
            | Self::Producer { .. }
            | Self::TransactionalWithoutProducer
            | Self::Record { .. }
            | Self::WithoutKey { .. } => ResponseError::InvalidRecord,
            // Formats 0 and 1 are older ones, which a served version of Produce must not carry; anything else is no format at all.
            Self::Magic { magic: 0 | 1 } => ResponseError::InvalidRecord,
            Self::Magic { .. } | Self::Length { .. } | Self::Checksum { .. } | Self::Decompress { .. } => {
                ResponseError::CorruptMessage
            }
            Self::TooLarge { .. } | Self::DecompressedTooLarge { .. } => ResponseError::MessageTooLarge,
            Self::LargerThanSegment { .. } => ResponseError::RecordListTooLarge,
            Self::Compression { .. } | Self::ZstdTooOld => ResponseError::UnsupportedCompressionType,
            Self::Timestamp { .. } | Self::TimestampType => ResponseError::InvalidTimestamp,
        }
    }
}
