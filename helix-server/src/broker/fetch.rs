//! The read path below the Fetch API: memory tail first, then the WAL, never past the high watermark.

use std::sync::Arc;

use helix_raft::planted;
use helix_wal::{ReadError, ReadLimit, RecordKind, Wal};
use thiserror::Error;

use super::Broker;
use crate::entry::EntryTag;
use crate::partition::slices::{self, Slice};
use crate::partition::view::PartitionView;

/// Records asked of the WAL at a time; the byte limit ends most reads earlier.
const MAX_RECORDS_PER_READ: usize = 4096;

/// Why stored records could not be read.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The WAL refused or failed.
    #[error("stored records of group {group} cannot be read: {source}")]
    Wal {
        /// The partition's group.
        group: helix_raft::GroupId,
        /// What the WAL said.
        source: ReadError,
    },
    /// The reading thread is gone.
    #[error("the read was given up because the node stops")]
    Stopping,
}

/// Reads committed batches from the one that holds `offset` on. At most `max_bytes`, but at least one whole batch (if there
/// is one below the high watermark) when `at_least_one`.
///
/// # Errors
/// When the WAL cannot give what it should hold.
pub async fn read(
    broker: &Broker,
    view: &Arc<PartitionView>,
    offset: i64,
    max_bytes: usize,
    at_least_one: bool,
) -> Result<Slice, FetchError> {
    let high_watermark = view.high_watermark();
    let nothing_fits = max_bytes == 0 && !at_least_one;
    if offset >= high_watermark || nothing_fits {
        return Ok(Slice { cut: offset < high_watermark, ..Slice::default() });
    }
    if let Some(slice) = view.read_tail(offset, max_bytes, at_least_one) {
        return Ok(slice);
    }
    let (wal, group) = (broker.wal().clone(), view.group);
    let read = broker
        .env()
        .spawn_blocking(move || read_wal(&wal, group, offset, high_watermark, max_bytes, at_least_one))
        .await
        .map_err(|_| FetchError::Stopping)?;
    if let Err(FetchError::Wal { source, .. }) = &read {
        broker.repairs().report_failed_read(source);
    }
    read
}

fn read_wal(
    wal: &Wal,
    group: helix_raft::GroupId,
    offset: i64,
    high_watermark: i64,
    max_bytes: usize,
    at_least_one: bool,
) -> Result<Slice, FetchError> {
    let failed = |source| FetchError::Wal { group, source };
    let wal_group = helix_wal::GroupId(group.0);
    let mut out = Slice::default();
    let Some(first) = wal.index_at_offset(wal_group, helix_wal::Offset(offset as u64)).map_err(failed)?
    else {
        return Ok(out);
    };
    let limit = ReadLimit { max_bytes: max_bytes as u64, max_records: MAX_RECORDS_PER_READ };
    let mut reached = 0;
    let read = match wal.read(wal_group, first, limit) {
        // The log begins behind it by now, which the next fetch is told.
        Err(ReadError::BelowStart { .. }) => return Ok(out),
        read => read.map_err(failed)?,
    };
    for stored in read {
        let record = stored.record;
        let end = record.next_offset().0;
        if end > high_watermark as u64 {
            return Ok(out);
        }
        let data = matches!(record.kind, RecordKind::Entry { tag } if tag == EntryTag::Data as u8);
        // The log begins behind the offset by now. What is there must not be taken for what was asked for.
        if data && out.bytes == 0 && record.base_offset.0 > offset as u64 && !planted("removed-while-read") {
            return Ok(out);
        }
        if data && !slices::take_batches(&record.payload, offset, max_bytes, at_least_one, &mut out) {
            return Ok(out);
        }
        reached = end;
    }
    // The WAL counts whole entries, of which the first may have begun far ahead of the offset.
    out.cut = reached < high_watermark as u64;
    Ok(out)
}
