//! What a flood came to.

use std::fmt;

use serde::Serialize;

use super::connection::Tally;
use super::stream::Stream;
use crate::process::Usage;
use crate::report::{Floors, Latency};

/// What became of one stream in the measured time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StreamReport {
    /// What it was.
    pub stream: Stream,
    /// Requests answered with success.
    pub requests: u64,
    /// Of them in a second.
    pub requests_per_s: f64,
    /// Their payload.
    pub mb_per_s: f64,
    /// From when a request was due to its answer.
    pub latency: Latency,
    /// Requests answered with an error.
    pub failed: u64,
    /// The last error code.
    pub error_code: Option<i16>,
}

impl StreamReport {
    pub(super) fn new(stream: Stream, tally: &Tally, failed_late: u64, seconds: f64) -> Self {
        let requests_per_s = tally.requests as f64 / seconds;
        Self {
            stream,
            requests: tally.requests,
            requests_per_s,
            mb_per_s: requests_per_s * stream.request_bytes() as f64 / 1e6,
            latency: Latency::of(&tally.latency_us),
            failed: tally.failed + failed_late,
            error_code: tally.error_code,
        }
    }
}

/// What a flood came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FloodReport {
    /// In the order in which they were asked for.
    pub streams: Vec<StreamReport>,
    /// Measured time.
    pub seconds: f64,
    /// Payload of all streams.
    pub mb_per_s: f64,
    /// CPU seconds of this process per GB of payload.
    pub client_cpu_s_per_gb: f64,
    /// CPU seconds of all brokers per GB of payload.
    pub broker_cpu_s_per_gb: Option<f64>,
    /// CPU microseconds of all brokers per request.
    pub broker_cpu_us_per_request: Option<f64>,
    /// The most memory that one broker ever used.
    pub broker_peak_mb_of_one: Option<f64>,
    /// Floors of the same minutes.
    pub floors: Option<Floors>,
}

impl FloodReport {
    pub(super) fn new(
        streams: Vec<StreamReport>,
        seconds: f64,
        client: Usage,
        brokers: Option<Usage>,
    ) -> Self {
        let mb_per_s: f64 = streams.iter().map(|stream| stream.mb_per_s).sum();
        let gb = (mb_per_s * seconds / 1e3).max(f64::MIN_POSITIVE);
        let requests = streams.iter().map(|stream| stream.requests).sum::<u64>().max(1) as f64;
        Self {
            streams,
            seconds,
            mb_per_s,
            client_cpu_s_per_gb: client.cpu.as_secs_f64() / gb,
            broker_cpu_s_per_gb: brokers.map(|usage| usage.cpu.as_secs_f64() / gb),
            broker_cpu_us_per_request: brokers.map(|usage| usage.cpu.as_secs_f64() * 1e6 / requests),
            broker_peak_mb_of_one: brokers.map(|usage| usage.peak_bytes as f64 / 1e6),
            floors: None,
        }
    }

    /// Payload per second as a part of what the floor moved in the same minutes.
    pub fn ratio_to_floor(&self) -> Option<f64> {
        self.floors.map(|floors| self.mb_per_s / floors.mb_per_s())
    }

    /// Why the figures are worth nothing, if they are.
    pub fn fault(&self) -> Option<String> {
        let failed: u64 = self.streams.iter().map(|stream| stream.failed).sum();
        let code = self.streams.iter().find_map(|stream| stream.error_code);
        if failed > 0 {
            return Some(format!("{failed} requests failed, the last with Kafka's error {code:?}"));
        }
        let idle = self.streams.iter().find(|stream| stream.requests == 0)?;
        Some(format!("no request of the stream of {} was answered in the measured time", idle.stream))
    }
}

impl fmt::Display for FloodReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for stream in &self.streams {
            let StreamReport { requests_per_s, mb_per_s, latency, failed, .. } = stream;
            writeln!(f, "  stream          {}", stream.stream)?;
            writeln!(
                f,
                "    throughput    {mb_per_s:.1} MB/s, {requests_per_s:.0} requests/s, {failed} failed"
            )?;
            writeln!(
                f,
                "    latency       p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
                latency.p50_ms, latency.p99_ms, latency.p999_ms, latency.max_ms
            )?;
        }
        if let (Some(per_gb), Some(per_request)) = (self.broker_cpu_s_per_gb, self.broker_cpu_us_per_request)
        {
            let client = self.client_cpu_s_per_gb;
            writeln!(
                f,
                "  CPU             brokers {per_gb:.2} s/GB, {per_request:.0} us/request, client {client:.2} s/GB"
            )?;
        }
        if let Some(peak) = self.broker_peak_mb_of_one {
            writeln!(f, "  broker memory   peak {peak:.0} MB of one node")?;
        }
        if let (Some(floors), Some(ratio)) = (&self.floors, self.ratio_to_floor()) {
            let (before, after) = (floors.before.mb_per_s, floors.after.mb_per_s);
            writeln!(
                f,
                "  floor           {before:.0} MB/s before, {after:.0} MB/s after: ratio {ratio:.2}"
            )?;
        }
        Ok(())
    }
}
