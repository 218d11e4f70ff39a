//! The state machine of group 0: applies committed commands to the image and publishes it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use helix_raft::Index;
use tracing::{error, warn};

use super::commands::{CommandResult, MetadataCommand};
use super::image::ClusterImage;
use crate::env::watch;
use crate::versioned::{VersionedError, decode};

/// Owned by the shard that owns group 0; nobody else changes the image.
#[derive(Debug)]
pub struct MetadataMachine {
    image: ClusterImage,
    published: Arc<ArcSwap<ClusterImage>>,
    applied: watch::Sender<Index>,
    dirty: bool,
    /// A topic was deleted since the last look.
    deleted: bool,
}

impl MetadataMachine {
    /// A machine that publishes to the given places.
    pub fn new(published: Arc<ArcSwap<ClusterImage>>, applied: watch::Sender<Index>) -> Self {
        Self { image: ClusterImage::empty(), published, applied, dirty: false, deleted: false }
    }

    /// Takes over a checkpoint as of `index`.
    ///
    /// # Errors
    /// When the checkpoint cannot be decoded, or contradicts itself.
    pub fn restore(&mut self, index: Index, checkpoint: &[u8]) -> Result<(), VersionedError> {
        self.image = ClusterImage::decode(checkpoint)?;
        self.dirty = true;
        self.publish(index);
        Ok(())
    }

    /// The image as a checkpoint.
    pub fn checkpoint(&self) -> Vec<u8> {
        self.image.encode()
    }

    /// Applies one committed command. Nothing is visible to readers before [`Self::publish`].
    pub fn apply(&mut self, index: Index, command: &[u8]) -> CommandResult {
        self.dirty = true;
        match decode::<MetadataCommand>(command) {
            Ok(command) => {
                let deletion = matches!(command, MetadataCommand::DeleteTopic { .. });
                let result = self.image.apply(command);
                self.deleted |= deletion && result.is_ok();
                if let Err(refused) = &result {
                    warn!(%index, %refused, "a metadata command was refused");
                }
                result
            }
            Err(damage) => {
                // Every node reads the same bytes and comes to the same end: the command counts as refused.
                error!(%index, %damage, "a committed metadata command cannot be read; skipped");
                Err(super::commands::CommandError::UnknownTopic)
            }
        }
    }

    /// Whether a topic was deleted since this was last asked. Before anybody acts on it a checkpoint must be on its way to the WAL: an
    /// older one would bring deleted groups back at the next start.
    pub fn take_deleted(&mut self) -> bool {
        std::mem::take(&mut self.deleted)
    }

    /// Shows readers everything applied through `index`.
    pub fn publish(&mut self, index: Index) {
        if std::mem::take(&mut self.dirty) {
            self.published.store(Arc::new(self.image.clone()));
        }
        self.applied.send_if_modified(|seen| {
            let moved = *seen < index;
            *seen = (*seen).max(index);
            moved
        });
    }
}
