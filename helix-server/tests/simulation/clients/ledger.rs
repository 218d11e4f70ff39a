//! What clients were told, and what they may conclude from it: an acknowledged message lies where it was said to lie, for ever, once,
//! and in the order of its producer.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use helix_raft::GroupId;
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
    /// Where the log begins, as far as readers were told: retention has removed what lies before.
    begins: i64,
}

/// Shared by all clients.
pub(crate) struct Ledger {
    witness: Arc<Witness>,
    contents: Mutex<BTreeMap<Partition, Contents>>,
    groups: Mutex<HashMap<Partition, GroupId>>,
    /// Lanes whose messages must be there once and in order.
    strict: Mutex<HashMap<u32, bool>>,
}

impl Ledger {
    pub(crate) fn new(witness: Arc<Witness>) -> Arc<Self> {
        Arc::new(Self {
            witness,
            contents: Mutex::default(),
            groups: Mutex::default(),
            strict: Mutex::default(),
        })
    }

    pub(crate) fn accuse(&self, text: String) {
        self.witness.accuse(text);
    }

    pub(crate) fn witness(&self) -> &Witness {
        &self.witness
    }

    /// A lane writes; `strict` if it is idempotent.
    pub(crate) fn begin_lane(&self, lane: u32, strict: bool) {
        self.strict.lock().insert(lane, strict);
    }

    /// The group behind a partition.
    pub(crate) fn is_group(&self, partition: &Partition, group: GroupId) {
        self.groups.lock().insert(partition.clone(), group);
    }

    /// The offset from which on unclean recoveries have taken records of the partition: nothing is asked of these any more.
    fn lost_from(&self, partition: &Partition) -> Option<i64> {
        let group = *self.groups.lock().get(partition)?;
        self.witness.lost_from(group).map(|offset| offset as i64)
    }

    /// A topic is deleted on purpose.
    pub(crate) fn forget(&self, topic: &str) {
        self.contents.lock().retain(|partition, _| partition.topic != topic);
    }

    /// Whether an unclean recovery has taken anything from the partition.
    pub(crate) fn has_lost(&self, partition: &Partition) -> bool {
        self.lost_from(partition).is_some()
    }

    /// Messages were acknowledged by a majority.
    pub(crate) fn acknowledged(&self, partition: &Partition, base_offset: i64, first: MessageId, count: u32) {
        self.note(partition, base_offset, first, count, |place| place.acknowledged = true);
    }

    /// Retention has removed what lies before this offset.
    pub(crate) fn retired(&self, partition: &Partition, begins: i64) {
        let mut all = self.contents.lock();
        let contents = all.entry(partition.clone()).or_default();
        contents.begins = begins.max(contents.begins);
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
        let lost_from = self.lost_from(partition).unwrap_or(i64::MAX);
        let contents = all.entry(partition.clone()).or_default();
        for ordinal in 0..count {
            let offset = base_offset + i64::from(ordinal);
            if offset >= lost_from {
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
        let lost_from = self.lost_from(partition).unwrap_or(i64::MAX);
        let acknowledged = |(_, place): &(&i64, &Place)| place.acknowledged;
        contents.places.range(..lost_from).rev().find(acknowledged).map_or(0, |(offset, _)| offset + 1)
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
            let lost_from = self.lost_from(partition).unwrap_or(i64::MAX);
            for (offset, place) in contents.places.range(..lost_from) {
                if place.acknowledged && !place.read && *offset >= contents.begins {
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
