//! The terms and votes that replicas have said are stored: within a term a vote is given once, and it survives.

use std::collections::BTreeMap;

use helix_raft::{GroupId, HardState};

use crate::network::Place;

/// What every replica has promised last.
#[derive(Default)]
pub(super) struct Votes {
    promised: BTreeMap<(Place, GroupId), HardState>,
}

impl Votes {
    /// A term and vote are stored.
    pub(super) fn promise(&mut self, place: Place, group: GroupId, state: HardState) -> Result<(), String> {
        let known = self.promised.entry((place, group)).or_insert(state);
        let before = std::mem::replace(known, state);
        if agrees(before, state) {
            return Ok(());
        }
        Err(format!("node {}, group {group}: it has promised {before:?}, and then {state:?}", place + 1))
    }

    /// A replica was opened with what it found.
    pub(super) fn find(&self, place: Place, group: GroupId, found: HardState) -> Result<(), String> {
        match self.promised.get(&(place, group)) {
            Some(known) if !agrees(*known, found) => Err(format!(
                "node {}, group {group}: it has promised {known:?}, and came back with {found:?}",
                place + 1
            )),
            _ => Ok(()),
        }
    }

    /// A disk is gone, and with it whoever promised.
    pub(super) fn forget_disk(&mut self, place: Place) {
        self.promised.retain(|(at, _), _| *at != place);
    }

    /// A replica is gone for good.
    pub(super) fn forget(&mut self, place: Place, group: GroupId) {
        self.promised.remove(&(place, group));
    }
}

/// Whether one replica may promise both, one after the other.
fn agrees(before: HardState, after: HardState) -> bool {
    let votes_twice = before.term == after.term && before.vote.is_some() && before.vote != after.vote;
    after.covers(&before) && !votes_twice
}
