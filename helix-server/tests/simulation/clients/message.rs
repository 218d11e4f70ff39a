//! Record batches that say which messages they hold.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::records::RecordBatchDecoder;

/// Bytes in front of the records.
const HEADER_BYTES: usize = 61;
/// Of these, the ones in front of what the checksum covers.
const UNCHECKED_BYTES: usize = 21;

/// A message: whose, and the how-manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MessageId {
    pub(crate) lane: u32,
    pub(crate) number: u64,
}

/// The producer's side of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// Not an idempotent producer.
pub(crate) const NOBODY: Producer = Producer { id: -1, epoch: -1 };

/// A batch of `count` messages, each `bytes` long.
pub(crate) fn batch(first: MessageId, count: u32, bytes: usize, producer: Producer, sequence: i32) -> Bytes {
    let mut records = BytesMut::new();
    for ordinal in 0..count {
        let mut record = BytesMut::new();
        record.put_u8(0);
        put_varint(&mut record, 0);
        put_varint(&mut record, i64::from(ordinal));
        put_varint(&mut record, -1);
        put_varint(&mut record, 12 + bytes as i64);
        record.put_u32(first.lane);
        record.put_u64(first.number + u64::from(ordinal));
        record.put_bytes(ordinal as u8, bytes);
        put_varint(&mut record, 0);
        put_varint(&mut records, record.len() as i64);
        records.extend_from_slice(&record);
    }
    let mut batch = BytesMut::with_capacity(HEADER_BYTES + records.len());
    batch.put_i64(0);
    batch.put_i32((HEADER_BYTES - 12 + records.len()) as i32);
    batch.put_i32(-1);
    batch.put_u8(2);
    batch.put_u32(0);
    batch.put_i16(0);
    batch.put_i32(count as i32 - 1);
    batch.put_i64(1_800_000_000_000);
    batch.put_i64(1_800_000_000_000);
    batch.put_i64(producer.id);
    batch.put_i16(producer.epoch);
    batch.put_i32(sequence);
    batch.put_i32(count as i32);
    batch.extend_from_slice(&records);
    let checksum = crc32c::crc32c(&batch[UNCHECKED_BYTES..]);
    batch[UNCHECKED_BYTES - 4..UNCHECKED_BYTES].copy_from_slice(&checksum.to_be_bytes());
    batch.freeze()
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.put_u8(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}

/// The messages in what was fetched, each with its offset and the leader epoch of its batch.
pub(crate) fn messages(mut fetched: Bytes) -> Result<Vec<(i64, i32, MessageId)>, String> {
    let mut found = Vec::new();
    while fetched.len() > 12 {
        let length = 12 + (&fetched[8..12]).get_i32() as usize;
        if fetched.len() < length {
            break;
        }
        let mut batch = fetched.split_to(length);
        let records = RecordBatchDecoder::decode(&mut batch).map_err(|error| error.to_string())?.records;
        for record in records {
            let mut value = record.value.ok_or("a message without a value")?;
            if value.len() < 12 {
                return Err("a message that nobody sent".to_owned());
            }
            let id = MessageId { lane: value.get_u32(), number: value.get_u64() };
            found.push((record.offset, record.partition_leader_epoch, id));
        }
    }
    Ok(found)
}
