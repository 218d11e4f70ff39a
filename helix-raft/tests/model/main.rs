//! A model of the protocol: appending, acknowledging, committing, crashing and recovering, searched through with `stateright`.
//!
//! Unlike everything else in the tests this runs no production code. It asks whether the *rules* are right: the model is small enough for
//! every history of three replicas (or four, where one is replaced) within its bounds to be looked at, and the rules in `rules.rs` can be
//! taken out of it one by one, which has to lead to a loss. What a step is, and why it may be as large as it is, is said in `election.rs`,
//! `replication.rs` and `faults.rs`; durations do not exist, anything may happen at any time.
//!
//! `HELIX_MODEL="terms=4 entries=4 writes=3 process=1 machine=2 disk=1" cargo test --release -p helix-raft --test model` searches further (any
//! of these bounds, for every sound model); `--nocapture` shows the number of states, and how each rule's absence loses something.

mod election;
mod faults;
mod protocol;
mod replication;
mod rules;
mod state;
mod wal;

use std::collections::BTreeSet;
use std::fmt::Write;

use protocol::{ACKNOWLEDGED, AGREED, KEPT, ONE_LEADER, REPLACED, SOUND_AGAIN, Step, UNCLEAN, UNCLEAN_KEEPS};
use rules::{Faults, Rule, Setup};
use state::{Set, State};
use stateright::{Checker, HasDiscoveries, Model};

const NO_FAULTS: Faults = Faults { process: 0, machine: 0, disk: 0 };

/// Three voters, one process and one machine of which fail.
const CRASHES: Setup = Setup {
    without: None,
    fsync: false,
    replacement: false,
    prelude: &[],
    one_leader: true,
    symmetric: true,
    terms: 3,
    entries: 3,
    writes: 2,
    faults: Faults { process: 1, machine: 1, disk: 0 },
};

/// As many machines fail as there are, so that it takes every voter to recover.
const POWER_LOSS: Setup = Setup { writes: 1, faults: Faults { machine: 3, ..NO_FAULTS }, ..CRASHES };

/// A voter, which may lose its disk, is replaced, while a machine fails.
const REPLACEMENT: Setup = Setup {
    replacement: true,
    terms: 2,
    entries: 5,
    writes: 0,
    faults: Faults { machine: 1, disk: 1, ..NO_FAULTS },
    ..CRASHES
};

/// Every machine fails, but data is synced before it counts.
const FSYNC: Setup = Setup { fsync: true, writes: 2, ..POWER_LOSS };

fn with(setup: &Setup, faults: Faults) -> Setup {
    Setup { faults, ..setup.clone() }
}

/// `setup` within the bounds that `HELIX_MODEL` names.
fn enlarged(mut setup: Setup) -> Setup {
    let bounds = std::env::var("HELIX_MODEL").unwrap_or_default();
    for bound in bounds.split_whitespace() {
        let parsed = bound.split_once('=').and_then(|(name, value)| Some((name, value.parse().ok()?)));
        let (name, value) = parsed.expect("HELIX_MODEL is a list like: terms=4 machine=2");
        *match name {
            "terms" => &mut setup.terms,
            "entries" => &mut setup.entries,
            "writes" => &mut setup.writes,
            "process" => &mut setup.faults.process,
            "machine" => &mut setup.faults.machine,
            "disk" => &mut setup.faults.disk,
            _ => panic!("HELIX_MODEL knows no bound named {name}"),
        } = value;
    }
    setup
}

