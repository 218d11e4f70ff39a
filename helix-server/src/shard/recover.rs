//! Bringing groups to life: new ones, and those that the WAL remembers.

use std::collections::VecDeque;

use helix_raft::{Durability, Entry, GroupId, GroupOptions, HardState, Index, Membership, Term, term_runs};
use helix_wal::{ReadLimit, RecoveredGroup};
use tracing::{debug, warn};

use super::drive::{MAX_RECORDS_PER_READ, read_entries};
use super::owner::{Owner, ShardContext};
use super::replica::{Machine, MetadataReplica, Replica};
use crate::broker::batcher::BatcherLimits;
use crate::controller::commands::METADATA_GROUP;
use crate::controller::machine::MetadataMachine;
use crate::controller::reconcile::WantedPartition;
use crate::durable::votes::VoteFound;
use crate::entry::{Command, OffsetTrack};
use crate::env::Event;
use crate::partition::Partition;
use crate::partition::checkpoint::PartitionCheckpoint;

/// Newest entries of a recovered group that are kept in memory.
const RECOVERED_TAIL_BYTES: usize = 1 << 20;
/// Bytes read from the WAL at a time while looking through the entries behind a checkpoint.
const SCAN_BYTES: u64 = 4 << 20;

/// What a checkpoint and the bounds of the log say about where applying goes on.
struct Resume {
    /// Everything through here is applied in the checkpoint.
    applied: Index,
    next_offset: helix_wal::Offset,
    /// The checkpoint itself, if there is one.
    state: Option<Vec<u8>>,
}

impl Owner {
    /// Opens the metadata group.
    ///
    /// # Errors
    /// When what the disk holds of it cannot be understood.
    pub(crate) fn open_metadata(
        &mut self,
        membership: Membership,
        recovered: Option<&RecoveredGroup>,
    ) -> Result<(), String> {
        let resume = resume_metadata(recovered);
        let mut machine =
            MetadataMachine::new(std::sync::Arc::clone(&self.context.image), self.context.applied.clone());
        if let Some(state) = &resume.state {
            machine.restore(resume.applied, state).map_err(|error| error.to_string())?;
        }
        let applied = resume.applied;
        let machine =
            Machine::Metadata(Box::new(MetadataReplica { machine, applied, pending: VecDeque::new() }));
        self.open(METADATA_GROUP, membership, Durability::Synced, recovered, &resume, machine)
    }

    /// Opens the replica of a partition, with whatever the WAL holds of it.
    pub(super) fn create_partition(&mut self, wanted: WantedPartition) {
        let group = wanted.group;
        if self.replicas.contains_key(&group) {
            return;
        }
        if let Err(reason) = self.open_partition(wanted) {
            self.fail_group(group, &reason);
        }
    }

    fn open_partition(&mut self, wanted: WantedPartition) -> Result<(), String> {
        let group = wanted.group;
        let recovered = self.recovered.remove(&group);
        let (resume, checkpoint) = resume_partition(recovered.as_ref(), self.context.env.unix_ms())?;
        let limits = BatcherLimits {
            linger: self.context.config.batch_linger(),
            max_bytes: self.context.config.batch_max_bytes,
            max_requests: self.context.config.batch_max_requests,
        };
        let partition = Partition::new(group, wanted.config, limits, checkpoint);
        let view = std::sync::Arc::clone(partition.view());
        let required = self.context.required;
        let machine = Machine::Partition(Box::new(partition));
        self.open(group, wanted.membership, required, recovered.as_ref(), &resume, machine)?;
        self.context.partitions.insert(view);
        Ok(())
    }

    fn open(
        &mut self,
        group: GroupId,
        membership: Membership,
        required: Durability,
        recovered: Option<&RecoveredGroup>,
        resume: &Resume,
        machine: Machine,
    ) -> Result<(), String> {
        let mut options = GroupOptions::new(membership, required);
        options.hard_state = hard_state(&self.context, group)?;
        options.recovering = self.context.recovering.contains(group);
        if options.recovering {
            warn!(%group, "this replica's log is suspect after a machine crash: it gives no vote until a leader has confirmed it");
        }
        let mut track = OffsetTrack::new(resume.applied, resume.next_offset);
        if let Some(recovered) = recovered {
            let bounds = recovered.bounds;
            options.start_index = Index(bounds.start_index.0);
            options.start_term = Term(bounds.start_term.0);
            options.last_index = Index(bounds.last_index.0);
            options.last_term = Term(bounds.last_term.0);
            options.committed = resume.applied;
            options.tail = self.scan(group, resume.applied, options.last_index, &mut track)?;
            let held = options.tail.first().map_or(options.last_index, |first| first.index.prev());
            options.terms = self.terms(group, &options, held)?;
        }
        let applied = resume.applied;
        let last = (options.last_index, options.last_term);
        let (start, recovering) = (options.start_index, options.recovering);
        self.context.env.show(group, &Event::Opened { start, last, applied, recovering });
        self.raft.add_group(group, options).map_err(|error| error.to_string())?;
        let replica =
            Replica { track, machine, checkpointed: applied, applied_term: Term::ZERO, announced: None };
        self.replicas.insert(group, replica);
        debug!(%group, %applied, "replica opened");
        Ok(())
    }

