//! Where large payloads meet their messages again. Pure.
//!
//! Appends with much in them are sent in two parts: what they say goes over the data lane, where everything small follows at
//! once, and their payloads over the bulk lane. Each message has a number, and both lanes carry numbers in ascending order.
//! Messages about a group keep their order: what arrives behind an append that still lacks its payloads waits for it. What got
//! lost is given up as soon as that is certain or likely, and the Raft core sends it again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use helix_raft::GroupId;
use tokio::time::Instant;

use super::{Inbound, ReceivePermit};
use crate::ids::Incarnation;

/// Payloads are lost if the bulk lane has been silent for so long, and not merely slow.
const LATE: Duration = Duration::from_secs(1);

/// A message that can go on.
#[derive(Debug)]
pub(super) enum Ready {
    /// It came in one part.
    Whole(Inbound),
    /// Both parts are there.
    Joined {
        /// What it says.
        meta: Bytes,
        /// The payloads, one after the other.
        payloads: Bytes,
        /// Their share of the receive budget.
        permit: Option<ReceivePermit>,
    },
}

#[derive(Debug)]
enum Held {
    Ready(Ready),
    /// Its payloads are not there.
    Waiting {
        number: u64,
        meta: Bytes,
        since: Instant,
    },
}

#[derive(Debug)]
struct Arrived {
    payloads: Bytes,
    permit: Option<ReceivePermit>,
}

/// Parts that wait for each other, of one process.
#[derive(Debug)]
pub(super) struct Reunion {
    of: Incarnation,
    payloads: BTreeMap<u64, Arrived>,
    /// Groups with messages that wait, or that are just being delivered.
    groups: HashMap<GroupId, VecDeque<Held>>,
    /// When the bulk lane carried something last.
    moved: Option<Instant>,
    /// A frame on the bulk lane has begun and not ended.
    reading: bool,
}

impl Reunion {
    pub(super) fn new() -> Self {
        let (payloads, groups) = (BTreeMap::new(), HashMap::new());
        Self { of: Incarnation(0), payloads, groups, moved: None, reading: false }
    }

    /// Whatever comes next is of this process: what an earlier one sent is worth nothing any more.
    pub(super) fn of(&mut self, process: Incarnation) -> &mut Self {
        if self.of < process {
            *self = Self { of: process, ..Self::new() };
        }
        self
    }

    /// A connection of this process is gone: nothing that waits will be completed.
    pub(super) fn clear(&mut self, process: Incarnation) {
        if self.of == process {
            *self = Self { of: process, ..Self::new() };
        }
    }

    /// A message came whole: it goes on now, or when those before it do.
    pub(super) fn whole(&mut self, group: GroupId, message: Inbound) -> Option<Inbound> {
        match self.groups.get_mut(&group) {
            None => Some(message),
            Some(queue) => {
                queue.push_back(Held::Ready(Ready::Whole(message)));
                None
            }
        }
    }

    /// What a message says came. True if it must be asked for with [`Self::next`].
    pub(super) fn described(&mut self, now: Instant, group: GroupId, number: u64, meta: Bytes) -> bool {
        // The data lane has overtaken these for good: their messages were lost.
        self.payloads = self.payloads.split_off(&number);
        let held = match self.payloads.remove(&number) {
            Some(Arrived { payloads, permit }) => Held::Ready(Ready::Joined { meta, payloads, permit }),
            None => Held::Waiting { number, meta, since: now },
        };
        let is_ready = matches!(held, Held::Ready(_));
        let queue = self.groups.entry(group).or_default();
        queue.push_back(held);
        is_ready && queue.len() == 1
    }

    /// A frame on the bulk lane has begun.
    pub(super) fn payloads_begin(&mut self, now: Instant) {
        (self.reading, self.moved) = (true, Some(now));
    }

    /// Payloads are there. Returns the groups for which [`Self::next`] has something.
    pub(super) fn payloads(
        &mut self,
        now: Instant,
        number: u64,
        payloads: Bytes,
        permit: Option<ReceivePermit>,
    ) -> Vec<GroupId> {
        (self.reading, self.moved) = (false, Some(now));
        let mut arrived = Some(Arrived { payloads, permit });
        let is_lost = |waiting: u64, _| waiting < number;
        let ready = self.give_up(is_lost, |waiting, meta| {
            (waiting == number)
                .then(|| arrived.take())
                .flatten()
                .map(|Arrived { payloads, permit }| Ready::Joined { meta: meta.clone(), payloads, permit })
        });
        if let Some(arrived) = arrived {
            self.payloads.insert(number, arrived);
        }
        ready
    }

    /// Gives up what waits for payloads that will not come, since the bulk lane is silent. Returns the groups for which [`Self::next`] has
    /// something.
    pub(super) fn give_up_late(&mut self, now: Instant) -> Vec<GroupId> {
        let moved = self.moved;
        let is_late =
            |since: Instant| now.duration_since(moved.map_or(since, |moved| moved.max(since))) >= LATE;
        if self.reading || self.groups.is_empty() {
            return Vec::new();
        }
        self.give_up(|_, since| is_late(since), |_, _| None)
    }

    /// Drops what is lost, completes what can be, and returns the groups that thereby have something ready.
    fn give_up(
        &mut self,
        is_lost: impl Fn(u64, Instant) -> bool,
        mut complete: impl FnMut(u64, &Bytes) -> Option<Ready>,
    ) -> Vec<GroupId> {
        let mut ready = Vec::new();
        for (group, queue) in &mut self.groups {
            let mut changed = false;
            queue.retain_mut(|held| {
                let Held::Waiting { number, meta, since } = held else { return true };
                if let Some(complete) = complete(*number, meta) {
                    *held = Held::Ready(complete);
                    changed = true;
                } else if is_lost(*number, *since) {
                    changed = true;
                    return false;
                }
                true
            });
            if changed && !matches!(queue.front(), Some(Held::Waiting { .. })) {
                ready.push(*group);
            }
        }
        ready
    }

