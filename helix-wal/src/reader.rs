//! Reading entries back.

/// Where a read ends. One record is always read, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Payload bytes.
    pub max_bytes: u64,
    /// Records.
    pub max_records: usize,
}
