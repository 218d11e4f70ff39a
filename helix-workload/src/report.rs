//! The outcome of a measurement, readable and as JSON.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::check::Findings;
use crate::floor::Floor;

/// Latencies from handing a message to the client to its acknowledgement, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the messages were faster.
    pub p50_ms: f64,
    /// 99 of 100.
    pub p99_ms: f64,
    /// 999 of 1000.
    pub p999_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Latency {
    /// Reads the quantiles off a histogram of microseconds.
    pub fn of(histogram: &hdrhistogram::Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50_ms: at(0.5), p99_ms: at(0.99), p999_ms: at(0.999), max_ms: histogram.max() as f64 / 1e3 }
    }
}

/// What the brokers used while the load was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BrokerUsage {
    /// CPU seconds of all brokers per GB acknowledged.
    pub cpu_s_per_gb: f64,
    /// The most memory that any of them ever used.
    pub peak_mb_of_one: f64,
}

/// What the brokers' own counters say about the time of the load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct BrokerCounters {
    /// Times that a replica stood for election.
    pub elections: Option<f64>,
    /// fdatasync calls of all nodes.
    pub syncs: Option<f64>,
    /// Produce requests of all nodes.
    pub produce_requests: Option<f64>,
    /// Produce requests that waited for memory before they were read.
    pub requests_held: Option<f64>,
    /// Produce requests that were refused for lack of memory, for the client to repeat.
    pub requests_refused: Option<f64>,
    /// Record batches that went into one entry of the log.
    pub batches_per_entry: Option<f64>,
}

impl BrokerCounters {
    /// How many produce requests one sync of each replica served.
    pub fn requests_per_sync(&self, replicas: u32) -> Option<f64> {
        let (syncs, requests) = (self.syncs?, self.produce_requests?);
        (syncs > 0.0).then(|| requests * f64::from(replicas) / syncs)
    }
}

/// What reading everything back showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Records read.
    pub records: u64,
    /// MB/s of the readers.
    pub mb_per_s: f64,
    /// What is right and wrong.
    pub findings: Findings,
}

/// Floors measured before and after.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Floors {
    /// Before the load.
    pub before: Floor,
    /// After it.
    pub after: Floor,
}

impl Floors {
    /// The mean of both.
    pub fn mb_per_s(&self) -> f64 {
        f64::midpoint(self.before.mb_per_s, self.after.mb_per_s)
    }
}

/// The outcome of one measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The profile's name.
    pub profile: String,
    /// Its shape, in words.
    pub shape: String,
    /// Measured seconds.
    pub seconds: f64,
    /// Acknowledged within the measured time.
    pub messages: u64,
    /// Acknowledged payload per second.
    pub mb_per_s: f64,
    /// Acknowledged messages per second.
    pub messages_per_s: f64,
    /// Failed, warm-up included.
    pub failed: u64,
    /// Transmitted more than once, warm-up included.
    pub retried_messages: u64,
    /// Requests transmitted more than once, warm-up included.
    pub retried_requests: u64,
    /// Latency.
    pub latency: Latency,
    /// CPU seconds of the load itself per GB acknowledged: on one machine with the brokers it takes its share.
    pub client_cpu_s_per_gb: f64,
    /// CPU and memory of the brokers, when their processes are known.
    pub brokers: Option<BrokerUsage>,
    /// Their counters, when their HTTP addresses are known.
    pub counters: Option<BrokerCounters>,
    /// How many copies the topic keeps.
    pub replicas: u32,
    /// The floor on this machine in this run.
    pub floors: Option<Floors>,
    /// The outcome of reading everything back.
    pub verification: Option<Verification>,
    /// What clients complained about.
    pub errors: Vec<String>,
}

impl Report {
    /// How much of the floor's speed was reached.
    pub fn ratio_to_floor(&self) -> Option<f64> {
        self.floors.map(|floors| self.mb_per_s / floors.mb_per_s())
    }

    /// Why the run does not count, if it does not: a failed message, or contents that differ.
    pub fn fault(&self) -> Option<String> {
        if self.failed > 0 {
            return Some(format!("{} messages failed: {:?}", self.failed, self.errors));
        }
        match &self.verification {
            Some(verification) if !verification.findings.is_clean() => Some(format!(
                "what was read back differs from what was acknowledged: {:#?}",
                verification.findings
            )),
            _ => None,
        }
    }

