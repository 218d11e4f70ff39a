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
    /// The state as of an earlier entry, at `index` and of `term`, behind which `next_offset` follows. A log that begins there has to have this one
    /// and no later: what lies between may be lost in an unclean recovery, and others come in its place.
    #[must_use]
    pub fn as_of(self, index: Index, term: Term, next_offset: i64) -> Self {
        Self {
            applied: index,
            next_offset,
            log_start: self.log_start.min(next_offset),
            producers: self.producers.as_of(index.0, next_offset),
            epochs: self.epochs.as_of(term.0 as i32, next_offset),
        }
    }

    /// What is stored of it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut producers = Vec::new();
        self.producers.encode(&mut producers);
        let mut epochs = Vec::new();
        self.epochs.encode(&mut epochs);
        versioned::encode(&Stored {
            applied: self.applied,
            next_offset: self.next_offset,
            log_start: self.log_start,
            producers,
            epochs,
        })
    }

    /// Decodes what [`Self::encode`] wrote.
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
    pub fn checkpoint(&self) -> PartitionCheckpoint {
        PartitionCheckpoint {
            applied: self.applied,
            next_offset: self.view.high_watermark(),
            log_start: self.view.log_start(),
            producers: self.producers.table().clone(),
            epochs: self.epochs.clone(),
        }
    }

    /// Replaces everything: the log starts again where the checkpoint is, behind an entry of `term`.
    pub fn install(&mut self, checkpoint: PartitionCheckpoint, term: Term) {
        let PartitionCheckpoint { applied, next_offset, log_start, producers, epochs } = checkpoint;
        self.stop_serving(term);
        self.producers = super::Producers::new(producers);
        self.epochs = epochs;
        self.applied = applied;
        self.view.set_epochs(self.epochs.clone());
        self.view.reset(log_start, next_offset);
        self.view.set_log_end(next_offset);
    }
}

#[cfg(test)]
mod tests;
