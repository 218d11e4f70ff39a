//! A coordinator's log as record batches: the same as in Kafka, so that tools which read the internal topics can read these.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record,
    RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use super::{ReplayError, WriteError};
use crate::broker::batch::{ProduceRules, StoredCompression, TimestampRule, ValidBatch, validate_produce};
use crate::broker::produce::AppendError;

/// Largest batch written. An entry gathers batches up to `helix.batch.max.bytes`, and takes one that is larger alone.
pub(super) const MAX_BATCH_BYTES: usize = 16 << 20;
/// A version whose rules are those of today's batches.
const PRODUCE_VERSION: i16 = 13;

/// One record of a coordinator's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogRecord {
    /// What it is about.
    pub(crate) key: Bytes,
    /// `None`: there is no such thing any more.
    pub(crate) value: Option<Bytes>,
}

impl LogRecord {
    /// Bytes of key and value.
    pub(super) fn len_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// One batch of these records.
///
/// # Errors
/// When they are more than a batch may hold.
pub(super) fn to_batch(records: &[LogRecord], now_ms: i64) -> Result<ValidBatch, WriteError> {
    let records: Vec<Record> =
        (0..).zip(records).map(|(offset, record)| to_record(offset, record, now_ms)).collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    let encoded = RecordBatchEncoder::encode(&mut bytes, &records, &options);
    if encoded.is_err() || bytes.len() > MAX_BATCH_BYTES {
        return Err(WriteError::TooLarge { bytes: bytes.len(), limit: MAX_BATCH_BYTES });
    }
    let rules = ProduceRules {
        max_batch_bytes: MAX_BATCH_BYTES,
        segment_bytes: MAX_BATCH_BYTES,
        timestamps: TimestampRule::CreateTime { before_max_ms: i64::MAX, after_max_ms: i64::MAX },
        now_ms,
        produce_version: PRODUCE_VERSION,
        compression: StoredCompression::AsProduced,
        keyed: false,
    };
    validate_produce(&bytes.freeze(), &rules).map_err(|error| AppendError::Batch(error).into())
}

fn to_record(offset: i64, record: &LogRecord, now_ms: i64) -> Record {
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: NO_PRODUCER_EPOCH,
        timestamp_type: TimestampType::Creation,
        offset,
        // The encoder puts those into one batch that count on. Only the first is written, and says that there is none.
        sequence: NO_SEQUENCE.wrapping_add(offset as i32),
        timestamp: now_ms,
        key: Some(record.key.clone()),
        value: record.value.clone(),
        headers: kafka_protocol::indexmap::IndexMap::new(),
    }
}

/// The records of whole batches, with their offsets.
///
/// # Errors
/// When they are no batches that [`to_batch`] could have made.
pub(super) fn from_batches(mut bytes: Bytes, at: i64) -> Result<Vec<(i64, LogRecord)>, ReplayError> {
    let unreadable = |reason: String| ReplayError { offset: at, reason };
    let sets = RecordBatchDecoder::decode_all(&mut bytes).map_err(|error| unreadable(error.to_string()))?;
    let records = sets.into_iter().flat_map(|set| set.records);
    let taken = records.map(|record| {
        let key = record.key.ok_or_else(|| unreadable("a record without a key".to_owned()))?;
        Ok((record.offset, LogRecord { key, value: record.value }))
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &'static str, value: Option<&'static str>) -> LogRecord {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        LogRecord { key: bytes(key), value: value.map(bytes) }
    }

    #[test]
    fn records_come_back_at_their_offsets() {
        let records = vec![record("a", Some("1")), record("b", None)];
        let batch = to_batch(&records, 1_700_000_000_000).expect("small");
        let mut bytes = BytesMut::new();
        batch.chunks(40, 3).iter().for_each(|chunk| bytes.extend_from_slice(chunk));
        let read = from_batches(bytes.freeze(), 40).expect("just written");
        assert_eq!(read, [(40, records[0].clone()), (41, records[1].clone())]);
    }

    #[test]
    fn what_is_no_batch_is_an_error_that_says_where() {
        let error = from_batches(Bytes::from_static(b"not a batch at all, but long enough for one"), 7);
        assert_eq!(error.expect_err("refused").offset, 7);
    }

    #[test]
    fn a_write_that_is_too_large_is_refused() {
        let large = LogRecord { key: Bytes::from_static(b"k"), value: Some(vec![0; MAX_BATCH_BYTES].into()) };
        assert!(matches!(to_batch(&[large], 0), Err(WriteError::TooLarge { .. })));
    }
}
