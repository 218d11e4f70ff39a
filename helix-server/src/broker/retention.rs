//! Which records are too old or too many to keep. Looks at the WAL's index alone; blocking.

use helix_raft::{GroupId, Index};
use helix_wal::{Offset, ReadError, ReadLimit, Wal};

use crate::partition::view::PartitionView;

/// A topic's limits, and the time that they are held against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// `retention.ms`; negative: no limit.
    pub(crate) retention_ms: i64,
    /// `retention.bytes`; negative: no limit.
    pub(crate) retention_bytes: i64,
    /// The leader's clock.
    pub(crate) now_ms: i64,
}

/// Where the log should start by its limits; `None` if it may stay as it is. Whole entries are retired, never parts.
///
/// # Errors
/// When the WAL's index cannot be read.
pub(crate) fn log_start(wal: &Wal, view: &PartitionView, limits: Limits) -> Result<Option<i64>, ReadError> {
    let group = helix_wal::GroupId(view.group.0);
    let (now_start, end) = (view.log_start(), view.high_watermark());
    if now_start >= end {
        return Ok(None);
    }
    let mut start = now_start;
    if limits.retention_ms >= 0 {
        let oldest_kept_ms = limits.now_ms.saturating_sub(limits.retention_ms);
        start = start.max(match wal.index_written_since(group, oldest_kept_ms)? {
            Some(index) => base_offset(wal, group, index)?.unwrap_or(now_start),
            None => end,
        });
    }
    if limits.retention_bytes >= 0
        && let Some(index) = wal.index_keeping(group, limits.retention_bytes as u64)?
    {
        start = start.max(base_offset(wal, group, index)?.unwrap_or(now_start));
    }
    let start = start.min(end);
    Ok((start > now_start).then_some(start))
}

/// The first entry that is kept when the log starts at `log_start`, and its base offset.
///
/// # Errors
/// When the WAL's index cannot be read.
pub(crate) fn first_kept(
    wal: &Wal,
    group: GroupId,
    log_start: i64,
) -> Result<Option<(Index, Offset)>, ReadError> {
    let wal_group = helix_wal::GroupId(group.0);
    let Some(bounds) = wal.bounds(wal_group) else { return Ok(None) };
    match wal.index_at_offset(wal_group, Offset(log_start as u64))? {
        Some(index) => {
            let base = base_offset(wal, wal_group, index)?;
            Ok(base.map(|base| (Index(index.0), Offset(base as u64))))
        }
        None => Ok(Some((Index(bounds.last_index.0 + 1), bounds.next_offset))),
    }
}

/// `None` if the entry is gone by now.
fn base_offset(
    wal: &Wal,
    group: helix_wal::GroupId,
    index: helix_wal::Index,
) -> Result<Option<i64>, ReadError> {
    let read = match wal.read(group, index, ReadLimit { max_bytes: 1, max_records: 1 }) {
        Err(ReadError::BelowStart { .. }) => return Ok(None),
        read => read?,
    };
    Ok(read.first().map(|stored| stored.record.base_offset.0 as i64))
}
