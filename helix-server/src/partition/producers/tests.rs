use proptest::prelude::*;

use super::*;

const DAY_MS: i64 = 86_400_000;

fn claim(producer_id: i64, epoch: i16, first_sequence: i32, record_count: i32) -> SequenceClaim {
    SequenceClaim { producer_id, epoch, first_sequence, record_count, after_rejection: false }
}

fn batch_of(claim: &SequenceClaim, base_offset: i64) -> ProducerBatch {
    ProducerBatch {
        producer_id: claim.producer_id,
        epoch: claim.epoch,
        first_sequence: claim.first_sequence,
        last_sequence: claim.last_sequence(),
        base_offset,
        last_offset: base_offset + i64::from(claim.record_count) - 1,
        timestamp_ms: base_offset * 10,
    }
}

/// Producers that committed these batches, one entry each, from index 1 on.
fn committed(claims: &[SequenceClaim]) -> Producers {
    let mut producers = Producers::default();
    for (at, claim) in claims.iter().enumerate() {
        assert_eq!(producers.decide(claim), Decision::Append, "{claim:?}");
        producers.commit(at as u64 + 1, &[batch_of(claim, at as i64 * 100)], 0);
    }
    producers
}

fn rejected(error: SequenceError) -> Decision {
    Decision::Reject(error)
}

#[test]
fn sequences_must_be_dense() {
    let producers = committed(&[claim(1, 0, 0, 5)]);
    assert_eq!(producers.decide(&claim(1, 0, 5, 1)), Decision::Append);
    assert_eq!(producers.decide(&claim(1, 0, 6, 1)), rejected(SequenceError::OutOfOrder));
    assert_eq!(producers.decide(&claim(1, 0, 3, 5)), rejected(SequenceError::OutOfOrder), "half a duplicate");
    let after_rejection = SequenceClaim { after_rejection: true, ..claim(1, 0, 6, 1) };
    assert_eq!(producers.decide(&after_rejection), rejected(SequenceError::AfterRejection));
}

#[test]
fn sequences_wrap() {
    let mut producers = Producers::default();
    let near_end = claim(1, 0, i32::MAX - 1, 2);
    producers.commit(1, &[batch_of(&near_end, 7)], 0);
    assert_eq!(producers.decide(&claim(1, 0, 0, 3)), Decision::Append);
    assert_eq!(producers.decide(&claim(1, 0, 1, 3)), rejected(SequenceError::OutOfOrder));

    let across = claim(2, 0, i32::MAX, 3);
    producers.commit(2, &[batch_of(&across, 9)], 0);
    assert_eq!(producers.decide(&claim(2, 0, 2, 1)), Decision::Append);
    assert_eq!(producers.decide(&across), Decision::DuplicateCommitted { base_offset: 9, timestamp_ms: 90 });
}

#[test]
fn epochs_fence() {
    let producers = committed(&[claim(1, 3, 0, 5)]);
    assert_eq!(producers.decide(&claim(1, 2, 5, 1)), rejected(SequenceError::InvalidProducerEpoch));
    assert_eq!(producers.decide(&claim(1, 4, 0, 1)), Decision::Append);
    assert_eq!(producers.decide(&claim(1, 4, 5, 1)), rejected(SequenceError::OutOfOrder));
}

#[test]
fn an_uncommitted_epoch_fences_too() {
    let mut producers = committed(&[claim(1, 3, 0, 5)]);
    producers.append_pending(2, batch_of(&claim(1, 4, 0, 1), 200));
    assert_eq!(producers.decide(&claim(1, 3, 5, 1)), rejected(SequenceError::InvalidProducerEpoch));
    assert_eq!(producers.decide(&claim(1, 4, 1, 1)), Decision::Append);
    producers.drop_overlay();
    assert_eq!(producers.decide(&claim(1, 3, 5, 1)), Decision::Append);
}

#[test]
fn a_duplicate_of_a_pending_batch_waits_for_it() {
    let mut producers = Producers::default();
    let first = claim(1, 0, 0, 2);
    producers.append_pending(8, batch_of(&first, 40));
    let pending = Decision::DuplicatePending { index: 8, base_offset: 40, timestamp_ms: 400 };
    assert_eq!(producers.decide(&first), pending);
    producers.commit(8, &[batch_of(&first, 40)], 0);
    assert_eq!(producers.decide(&first), Decision::DuplicateCommitted { base_offset: 40, timestamp_ms: 400 });
}

