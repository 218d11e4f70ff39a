//! Record batches: validation allocates nothing to speak of, what it accepts can be stored and read back, and a search by
//! timestamp goes through any compression without allocating out of proportion.

use bytes::Bytes;
use helix_server::broker::batch::{
    BatchHeader, Compression, NO_TIMESTAMP, ProduceRules, StoredCompression, TimestampRule, ValidBatch,
    first_at_or_after, record_of_max_timestamp, validate_produce,
};

use super::batches::{self, NOW_MS};
use crate::support::allocations::within;
use crate::target::Target;

pub(crate) const TARGET: Target = Target { name: "record_batches", run, seeds };

const CORRECT_CHECKSUM: u8 = 1;
const LOG_APPEND_TIME: u8 = 2;
const OLD_PRODUCE: u8 = 4;
/// The topic has a compression of its own: LZ4, or none with the other flag besides.
const COMPRESS: u8 = 8;
const DECOMPRESS: u8 = 16;

const KAFKA_DEFAULT: TimestampRule =
    TimestampRule::CreateTime { before_max_ms: i64::MAX, after_max_ms: 3_600_000 };
const BASE_OFFSET: i64 = 1_000_000;
const LEADER_EPOCH: i32 = 7;
/// Bytes of the buffers that decompressors come with, and of the largest blocks of LZ4.
const DECOMPRESSOR_BYTES: usize = 24 << 20;

fn run(input: &[u8]) {
    let Some((flags, batch)) = input.split_first() else { return };
    let mut batch = batch.to_vec();
    if flags & CORRECT_CHECKSUM != 0 {
        batches::correct(&mut batch);
    }
    let timestamps = if flags & LOG_APPEND_TIME != 0 { TimestampRule::LogAppendTime } else { KAFKA_DEFAULT };
    let version = if flags & OLD_PRODUCE != 0 { 3 } else { 13 };
    let compression = match flags & (COMPRESS | DECOMPRESS) {
        0 => StoredCompression::AsProduced,
        COMPRESS => StoredCompression::Lz4,
        _ => StoredCompression::Uncompressed,
    };
    let batch = Bytes::from(batch);
    // What is stored was validated once, but not by this very version.
    search(&batch);
    with_rules(&batch, timestamps, version, compression);
}

/// Validates a batch as the default settings of a topic want it.
pub(crate) fn validate(batch: &Bytes, produce_version: i16) {
    with_rules(batch, KAFKA_DEFAULT, produce_version, StoredCompression::AsProduced);
}

fn with_rules(
    batch: &Bytes,
    timestamps: TimestampRule,
    produce_version: i16,
    compression: StoredCompression,
) {
    let rules = ProduceRules {
        max_batch_bytes: 1 << 20,
        segment_bytes: 1 << 20,
        timestamps,
        now_ms: NOW_MS,
        produce_version,
        compression,
        keyed: false,
    };
    for rules in [rules, ProduceRules { keyed: true, ..rules }] {
        // Compressed anew, a batch is never in memory as a whole, but for what it becomes.
        let most = if rules.take_time(batch) { 2 * DECOMPRESSOR_BYTES + (64 << 20) } else { 4096 };
        match within(most, || validate_produce(batch, &rules)) {
            Ok(valid) => store(batch, &valid),
            Err(error) => assert_ne!(error.code(), 0),
        }
    }
}

/// Stores a valid batch and looks at it as readers do.
fn store(sent: &Bytes, valid: &ValidBatch) {
    let stored = Bytes::from(valid.chunks(BASE_OFFSET, LEADER_EPOCH).concat());
    assert_eq!(valid.total_bytes(), stored.len());
    let header = BatchHeader::parse(&stored).expect("what is stored has a header");
    assert_eq!(header.total_bytes(), stored.len());
    let produced = BatchHeader::parse(sent).expect("what is valid has a header");
    if produced.compression() == header.compression() {
        assert_eq!(stored.len(), sent.len());
    }
    assert_eq!(
        header,
        BatchHeader { base_offset: BASE_OFFSET, leader_epoch: LEADER_EPOCH, ..*valid.header() }
    );
    assert_eq!(header.checksum, crc32c::crc32c(&stored[21..]));
    assert_eq!(header.next_offset() - BASE_OFFSET, i64::from(header.record_count));
    search(&stored);
    if header.compression() == Ok(Compression::None) {
        readable(&stored, &header);
    }
}

/// The records of a valid batch that is not compressed.
fn readable(stored: &Bytes, header: &BatchHeader) {
    let newest = record_of_max_timestamp(stored).expect("valid records can be read");
    // As in Kafka, the maximum is -1 if no record has a timestamp or all are older than that, and then a search finds none of them.
    assert_eq!(newest.is_none(), header.max_timestamp_ms == NO_TIMESTAMP);
    if let Some(newest) = newest {
        assert!((BASE_OFFSET..header.next_offset()).contains(&newest.offset));
        assert_eq!(newest.timestamp_ms, header.max_timestamp_ms);
        let found = first_at_or_after(stored, header.max_timestamp_ms, 0).expect("valid records can be read");
        assert_eq!(found.map(|found| found.timestamp_ms), Some(header.max_timestamp_ms));
    }
}

fn search(batch: &Bytes) {
    within(2 * DECOMPRESSOR_BYTES + 64 * batch.len(), || {
        let _ = record_of_max_timestamp(batch);
        let _ = first_at_or_after(batch, NOW_MS + 1, 0);
    });
}

/// Every example in every mode; all of them are valid.
fn seeds() -> Vec<Vec<u8>> {
    let batches = batches::examples();
    let rules = ProduceRules {
        segment_bytes: 1 << 30,
        max_batch_bytes: 1 << 20,
        timestamps: KAFKA_DEFAULT,
        now_ms: NOW_MS,
        produce_version: 13,
        compression: StoredCompression::AsProduced,
        keyed: false,
    };
    batches.iter().for_each(|batch| drop(validate_produce(batch, &rules).expect("a valid example")));
    (0..32).flat_map(|flags| batches.iter().map(move |batch| [&[flags][..], batch].concat())).collect()
}
