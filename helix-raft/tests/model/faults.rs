//! Crashes, and disks that come back empty.

use crate::protocol::Step;
use crate::rules::{Rule, Setup};
use crate::state::{Replica, Set, State};

impl Setup {
    pub(crate) fn faults(&self, state: &State, steps: &mut Vec<Step>) {
        for replica in state.live() {
            if state.faults.machine > 0 {
                self.machine_crashes(state, replica, steps);
            }
            if state.faults.process > 0 {
                self.process_crashes(state, replica, steps);
            }
            if state.faults.disk > 0 && self.may_lose_its_disk(state, replica) {
                steps.push(Step::LoseDisk { replica });
            }
        }
        if self.may_found(state) {
            steps.push(Step::Found);
        }
    }

    /// A machine may have answered for what it loses, if that was not to be synced.
    fn machine_crashes(&self, state: &State, id: u8, steps: &mut Vec<Step>) {
        let replica = state.replica(id);
        for kept in replica.wal.crash_keeps(true) {
            steps.push(Step::Crash { replica: id, machine: true, kept, answered: None });
        }
        for leader in state.leaders().filter(|leader| leader.id != id) {
            for answered in leader.leading.commit + 1..=self.answers_through(leader, replica) {
                let mut storing = replica.clone();
                self.answer(&mut storing, leader, answered);
                for kept in storing.wal.crash_keeps(true).filter(|kept| !storing.wal.holds(answered, *kept)) {
                    let answered = Some((leader.id, answered));
                    steps.push(Step::Crash { replica: id, machine: true, kept, answered });
                }
            }
        }
    }

    /// A process that dies and loses nothing only forgets whom it follows or leads, and that restricts it. Unless it forgets the mark.
    fn process_crashes(&self, state: &State, id: u8, steps: &mut Vec<Step>) {
        let replica = state.replica(id);
        let forgets = replica.recovering && !self.has(Rule::RecoveringMarkLasts);
        for kept in replica.wal.crash_keeps(false) {
            if kept < replica.wal.records() || forgets {
                steps.push(Step::Crash { replica: id, machine: false, kept, answered: None });
            }
        }
    }

    /// Where a replica is to be replaced, it is that one that loses its disk, if any does.
    fn may_lose_its_disk(&self, state: &State, replica: u8) -> bool {
        !self.replacement || replica == state.outgoing
    }

    /// A crash and the next start, in one step: a replica that is away does nothing, and that is no different from one to which
    /// nothing gets through. Whatever was said to the old process is dropped by the new one.
    pub(crate) fn crash(
        &self,
        state: &mut State,
        id: u8,
        machine: bool,
        kept: u8,
        answered: Option<(u8, u8)>,
    ) {
        let budget = if machine { &mut state.faults.machine } else { &mut state.faults.process };
        *budget -= 1;
        if let Some((leader, through)) = answered {
            let before = state.clone();
            if let Some(leader) = before.leader(leader) {
                self.answer(state.replica_mut(id), leader, through);
            }
            if let Some(peer) = state.peer_mut(leader, id) {
                peer.stale_answer = through;
            }
        }
        for leader in state.ids() {
            if let Some(peer) = state.peer_mut(leader, id) {
                peer.sound_through = None;
            }
        }
        let replica = state.replica_mut(id);
        replica.leading = None;
        replica.wal.crash(machine, kept);
        if machine {
            replica.recovering |= !self.fsync;
            if !self.has(Rule::HardStateSynced) {
                replica.term = replica.wal.last().0;
                replica.vote = None;
            }
        } else if !self.has(Rule::RecoveringMarkLasts) {
            // The new boot id was written first, and the mark not yet.
            replica.recovering = false;
        }
    }

    pub(crate) fn lose_disk(&self, state: &mut State, id: u8) {
        state.faults.disk -= 1;
        let lost = self.has(Rule::BlankIsNewReplica);
        *state.replica_mut(id) = Replica { lost, ..Replica::default() };
    }

    /// Whether enough nodes are blank to make a cluster.
    fn may_found(&self, state: &State) -> bool {
        let blank = Set::FOUNDERS.iter().filter(|id| state.replica(*id).lost).count();
        blank == 3 || (blank == 2 && !self.has(Rule::AllBlankToFound))
    }

    /// The blank nodes begin anew.
    pub(crate) fn found(state: &mut State) {
        for id in Set::FOUNDERS.iter() {
            let replica = state.replica_mut(id);
            if replica.lost {
                *replica = Replica::default();
            }
        }
    }
}
