//! Counters of a running log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a latency histogram: up to 1 us, 2 us, 4 us, ... and one for everything above.
const BUCKETS: usize = 25;

/// A snapshot of the counters of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WalStats {
    /// Vectored writes to segments.
    pub writes: u64,
    /// Bytes written to segments, headers and padding included.
    pub bytes: u64,
    /// Frames written.
    pub frames: u64,
    /// Bytes of payload written.
    pub payload_bytes: u64,
    /// Units appended.
    pub appends: u64,
    /// Units whose completion waited for a sync.
    pub appends_synced: u64,
    /// Units refused, whatever the reason.
    pub appends_failed: u64,
    /// Rounds of `fdatasync`, whoever asked for them.
    pub syncs: u64,
    /// Payload bytes that wait for the writer.
    pub queue_bytes: u64,
    /// Units that wait for the writer.
    pub queue_units: u64,
    /// Written bytes that are not synced.
    pub unsynced_bytes: u64,
    /// Segments with data.
    pub segments: u64,
    /// Bytes that segments, prepared and recycled files take on the disk.
    pub disk_bytes: u64,
    /// Times the writer had to prepare a segment itself.
    pub roll_stalls: u64,
    /// Segments sealed.
    pub seals: u64,
    /// Segments removed or recycled.
    pub segments_retired: u64,
    /// Bytes of survivors copied out of mostly dead segments.
    pub rewritten_bytes: u64,
    /// How long vectored writes took.
    pub write_latency: LatencyHistogram,
    /// How long rounds of `fdatasync` took.
    pub sync_latency: LatencyHistogram,
}

/// Counts per bucket of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LatencyHistogram {
    /// Inclusive upper ends in microseconds, each with how many fell below it and above the one before. The last
    /// bucket ends at `u64::MAX`.
    pub buckets_us: Vec<(u64, u64)>,
    /// Sum of all, in microseconds.
    pub total_us: u64,
}

impl LatencyHistogram {
    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets_us.iter().map(|(_, count)| count).sum()
    }
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, amount: u64) {
        self.0.fetch_sub(amount, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(crate) struct Latencies {
    buckets: [Counter; BUCKETS],
    total_us: Counter,
}

impl Latencies {
    pub(crate) fn record(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(took_us)].add(1);
        self.total_us.add(took_us);
    }

    fn snapshot(&self) -> LatencyHistogram {
        let end = |bucket: usize| if bucket + 1 == BUCKETS { u64::MAX } else { 1 << bucket };
        LatencyHistogram {
            buckets_us: self.buckets.iter().enumerate().map(|(at, count)| (end(at), count.get())).collect(),
            total_us: self.total_us.get(),
        }
    }
}

/// The first bucket whose upper end is not below `took_us`.
fn bucket_of(took_us: u64) -> usize {
    let bits = u64::BITS - took_us.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

#[derive(Default)]
pub(crate) struct Stats {
    pub(crate) writes: Counter,
    pub(crate) bytes: Counter,
    pub(crate) frames: Counter,
    pub(crate) payload_bytes: Counter,
    pub(crate) appends: Counter,
    pub(crate) appends_synced: Counter,
    pub(crate) appends_failed: Counter,
    pub(crate) syncs: Counter,
    pub(crate) queue_bytes: Counter,
    pub(crate) queue_units: Counter,
    pub(crate) unsynced_bytes: Counter,
    pub(crate) roll_stalls: Counter,
    pub(crate) seals: Counter,
    pub(crate) segments_retired: Counter,
    pub(crate) rewritten_bytes: Counter,
    pub(crate) write_latency: Latencies,
    pub(crate) sync_latency: Latencies,
}

impl Stats {
    /// All counters; the gauges that other parts know are left at zero.
    pub(crate) fn snapshot(&self) -> WalStats {
        WalStats {
            writes: self.writes.get(),
            bytes: self.bytes.get(),
            frames: self.frames.get(),
            payload_bytes: self.payload_bytes.get(),
            appends: self.appends.get(),
            appends_synced: self.appends_synced.get(),
            appends_failed: self.appends_failed.get(),
            syncs: self.syncs.get(),
            queue_bytes: self.queue_bytes.get(),
            queue_units: self.queue_units.get(),
            unsynced_bytes: self.unsynced_bytes.get(),
            segments: 0,
            disk_bytes: 0,
            roll_stalls: self.roll_stalls.get(),
            seals: self.seals.get(),
            segments_retired: self.segments_retired.get(),
            rewritten_bytes: self.rewritten_bytes.get(),
            write_latency: self.write_latency.snapshot(),
            sync_latency: self.sync_latency.snapshot(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_falls_into_the_bucket_that_ends_at_or_above_it() {
        let latencies = Latencies::default();
        for took_us in [0, 1, 2, 3, 4, 5, 1 << 40] {
            latencies.record(Duration::from_micros(took_us));
        }
        let histogram = latencies.snapshot();
        assert_eq!(histogram.buckets_us[..4], [(1, 2), (2, 1), (4, 2), (8, 1)]);
        assert_eq!(histogram.buckets_us[BUCKETS - 1], (u64::MAX, 1));
        assert_eq!((histogram.count(), histogram.total_us), (7, 15 + (1 << 40)));
        let ends: Vec<u64> = histogram.buckets_us.iter().map(|(end, _)| *end).collect();
        assert_eq!((ends.len(), ends[23], ends[24]), (25, 1 << 23, u64::MAX));
        assert_eq!([1 << 23, (1 << 23) + 1, u64::MAX].map(bucket_of), [23, 24, 24]);
    }
}
