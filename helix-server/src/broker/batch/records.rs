//! Walks the records of an uncompressed batch without allocating, as strictly as Kafka does.

use super::{BatchError, BatchHeader, NO_TIMESTAMP};

/// Fewest bytes a record takes: attributes, two deltas, key and value length, header count.
const RECORD_MIN_BYTES: usize = 6;

/// What the timestamps of a batch really span; records without a timestamp do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimestampSpan {
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
}

/// Puts a span together.
#[derive(Debug)]
pub(super) struct SpanBuilder(TimestampSpan);

impl Default for SpanBuilder {
    fn default() -> Self {
        Self(TimestampSpan { min_ms: i64::MAX, max_ms: NO_TIMESTAMP })
    }
}

impl SpanBuilder {
    pub(super) fn add(&mut self, timestamp_ms: i64) {
        if timestamp_ms != NO_TIMESTAMP {
            self.0.min_ms = self.0.min_ms.min(timestamp_ms);
            self.0.max_ms = self.0.max_ms.max(timestamp_ms);
        }
    }

    pub(super) fn finish(self) -> TimestampSpan {
        TimestampSpan { min_ms: self.0.min_ms.min(self.0.max_ms), ..self.0 }
    }
}

/// What was found out about one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) timestamp_ms: i64,
    has_key: bool,
}

impl Checked {
    /// `keyed`: the record has to have a key.
    pub(super) fn with_key(self, keyed: bool, ordinal: i32) -> Result<Self, BatchError> {
        if keyed && !self.has_key { Err(BatchError::WithoutKey { ordinal }) } else { Ok(self) }
    }
}

/// Checks every record behind `header` and returns the span of their timestamps. `keyed`: each has to have a key.
pub(super) fn check_records(
    header: &BatchHeader,
    records: &[u8],
    keyed: bool,
) -> Result<TimestampSpan, BatchError> {
    let mut rest = Cursor { rest: records };
    let mut span = SpanBuilder::default();
    for ordinal in 0..header.record_count {
        let malformed = |reason| BatchError::Record { ordinal, reason };
        let checked = check_record(&mut rest, header.base_timestamp_ms, ordinal).map_err(malformed)?;
        span.add(checked.with_key(keyed, ordinal)?.timestamp_ms);
    }
    if rest.rest.is_empty() {
        Ok(span.finish())
    } else {
        Err(BatchError::Record { ordinal: header.record_count, reason: "bytes follow the last record" })
    }
}

/// Checks one record, its length in front.
pub(super) fn check_one(
    record: &[u8],
    base_timestamp_ms: i64,
    ordinal: i32,
) -> Result<Checked, &'static str> {
    check_record(&mut Cursor { rest: record }, base_timestamp_ms, ordinal)
}

fn check_record(
    batch: &mut Cursor<'_>,
    base_timestamp_ms: i64,
    ordinal: i32,
) -> Result<Checked, &'static str> {
    let length = usize::try_from(batch.varint()?).map_err(|_| "negative length")?;
    if length < RECORD_MIN_BYTES {
        return Err("length too small for a record");
    }
    let mut record = Cursor { rest: batch.take(length)? };
    record.take(1)?; // attributes: none are defined
    let timestamp_ms =
        base_timestamp_ms.checked_add(record.varlong()?).ok_or("timestamp delta overflows the timestamp")?;
    if record.varint()? != ordinal {
        return Err("offset delta is not the record's position in the batch");
    }
    let has_key = record.skip_nullable()?;
    record.skip_nullable()?;
    let headers = usize::try_from(record.varint()?).map_err(|_| "negative header count")?;
    for _ in 0..headers {
        let key = usize::try_from(record.varint()?).map_err(|_| "negative header key length")?;
        record.take(key)?;
        record.skip_nullable()?;
    }
    if record.rest.is_empty() {
        Ok(Checked { timestamp_ms, has_key })
    } else {
        Err("length does not match the record's content")
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("a length reaches past the end")?;
        self.rest = rest;
        Ok(taken)
    }

    /// Whether there was anything, if only of no length.
    fn skip_nullable(&mut self) -> Result<bool, &'static str> {
        match self.varint()? {
            -1 => Ok(false),
            length => {
                let length = usize::try_from(length).map_err(|_| "negative length")?;
                self.take(length).map(|_| true)
            }
        }
    }

    fn varint(&mut self) -> Result<i32, &'static str> {
        read_varint(|| self.byte())
    }

    fn varlong(&mut self) -> Result<i64, &'static str> {
        read_varlong(|| self.byte())
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let (&first, rest) = self.rest.split_first().ok_or("ends in the middle of a record")?;
        self.rest = rest;
        Ok(first)
    }
}

/// Reads a zigzag varint of at most 5 bytes.
pub(super) fn read_varint<E: From<&'static str>>(mut next: impl FnMut() -> Result<u8, E>) -> Result<i32, E> {
    let mut value: u32 = 0;
    for shift in (0..35).step_by(7) {
        let byte = next()?;
        value |= u32::from(byte & 0x7f).wrapping_shl(shift);
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i32 ^ -((value & 1) as i32));
        }
    }
    Err("a varint is longer than 5 bytes".into())
}

/// Reads a zigzag varint of at most 10 bytes.
pub(super) fn read_varlong<E: From<&'static str>>(mut next: impl FnMut() -> Result<u8, E>) -> Result<i64, E> {
    let mut value: u64 = 0;
    for shift in (0..70).step_by(7) {
        let byte = next()?;
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        if byte & 0x80 == 0 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err("a varint is longer than 10 bytes".into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::BatchHeader;
    use super::super::testing::{BatchBuilder, put_varlong};
    use super::{Cursor, check_records};

    #[test]
    fn every_cut_of_a_record_is_malformed() {
        let batch = BatchBuilder::new().records(3).build();
        let header = BatchHeader::parse(&batch).expect("valid");
        let records = &batch[61..];
        check_records(&header, records, false).expect("the whole is well formed");
        for end in 0..records.len() {
            check_records(&header, &records[..end], false).expect_err("a cut is malformed");
        }
        let longer = [records, &[0]].concat();
        check_records(&header, &longer, false).expect_err("a byte too many is malformed");
    }

    proptest! {
        #[test]
        fn varints_round_trip(value in any::<i64>()) {
            let mut bytes = Vec::new();
            put_varlong(&mut bytes, value);
            prop_assert_eq!(Cursor { rest: &bytes }.varlong(), Ok(value));
            if let Ok(small) = i32::try_from(value) {
                prop_assert_eq!(Cursor { rest: &bytes }.varint(), Ok(small));
            }
        }

        #[test]
        fn small_varints_round_trip(value in any::<i32>()) {
            let mut bytes = Vec::new();
            put_varlong(&mut bytes, i64::from(value));
            prop_assert_eq!(Cursor { rest: &bytes }.varint(), Ok(value));
        }

        #[test]
        fn random_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), count in 1_i32..5) {
            let batch = BatchBuilder::new().records(1).build();
            let header = BatchHeader { record_count: count, ..BatchHeader::parse(&batch).expect("valid") };
            let _ = check_records(&header, &bytes, false);
        }
    }
}
