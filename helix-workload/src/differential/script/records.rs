//! Record batches to be produced, sound ones and damaged ones.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

/// Where the fields of a batch stand.
const MAGIC_AT: usize = 16;
const CHECKSUM_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const COUNT_AT: usize = 57;

/// A record batch in the making.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    bytes: Vec<u8>,
}

/// Who produces, and the sequence of the first record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) epoch: i16,
    pub(super) sequence: i32,
}

const NOBODY: Producer = Producer { id: -1, epoch: -1, sequence: -1 };

impl Batch {
    /// One record per value, a millisecond apart.
    pub(super) fn of(values: &[&str], first_ms: i64) -> Self {
        Self::by(NOBODY, values, first_ms)
    }

    pub(super) fn by(producer: Producer, values: &[&str], first_ms: i64) -> Self {
        let records: Vec<Record> = (0..)
            .zip(values)
            .map(|(number, value)| Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                timestamp_type: TimestampType::Creation,
                offset: i64::from(number),
                sequence: producer.sequence.wrapping_add(number),
                timestamp: first_ms + i64::from(number),
                key: Some(Bytes::from_static(b"key")),
                value: Some(Bytes::from((*value).to_owned())),
                headers: kafka_protocol::indexmap::IndexMap::new(),
            })
            .collect();
        let mut buffer = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut buffer, &records, &options)
            .expect("records of the script fit a batch");
        Self { bytes: buffer.to_vec() }
    }

    /// Its attributes, with a checksum that fits.
    pub(super) fn attributes(mut self, attributes: i16) -> Self {
        self.bytes[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
        self.checked()
    }

    /// Says that it has so many records, with a checksum that fits.
    pub(super) fn claims(mut self, records: i32) -> Self {
        self.bytes[COUNT_AT..COUNT_AT + 4].copy_from_slice(&records.to_be_bytes());
        self.checked()
    }

    /// Says that its last offset is that far from its first, with a checksum that fits.
    pub(super) fn ends_at(mut self, delta: i32) -> Self {
        self.bytes[LAST_OFFSET_DELTA_AT..LAST_OFFSET_DELTA_AT + 4].copy_from_slice(&delta.to_be_bytes());
        self.checked()
    }

    pub(super) fn magic(mut self, magic: u8) -> Self {
        self.bytes[MAGIC_AT] = magic;
        self
    }

    /// A byte of its records is another.
    pub(super) fn damaged(mut self) -> Self {
        if let Some(last) = self.bytes.last_mut() {
            *last ^= 1;
        }
        self
    }

    /// Its last bytes are missing.
    pub(super) fn cut(mut self) -> Self {
        self.bytes.truncate(self.bytes.len() - 5);
        self
    }

    /// Another batch behind it.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.bytes.extend(other.bytes);
        self
    }

    pub(super) fn bytes(self) -> Bytes {
        self.bytes.into()
    }

    fn checked(mut self) -> Self {
        let checksum = crc32c::crc32c(&self.bytes[ATTRIBUTES_AT..]);
        self.bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_be_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_librarys() {
        let batch = Batch::of(&["a", "b"], 1_000);
        assert_eq!(batch.clone().checked().bytes(), batch.bytes());
    }
}
