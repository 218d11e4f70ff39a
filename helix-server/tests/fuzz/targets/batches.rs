//! Record batches to begin with: each compression, with and without a producer id.

use std::io::Write;

use bytes::Bytes;
use helix_server::broker::batch::{BATCH_HEADER_BYTES, BatchHeader};

/// First byte that the checksum covers.
const CHECKSUM_FROM: usize = 21;
/// Bytes of base offset and length.
const LENGTH_OVERHEAD_BYTES: usize = 12;

/// Three records, one millisecond apart.
const RECORDS: &[u8] = &[
    24, 0, 0, 0, 2, b'k', 4, b'v', b'1', 2, 2, b'h',
    1, // 12 bytes behind the length, the last of them a null value
    12, 0, 2, 2, 1, 1, 0, // neither key nor value nor headers
    14, 0, 4, 4, 1, 2, b'w', 0,
];

/// The clock of the validation.
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;

/// Corrects length and checksum, if there is a header.
pub(crate) fn correct(batch: &mut [u8]) {
    if batch.len() >= BATCH_HEADER_BYTES {
        let length = i32::try_from(batch.len() - LENGTH_OVERHEAD_BYTES).unwrap();
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        let checksum = crc32c::crc32c(&batch[CHECKSUM_FROM..]);
        batch[17..CHECKSUM_FROM].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Whole batches.
pub(crate) fn examples() -> Vec<Bytes> {
    let mut framed_snappy = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
    let block = snap::raw::Encoder::new().compress_vec(RECORDS).unwrap();
    framed_snappy.extend_from_slice(&u32::try_from(block.len()).unwrap().to_be_bytes());
    framed_snappy.extend_from_slice(&block);
    let bodies = [
        (0, RECORDS.to_vec()),
        (1, gzip()),
        (2, block),
        (2, framed_snappy),
        (3, lz4()),
        (4, zstd::encode_all(RECORDS, 1).unwrap()),
    ];
    let mut examples = Vec::new();
    for (compression, body) in bodies {
        examples.push(batch(compression, (-1, -1, -1), &body));
        examples.push(batch(compression, (4000, 3, 17), &body));
    }
    examples
}

fn gzip() -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(RECORDS).unwrap();
    encoder.finish().unwrap()
}

fn lz4() -> Vec<u8> {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(RECORDS).unwrap();
    encoder.finish().unwrap()
}

fn batch(
    attributes: i16,
    (producer_id, producer_epoch, base_sequence): (i64, i16, i32),
    body: &[u8],
) -> Bytes {
    let header = BatchHeader {
        base_offset: 0,
        length: 0,
        leader_epoch: -1,
        checksum: 0,
        attributes,
        last_offset_delta: 2,
        base_timestamp_ms: NOW_MS,
        max_timestamp_ms: NOW_MS + 2,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count: 3,
    };
    let mut batch = [&header.encode()[..], body].concat();
    correct(&mut batch);
    batch.into()
}
