//! Consumers that read all the time while the cluster suffers, and what they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::check::Findings;
use crate::client::reader_config;
use crate::history::ReadLog;
use crate::message::{Contents, Messages};

const POLL: Duration = Duration::from_millis(100);
/// Between two attempts to go on where the client library has given up.
const SEEK: Duration = Duration::from_secs(5);

/// The rules for what a consumer is shown: each offset once, in order, whole. Pure.
#[derive(Debug)]
pub struct TailCheck {
    messages: Messages,
    next: BTreeMap<i32, u64>,
    reads: ReadLog,
    findings: Findings,
}

impl TailCheck {
    /// A consumer that begins at offset 0 of every partition.
    pub fn new(messages: Messages) -> Self {
        Self { messages, next: BTreeMap::new(), reads: ReadLog::default(), findings: Findings::default() }
    }

    /// The offset that is to come next.
    pub fn next(&self, partition: i32) -> u64 {
        self.next.get(&partition).copied().unwrap_or(0)
    }

    /// A record is shown.
    pub fn record(&mut self, partition: i32, offset: u64, value: &[u8]) {
        let next = self.next(partition);
        if offset < next {
            self.findings.went_back += 1;
            self.example(partition, offset, || format!("shown when {next} was to come next"));
        } else if offset > next {
            self.findings.gaps += offset - next;
            self.example(partition, offset, || format!("shown when {next} was to come next"));
        }
        self.next.insert(partition, offset + 1);
        match self.messages.check(value) {
            Contents::Whole(id) => self.reads.read(partition, offset, id),
            Contents::Foreign => self.findings.foreign += 1,
            Contents::Damaged(how) => {
                self.findings.damaged += 1;
                self.example(partition, offset, || how);
            }
        }
    }

    /// A consumer is told that the offset after the last one that it was shown does not exist.
    pub fn out_of_range(&mut self, partition: i32) {
        self.findings.went_back += 1;
        let next = self.next(partition);
        self.example(partition, next, || "said to be out of range, although all below it was shown".into());
    }

    fn example(&mut self, partition: i32, offset: u64, text: impl FnOnce() -> String) {
        self.findings.example(|| format!("a consumer of partition {partition}, offset {offset}: {}", text()));
    }

    /// What it was shown, and what is wrong with that.
    pub fn finish(self) -> (ReadLog, Findings) {
        (self.reads, self.findings)
    }
}

struct Shared {
    check: Mutex<TailCheck>,
    records: AtomicU64,
    stop: AtomicBool,
}

/// A running consumer of a whole topic.
pub struct Tail {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Tail {
    /// Begins to read all partitions from their beginning.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        partitions: i32,
        messages: Messages,
    ) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer = reader_config(bootstrap).create()?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..partitions {
            assignment.add_partition_offset(topic, partition, Offset::Offset(0))?;
        }
        consumer.assign(&assignment)?;
        let shared = Arc::new(Shared {
            check: Mutex::new(TailCheck::new(messages)),
            records: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let (topic, own) = (topic.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || read(&consumer, &topic, partitions, &own));
        Ok(Self { shared, thread })
    }

    /// Records shown so far.
    pub fn records(&self) -> u64 {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// The offset that is to come next.
    pub fn next(&self, partition: i32) -> u64 {
        self.shared.check.lock().next(partition)
    }

    /// Stops reading.
    pub fn stop(self) -> (ReadLog, Findings) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = self.thread.join() {
            std::panic::resume_unwind(panic);
        }
        let messages = self.shared.check.lock().messages.clone();
        std::mem::replace(&mut *self.shared.check.lock(), TailCheck::new(messages)).finish()
    }
}

fn read(consumer: &BaseConsumer, topic: &str, partitions: i32, shared: &Shared) {
    let mut out_of_range_at: Option<Instant> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        match consumer.poll(POLL) {
            Some(Ok(record)) => {
                let offset = u64::try_from(record.offset()).unwrap_or(0);
                shared.check.lock().record(record.partition(), offset, record.payload().unwrap_or_default());
                shared.records.fetch_add(1, Ordering::Relaxed);
            }
            // The only error that ends reading; the library repeats everything else by itself. It does not name the partition.
            Some(Err(error)) if is_out_of_range(&error) => {
                shared.check.lock().out_of_range(-1);
                out_of_range_at.get_or_insert_with(Instant::now);
            }
            Some(Err(_)) | None => {}
        }
        if out_of_range_at.is_some_and(|at| at.elapsed() > SEEK) {
            out_of_range_at = None;
            for partition in 0..partitions {
                let next = shared.check.lock().next(partition);
                let next = Offset::Offset(i64::try_from(next).unwrap_or(i64::MAX));
                let _ = consumer.seek(topic, partition, next, POLL);
            }
        }
    }
}

fn is_out_of_range(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Identity, RunId};

    fn messages() -> Messages {
        Messages::new(RunId(3), 64)
    }

    fn check(offsets: &[u64]) -> (ReadLog, Findings) {
        let mut check = TailCheck::new(messages());
        let mut value = Vec::new();
        for offset in offsets {
            messages().write(Identity { producer: 0, seq: *offset }, &mut value);
            check.record(1, *offset, &value);
        }
        check.finish()
    }

    #[test]
    fn records_in_order_are_clean_and_remembered() {
        let (reads, findings) = check(&[0, 1, 2, 3]);
        assert!(findings.is_clean());
        assert_eq!(reads.count(), 4);
    }

    #[test]
    fn a_record_left_out_is_a_gap() {
        assert_eq!(check(&[0, 1, 4]).1.gaps, 2);
        assert_eq!(check(&[1, 2]).1.gaps, 1, "the first one counts too");
    }

    #[test]
    fn a_record_shown_again_is_a_step_back() {
        let (_, findings) = check(&[0, 1, 1, 2]);
        assert_eq!((findings.went_back, findings.gaps), (1, 0));
        assert!(!findings.holds_what_was_acknowledged());
    }

    #[test]
    fn being_sent_back_by_the_broker_is_a_step_back() {
        let mut check = TailCheck::new(messages());
        check.out_of_range(0);
        assert_eq!(check.finish().1.went_back, 1);
    }

    #[test]
    fn changed_contents_are_found() {
        let mut value = Vec::new();
        messages().write(Identity { producer: 0, seq: 0 }, &mut value);
        value[50] ^= 1;
        let mut check = TailCheck::new(messages());
        check.record(0, 0, &value);
        assert_eq!(check.finish().1.damaged, 1);
    }
}
