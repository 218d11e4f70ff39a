//! Reads partitions from one offset to another, each record once and in order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{ClientError, ClusterClient, reader_config};
use crate::wait;

/// Without a single record for so long, reading is given up.
const STALLED: Duration = Duration::from_secs(60);
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_millis(200);

/// The part of a partition that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub start: u64,
    /// The offset after the last one.
    pub end: u64,
}

/// Counts what readers have read, for whoever shows progress.
#[derive(Debug, Default)]
pub struct ReadCounters {
    /// Records.
    pub records: AtomicU64,
    /// Bytes of their values.
    pub bytes: AtomicU64,
}

/// Why not everything could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client could not be set up or the cluster not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The client library refused.
    #[error("reading {topic}: {source}")]
    Kafka {
        /// What was read.
        topic: String,
        /// What the library said.
        source: Box<KafkaError>,
    },
    /// No record came for a long time.
    #[error(
        "reading {topic} stalled for {STALLED:?}: partition {partition} stands at {next} of {end}; \
         last complaint of the client: {last_error}"
    )]
    Stalled {
        /// What was read.
        topic: String,
        /// A partition that is not finished.
        partition: i32,
        /// The offset that should come next.
        next: u64,
        /// Where it ends.
        end: u64,
        /// What the library complained about last.
        last_error: String,
    },
}

/// From the first to the last record that every partition of a topic has now.
pub fn whole_topic(client: &ClusterClient, topic: &str) -> Result<Vec<Range>, ReadError> {
    let view = client.await_leaders(topic, Duration::from_secs(30))?;
    let mut ranges = Vec::new();
    for led in view.partitions {
        let what = format!("the offsets of {topic}-{}", led.partition);
        let (start, end) = wait::until(what, Duration::from_secs(30), || {
            client.watermarks(topic, led.partition).map_err(|error| error.to_string())
        })
        .map_err(ClientError::from)?;
        ranges.push(Range { partition: led.partition, start, end });
    }
    Ok(ranges)
}

/// Reads all ranges on up to `readers` threads, each record once and in the order of its partition. `look` is called now and then.
pub fn read_in_parallel(
    bootstrap: &str,
    topic: &str,
    ranges: &[Range],
    readers: usize,
    counters: &ReadCounters,
    mut look: impl FnMut(),
) -> Result<(), ReadError> {
    std::thread::scope(|scope| {
        let readers: Vec<_> = deal(ranges, readers)
            .into_iter()
            .map(|hand| scope.spawn(move || read(bootstrap, topic, &hand, counters, |_, _, _| {})))
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            std::thread::sleep(BETWEEN_LOOKS);
            look();
        }
        readers.into_iter().try_for_each(|reader| match reader.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Deals the ranges out to at most `readers` readers, the longest first.
pub fn deal(ranges: &[Range], readers: usize) -> Vec<Vec<Range>> {
    let mut sorted = ranges.to_vec();
    sorted.sort_by_key(|range| std::cmp::Reverse(range.end.saturating_sub(range.start)));
    let mut hands = vec![Vec::new(); readers.clamp(1, ranges.len().max(1))];
    for range in sorted {
        if let Some(hand) = hands.iter_mut().min_by_key(|hand: &&mut Vec<Range>| {
            hand.iter().map(|range| range.end - range.start).sum::<u64>()
        }) {
            hand.push(range);
        }
    }
    hands
}

/// Reads all of `ranges` with one client and hands each record (partition, offset, value) to `on_record`.
pub fn read(
    bootstrap: &str,
    topic: &str,
    ranges: &[Range],
    counters: &ReadCounters,
    mut on_record: impl FnMut(i32, u64, &[u8]),
) -> Result<(), ReadError> {
    let failed = |source| ReadError::Kafka { topic: topic.to_owned(), source: Box::new(source) };
    let mut open: HashMap<i32, Range> = ranges
        .iter()
        .filter(|range| range.start < range.end)
        .map(|range| (range.partition, *range))
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    let consumer: BaseConsumer = reader_config(bootstrap).create().map_err(failed)?;
    assign(&consumer, topic, open.values()).map_err(failed)?;
    let mut last_record = Instant::now();
    let mut last_error = String::from("none");
    while !open.is_empty() {
        match consumer.poll(POLL) {
            Some(Ok(record)) => {
                last_record = Instant::now();
                let offset = u64::try_from(record.offset()).unwrap_or(0);
                let Some(range) = open.get_mut(&record.partition()).filter(|range| offset < range.end) else {
                    // Records behind the last that is wanted; a fully deleted tail ends here too.
                    open.remove(&record.partition());
                    continue;
                };
                let value = record.payload().unwrap_or_default();
                counters.records.fetch_add(1, Ordering::Relaxed);
                counters.bytes.fetch_add(value.len() as u64, Ordering::Relaxed);
                on_record(record.partition(), offset, value);
                range.start = offset + 1;
                if range.start >= range.end {
                    open.remove(&record.partition());
                }
            }
            Some(Err(error)) => last_error = error.to_string(),
            None => {}
        }
        if last_record.elapsed() > STALLED
            && let Some(range) = open.values().min_by_key(|range| range.partition)
        {
            let Range { partition, start: next, end } = *range;
            return Err(ReadError::Stalled { topic: topic.to_owned(), partition, next, end, last_error });
        }
    }
    Ok(())
}

fn assign<'a>(
    consumer: &BaseConsumer,
    topic: &str,
    ranges: impl Iterator<Item = &'a Range>,
) -> Result<(), KafkaError> {
    let mut assignment = TopicPartitionList::new();
    for range in ranges {
        let start = Offset::Offset(i64::try_from(range.start).unwrap_or(i64::MAX));
        assignment.add_partition_offset(topic, range.partition, start)?;
    }
    consumer.assign(&assignment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_range_is_dealt_once_and_evenly() {
        let ranges: Vec<Range> = (0..5).map(|partition| Range { partition, start: 0, end: 100 }).collect();
        let hands = deal(&ranges, 2);
        assert_eq!(hands.len(), 2);
        let mut dealt: Vec<i32> = hands.iter().flatten().map(|range| range.partition).collect();
        dealt.sort_unstable();
        assert_eq!(dealt, [0, 1, 2, 3, 4]);
        assert!(hands.iter().all(|hand| hand.len() >= 2));
        assert_eq!(deal(&ranges[..1], 4).len(), 1);
        assert_eq!(deal(&[], 4), vec![Vec::new()]);
    }
}
