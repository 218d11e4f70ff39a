//! What bounds answers that can be much larger than the requests they answer: a name of a few bytes asks for the whole
//! configuration of a topic, and as in Kafka each mention of it is answered.
//!
//! Such an answer is put together part by part. Each part is charged to a budget that all clients share until the answer has left;
//! a part for which there is no room is replaced by an error that says so, and none behind it is made at all.

use crate::broker::budget::{Budget, Permit};
use kafka_protocol::protocol::Encodable;

/// Bytes of one such answer, so that a client that does not take its answer leaves room for others.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// What is said where an error can say something.
pub(super) const NO_ROOM: &str = "the answer would become too large: ask for less at a time";

/// The room for one answer.
#[derive(Debug)]
pub(super) struct AnswerRoom {
    budget: Budget,
    left: usize,
    /// What is held for the parts so far.
    held: Option<Permit>,
    full: bool,
}

impl AnswerRoom {
    /// Room for an answer.
    pub(super) fn of(budget: &Budget) -> Self {
        Self::with_limit(budget, MAX_ANSWER_BYTES)
    }

    fn with_limit(budget: &Budget, limit: usize) -> Self {
        Self { budget: budget.clone(), left: limit, held: None, full: false }
    }

    /// Makes a part and charges its bytes. `None`: there is no room for it, nor for any behind it. The limit of one answer does not keep a
    /// single large part out, which could not be asked for in smaller ones.
    pub(super) async fn hold<T>(
        &mut self,
        part: impl Future<Output = T>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Option<T> {
        if self.full {
            return None;
        }
        let part = part.await;
        let bytes = bytes(&part);
        self.full = !self.charge(bytes);
        (!self.full).then_some(part)
    }

    /// Whether there is no room for anything more.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    fn charge(&mut self, bytes: usize) -> bool {
        if bytes > self.left && self.held.is_some() {
            return false;
        }
        let Some(more) = self.budget.try_acquire(bytes) else { return false };
        self.left = self.left.saturating_sub(bytes);
        match &mut self.held {
            Some(held) => held.join(more),
            None => self.held = Some(more),
        }
        true
    }

    /// What is to be held until the answer has left.
    pub(super) fn into_permit(self) -> Option<Permit> {
        self.held
    }
}

/// Bytes that a part of an answer takes: encoded, which counts its texts, and as a value with so many `E` in it.
pub(super) fn part_bytes<T: Encodable, E>(part: &T, elements: usize, version: i16) -> usize {
    // What cannot be encoded ends the connection anyway.
    let encoded = part.compute_size(version).unwrap_or(0);
    encoded.saturating_add(size_of::<T>()).saturating_add(elements.saturating_mul(size_of::<E>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hold(room: &mut AnswerRoom, bytes: usize) -> bool {
        room.hold(async { bytes }, |bytes| *bytes).await.is_some()
    }

    #[tokio::test]
    async fn an_answer_has_parts_until_it_is_full() {
        let budget = Budget::new(100);
        let mut room = AnswerRoom::with_limit(&budget, 30);
        assert!(hold(&mut room, 20).await && hold(&mut room, 10).await);
        assert!(!room.is_full());
        assert!(!hold(&mut room, 1).await, "full");
        assert!(room.is_full());
        let made = room.hold(async { panic!("nothing is made that there is no room for") }, |(): &()| 0);
        assert_eq!(made.await, None);
        assert_eq!(budget.used(), 30);
        drop(room.into_permit());
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_single_large_part_is_answered() {
        let budget = Budget::new(100);
        let mut room = AnswerRoom::with_limit(&budget, 30);
        assert!(hold(&mut room, 50).await);
        assert!(!hold(&mut room, 1).await);
    }

    #[tokio::test]
    async fn all_answers_share_a_budget_and_none_waits_for_it() {
        let budget = Budget::new(100);
        let (mut one, mut other) = (AnswerRoom::of(&budget), AnswerRoom::of(&budget));
        assert!(hold(&mut one, 60).await && hold(&mut other, 40).await);
        assert!(!hold(&mut other, 1).await);
        drop(one);
        assert!(hold(&mut AnswerRoom::of(&budget), 60).await);
    }
}
