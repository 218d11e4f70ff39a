//! One group as its shard holds it: the state machine behind it and where offsets lie in its log.

use std::collections::VecDeque;

use helix_raft::{Durability, HardState, Index, ReplicaId, Term};
use helix_wal::Offset;
use tokio::sync::oneshot;

use crate::controller::Proposed;
use crate::controller::machine::MetadataMachine;
use crate::entry::OffsetTrack;
use crate::partition::Partition;

/// A group's replica on this node.
#[derive(Debug)]
pub(super) struct Replica {
    /// Which of the replicas this is that the group had here since the process started.
    pub(super) life: u64,
    /// Term and vote, as they were handed to their file last.
    pub(super) hard_state: HardState,
    /// Next offset at every uncommitted entry.
    pub(super) track: OffsetTrack,
    /// What committed entries are applied to.
    pub(super) machine: Machine,
    /// Where the log begins once all that was handed to the WAL is stored. Consensus hears of it only then; a start
    /// before this one would throw the log away.
    pub(super) starts_after: Index,
    /// Index of the last checkpoint in the WAL.
    pub(super) checkpointed: Index,
    /// Term of the last applied entry.
    pub(super) applied_term: Term,
    /// What this shard last told the cluster about leading this group.
    pub(super) announced: Option<Term>,
    /// Who waits to hear that this replica still leads, by the round that shows it, in order.
    pub(super) confirming: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Whatever its leader asks for, this replica stores its entries at least so safely: its node, or its topic, promises it.
    pub(super) floor: Durability,
    /// Who is to hold replicas of this group, as the metadata says.
    pub(super) desired: Vec<ReplicaId>,
}

/// The state machines that a group can have.
#[derive(Debug)]
pub(super) enum Machine {
    Partition(Box<Partition>),
    Metadata(Box<MetadataReplica>),
}

/// The replica of group 0.
#[derive(Debug)]
pub(super) struct MetadataReplica {
    pub(super) machine: MetadataMachine,
    pub(super) applied: Index,
    /// Commands proposed here that are not decided yet.
    pub(super) pending: VecDeque<PendingCommand>,
}

/// A proposed metadata command and who waits for it.
#[derive(Debug)]
pub(super) struct PendingCommand {
    pub(super) index: Index,
    pub(super) term: Term,
    pub(super) reply: oneshot::Sender<Proposed>,
}

impl Replica {
    pub(super) fn applied(&self) -> Index {
        match &self.machine {
            Machine::Partition(partition) => partition.applied(),
            Machine::Metadata(metadata) => metadata.applied,
        }
    }

    pub(super) fn partition(&mut self) -> Option<&mut Partition> {
        match &mut self.machine {
            Machine::Partition(partition) => Some(partition),
            Machine::Metadata(_) => None,
        }
    }

    /// This replica does not lead.
    pub(super) fn stop_serving(&mut self, term: Term) {
        match &mut self.machine {
            Machine::Partition(partition) => partition.stop_serving(term),
            // Dropping the replies tells the submitters that another node leads.
            Machine::Metadata(metadata) => metadata.pending.clear(),
        }
    }
}

impl Machine {
    /// The metadata as of an index.
    pub(super) fn metadata(machine: MetadataMachine, applied: Index) -> Self {
        Self::Metadata(Box::new(MetadataReplica { machine, applied, pending: VecDeque::new() }))
    }

    /// The state as of the last applied entry.
    pub(super) fn state(&self) -> Vec<u8> {
        match self {
            Self::Partition(partition) => partition.checkpoint().encode(),
            Self::Metadata(metadata) => metadata.machine.checkpoint(),
        }
    }

    /// The state as of the entry at `index`, of `term`, behind which `next_offset` follows. `None` for metadata as of any entry but the last
    /// one applied: its commands must not be applied twice.
    pub(super) fn state_as_of(&self, index: Index, term: Term, next_offset: Offset) -> Option<Vec<u8>> {
        match self {
            Self::Partition(partition) => {
                Some(partition.checkpoint().as_of(index, term, next_offset.0 as i64).encode())
            }
            Self::Metadata(metadata) => (metadata.applied == index).then(|| metadata.machine.checkpoint()),
        }
    }
}

impl MetadataReplica {
    /// Applies a committed command and answers whoever proposed it here.
    pub(super) fn apply(&mut self, index: Index, term: Term, command: Option<&[u8]>) {
        let result = command.map(|bytes| self.machine.apply(index, bytes));
        self.applied = index;
        while let Some(first) = self.pending.front()
            && first.index <= index
        {
            let Some(first) = self.pending.pop_front() else { return };
            if first.index == index
                && first.term == term
                && let Some(result) = &result
            {
                // The submitter may have given up.
                drop(first.reply.send(Proposed::Applied { index, result: result.clone() }));
            }
        }
    }
}
