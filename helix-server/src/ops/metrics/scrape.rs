//! What is asked for at each scrape, because somebody else counts it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use helix_wal::{LatencyHistogram, WalStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::histogram::encode_histogram;

/// State of the node at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSample {
    /// Groups with a replica here.
    pub groups: u64,
    /// Memory by budget.
    pub budgets: Vec<BudgetSample>,
}

/// How much of a budget is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetSample {
    /// What the budget is for: `produce`, `peer`, `fetch`, `tails`, ...
    pub name: &'static str,
    /// In use, in bytes unless the name says otherwise.
    pub used: u64,
    /// What may be in use.
    pub limit: u64,
}

/// Something that is asked at each scrape, once it is known.
pub(super) struct Source<T>(Arc<OnceLock<Ask<T>>>);

type Ask<T> = Box<dyn Fn() -> T + Send + Sync>;

impl<T> Source<T> {
    /// Says what to ask; the first call counts.
    pub(super) fn set(&self, ask: Ask<T>) {
        // An error says that there was an earlier call.
        let _ = self.0.set(ask);
    }

    fn ask(&self) -> Option<T> {
        self.0.get().map(|ask| ask())
    }
}

impl<T> Default for Source<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Source<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("known", &self.0.get().is_some()).finish()
    }
}

#[derive(Debug)]
pub(super) struct NodeCollector(pub(super) Source<NodeSample>);

#[derive(Debug)]
pub(super) struct WalCollector(pub(super) Source<WalStats>);

/// Gauges are signed in the library; nothing here comes near the end of the range.
fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}

impl Collector for NodeCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(sample) = self.0.ask() else { return Ok(()) };
        let groups =
            encoder.encode_descriptor("groups", "Groups with a replica here", None, MetricType::Gauge)?;
        gauge(sample.groups).encode(groups)?;
        let used = sample.budgets.iter().map(|budget| (budget.name, budget.used));
        by_budget(&mut encoder, "budget_used", "Memory in use, by what it is for", used)?;
        let limits = sample.budgets.iter().map(|budget| (budget.name, budget.limit));
        by_budget(&mut encoder, "budget_limit", "Memory that may be in use, by what it is for", limits)
    }
}

fn by_budget(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (&'static str, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (budget, value) in values {
        gauge(value).encode(family.encode_family(&[("budget", budget)])?)?;
    }
    Ok(())
}

impl Collector for WalCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(stats) = self.0.ask() else { return Ok(()) };
        let bytes = Some(&Unit::Bytes);
        let counters = [
            ("wal_writes", "Vectored writes to the log", None, stats.writes),
            ("wal_written", "Bytes written to the log, headers and padding included", bytes, stats.bytes),
            ("wal_payload", "Bytes of payload written to the log", bytes, stats.payload_bytes),
            ("wal_frames", "Frames written to the log", None, stats.frames),
            ("wal_appends", "Units appended to the log", None, stats.appends),
            ("wal_appends_synced", "Appended units that waited for a sync", None, stats.appends_synced),
            ("wal_appends_failed", "Appended units that failed", None, stats.appends_failed),
            (
                "wal_syncs",
                "Rounds of fdatasync; wal_appends_synced per sync is group commit",
                None,
                stats.syncs,
            ),
            ("wal_roll_stalls", "Times a write waited for a new segment", None, stats.roll_stalls),
            ("wal_seals", "Segments sealed", None, stats.seals),
            ("wal_segments_retired", "Segments removed or recycled", None, stats.segments_retired),
            ("wal_rewritten", "Bytes copied out of mostly dead segments", bytes, stats.rewritten_bytes),
        ];
        for (name, help, unit, value) in counters {
            let descriptor = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
            ConstCounter::new(value).encode(descriptor)?;
        }
        let gauges = [
            ("wal_queue", "Bytes that wait to be written to the log", bytes, stats.queue_bytes),
            ("wal_queue_units", "Units that wait to be written to the log", None, stats.queue_units),
            ("wal_unsynced", "Bytes written and not synced", bytes, stats.unsynced_bytes),
            ("wal_segments", "Segments with data", None, stats.segments),
            ("wal_disk", "Bytes on disk of all files of the log", bytes, stats.disk_bytes),
        ];
        for (name, help, unit, value) in gauges {
            gauge(value).encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)?;
        }
        latency(&mut encoder, "wal_write_duration", "Time of a vectored write", &stats.write_latency)?;
        latency(&mut encoder, "wal_sync_duration", "Time of a round of fdatasync", &stats.sync_latency)
    }
}

fn latency(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    histogram: &LatencyHistogram,
) -> fmt::Result {
    let descriptor = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    encode_histogram(descriptor, histogram.total_us, histogram.buckets_us.iter().copied(), 1e-6)
}
