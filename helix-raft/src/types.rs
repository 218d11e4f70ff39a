//! The vocabulary of the crate: ids, positions, entries, membership, durability.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The plain number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

number!(
    /// One consensus group: one replicated log.
    GroupId, "g"
);
number!(
    /// One replica of the cluster, that is one disk: a node that lost its disk gets a new id.
    ReplicaId, "r"
);
number!(
    /// A Raft term.
    Term, "t"
);
number!(
    /// A position in a Raft log. The first entry of a log has index 1.
    Index, "i"
);
number!(
    /// How often the process of a replica has started. 0 stands for "not known yet".
    Incarnation, "n"
);

impl Term {
    /// The term before any election.
    pub const ZERO: Term = Term(0);

    /// The following term.
    pub const fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl Index {
    /// The position before the first entry.
    pub const ZERO: Index = Index(0);

    /// The following position.
    pub const fn next(self) -> Index {
        Index(self.0 + 1)
    }

    /// The preceding position; the one before zero is zero.
    pub const fn prev(self) -> Index {
        Index(self.0.saturating_sub(1))
    }
}

impl Incarnation {
    /// The incarnation of a replica that was never heard of.
    pub const UNKNOWN: Incarnation = Incarnation(0);
}

/// A position together with the term of the entry there: it names one log prefix for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Index of the entry.
    pub index: Index,
    /// Term of the entry.
    pub term: Term,
}

impl Position {
    /// Puts the two together.
    pub const fn new(index: Index, term: Term) -> Position {
        Position { index, term }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.term)
    }
}

/// What an entry carries, as far as Raft is concerned: something that is cheap to clone and has a size.
pub trait Payload: Clone + fmt::Debug + Send + 'static {
    /// Size that counts against windows and budgets.
    fn len_bytes(&self) -> usize;
}

impl Payload for Vec<u8> {
    fn len_bytes(&self) -> usize {
        self.len()
    }
}

impl Payload for String {
    fn len_bytes(&self) -> usize {
        self.len()
    }
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body<P> {
    /// Nothing; the first entry of each leader.
    NoOp,
    /// The user's bytes.
    Data(P),
    /// The configuration of the group from here on, in force as soon as it is appended.
    Membership(Membership),
}

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<P> {
    /// Its position.
    pub index: Index,
    /// Term of the leader that appended it.
    pub term: Term,
    /// Term of the entry before it.
    pub prev_term: Term,
    /// What it says.
    pub body: Body<P>,
}

/// What an entry costs beside its payload, in windows and budgets.
pub const ENTRY_OVERHEAD_BYTES: usize = 64;

impl<P> Entry<P> {
    /// Index and term.
    pub const fn position(&self) -> Position {
        Position { index: self.index, term: self.term }
    }
}

impl<P: Payload> Entry<P> {
    /// Size that counts against windows and budgets.
    pub fn len_bytes(&self) -> usize {
        let payload = match &self.body {
            Body::NoOp => 0,
            Body::Data(payload) => payload.len_bytes(),
            Body::Membership(membership) => 8 * membership.members().len(),
        };
        ENTRY_OVERHEAD_BYTES + payload
    }
}

/// Who belongs to a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Membership {
    /// The voters, the preferred leader first.
    pub voters: Vec<ReplicaId>,
    /// The voters of the configuration being left, while a change is under way; empty otherwise.
    pub outgoing: Vec<ReplicaId>,
    /// Replicas that receive entries and count for nothing.
    pub learners: Vec<ReplicaId>,
}

impl Membership {
    /// A configuration of voters alone.
    pub const fn of_voters(voters: Vec<ReplicaId>) -> Membership {
        Membership { voters, outgoing: Vec::new(), learners: Vec::new() }
    }

