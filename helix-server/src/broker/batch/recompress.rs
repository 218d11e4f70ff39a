//! Compresses the records of a batch as its topic wants it (`compression.type`), where the producer did it differently.

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::lookup::MAX_DECOMPRESSED_BYTES;
use super::{
    BATCH_HEADER_BYTES, BatchError, BatchHeader, COMPRESSION_MASK, Compression, LENGTH_OVERHEAD_BYTES,
};

/// Bytes of records in one block of snappy-java's framing.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// Both versions in the header of snappy-java's framing.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];

/// How a topic wants its records compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CompressionRule {
    /// As the producer did it.
    #[default]
    Producer,
    /// Not at all.
    Uncompressed,
    /// gzip, with a level from 1 to 9, or -1 for the usual one.
    Gzip {
        /// `compression.gzip.level`.
        level: i32,
    },
    /// Snappy in the framing of snappy-java.
    Snappy,
    /// LZ4 frame format.
    Lz4,
    /// Zstandard.
    Zstd {
        /// `compression.zstd.level`.
        level: i32,
    },
}

impl CompressionRule {
    /// Whether records that are compressed in this way have to be compressed anew. The level is not looked at, as in Kafka.
    fn differs_from(self, compression: Compression) -> bool {
        match self {
            Self::Producer => false,
            Self::Uncompressed => compression != Compression::None,
            Self::Gzip { .. } => compression != Compression::Gzip,
            Self::Snappy => compression != Compression::Snappy,
            Self::Lz4 => compression != Compression::Lz4,
            Self::Zstd { .. } => compression != Compression::Zstd,
        }
    }

    fn code(self) -> i16 {
        match self {
            Self::Producer | Self::Uncompressed => 0,
            Self::Gzip { .. } => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd { .. } => 4,
        }
    }

    fn compress(self, records: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Producer | Self::Uncompressed => Ok(records.to_vec()),
            Self::Gzip { level } => {
                let level =
                    u32::try_from(level).map_or(flate2::Compression::default(), flate2::Compression::new);
                let mut out = flate2::write::GzEncoder::new(Vec::new(), level);
                out.write_all(records)?;
                out.finish()
            }
            Self::Snappy => snappy_java(records),
            Self::Lz4 => {
                let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
                out.write_all(records)?;
                out.finish().map_err(io::Error::other)
            }
            Self::Zstd { level } => zstd::stream::encode_all(records, level),
        }
    }
}

fn snappy_java(records: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = super::compression::XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&XERIAL_VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block).map_err(io::Error::other)?;
        out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

/// Records that were compressed anew.
pub(super) struct Recompressed {
    /// The header that fits them, except for its checksum.
    pub(super) header: BatchHeader,
    /// The records, not compressed.
    pub(super) plain: Vec<u8>,
    /// The records as they are to be stored.
    pub(super) body: Bytes,
}

