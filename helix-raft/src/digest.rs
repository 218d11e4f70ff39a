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
