//! What a log is opened with.

use std::fmt;
use std::sync::Arc;

use crate::error::FatalError;
use crate::types::{GroupId, Index, SegmentId};
use crate::wal::Part;

/// Called once, with the error that stopped the log.
pub type OnFatal = Arc<dyn Fn(&FatalError) + Send + Sync>;
/// Called for each segment once its footer is durable; not for those that are sealed while the log is opened.
pub type OnSeal = Arc<dyn Fn(SealedSegment) + Send + Sync>;
/// Called when a part of the log may have got something to do.
pub type OnWork = Arc<dyn Fn(Part) + Send + Sync>;

/// Settings of a log. All have defaults.
#[derive(Clone)]
pub struct WalOptions {
    /// Size of a segment file. A record larger than that gets a segment of its own size.
    pub segment_bytes: u64,
    /// The kernel is told to start writing back after this many bytes, so that a later sync finds little to do.
    pub writeback_bytes: u64,
    /// Unsynced bytes are synced after this time even if nobody asks.
    pub background_sync_ms: u64,
    /// ... or as soon as there are this many of them.
    pub background_sync_bytes: u64,
    /// How many retired segment files are kept for reuse.
    pub recycled_segments: usize,
    /// Segments that are made ready before they are needed. Making one takes as long as the disk takes for all that was written before, so
    /// one alone is not enough where a segment is filled faster than that.
    pub prepared_segments: usize,
    /// Space that [`SpaceClass::Normal`] leaves free.
    pub reserve_bytes: u64,
    /// Bytes of the newest sealed segments that stay in the page cache. What is older is given back, unless it is being read.
    pub page_cache_bytes: u64,
    /// Memory for index footers of sealed segments.
    pub footer_cache_bytes: u64,
    /// Whether this boot's page cache is the one the log was written through. If so only the last write can be torn;
    /// if not (the machine crashed), each group is cut at its first break above the last recorded synced position.
    pub trust_unsynced: bool,
    /// Called once when a write or sync fails; the log takes no more appends.
    pub on_fatal: OnFatal,
    /// Called on a thread of the log when a segment has been sealed.
    pub on_seal: OnSeal,
    /// For those who step the log themselves: tells them when to. Must not step it itself.
    pub on_work: Option<OnWork>,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 128 << 20,
            writeback_bytes: 8 << 20,
            background_sync_ms: 1000,
            background_sync_bytes: 64 << 20,
            recycled_segments: 4,
            prepared_segments: 3,
            reserve_bytes: 256 << 20,
            page_cache_bytes: 1 << 30,
            footer_cache_bytes: 64 << 20,
            trust_unsynced: false,
            on_fatal: Arc::new(|_| {}),
            on_seal: Arc::new(|_| {}),
            on_work: None,
        }
    }
}

impl fmt::Debug for WalOptions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WalOptions")
            .field("segment_bytes", &self.segment_bytes)
            .field("writeback_bytes", &self.writeback_bytes)
            .field("background_sync_ms", &self.background_sync_ms)
            .field("background_sync_bytes", &self.background_sync_bytes)
            .field("recycled_segments", &self.recycled_segments)
            .field("prepared_segments", &self.prepared_segments)
            .field("reserve_bytes", &self.reserve_bytes)
            .field("page_cache_bytes", &self.page_cache_bytes)
            .field("footer_cache_bytes", &self.footer_cache_bytes)
            .field("trust_unsynced", &self.trust_unsynced)
            .finish_non_exhaustive()
    }
}

/// A segment that will not be written to again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSegment {
    /// Which one.
    pub sequence: SegmentId,
    /// The groups with entries in it, each with the last index it has there.
    pub groups: Vec<(GroupId, Index)>,
}

/// Who asks for space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpaceClass {
    /// Leaves the reserve alone.
    Normal,
    /// May use the reserve: metadata, membership, rewriting.
    Critical,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_can_be_shown() {
        let shown = format!("{:?}", WalOptions { segment_bytes: 4096, ..WalOptions::default() });
        assert!(shown.contains("segment_bytes: 4096") && shown.contains("trust_unsynced: false"), "{shown}");
    }
}