/// Nothing is lost in any history within the bounds, and each of `reached` does happen.
fn holds(setup: Setup, reached: &[&'static str]) {
    let checker = enlarged(setup).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    for property in [KEPT, AGREED, ONE_LEADER] {
        if let Some(path) = checker.discovery(property) {
            panic!("it is not so that {property}:\n{}", told(path.into_vec()));
        }
    }
    for property in reached {
        assert!(checker.discovery(property).is_some(), "never reached: {property}");
    }
    println!("{} states, {} steps between them", checker.unique_state_count(), checker.state_count());
}

/// Without `rule` something that was acknowledged is lost.
fn is_needed(rule: Rule, setup: &Setup) {
    let setup = Setup { without: Some(rule), symmetric: false, ..setup.clone() };
    let lost = HasDiscoveries::AnyOf(BTreeSet::from([KEPT]));
    let checker = setup.checker().finish_when(lost).spawn_bfs().join();
    let states = checker.unique_state_count();
    let path = checker.discovery(KEPT);
    let path = path.unwrap_or_else(|| panic!("nothing is lost without {rule:?} in {states} states"));
    println!("without {rule:?}, after {states} states:\n{}", told(path.into_vec()));
}

/// A history, one step a line, and what it leads to.
fn told(history: Vec<(State, Option<Step>)>) -> String {
    let mut text = String::new();
    for (state, step) in history {
        for (id, replica) in state.replicas.iter().enumerate() {
            let role = match &replica.leading {
                _ if replica.lost => " lost".to_owned(),
                Some(leading) => format!(" leads, commit {}", leading.commit),
                None if replica.recovering => " recovering".to_owned(),
                None => String::new(),
            };
            let _ = write!(text, "  {id}: term {} {:?}{role};", replica.term, replica.wal.log());
        }
        let _ = writeln!(text);
        if let Some(step) = step {
            let _ = writeln!(text, "{step:?}");
        }
    }
    text
}

// ----------------------------------------------------------------------------------------------------------------
// All rules

#[test]
fn crashes_of_a_minority_lose_nothing() {
    holds(CRASHES, &[ACKNOWLEDGED, SOUND_AGAIN]);
}

#[test]
fn a_power_loss_loses_nothing_that_any_voter_still_holds() {
    holds(POWER_LOSS, &[ACKNOWLEDGED, SOUND_AGAIN, UNCLEAN, UNCLEAN_KEEPS]);
}

#[test]
fn processes_may_crash_during_an_unclean_recovery() {
    let faults = Faults { process: 1, machine: 2, ..NO_FAULTS };
    holds(with(&POWER_LOSS, faults), &[SOUND_AGAIN, UNCLEAN, UNCLEAN_KEEPS]);
}

#[test]
fn replacing_a_disk_loses_nothing() {
    holds(REPLACEMENT, &[ACKNOWLEDGED, SOUND_AGAIN, REPLACED]);
}

#[test]
fn what_is_synced_survives_every_power_loss() {
    holds(FSYNC, &[ACKNOWLEDGED]);
}

#[test]
fn old_leaders_change_nothing() {
    let faults = Faults { machine: 1, ..NO_FAULTS };
    holds(Setup { one_leader: false, ..with(&CRASHES, faults) }, &[ACKNOWLEDGED, SOUND_AGAIN]);
}

/// It is the votes of recovering replicas that have to be left out. Their answers are too, since that is simpler to reason about; but as
/// old answers are dropped when they are named a point, and they are sound once they hold it, counting them would lose nothing.
#[test]
fn answers_of_recovering_replicas_would_do_no_harm() {
    holds(Setup { without: Some(Rule::RecoveringAnswersDoNotCount), ..CRASHES }, &[SOUND_AGAIN]);
}

// ----------------------------------------------------------------------------------------------------------------
// All but one

#[test]
fn incarnations_are_needed() {
    is_needed(Rule::Incarnations, &with(&CRASHES, Faults { machine: 1, ..NO_FAULTS }));
}

#[test]
fn an_entry_of_its_own_term_before_naming_is_needed() {
    is_needed(Rule::OwnTermBeforeNaming, &with(&CRASHES, Faults { machine: 1, ..NO_FAULTS }));
}

#[test]
fn a_recovering_mark_that_lasts_is_needed() {
    is_needed(Rule::RecoveringMarkLasts, &CRASHES);
}

#[test]
fn a_new_id_for_a_blank_disk_is_needed() {
    is_needed(Rule::BlankIsNewReplica, &with(&CRASHES, Faults { disk: 1, ..NO_FAULTS }));
}

#[test]
fn leaving_out_the_votes_of_recovering_replicas_is_needed() {
    is_needed(Rule::RecoveringVotesDoNotCount, &with(&CRASHES, Faults { machine: 1, ..NO_FAULTS }));
}

#[test]
fn every_voter_is_needed() {
    is_needed(Rule::EveryVoter, &with(&CRASHES, Faults { machine: 1, ..NO_FAULTS }));
}

#[test]
fn a_winner_that_has_stored_its_log_is_needed() {
    is_needed(Rule::WinnerHasStored, &CRASHES);
}

#[test]
fn syncing_term_and_vote_is_needed() {
    is_needed(Rule::HardStateSynced, &with(&CRASHES, Faults { machine: 2, ..NO_FAULTS }));
}

#[test]
fn writing_before_answering_is_needed() {
    is_needed(Rule::WrittenBeforeAnswered, &with(&CRASHES, Faults { process: 1, ..NO_FAULTS }));
}

#[test]
fn writing_on_append_is_needed() {
    is_needed(Rule::WrittenOnAppend, &with(&CRASHES, Faults { process: 1, ..NO_FAULTS }));
}

#[test]
fn founding_by_all_nodes_is_needed() {
    is_needed(Rule::AllBlankToFound, &with(&CRASHES, Faults { disk: 2, ..NO_FAULTS }));
}

#[test]
fn committing_only_in_the_own_term_is_needed() {
    is_needed(Rule::OwnTermCommits, &Setup { terms: 4, writes: 1, ..with(&CRASHES, NO_FAULTS) });
}

#[test]
fn joint_consensus_is_needed() {
    is_needed(Rule::JointConsensus, &with(&REPLACEMENT, NO_FAULTS));
}

/// The search begins when the newcomer is a learner.
#[test]
fn syncing_configurations_is_needed() {
    const fn send(to: u8, through: u8) -> Step {
        Step::Send { leader: 0, to, through }
    }
    const LEARNER: &[Step] = &[
        send(1, 1),
        Step::Commit { leader: 0, through: 1, holders: Set::of(0).with(1) },
        Step::ChangeMembership { leader: 0 },
        send(1, 2),
        send(2, 2),
        send(3, 2),
        Step::Commit { leader: 0, through: 2, holders: Set::of(0).with(1) },
    ];
    let faults = Faults { machine: 2, ..NO_FAULTS };
    let setup = Setup { prelude: LEARNER, entries: 3, ..with(&REPLACEMENT, faults) };
    is_needed(Rule::ConfigurationsSynced, &setup);
}
