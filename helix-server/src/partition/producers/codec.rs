//! The checkpoint of committed producer state.
//!
//! Big endian: version (u8), index applied (u64), flags (u8; bit 0: some expired producers are forgotten), number of
//! expired producers (u32) and their ids (i64), number of producers (u32), then for each in ascending order: id (i64),
//! epoch (i16), start of the run of sequences (i32), number of batches (u8), and for each batch first sequence (i32),
//! last sequence (i32), base offset (i64), last offset (i64), timestamp (i64).

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, BufMut};
use thiserror::Error;

use super::table::KEPT_EXPIRED;
use super::{KEPT_BATCHES, ProducerBatch, ProducerState, ProducerTable};

const VERSION: u8 = 1;
const FORGOT_EXPIRED: u8 = 1;

/// A checkpoint that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProducerCodecError {
    /// Another version wrote it.
    #[error("producer state is stored in version {0}, which this release does not know; use a newer one")]
    Version(u8),
    /// The bytes end too early or too late.
    #[error("stored producer state has the wrong length")]
    Length,
    /// A value that is never written.
    #[error("stored producer state holds an impossible value: {0}")]
    Value(&'static str),
}

impl From<bytes::TryGetError> for ProducerCodecError {
    fn from(_: bytes::TryGetError) -> Self {
        Self::Length
    }
}

impl ProducerTable {
    /// Appends the checkpoint to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let count = |len: usize| u32::try_from(len).expect("producers fit into memory, so fewer than 2^32");
        out.put_u8(VERSION);
        out.put_u64(self.applied_index);
        out.put_u8(if self.forgot_expired { FORGOT_EXPIRED } else { 0 });
        out.put_u32(count(self.expired.len()));
        for &producer_id in &self.expired {
            out.put_i64(producer_id);
        }
        out.put_u32(count(self.producers.len()));
        for (&producer_id, state) in &self.producers {
            out.put_i64(producer_id);
            out.put_i16(state.epoch);
            out.put_i32(state.run_start);
            out.put_u8(state.batches.len() as u8); // at most KEPT_BATCHES
            for batch in &state.batches {
                out.put_i32(batch.first_sequence);
                out.put_i32(batch.last_sequence);
                out.put_i64(batch.base_offset);
                out.put_i64(batch.last_offset);
                out.put_i64(batch.timestamp_ms);
            }
        }
    }

    /// Reads what [`ProducerTable::encode`] wrote, all of `bytes`. Memory grows only with what is really there. All
    /// producers count as active at `now_ms`, this replica's clock.
    ///
    /// # Errors
    /// When the bytes are nothing that it could have written.
    pub fn decode(bytes: &[u8], now_ms: i64) -> Result<Self, ProducerCodecError> {
        let mut rest = bytes;
        let version = rest.try_get_u8()?;
        if version != VERSION {
            return Err(ProducerCodecError::Version(version));
        }
        let applied_index = rest.try_get_u64()?;
        let forgot_expired = match rest.try_get_u8()? {
            0 => false,
            FORGOT_EXPIRED => true,
            _ => return Err(ProducerCodecError::Value("flags")),
        };
        let mut expired = VecDeque::new();
        for _ in 0..rest.try_get_u32()? {
            expired.push_back(rest.try_get_i64()?);
        }
        if expired.len() > KEPT_EXPIRED {
            return Err(ProducerCodecError::Value("number of expired producers"));
        }
        let mut producers = BTreeMap::new();
        for _ in 0..rest.try_get_u32()? {
            let producer_id = rest.try_get_i64()?;
            if producers.last_key_value().is_some_and(|(&last, _)| last >= producer_id) {
                return Err(ProducerCodecError::Value("order of producer ids"));
            }
            producers.insert(producer_id, decode_state(producer_id, now_ms, &mut rest)?);
        }
        if !rest.is_empty() {
            return Err(ProducerCodecError::Length);
        }
        Ok(Self { applied_index, producers, expired, forgot_expired })
    }
}

fn decode_state(
    producer_id: i64,
    now_ms: i64,
    rest: &mut &[u8],
) -> Result<ProducerState, ProducerCodecError> {
    let epoch = rest.try_get_i16()?;
    let run_start = rest.try_get_i32()?;
    let count = usize::from(rest.try_get_u8()?);
    if count > KEPT_BATCHES {
        return Err(ProducerCodecError::Value("number of batches"));
    }
    let mut batches = VecDeque::with_capacity(count);
    for _ in 0..count {
        batches.push_back(ProducerBatch {
            producer_id,
            epoch,
            first_sequence: rest.try_get_i32()?,
            last_sequence: rest.try_get_i32()?,
            base_offset: rest.try_get_i64()?,
            last_offset: rest.try_get_i64()?,
            timestamp_ms: rest.try_get_i64()?,
        });
    }
    Ok(ProducerState { epoch, run_start, last_active_ms: now_ms, batches })
}