#[test]
fn duplicates_older_than_five_batches_are_known_as_such() {
    let claims: Vec<_> = (0..7).map(|n| claim(1, 0, n * 2, 2)).collect();
    let producers = committed(&claims);
    assert_eq!(producers.decide(&claims[1]), rejected(SequenceError::Duplicate));
    assert_eq!(
        producers.decide(&claims[2]),
        Decision::DuplicateCommitted { base_offset: 200, timestamp_ms: 2000 }
    );
    assert_eq!(
        producers.decide(&claim(1, 0, 3, 2)),
        rejected(SequenceError::OutOfOrder),
        "reaches into a kept one"
    );
}

#[test]
fn a_producer_whose_batches_are_lost_may_go_on_where_it_was() {
    let claims: Vec<_> = (0..7).map(|n| claim(1, 0, n * 2, 2)).collect();
    let before = committed(&claims).table().clone().as_of(1, 100);
    let producers = Producers::new(before);
    assert_eq!(producers.decide(&claim(1, 0, 14, 2)), Decision::Append);
    assert_eq!(
        producers.decide(&claims[6]),
        Decision::Append,
        "it is not there any more, so it is no duplicate"
    );
    let after_rejection = SequenceClaim { after_rejection: true, ..claim(1, 0, 14, 2) };
    assert_eq!(producers.decide(&after_rejection), rejected(SequenceError::AfterRejection));
}

#[test]
fn a_new_producer_starts_at_zero() {
    let producers = Producers::default();
    assert_eq!(producers.decide(&claim(1, 0, 5, 1)), rejected(SequenceError::OutOfOrder));
    assert_eq!(producers.decide(&claim(1, 7, 0, 1)), Decision::Append);
}

#[test]
fn an_expired_producer_goes_on_where_it_was() {
    let mut producers = committed(&[claim(1, 0, 0, 5)]);
    assert!(producers.expired(DAY_MS, DAY_MS).is_empty());
    assert_eq!(producers.expired(DAY_MS + 1, DAY_MS), [1]);
    producers.remove(2, &[1]);
    assert!(producers.table().is_empty());
    let next = claim(1, 0, 5, 5);
    let refused_before = SequenceClaim { after_rejection: true, ..next };
    assert_eq!(producers.decide(&refused_before), rejected(SequenceError::AfterRejection));
    assert_eq!(producers.decide(&next), Decision::Append);

    // It went on in the middle, so nobody can say what became of the sequences in front.
    producers.append_pending(3, batch_of(&next, 300));
    assert_eq!(producers.decide(&claim(1, 0, 3, 2)), rejected(SequenceError::OutOfOrder));
    producers.commit(3, &[batch_of(&next, 300)], 0);
    for n in 1..=6 {
        producers.commit(3 + n, &[batch_of(&claim(1, 0, 5 + n as i32 * 5, 5), 300)], 0);
    }
    assert_eq!(producers.decide(&next), rejected(SequenceError::Duplicate));
    assert_eq!(producers.decide(&claim(1, 0, 3, 2)), rejected(SequenceError::OutOfOrder));
}

#[test]
fn a_producer_expired_very_long_ago_is_told_so() {
    let mut producers = Producers::default();
    let ids: Vec<i64> = (0..2000).collect();
    for (index, &id) in (1..).zip(&ids) {
        producers.commit(index, &[batch_of(&claim(id, 0, 0, 1), 0)], 0);
    }
    producers.remove(3000, &ids);
    assert_eq!(producers.decide(&claim(0, 0, 1, 1)), rejected(SequenceError::UnknownProducer));
    assert_eq!(producers.decide(&claim(1999, 0, 1, 1)), Decision::Append);
}

#[test]
fn a_producer_with_pending_batches_is_not_expired() {
    let mut producers = committed(&[claim(1, 0, 0, 5)]);
    producers.append_pending(2, batch_of(&claim(1, 0, 5, 1), 200));
    assert!(producers.expired(DAY_MS * 2, DAY_MS).is_empty());
}

#[test]
fn entries_are_applied_once() {
    let mut producers = committed(&[claim(1, 0, 0, 5), claim(1, 0, 5, 5)]);
    let before = producers.table().clone();
    producers.commit(1, &[batch_of(&claim(1, 0, 0, 5), 0)], 0);
    producers.remove(2, &[1]);
    assert_eq!(producers.table(), &before);
}

/// The whole history of one producer, from which every decision can be read off.
#[derive(Debug, Default)]
struct Model {
    batches: Vec<ProducerBatch>,
    committed: usize,
}

