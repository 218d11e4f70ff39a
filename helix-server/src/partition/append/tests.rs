use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use helix_raft::GroupId;

use super::*;
use crate::broker::batch::testing::BatchBuilder;
use crate::broker::batch::{ProduceRules, StoredCompression, TimestampRule, validate_produce};
use crate::broker::batcher::BatcherLimits;
use crate::broker::produce::{AppendOutcome, AppendResult, expect_answers};
use crate::config::BrokerConfig;
use crate::config::topic::TopicConfig;
use crate::partition::checkpoint::PartitionCheckpoint;
use crate::partition::producers::SequenceError;

const TERM: Term = Term(3);

/// A partition that leads, whose topic wants two replicas in sync.
fn leader() -> Partition {
    let limits = BatcherLimits { linger: Duration::ZERO, max_bytes: 1 << 20, max_requests: 100 };
    let own = BTreeMap::from([("min.insync.replicas".to_owned(), "2".to_owned())]);
    let config = Arc::new(TopicConfig::resolve(&own, &BrokerConfig::default()));
    let mut partition = Partition::new(GroupId(7), config, limits, PartitionCheckpoint::default());
    partition.view().set_contact(true, 2);
    partition.start_serving(TERM);
    partition
}

/// Hands in a batch of two records by producer 9.
fn gather(partition: &mut Partition, first_sequence: i32, now: Instant) -> AppendOutcome {
    gather_for(partition, first_sequence, None, now)
}

/// As [`gather`], for this leadership alone.
fn gather_for(
    partition: &mut Partition,
    first_sequence: i32,
    leader_epoch: Option<i32>,
    now: Instant,
) -> AppendOutcome {
    let builder = BatchBuilder::new().producer(9, 0, first_sequence);
    hand_in(partition, builder, Acks::All, leader_epoch, now)
}

fn hand_in(
    partition: &mut Partition,
    builder: BatchBuilder,
    acks: Acks,
    leader_epoch: Option<i32>,
    now: Instant,
) -> AppendOutcome {
    let records = builder.records(2).build();
    let rules = ProduceRules {
        segment_bytes: 1 << 30,
        max_batch_bytes: 1 << 20,
        timestamps: TimestampRule::CreateTime { before_max_ms: i64::MAX, after_max_ms: i64::MAX },
        now_ms: 0,
        produce_version: 9,
        compression: StoredCompression::AsProduced,
        keyed: false,
    };
    let (mut replies, outcome) = expect_answers(1, Vec::new());
    let request = AppendRequest {
        group: partition.view().group,
        batch: validate_produce(&records, &rules).unwrap(),
        acks,
        leader_epoch,
        after_rejection: false,
        reply: replies.remove(0),
        pending: partition.view().add_pending(100),
    };
    partition.gather(request, now);
    outcome
}

fn prepare(partition: &mut Partition, now: Instant) -> Option<Prepared> {
    partition.prepare(Index(1), TERM, Offset(0), now)
}

fn answer(outcome: AppendOutcome) -> AppendResult {
    let mut answers = outcome.wait(Duration::from_secs(60)).now_or_never().expect("it is decided");
    answers.remove(0)
}

#[tokio::test]
async fn a_gap_that_a_refusal_made_is_not_blamed_on_the_producer() {
    let (mut partition, now) = (leader(), Instant::now());
    partition.view().set_contact(true, 1);
    let first = gather(&mut partition, 0, now);
    assert!(prepare(&mut partition, now).is_none());
    assert!(matches!(answer(first), Err(AppendError::NotEnoughReplicas { in_sync: 1, required: 2 })));

    // The replica is back before the client has heard of the refusal and of what it means for the batch behind.
    partition.view().set_contact(true, 2);
    let second = gather(&mut partition, 2, now);
    assert!(prepare(&mut partition, now).is_none());
    assert_eq!(answer(second), Err(AppendError::Sequence(SequenceError::AfterRejection)));

    let later = now + Duration::from_secs(3600);
    let third = gather(&mut partition, 2, later);
    assert!(prepare(&mut partition, later).is_none());
    assert_eq!(answer(third), Err(AppendError::Sequence(SequenceError::OutOfOrder)));

    let retried = gather(&mut partition, 0, later);
    let prepared = prepare(&mut partition, later).expect("the first batch is taken now");
    assert_eq!((prepared.batches, prepared.command.offset_count), (1, 2));
    drop(prepared);
    assert_eq!(answer(retried), Err(AppendError::NotLeader), "what is dropped undecided is no success");
}

#[tokio::test]
async fn only_who_waits_for_replicas_needs_them_in_sync() {
    let (mut partition, now) = (leader(), Instant::now());
    partition.view().set_contact(true, 1);
    for acks in [Acks::None, Acks::Leader] {
        let _outcome = hand_in(&mut partition, BatchBuilder::new(), acks, None, now);
        assert_eq!(prepare(&mut partition, now).expect("it is taken").batches, 1, "{acks:?}");
    }
    let refused = hand_in(&mut partition, BatchBuilder::new(), Acks::All, None, now);
    assert!(prepare(&mut partition, now).is_none());
    assert!(matches!(answer(refused), Err(AppendError::NotEnoughReplicas { in_sync: 1, required: 2 })));
}

#[tokio::test]
async fn a_gap_from_before_a_leader_served_is_not_blamed_on_the_producer() {
    let (mut partition, now) = (leader(), Instant::now());
    // Whoever looks for a leader first does not even get to the replica, so it can't have noted anything.
    let behind = gather(&mut partition, 4, now);
    assert!(prepare(&mut partition, now).is_none());
    assert_eq!(answer(behind), Err(AppendError::Sequence(SequenceError::AfterRejection)));
}

#[tokio::test]
async fn an_entry_takes_no_more_offsets_than_its_field_holds() {
    let mut entry = Building {
        index: Index(1),
        epoch: TERM,
        base_offset: 10,
        next_offset: 10,
        max_timestamp_ms: -1,
        chunks: Vec::new(),
        waiting: Vec::new(),
        batches: 0,
        after_refusal: false,
    };
    let records = BatchBuilder::new().records(1).build();
    let header = BatchHeader::parse(&records).unwrap();
    let huge = BatchHeader { last_offset_delta: i32::MAX - 1, ..header };
    for fits in [true, true, false] {
        assert_eq!(entry.has_room_for(&huge), fits);
        entry.next_offset += i64::from(i32::MAX);
    }
}

#[tokio::test]
async fn fetchers_sleep_on_when_produce_requests_are_answered() {
    let partition = leader();
    let (fetcher, producer) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let _fetcher = partition.view().watch(&fetcher);
    let _producer = partition.view().watch_room(&producer);
    drop(partition.view().add_pending(10));
    assert!(fetcher.notified().now_or_never().is_none());
    assert!(producer.notified().now_or_never().is_some());
}

#[tokio::test]
async fn what_was_made_for_another_leadership_is_refused() {
    let (mut partition, now) = (leader(), Instant::now());
    let late = gather_for(&mut partition, 0, Some(TERM.0 as i32 - 1), now);
    let early = gather_for(&mut partition, 0, Some(TERM.0 as i32 + 1), now);
    let right = gather_for(&mut partition, 0, Some(TERM.0 as i32), now);
    let prepared = prepare(&mut partition, now).expect("one is right");
    assert_eq!(prepared.batches, 1);
    assert_eq!((answer(late), answer(early)), (Err(AppendError::NotLeader), Err(AppendError::NotLeader)));
    drop((prepared, right));
}