    /// Whether `replica` votes in either half.
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) || self.outgoing.contains(&replica)
    }

    /// Whether `replica` belongs to the group in any way.
    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.is_voter(replica) || self.learners.contains(&replica)
    }

    /// Everybody who votes, each once, in order of preference.
    pub fn all_voters(&self) -> Vec<ReplicaId> {
        distinct(self.voters.iter().chain(&self.outgoing))
    }

    /// Everybody, each once: voters in order of preference, then learners.
    pub fn members(&self) -> Vec<ReplicaId> {
        distinct(self.voters.iter().chain(&self.outgoing).chain(&self.learners))
    }

    /// Whether a change of voters is under way: majorities of both halves are needed.
    pub const fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The configuration that follows a joint one.
    #[must_use]
    pub fn left(&self) -> Membership {
        Membership { outgoing: Vec::new(), ..self.clone() }
    }

    /// The configuration with `new` in the place of `old`, in the order of preference too. For a lost disk, `new` being
    /// the replica id of the empty one, and a learner so far.
    #[must_use]
    pub fn replacing(&self, old: ReplicaId, new: ReplicaId) -> Membership {
        let mut target = self.clone();
        target.learners.retain(|learner| *learner != new && *learner != old);
        for voter in target.voters.iter_mut().filter(|voter| **voter == old) {
            *voter = new;
        }
        target
    }

    /// Whether `replica` decides alone.
    pub fn is_sole_voter(&self, replica: ReplicaId) -> bool {
        self.is_voter(replica) && self.all_voters().len() == 1
    }
}

fn distinct<'a>(replicas: impl Iterator<Item = &'a ReplicaId>) -> Vec<ReplicaId> {
    let mut seen = Vec::new();
    for replica in replicas {
        if !seen.contains(replica) {
            seen.push(*replica);
        }
    }
    seen
}

/// How safely an entry has to be stored before it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// In the operating system's page cache: survives the process, not the machine.
    #[default]
    PageCache,
    /// Synced to the disk: survives a loss of power.
    Synced,
}

/// What a replica must remember across restarts beside its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The highest term seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<ReplicaId>,
}

impl HardState {
    /// Whether this state includes what `other` promised. States of one replica only ever move upwards: the term
    /// grows, and within a term the vote is given once.
    pub fn covers(&self, other: &HardState) -> bool {
        (self.term, self.vote.is_some()) >= (other.term, other.vote.is_some())
    }
}

/// What a replica is to its group at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks whether an election would succeed, without disturbing anybody.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Number of buckets that groups are spread over for the heartbeat digests.
pub const BUCKETS: u8 = 64;

/// A share of all groups, small enough to be woken together when digests differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bucket(pub u8);

impl Bucket {
    /// The bucket that a group belongs to.
    pub const fn of(group: GroupId) -> Bucket {
        Bucket((group.0 % BUCKETS as u64) as u8)
    }

    /// All buckets.
    pub fn all() -> impl Iterator<Item = Bucket> {
        (0..BUCKETS).map(Bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(voters: &[u64], learners: &[u64]) -> Membership {
        let replicas = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect();
        Membership { voters: replicas(voters), outgoing: Vec::new(), learners: replicas(learners) }
    }

    #[test]
    fn who_takes_a_place_is_a_learner_no_more_and_who_leaves_is_nothing() {
        let members = of(&[1, 2], &[3, 4, 5]);
        assert_eq!(members.replacing(ReplicaId(2), ReplicaId(4)), of(&[1, 4], &[3, 5]));
        assert_eq!(members.replacing(ReplicaId(5), ReplicaId(4)), of(&[1, 2], &[3]));
    }

    #[test]
    fn an_entry_counts_with_what_it_carries() {
        let entry = |body| Entry { index: Index(1), term: Term(1), prev_term: Term(0), body };
        assert_eq!(entry(Body::<Vec<u8>>::NoOp).len_bytes(), ENTRY_OVERHEAD_BYTES);
        assert_eq!(entry(Body::Data(vec![0; 5])).len_bytes(), ENTRY_OVERHEAD_BYTES + 5);
        assert_eq!("abc".to_owned().len_bytes(), 3);
        let members = entry(Body::<Vec<u8>>::Membership(of(&[1, 2], &[3])));
        assert_eq!(members.len_bytes(), ENTRY_OVERHEAD_BYTES + 24);
    }
}
