//! Elections among replicas of which some are recovering: their logs may lack what they acknowledged.
//!
//! A majority of sound voters elects as in any Raft. Where there is no such majority, every entry that was acknowledged and is
//! left at all is left with *some* voter: only all of them together can tell which log holds the most.

use thiserror::Error;

use crate::quorum::{self, VoteResult};
use crate::types::{GroupId, Membership, ReplicaId};

/// Election timeouts that a recovering replica waits before it campaigns: sound ones go first.
pub(crate) const RECOVERING_PATIENCE: u32 = 3;

/// Whose votes an election takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Election {
    /// Those of a majority, all of them sound.
    Sound,
    /// Those of every voter of both configurations, recovering or not.
    EveryVoter,
    /// Those of a majority, recovering or not: the operator takes the risk.
    Forced,
}

impl Election {
    /// Whether recovering replicas are asked for their votes too.
    pub(crate) const fn is_unclean(self) -> bool {
        !matches!(self, Election::Sound)
    }
}

/// What one voter answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ballot {
    pub(crate) granted: bool,
    pub(crate) recovering: bool,
}

impl Ballot {
    /// A recovering replica that refuses an election in which it may vote has refused an earlier request, or campaigns
    /// itself: that decides nothing.
    pub(crate) const fn counts_in(self, election: Election) -> bool {
        self.granted || !self.recovering || !election.is_unclean()
    }
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is won; `clean` by a majority of sound voters.
    Won { clean: bool },
    /// It cannot be won any more.
    Lost,
    /// It cannot be won any more since too few voters are sound: every voter has to be asked.
    TooFewSound,
    /// It is open.
    Pending,
}

/// Counts the ballots of an election, that of the candidate `me` included.
pub(crate) fn outcome(
    election: Election,
    membership: &Membership,
    me: ReplicaId,
    ballot: impl Fn(ReplicaId) -> Option<Ballot>,
) -> Outcome {
    let sound = quorum::vote_result(membership, |voter| {
        ballot(voter).map(|ballot| ballot.granted && !ballot.recovering)
    });
    let clean = sound == VoteResult::Won;
    match election {
        Election::Sound => match sound {
            VoteResult::Won => Outcome::Won { clean },
            VoteResult::Pending => Outcome::Pending,
            VoteResult::Lost if may_be_sound(membership, ballot) => Outcome::Lost,
            VoteResult::Lost => Outcome::TooFewSound,
        },
        Election::EveryVoter => {
            let voters = membership.all_voters();
            let sound_candidate = ballot(me).is_some_and(|ballot| !ballot.recovering);
            let granted = |voter: &ReplicaId| ballot(*voter).is_some_and(|ballot| ballot.granted);
            if (clean && sound_candidate) || voters.iter().all(granted) {
                Outcome::Won { clean }
            } else if voters.iter().any(|voter| ballot(*voter).is_some_and(|ballot| !ballot.granted)) {
                Outcome::Lost
            } else {
                Outcome::Pending
            }
        }
        Election::Forced => {
            match quorum::vote_result(membership, |voter| ballot(voter).map(|ballot| ballot.granted)) {
                VoteResult::Won => Outcome::Won { clean },
                VoteResult::Lost => Outcome::Lost,
                VoteResult::Pending => Outcome::Pending,
            }
        }
    }
}

/// Whether enough voters may be sound for a majority, as far as they have answered.
fn may_be_sound(membership: &Membership, ballot: impl Fn(ReplicaId) -> Option<Ballot>) -> bool {
    quorum::has_majority(membership, |voter| ballot(voter).is_none_or(|ballot| !ballot.recovering))
}

