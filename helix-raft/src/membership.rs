//! Changing who belongs to a group: what entry a wish leads to, and why it may be refused (Raft thesis, chapter 4).
//!
//! ```text
//!  old  --->  voters=new outgoing=old  --->  new
//!       change_membership            by the leader itself, once the former is committed
//! ```

use thiserror::Error;

use crate::types::{GroupId, Index, Membership, ReplicaId};

/// How many entries a learner may lack when it becomes a voter: as many as a few rounds on the way to it carry.
pub(crate) const MAX_PROMOTION_LAG: u64 = 100;

/// Why the members of a group are not changed; nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// There is no such group on this replica.
    #[error("group {0} is not on this replica; look up its replicas again")]
    UnknownGroup(GroupId),
    /// Somebody else leads.
    #[error("this replica does not lead the group; ask the leader ({leader:?})")]
    NotLeader {
        /// Who leads, as far as is known.
        leader: Option<ReplicaId>,
    },
    /// The leader has not committed an entry of its own term yet, so it cannot know the last configuration for certain.
    #[error("the leader has not committed an entry of its term yet; try again when it is ready")]
    NotReady,
    /// Leadership is being handed over.
    #[error("leadership is being handed to {to}; ask the new leader")]
    Transferring {
        /// Who gets it.
        to: ReplicaId,
    },
    /// The last change is not through: its configuration is not committed, or still has to be left.
    #[error("the change that was appended at {index} is not through yet; try again when it is")]
    UnderWay {
        /// Where the configuration in force was appended.
        index: Index,
    },
    /// The group has these members already.
    #[error("the group has these members already")]
    Unchanged,
    /// Nobody can be led like that.
    #[error("the members asked for make no configuration: {0}")]
    Invalid(&'static str),
    /// Who is to vote must have been a learner before, so that the group need not wait for it.
    #[error("{0} is no learner of the group yet; add it as one first")]
    NotALearner(ReplicaId),
    /// A learner that is to vote lacks too much of the log, or its node is not heard of.
    #[error("{replica} is not caught up ({behind} entries behind); try again when it is")]
    NotCaughtUp {
        /// The learner.
        replica: ReplicaId,
        /// How many entries it lacks.
        behind: u64,
    },
    /// The log of a learner that is to vote is suspect.
    #[error("{0} is recovering and could not vote; try again when it is sound")]
    Recovering(ReplicaId),
}

/// Whether a learner can become a voter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    Fit,
    Behind(u64),
    Recovering,
}

/// The configuration to append in order to get from `current` to `target`: a joint one if voters change.
pub(crate) fn plan(
    current: &Membership,
    target: &Membership,
    fitness: impl Fn(ReplicaId) -> Fitness,
) -> Result<Membership, ChangeError> {
    check_form(target)?;
    if current == target {
        return Err(ChangeError::Unchanged);
    }
    for voter in target.voters.iter().filter(|voter| !current.voters.contains(voter)) {
        if !current.learners.contains(voter) {
            return Err(ChangeError::NotALearner(*voter));
        }
        match fitness(*voter) {
            Fitness::Fit => {}
            Fitness::Behind(behind) => return Err(ChangeError::NotCaughtUp { replica: *voter, behind }),
            Fitness::Recovering => return Err(ChangeError::Recovering(*voter)),
        }
    }
    let same_voters = current.voters.len() == target.voters.len()
        && current.voters.iter().all(|voter| target.voters.contains(voter));
    let outgoing = if same_voters { Vec::new() } else { current.voters.clone() };
    Ok(Membership { outgoing, ..target.clone() })
}

fn check_form(target: &Membership) -> Result<(), ChangeError> {
    if target.voters.is_empty() {
        return Err(ChangeError::Invalid("there is no voter"));
    }
    if target.is_joint() {
        return Err(ChangeError::Invalid("joint configurations are made by the leader alone"));
    }
    if target.members().len() != target.voters.len() + target.learners.len() {
        return Err(ChangeError::Invalid("a replica is named twice"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(ids: &[u64]) -> Vec<ReplicaId> {
        ids.iter().copied().map(ReplicaId).collect()
    }

    fn members(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Membership {
        Membership { voters: replicas(voters), outgoing: replicas(outgoing), learners: replicas(learners) }
    }

    #[test]
    fn voters_change_through_a_joint_configuration_and_learners_do_not() {
        let current = members(&[1, 2, 3], &[], &[4]);
        let fit = |_| Fitness::Fit;
        let replaced = current.replacing(ReplicaId(2), ReplicaId(4));
        assert_eq!(replaced, members(&[1, 4, 3], &[], &[]), "the new one takes the old one's place");
        assert_eq!(plan(&current, &replaced, fit), Ok(members(&[1, 4, 3], &[1, 2, 3], &[])));
        let removed = members(&[1, 3], &[], &[4]);
        assert_eq!(plan(&current, &removed, fit), Ok(members(&[1, 3], &[1, 2, 3], &[4])));
        let demoted = members(&[1, 2], &[], &[3, 4]);
        assert_eq!(plan(&current, &demoted, fit), Ok(members(&[1, 2], &[1, 2, 3], &[3, 4])));
        let learner = members(&[1, 2, 3], &[], &[4, 5]);
        assert_eq!(plan(&current, &learner, fit), Ok(learner.clone()));
        let reordered = members(&[3, 2, 1], &[], &[4]);
        assert_eq!(plan(&current, &reordered, fit), Ok(reordered.clone()));
    }

    #[test]
    fn only_a_fit_learner_becomes_a_voter() {
        let current = members(&[1, 2, 3], &[], &[4]);
        let with = |id| members(&[1, 2, 3, id], &[], &[]);
        let four = ReplicaId(4);
        assert_eq!(plan(&current, &with(5), |_| Fitness::Fit), Err(ChangeError::NotALearner(ReplicaId(5))));
        assert_eq!(
            plan(&current, &with(4), |_| Fitness::Behind(7)),
            Err(ChangeError::NotCaughtUp { replica: four, behind: 7 })
        );
        assert_eq!(plan(&current, &with(4), |_| Fitness::Recovering), Err(ChangeError::Recovering(four)));
    }

    #[test]
    fn what_makes_no_configuration_is_refused() {
        let current = members(&[1, 2], &[], &[3]);
        let refused = |target: Membership| plan(&current, &target, |_| Fitness::Fit).unwrap_err();
        assert!(matches!(refused(members(&[], &[], &[1, 2])), ChangeError::Invalid(_)));
        assert!(matches!(refused(members(&[1, 2], &[1], &[])), ChangeError::Invalid(_)));
        assert!(matches!(refused(members(&[1, 2, 2], &[], &[])), ChangeError::Invalid(_)));
        assert!(matches!(refused(members(&[1, 2], &[], &[2])), ChangeError::Invalid(_)));
        assert_eq!(refused(current.clone()), ChangeError::Unchanged);
    }
}
