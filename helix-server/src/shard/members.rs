//! Makes the members of groups follow the metadata: group 0 says who is to hold replicas, each group's configuration says who does, and
//! its leader goes from the one to the other, a step at a time (learner first, then voter in the place of who is gone).
//!
//! Nothing is remembered about a change under way: every step is found from the configuration in force, by whoever leads.

use helix_raft::{ChangeError, GroupId, Membership, ReplicaId, Status};
use helix_wal::SpaceClass;
use tracing::{debug, info, warn};

use super::owner::Owner;

/// Ticks between two looks at groups whose members are to change.
pub(super) const RECONCILE_TICKS: u64 = 4;
/// Groups of a shard that are streamed to new members at one time, so that clients still get something of disk and network.
const MAX_FILLING: usize = 8;
/// Bytes of an entry that changes members: far more than it takes.
const ENTRY_BYTES: u64 = 4096;

/// What brings a configuration nearer to the desired one.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is the desired one.
    Settled,
    /// The last change is not through.
    UnderWay,
    /// New members begin to be filled; needs no majority of its own.
    Learn(Membership),
    /// Voters change. The first of these that is possible; each changes one of them.
    Vote(Vec<Membership>),
}

fn next_step(current: &Membership, desired: &[ReplicaId]) -> Step {
    if current.is_joint() {
        return Step::UnderWay;
    }
    if current.learners.is_empty() && current.voters == desired {
        return Step::Settled;
    }
    let missing: Vec<ReplicaId> = desired.iter().copied().filter(|r| !current.voters.contains(r)).collect();
    let mut filled = current.clone();
    filled.learners.retain(|learner| desired.contains(learner));
    let unknown = missing.iter().filter(|replica| !current.learners.contains(replica));
    filled.learners.extend(unknown);
    if filled != *current {
        return Step::Learn(filled);
    }
    let surplus: Vec<ReplicaId> =
        current.voters.iter().copied().filter(|voter| !desired.contains(voter)).collect();
    if missing.is_empty() {
        return Step::Vote(vec![Membership::of_voters(desired.to_vec())]);
    }
    // A group keeps its size while a disk is replaced: whoever comes takes the place of somebody who goes.
    let change = |(place, &new): (usize, &ReplicaId)| match surplus.get(place) {
        Some(&old) => current.replacing(old, new),
        None => {
            let mut grown = current.clone();
            grown.learners.retain(|learner| *learner != new);
            grown.voters.push(new);
            grown
        }
    };
    Step::Vote(missing.iter().enumerate().map(change).collect())
}

impl Owner {
    /// The metadata says who is to hold replicas of a group.
    pub(super) fn on_desired(&mut self, group: GroupId, replicas: Vec<ReplicaId>) {
        if let Some(anew) = self.anew.get_mut(&group) {
            anew.desired = replicas;
        } else if let Some(unopened) = self.unopened.get_mut(&group) {
            unopened.opening.desire(replicas);
        } else if let Some(suspected) = self.suspected.get_mut(&group) {
            suspected.desired = replicas;
        } else if let Some(replica) = self.replicas.get_mut(&group) {
            replica.desired = replicas;
            self.unsettled.insert(group);
        }
    }

    /// Takes the next step in every group that is led here and has not the members that it should have.
    pub(super) fn reconcile_members(&mut self) {
        let mut filling = 0;
        for group in self.unsettled.clone() {
            self.guarded(group, |owner| {
                if !owner.reconcile_group(group, &mut filling) {
                    owner.unsettled.remove(&group);
                }
            });
        }
        self.context.metrics.groups_changing(self.changing, self.unsettled.len());
        self.changing = self.unsettled.len();
    }

    /// Returns whether the group is to be looked at again.
    fn reconcile_group(&mut self, group: GroupId, filling: &mut usize) -> bool {
        let Some(replica) = self.replicas.get(&group).filter(|replica| replica.announced.is_some()) else {
            // Whoever leads next looks for itself.
            return false;
        };
        let Some(status) = self.raft.status(group) else { return false };
        match next_step(&status.membership, &replica.desired) {
            Step::Settled => return false,
            Step::UnderWay => {}
            Step::Learn(target) => {
                if *filling < MAX_FILLING {
                    *filling += 1;
                    self.change_members(group, &target);
                }
            }
            Step::Vote(targets) => {
                *filling += usize::from(fills(&status));
                for target in targets {
                    if self.change_members(group, &target) {
                        break;
                    }
                }
            }
        }
        true
    }

