//! The model that is searched: its steps, and what has to hold in every state.

use stateright::{Model, Property};

use crate::rules::{Rule, Setup};
use crate::state::{NEWCOMER, Replica, Set, State};
use crate::wal::Body;

/// Everything that can happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// `candidate` is elected with the votes of `voters`; with those of recovering replicas too if it is `unclean`.
    Elect { candidate: u8, voters: Set, term: u8, unclean: bool },
    /// A client writes.
    Propose { leader: u8 },
    /// The next step of the replacement is appended.
    ChangeMembership { leader: u8 },
    /// The leader's log reaches `to` through an index.
    Send { leader: u8, to: u8, through: u8 },
    /// The leader commits and acknowledges what `holders` answer for.
    Commit { leader: u8, through: u8, holders: Set },
    /// The leader learns that `to` is recovering, and names its commit index to it.
    Name { leader: u8, to: u8 },
    /// A process or a machine dies and comes back, with as many WAL records as were `kept`. It had `answered` a leader
    /// for what it lost.
    Crash { replica: u8, machine: bool, kept: u8, answered: Option<(u8, u8)> },
    /// A disk is replaced by an empty one.
    LoseDisk { replica: u8 },
    /// Blank nodes found a cluster.
    Found,
}

/// The properties that every rule serves.
pub(crate) const KEPT: &str = "later leaders hold what was acknowledged";
pub(crate) const AGREED: &str = "committed prefixes agree";
pub(crate) const ONE_LEADER: &str = "a term has one leader";

/// What has to be reached, so that those say something.
pub(crate) const ACKNOWLEDGED: &str = "something is acknowledged";
pub(crate) const SOUND_AGAIN: &str = "a recovering replica becomes sound by what a leader names";
pub(crate) const REPLACED: &str = "a voter is replaced, and its successor leads and commits";
pub(crate) const UNCLEAN: &str = "an unclean recovery is won, and commits";
pub(crate) const UNCLEAN_KEEPS: &str = "an unclean recovery keeps what was acknowledged before";

impl Model for Setup {
    type State = State;
    type Action = Step;

