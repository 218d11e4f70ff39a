use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helix_raft::GroupId;
use helix_wal::{Offset, Payload};
use proptest::prelude::*;

use super::*;
use crate::broker::batch::testing::BatchBuilder;
use crate::broker::batcher::BatcherLimits;
use crate::config::BrokerConfig;
use crate::config::topic::TopicConfig;
use crate::entry::{Command, EntryTag};

/// An entry in words; producers and offsets are counted from 0.
#[derive(Debug, Clone)]
enum Step {
    /// A batch of this producer and epoch, with as many records.
    Batch { producer: i64, epoch: i16, first_sequence: i32, records: usize },
    /// The first entry of the next term.
    Elected,
    /// The log begins this far behind its start.
    LogStart { ahead: i64 },
    /// These producers are forgotten.
    Expired { producers: Vec<i64> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_i64..4, 0_i16..2, 0_i32..20, 1_usize..4).prop_map(|(producer, epoch, first_sequence, records)| {
            Step::Batch { producer, epoch, first_sequence, records }
        }),
        1 => Just(Step::Elected),
        1 => (0_i64..12).prop_map(|ahead| Step::LogStart { ahead }),
        1 => prop::collection::vec(0_i64..4, 1..3).prop_map(|producers| Step::Expired { producers }),
    ]
}

/// An entry as it is in a log.
#[derive(Debug, Clone)]
struct Logged {
    index: Index,
    term: Term,
    /// `None`: it carries nothing.
    command: Option<Command>,
    next_offset: i64,
}

/// The log that these steps make.
fn log_of(steps: &[Step]) -> Vec<Logged> {
    let (mut term, mut next_offset, mut log_start) = (Term(1), 0_i64, 0);
    let mut log = Vec::new();
    for (index, step) in (1..).zip(steps) {
        let command = match step {
            Step::Batch { producer, epoch, first_sequence, records } => {
                let batch = BatchBuilder::new()
                    .base_offset(next_offset)
                    .producer(*producer, *epoch, *first_sequence)
                    .records(*records)
                    .build();
                let base_offset = Offset(next_offset as u64);
                next_offset += *records as i64;
                let payload = Payload::from_chunks(vec![batch]);
                let offset_count = *records as u32;
                Some(Command { tag: EntryTag::Data, base_offset, offset_count, max_timestamp_ms: 0, payload })
            }
            Step::Elected => {
                term = Term(term.0 + 1);
                None
            }
            Step::LogStart { ahead } => {
                log_start = (log_start + ahead).min(next_offset);
                Some(Partition::log_start_command(log_start, Offset(next_offset as u64)))
            }
            Step::Expired { producers } => {
                let ids: Vec<u8> = producers.iter().flat_map(|id| id.to_be_bytes()).collect();
                let payload = Payload::from_chunks(vec![Bytes::from(ids)]);
                let tag = EntryTag::ProducerExpiry;
                Some(Command::without_offsets(tag, Offset(next_offset as u64), payload))
            }
        };
        log.push(Logged { index: Index(index), term, command, next_offset });
    }
    log
}

fn partition(checkpoint: PartitionCheckpoint) -> Partition {
    let limits = BatcherLimits { linger: Duration::ZERO, max_bytes: 1 << 20, max_requests: 100 };
    let config = Arc::new(TopicConfig::resolve(&BTreeMap::new(), &BrokerConfig::default()));
    Partition::new(GroupId(7), config, limits, checkpoint)
}

fn apply(partition: &mut Partition, log: &[Logged]) {
    for Logged { index, term, command, .. } in log {
        match command {
            Some(command) => {
                partition.apply(*index, *term, command, 0);
            }
            None => partition.apply_bare(*index, *term),
        }
    }
}

fn as_of(checkpoint: PartitionCheckpoint, entry: Option<&Logged>) -> PartitionCheckpoint {
    match entry {
        Some(entry) => checkpoint.as_of(entry.index, entry.term, entry.next_offset),
        None => checkpoint.as_of(Index::ZERO, Term::ZERO, 0),
    }
}

fn batch(producer: i64, first_sequence: i32) -> Step {
    Step::Batch { producer, epoch: 0, first_sequence, records: 1 }
}

#[test]
fn a_state_as_of_an_earlier_entry_does_not_hold_what_came_after() {
    let log = log_of(&[batch(1, 0), batch(1, 1), Step::Elected, batch(1, 2), batch(2, 0)]);
    let mut whole = partition(PartitionCheckpoint::default());
    apply(&mut whole, &log);
    let early = as_of(whole.checkpoint(), log.get(1));
    assert_eq!((early.applied, early.next_offset), (Index(2), 2));
    let sequences =
        |id| early.producers.get(id).expect("known").batches().map(|b| b.first_sequence).collect::<Vec<_>>();
    assert_eq!(sequences(1), [0, 1]);
    assert_eq!(sequences(2), [0; 0]);
    assert_eq!(early.epochs.latest(), Some(1));
}

#[test]
fn other_entries_in_the_place_of_lost_ones_are_told_apart_from_them() {
    let common = [batch(1, 0), batch(1, 1)];
    let lost = log_of(&[&common[..], &[batch(1, 2), batch(2, 0)]].concat());
    let mut whole = partition(PartitionCheckpoint::default());
    apply(&mut whole, &lost);
    // The log goes on in another way, of the same length.
    let instead = log_of(&[&common[..], &[Step::Elected, batch(3, 0), batch(3, 1)]].concat());
    let mut other = partition(as_of(whole.checkpoint(), lost.get(1)));
    apply(&mut other, &instead[2..]);
    let last = |id| {
        other.checkpoint().producers.get(id).and_then(|state| state.last_batch().map(|b| b.first_sequence))
    };
    assert_eq!((last(1), last(2), last(3)), (Some(1), None, Some(1)));
    assert_eq!(other.view().high_watermark(), 4);
}

proptest! {
    #[test]
    fn going_back_and_forth_again_leads_to_the_same_state(
        steps in prop::collection::vec(step(), 0..40),
        back in any::<prop::sample::Index>(),
    ) {
        let log = log_of(&steps);
        let mut whole = partition(PartitionCheckpoint::default());
        apply(&mut whole, &log);
        let cut = back.index(log.len() + 1);
        let early = as_of(whole.checkpoint(), cut.checked_sub(1).map(|last| &log[last]));
        let mut again = partition(PartitionCheckpoint::decode(&early.encode(), 0).expect("just written"));
        apply(&mut again, &log[cut..]);
        let (whole, again) = (whole.checkpoint(), again.checkpoint());
        prop_assert_eq!(again.producers.len(), whole.producers.len());
        prop_assert_eq!(again.encode(), whole.encode(), "{:?} is not {:?}", again, whole);
    }
}
