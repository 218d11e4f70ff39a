//! Elections, each in one step.
//!
//! That loses nothing here. A candidate's log stands still while it asks, and what a voter does between its vote and the victory is
//! either closed to it (the vote binds it to the term; three or four replicas are too few for another majority beside) or commutes with
//! the victory (a crash). An election that fails, or that takes more votes than it needs, only binds replicas, and a request that
//! arrives when its sender leads no more does the same. So each election takes a smallest set of votes, and the lowest term.

use crate::protocol::Step;
use crate::rules::{Rule, Setup};
use crate::state::{Configuration, Leading, Set, State};
use crate::wal::{Body, Entry};

impl Setup {
    pub(crate) fn elections(&self, state: &State, steps: &mut Vec<Step>) {
        for candidate in state.live() {
            let wal = &state.replica(candidate).wal;
            if wal.last_index() >= self.entries || !state.may_campaign(candidate, wal.log()) {
                continue;
            }
            let configuration = state.configuration(wal.log());
            let others = configuration.all().without(candidate);
            for voters in others.subsets() {
                let unclean = if self.wins_clean(state, configuration, candidate, voters) {
                    false
                } else if self.wins_unclean(state, configuration, candidate, voters) {
                    true
                } else {
                    continue;
                };
                if let Some(term) = self.term_to_win(state, candidate, voters) {
                    steps.push(Step::Elect { candidate, voters, term, unclean });
                }
            }
        }
    }

    fn counts(&self, state: &State, voter: u8) -> bool {
        state.is_sound(voter) || !self.has(Rule::RecoveringVotesDoNotCount)
    }

    fn wins_clean(&self, state: &State, configuration: Configuration, candidate: u8, voters: Set) -> bool {
        let smallest = |ballot: Set| {
            configuration.is_majority(ballot)
                && voters.iter().all(|voter| !configuration.is_majority(ballot.without(voter)))
        };
        let ballot = voters.with(candidate);
        ballot.iter().all(|voter| self.counts(state, voter)) && smallest(ballot)
    }

    /// A recovering candidate asks everybody at once, a sound one when too few voters are sound.
    fn wins_unclean(&self, state: &State, configuration: Configuration, candidate: u8, voters: Set) -> bool {
        let sound = configuration.all().iter().filter(|voter| state.is_sound(*voter));
        let enough_sound = configuration.is_majority(sound.fold(Set::NONE, Set::with));
        let ballot = voters.with(candidate);
        let enough = if self.has(Rule::EveryVoter) {
            voters == configuration.all().without(candidate)
        } else {
            configuration.is_majority(ballot)
        };
        let all_there = ballot.iter().all(|voter| !state.replica(voter).lost);
        enough && all_there && (state.replica(candidate).recovering || !enough_sound)
    }

    /// The lowest term in which all of `voters` vote for `candidate`.
    fn term_to_win(&self, state: &State, candidate: u8, voters: Set) -> Option<u8> {
        let last = state.replica(candidate).wal.last();
        let grants = |voter: u8, term: u8| {
            let voter = state.replica(voter);
            let free =
                voter.term < term || (voter.term == term && voter.vote.is_none_or(|vote| vote == candidate));
            free && voter.wal.last() <= last
        };
        (state.replica(candidate).term + 1..=self.terms)
            .find(|term| voters.iter().all(|voter| grants(voter, *term)))
    }

    pub(crate) fn elect(&self, state: &mut State, candidate: u8, voters: Set, term: u8, unclean: bool) {
        let configuration = state.configuration(state.replica(candidate).wal.log());
        let ballot = voters.with(candidate);
        let sound = ballot.iter().filter(|voter| state.is_sound(*voter)).fold(Set::NONE, Set::with);
        let clean = !unclean || configuration.is_majority(sound);
        if !clean {
            excuse_what_nobody_holds(state, configuration);
        }
        for voter in ballot.iter() {
            let voter = state.replica_mut(voter);
            voter.term = term;
            voter.vote = Some(candidate);
            voter.leading = None;
        }
        if self.one_leader {
            state.replicas.iter_mut().for_each(|replica| replica.leading = None);
        }
        let mut logs = state.replicas.iter().map(|replica| replica.wal.log());
        let led_before = logs.any(|log| log.iter().any(|entry| entry.term == term));
        state.rivals |= led_before;
        let leader = state.replica_mut(candidate);
        let last = leader.wal.last_index();
        if leader.recovering && self.has(Rule::WinnerHasStored) {
            leader.wal.write_through(last);
        }
        leader.recovering = false;
        leader.wal.put(last + 1, Entry { term, body: Body::Data });
        leader.leading =
            Some(Leading { commit: 0, unclean_last: (!clean).then_some(last), peers: Default::default() });
    }
}

/// What no voter holds any more, of this configuration or of the one that was acknowledged last, is lost and may be.
fn excuse_what_nobody_holds(state: &mut State, configuration: Configuration) {
    let acknowledged: Vec<Entry> = state.acknowledged.iter().map(|one| one.entry).collect();
    let voters = configuration.all().union(state.configuration(&acknowledged).all());
    let is_held = |index: usize| {
        let mut voters = voters.iter().filter(|voter| usize::from(*voter) < state.replicas.len());
        voters.any(|voter| state.replica(voter).wal.log().get(index) == Some(&acknowledged[index]))
    };
    let held = (0..acknowledged.len()).take_while(|index| is_held(*index)).count();
    state.acknowledged.truncate(held);
}
