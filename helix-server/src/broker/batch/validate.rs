//! What Kafka checks before a produced batch may enter the log.

use bytes::Bytes;

use super::recompress::{check_keyed, recompress};
use super::records::{TimestampSpan, check_records};
use super::{
    BATCH_HEADER_BYTES, BATCH_PREFIX_BYTES, BatchError, BatchHeader, CHECKSUM_FROM, Compression,
    LENGTH_OVERHEAD_BYTES, LOG_APPEND_TIME_BIT, NO_TIMESTAMP, StoredCompression, patch_prefix,
};

/// Whose timestamps a topic keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampRule {
    /// The producer's, if they are within these distances of the broker's clock.
    CreateTime {
        /// `message.timestamp.before.max.ms`.
        before_max_ms: i64,
        /// `message.timestamp.after.max.ms`.
        after_max_ms: i64,
    },
    /// The time of the append.
    LogAppendTime,
}

/// What a produced batch is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProduceRules {
    /// `max.message.bytes` of the topic: limit on the whole batch.
    pub max_batch_bytes: usize,
    /// `segment.bytes` of the topic: a batch that is larger fits no segment of it.
    pub segment_bytes: usize,
    /// `message.timestamp.type` and its limits.
    pub timestamps: TimestampRule,
    /// The broker's clock.
    pub now_ms: i64,
    /// Version of the Produce request.
    pub produce_version: i16,
    /// `compression.type` of the topic.
    pub compression: StoredCompression,
    /// `cleanup.policy` of the topic has `compact`: every record needs a key.
    pub keyed: bool,
}

impl ProduceRules {
    /// Whether a produced batch has to be decompressed, or compressed: not for a thread that must not wait. Of a batch without a
    /// header nobody knows.
    pub fn take_time(&self, batch: &[u8]) -> bool {
        let produced = BatchHeader::parse(batch).and_then(|header| header.compression());
        produced.is_ok_and(|produced| {
            self.compression.of(produced) != produced || (self.keyed && produced != Compression::None)
        })
    }
}

/// A batch that may be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidBatch {
    header: BatchHeader,
    /// The bytes behind the part that [`ValidBatch::chunks`] writes anew: the request's, unless they are compressed anew.
    tail: Bytes,
    /// Whether more than the prefix differs from what the client sent.
    rewritten: bool,
}

impl ValidBatch {
    /// The header as it will be stored, except for base offset and leader epoch.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Bytes of the whole batch.
    pub fn total_bytes(&self) -> usize {
        self.header.total_bytes()
    }

    /// The batch as it is to be stored and sent, at its place in the log. The second chunk, nearly all of the batch,
    /// is a slice of the request unless the records were compressed anew.
    pub fn chunks(&self, base_offset: i64, leader_epoch: i32) -> [Bytes; 2] {
        let head = if self.rewritten {
            Bytes::copy_from_slice(&BatchHeader { base_offset, leader_epoch, ..self.header }.encode())
        } else {
            Bytes::copy_from_slice(&patch_prefix(base_offset, self.header.length, leader_epoch))
        };
        [head, self.tail.clone()]
    }
}

/// Checks the records field of one partition of a Produce request, in the order in which Kafka does.
pub fn validate_produce(records: &Bytes, rules: &ProduceRules) -> Result<ValidBatch, BatchError> {
    let header = check_framing(records)?;
    if header.base_offset != 0 {
        return Err(BatchError::BaseOffset { base_offset: header.base_offset });
    }
    if header.total_bytes() > rules.max_batch_bytes {
        return Err(BatchError::TooLarge { bytes: header.total_bytes(), limit: rules.max_batch_bytes });
    }
    let computed = crc32c::crc32c(&records[CHECKSUM_FROM..]);
    if computed != header.checksum {
        return Err(BatchError::Checksum { stored: header.checksum, computed });
    }
    check_header(&header)?;
    let compression = header.compression()?;
    if compression == Compression::Zstd && rules.produce_version < 7 {
        return Err(BatchError::ZstdTooOld);
    }
    if rules.compression.of(compression) != compression {
        return compressed_anew(&header, records, rules);
    }
    let body = &records[BATCH_HEADER_BYTES..];
    let span = match compression {
        Compression::None => check_records(&header, body, rules.keyed)?,
        _ if rules.keyed => check_keyed(&header, records)?,
        // The producer's word is taken for compressed records: looking would cost their decompression.
        _ => TimestampSpan {
            min_ms: header.base_timestamp_ms.min(header.max_timestamp_ms),
            max_ms: header.max_timestamp_ms,
        },
    };
    let stored = stored_header(&header, span, rules)?;
    check_segment(&stored, rules)?;
    Ok(if stored == header {
        ValidBatch { header, tail: records.slice(BATCH_PREFIX_BYTES..), rewritten: false }
    } else {
        let checksum = stored.compute_checksum(body);
        let header = BatchHeader { checksum, ..stored };
        ValidBatch { header, tail: records.slice(BATCH_HEADER_BYTES..), rewritten: true }
    })
}

