//! What this replica knows of the others as nodes, over all groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::MultiRaftConfig;
use crate::types::{Incarnation, Membership, ReplicaId};

/// Whether a replica's node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// It reaches us: something of it arrived within the election timeout.
    pub heard: bool,
    /// We reach it, too: it answered something we sent within the election timeout.
    pub round_trip: bool,
}

/// Nothing is known at the start, and a replica of which nothing is known counts as live: who is dead is reported.
const ASSUMED: Liveness = Liveness { heard: true, round_trip: true };

#[derive(Clone, Debug)]
struct Peer {
    incarnation: Incarnation,
    liveness: Liveness,
}

/// What happened to the incarnation of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Same,
    First,
    Restarted,
    Old,
}

/// Settings and the state of the other nodes: what every group may look at and none may change.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) config: MultiRaftConfig,
    peers: BTreeMap<ReplicaId, Peer>,
}

impl Context {
    pub(crate) const fn new(config: MultiRaftConfig) -> Context {
        Context { config, peers: BTreeMap::new() }
    }

    pub(crate) const fn me(&self) -> ReplicaId {
        self.config.me
    }

    fn peer_mut(&mut self, replica: ReplicaId) -> &mut Peer {
        self.peers.entry(replica).or_insert(Peer { incarnation: Incarnation::UNKNOWN, liveness: ASSUMED })
    }

    pub(crate) fn incarnation_of(&self, replica: ReplicaId) -> Incarnation {
        self.peers.get(&replica).map_or(Incarnation::UNKNOWN, |peer| peer.incarnation)
    }

    pub(crate) fn liveness_of(&self, replica: ReplicaId) -> Liveness {
        if replica == self.config.me {
            return Liveness { heard: true, round_trip: true };
        }
        self.peers.get(&replica).map_or(ASSUMED, |peer| peer.liveness)
    }

    pub(crate) fn hears(&self, replica: ReplicaId) -> bool {
        self.liveness_of(replica).heard
    }

    pub(crate) fn reaches(&self, replica: ReplicaId) -> bool {
        self.liveness_of(replica).round_trip
    }

    /// Notes an incarnation of `replica` that was seen.
    pub(crate) fn see_incarnation(&mut self, replica: ReplicaId, incarnation: Incarnation) -> Seen {
        let known = self.peer_mut(replica).incarnation;
        if incarnation < known {
            return Seen::Old;
        }
        if incarnation == known {
            return Seen::Same;
        }
        self.peer_mut(replica).incarnation = incarnation;
        if known == Incarnation::UNKNOWN { Seen::First } else { Seen::Restarted }
    }

    /// Sets the liveness of `replica` and returns what it was before.
    pub(crate) fn set_liveness(&mut self, replica: ReplicaId, liveness: Liveness) -> Liveness {
        std::mem::replace(&mut self.peer_mut(replica).liveness, liveness)
    }

    /// Whether this replica is the one that should campaign first: no voter before it is there.
    pub(crate) fn is_first_live_voter(&self, membership: &Membership) -> bool {
        membership.all_voters().into_iter().find(|voter| self.hears(*voter)) == Some(self.me())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_is_seen_first_again_or_anew() {
        let mut cx = Context::new(MultiRaftConfig::new(ReplicaId(1), Incarnation(1), 1));
        let mut see = |incarnation| cx.see_incarnation(ReplicaId(2), Incarnation(incarnation));
        assert_eq!([see(0), see(3), see(3), see(2)], [Seen::Same, Seen::First, Seen::Same, Seen::Old]);
        assert_eq!((see(4), see(3)), (Seen::Restarted, Seen::Old));
        assert_eq!(cx.incarnation_of(ReplicaId(2)), Incarnation(4));
    }
}