/// Compresses the records anew if the topic wants it. `None` if they may stay as they are.
pub(super) fn recompress(
    header: &BatchHeader,
    compression: Compression,
    records: &[u8],
    rule: CompressionRule,
) -> Result<Option<Recompressed>, BatchError> {
    if !rule.differs_from(compression) {
        return Ok(None);
    }
    let failed = |error: io::Error| BatchError::Decompress { reason: error.to_string() };
    let mut plain = Vec::new();
    super::compression::open(compression, records, MAX_DECOMPRESSED_BYTES)?
        .take(MAX_DECOMPRESSED_BYTES + 1)
        .read_to_end(&mut plain)
        .map_err(failed)?;
    if plain.len() as u64 > MAX_DECOMPRESSED_BYTES {
        return Err(BatchError::DecompressedTooLarge { limit: MAX_DECOMPRESSED_BYTES });
    }
    let body = rule.compress(&plain).map_err(failed)?;
    let length = i32::try_from(BATCH_HEADER_BYTES - LENGTH_OVERHEAD_BYTES + body.len());
    let length = length.map_err(|_| BatchError::DecompressedTooLarge { limit: MAX_DECOMPRESSED_BYTES })?;
    let attributes = header.attributes & !COMPRESSION_MASK | rule.code();
    let header = BatchHeader { length, attributes, ..*header };
    Ok(Some(Recompressed { header, plain, body: body.into() }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{BatchBuilder, SnappyFraming};
    use super::super::{ProduceRules, TimestampRule, validate_produce};
    use super::*;

    const RULES: [CompressionRule; 6] = [
        CompressionRule::Uncompressed,
        CompressionRule::Gzip { level: -1 },
        CompressionRule::Gzip { level: 9 },
        CompressionRule::Snappy,
        CompressionRule::Lz4,
        CompressionRule::Zstd { level: 3 },
    ];
    const PRODUCERS: [(Compression, SnappyFraming); 6] = [
        (Compression::None, SnappyFraming::Raw),
        (Compression::Gzip, SnappyFraming::Raw),
        (Compression::Snappy, SnappyFraming::Raw),
        (Compression::Snappy, SnappyFraming::Xerial),
        (Compression::Lz4, SnappyFraming::Raw),
        (Compression::Zstd, SnappyFraming::Raw),
    ];

    fn rules(compression: CompressionRule) -> ProduceRules {
        ProduceRules {
            max_batch_bytes: 1 << 20,
            segment_bytes: 1 << 20,
            timestamps: TimestampRule::CreateTime { before_max_ms: i64::MAX, after_max_ms: i64::MAX },
            compression,
            now_ms: 5000,
            produce_version: 9,
        }
    }

    fn plain(batch: &[u8]) -> Vec<u8> {
        let header = BatchHeader::parse(batch).unwrap();
        let compression = header.compression().unwrap();
        let mut records = Vec::new();
        let mut stream = super::super::compression::open(compression, &batch[61..], u64::MAX).unwrap();
        stream.read_to_end(&mut records).unwrap();
        records
    }

    proptest! {
        #[test]
        fn records_stay_the_same_whatever_their_compression(
            from in 0..PRODUCERS.len(), to in 0..RULES.len(), records in 1usize..200, value_bytes in 0usize..500
        ) {
            let (compression, framing) = PRODUCERS[from];
            let sent = BatchBuilder::new()
                .producer(9, 1, 3)
                .records(records)
                .record_value_bytes(value_bytes)
                .compression(compression, framing)
                .build();
            let valid = validate_produce(&sent, &rules(RULES[to])).unwrap();
            let stored = valid.chunks(70, 4).concat();
            prop_assert_eq!(plain(&stored), plain(&sent));
            let header = BatchHeader::parse(&stored).unwrap();
            prop_assert_eq!(header.total_bytes(), stored.len());
            prop_assert_eq!(valid.total_bytes(), stored.len());
            prop_assert_eq!(header.attributes & COMPRESSION_MASK, RULES[to].code());
            prop_assert_eq!(crc32c::crc32c(&stored[21..]), header.checksum);
            prop_assert_eq!((header.producer_id, header.base_sequence), (9, 3));
            prop_assert_eq!((header.record_count as usize, header.base_offset), (records, 70));
        }
    }

    #[test]
    fn what_is_compressed_as_wanted_is_not_touched() {
        let sent = BatchBuilder::new().compression(Compression::Zstd, SnappyFraming::Raw).build();
        for rule in [CompressionRule::Producer, CompressionRule::Zstd { level: 19 }] {
            let valid = validate_produce(&sent, &rules(rule)).unwrap();
            let [_, tail] = valid.chunks(0, 0);
            assert_eq!(tail.as_ptr(), sent[16..].as_ptr());
        }
    }

    #[test]
    fn what_grows_too_large_is_refused() {
        let sent = BatchBuilder::new()
            .record_value_bytes(100_000)
            .compression(Compression::Zstd, SnappyFraming::Raw)
            .build();
        let small = ProduceRules { max_batch_bytes: 50_000, ..rules(CompressionRule::Uncompressed) };
        let error = validate_produce(&sent, &small).expect_err("too large");
        assert!(matches!(error, BatchError::TooLarge { limit: 50_000, .. }));
        let kept = ProduceRules { compression: CompressionRule::Producer, ..small };
        validate_produce(&sent, &kept).expect("small as it is");
    }

    #[test]
    fn records_that_are_none_are_refused_once_they_are_looked_at() {
        let mut body = Vec::new();
        body.extend_from_slice(b"no records");
        let sent = BatchBuilder::new().build();
        let mut header = BatchHeader::parse(&sent).unwrap();
        let compressed = CompressionRule::Zstd { level: 3 }.compress(&body).unwrap();
        header.length = 49 + compressed.len() as i32;
        header.attributes = 4;
        header.checksum = header.compute_checksum(&compressed);
        let batch = Bytes::from([&header.encode()[..], &compressed].concat());
        let error = validate_produce(&batch, &rules(CompressionRule::Lz4)).expect_err("no records");
        assert!(matches!(error, BatchError::Record { .. }));
    }
}