    /// Looks through the entries behind the checkpoint: where their offsets lie, and the newest of them for memory.
    fn scan(
        &self,
        group: GroupId,
        applied: Index,
        last: Index,
        track: &mut OffsetTrack,
    ) -> Result<Vec<Entry<Command>>, String> {
        let mut tail: VecDeque<Entry<Command>> = VecDeque::new();
        let mut bytes = 0;
        let mut from = applied.next();
        while from <= last {
            let limit = ReadLimit { max_bytes: SCAN_BYTES, max_records: MAX_RECORDS_PER_READ };
            for entry in read_entries(&self.context.wal, group, from, last, limit)? {
                track.append(&entry).map_err(|error| error.to_string())?;
                from = entry.index.next();
                bytes += entry.len_bytes();
                tail.push_back(entry);
                while bytes > RECOVERED_TAIL_BYTES {
                    let Some(oldest) = tail.pop_front() else { break };
                    bytes -= oldest.len_bytes();
                }
            }
        }
        Ok(tail.into())
    }

    /// The terms of the entries that are not in memory.
    fn terms(
        &self,
        group: GroupId,
        options: &GroupOptions<Command>,
        last: Index,
    ) -> Result<Vec<(Index, Term)>, String> {
        let first = options.start_index.next();
        if first > last {
            return Ok(Vec::new());
        }
        let term_at = |index: Index| match self
            .context
            .wal
            .term_at(helix_wal::GroupId(group.0), helix_wal::Index(index.0))
        {
            Ok(Some(term)) => Ok(Term(term.0)),
            Ok(None) => Err(format!("entry {index} is missing in the WAL")),
            Err(error) => Err(error.to_string()),
        };
        // Terms never fall along a log: equal ends mean one run, without looking in between.
        let (lowest, highest) = (term_at(first)?, term_at(last)?);
        if lowest == highest {
            return Ok(vec![(first, lowest)]);
        }
        term_runs(first, last, term_at)
    }
}

fn hard_state(context: &ShardContext, group: GroupId) -> Result<HardState, String> {
    match context.loaded_votes.of(group) {
        VoteFound::Promised(state) => Ok(state),
        VoteFound::Nothing => Ok(HardState::default()),
        // It may have voted for somebody in a term to come: acting as the same replica could elect two leaders.
        VoteFound::Unknown => {
            Err("what this replica voted cannot be read from the votes file, so it must not vote again \
             under its replica id; give the node an empty data directory"
                .to_owned())
        }
    }
}

fn resume_metadata(recovered: Option<&RecoveredGroup>) -> Resume {
    let Some(recovered) = recovered else {
        return Resume { applied: Index::ZERO, next_offset: helix_wal::Offset(0), state: None };
    };
    let checkpoint = recovered.checkpoint.as_ref();
    Resume {
        applied: checkpoint.map_or(Index(recovered.bounds.start_index.0), |c| Index(c.record.index.0)),
        next_offset: helix_wal::Offset(0),
        state: checkpoint.map(|c| c.record.payload.to_bytes().to_vec()),
    }
}

fn resume_partition(
    recovered: Option<&RecoveredGroup>,
    now_ms: i64,
) -> Result<(Resume, PartitionCheckpoint), String> {
    let Some(recovered) = recovered else {
        let resume = Resume { applied: Index::ZERO, next_offset: helix_wal::Offset(0), state: None };
        return Ok((resume, PartitionCheckpoint::default()));
    };
    let bounds = recovered.bounds;
    let mut checkpoint = match &recovered.checkpoint {
        Some(stored) => PartitionCheckpoint::decode(&stored.record.payload.to_bytes(), now_ms)
            .map_err(|error| error.to_string())?,
        None => PartitionCheckpoint::default(),
    };
    // A checkpoint that came with a "start here" may be of a later index than this log reaches yet: then applying begins
    // where the log begins, and goes over what the checkpoint knows already.
    let usable = checkpoint.applied.0 >= bounds.start_index.0 && checkpoint.applied.0 <= bounds.last_index.0;
    if !usable {
        checkpoint.applied = Index(bounds.start_index.0);
        checkpoint.next_offset = bounds.start_offset.0 as i64;
        checkpoint.log_start = checkpoint.log_start.min(checkpoint.next_offset);
    }
    let resume = Resume {
        applied: checkpoint.applied,
        next_offset: helix_wal::Offset(checkpoint.next_offset as u64),
        state: None,
    };
    Ok((resume, checkpoint))
}
