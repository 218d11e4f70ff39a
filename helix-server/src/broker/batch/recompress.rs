//! Compresses a batch's records anew, for topics whose `compression.type` is not the producer's.
//!
//! Records go through one at a time and are checked on the way as strictly as those that came uncompressed: neither all of them decompressed
//! nor more than the largest batch compressed is ever in memory.

use std::io::{self, Read, Write};

use bytes::Bytes;

use super::records::{self, SpanBuilder, TimestampSpan};
use super::{BATCH_HEADER_BYTES, BatchError, BatchHeader, Compression, MAX_DECOMPRESSED_BYTES, compression};

/// What the records of a topic are compressed with (`compression.type`, and KIP-390 for the levels).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoredCompression {
    /// As the producer sent them.
    #[default]
    AsProduced,
    /// With nothing.
    Uncompressed,
    /// gzip, with this level from 1 to 9.
    Gzip(u32),
    /// Snappy, in the framing of snappy-java.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard, with this level.
    Zstd(i32),
}

impl StoredCompression {
    /// What records are compressed with that came like this.
    pub fn of(self, produced: Compression) -> Compression {
        match self {
            Self::AsProduced => produced,
            Self::Uncompressed => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd(_) => Compression::Zstd,
        }
    }
}

/// The records of a batch in another compression, and what their timestamps span. They may take `limit_bytes` at most.
pub(super) fn recompress(
    header: &BatchHeader,
    batch: &[u8],
    target: StoredCompression,
    limit_bytes: usize,
    keyed: bool,
) -> Result<(Bytes, TimestampSpan), BatchError> {
    let failed = |error| failed_output(&error, limit_bytes);
    let mut output =
        compression::Encoder::new(target, Limited { bytes: Vec::new(), limit_bytes }).map_err(failed)?;
    let span = walk(header, batch, keyed, |record| output.write_all(record).map_err(failed))?;
    Ok((output.finish().map_err(failed)?.bytes.into(), span))
}

/// Checks the records of a compressed batch as if they had come uncompressed, and that each has a key.
pub(super) fn check_keyed(header: &BatchHeader, batch: &[u8]) -> Result<TimestampSpan, BatchError> {
    walk(header, batch, true, |_| Ok(()))
}

/// Shows the records of a batch one by one, checks them, and tells what their timestamps span.
fn walk(
    header: &BatchHeader,
    batch: &[u8],
    keyed: bool,
    mut show: impl FnMut(&[u8]) -> Result<(), BatchError>,
) -> Result<TimestampSpan, BatchError> {
    let produced = batch.get(BATCH_HEADER_BYTES..).unwrap_or_default();
    let mut input = compression::open(header.compression()?, produced, MAX_DECOMPRESSED_BYTES)?;
    let mut span = SpanBuilder::default();
    let mut record = Vec::new();
    let mut left = MAX_DECOMPRESSED_BYTES;
    for ordinal in 0..header.record_count {
        read_record(&mut input, &mut record, left, ordinal)?;
        left = left.saturating_sub(record.len() as u64);
        let malformed = |reason| BatchError::Record { ordinal, reason };
        let checked = records::check_one(&record, header.base_timestamp_ms, ordinal).map_err(malformed)?;
        span.add(checked.with_key(keyed, ordinal)?.timestamp_ms);
        show(&record)?;
    }
    if input.read(&mut [0]).map_err(|error| failed_input(&error))? > 0 {
        let reason = "bytes follow the last record";
        return Err(BatchError::Record { ordinal: header.record_count, reason });
    }
    Ok(span.finish())
}

/// Reads one record, its length in front.
fn read_record(
    input: &mut impl Read,
    record: &mut Vec<u8>,
    left_bytes: u64,
    ordinal: i32,
) -> Result<(), BatchError> {
    record.clear();
    let mut broken = None;
    let length = records::read_varint(|| {
        let mut byte = [0];
        input.read_exact(&mut byte).map_err(|error| {
            broken = Some(error);
            "ends in the middle of a record"
        })?;
        record.push(byte[0]);
        Ok::<u8, &'static str>(byte[0])
    });
    if let Some(error) = broken {
        return Err(failed_input(&error));
    }
    let malformed = |reason| BatchError::Record { ordinal, reason };
    let length = u64::try_from(length.map_err(malformed)?).map_err(|_| malformed("negative length"))?;
    if length > left_bytes {
        return Err(BatchError::DecompressedTooLarge { limit: MAX_DECOMPRESSED_BYTES });
    }
    // Not reserved in advance: the length is only a claim yet.
    let read = input.take(length).read_to_end(record).map_err(|error| failed_input(&error))?;
    if read as u64 == length { Ok(()) } else { Err(malformed("ends in the middle of a record")) }
}

fn failed_input(error: &io::Error) -> BatchError {
    BatchError::Decompress { reason: error.to_string() }
}

/// Memory does not fail: only the limit is in the way.
fn failed_output(_: &io::Error, limit_bytes: usize) -> BatchError {
    BatchError::TooLarge {
        bytes: limit_bytes + BATCH_HEADER_BYTES + 1,
        limit: limit_bytes + BATCH_HEADER_BYTES,
    }
}

/// Bytes, up to a limit.
#[derive(Debug)]
pub(super) struct Limited {
    bytes: Vec<u8>,
    limit_bytes: usize,
}

impl Write for Limited {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > self.limit_bytes {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the batch would be too large"));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{BatchBuilder, SnappyFraming, with_checksum};
    use super::super::{ProduceRules, TimestampRule, validate_produce};
    use super::*;

