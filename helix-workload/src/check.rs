//! The rules by which what was read back is held against what was acknowledged, and against what consumers were shown
//! before.
//!
//! One [`PartitionCheck`] per partition is fed the records in offset order; all of them share one [`Seen`], a bit per
//! message that was sent. [`conclude`] then looks for what never appeared. Memory: one bit per message, and the runs
//! of the history.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::history::{AckRun, History, ReadRun};
use crate::message::{Contents, Identity, Messages};

/// How many examples of what is wrong are kept.
const EXAMPLES: usize = 20;

/// What was found; all zero but `stored`, `uncertain` and `foreign` when nothing is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Different messages of this run that were read.
    pub stored: u64,
    /// Stored although never acknowledged: the outcome of those was unknown to the producer.
    pub uncertain: u64,
    /// Records that others wrote into the same topic.
    pub foreign: u64,
    /// Acknowledged, but not there.
    pub lost: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    /// Behind a later message of the same producer in the same partition.
    pub reordered: u64,
    /// Contents differ from what was sent.
    pub damaged: u64,
    /// At the acknowledged offset stands something else.
    pub misplaced: u64,
    /// Offsets that are missing between two records.
    pub gaps: u64,
    /// Messages that nobody sent.
    pub invented: u64,
    /// Shown to a consumer, and not there in the end: it was let read past the high watermark.
    pub withdrawn: u64,
    /// Times that a consumer was shown an offset below the one that was to come next, or told that there is none.
    pub went_back: u64,
    /// The first few cases, in words.
    pub examples: Vec<String>,
}

impl Findings {
    /// Whether everything is as it was acknowledged, in order and once.
    pub fn is_clean(&self) -> bool {
        self.holds_what_was_acknowledged() && self.duplicated + self.reordered == 0
    }

    /// Whether nothing acknowledged is lost or changed, nor anything that a consumer was shown. Copies and their order
    /// are not looked at: a producer that is not idempotent may store a message twice when it had to repeat it.
    pub fn holds_what_was_acknowledged(&self) -> bool {
        let of_producers = self.lost + self.damaged + self.misplaced + self.gaps + self.invented;
        of_producers + self.withdrawn + self.went_back == 0
    }

    /// Adds what another part of the check found.
    pub fn merge(&mut self, other: Self) {
        self.stored += other.stored;
        self.uncertain += other.uncertain;
        self.foreign += other.foreign;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.damaged += other.damaged;
        self.misplaced += other.misplaced;
        self.gaps += other.gaps;
        self.invented += other.invented;
        self.withdrawn += other.withdrawn;
        self.went_back += other.went_back;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }

    /// Notes a case, in words, unless there are enough of them.
    pub(crate) fn example(&mut self, text: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text());
        }
    }
}

/// Which messages have been read, one bit each; shared by all partitions.
#[derive(Debug)]
pub struct Seen {
    producers: Vec<Vec<AtomicU64>>,
}

impl Seen {
    /// Room for everything that the history says was sent.
    pub fn new(history: &History) -> Self {
        let words = |sent: u64| (0..sent.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { producers: history.producers.iter().map(|producer| words(producer.sent)).collect() }
    }

    /// Marks a message; false if it was marked before.
    fn insert(&self, id: Identity) -> bool {
        let word = &self.producers[id.producer as usize][(id.seq / 64) as usize];
        let bit = 1 << (id.seq % 64);
        word.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    fn contains(&self, producer: usize, seq: u64) -> bool {
        self.producers[producer][(seq / 64) as usize].load(Ordering::Relaxed) >> (seq % 64) & 1 == 1
    }

    fn count(&self) -> u64 {
        let ones = |word: &AtomicU64| u64::from(word.load(Ordering::Relaxed).count_ones());
        self.producers.iter().flatten().map(ones).sum()
    }
}

/// What must stand at a range of offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expected {
    first_offset: u64,
    first_seq: u64,
    count: u64,
    producer: u32,
}

impl Expected {
    fn at(&self, offset: u64) -> Option<Identity> {
        let distance = offset.checked_sub(self.first_offset).filter(|distance| *distance < self.count)?;
        Some(Identity { producer: self.producer, seq: self.first_seq + distance })
    }
}

/// What must stand in a partition, looked up in offset order.
#[derive(Debug)]
struct Course {
    /// By first offset.
    runs: Vec<Expected>,
    cursor: usize,
}

impl Course {
    fn new(runs: Vec<Expected>) -> Self {
        Self { runs, cursor: 0 }
    }

