//! Giving space back.

/// What a reclaim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimReport {
    /// Segments whose records were all dead.
    pub dead_segments: u64,
    /// Mostly dead segments whose survivors were copied.
    pub rewritten_segments: u64,
    /// Bytes of survivors copied.
    pub copied_bytes: u64,
    /// Bytes of files removed or kept for reuse, less the copies.
    pub freed_bytes: u64,
}
