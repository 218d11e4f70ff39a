//! Sums over the groups led and followed, by which two nodes notice that they disagree about who leads.

use std::collections::BTreeMap;

use crate::rng::mix;
use crate::types::{Bucket, GroupId, ReplicaId, Term};

/// What one led group adds to the digest of its bucket.
pub fn group_digest(group: GroupId, term: Term) -> u64 {
    mix(mix(group.get()) ^ term.get())
}

/// What a group contributes at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contribution {
    pub(crate) term: Term,
    /// The replicas towards which this one leads the group.
    pub(crate) led_to: Vec<ReplicaId>,
    /// The replica that leads the group as far as this one knows.
    pub(crate) followed: Option<ReplicaId>,
}

/// The sums, kept up to date group by group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digests {
    led: BTreeMap<(ReplicaId, Bucket), u64>,
    followed: BTreeMap<(ReplicaId, Bucket), u64>,
}

impl Digests {
    pub(crate) fn led(&self, to: ReplicaId, bucket: Bucket) -> u64 {
        self.led.get(&(to, bucket)).copied().unwrap_or(0)
    }

    pub(crate) fn followed(&self, leader: ReplicaId, bucket: Bucket) -> u64 {
        self.followed.get(&(leader, bucket)).copied().unwrap_or(0)
    }

    pub(crate) fn replace(&mut self, group: GroupId, old: &Contribution, new: &Contribution) {
        self.apply(group, old, u64::wrapping_sub);
        self.apply(group, new, u64::wrapping_add);
    }

    fn apply(&mut self, group: GroupId, contribution: &Contribution, combine: fn(u64, u64) -> u64) {
        let bucket = Bucket::of(group);
        let digest = group_digest(group, contribution.term);
        for to in &contribution.led_to {
            let sum = self.led.entry((*to, bucket)).or_default();
            *sum = combine(*sum, digest);
        }
        if let Some(leader) = contribution.followed {
            let sum = self.followed.entry((leader, bucket)).or_default();
            *sum = combine(*sum, digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BUCKETS;

    const ONE: GroupId = GroupId(1);
    const TWO: GroupId = GroupId(1 + BUCKETS as u64);
    const LEADER: ReplicaId = ReplicaId(1);
    const OTHER: ReplicaId = ReplicaId(2);

    fn leads(term: u64, to: &[ReplicaId]) -> Contribution {
        Contribution { term: Term(term), led_to: to.to_vec(), followed: None }
    }

    fn follows(term: u64, leader: ReplicaId) -> Contribution {
        Contribution { term: Term(term), led_to: Vec::new(), followed: Some(leader) }
    }

    /// Nodes of different versions compare these.
    #[test]
    fn digests_are_part_of_the_protocol() {
        assert_eq!(group_digest(GroupId(1), Term(1)), 0xe9fd_6049_d65a_f21e);
        assert_eq!(group_digest(GroupId(7), Term(3)), 0x6baa_7868_1a99_f995);
    }

    #[test]
    fn sums_of_leader_and_follower_agree_while_they_agree_who_leads() {
        let bucket = Bucket::of(ONE);
        assert_eq!(Bucket::of(TWO), bucket, "the test is about sums");
        let (mut leader, mut follower) = (Digests::default(), Digests::default());
        let nothing = Contribution::default();
        assert_eq!((leader.led(OTHER, bucket), follower.followed(LEADER, bucket)), (0, 0));

        for group in [ONE, TWO] {
            leader.replace(group, &nothing, &leads(2, &[OTHER]));
            follower.replace(group, &nothing, &follows(2, LEADER));
        }
        let both = leader.led(OTHER, bucket);
        assert_eq!(both, group_digest(ONE, Term(2)).wrapping_add(group_digest(TWO, Term(2))));
        assert_eq!(follower.followed(LEADER, bucket), both);
        assert_eq!((leader.followed(OTHER, bucket), follower.led(LEADER, bucket)), (0, 0));

        follower.replace(TWO, &follows(2, LEADER), &follows(3, OTHER));
        assert_eq!(follower.followed(LEADER, bucket), group_digest(ONE, Term(2)));
        assert_eq!(follower.followed(OTHER, bucket), group_digest(TWO, Term(3)));
        leader.replace(TWO, &leads(2, &[OTHER]), &nothing);
        assert_eq!(leader.led(OTHER, bucket), follower.followed(LEADER, bucket));
    }
}
