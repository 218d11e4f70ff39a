//! What the leader of a partition decides for all replicas over time: where the log starts, which producers are forgotten.
//!
//! Both are entries like any other, so that every replica comes to the same state; nobody acts by its own clock.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use helix_wal::{Offset, Payload};

use super::Partition;
use crate::entry::{Command, EntryTag};

impl Partition {
    /// The entry that moves the log start to `offset`.
    pub fn log_start_command(offset: i64, next_offset: Offset) -> Command {
        let payload = Payload::from_chunks(vec![Bytes::copy_from_slice(&offset.to_be_bytes())]);
        Command::without_offsets(EntryTag::LogStart, next_offset, payload)
    }

    /// The entry that forgets producers which were idle for too long, if there are any.
    pub fn expiry_command(&self, now_ms: i64, limit_ms: i64, next_offset: Offset) -> Option<Command> {
        let expired = self.producers.expired(now_ms, limit_ms);
        if expired.is_empty() {
            return None;
        }
        let mut bytes = BytesMut::with_capacity(expired.len() * 8);
        for id in expired {
            bytes.put_i64(id);
        }
        let payload = Payload::from_chunks(vec![bytes.freeze()]);
        Some(Command::without_offsets(EntryTag::ProducerExpiry, next_offset, payload))
    }

    /// How old and how large this partition's log may grow; -1 is no limit.
    pub fn retention_limits(&self) -> (i64, i64) {
        let config = self.view.config();
        (config.retention_ms, config.retention_bytes)
    }
}

/// Reads the offset out of a log-start entry.
pub(super) fn decode_log_start(mut bytes: &[u8]) -> Option<i64> {
    bytes.try_get_i64().ok()
}

/// Reads the producer ids out of an expiry entry.
pub(super) fn decode_expiry(mut bytes: &[u8]) -> Vec<i64> {
    let mut ids = Vec::with_capacity(bytes.len() / 8);
    while let Ok(id) = bytes.try_get_i64() {
        ids.push(id);
    }
    ids
}
