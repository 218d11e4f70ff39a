//! What happened when: second by second, and fault by fault. Written to a file as it happens, and kept for the page.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

use super::fault::Fault;

/// A second of the load.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Second {
    /// When it ended.
    pub at_s: f64,
    /// Messages of plain producers acknowledged per second.
    pub plain_per_s: f64,
    /// Messages of idempotent producers acknowledged per second.
    pub idempotent_per_s: f64,
    /// Records that consumers were shown per second.
    pub read_per_s: f64,
    /// Messages failed so far.
    pub failed: u64,
    /// Of what was acknowledged in it; `None` if nothing was.
    pub p99_ms: Option<f64>,
    /// The slowest.
    pub max_ms: Option<f64>,
}

/// A fault and what it did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Episode {
    /// What.
    pub fault: Fault,
    /// To which nodes.
    pub nodes: Vec<u32>,
    /// Particulars, in words.
    pub particulars: String,
    /// When it began.
    pub begun_s: f64,
    /// When it was healed.
    pub healed_s: f64,
    /// From then on until every partition acknowledged messages again.
    pub serving_after_ms: Option<f64>,
    /// From then on until every replica was in sync and every group had its members.
    pub whole_after_ms: Option<f64>,
    /// Acknowledged per second in the calm before.
    pub before_per_s: f64,
    /// Acknowledged per second while it lasted.
    pub during_per_s: f64,
    /// The longest that any partition acknowledged nothing in the calm before.
    pub silence_before_ms: f64,
    /// The longest that any partition led by a victim acknowledged nothing, from the beginning until all served again.
    pub interruption_led_ms: Option<f64>,
    /// The same of all other partitions.
    pub interruption_others_ms: Option<f64>,
}

/// What is written to the file.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Event<'a> {
    Note { text: &'a str },
    Second(&'a Second),
    FaultBegins { fault: Fault, nodes: &'a [u32], particulars: &'a str },
    FaultEnds { fault: Fault },
    Episode(&'a Episode),
    Violation { text: &'a str },
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    time_s: f64,
    #[serde(flatten)]
    event: Event<'a>,
}

#[derive(Debug, Default)]
struct Kept {
    seconds: Vec<Second>,
    episodes: Vec<Episode>,
    violations: Vec<String>,
    write_error: Option<io::Error>,
}

/// Writes down what happens.
#[derive(Debug)]
pub struct Timeline {
    begun: Instant,
    file: Option<Mutex<BufWriter<File>>>,
    kept: Mutex<Kept>,
}

impl Timeline {
    /// Begins; `path` gets a line of JSON for everything that happens.
    pub fn begin(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(File::create).transpose()?.map(|file| Mutex::new(BufWriter::new(file)));
        Ok(Self { begun: Instant::now(), file, kept: Mutex::default() })
    }

    /// Since the beginning.
    pub fn now_s(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Something worth knowing.
    pub fn note(&self, text: &str) {
        self.write(Event::Note { text });
    }

    /// A second is over.
    pub fn second(&self, second: Second) {
        self.write(Event::Second(&second));
        self.kept.lock().seconds.push(second);
    }

    /// A fault begins.
    pub fn fault_begins(&self, fault: Fault, nodes: &[u32], particulars: &str) {
        self.write(Event::FaultBegins { fault, nodes, particulars });
    }

    /// It is healed.
    pub fn fault_ends(&self, fault: Fault) {
        self.write(Event::FaultEnds { fault });
    }

    /// It is over.
    pub fn episode(&self, episode: Episode) {
        self.write(Event::Episode(&episode));
        self.kept.lock().episodes.push(episode);
    }

    /// Something happened that must not.
    pub fn violation(&self, text: String) {
        self.write(Event::Violation { text: &text });
        self.kept.lock().violations.push(text);
    }

    /// All seconds, faults, and what must not have happened.
    pub fn finish(self) -> io::Result<(Vec<Second>, Vec<Episode>, Vec<String>)> {
        let Kept { seconds, episodes, violations, write_error } = self.kept.into_inner();
        if let Some(error) = write_error {
            return Err(error);
        }
        Ok((seconds, episodes, violations))
    }

    fn write(&self, event: Event<'_>) {
        let Some(file) = &self.file else { return };
        let line = Line { time_s: self.now_s(), event };
        let mut file = file.lock();
        let written = serde_json::to_writer(&mut *file, &line)
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(b"\n"))
            // Whoever watches the file sees everything at once, and a run that is cut short leaves all it had.
            .and_then(|()| file.flush());
        if let Err(error) = written {
            self.kept.lock().write_error.get_or_insert(error);
        }
    }
}

/// Totals from which seconds are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    /// Acknowledged to plain and to idempotent producers.
    pub acknowledged: [u64; 2],
    /// Shown to consumers.
    pub read: u64,
    /// Messages failed.
    pub failed: u64,
}

impl Totals {
    /// What happened since `earlier`.
    pub fn second_since(
        &self,
        earlier: &Self,
        took: Duration,
        at_s: f64,
        latency_us: &Histogram<u64>,
    ) -> Second {
        let rate = |now: u64, before: u64| (now - before.min(now)) as f64 / took.as_secs_f64().max(1e-9);
        let some = !latency_us.is_empty();
        Second {
            at_s,
            plain_per_s: rate(self.acknowledged[0], earlier.acknowledged[0]),
            idempotent_per_s: rate(self.acknowledged[1], earlier.acknowledged[1]),
            read_per_s: rate(self.read, earlier.read),
            failed: self.failed,
            p99_ms: some.then(|| latency_us.value_at_quantile(0.99) as f64 / 1e3),
            max_ms: some.then(|| latency_us.max() as f64 / 1e3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_written_line_by_line_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("history.jsonl");
        let timeline = Timeline::begin(Some(&path)).unwrap();
        timeline.fault_begins(Fault::DiskFull, &[3], "p");
        timeline.second(Second { at_s: 1.0, ..Second::default() });
        timeline.violation("lost".into());
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
        assert_eq!(events, ["fault-begins", "second", "violation"]);
        assert_eq!(lines[0]["fault"], "disk-full");
        let (seconds, episodes, violations) = timeline.finish().unwrap();
        assert_eq!((seconds.len(), episodes.len(), violations.len()), (1, 0, 1));
    }

    #[test]
    fn a_second_is_the_difference_of_totals() {
        let mut latency_us = Histogram::new(3).unwrap();
        let earlier = Totals { acknowledged: [10, 0], read: 5, failed: 0 };
        let now = Totals { acknowledged: [30, 4], read: 5, failed: 1 };
        let second = now.second_since(&earlier, Duration::from_secs(2), 9.0, &latency_us);
        assert_eq!((second.plain_per_s, second.idempotent_per_s, second.read_per_s), (10.0, 2.0, 0.0));
        assert_eq!((second.failed, second.max_ms), (1, None));
        latency_us.record(2_000).unwrap();
        let second = now.second_since(&earlier, Duration::from_secs(2), 9.0, &latency_us);
        assert!(second.max_ms.is_some_and(|ms| (ms - 2.0).abs() < 0.01));
    }
}
