//! Appending, committing, and how a recovering replica becomes sound.
//!
//! A leader's entries arrive in the step in which they are sent, as many of them as may have been sent by then, and they are answered in
//! the step that commits them. That loses nothing. What a follower does with entries touches nobody else, so a message that is late
//! could as well have arrived before whatever happened meanwhile, but for what happened to the follower itself: of a newer term, it
//! refuses them; as a newer process, it drops them. An answer that is late could as well be given late, but for two cases: its sender went
//! over to a newer leader, then the entries could as well have been committed before; or it lost what it answered for, so that
//! answer is kept (`Peer::stale_answer`).

use crate::protocol::Step;
use crate::rules::{Rule, Setup};
use crate::state::{Acknowledged, Leader, NEWCOMER, Replica, Set, State, last_change};
use crate::wal::{Body, Entry};

impl Setup {
    pub(crate) fn replications(&self, state: &State, steps: &mut Vec<Step>) {
        for leader in state.leaders() {
            for to in state.live().filter(|to| *to != leader.id) {
                let is_known = to != NEWCOMER || last_change(leader.log()).0 > 0;
                if is_known && leader.reaches(state.replica(to)) {
                    sends(state, leader, to, steps);
                    self.namings(state, leader, to, steps);
                }
            }
            let last = leader.replica.wal.last_index();
            if last < self.writes {
                steps.push(Step::Propose { leader: leader.id });
            }
            if last < self.entries && self.replacement && self.next_change(state, leader).is_some() {
                steps.push(Step::ChangeMembership { leader: leader.id });
            }
            self.commits(state, leader, steps);
        }
    }

    pub(crate) fn propose(state: &mut State, leader: u8, body: Body) {
        let replica = state.replica_mut(leader);
        let entry = Entry { term: replica.term, body };
        replica.wal.put(replica.wal.last_index() + 1, entry);
    }

    pub(crate) fn send(state: &mut State, leader: u8, to: u8, through: u8) {
        let Some(leader) = state.leader(leader) else { return };
        let mut follower = state.replica(to).clone();
        let becomes_sound = becomes_sound(leader, to, &follower, through);
        let agreed = leader.agrees_through(&follower);
        for index in agreed + 1..=through {
            follower.wal.put(index, leader.log()[usize::from(index) - 1]);
        }
        follow(&mut follower, leader.replica.term);
        if becomes_sound {
            follower.recovering = false;
            follower.wal.write_through(leader.peer(to).sound_through.unwrap_or(0));
        }
        *state.replica_mut(to) = follower;
    }

    /// Stores the log through `through` as durably as it has to be for a leader that has committed through `commit`.
    fn store(&self, replica: &mut Replica, commit: u8, through: u8) {
        replica.wal.write_through(through);
        if self.fsync {
            replica.wal.sync_through(through);
        }
        let (changed, _) = last_change(&replica.wal.log()[..usize::from(through)]);
        if changed > commit && self.has(Rule::ConfigurationsSynced) {
            replica.wal.sync_through(changed);
        }
    }

    /// A follower stores what it answers for.
    pub(crate) fn answer(&self, follower: &mut Replica, leader: Leader<'_>, through: u8) {
        follow(follower, leader.replica.term);
        if self.has(Rule::WrittenBeforeAnswered) && self.has(Rule::WrittenOnAppend) {
            self.store(follower, leader.leading.commit, through);
        }
    }

