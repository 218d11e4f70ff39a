//! What there is: replicas, what they know of each other, and what was acknowledged.

use crate::rules::Faults;
use crate::wal::{Body, Entry, Wal};

/// The fourth replica, where one is to be replaced.
pub(crate) const NEWCOMER: u8 = 3;

/// A set of replicas.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Set(u8);

impl Set {
    pub(crate) const NONE: Set = Set(0);
    pub(crate) const FOUNDERS: Set = Set(0b111);

    pub(crate) const fn of(replica: u8) -> Set {
        Set(1 << replica)
    }

    pub(crate) const fn with(self, replica: u8) -> Set {
        Set(self.0 | 1 << replica)
    }

    pub(crate) const fn without(self, replica: u8) -> Set {
        Set(self.0 & !(1 << replica))
    }

    pub(crate) const fn union(self, other: Set) -> Set {
        Set(self.0 | other.0)
    }

    pub(crate) const fn contains(self, replica: u8) -> bool {
        self.0 & 1 << replica != 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        (0..=NEWCOMER).filter(move |replica| self.contains(*replica))
    }

    pub(crate) fn subsets(self) -> impl Iterator<Item = Set> {
        (0..=self.0).filter(move |set| set & !self.0 == 0).map(Set)
    }

    const fn is_majority_of(self, voters: Set) -> bool {
        2 * (self.0 & voters.0).count_ones() > voters.0.count_ones()
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Who votes: twice the same, or the two halves of a joint configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) halves: [Set; 2],
}

impl Configuration {
    pub(crate) fn all(self) -> Set {
        self.halves[0].union(self.halves[1])
    }

    pub(crate) fn is_majority(self, set: Set) -> bool {
        self.halves.iter().all(|half| set.is_majority_of(*half))
    }
}

/// One replica: what its disk holds, and what its process knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Replica {
    /// Its disk is gone, and itself with it.
    pub(crate) lost: bool,
    pub(crate) term: u8,
    pub(crate) vote: Option<u8>,
    /// The durable mark that its log is suspect.
    pub(crate) recovering: bool,
    pub(crate) wal: Wal,
    pub(crate) leading: Option<Leading>,
}

/// What a leader knows beside its log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leading {
    pub(crate) commit: u8,
    /// Elected without a majority of sound voters, with a log that ended here.
    pub(crate) unclean_last: Option<u8>,
    pub(crate) peers: [Peer; 4],
}

/// What a leader knows of another replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// An answer of an earlier process, for what that lost: on its way, or heard and not used yet. 0 for none.
    pub(crate) stale_answer: u8,
    /// Through where its process, which is recovering, has to match.
    pub(crate) sound_through: Option<u8>,
}

/// A replica that leads.
#[derive(Clone, Copy)]
pub(crate) struct Leader<'a> {
    pub(crate) id: u8,
    pub(crate) replica: &'a Replica,
    pub(crate) leading: &'a Leading,
}

impl<'a> Leader<'a> {
    pub(crate) fn log(self) -> &'a [Entry] {
        self.replica.wal.log()
    }

    pub(crate) fn peer(self, id: u8) -> &'a Peer {
        &self.leading.peers[usize::from(id)]
    }

    /// Whether it has committed an entry of its own term.
    pub(crate) fn is_ready(self) -> bool {
        let committed = &self.log()[..usize::from(self.leading.commit)];
        committed.iter().any(|entry| entry.term == self.replica.term)
    }

    /// The highest index through which its log and that of `follower` agree, as far as terms tell.
    pub(crate) fn agrees_through(self, follower: &Replica) -> u8 {
        let pairs = self.log().iter().zip(follower.wal.log());
        pairs.take_while(|(ours, theirs)| ours.term == theirs.term).count() as u8
    }

    /// Whether `follower` takes messages from it.
    pub(crate) fn reaches(self, follower: &Replica) -> bool {
        let rival = follower.leading.is_some() && follower.term == self.replica.term;
        !follower.lost && follower.term <= self.replica.term && !rival
    }
}

/// An entry that was committed, and so acknowledged, in `term`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Acknowledged {
    pub(crate) entry: Entry,
    pub(crate) term: u8,
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) replicas: Vec<Replica>,
    /// The voter whose place the newcomer takes.
    pub(crate) outgoing: u8,
    /// What clients were told, from index 1 on.
    pub(crate) acknowledged: Vec<Acknowledged>,
    /// Two different entries were committed at one index.
    pub(crate) conflict: bool,
    /// Two replicas were elected in one term.
    pub(crate) rivals: bool,
    /// What may still break.
    pub(crate) faults: Faults,
}

impl State {
    pub(crate) fn replica(&self, id: u8) -> &Replica {
        &self.replicas[usize::from(id)]
    }

    pub(crate) fn replica_mut(&mut self, id: u8) -> &mut Replica {
        &mut self.replicas[usize::from(id)]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.replicas.len() as u8
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = u8> {
        self.ids().filter(|id| !self.replica(*id).lost)
    }

    pub(crate) fn leaders(&self) -> impl Iterator<Item = Leader<'_>> {
        self.ids().filter_map(|id| {
            let replica = self.replica(id);
            replica.leading.as_ref().map(|leading| Leader { id, replica, leading })
        })
    }

    pub(crate) fn leader(&self, id: u8) -> Option<Leader<'_>> {
        self.leaders().find(|leader| leader.id == id)
    }

    /// What `leader` knows of `peer`, if it leads.
    pub(crate) fn peer_mut(&mut self, leader: u8, peer: u8) -> Option<&mut Peer> {
        let leading = self.replica_mut(leader).leading.as_mut();
        leading.map(|leading| &mut leading.peers[usize::from(peer)])
    }

    /// The configuration that `body` puts in force.
    fn configuration_by(&self, body: Body) -> Configuration {
        let replaced = Set::FOUNDERS.without(self.outgoing).with(NEWCOMER);
        let halves = match body {
            Body::Data | Body::Learner => [Set::FOUNDERS; 2],
            Body::Joint => [Set::FOUNDERS, replaced],
            Body::Replaced => [replaced; 2],
        };
        Configuration { halves }
    }

    /// The configuration in force at the end of `log`.
    pub(crate) fn configuration(&self, log: &[Entry]) -> Configuration {
        self.configuration_by(last_change(log).1)
    }

    /// Whether some configuration along `log` has `replica` as a voter.
    pub(crate) fn may_campaign(&self, replica: u8, log: &[Entry]) -> bool {
        replica != NEWCOMER || matches!(last_change(log).1, Body::Joint | Body::Replaced)
    }

    pub(crate) fn is_sound(&self, replica: u8) -> bool {
        let replica = self.replica(replica);
        !replica.lost && !replica.recovering
    }
}

/// The last entry that changed the configuration: its index, and what it said. `Data` at 0 if there was none.
pub(crate) fn last_change(log: &[Entry]) -> (u8, Body) {
    let last = log.iter().rposition(|entry| entry.body != Body::Data);
    last.map_or((0, Body::Data), |position| (position as u8 + 1, log[position].body))
}