    const SOURCES: [(Compression, SnappyFraming); 6] = [
        (Compression::None, SnappyFraming::Raw),
        (Compression::Gzip, SnappyFraming::Raw),
        (Compression::Snappy, SnappyFraming::Raw),
        (Compression::Snappy, SnappyFraming::Xerial),
        (Compression::Lz4, SnappyFraming::Raw),
        (Compression::Zstd, SnappyFraming::Raw),
    ];
    const TARGETS: [StoredCompression; 5] = [
        StoredCompression::Uncompressed,
        StoredCompression::Gzip(6),
        StoredCompression::Snappy,
        StoredCompression::Lz4,
        StoredCompression::Zstd(3),
    ];

    fn rules(compression: StoredCompression) -> ProduceRules {
        ProduceRules {
            segment_bytes: 1 << 30,
            max_batch_bytes: 1 << 20,
            timestamps: TimestampRule::CreateTime { before_max_ms: i64::MAX, after_max_ms: i64::MAX },
            now_ms: 0,
            produce_version: 9,
            compression,
            keyed: false,
        }
    }

    fn stored(batch: &Bytes, rules: &ProduceRules) -> Bytes {
        validate_produce(batch, rules).expect("valid").chunks(0, 3).concat().into()
    }

    /// The records as they are when nothing is compressed.
    fn plain(batch: &Bytes) -> Vec<u8> {
        let header = BatchHeader::parse(batch).expect("a header");
        let records = &batch[BATCH_HEADER_BYTES..header.total_bytes()];
        let mut out = Vec::new();
        compression::open(header.compression().expect("known"), records, 1 << 30)
            .expect("opens")
            .read_to_end(&mut out)
            .expect("decompresses");
        out
    }

    #[test]
    fn every_compression_becomes_every_other() {
        for (source, framing) in SOURCES {
            // Large enough for several blocks of snappy and LZ4.
            let sent = BatchBuilder::new()
                .producer(9, 2, 40)
                .record_value_bytes(30_000)
                .timestamps_ms(&[50, 70, 60, 80, 10])
                .compression(source, framing)
                .build();
            for target in TARGETS {
                let kept = stored(&sent, &rules(target));
                let header = BatchHeader::parse(&kept).expect("a header");
                assert_eq!(header.compression().expect("known"), target.of(source));
                assert_eq!(plain(&kept), plain(&sent), "{source:?} {target:?}");
                assert_eq!(header.total_bytes(), kept.len());
                assert_eq!(header.checksum, crc32c::crc32c(&kept[21..]));
                let sent = BatchHeader::parse(&sent).expect("a header");
                let numbers = |h: &BatchHeader| {
                    (h.producer_id, h.producer_epoch, h.base_sequence, h.record_count, h.max_timestamp_ms)
                };
                assert_eq!(numbers(&header), numbers(&sent));
            }
        }
    }

    #[test]
    fn the_same_compression_is_kept_as_it_came() {
        let sent = BatchBuilder::new().records(3).compression(Compression::Gzip, SnappyFraming::Raw).build();
        for kept in [StoredCompression::AsProduced, StoredCompression::Gzip(9)] {
            assert_eq!(stored(&sent, &rules(kept))[16..], sent[16..]);
            assert!(!rules(kept).take_time(&sent));
            assert!(ProduceRules { keyed: true, ..rules(kept) }.take_time(&sent), "it has to be looked into");
        }
        assert!(rules(StoredCompression::Zstd(1)).take_time(&sent));
        assert!(!rules(StoredCompression::Zstd(1)).take_time(&sent[..60]), "nobody knows");
    }

    #[test]
    fn the_broker_knows_the_largest_timestamp_then() {
        let sent = BatchBuilder::new()
            .timestamps_ms(&[50, 70])
            .compression(Compression::Gzip, SnappyFraming::Raw)
            .build();
        let mut claimed = sent.to_vec();
        claimed[35..43].copy_from_slice(&999_i64.to_be_bytes());
        let claimed = with_checksum(claimed);
        let newest = |batch: &Bytes| BatchHeader::parse(batch).expect("a header").max_timestamp_ms;
        assert_eq!(newest(&stored(&claimed, &rules(StoredCompression::Lz4))), 70);
    }

    #[test]
    fn what_gets_too_large_is_refused() {
        let sent = BatchBuilder::new()
            .record_value_bytes(5000)
            .compression(Compression::Zstd, SnappyFraming::Raw)
            .build();
        let small = ProduceRules { max_batch_bytes: 1000, ..rules(StoredCompression::Uncompressed) };
        let refused = validate_produce(&sent, &small).expect_err("too large");
        assert!(matches!(refused, BatchError::TooLarge { bytes: 1001, limit: 1000 }), "{refused}");
        let whole = plain(&sent).len() + BATCH_HEADER_BYTES;
        let fits = ProduceRules { max_batch_bytes: whole, ..small };
        assert_eq!(stored(&sent, &fits).len(), whole);
        validate_produce(&sent, &ProduceRules { max_batch_bytes: whole - 1, ..small }).expect_err("one less");
    }

    #[test]
    fn malformed_records_are_refused() {
        let sent = BatchBuilder::new().records(2).build();
        let with_count = |count: i32| {
            let mut batch = sent.to_vec();
            batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
            batch[57..61].copy_from_slice(&count.to_be_bytes());
            with_checksum(batch)
        };
        let refusal = |batch: &Bytes| {
            validate_produce(batch, &rules(StoredCompression::Gzip(1))).expect_err("refused").to_string()
        };
        assert!(refusal(&with_count(1)).contains("bytes follow"));
        assert!(matches!(
            validate_produce(&with_count(3), &rules(StoredCompression::Gzip(1))),
            Err(BatchError::Decompress { .. })
        ));
        let mut batch = sent.to_vec();
        batch[BATCH_HEADER_BYTES] = 0x7f; // a record of -64 bytes
        assert!(refusal(&with_checksum(batch)).contains("negative length"));
    }
}
