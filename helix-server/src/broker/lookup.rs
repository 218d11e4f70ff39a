//! Finding offsets by timestamp, for ListOffsets: index first, then the records of the one entry that the index names.

use std::sync::Arc;

use helix_wal::{GroupId, Index, ReadLimit, Wal};

use super::Broker;
use super::batch::{self, TimestampedOffset};
use super::fetch::FetchError;
use crate::partition::slices;
use crate::partition::view::PartitionView;

/// Searches at one time. Each decompresses one batch after the other, and a few bytes of one may stand for
/// [`batch::MAX_DECOMPRESSED_BYTES`].
pub const MAX_SEARCHES: usize = 4;

/// The first committed record whose timestamp is at least `target_ms`.
///
/// # Errors
/// When the WAL cannot give what it should hold.
pub async fn first_at_or_after(
    broker: &Broker,
    view: &Arc<PartitionView>,
    target_ms: i64,
) -> Result<Option<TimestampedOffset>, FetchError> {
    let log_start = view.log_start();
    on_blocking_thread(broker, view, move |wal, group| {
        let Some(index) = wal.index_at_timestamp(group, target_ms)? else { return Ok(None) };
        search(wal, group, index, |bytes| batch::first_at_or_after(bytes, target_ms, log_start))
    })
    .await
}

/// The committed record with the largest timestamp.
///
/// # Errors
/// When the WAL cannot give what it should hold.
pub async fn of_max_timestamp(
    broker: &Broker,
    view: &Arc<PartitionView>,
) -> Result<Option<TimestampedOffset>, FetchError> {
    on_blocking_thread(broker, view, move |wal, group| {
        let Some(index) = wal.index_of_max_timestamp(group)? else { return Ok(None) };
        let mut best: Option<TimestampedOffset> = None;
        search(wal, group, index, |bytes| {
            let found = batch::record_of_max_timestamp(bytes)?;
            if let Some(found) = found
                && best.is_none_or(|b| b.timestamp_ms < found.timestamp_ms)
            {
                best = Some(found);
            }
            Ok(None)
        })?;
        Ok(best)
    })
    .await
}

/// Looks through the batches of one entry until `look` finds something. A batch that cannot be read is passed over: its
/// records have no timestamps that anyone could know.
fn search(
    wal: &Wal,
    group: GroupId,
    index: Index,
    mut look: impl FnMut(&bytes::Bytes) -> Result<Option<TimestampedOffset>, batch::BatchError>,
) -> Result<Option<TimestampedOffset>, helix_wal::ReadError> {
    let one = ReadLimit { max_bytes: 1, max_records: 1 };
    for stored in wal.read(group, index, one)? {
        for bytes in slices::batches(&stored.record.payload) {
            if let Ok(Some(found)) = look(&bytes) {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

async fn on_blocking_thread(
    broker: &Broker,
    view: &Arc<PartitionView>,
    work: impl FnOnce(&Wal, GroupId) -> Result<Option<TimestampedOffset>, helix_wal::ReadError> + Send + 'static,
) -> Result<Option<TimestampedOffset>, FetchError> {
    let (wal, group, high_watermark) = (broker.wal().clone(), view.group, view.high_watermark());
    let permit = broker.budgets().searches.acquire(1).await;
    let search = move || {
        // The thread goes on when nobody waits for it any more, and so does its share.
        let _permit = permit;
        work(&wal, GroupId(group.0))
    };
    let found = broker
        .env()
        .spawn_blocking(search)
        .await
        .map_err(|_| FetchError::Stopping)?
        .inspect_err(|error| broker.repairs().report_failed_read(error))
        .map_err(|source| FetchError::Wal { group, source })?;
    // The index covers what is appended; readers see what is committed.
    Ok(found.filter(|record| record.offset < high_watermark))
}
