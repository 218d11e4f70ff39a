//! What a node lets an onlooker see: the events that the promises of consensus and storage are about. Nobody looks in production.

use helix_raft::{Body, Durability, Entry, GroupId, HardState, Incarnation, Index, ReplicaId, Role, Term};

use crate::entry::Command;

/// Something that happened to one replica on this node.
#[derive(Debug)]
pub enum Event<'a> {
    /// A replica was opened with what the disk holds of it.
    Opened {
        /// Its log begins behind this index.
        start: Index,
        /// The end of its log.
        last: (Index, Term),
        /// Everything through here is in its state already.
        applied: Index,
        /// Its log is suspect.
        recovering: bool,
        /// Its term and vote.
        promised: HardState,
        /// Which replica it is.
        me: ReplicaId,
        /// Of the process.
        incarnation: Incarnation,
    },
    /// Its term and vote are stored.
    Promised(HardState),
    /// Entries were handed to the WAL; they replace whatever the log had from the first of them on.
    Appended(&'a [Entry<Command>]),
    /// The log is stored through here.
    Stored {
        /// The last index.
        index: Index,
        /// Its term.
        term: Term,
        /// How durably.
        durability: Durability,
    },
    /// The log is committed through here, as this replica has just counted or been told.
    Committed {
        /// The last index.
        through: Index,
        /// The newest incarnations of the group's voters that this node has heard of.
        incarnations: &'a [(ReplicaId, Incarnation)],
    },
    /// A committed entry took effect.
    Applied {
        /// Where it lies.
        index: Index,
        /// Its term.
        term: Term,
        /// What it is.
        body: &'a Body<Command>,
    },
    /// "Start here" was handed to the WAL, to replace the log.
    Installing {
        /// The log will begin behind this index.
        index: Index,
        /// The term of that index.
        term: Term,
    },
    /// The log was replaced by "start here".
    Installed {
        /// It begins behind this index.
        index: Index,
        /// The term of that index.
        term: Term,
    },
    /// The log begins later now.
    LogStartMoved {
        /// Behind this index.
        index: Index,
    },
    /// The replica's role, term or leader changed.
    Role {
        /// What it is.
        role: Role,
        /// In which term.
        term: Term,
    },
    /// It leads, has applied an entry of its own term, and answers clients.
    Serving {
        /// Its term.
        term: Term,
    },
    /// It leads although too few replicas were sound: what the machines lost is lost.
    UncleanRecovery,
    /// Its log is sound again.
    Sound,
    /// Its log is given up, durably, but not its term and vote: an unclean recovery has lost what is committed in it, or it is damaged
    /// beyond use. What follows is `Opened`, of an empty one that is recovering.
    GivenUp,
    /// It is out of service until the node starts again.
    Failed(&'a str),
    /// Its data goes, because its topic was deleted.
    Deleted,
}

/// Sees everything as it happens. Must be quick, and must not change anything.
pub trait Observer: Send + Sync + 'static {
    /// Something happened to the replica of `group`.
    fn observe(&self, group: GroupId, event: &Event<'_>);
}
