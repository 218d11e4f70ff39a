//! Builds record batches for tests.

use std::io::Write;

use bytes::Bytes;

use super::{BATCH_HEADER_BYTES, BatchHeader, Compression};

/// How snappy blocks are wrapped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SnappyFraming {
    /// One block and nothing around it, as librdkafka writes it.
    Raw,
    /// As the Java client writes it.
    Xerial,
}

/// Builds one batch; the default holds one record.
#[derive(Debug, Clone)]
pub(crate) struct BatchBuilder {
    base_offset: i64,
    producer: (i64, i16, i32),
    attributes: i16,
    timestamps_ms: Vec<i64>,
    keyed: bool,
    value_bytes: usize,
    compression: (Compression, SnappyFraming),
    log_append_time_ms: Option<i64>,
}

impl BatchBuilder {
    pub(crate) fn new() -> Self {
        Self {
            base_offset: 0,
            producer: (-1, -1, -1),
            attributes: 0,
            timestamps_ms: vec![1000],
            keyed: false,
            value_bytes: 5,
            compression: (Compression::None, SnappyFraming::Raw),
            log_append_time_ms: None,
        }
    }

    pub(crate) fn base_offset(mut self, offset: i64) -> Self {
        self.base_offset = offset;
        self
    }

    pub(crate) fn producer(mut self, id: i64, epoch: i16, first_sequence: i32) -> Self {
        self.producer = (id, epoch, first_sequence);
        self
    }

    pub(crate) fn transactional(mut self) -> Self {
        self.attributes |= 0x10;
        self
    }

    pub(crate) fn records(mut self, count: usize) -> Self {
        self.timestamps_ms = (0..count as i64).map(|n| 1000 + n).collect();
        self
    }

    pub(crate) fn timestamps_ms(mut self, timestamps_ms: &[i64]) -> Self {
        self.timestamps_ms = timestamps_ms.to_vec();
        self
    }

    /// Each record has a key, of no bytes.
    pub(crate) fn keyed(mut self) -> Self {
        self.keyed = true;
        self
    }

    pub(crate) fn record_value_bytes(mut self, bytes: usize) -> Self {
        self.value_bytes = bytes;
        self
    }

    pub(crate) fn compression(mut self, compression: Compression, framing: SnappyFraming) -> Self {
        self.compression = (compression, framing);
        self
    }

    /// As a broker with `LogAppendTime` would have stored it.
    pub(crate) fn stored_log_append_time(mut self, now_ms: i64) -> Self {
        self.log_append_time_ms = Some(now_ms);
        self
    }

    pub(crate) fn build(&self) -> Bytes {
        let base_timestamp_ms = self.timestamps_ms[0];
        let mut records = Vec::new();
        for (ordinal, timestamp_ms) in self.timestamps_ms.iter().enumerate() {
            put_record(
                &mut records,
                timestamp_ms - base_timestamp_ms,
                ordinal,
                (self.keyed, self.value_bytes),
            );
        }
        let records = compress(&records, self.compression);
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let id = match self.compression.0 {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        };
        let newest_ms = self.timestamps_ms.iter().copied().max().expect("at least one record");
        let header = BatchHeader {
            base_offset: self.base_offset,
            length: (BATCH_HEADER_BYTES - 12 + records.len()) as i32,
            leader_epoch: -1,
            checksum: 0,
            attributes: self.attributes | id | if self.log_append_time_ms.is_some() { 8 } else { 0 },
            last_offset_delta: self.timestamps_ms.len() as i32 - 1,
            base_timestamp_ms,
            max_timestamp_ms: self.log_append_time_ms.unwrap_or(newest_ms),
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.timestamps_ms.len() as i32,
        };
        let mut batch = header.encode().to_vec();
        batch.extend_from_slice(&records);
        with_checksum(batch)
    }
}

/// The batch with the checksum that its bytes have.
pub(crate) fn with_checksum(mut batch: Vec<u8>) -> Bytes {
    let checksum = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&checksum.to_be_bytes());
    batch.into()
}

fn put_record(out: &mut Vec<u8>, timestamp_delta: i64, ordinal: usize, (keyed, value_bytes): (bool, usize)) {
    let mut record = vec![0];
    put_varlong(&mut record, timestamp_delta);
    put_varlong(&mut record, ordinal as i64);
    put_varlong(&mut record, if keyed { 0 } else { -1 });
    put_varlong(&mut record, value_bytes as i64);
    record.resize(record.len() + value_bytes, b'v');
    put_varlong(&mut record, 1);
    put_varlong(&mut record, 1);
    record.push(b'h');
    put_varlong(&mut record, -1); // the header has no value
    put_varlong(out, record.len() as i64);
    out.extend_from_slice(&record);
}

pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

fn compress(records: &[u8], (compression, framing): (Compression, SnappyFraming)) -> Vec<u8> {
    let block = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).expect("snappy compresses");
    match (compression, framing) {
        (Compression::None, _) => records.to_vec(),
        (Compression::Gzip, _) => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(records).expect("writing to memory");
            encoder.finish().expect("writing to memory")
        }
        (Compression::Lz4, _) => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records).expect("writing to memory");
            encoder.finish().expect("writing to memory")
        }
        (Compression::Zstd, _) => zstd::stream::encode_all(records, 1).expect("writing to memory"),
        (Compression::Snappy, SnappyFraming::Raw) => block(records),
        (Compression::Snappy, SnappyFraming::Xerial) => {
            let mut out = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
            for piece in records.chunks(11) {
                let piece = block(piece);
                out.extend_from_slice(&(piece.len() as u32).to_be_bytes());
                out.extend_from_slice(&piece);
            }
            out
        }
    }
}