    fn change_members(&mut self, group: GroupId, target: &Membership) -> bool {
        if self.context.wal.check_space(ENTRY_BYTES, SpaceClass::Critical).is_err() {
            return false;
        }
        match self.raft.change_membership(group, target) {
            Ok(index) => {
                let (voters, learners) = (&target.voters, &target.learners);
                info!(%group, %index, ?voters, ?learners, "the members of a group change");
                true
            }
            Err(refused @ ChangeError::Invalid(_)) => {
                warn!(%group, %refused, ?target, "the metadata asks for members that a group can't have");
                false
            }
            Err(refused) => {
                debug!(%group, %refused, "the members of a group can't change now");
                false
            }
        }
    }
}

/// Whether somebody who can be reached is being sent the log.
fn fills(status: &Status) -> bool {
    let learners = &status.membership.learners;
    status.progress.iter().any(|progress| progress.heard && learners.contains(&progress.replica))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<ReplicaId> {
        numbers.iter().copied().map(ReplicaId).collect()
    }

    fn membership(voters: &[u64], learners: &[u64]) -> Membership {
        Membership { learners: ids(learners), ..Membership::of_voters(ids(voters)) }
    }

    /// The configurations on the way, each change taken as soon as it is asked for, the last possible one first.
    fn way(mut current: Membership, desired: &[u64]) -> Vec<Membership> {
        let mut seen = Vec::new();
        loop {
            assert!(seen.len() < 20, "it never ends: {seen:?}");
            match next_step(&current, &ids(desired)) {
                Step::Settled => return seen,
                Step::UnderWay => current = current.left(),
                Step::Learn(target) => current = target,
                Step::Vote(mut targets) => {
                    let target = targets.pop().expect("there is always one");
                    current = Membership { outgoing: current.voters.clone(), ..target };
                }
            }
            seen.push(current.clone());
        }
    }

    #[test]
    fn a_lost_disk_is_replaced_in_its_place() {
        let seen = way(membership(&[1, 2, 3], &[]), &[1, 4, 3]);
        let joint = Membership { outgoing: ids(&[1, 2, 3]), ..membership(&[1, 4, 3], &[]) };
        assert_eq!(seen, [membership(&[1, 2, 3], &[4]), joint, membership(&[1, 4, 3], &[])]);
    }

    #[test]
    fn two_lost_disks_are_replaced_one_after_the_other() {
        let seen = way(membership(&[1, 2, 3], &[]), &[1, 4, 5]);
        assert_eq!(seen.first(), Some(&membership(&[1, 2, 3], &[4, 5])));
        assert_eq!(seen.last(), Some(&membership(&[1, 4, 5], &[])));
        for joint in seen.iter().filter(|seen| seen.is_joint()) {
            let gone = joint.outgoing.iter().filter(|voter| !joint.voters.contains(voter));
            assert_eq!(gone.count(), 1, "{joint:?}");
        }
    }

    #[test]
    fn a_disk_that_was_replaced_while_it_was_filled_is_forgotten() {
        let seen = way(membership(&[1, 2, 3], &[4]), &[1, 2, 5]);
        assert_eq!(seen.first(), Some(&membership(&[1, 2, 3], &[5])));
        assert_eq!(seen.last(), Some(&membership(&[1, 2, 5], &[])));
    }

    #[test]
    fn groups_grow_shrink_and_change_their_order_of_preference() {
        assert_eq!(way(membership(&[1], &[]), &[1, 2, 3]).last(), Some(&membership(&[1, 2, 3], &[])));
        assert_eq!(way(membership(&[1, 2, 3], &[]), &[2]).last(), Some(&membership(&[2], &[])));
        assert_eq!(way(membership(&[1, 2, 3], &[]), &[2, 1, 3]).last(), Some(&membership(&[2, 1, 3], &[])));
        assert_eq!(way(membership(&[1, 2, 3], &[]), &[1, 2, 3]), []);
    }
}
