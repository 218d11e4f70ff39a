//! Finds records of a stored batch by timestamp, through whatever compression it has.

use std::io::{self, Read};

use bytes::Bytes;

use super::records::{read_varint, read_varlong};
use super::{BATCH_HEADER_BYTES, BatchError, BatchHeader, NO_TIMESTAMP, compression};

/// Records are read up to this many decompressed bytes of one batch.
pub const MAX_DECOMPRESSED_BYTES: u64 = 128 * 1024 * 1024;

/// A record's place and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Offset of the record.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp_ms: i64,
}

/// The first record of a stored batch at or behind `min_offset` whose timestamp is at least `target_ms`.
pub fn first_at_or_after(
    batch: &Bytes,
    target_ms: i64,
    min_offset: i64,
) -> Result<Option<TimestampedOffset>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.max_timestamp_ms < target_ms || header.last_offset() < min_offset {
        return Ok(None);
    }
    let mut records = StoredRecords::open(&header, batch, MAX_DECOMPRESSED_BYTES)?;
    while let Some(record) = records.next()? {
        if record.timestamp_ms >= target_ms && record.offset >= min_offset {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// The first record of a stored batch that holds the batch's largest timestamp; `None` if the batch has no records, or they have
/// no timestamps.
pub fn record_of_max_timestamp(batch: &Bytes) -> Result<Option<TimestampedOffset>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    if header.max_timestamp_ms == NO_TIMESTAMP {
        return Ok(None);
    }
    let mut records = StoredRecords::open(&header, batch, MAX_DECOMPRESSED_BYTES)?;
    let mut best: Option<TimestampedOffset> = None;
    while let Some(record) = records.next()? {
        if best.is_none_or(|best| best.timestamp_ms < record.timestamp_ms) {
            best = Some(record);
        }
        if record.timestamp_ms == header.max_timestamp_ms {
            break;
        }
    }
    Ok(best)
}

/// The records of one batch as a stream of (offset, timestamp).
struct StoredRecords<'a> {
    header: BatchHeader,
    ordinal: i32,
    input: Box<dyn Read + 'a>,
    read_bytes: u64,
    limit_bytes: u64,
}

/// Why the stream broke.
enum Broken {
    Io(io::Error),
    Malformed(&'static str),
    TooLarge,
}

impl From<&'static str> for Broken {
    fn from(reason: &'static str) -> Self {
        Self::Malformed(reason)
    }
}

impl<'a> StoredRecords<'a> {
    fn open(header: &BatchHeader, batch: &'a [u8], limit_bytes: u64) -> Result<Self, BatchError> {
        let needed = header.total_bytes();
        let records = batch
            .get(BATCH_HEADER_BYTES..needed)
            .ok_or(BatchError::Truncated { needed, available: batch.len() })?;
        let input = compression::open(header.compression()?, records, limit_bytes)?;
        Ok(Self { header: *header, ordinal: 0, input, read_bytes: 0, limit_bytes })
    }

    fn next(&mut self) -> Result<Option<TimestampedOffset>, BatchError> {
        if self.ordinal >= self.header.record_count {
            return Ok(None);
        }
        let ordinal = self.ordinal;
        self.ordinal += 1;
        self.read_record().map(Some).map_err(|broken| match broken {
            Broken::Io(error) => BatchError::Decompress { reason: error.to_string() },
            Broken::Malformed(reason) => BatchError::Record { ordinal, reason },
            Broken::TooLarge => BatchError::DecompressedTooLarge { limit: self.limit_bytes },
        })
    }

    fn read_record(&mut self) -> Result<TimestampedOffset, Broken> {
        let length = read_varint(|| self.byte())?;
        let length = u64::try_from(length).map_err(|_| "negative length")?;
        let start = self.read_bytes;
        self.byte()?; // attributes
        let timestamp_delta = read_varlong(|| self.byte())?;
        let offset_delta = read_varint(|| self.byte())?;
        let left = length.checked_sub(self.read_bytes - start).ok_or("length too small for a record")?;
        self.skip(left)?;
        let timestamp_ms = if self.header.has_log_append_time() {
            self.header.max_timestamp_ms
        } else {
            self.header.base_timestamp_ms.saturating_add(timestamp_delta)
        };
        Ok(TimestampedOffset {
            offset: self.header.base_offset.saturating_add(i64::from(offset_delta)),
            timestamp_ms,
        })
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        let mut byte = [0];
        self.input.read_exact(&mut byte).map_err(Broken::Io)?;
        self.count(1)?;
        Ok(byte[0])
    }