    /// Every history begins with an election, and replicas differ in nothing before it: so 0 leads with the vote of 1. Which of the
    /// three is to be replaced does make a difference.
    fn init_states(&self) -> Vec<State> {
        let replicas = vec![Replica::default(); if self.replacement { 4 } else { 3 }];
        let blank = State {
            replicas,
            outgoing: 0,
            acknowledged: Vec::new(),
            conflict: false,
            rivals: false,
            faults: self.faults,
        };
        let first = |outgoing| {
            let mut state = State { outgoing, ..blank.clone() };
            self.elect(&mut state, 0, Set::of(1), 1, false);
            for step in self.prelude {
                self.take(&mut state, *step);
            }
            state
        };
        let outgoing = if self.replacement { 0..3 } else { 0..1 };
        outgoing.map(first).collect()
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        self.elections(state, steps);
        self.replications(state, steps);
        self.faults(state, steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = state.clone();
        self.take(&mut next, step);
        self.forget_the_irrelevant(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Setup>> {
        vec![
            Property::always(KEPT, |_, state: &State| later_leaders_hold_what_was_acknowledged(state)),
            Property::always(AGREED, |_, state: &State| !state.conflict),
            Property::always(ONE_LEADER, |_, state: &State| !state.rivals),
            Property::sometimes(ACKNOWLEDGED, |_, state: &State| !state.acknowledged.is_empty()),
            Property::sometimes(SOUND_AGAIN, |setup: &Setup, state: &State| {
                let crashed = setup.faults.machine > state.faults.machine;
                let mut leaders = state.leaders();
                let clean = leaders.any(|leader| leader.leading.unclean_last.is_none() && leader.is_ready());
                crashed && clean && state.ids().all(|id| state.is_sound(id))
            }),
            Property::sometimes(REPLACED, |_, state: &State| {
                let replaced = state.acknowledged.iter().any(|one| one.entry.body == Body::Replaced);
                replaced && state.leaders().any(|leader| leader.id == NEWCOMER && leader.is_ready())
            }),
            Property::sometimes(UNCLEAN, |_, state: &State| {
                let mut leaders = state.leaders();
                leaders.any(|leader| leader.leading.unclean_last.is_some() && leader.is_ready())
            }),
            Property::sometimes(UNCLEAN_KEEPS, |_, state: &State| {
                let mut new = state.leaders().filter(|leader| leader.leading.commit == 0);
                new.any(|leader| leader.leading.unclean_last.is_some()) && !state.acknowledged.is_empty()
            }),
        ]
    }
}

/// An entry was acknowledged in some term: who leads in that or a later one holds it.
fn later_leaders_hold_what_was_acknowledged(state: &State) -> bool {
    state.leaders().all(|leader| {
        let mut acknowledged = state.acknowledged.iter().enumerate();
        acknowledged.all(|(position, one)| {
            one.term > leader.replica.term || leader.log().get(position) == Some(&one.entry)
        })
    })
}

impl Setup {
    fn take(&self, state: &mut State, step: Step) {
        match step {
            Step::Elect { candidate, voters, term, unclean } => {
                self.elect(state, candidate, voters, term, unclean);
            }
            Step::Propose { leader } => Setup::propose(state, leader, Body::Data),
            Step::ChangeMembership { leader } => self.change_membership(state, leader),
            Step::Send { leader, to, through } => Setup::send(state, leader, to, through),
            Step::Commit { leader, through, holders } => self.commit(state, leader, through, holders),
            Step::Name { leader, to } => self.name(state, leader, to),
            Step::Crash { replica, machine, kept, answered } => {
                self.crash(state, replica, machine, kept, answered);
            }
            Step::LoseDisk { replica } => self.lose_disk(state, replica),
            Step::Found => Setup::found(state),
        }
    }

    /// Takes out of the state what nothing depends on any more: fewer states to search, and none of them with a different future.
    fn forget_the_irrelevant(&self, state: &mut State) {
        let (process, machine) = (state.faults.process > 0, state.faults.machine > 0);
        for replica in &mut state.replicas {
            replica.wal.forget_stored(process, machine);
            let Some(leading) = &mut replica.leading else { continue };
            for peer in &mut leading.peers {
                if peer.stale_answer <= leading.commit {
                    peer.stale_answer = 0;
                }
            }
        }
        let binding = [Rule::HardStateSynced, Rule::BlankIsNewReplica, Rule::AllBlankToFound];
        if binding.into_iter().all(|rule| self.has(rule)) {
            forget_votes(state);
        }
        if self.symmetric {
            put_in_order(state, if self.replacement { 2 } else { 3 });
        }
    }
}

/// A vote is of interest as long as somebody else can still ask for one in its term.
fn forget_votes(state: &mut State) {
    for id in state.ids() {
        let term = state.replica(id).term;
        let may_ask = state.live().any(|other| other != id && state.replica(other).term < term);
        if !may_ask {
            state.replica_mut(id).vote = None;
        }
    }
}

/// Gives the founders new ids, in the order of what they hold; where one is to be replaced, that one comes last among them. Any order is
/// right as long as everything that names a replica follows it.
fn put_in_order(state: &mut State, founders: usize) {
    let mut order: Vec<u8> = state.ids().collect();
    if state.replicas.len() > 3 {
        order.swap(2, usize::from(state.outgoing));
    }
    let key = |id: &u8| {
        let replica = state.replica(*id);
        (replica.leading.is_some(), replica.term, replica.recovering, replica.lost, &replica.wal)
    };
    order[..founders].sort_by(|one, other| key(one).cmp(&key(other)));
    if order.iter().copied().eq(state.ids()) {
        return;
    }
    let new_id = |old: u8| order.iter().position(|id| *id == old).map_or(old, |new| new as u8);
    let mut replicas: Vec<Replica> = order.iter().map(|id| state.replica(*id).clone()).collect();
    for replica in &mut replicas {
        replica.vote = replica.vote.map(new_id);
        if let Some(leading) = &mut replica.leading {
            let peers = leading.peers;
            for (new, old) in order.iter().enumerate() {
                leading.peers[new] = peers[usize::from(*old)];
            }
        }
    }
    if replicas.len() > 3 {
        state.outgoing = new_id(state.outgoing);
    }
    state.replicas = replicas;
}