    /// The next message about a group that can go on. To be asked until there is none, and each delivered before the next is
    /// asked for: meanwhile others wait behind it.
    pub(super) fn next(&mut self, group: GroupId) -> Option<Ready> {
        let queue = self.groups.get_mut(&group)?;
        match queue.pop_front() {
            Some(Held::Ready(ready)) => Some(ready),
            Some(waiting) => {
                queue.push_front(waiting);
                None
            }
            None => {
                self.groups.remove(&group);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use helix_raft::{Message, MessageBody, ReplicaId, Term};

    use super::*;

    const GROUP: GroupId = GroupId(7);

    fn message(term: u64) -> Inbound {
        let message = Message {
            group: GROUP,
            from: ReplicaId(1),
            to: ReplicaId(2),
            from_incarnation: Incarnation(1),
            to_incarnation: Incarnation(1),
            term: Term(term),
            body: MessageBody::TimeoutNow,
        };
        Inbound { message, permit: None }
    }

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    /// What can go on, as text: the term of a whole message, what a joined one says and holds.
    fn delivered(reunion: &mut Reunion) -> Vec<String> {
        std::iter::from_fn(|| reunion.next(GROUP))
            .map(|ready| match ready {
                Ready::Whole(inbound) => inbound.message.term.get().to_string(),
                Ready::Joined { meta, payloads, .. } => {
                    format!("{}+{}", String::from_utf8_lossy(&meta), String::from_utf8_lossy(&payloads))
                }
            })
            .collect()
    }

    #[tokio::test]
    async fn parts_meet_whichever_comes_first() {
        let (mut reunion, now) = (Reunion::new(), Instant::now());
        assert!(!reunion.described(now, GROUP, 1, bytes("one")));
        assert_eq!(reunion.payloads(now, 1, bytes("first"), None), [GROUP]);
        assert_eq!(delivered(&mut reunion), ["one+first"]);
        assert!(reunion.payloads(now, 2, bytes("second"), None).is_empty());
        assert!(reunion.described(now, GROUP, 2, bytes("two")));
        assert_eq!(delivered(&mut reunion), ["two+second"]);
        assert!(reunion.groups.is_empty() && reunion.payloads.is_empty());
    }

    #[tokio::test]
    async fn what_follows_waits_and_other_groups_do_not() {
        let (mut reunion, now) = (Reunion::new(), Instant::now());
        reunion.described(now, GROUP, 1, bytes("one"));
        assert!(reunion.whole(GROUP, message(11)).is_none());
        assert!(reunion.whole(GroupId(8), message(12)).is_some());
        assert!(!reunion.described(now, GROUP, 2, bytes("two")));
        assert!(reunion.whole(GROUP, message(13)).is_none());
        assert_eq!(delivered(&mut reunion), [""; 0]);
        reunion.payloads(now, 1, bytes("first"), None);
        // Still being delivered: nothing overtakes.
        assert!(matches!(reunion.next(GROUP), Some(Ready::Joined { .. })));
        assert!(reunion.whole(GROUP, message(14)).is_none());
        assert_eq!(delivered(&mut reunion), ["11"]);
        assert_eq!(reunion.payloads(now, 2, bytes("second"), None), [GROUP]);
        assert_eq!(delivered(&mut reunion), ["two+second", "13", "14"]);
        assert!(reunion.whole(GROUP, message(15)).is_some());
    }

    #[tokio::test]
    async fn numbers_show_what_was_lost() {
        let (mut reunion, now) = (Reunion::new(), Instant::now());
        reunion.described(now, GROUP, 1, bytes("one"));
        reunion.whole(GROUP, message(11));
        reunion.described(now, GROUP, 3, bytes("three"));
        // Those of 1 were lost.
        assert_eq!(reunion.payloads(now, 3, bytes("third"), None), [GROUP]);
        assert_eq!(delivered(&mut reunion), ["11", "three+third"]);
        // The message that 4 belongs to was lost.
        reunion.payloads(now, 4, bytes("fourth"), None);
        reunion.described(now, GROUP, 5, bytes("five"));
        assert!(reunion.payloads.is_empty());
    }

    #[tokio::test]
    async fn silence_of_the_bulk_lane_is_a_loss_and_slowness_is_not() {
        let (mut reunion, now) = (Reunion::new(), Instant::now());
        reunion.described(now, GROUP, 1, bytes("one"));
        reunion.whole(GROUP, message(11));
        reunion.payloads_begin(now);
        assert!(reunion.give_up_late(now + 2 * LATE).is_empty());
        let later = now + 3 * LATE;
        reunion.payloads(later, 0, bytes("of another"), None);
        assert!(reunion.give_up_late(later + LATE / 2).is_empty());
        assert_eq!(reunion.give_up_late(later + LATE), [GROUP]);
        assert_eq!(delivered(&mut reunion), ["11"]);
    }

    #[tokio::test]
    async fn another_process_begins_with_nothing() {
        let (mut reunion, now) = (Reunion::new(), Instant::now());
        reunion.of(Incarnation(1)).described(now, GROUP, 9, bytes("nine"));
        reunion.of(Incarnation(1)).payloads(now, 12, bytes("twelve"), None);
        assert!(!reunion.of(Incarnation(2)).described(now, GROUP, 1, bytes("one")));
        // A connection of the first one ends.
        reunion.clear(Incarnation(1));
        assert_eq!(reunion.of(Incarnation(2)).payloads(now, 1, bytes("first"), None), [GROUP]);
        assert_eq!(delivered(&mut reunion), ["one+first"]);
    }
}