    /// Writes the report as JSON.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, serde_json::to_vec_pretty(self)?)
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let latency = &self.latency;
        let mut rows = vec![
            ("profile", format!("{} ({})", self.profile, self.shape)),
            ("measured", format!("{:.1} s, {} messages", self.seconds, self.messages)),
            ("throughput", format!("{:.1} MB/s, {:.0} messages/s", self.mb_per_s, self.messages_per_s)),
            ("failed", format!("{} messages", self.failed)),
            ("retried", format!("{} messages, {} requests", self.retried_messages, self.retried_requests)),
            (
                "latency",
                format!(
                    "p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
                    latency.p50_ms, latency.p99_ms, latency.p999_ms, latency.max_ms
                ),
            ),
        ];
        if let Some(brokers) = &self.brokers {
            rows.push((
                "CPU",
                format!(
                    "brokers {:.2} s/GB, client {:.2} s/GB",
                    brokers.cpu_s_per_gb, self.client_cpu_s_per_gb
                ),
            ));
            rows.push(("broker memory", format!("peak {:.0} MB of one node", brokers.peak_mb_of_one)));
        }
        if let Some(counters) = &self.counters {
            rows.extend(self.counter_rows(counters));
        }
        if let (Some(floors), Some(ratio)) = (&self.floors, self.ratio_to_floor()) {
            rows.push((
                "floor",
                format!(
                    "{:.0} MB/s before, {:.0} MB/s after, {:.2} s/GB with its client",
                    floors.before.mb_per_s, floors.after.mb_per_s, floors.before.cpu_s_per_gb
                ),
            ));
            rows.push(("ratio to floor", format!("{ratio:.2}")));
        }
        if let Some(verification) = &self.verification {
            rows.push(("read back", verification_row(verification)));
        }
        for error in &self.errors {
            rows.push(("client said", error.clone()));
        }
        rows
    }

    fn counter_rows(&self, counters: &BrokerCounters) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if let Some(elections) = counters.elections {
            rows.push(("elections", format!("{elections:.0} during the load")));
        }
        if let (Some(held), Some(refused)) = (counters.requests_held, counters.requests_refused) {
            rows.push(("backpressure", format!("{held:.0} produce requests held, {refused:.0} refused")));
        }
        if let Some(batches) = counters.batches_per_entry {
            rows.push(("batching", format!("{batches:.1} record batches in one log entry")));
        }
        if let (Some(syncs), Some(requests)) = (counters.syncs, counters.produce_requests) {
            let ratio = counters.requests_per_sync(self.replicas);
            let served = ratio.map_or(String::new(), |ratio| format!(", one served {ratio:.1} requests"));
            rows.push(("fdatasync", format!("{syncs:.0} for {requests:.0} produce requests{served}")));
        }
        rows
    }
}

fn verification_row(verification: &Verification) -> String {
    let findings = &verification.findings;
    let outcome = if findings.is_clean() {
        "nothing lost, nothing twice, order kept, contents equal".to_owned()
    } else {
        format!(
            "LOST {}, TWICE {}, REORDERED {}, DAMAGED {}, MISPLACED {}, GAPS {}, INVENTED {}, WITHDRAWN {}",
            findings.lost,
            findings.duplicated,
            findings.reordered,
            findings.damaged,
            findings.misplaced,
            findings.gaps,
            findings.invented,
            findings.withdrawn
        )
    };
    format!("{} records at {:.0} MB/s: {outcome}", verification.records, verification.mb_per_s)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.rows() {
            writeln!(f, "  {name:<15} {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            profile: "p".into(),
            shape: "s".into(),
            seconds: 2.0,
            messages: 10,
            mb_per_s: 100.0,
            messages_per_s: 5.0,
            failed: 0,
            retried_messages: 0,
            retried_requests: 0,
            latency: Latency { p50_ms: 1.0, p99_ms: 2.0, p999_ms: 3.0, max_ms: 4.0 },
            client_cpu_s_per_gb: 1.0,
            brokers: None,
            counters: Some(BrokerCounters {
                elections: Some(0.0),
                syncs: Some(30.0),
                produce_requests: Some(100.0),
                ..BrokerCounters::default()
            }),
            replicas: 3,
            floors: Some(Floors {
                before: Floor { mb_per_s: 300.0, cpu_s_per_gb: 2.0 },
                after: Floor { mb_per_s: 500.0, cpu_s_per_gb: 2.0 },
            }),
            verification: Some(Verification { records: 10, mb_per_s: 1.0, findings: Findings::default() }),
            errors: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_relative_to_this_run() {
        let report = report();
        assert_eq!(report.ratio_to_floor(), Some(0.25));
        assert_eq!(report.counters.unwrap().requests_per_sync(3), Some(10.0));
        let text = report.to_string();
        assert!(text.contains("ratio to floor  0.25") && text.contains("one served 10.0 requests"), "{text}");
    }

    #[test]
    fn failures_and_differences_are_faults_and_slowness_is_not() {
        let mut report = report();
        report.mb_per_s = 0.001;
        assert_eq!(report.fault(), None);
        report.failed = 1;
        assert!(report.fault().is_some());
        report.failed = 0;
        let findings = Findings { lost: 1, ..Findings::default() };
        report.verification = Some(Verification { records: 10, mb_per_s: 1.0, findings });
        assert!(report.fault().is_some_and(|fault| fault.contains("lost: 1")));
    }
}