/// Why an election is not forced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ForceRecoverError {
    /// There is no such group on this replica.
    #[error("group {0} is not on this replica; force the recovery on one of its replicas")]
    UnknownGroup(GroupId),
    /// Only a voter can lead.
    #[error("{0} is no voter of the group; force the recovery on one that is")]
    NotAVoter(ReplicaId),
    /// There is nothing to recover from, unless that leader waits for a majority of sound voters.
    #[error("the group is led by {leader}; if it does not become ready, force the recovery there")]
    HasLeader {
        /// Who leads.
        leader: ReplicaId,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ME: ReplicaId = ReplicaId(1);
    const YES: Option<Ballot> = Some(Ballot { granted: true, recovering: false });
    const NO: Option<Ballot> = Some(Ballot { granted: false, recovering: false });
    const SUSPECT_YES: Option<Ballot> = Some(Ballot { granted: true, recovering: true });
    const SUSPECT_NO: Option<Ballot> = Some(Ballot { granted: false, recovering: true });

    fn count(election: Election, ballots: &[Option<Ballot>]) -> Outcome {
        let voters = (1..=ballots.len() as u64).map(ReplicaId).collect();
        let ballot = |voter: ReplicaId| ballots[voter.get() as usize - 1];
        outcome(election, &Membership::of_voters(voters), ME, ballot)
    }

    #[test]
    fn a_majority_of_sound_voters_elects() {
        let count = |ballots: &[Option<Ballot>]| count(Election::Sound, ballots);
        assert_eq!(count(&[YES, YES, None]), Outcome::Won { clean: true });
        assert_eq!(count(&[YES, SUSPECT_NO, None]), Outcome::Pending);
        assert_eq!(count(&[YES, SUSPECT_NO, SUSPECT_NO]), Outcome::TooFewSound);
        assert_eq!(count(&[YES, SUSPECT_NO, NO]), Outcome::Lost);
        assert_eq!(count(&[YES, NO, NO]), Outcome::Lost);
    }

    #[test]
    fn where_there_is_none_it_takes_every_voter() {
        let every = |ballots: &[Option<Ballot>]| count(Election::EveryVoter, ballots);
        assert_eq!(every(&[YES, SUSPECT_YES, None]), Outcome::Pending);
        assert_eq!(every(&[YES, SUSPECT_YES, SUSPECT_YES]), Outcome::Won { clean: false });
        assert_eq!(every(&[SUSPECT_YES, SUSPECT_YES, SUSPECT_YES]), Outcome::Won { clean: false });
        assert_eq!(every(&[SUSPECT_YES, YES, NO]), Outcome::Lost);
        assert_eq!(every(&[YES, YES, None]), Outcome::Won { clean: true }, "a majority was sound after all");
        assert_eq!(every(&[SUSPECT_YES, YES, YES]), Outcome::Won { clean: true });
        assert_eq!(every(&[SUSPECT_YES, YES, YES, YES, None]), Outcome::Pending, "its own log is suspect");
    }

    #[test]
    fn the_operator_can_do_with_a_majority() {
        let forced = |ballots: &[Option<Ballot>]| count(Election::Forced, ballots);
        assert_eq!(forced(&[SUSPECT_YES, None, None]), Outcome::Pending);
        assert_eq!(forced(&[SUSPECT_YES, SUSPECT_YES, None]), Outcome::Won { clean: false });
        assert_eq!(forced(&[SUSPECT_YES, NO, NO]), Outcome::Lost);
    }

    fn ballots() -> impl Strategy<Value = Vec<Option<Ballot>>> {
        let ballot =
            (any::<bool>(), any::<bool>()).prop_map(|(granted, recovering)| Ballot { granted, recovering });
        prop::collection::vec(prop::option::of(ballot), 6)
    }

    proptest! {
        /// Whatever else is counted: two elections won without force have a sound voter in common in each half, or one
        /// of them has the votes of all.
        #[test]
        fn every_unforced_victory_rests_on_a_sound_majority_or_on_all(
            ballots in ballots(),
            unclean in any::<bool>(),
            split in 1usize..6,
        ) {
            let all: Vec<ReplicaId> = (0..6).map(ReplicaId).collect();
            let membership = Membership {
                voters: all[..split].to_vec(),
                outgoing: all[split.min(3)..].to_vec(),
                learners: Vec::new(),
            };
            let election = if unclean { Election::EveryVoter } else { Election::Sound };
            let ballot = |voter: ReplicaId| ballots[voter.get() as usize];
            if let Outcome::Won { clean } = outcome(election, &membership, ME, ballot) {
                let sound = |voter: &&ReplicaId| ballot(**voter) == YES;
                let majority = [&membership.voters, &membership.outgoing]
                    .into_iter()
                    .all(|half| 2 * half.iter().filter(sound).count() > half.len());
                let granted = |voter: &ReplicaId| matches!(ballot(*voter), YES | SUSPECT_YES);
                prop_assert_eq!(clean, majority);
                prop_assert!(majority || all.iter().all(granted));
            }
        }
    }
}