fn check_segment(stored: &BatchHeader, rules: &ProduceRules) -> Result<(), BatchError> {
    let bytes = stored.total_bytes();
    let fits = bytes <= rules.segment_bytes;
    if fits { Ok(()) } else { Err(BatchError::LargerThanSegment { bytes, limit: rules.segment_bytes }) }
}

fn compressed_anew(
    header: &BatchHeader,
    records: &Bytes,
    rules: &ProduceRules,
) -> Result<ValidBatch, BatchError> {
    let limit_bytes = rules.max_batch_bytes.saturating_sub(BATCH_HEADER_BYTES);
    let (tail, span) = recompress(header, records, rules.compression, limit_bytes, rules.keyed)?;
    let target = rules.compression.of(header.compression()?);
    let header = BatchHeader {
        length: (BATCH_HEADER_BYTES - LENGTH_OVERHEAD_BYTES + tail.len()) as i32,
        attributes: header.attributes_with(target),
        ..*header
    };
    let stored = stored_header(&header, span, rules)?;
    check_segment(&stored, rules)?;
    let checksum = stored.compute_checksum(&tail);
    Ok(ValidBatch { header: BatchHeader { checksum, ..stored }, tail, rewritten: true })
}

fn check_framing(records: &Bytes) -> Result<BatchHeader, BatchError> {
    if records.is_empty() {
        return Err(BatchError::Empty);
    }
    let header = BatchHeader::parse(records)?;
    let needed = header.total_bytes();
    match records.len() {
        available if available < needed => Err(BatchError::Truncated { needed, available }),
        available if available > needed => Err(BatchError::NotAlone { trailing: available - needed }),
        _ => Ok(header),
    }
}

fn check_header(header: &BatchHeader) -> Result<(), BatchError> {
    let &BatchHeader { record_count, last_offset_delta, producer_id, producer_epoch, base_sequence, .. } =
        header;
    if record_count <= 0 || last_offset_delta != record_count - 1 {
        return Err(BatchError::Count { count: record_count, last_offset_delta });
    }
    if header.is_control() {
        return Err(BatchError::Control);
    }
    if header.has_log_append_time() {
        return Err(BatchError::TimestampType);
    }
    if header.has_producer_id() && (producer_epoch < 0 || base_sequence < 0) {
        return Err(BatchError::Producer { producer_id, epoch: producer_epoch, sequence: base_sequence });
    }
    if header.is_transactional() && !header.has_producer_id() {
        return Err(BatchError::TransactionalWithoutProducer);
    }
    Ok(())
}

/// The header that the log keeps: the maximum timestamp is the broker's business, not the producer's.
fn stored_header(
    header: &BatchHeader,
    span: TimestampSpan,
    rules: &ProduceRules,
) -> Result<BatchHeader, BatchError> {
    match rules.timestamps {
        TimestampRule::CreateTime { before_max_ms, after_max_ms } => {
            for timestamp_ms in [span.min_ms, span.max_ms] {
                check_timestamp(timestamp_ms, rules.now_ms, before_max_ms, after_max_ms)?;
            }
            Ok(BatchHeader { max_timestamp_ms: span.max_ms, ..*header })
        }
        TimestampRule::LogAppendTime => Ok(BatchHeader {
            max_timestamp_ms: rules.now_ms,
            attributes: header.attributes | LOG_APPEND_TIME_BIT,
            ..*header
        }),
    }
}

