//! Finding offsets by timestamp, for ListOffsets: index first, then the records of the entries that the index names.

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
    let (log_start, high_watermark) = (view.log_start(), view.high_watermark());
    on_blocking_thread(broker, view, move |wal, group| {
        let mut from = Index(0);
        // What the index knows of an entry is an upper bound: records that are removed count, and what producers claim.
        while let Some(index) = wal.index_at_timestamp(group, from, target_ms)? {
            let look = |bytes: &_| batch::first_at_or_after(bytes, target_ms, log_start);
            match search(wal, group, index, high_watermark, look)? {
                Search::Found(found) => return Ok(Some(found)),
                Search::Nothing | Search::Removed => from = index.next(),
                Search::Uncommitted => break,
            }
        }
        Ok(None)
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
    let high_watermark = view.high_watermark();
    on_blocking_thread(broker, view, move |wal, group| {
        let end = helix_wal::Offset(high_watermark as u64);
        while let Some(index) = wal.index_of_max_timestamp(group, end)? {
            let mut best: Option<TimestampedOffset> = None;
            let looked = search(wal, group, index, high_watermark, |bytes| {
                let found = batch::record_of_max_timestamp(bytes)?;
                if let Some(found) = found
                    && best.is_none_or(|b| b.timestamp_ms < found.timestamp_ms)
                {
                    best = Some(found);
                }
                Ok(None)
            })?;
            if !matches!(looked, Search::Removed) {
                return Ok(best);
            }
        }
        Ok(None)
    })
    .await
}

/// What there is in an entry.
enum Search {
    Found(TimestampedOffset),
    Nothing,
    /// What readers must not see yet.
    Uncommitted,
    /// The log begins behind it by now.
    Removed,
}

/// Looks through the batches of one entry until `look` finds something. A batch that cannot be read is passed over: its
/// records have no timestamps that anyone could know.
fn search(
    wal: &Wal,
    group: GroupId,
    index: Index,
    high_watermark: i64,
    mut look: impl FnMut(&bytes::Bytes) -> Result<Option<TimestampedOffset>, batch::BatchError>,
) -> Result<Search, helix_wal::ReadError> {
    let one = ReadLimit { max_bytes: 1, max_records: 1 };
    let read = match wal.read(group, index, one) {
        Err(helix_wal::ReadError::BelowStart { .. }) => return Ok(Search::Removed),
        read => read?,
    };
    for stored in read {
        if stored.record.base_offset.0 >= high_watermark as u64 {
            return Ok(Search::Uncommitted);
        }
        for bytes in slices::batches(&stored.record.payload) {
            if let Ok(Some(found)) = look(&bytes) {
                return Ok(Search::Found(found));
            }
        }
    }
    Ok(Search::Nothing)
}

async fn on_blocking_thread(
    broker: &Broker,
    view: &Arc<PartitionView>,
    work: impl FnOnce(&Wal, GroupId) -> Result<Option<TimestampedOffset>, helix_wal::ReadError> + Send + 'static,
) -> Result<Option<TimestampedOffset>, FetchError> {
    let (wal, group) = (broker.wal().clone(), view.group);
    let permit = broker.budgets().searches.acquire(1).await;
    let search = move || {
        // The thread goes on when nobody waits for it any more, and so does its share.
        let _permit = permit;
        work(&wal, GroupId(group.0))
    };
    broker
        .env()
        .spawn_blocking(search)
        .await
        .map_err(|_| FetchError::Stopping)?
        .inspect_err(|error| broker.repairs().report_failed_read(error))
        .map_err(|source| FetchError::Wal { group, source })
}