    fn skip(&mut self, count: u64) -> Result<(), Broken> {
        self.count(count)?;
        let copied = io::copy(&mut (&mut self.input).take(count), &mut io::sink()).map_err(Broken::Io)?;
        if copied == count { Ok(()) } else { Err("ends in the middle of a record".into()) }
    }

    fn count(&mut self, bytes: u64) -> Result<(), Broken> {
        self.read_bytes += bytes;
        if self.read_bytes > self.limit_bytes { Err(Broken::TooLarge) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{BatchBuilder, SnappyFraming};
    use super::super::{BatchError, BatchHeader, Compression};
    use super::{StoredRecords, TimestampedOffset, first_at_or_after, record_of_max_timestamp};

    const ALL: [(Compression, SnappyFraming); 6] = [
        (Compression::None, SnappyFraming::Raw),
        (Compression::Gzip, SnappyFraming::Raw),
        (Compression::Snappy, SnappyFraming::Raw),
        (Compression::Snappy, SnappyFraming::Xerial),
        (Compression::Lz4, SnappyFraming::Raw),
        (Compression::Zstd, SnappyFraming::Raw),
    ];

    #[test]
    fn ties_are_won_by_the_first_record() {
        for (compression, framing) in ALL {
            let batch = BatchBuilder::new()
                .base_offset(100)
                .timestamps_ms(&[50, 70, 60, 70])
                .compression(compression, framing)
                .build();
            let newest = record_of_max_timestamp(&batch).expect("readable");
            assert_eq!(newest, Some(TimestampedOffset { offset: 101, timestamp_ms: 70 }));
            let found = |target, from| first_at_or_after(&batch, target, from).expect("readable");
            assert_eq!(found(55, 0).map(|hit| hit.offset), Some(101));
            assert_eq!(found(55, 102).map(|hit| hit.offset), Some(102));
            assert_eq!(found(71, 0), None);
        }
    }

    #[test]
    fn log_append_time_counts_for_every_record() {
        let batch = BatchBuilder::new().timestamps_ms(&[50, 70]).stored_log_append_time(900).build();
        let hit = first_at_or_after(&batch, 899, 1).expect("readable");
        assert_eq!(hit, Some(TimestampedOffset { offset: 1, timestamp_ms: 900 }));
    }

    #[test]
    fn records_without_timestamps_have_no_newest() {
        let batch = BatchBuilder::new().timestamps_ms(&[-1, -1]).build();
        assert_eq!(record_of_max_timestamp(&batch).expect("readable"), None);
    }

    #[test]
    fn a_decompression_bomb_is_cut_off() {
        for (compression, framing) in ALL {
            let batch = BatchBuilder::new()
                .record_value_bytes(20_000)
                .timestamps_ms(&[1, 2])
                .compression(compression, framing)
                .build();
            let header = BatchHeader::parse(&batch).expect("valid");
            let read_all = |limit_bytes| {
                let mut records = StoredRecords::open(&header, &batch, limit_bytes)?;
                while records.next()?.is_some() {}
                Ok::<(), BatchError>(())
            };
            read_all(50_000).expect("small enough");
            read_all(30_000).expect_err("too large to be read");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn lookups_agree_with_a_scan(
            timestamps in prop::collection::vec(0_i64..50, 1..30),
            target in 0_i64..55,
            which in 0_usize..ALL.len(),
        ) {
            let (compression, framing) = ALL[which];
            let batch =
                BatchBuilder::new().base_offset(7).timestamps_ms(&timestamps).compression(compression, framing).build();
            let place = |at: usize| TimestampedOffset { offset: 7 + at as i64, timestamp_ms: timestamps[at] };
            let expected = timestamps.iter().position(|&ts| ts >= target).map(place);
            prop_assert_eq!(first_at_or_after(&batch, target, 0).expect("readable"), expected);
            let newest = timestamps.iter().max().and_then(|max| timestamps.iter().position(|ts| ts == max)).map(place);
            prop_assert_eq!(record_of_max_timestamp(&batch).expect("readable"), newest);
        }

        #[test]
        fn damaged_batches_never_panic(
            which in 0_usize..ALL.len(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let (compression, framing) = ALL[which];
            let batch = BatchBuilder::new().records(5).compression(compression, framing).build();
            let mut bytes = batch.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let bytes = bytes.into();
            let _ = first_at_or_after(&bytes, 0, 0);
            let _ = record_of_max_timestamp(&bytes);
        }
    }
}