impl Model {
    fn decide(&self, claim: &SequenceClaim) -> Decision {
        let Some(last) = self.batches.last() else {
            return if claim.first_sequence == 0 { Decision::Append } else { gap(claim) };
        };
        if claim.epoch < last.epoch {
            return rejected(SequenceError::InvalidProducerEpoch);
        }
        if claim.epoch > last.epoch {
            return if claim.first_sequence == 0 { Decision::Append } else { gap(claim) };
        }
        let first_kept = self.committed.saturating_sub(KEPT_BATCHES);
        for (at, batch) in self.batches.iter().enumerate().skip(first_kept).rev() {
            let same = (batch.epoch, batch.first_sequence, batch.last_sequence);
            let &ProducerBatch { base_offset, timestamp_ms, .. } = batch;
            if same == (claim.epoch, claim.first_sequence, claim.last_sequence()) {
                return if at < self.committed {
                    Decision::DuplicateCommitted { base_offset, timestamp_ms }
                } else {
                    Decision::DuplicatePending { index: at as u64 + 1, base_offset, timestamp_ms }
                };
            }
        }
        if claim.first_sequence == last.last_sequence + 1 {
            return Decision::Append;
        }
        let oldest = self.batches[first_kept..].iter().find(|batch| batch.epoch == claim.epoch);
        match oldest {
            Some(oldest) if claim.last_sequence() < oldest.first_sequence => {
                rejected(SequenceError::Duplicate)
            }
            _ => gap(claim),
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Claim(SequenceClaim),
    Next { count: i32 },
    Commit,
    LoseLeadership,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_i16..3, 0_i32..20, 1_i32..4, any::<bool>()).prop_map(|(epoch, first, count, after_rejection)| {
            Step::Claim(SequenceClaim { after_rejection, ..claim(1, epoch, first, count) })
        }),
        5 => (1_i32..4).prop_map(|count| Step::Next { count }),
        4 => Just(Step::Commit),
        1 => Just(Step::LoseLeadership),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #[test]
    fn decisions_agree_with_the_whole_history(steps in prop::collection::vec(step(), 0..60)) {
        let mut model = Model::default();
        let mut producers = Producers::default();
        for step in steps {
            match step {
                Step::Claim(_) | Step::Next { .. } => {
                    let last = model.batches.last();
                    let claim = match step {
                        Step::Claim(claim) => claim,
                        Step::Next { count } => {
                            claim(1, last.map_or(0, |b| b.epoch), last.map_or(0, |b| b.last_sequence + 1), count)
                        }
                        _ => unreachable!("matched above"),
                    };
                    let decision = producers.decide(&claim);
                    prop_assert_eq!(decision, model.decide(&claim), "{:?}", claim);
                    if decision == Decision::Append {
                        let batch = batch_of(&claim, model.batches.len() as i64 * 10);
                        model.batches.push(batch);
                        producers.append_pending(model.batches.len() as u64, batch);
                    }
                }
                Step::Commit => {
                    if let Some(batch) = model.batches.get(model.committed) {
                        model.committed += 1;
                        producers.commit(model.committed as u64, &[*batch], 0);
                    }
                }
                Step::LoseLeadership => {
                    model.batches.truncate(model.committed);
                    producers.drop_overlay();
                }
                Step::Restart => {
                    model.batches.truncate(model.committed);
                    let mut checkpoint = Vec::new();
                    producers.table().encode(&mut checkpoint);
                    producers = Producers::new(ProducerTable::decode(&checkpoint, 0).expect("just written"));
                }
            }
        }
    }

    #[test]
    fn checkpoints_round_trip(
        batches in prop::collection::vec((0_i64..6, 0_i16..3, any::<i32>(), 1_i32..9), 0..40),
        removed in prop::collection::vec(0_i64..6, 0..4),
    ) {
        let mut table = ProducerTable::default();
        for (index, &(id, epoch, first, count)) in (1..).zip(&batches) {
            table.apply(index, &[batch_of(&claim(id, epoch, first & i32::MAX, count), index as i64)], 5);
        }
        table.remove(100, &removed);
        let mut bytes = Vec::new();
        table.encode(&mut bytes);
        prop_assert_eq!(ProducerTable::decode(&bytes, 5), Ok(table));
        for end in 0..bytes.len() {
            prop_assert!(ProducerTable::decode(&bytes[..end], 5).is_err());
        }
    }

    #[test]
    fn random_bytes_never_break_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        if let Ok(table) = ProducerTable::decode(&bytes, 0) {
            let mut again = Vec::new();
            table.encode(&mut again);
            prop_assert_eq!(again, bytes);
        }
    }
}