    fn at(&mut self, offset: u64) -> Option<Identity> {
        while self.runs.get(self.cursor).is_some_and(|run| run.first_offset + run.count <= offset) {
            self.cursor += 1;
        }
        self.runs.get(self.cursor).and_then(|run| run.at(offset))
    }

    /// How many offsets from `end` on it speaks of.
    fn beyond(&self, end: u64) -> u64 {
        let above = |run: &Expected| (run.first_offset + run.count).saturating_sub(end.max(run.first_offset));
        self.runs.iter().map(above).sum()
    }
}

/// Checks one partition, record by record in offset order.
#[derive(Debug)]
pub struct PartitionCheck<'a> {
    partition: i32,
    history: &'a History,
    messages: &'a Messages,
    seen: &'a Seen,
    acknowledged: Course,
    shown: Course,
    next_offset: u64,
    last_seq: Vec<Option<u64>>,
    findings: Findings,
}

impl<'a> PartitionCheck<'a> {
    /// A check that expects the partition's records from `start_offset` on.
    pub fn new(
        partition: i32,
        start_offset: u64,
        history: &'a History,
        messages: &'a Messages,
        seen: &'a Seen,
    ) -> Self {
        Self {
            partition,
            history,
            messages,
            seen,
            acknowledged: Course::new(acknowledged_in(history, partition)),
            shown: Course::new(shown_in(history, partition)),
            next_offset: start_offset,
            last_seq: vec![None; history.producers.len()],
            findings: Findings::default(),
        }
    }

    /// The next record of the partition.
    pub fn record(&mut self, offset: u64, value: &[u8]) {
        self.note_gap(offset);
        self.next_offset = offset + 1;
        let found = match self.messages.check(value) {
            Contents::Whole(id) if self.was_sent(id) => {
                self.note_message(offset, id);
                Some(id)
            }
            Contents::Whole(id) => {
                self.findings.invented += 1;
                self.example(offset, || format!("{id:?} was never sent"));
                None
            }
            Contents::Foreign => {
                self.findings.foreign += 1;
                None
            }
            Contents::Damaged(how) => {
                self.findings.damaged += 1;
                self.example(offset, || how);
                None
            }
        };
        self.compare(offset, found);
    }

    /// The partition ends before `end_offset`: what was found in it.
    pub fn finish(mut self, end_offset: u64) -> Findings {
        self.note_gap(end_offset);
        let beyond = self.shown.beyond(end_offset);
        if beyond > 0 {
            self.findings.withdrawn += beyond;
            self.example(end_offset, || {
                format!("it ends here, and {beyond} records behind it had been shown to a consumer")
            });
        }
        self.findings
    }

    fn was_sent(&self, id: Identity) -> bool {
        self.history.producers.get(id.producer as usize).is_some_and(|producer| id.seq < producer.sent)
    }

    fn note_gap(&mut self, offset: u64) {
        let expected = self.next_offset;
        if offset != expected {
            self.findings.gaps += offset.abs_diff(expected);
            self.example(offset, || format!("offset {expected} was to come next"));
        }
    }

    fn note_message(&mut self, offset: u64, id: Identity) {
        if !self.seen.insert(id) {
            self.findings.duplicated += 1;
            self.example(offset, || format!("{id:?} is here a second time"));
            return;
        }
        let last = &mut self.last_seq[id.producer as usize];
        match *last {
            Some(before) if before > id.seq => {
                self.findings.reordered += 1;
                self.example(offset, || format!("{id:?} stands behind message {before} of its producer"));
            }
            _ => *last = Some(id.seq),
        }
    }

