//! What the payload of a checkpoint or "start here" record holds: the state machine, and the configuration that is in force.

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

    /// "Start here": the log begins behind `index`, where `next_offset` follows. The checkpoint may be of a later index: what lies
    /// between is applied once more, and so are the configurations there.
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
        Some(GroupCheckpoint { membership, state: replica.state() })
    }
}
