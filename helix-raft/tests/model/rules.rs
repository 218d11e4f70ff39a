//! The rules that can be taken away, and the bounds within which a model is searched.

use crate::protocol::Step;

/// A rule of the design. A model without it loses something, but for the one rule that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Answers of an older process of a replica do not count once a newer one was heard of, and what it held is asked for anew.
    Incarnations,
    /// A leader names its commit index to a recovering replica only when it has committed an entry of its own term.
    OwnTermBeforeNaming,
    /// A replica stays recovering through further crashes until it is sound.
    RecoveringMarkLasts,
    /// An empty disk is a new replica, under an id that nobody had.
    BlankIsNewReplica,
    /// The votes of recovering replicas do not count.
    RecoveringVotesDoNotCount,
    /// The answers of recovering replicas do not count. That makes things simpler; nothing is lost without it.
    RecoveringAnswersDoNotCount,
    /// Without a majority of sound voters it takes the vote of every voter.
    EveryVoter,
    /// A recovering replica campaigns with what its WAL holds, not with what is on its way there: the victory makes it sound.
    WinnerHasStored,
    /// Term and vote are synced before anybody hears of them.
    HardStateSynced,
    /// A follower answers for entries that its WAL holds.
    WrittenBeforeAnswered,
    /// An entry is written when it is appended, not when it is known to be committed.
    WrittenOnAppend,
    /// A cluster is founded when all of its nodes are blank.
    AllBlankToFound,
    /// Only entries of the leader's own term are committed by counting.
    OwnTermCommits,
    /// Voters change through a joint configuration.
    JointConsensus,
    /// A configuration counts once it is synced, whatever the mode.
    ConfigurationsSynced,
}

/// One model: which rules hold, and how much may happen.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The rule that is taken away.
    pub(crate) without: Option<Rule>,
    /// Data counts once it is synced (`--write-durability fsync`).
    pub(crate) fsync: bool,
    /// One voter is to be replaced by a fourth replica.
    pub(crate) replacement: bool,
    /// What has happened by the time the search begins, beside the first election.
    pub(crate) prelude: &'static [Step],
    /// An older leader does nothing more once there is a newer one. That loses nothing: the two touch different replicas, each of
    /// which goes over to the newer one once and for all, so what the older one does could as well have been done before.
    pub(crate) one_leader: bool,
    /// Replicas that differ in their id alone are exchanged at will, which makes histories hard to read.
    pub(crate) symmetric: bool,
    /// No election goes to a higher term.
    pub(crate) terms: u8,
    /// No log becomes longer.
    pub(crate) entries: u8,
    /// Clients write to logs that are shorter.
    pub(crate) writes: u8,
    /// How much may break.
    pub(crate) faults: Faults,
}

/// How often each kind of fault may still happen, all replicas taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    /// A process dies; the page cache survives.
    pub(crate) process: u8,
    /// A machine loses its power.
    pub(crate) machine: u8,
    /// A disk is replaced by an empty one.
    pub(crate) disk: u8,
}

impl Setup {
    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}
