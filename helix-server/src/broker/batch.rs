//! Kafka record batches of format version 2: header, iteration, and what a produce request may contain.
//!
//! Records stay the bytes that the client sent. Only the first 16 bytes of a batch (base offset, length, leader
//! epoch) are written by the broker, and they lie outside the batch's checksum; everything behind them is a slice
//! of the request. Rewriting more than that (`LogAppendTime`, a wrong maximum timestamp) copies the 61-byte header
//! and nothing else.

mod compression;
mod error;
mod lookup;
mod recompress;
mod records;
#[cfg(test)]
pub(crate) mod testing;
mod validate;

use bytes::Buf;

pub use error::BatchError;
pub use lookup::{MAX_DECOMPRESSED_BYTES, TimestampedOffset, first_at_or_after, record_of_max_timestamp};
pub use recompress::CompressionRule;
pub use validate::{ProduceRules, TimestampRule, ValidBatch, validate_produce};

/// Bytes of a batch before its first record.
pub const BATCH_HEADER_BYTES: usize = 61;
/// Bytes that the broker assigns at append: base offset, length and leader epoch.
pub const BATCH_PREFIX_BYTES: usize = 16;
/// Bytes of base offset and length: what the length field does not count.
const LENGTH_OVERHEAD_BYTES: usize = 12;
/// First byte that the checksum covers (the attributes).
const CHECKSUM_FROM: usize = 21;
/// The only record format served.
const MAGIC_V2: i8 = 2;
/// How Kafka writes "this record has no timestamp".
pub const NO_TIMESTAMP: i64 = -1;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy, raw or in the framing of snappy-java.
    Snappy,
    /// LZ4 frame format.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// The header of a record batch (format version 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Length field: bytes of the batch behind this field.
    pub length: i32,
    /// Epoch of the leader that appended the batch.
    pub leader_epoch: i32,
    /// CRC32C of everything from the attributes on.
    pub checksum: u32,
    /// Compression and flags.
    pub attributes: i16,
    /// Offset of the last record, relative to the base offset.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas refer to.
    pub base_timestamp_ms: i64,
    /// Largest timestamp of the records, or the time of the append.
    pub max_timestamp_ms: i64,
    /// Producer id, -1 if there is none.
    pub producer_id: i64,
    /// Producer epoch, -1 if there is none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 if there is none.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads a header; the bytes behind it are not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < BATCH_HEADER_BYTES {
            return Err(BatchError::Truncated { needed: BATCH_HEADER_BYTES, available: bytes.len() });
        }
        let mut buf = bytes;
        let base_offset = buf.get_i64();
        let length = buf.get_i32();
        let leader_epoch = buf.get_i32();
        let magic = buf.get_i8();
        if magic != MAGIC_V2 {
            return Err(BatchError::Magic { magic });
        }
        if length < (BATCH_HEADER_BYTES - LENGTH_OVERHEAD_BYTES) as i32 {
            return Err(BatchError::Length { length });
        }
        Ok(Self {
            base_offset,
            length,
            leader_epoch,
            checksum: buf.get_u32(),
            attributes: buf.get_i16(),
            last_offset_delta: buf.get_i32(),
            base_timestamp_ms: buf.get_i64(),
            max_timestamp_ms: buf.get_i64(),
            producer_id: buf.get_i64(),
            producer_epoch: buf.get_i16(),
            base_sequence: buf.get_i32(),
            record_count: buf.get_i32(),
        })
    }

    /// The header as bytes.
    pub fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        out[..16].copy_from_slice(&patch_prefix(self.base_offset, self.length, self.leader_epoch));
        out[16] = MAGIC_V2 as u8;
        out[17..21].copy_from_slice(&self.checksum.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp_ms.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp_ms.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }

    /// Bytes of the whole batch.
    pub fn total_bytes(&self) -> usize {
        usize::try_from(self.length).unwrap_or(0) + LENGTH_OVERHEAD_BYTES
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset that the record behind this batch gets.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        match self.attributes & COMPRESSION_MASK {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            id => Err(BatchError::Compression { id }),
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds a control record (a transaction marker).
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the timestamps are the broker's.
    pub fn has_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether the batch comes from an idempotent producer.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id >= 0
    }

    /// Sequence of the last record; sequences wrap from `i32::MAX` to 0. Meaningless without a producer id.
    pub fn last_sequence(&self) -> i32 {
        add_sequence(self.base_sequence, self.last_offset_delta)
    }

    /// Checksum that this header and the given records should have.
    fn compute_checksum(&self, records: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.encode()[CHECKSUM_FROM..]), records)
    }
}

/// Adds to a sequence as Kafka does: `i32::MAX` is followed by 0.
pub fn add_sequence(sequence: i32, increment: i32) -> i32 {
    let modulus = i64::from(i32::MAX) + 1;
    (i64::from(sequence) + i64::from(increment)).rem_euclid(modulus) as i32
}

/// The bytes of a batch that the broker assigns at append; they lie outside the checksum.
pub fn patch_prefix(base_offset: i64, length: i32, leader_epoch: i32) -> [u8; BATCH_PREFIX_BYTES] {
    let mut prefix = [0; BATCH_PREFIX_BYTES];
    prefix[..8].copy_from_slice(&base_offset.to_be_bytes());
    prefix[8..12].copy_from_slice(&length.to_be_bytes());
    prefix[12..].copy_from_slice(&leader_epoch.to_be_bytes());
    prefix
}

#[cfg(test)]
mod tests {
    use super::testing::BatchBuilder;
    use super::{BatchHeader, add_sequence};

    #[test]
    fn header_round_trips() {
        let batch = BatchBuilder::new().producer(7, 3, 11).records(5).base_offset(42).build();
        let header = BatchHeader::parse(&batch).expect("a built batch parses");
        assert_eq!(header.encode()[..], batch[..61]);
        assert_eq!(header.last_offset(), 46);
        assert_eq!(header.last_sequence(), 15);
        assert_eq!(header.total_bytes(), batch.len());
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(add_sequence(i32::MAX, 1), 0);
        assert_eq!(add_sequence(i32::MAX - 1, 3), 1);
        assert_eq!(add_sequence(5, 0), 5);
    }
}
