//! One error type per operation.

use std::io;
use std::sync::Arc;

use crate::types::{GroupId, Index, SegmentId};

/// The error that stopped the log. Nothing is retried: after a failed sync the kernel may have dropped the pages.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log stopped: {operation} failed: {source}; check the disk, then restart the node")]
pub struct FatalError {
    /// What was being done.
    pub operation: String,
    /// How it failed.
    #[source]
    pub source: Arc<io::Error>,
}

impl FatalError {
    pub(crate) fn new(operation: impl Into<String>, source: io::Error) -> Self {
        Self { operation: operation.into(), source: Arc::new(source) }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else has it open.
    #[error("the data directory is in use by another process; stop that one or choose another directory")]
    Locked,
    /// Written by something newer.
    #[error("segment {segment} has format version {found}, this build reads {supported}; use a newer build")]
    Version {
        /// The segment.
        segment: SegmentId,
        /// What it says.
        found: u32,
        /// What this build knows.
        supported: u32,
    },
    /// An option makes no sense.
    #[error("bad option: {0}")]
    Options(String),
    /// The disk failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done.
        operation: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
}

/// Why an append or a sync did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// No room for another segment. The log is whole; appending works again once there is space.
    #[error("the disk is full; free space or lower the retention, writing resumes by itself")]
    DiskFull,
    /// The log has stopped.
    #[error(transparent)]
    Failed(#[from] FatalError),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The record does not fit the group's log; nothing of the unit was written from this record on.
    #[error("group {group} index {index} cannot be appended: {reason}")]
    Invalid {
        /// The group.
        group: GroupId,
        /// The index.
        index: Index,
        /// What is wrong.
        reason: &'static str,
    },
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such group.
    #[error("group {0} is not in the log")]
    UnknownGroup(GroupId),
    /// The log begins later.
    #[error("group {group} begins after index {start_index}, {requested} is gone")]
    BelowStart {
        /// The group.
        group: GroupId,
        /// What was asked for.
        requested: Index,
        /// After which index the log begins.
        start_index: Index,
    },
    /// What is stored there does not match its checksum. Another replica may have it.
    #[error("group {group} index {index} is damaged on this disk; fetch it from another replica")]
    Damaged {
        /// The group.
        group: GroupId,
        /// The first damaged index.
        index: Index,
    },
    /// The disk failed.
    #[error("reading the log: {0}")]
    Io(#[from] io::Error),
}

/// Why space was not given back.
#[derive(Debug, thiserror::Error)]
pub enum ReclaimError {
    /// One at a time.
    #[error("another reclaim is running; wait for it")]
    AlreadyRunning,
    /// The log could not be synced, so nothing may be removed.
    #[error(transparent)]
    NotSynced(#[from] AppendError),
    /// Survivors could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done.
        operation: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
}

/// Why damaged entries were not repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// What was given is not what was there.
    #[error("the entries do not fit: {0}")]
    Misfit(&'static str),
    /// It may be what was there, or not.
    #[error("nothing shows that the last entry is what was there: the one behind it is needed too")]
    Unproven,
    /// No room for it.
    #[error("the disk is full; free space or lower the retention, then the repair goes on")]
    DiskFull,
    /// The log could not be synced.
    #[error(transparent)]
    NotSynced(#[from] AppendError),
    /// The surroundings could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk failed.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done.
        operation: String,
        /// How it failed.
        #[source]
        source: io::Error,
    },
}

/// Why a log did not close cleanly.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// It had stopped before, or stopped on the way.
    #[error(transparent)]
    Failed(#[from] FatalError),
}

/// The answer of a space check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{requested} bytes asked for, {available} available above a reserve of {reserve}; free space on the log's disk"
)]
pub struct OutOfSpace {
    /// What was asked for.
    pub requested: u64,
    /// What there is, above the reserve.
    pub available: u64,
    /// What is kept back.
    pub reserve: u64,
}