    fn compare(&mut self, offset: u64, found: Option<Identity>) {
        if let Some(expected) = self.acknowledged.at(offset).filter(|expected| found != Some(*expected)) {
            self.findings.misplaced += 1;
            self.example(offset, || format!("{expected:?} was acknowledged here, found {found:?}"));
        }
        if let Some(shown) = self.shown.at(offset).filter(|shown| found != Some(*shown)) {
            self.findings.withdrawn += 1;
            self.example(offset, || format!("a consumer was shown {shown:?} here, found {found:?}"));
        }
    }

    fn example(&mut self, offset: u64, text: impl FnOnce() -> String) {
        let partition = self.partition;
        self.findings.example(|| format!("partition {partition} offset {offset}: {}", text()));
    }
}

/// What the acknowledgements say about one partition, in offset order.
fn acknowledged_in(history: &History, partition: i32) -> Vec<Expected> {
    let mut expected = Vec::new();
    for (producer, one) in (0..).zip(&history.producers) {
        for run in one.acks.partitions.get(&partition).into_iter().flatten() {
            if let AckRun { first_seq, first_offset: Some(first_offset), count } = *run {
                expected.push(Expected { first_offset, first_seq, count, producer });
            }
        }
    }
    expected.sort_by_key(|run| run.first_offset);
    expected
}

/// What consumers were shown of one partition, in offset order.
fn shown_in(history: &History, partition: i32) -> Vec<Expected> {
    let expected = |run: &ReadRun| Expected {
        first_offset: run.first_offset,
        first_seq: run.first_seq,
        count: run.count,
        producer: run.producer,
    };
    let mut shown: Vec<Expected> =
        history.reads.partitions.get(&partition).into_iter().flatten().map(expected).collect();
    shown.sort_by_key(|run| run.first_offset);
    shown
}

/// After all partitions have been read: what is missing, and the totals. Two acknowledgements for one offset are found
/// here too.
pub fn conclude(history: &History, seen: &Seen, partitions: Vec<Findings>) -> Findings {
    let mut all = Findings::default();
    for findings in partitions {
        all.merge(findings);
    }
    let mut acknowledged_and_stored = 0;
    for (producer, one) in history.producers.iter().enumerate() {
        for (partition, runs) in &one.acks.partitions {
            for seq in runs.iter().flat_map(|run| run.first_seq..run.first_seq + run.count) {
                if seq < one.sent && seen.contains(producer, seq) {
                    acknowledged_and_stored += 1;
                } else {
                    all.lost += 1;
                    all.example(|| {
                        format!("message {seq} of producer {producer} was acknowledged in partition {partition} and is gone")
                    });
                }
            }
        }
    }
    note_shared_offsets(history, &mut all);
    all.stored = seen.count();
    all.uncertain = all.stored.saturating_sub(acknowledged_and_stored);
    all
}

