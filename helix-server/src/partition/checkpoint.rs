//! A partition's state as of one index, so that a restart does not read the whole log.

use helix_raft::{Index, Term};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Partition;
use super::epochs::{EpochCache, EpochCodecError};
use super::producers::{ProducerCodecError, ProducerTable};
use crate::versioned::{self, VersionedError};

/// Decoded state as of `applied`.
#[derive(Debug, Clone, Default)]
pub struct PartitionCheckpoint {
    /// Index of the last entry that it contains.
    pub applied: Index,
    /// Offset after that entry.
    pub next_offset: i64,
    /// First offset that clients may read.
    pub log_start: i64,
    /// Idempotent producers.
    pub producers: ProducerTable,
    /// Leader epochs.
    pub epochs: EpochCache,
}

/// How it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    applied: Index,
    next_offset: i64,
    log_start: i64,
    producers: Vec<u8>,
    epochs: Vec<u8>,
}

/// A checkpoint that cannot be read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The frame around it.
    #[error("partition checkpoint: {0}")]
    Frame(#[from] VersionedError),
    /// Its producers.
    #[error("partition checkpoint: {0}")]
    Producers(#[from] ProducerCodecError),
    /// Its leader epochs.
    #[error("partition checkpoint: {0}")]
    Epochs(#[from] EpochCodecError),
}

impl PartitionCheckpoint {
    /// Decodes what [`Partition::checkpoint`] wrote.
    ///
    /// # Errors
    /// When the bytes are nothing that it could have written.
    pub fn decode(bytes: &[u8], now_ms: i64) -> Result<Self, CheckpointError> {
        let stored: Stored = versioned::decode(bytes)?;
        Ok(Self {
            applied: stored.applied,
            next_offset: stored.next_offset,
            log_start: stored.log_start,
            producers: ProducerTable::decode(&stored.producers, now_ms)?,
            epochs: EpochCache::decode(&stored.epochs)?,
        })
    }
}

impl Partition {
    /// The state as of the last applied entry.
    pub fn checkpoint(&self) -> Vec<u8> {
        let mut producers = Vec::new();
        self.producers.table().encode(&mut producers);
        let mut epochs = Vec::new();
        self.epochs.encode(&mut epochs);
        versioned::encode(&Stored {
            applied: self.applied,
            next_offset: self.view.high_watermark(),
            log_start: self.view.log_start(),
            producers,
            epochs,
        })
    }

    /// Replaces everything: the log starts again behind `index`, where `next_offset` follows. The checkpoint may be of a later
    /// index: applying the entries up to there once more changes nothing about producers.
    pub fn install(&mut self, checkpoint: PartitionCheckpoint, index: Index, term: Term, next_offset: i64) {
        self.stop_serving(term);
        self.producers = super::Producers::new(checkpoint.producers);
        self.epochs = checkpoint.epochs;
        self.applied = index;
        self.view.set_epochs(self.epochs.clone());
        self.view.reset(checkpoint.log_start.min(next_offset), next_offset);
        self.view.set_log_end(next_offset);
    }
}
