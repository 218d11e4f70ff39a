//! A histogram whose observations are atomic additions; the library's own takes a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The buckets of a histogram.
#[derive(Debug)]
pub(super) struct Buckets {
    /// Inclusive upper ends, ascending, in the unit in which values are observed; one more bucket has no upper end.
    ends: &'static [u64],
    /// What one observed unit is in the unit that is shown.
    scale: f64,
}

/// Observed in microseconds, shown in seconds.
pub(super) static LATENCY_MICROS: Buckets = Buckets {
    ends: &[
        100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
        2_000_000, 5_000_000, 10_000_000, 30_000_000,
    ],
    scale: 1e-6,
};

/// Sizes from a small message to the largest entry.
pub(super) static BYTES: Buckets = Buckets {
    ends: &[
        256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 2_097_152, 4_194_304, 8_388_608, 16_777_216,
        67_108_864,
    ],
    scale: 1.0,
};

/// Numbers of batches.
pub(super) static BATCHES: Buckets =
    Buckets { ends: &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], scale: 1.0 };

/// Counts values in buckets.
#[derive(Clone)]
pub(super) struct AtomicHistogram {
    buckets: &'static Buckets,
    counts: Arc<[AtomicU64]>,
    sum: Arc<AtomicU64>,
}

impl AtomicHistogram {
    pub(super) fn new(buckets: &'static Buckets) -> Self {
        let counts = (0..=buckets.ends.len()).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, counts, sum: Arc::default() }
    }

    pub(super) fn observe(&self, value: u64) {
        let bucket = self.buckets.ends.partition_point(|&end| end < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }
}

impl fmt::Debug for AtomicHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicHistogram").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl TypedMetric for AtomicHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for AtomicHistogram {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let ends = self.buckets.ends.iter().copied().chain([u64::MAX]);
        encode_histogram(encoder, self.sum.load(Ordering::Relaxed), ends.zip(counts), self.buckets.scale)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Writes a histogram of (inclusive upper end, values in the bucket) pairs; `u64::MAX` is no upper end.
pub(super) fn encode_histogram(
    mut encoder: MetricEncoder<'_>,
    sum: u64,
    buckets: impl Iterator<Item = (u64, u64)>,
    scale: f64,
) -> fmt::Result {
    // Division by a whole number rounds better than multiplication: 1000 us are 0.001 s and not 0.0009999999.
    let shown = |value: u64| value as f64 / (1.0 / scale).round();
    let buckets: Vec<(f64, u64)> = buckets
        .map(|(end, count)| (if end == u64::MAX { f64::INFINITY } else { shown(end) }, count))
        .collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    encoder.encode_histogram::<NoLabelSet>(shown(sum), count, &buckets, None)
}