fn check_timestamp(
    timestamp_ms: i64,
    now_ms: i64,
    before_max_ms: i64,
    after_max_ms: i64,
) -> Result<(), BatchError> {
    let age_ms = now_ms.saturating_sub(timestamp_ms);
    let in_range = age_ms <= before_max_ms && age_ms.saturating_neg() <= after_max_ms;
    if timestamp_ms == NO_TIMESTAMP || in_range {
        Ok(())
    } else {
        Err(BatchError::Timestamp { timestamp_ms, now_ms, before_max_ms, after_max_ms })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::error::ResponseError;
    use proptest::prelude::*;

    use super::super::testing::{BatchBuilder, SnappyFraming, with_checksum};
    use super::super::{BatchHeader, Compression};
    use super::{BatchError, ProduceRules, StoredCompression, TimestampRule, validate_produce};

    const NOW_MS: i64 = 1_700_000_000_000;

    fn rules() -> ProduceRules {
        ProduceRules {
            segment_bytes: 1 << 30,
            max_batch_bytes: 1 << 20,
            timestamps: TimestampRule::CreateTime { before_max_ms: 1000, after_max_ms: 500 },
            now_ms: NOW_MS,
            produce_version: 9,
            compression: StoredCompression::AsProduced,
            keyed: false,
        }
    }

    fn good() -> BatchBuilder {
        BatchBuilder::new().timestamps_ms(&[NOW_MS, NOW_MS + 1])
    }

    fn refusal(records: &Bytes) -> ResponseError {
        validate_produce(records, &rules()).expect_err("refused").kafka_error()
    }

    /// A good batch with `bytes` written at `at` and a checksum that fits.
    fn patched(at: usize, bytes: &[u8]) -> Bytes {
        let mut batch = good().build().to_vec();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        with_checksum(batch)
    }

    #[test]
    fn only_the_prefix_of_a_good_batch_changes() {
        let sent = good().producer(9, 2, 40).build();
        let valid = validate_produce(&sent, &rules()).expect("good");
        let [head, tail] = valid.chunks(1234, 8);
        assert_eq!(tail.as_ptr(), sent[16..].as_ptr(), "the tail is a slice of the request");
        let stored = Bytes::from([head, tail].concat());
        assert_eq!(stored[16..], sent[16..]);
        let header = BatchHeader::parse(&stored).expect("parses");
        assert_eq!((header.base_offset, header.leader_epoch), (1234, 8));
        assert_eq!(header.compute_checksum(&stored[61..]), header.checksum);
    }

    #[test]
    fn framing_is_refused_as_kafka_does() {
        let sent = good().build();
        assert_eq!(refusal(&Bytes::new()), ResponseError::InvalidRecord);
        assert_eq!(refusal(&sent.slice(..sent.len() - 1)), ResponseError::InvalidRecord);
        assert_eq!(refusal(&Bytes::from([&sent[..], &sent[..]].concat())), ResponseError::InvalidRecord);
        assert_eq!(refusal(&patched(16, &[1])), ResponseError::InvalidRecord);
        assert_eq!(refusal(&patched(16, &[9])), ResponseError::CorruptMessage);
        assert_eq!(refusal(&patched(8, &3_i32.to_be_bytes())), ResponseError::CorruptMessage);
        assert_eq!(refusal(&patched(0, &7_i64.to_be_bytes())), ResponseError::InvalidRecord);
        let mut damaged = sent.to_vec();
        *damaged.last_mut().expect("not empty") ^= 1;
        assert_eq!(refusal(&damaged.into()), ResponseError::CorruptMessage);
        let small = ProduceRules { max_batch_bytes: sent.len() - 1, ..rules() };
        let error = validate_produce(&sent, &small).expect_err("too large");
        assert_eq!(error.kafka_error(), ResponseError::MessageTooLarge);
    }

    #[test]
    fn headers_are_refused_as_kafka_does() {
        let attributes = |bits: i16| refusal(&patched(21, &bits.to_be_bytes()));
        assert_eq!(attributes(0x20), ResponseError::InvalidRecord, "control");
        assert_eq!(attributes(0x10), ResponseError::InvalidRecord, "transactional without producer id");
        assert_eq!(attributes(0x08), ResponseError::InvalidTimestamp, "log append time");
        assert_eq!(attributes(0x05), ResponseError::UnsupportedCompressionType, "unknown compression");
        assert_eq!(refusal(&patched(23, &5_i32.to_be_bytes())), ResponseError::InvalidRecord, "offset delta");
        assert_eq!(refusal(&patched(57, &0_i32.to_be_bytes())), ResponseError::InvalidRecord, "record count");
        assert_eq!(
            refusal(&patched(43, &7_i64.to_be_bytes())),
            ResponseError::InvalidRecord,
            "pid, no sequence"
        );
    }

    #[test]
    fn transactional_batches_are_reported() {
        let sent = good().producer(9, 2, 40).transactional().build();
        assert!(validate_produce(&sent, &rules()).expect("good").header().is_transactional());
    }

    #[test]
    fn zstd_needs_version_7() {
        let sent = good().compression(Compression::Zstd, SnappyFraming::Raw).build();
        validate_produce(&sent, &ProduceRules { produce_version: 7, ..rules() }).expect("allowed");
        let error =
            validate_produce(&sent, &ProduceRules { produce_version: 6, ..rules() }).expect_err("too old");
        assert_eq!(error.kafka_error(), ResponseError::UnsupportedCompressionType);
    }

    #[test]
    fn a_compacted_topic_wants_keys() {
        for compression in [Compression::None, Compression::Snappy] {
            for kept in [StoredCompression::AsProduced, StoredCompression::Zstd(1)] {
                let rules = ProduceRules { keyed: true, compression: kept, ..rules() };
                let sent = || {
                    good()
                        .records(2)
                        .timestamps_ms(&[NOW_MS, NOW_MS])
                        .compression(compression, SnappyFraming::Raw)
                };
                validate_produce(&sent().keyed().build(), &rules).expect("an empty key is one");
                let refused = validate_produce(&sent().build(), &rules).expect_err("refused");
                assert_eq!(refused, BatchError::WithoutKey { ordinal: 0 });
                assert_eq!(refused.kafka_error(), ResponseError::InvalidRecord);
                validate_produce(&sent().build(), &ProduceRules { keyed: false, ..rules })
                    .expect("elsewhere");
            }
        }
    }

    #[test]
    fn timestamps_have_limits_on_both_sides() {
        for compression in [Compression::None, Compression::Lz4] {
            let check = |ms: i64| {
                let sent =
                    BatchBuilder::new().timestamps_ms(&[ms]).compression(compression, SnappyFraming::Raw);
                validate_produce(&sent.build(), &rules()).map_err(|error| error.kafka_error()).err()
            };
            assert_eq!(check(NOW_MS - 1000), None);
            assert_eq!(check(NOW_MS + 500), None);
            assert_eq!(check(-1), None, "no timestamp is always fine");
            assert_eq!(check(NOW_MS - 1001), Some(ResponseError::InvalidTimestamp));
            assert_eq!(check(NOW_MS + 501), Some(ResponseError::InvalidTimestamp));
            assert_eq!(check(i64::MIN), Some(ResponseError::InvalidTimestamp));
            assert_eq!(check(i64::MAX), Some(ResponseError::InvalidTimestamp));
        }
    }

    #[test]
    fn a_wrong_maximum_timestamp_is_put_right() {
        let sent = patched(35, &5_i64.to_be_bytes());
        let valid = validate_produce(&sent, &rules()).expect("the records are good");
        assert_eq!(valid.header().max_timestamp_ms, NOW_MS + 1);
        let stored = valid.chunks(0, 0).concat();
        assert_eq!(crc32c::crc32c(&stored[21..]), valid.header().checksum);
    }

    #[test]
    fn log_append_time_rewrites_the_header_alone() {
        let sent = BatchBuilder::new().timestamps_ms(&[1, 2]).build();
        let rules = ProduceRules { timestamps: TimestampRule::LogAppendTime, ..rules() };
        let valid = validate_produce(&sent, &rules).expect("producer timestamps do not matter");
        let [head, tail] = valid.chunks(50, 3);
        assert_eq!(tail.as_ptr(), sent[61..].as_ptr(), "the records are a slice of the request");
        let stored = [head, tail].concat();
        let header = BatchHeader::parse(&stored).expect("parses");
        assert!(header.has_log_append_time());
        assert_eq!((header.max_timestamp_ms, header.base_offset, header.leader_epoch), (NOW_MS, 50, 3));
        assert_eq!(crc32c::crc32c(&stored[21..]), header.checksum);
    }

    proptest! {
        #[test]
        fn damage_of_one_byte_is_noticed(at in any::<prop::sample::Index>(), flip in 1_u8..=255) {
            let sent = good().producer(9, 2, 40).build();
            let mut bytes = sent.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let result = validate_produce(&bytes.into(), &rules());
            // The leader epoch is the one field that nobody checks: the broker overwrites it.
            prop_assert_eq!(result.is_ok(), (12..16).contains(&at));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            let _ = validate_produce(&bytes.clone().into(), &rules());
            if bytes.len() >= 61 {
                let length = bytes.len() as i32 - 12;
                bytes[..8].fill(0);
                bytes[8..12].copy_from_slice(&length.to_be_bytes());
                bytes[16] = 2;
                let _ = validate_produce(&with_checksum(bytes), &rules());
            }
        }
    }
}
