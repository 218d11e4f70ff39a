//! Who leads which group: soft state, spread by the leaders themselves, highest term wins.

use std::collections::{HashMap, HashSet};

use helix_raft::{GroupId, ReplicaId, Term};
use parking_lot::{Mutex, RwLock};

use crate::env::watch;
use crate::ids::NodeId;
use crate::peers::control::LeaderDelta;

/// What a leader says of one of its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderInfo {
    /// The leader; `None` when the leader of that term gave up (a term has one leader, so nobody else can say it).
    pub leader: Option<ReplicaId>,
    /// Its term, which clients know as the leader epoch.
    pub term: Term,
    /// Replicas that keep up with it, itself included.
    pub in_sync: Vec<ReplicaId>,
}

/// A partition's leader as clients know it, for those that would rather be told than ask (KIP-951).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CurrentLeader {
    pub(crate) node: NodeId,
    /// Its term.
    pub(crate) epoch: i32,
}

impl LeaderInfo {
    /// The news as it travels.
    pub(crate) fn delta(&self, group: GroupId) -> LeaderDelta {
        LeaderDelta { group, term: self.term, leader: self.leader, in_sync: self.in_sync.clone() }
    }
}

impl From<LeaderDelta> for LeaderInfo {
    fn from(delta: LeaderDelta) -> Self {
        Self { leader: delta.leader, term: delta.term, in_sync: delta.in_sync }
    }
}

/// All known leaders. Read by metadata requests, written as news arrives.
#[derive(Debug)]
pub struct LeaderTable {
    known: RwLock<HashMap<GroupId, LeaderInfo>>,
    /// Groups for whose leader somebody waited in vain, and of which none was heard since.
    missed: Mutex<HashSet<GroupId>>,
    changed: watch::Sender<u64>,
}

impl Default for LeaderTable {
    fn default() -> Self {
        Self { known: RwLock::default(), missed: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl LeaderTable {
    /// Takes news of a group; older terms are ignored. Returns whether anything changed.
    pub fn learn(&self, group: GroupId, info: LeaderInfo) -> bool {
        {
            let mut known = self.known.write();
            if known.get(&group).is_some_and(|old| old.term > info.term || *old == info) {
                return false;
            }
            if info.leader.is_some() {
                self.missed.lock().remove(&group);
            }
            known.insert(group, info);
        }
        self.changed.send_modify(|version| *version += 1);
        true
    }

    /// Forgets a deleted group.
    pub fn forget(&self, group: GroupId) {
        self.known.write().remove(&group);
        self.missed.lock().remove(&group);
    }

    /// Somebody waited for leaders of these groups in vain.
    pub(crate) fn note_missed(&self, groups: impl Iterator<Item = GroupId>) {
        let known = self.known.read();
        let led = |group: &GroupId| known.get(group).is_some_and(|info| info.leader.is_some());
        self.missed.lock().extend(groups.filter(|group| !led(group)));
    }

    /// Whether waiting for a leader was in vain before.
    pub(crate) fn is_missed(&self, group: GroupId) -> bool {
        self.missed.lock().contains(&group)
    }

    /// The leader of a group, as far as known.
    pub fn get(&self, group: GroupId) -> Option<LeaderInfo> {
        self.known.read().get(&group).cloned()
    }

    /// All groups that `leader` leads.
    pub fn led_by(&self, leader: ReplicaId) -> Vec<(GroupId, LeaderInfo)> {
        let known = self.known.read();
        let mut led: Vec<_> = known
            .iter()
            .filter(|(_, info)| info.leader == Some(leader))
            .map(|(group, info)| (*group, info.clone()))
            .collect();
        led.sort_by_key(|(group, _)| *group);
        led
    }

    /// A receiver that wakes whenever anything changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(leader: Option<u64>, term: u64) -> LeaderInfo {
        LeaderInfo { leader: leader.map(ReplicaId), term: Term(term), in_sync: vec![] }
    }

    #[test]
    fn the_highest_term_wins() {
        let table = LeaderTable::default();
        let group = GroupId(1);
        assert!(table.learn(group, info(Some(1), 2)));
        assert!(!table.learn(group, info(Some(2), 1)));
        assert!(table.learn(group, info(Some(2), 3)));
        assert!(!table.learn(group, info(Some(2), 3)));
        assert_eq!(table.get(group).unwrap().leader, Some(ReplicaId(2)));
        assert_eq!(table.led_by(ReplicaId(2)).len(), 1);
        assert!(table.led_by(ReplicaId(1)).is_empty());
    }

    #[test]
    fn a_leader_is_missed_until_one_is_heard() {
        let table = LeaderTable::default();
        let (led, missed) = (GroupId(1), GroupId(2));
        table.learn(led, info(Some(1), 2));
        table.note_missed([led, missed].into_iter());
        assert_eq!([led, missed].map(|group| table.is_missed(group)), [false, true]);
        table.learn(missed, info(None, 4));
        assert!(table.is_missed(missed));
        table.learn(missed, info(Some(1), 5));
        assert!(!table.is_missed(missed));
    }
}
