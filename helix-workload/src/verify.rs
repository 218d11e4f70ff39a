//! Reads everything back and holds it against what was acknowledged.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::check::{Findings, PartitionCheck, Seen, conclude};
use crate::client::ClusterClient;
use crate::history::History;
use crate::message::Messages;
use crate::progress::Progress;
use crate::reader::{self, Range, ReadCounters, ReadError};

/// What reading everything back showed.
#[derive(Debug)]
pub struct Verified {
    /// What is right and wrong.
    pub findings: Findings,
    /// Records read.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Readers work in parallel up to this number.
const READERS: usize = 2;

/// Reads the history's topic from its first record to its last and checks every record.
pub fn verify(client: &ClusterClient, history: &History, progress: &Progress) -> Result<Verified, ReadError> {
    let begun = Instant::now();
    let ranges = reader::whole_topic(client, &history.topic)?;
    let records: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let messages = Messages::new(history.run_id(), history.message_size);
    let seen = Seen::new(history);
    let counters = ReadCounters::default();
    let bar = progress.stage("reading back", Some(records));
    let parts = std::thread::scope(|scope| {
        let hands: Vec<_> = reader::deal(&ranges, READERS)
            .into_iter()
            .map(|hand| {
                let (messages, seen, counters) = (&messages, &seen, &counters);
                scope
                    .spawn(move || check_ranges(client.bootstrap(), history, &hand, messages, seen, counters))
            })
            .collect();
        while hands.iter().any(|hand| !hand.is_finished()) {
            bar.set(counters.records.load(Ordering::Relaxed));
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut parts = Vec::new();
        for hand in hands {
            match hand.join() {
                Ok(findings) => parts.extend(findings?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, ReadError>(parts)
    })?;
    bar.finish();
    Ok(Verified {
        findings: conclude(history, &seen, parts),
        records: counters.records.into_inner(),
        bytes: counters.bytes.into_inner(),
        took: begun.elapsed(),
    })
}

fn check_ranges(
    bootstrap: &str,
    history: &History,
    ranges: &[Range],
    messages: &Messages,
    seen: &Seen,
    counters: &ReadCounters,
) -> Result<Vec<Findings>, ReadError> {
    let mut checks: Vec<(Range, PartitionCheck<'_>)> = ranges
        .iter()
        .map(|range| (*range, PartitionCheck::new(range.partition, range.start, history, messages, seen)))
        .collect();
    reader::read(bootstrap, &history.topic, ranges, counters, |partition, offset, value| {
        if let Some((_, check)) = checks.iter_mut().find(|(range, _)| range.partition == partition) {
            check.record(offset, value);
        }
    })?;
    Ok(checks.into_iter().map(|(range, check)| check.finish(range.end)).collect())
}
