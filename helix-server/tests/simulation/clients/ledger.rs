//! What clients were told, and what they may conclude from it: an acknowledged message lies where it was said to lie, for ever, once,
//! and in the order of its producer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::message::MessageId;
use crate::witness::Witness;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Partition {
    pub(crate) topic: String,
    pub(crate) number: i32,
}

/// What is known of one offset.
#[derive(Debug, Clone, Copy)]
struct Place {
    message: MessageId,
    acknowledged: bool,
    read: bool,
}

#[derive(Debug, Default)]
struct Contents {
    places: BTreeMap<i64, Place>,
    /// From this offset on an unclean recovery has taken records: nothing is asked of these any more.
    lost_from: Option<i64>,
}

impl Contents {
    fn is_lost(&self, offset: i64) -> bool {
        self.lost_from.is_some_and(|from| offset >= from)
    }
}

/// Shared by all clients.
pub(crate) struct Ledger {
    witness: Arc<Witness>,
    contents: Mutex<BTreeMap<Partition, Contents>>,
    /// Lanes whose messages must be there once and in order.
    strict: Mutex<HashMap<u32, bool>>,
}

impl Ledger {
    pub(crate) fn new(witness: Arc<Witness>) -> Arc<Self> {
        Arc::new(Self { witness, contents: Mutex::default(), strict: Mutex::default() })
    }

    pub(crate) fn accuse(&self, text: String) {
        self.witness.accuse(text);
    }

    /// A lane writes; `strict` if it is idempotent.
    pub(crate) fn begin_lane(&self, lane: u32, strict: bool) {
        self.strict.lock().insert(lane, strict);
    }

    /// An unclean recovery took the records from this offset on.
    pub(crate) fn lose(&self, partition: &Partition, from: i64) {
        let mut all = self.contents.lock();
        let contents = all.entry(partition.clone()).or_default();
        contents.lost_from = Some(contents.lost_from.map_or(from, |earlier| earlier.min(from)));
    }

    /// A topic is deleted on purpose.
    pub(crate) fn forget(&self, topic: &str) {
        self.contents.lock().retain(|partition, _| partition.topic != topic);
    }

    /// Whether an unclean recovery has taken anything from the partition.
    pub(crate) fn has_lost(&self, partition: &Partition) -> bool {
        self.contents.lock().get(partition).is_some_and(|contents| contents.lost_from.is_some())
    }

    /// Messages were acknowledged by a majority.
    pub(crate) fn acknowledged(&self, partition: &Partition, base_offset: i64, first: MessageId, count: u32) {
        self.note(partition, base_offset, first, count, |place| place.acknowledged = true);
    }

    /// A message was read.
    pub(crate) fn read(&self, partition: &Partition, offset: i64, message: MessageId) {
        self.note(partition, offset, message, 1, |place| place.read = true);
    }

    fn note(
        &self,
        partition: &Partition,
        base_offset: i64,
        first: MessageId,
        count: u32,
        mark: impl Fn(&mut Place),
    ) {
        let mut all = self.contents.lock();
        let contents = all.entry(partition.clone()).or_default();
        for ordinal in 0..count {
            let offset = base_offset + i64::from(ordinal);
            if contents.is_lost(offset) {
                continue;
            }
            let message = MessageId { lane: first.lane, number: first.number + u64::from(ordinal) };
            let fresh = || Place { message, acknowledged: false, read: false };
            let place = contents.places.entry(offset).or_insert_with(fresh);
            if place.message != message {
                let known = *place;
                self.accuse(format!("{partition:?}: offset {offset} is {known:?}, and now {message:?}"));
            }
            mark(place);
        }
    }

    /// The next offset that a reader who has read everything acknowledged would ask for.
    pub(crate) fn end(&self, partition: &Partition) -> i64 {
        let all = self.contents.lock();
        let Some(contents) = all.get(partition) else { return 0 };
        let acknowledged = |(offset, place): &(&i64, &Place)| place.acknowledged && !contents.is_lost(**offset);
        contents.places.iter().rev().find(acknowledged).map_or(0, |(offset, _)| offset + 1)
    }

    /// How many messages were acknowledged.
    pub(crate) fn count(&self) -> u64 {
        let all = self.contents.lock();
        all.values().flat_map(|contents| contents.places.values()).filter(|place| place.acknowledged).count()
            as u64
    }

    /// Judges everything, once all was read.
    pub(crate) fn judge(&self) {
        let all = self.contents.lock();
        let strict = self.strict.lock();
        for (partition, contents) in &*all {
            let mut newest: HashMap<u32, u64> = HashMap::new();
            for (offset, place) in contents.places.iter().filter(|(offset, _)| !contents.is_lost(**offset)) {
                if place.acknowledged && !place.read {
                    self.accuse(format!("{partition:?}: offset {offset} was acknowledged and is not there"));
                }
                let MessageId { lane, number } = place.message;
                let earlier = newest.insert(lane, number);
                if strict.get(&lane) == Some(&true) && earlier.is_some_and(|earlier| earlier >= number) {
                    self.accuse(format!(
                        "{partition:?}: offset {offset} holds message {number} of lane {lane} after {earlier:?}"
                    ));
                }
            }
        }
    }
}