/// One offset must not be acknowledged for two messages.
fn note_shared_offsets(history: &History, all: &mut Findings) {
    let mut partitions: Vec<i32> =
        history.producers.iter().flat_map(|producer| producer.acks.partitions.keys().copied()).collect();
    partitions.sort_unstable();
    partitions.dedup();
    for partition in partitions {
        for pair in acknowledged_in(history, partition).windows(2) {
            let shared = (pair[0].first_offset + pair[0].count).saturating_sub(pair[1].first_offset);
            if shared > 0 {
                all.misplaced += shared;
                all.example(|| {
                    format!(
                        "partition {partition} offset {}: acknowledged for two messages",
                        pair[1].first_offset
                    )
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::history::{AckLog, ProducerHistory, ReadLog};
    use crate::message::RunId;

    const RUN: RunId = RunId(42);

    /// A correct world to plant faults in: what each partition stores (producer, seq), all of it acknowledged.
    #[derive(Clone)]
    struct World {
        partitions: Vec<Vec<Vec<u8>>>,
        start: Vec<u64>,
        history: History,
        messages: Messages,
    }

    impl World {
        /// `choices` says, for each message in turn, which producer sends it to which partition.
        fn new(producers: usize, partitions: usize, choices: &[(usize, usize)]) -> Self {
            let messages = Messages::new(RUN, 64);
            let mut stored: Vec<Vec<Vec<u8>>> = vec![Vec::new(); partitions];
            let mut history = History {
                run: RUN.0,
                topic: "t".into(),
                message_size: 64,
                idempotent: true,
                producers: vec![ProducerHistory::default(); producers],
                reads: ReadLog::default(),
            };
            let start: Vec<u64> = (0..partitions as u64).map(|p| p * 10).collect();
            for (producer, partition) in choices {
                let one = &mut history.producers[*producer];
                let offset = start[*partition] + stored[*partition].len() as u64;
                one.acks.acknowledge(*partition as i32, one.sent, Some(offset));
                let id = Identity { producer: *producer as u32, seq: one.sent };
                history.reads.read(*partition as i32, offset, id);
                stored[*partition].push(bytes(&messages, *producer as u32, one.sent));
                one.sent += 1;
            }
            Self { partitions: stored, start, history, messages }
        }

        fn simple() -> Self {
            let choices: Vec<_> = (0..40).map(|i| (i % 2, i / 2 % 2)).collect();
            Self::new(2, 2, &choices)
        }

        fn check(&self) -> Findings {
            let offsets: Vec<Vec<u64>> = self
                .partitions
                .iter()
                .zip(&self.start)
                .map(|(records, start)| (*start..*start + records.len() as u64).collect())
                .collect();
            self.check_at(&offsets)
        }

        fn check_at(&self, offsets: &[Vec<u64>]) -> Findings {
            let seen = Seen::new(&self.history);
            let mut parts = Vec::new();
            for (index, records) in self.partitions.iter().enumerate() {
                let start = self.start[index];
                let mut check =
                    PartitionCheck::new(index as i32, start, &self.history, &self.messages, &seen);
                for (offset, record) in offsets[index].iter().zip(records) {
                    check.record(*offset, record);
                }
                parts.push(check.finish(offsets[index].last().map_or(start, |last| last + 1)));
            }
            conclude(&self.history, &seen, parts)
        }
    }

    fn bytes(messages: &Messages, producer: u32, seq: u64) -> Vec<u8> {
        let mut buffer = Vec::new();
        messages.write(Identity { producer, seq }, &mut buffer);
        buffer
    }

    #[test]
    fn a_correct_world_is_clean() {
        let findings = World::simple().check();
        assert!(findings.is_clean(), "{findings:?}");
        assert_eq!((findings.stored, findings.uncertain), (40, 0));
    }

    #[test]
    fn a_lost_message_is_found_wherever_it_stood() {
        for (partition, index) in [(0, 0), (0, 7), (1, 19)] {
            let mut world = World::simple();
            world.partitions[partition].remove(index);
            let findings = world.check();
            assert_eq!(findings.lost, 1, "{findings:?}");
            assert!(!findings.holds_what_was_acknowledged());
        }
    }

    #[test]
    fn a_lost_tail_is_found() {
        let mut world = World::simple();
        world.partitions[0].truncate(15);
        assert_eq!(world.check().lost, 5);
    }

    #[test]
    fn a_duplicate_is_found_in_the_same_and_in_another_partition() {
        for target in [0, 1] {
            let mut world = World::simple();
            let copy = world.partitions[0][3].clone();
            world.partitions[target].push(copy);
            let findings = world.check();
            assert_eq!((findings.duplicated, findings.lost), (1, 0), "{findings:?}");
            assert!(!findings.is_clean() && findings.holds_what_was_acknowledged());
        }
    }

    #[test]
    fn a_reordering_is_found_even_when_offsets_were_not_acknowledged() {
        let mut world = World::simple();
        for producer in &mut world.history.producers {
            for run in producer.acks.partitions.values_mut().flatten() {
                run.first_offset = None;
            }
        }
        world.partitions[0].swap(2, 4);
        let findings = world.check();
        assert_eq!((findings.reordered, findings.lost, findings.misplaced), (1, 0, 0), "{findings:?}");
        assert!(!findings.is_clean());
    }

    #[test]
    fn messages_at_other_offsets_than_acknowledged_are_found() {
        let mut world = World::simple();
        world.partitions[0].swap(0, 1); // of two producers: order within each is kept
        let findings = world.check();
        assert_eq!((findings.reordered, findings.misplaced, findings.withdrawn), (0, 2, 2), "{findings:?}");
        assert!(!findings.is_clean());
    }

    #[test]
    fn changed_contents_are_found() {
        let mut world = World::simple();
        world.partitions[1][5][40] ^= 1;
        let findings = world.check();
        assert_eq!((findings.damaged, findings.lost), (1, 1), "{findings:?}");
    }

    #[test]
    fn a_gap_in_the_offsets_is_found() {
        let world = World::simple();
        let mut offsets: Vec<Vec<u64>> = vec![(0..20).collect(), (10..30).collect()];
        for offset in &mut offsets[1][12..] {
            *offset += 3;
        }
        assert_eq!(world.check_at(&offsets).gaps, 3);
    }

    #[test]
    fn a_message_that_nobody_sent_is_found() {
        let mut world = World::simple();
        let invented = bytes(&world.messages, 1, 20);
        world.partitions[0].push(invented);
        let unknown_producer = bytes(&world.messages, 7, 0);
        world.partitions[0].push(unknown_producer);
        assert_eq!(world.check().invented, 2);
    }

    #[test]
    fn one_offset_for_two_messages_is_found() {
        let mut world = World::simple();
        world.history.producers[0].acks = AckLog::default();
        world.history.producers[0].acks.acknowledge(0, 0, Some(1));
        assert!(world.check().misplaced > 0);
    }

    #[test]
    fn what_a_consumer_was_shown_and_is_not_there_in_the_end_is_found() {
        let mut world = World::simple();
        let replaced = Identity { producer: 1, seq: 19 };
        world.history.reads.partitions.insert(0, Vec::new());
        world.history.reads.read(0, 6, replaced);
        world.history.reads.read(0, 20, replaced);
        world.history.reads.read(0, 22, replaced);
        let findings = world.check();
        assert_eq!((findings.withdrawn, findings.lost, findings.misplaced), (3, 0, 0), "{findings:?}");
        assert!(!findings.holds_what_was_acknowledged());
    }

    #[test]
    fn unacknowledged_and_foreign_records_are_no_fault() {
        let mut world = World::simple();
        let unacknowledged = bytes(&world.messages, 0, world.history.producers[0].sent);
        world.history.producers[0].sent += 2;
        world.partitions[0].push(unacknowledged);
        world.partitions[0].push(b"something else".to_vec());
        let findings = world.check();
        assert!(findings.is_clean(), "{findings:?}");
        assert_eq!((findings.uncertain, findings.foreign), (1, 1));
    }

    proptest! {
        #[test]
        fn any_correct_world_is_clean_and_any_planted_fault_is_found(
            choices in prop::collection::vec((0..3_usize, 0..4_usize), 2..200),
            victim: prop::sample::Index,
            fault in 0..4_u8,
        ) {
            let mut world = World::new(3, 4, &choices);
            prop_assert!(world.check().is_clean());
            let (_, partition) = choices[victim.index(choices.len())];
            let records = &mut world.partitions[partition];
            let index = victim.index(records.len());
            match fault {
                0 => drop(records.remove(index)),
                1 => records.push(records[index].clone()),
                2 => records[index][50] ^= 0x10,
                _ => {
                    let moved = records.remove(index);
                    records.push(moved);
                    records.push(b"x".to_vec());
                    if index + 2 == records.len() {
                        records.remove(index);
                    }
                }
            }
            prop_assert!(!world.check().is_clean());
        }
    }
}
