//! What the payload of a checkpoint or "start here" record holds: the state machine, and the configuration that is in force, both as of the
//! record's index.

use helix_raft::{GroupId, Index, Membership, Start, Term};
use helix_wal::{Offset, Payload};
use serde::{Deserialize, Serialize};

use super::owner::Owner;
use crate::entry::{Command, EntryTag};
use crate::versioned::{self, VersionedError};

/// A group as of an index that is applied.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupCheckpoint {
    /// The configuration at that index. Entries that brought it may be gone by the next start.
    pub(crate) membership: Membership,
    /// The state machine, in its own encoding.
    pub(crate) state: Vec<u8>,
}

impl GroupCheckpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        versioned::encode(self)
    }

    /// "Start here", for a checkpoint that is as of `index`: the log begins behind it, where `next_offset` follows.
    pub(super) fn into_start(self, index: Index, term: Term, next_offset: Offset) -> Start<Command> {
        let payload = Payload::from_chunks(vec![self.encode().into()]);
        let payload = Command::without_offsets(EntryTag::LogStart, next_offset, payload);
        Start { index, term, membership: self.membership, payload }
    }

    /// # Errors
    /// When the bytes are nothing that [`Self::encode`] could have written.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, VersionedError> {
        versioned::decode(bytes)
    }
}

impl Owner {
    /// A group as of the last entry that it has applied; `None` if its log does not reach there.
    pub(super) fn checkpoint_of(&self, group: GroupId) -> Option<GroupCheckpoint> {
        let replica = self.replicas.get(&group)?;
        let membership = self.raft.membership_at(group, replica.applied())?;
        Some(GroupCheckpoint { membership, state: replica.machine.state() })
    }

    /// A group as of the entry at `index`, of `term`, behind which its log is to begin; `None` if that cannot be told.
    ///
    /// It must not be as of a later entry, though that would spare applying some of the log again. Later entries may get lost: the disk
    /// keeps this and not them, an unclean recovery puts others in their place, and then the state is one of a log that never was.
    pub(super) fn start_at(
        &self,
        group: GroupId,
        index: Index,
        term: Term,
        next_offset: Offset,
    ) -> Option<Start<Command>> {
        let replica = self.replicas.get(&group)?;
        let membership = self.raft.membership_at(group, index)?;
        let state = replica.machine.state_as_of(index, term, next_offset)?;
        Some(GroupCheckpoint { membership, state }.into_start(index, term, next_offset))
    }
}
