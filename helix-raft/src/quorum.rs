//! Majorities, of one configuration or of both halves of a joint one.

use crate::types::{Index, Membership, ReplicaId};

/// Outcome of an election so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// A majority said yes.
    Won,
    /// A majority can no longer say yes.
    Lost,
    /// Open.
    Pending,
}

/// How many of `count` voters are a majority.
pub const fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// The highest index that a majority in both halves of `membership` has reached, given how far each voter is.
pub fn majority_index(membership: &Membership, position: impl Fn(ReplicaId) -> Index) -> Index {
    let voters = half_index(&membership.voters, &position);
    let outgoing = half_index(&membership.outgoing, &position);
    match (voters, outgoing) {
        (Some(voters), Some(outgoing)) => voters.min(outgoing),
        (Some(index), None) | (None, Some(index)) => index,
        (None, None) => Index::ZERO,
    }
}

/// Whether a majority in both halves of `membership` satisfies `agrees`.
pub fn has_majority(membership: &Membership, agrees: impl Fn(ReplicaId) -> bool) -> bool {
    vote_result(membership, |voter| Some(agrees(voter))) == VoteResult::Won
}

/// The outcome of an election in which `vote` tells what each voter said so far.
pub fn vote_result(membership: &Membership, vote: impl Fn(ReplicaId) -> Option<bool>) -> VoteResult {
    let voters = half_result(&membership.voters, &vote);
    let outgoing = half_result(&membership.outgoing, &vote);
    match (voters, outgoing) {
        (None, None) => VoteResult::Pending,
        (Some(result), None) | (None, Some(result)) => result,
        (Some(VoteResult::Lost), _) | (_, Some(VoteResult::Lost)) => VoteResult::Lost,
        (Some(VoteResult::Won), Some(VoteResult::Won)) => VoteResult::Won,
        _ => VoteResult::Pending,
    }
}

fn half_index(voters: &[ReplicaId], position: impl Fn(ReplicaId) -> Index) -> Option<Index> {
    let mut positions: Vec<Index> = voters.iter().map(|voter| position(*voter)).collect();
    positions.sort_unstable_by(|a, b| b.cmp(a));
    positions.get(voters.len() / 2).copied()
}

fn half_result(voters: &[ReplicaId], vote: impl Fn(ReplicaId) -> Option<bool>) -> Option<VoteResult> {
    if voters.is_empty() {
        return None;
    }
    let yes = voters.iter().filter(|voter| vote(**voter) == Some(true)).count();
    let no = voters.iter().filter(|voter| vote(**voter) == Some(false)).count();
    let needed = majority(voters.len());
    Some(if yes >= needed {
        VoteResult::Won
    } else if voters.len() - no < needed {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn memberships() -> impl Strategy<Value = Membership> {
        let half = |least| prop::collection::btree_set(1u64..8, least..6);
        (half(1), half(0)).prop_map(|(voters, outgoing)| Membership {
            voters: voters.into_iter().map(ReplicaId).collect(),
            outgoing: outgoing.into_iter().map(ReplicaId).collect(),
            learners: vec![ReplicaId(9)],
        })
    }

    /// Counts heads in each half, the long way.
    fn brute_force(membership: &Membership, agrees: impl Fn(ReplicaId) -> bool) -> bool {
        [&membership.voters, &membership.outgoing].into_iter().filter(|half| !half.is_empty()).all(|half| {
            let yes = half.iter().filter(|voter| agrees(**voter)).count();
            2 * yes > half.len()
        })
    }

    proptest! {
        #[test]
        fn the_index_is_the_highest_that_a_majority_has_reached(
            membership in memberships(),
            positions in prop::collection::vec(0u64..12, 10),
        ) {
            let at = |voter: ReplicaId| Index(positions[voter.get() as usize]);
            let expected = (0..12)
                .map(Index)
                .filter(|index| brute_force(&membership, |voter| at(voter) >= *index))
                .max();
            prop_assert_eq!(Some(majority_index(&membership, at)), expected);
        }

        #[test]
        fn an_election_is_decided_when_the_open_votes_no_longer_matter(
            membership in memberships(),
            votes in prop::collection::vec(prop::option::of(any::<bool>()), 10),
        ) {
            let vote = |voter: ReplicaId| votes[voter.get() as usize];
            let expected = if brute_force(&membership, |voter| vote(voter) == Some(true)) {
                VoteResult::Won
            } else if brute_force(&membership, |voter| vote(voter) != Some(false)) {
                VoteResult::Pending
            } else {
                VoteResult::Lost
            };
            prop_assert_eq!(vote_result(&membership, vote), expected);
        }
    }

    #[test]
    fn nobody_decides_for_an_empty_configuration() {
        let nobody = Membership::default();
        assert_eq!(vote_result(&nobody, |_| Some(true)), VoteResult::Pending);
        assert_eq!(majority_index(&nobody, |_| Index(7)), Index::ZERO);
    }
}