    /// Through where `follower` can answer `leader`, so that it counts.
    pub(crate) fn answers_through(&self, leader: Leader<'_>, follower: &Replica) -> u8 {
        let counts = !follower.recovering || !self.has(Rule::RecoveringAnswersDoNotCount);
        if counts && leader.reaches(follower) { leader.agrees_through(follower) } else { 0 }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Committing

    /// Each smallest set of holders commits as much as all of them hold: less was to be had before the rest was appended.
    fn commits(&self, state: &State, leader: Leader<'_>, steps: &mut Vec<Step>) {
        let configuration = state.configuration(leader.log());
        let holds_through = |voter: u8| {
            if voter == leader.id {
                leader.replica.wal.last_index()
            } else {
                leader.peer(voter).stale_answer.max(self.answers_through(leader, state.replica(voter)))
            }
        };
        let voters = configuration.all().iter();
        let holders = voters.filter(|voter| holds_through(*voter) > leader.leading.commit);
        for holders in holders.fold(Set::NONE, Set::with).subsets() {
            let needed = |holder| !configuration.is_majority(holders.without(holder));
            if !configuration.is_majority(holders) || !holders.iter().all(needed) {
                continue;
            }
            let through = holders.iter().map(holds_through).min().unwrap_or(0);
            let own_term = leader.log()[usize::from(through) - 1].term == leader.replica.term;
            if own_term || !self.has(Rule::OwnTermCommits) {
                steps.push(Step::Commit { leader: leader.id, through, holders });
            }
        }
    }

    /// The leader commits through `through`, and acknowledges that, since `holders` hold it.
    pub(crate) fn commit(&self, state: &mut State, leader: u8, through: u8, holders: Set) {
        let before = state.clone();
        let Some(leader) = before.leader(leader) else { return };
        for holder in holders.iter() {
            if holder == leader.id {
                self.store(state.replica_mut(holder), leader.leading.commit, through);
            } else if leader.peer(holder).stale_answer < through {
                self.answer(state.replica_mut(holder), leader, through);
            }
        }
        if let Some(leading) = &mut state.replica_mut(leader.id).leading {
            leading.commit = through;
        }
        for (position, entry) in leader.log()[..usize::from(through)].iter().enumerate() {
            match state.acknowledged.get(position) {
                Some(one) => state.conflict |= one.entry != *entry,
                None => {
                    state.acknowledged.push(Acknowledged { entry: *entry, term: leader.replica.term });
                }
            }
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Recovery

    fn namings(&self, state: &State, leader: Leader<'_>, to: u8, steps: &mut Vec<Step>) {
        let named = leader.peer(to).sound_through.is_some();
        if state.replica(to).recovering && !named && self.soundness_point(leader).is_some() {
            steps.push(Step::Name { leader: leader.id, to });
        }
    }

    /// Through where a recovering replica has to match, from now on.
    fn soundness_point(&self, leader: Leader<'_>) -> Option<u8> {
        if leader.is_ready() || !self.has(Rule::OwnTermBeforeNaming) {
            Some(leader.leading.commit)
        } else {
            leader.leading.unclean_last
        }
    }

    /// The leader hears of the new process of `to`, and that it is recovering.
    pub(crate) fn name(&self, state: &mut State, leader: u8, to: u8) {
        let found = state.leader(leader);
        let point = found.and_then(|leader| self.soundness_point(leader));
        let Some(peer) = state.peer_mut(leader, to) else { return };
        peer.sound_through = point;
        if self.has(Rule::Incarnations) {
            peer.stale_answer = 0;
        }
    }

    // ------------------------------------------------------------------------------------------------------------
    // Members

    /// The next step on the way to the newcomer in the place of the voter that goes.
    fn next_change(&self, state: &State, leader: Leader<'_>) -> Option<Body> {
        let (changed, change) = last_change(leader.log());
        if !leader.is_ready() || changed > leader.leading.commit {
            return None;
        }
        let newcomer = state.replica(NEWCOMER);
        let caught_up = !newcomer.recovering && self.answers_through(leader, newcomer) >= changed;
        match change {
            Body::Data => Some(Body::Learner),
            Body::Learner if caught_up && self.has(Rule::JointConsensus) => Some(Body::Joint),
            Body::Learner if caught_up => Some(Body::Replaced),
            Body::Joint => Some(Body::Replaced),
            Body::Learner | Body::Replaced => None,
        }
    }

    pub(crate) fn change_membership(&self, state: &mut State, leader: u8) {
        let before = state.clone();
        let Some(leader) = before.leader(leader) else { return };
        let Some(body) = self.next_change(&before, leader) else { return };
        if last_change(leader.log()).1 == Body::Learner {
            self.answer(state.replica_mut(NEWCOMER), leader, last_change(leader.log()).0);
        }
        Self::propose(state, leader.id, body);
    }
}

/// A message of the leader of `term` arrives.
fn follow(follower: &mut Replica, term: u8) {
    if follower.term < term {
        follower.term = term;
        follower.vote = None;
    }
    follower.leading = None;
}

/// To a follower goes all there is. Less of it could have been sent before the rest was appended, but for what the leader was elected
/// with, and to a replica that lost what it had been sent.
fn sends(state: &State, leader: Leader<'_>, to: u8, steps: &mut Vec<Step>) {
    let follower = state.replica(to);
    let agreed = leader.agrees_through(follower);
    let last = leader.replica.wal.last_index();
    for through in agreed..=last {
        let position = usize::from(through);
        let inherited = leader.log()[..position].iter().all(|entry| entry.term < leader.replica.term);
        let could_be_sent = inherited || through == last || follower.recovering;
        if could_be_sent && (through > agreed || becomes_sound(leader, to, follower, through)) {
            steps.push(Step::Send { leader: leader.id, to, through });
        }
    }
}

/// Whether `follower` becomes sound by matching the leader's log through `through`.
fn becomes_sound(leader: Leader<'_>, id: u8, follower: &Replica, through: u8) -> bool {
    follower.recovering && leader.peer(id).sound_through.is_some_and(|needed| through >= needed)
}
