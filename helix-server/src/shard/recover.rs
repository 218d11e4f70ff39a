//! Bringing groups to life: new ones, and those that the WAL remembers.

use helix_raft::planted;
use std::collections::VecDeque;
use std::sync::Arc;

use helix_raft::{
    Body, Durability, Entry, GroupId, GroupOptions, HardState, Index, Membership, ReplicaId, Term, term_runs,
};
use helix_wal::{Bounds, ReadLimit, RecoveredGroup, StoredRecord};
use tracing::{debug, warn};

use super::checkpoint::GroupCheckpoint;
use super::drive::{MAX_RECORDS_PER_READ, Unreadable, read_entries};
use super::owner::{Owner, ShardContext};
use super::replica::{Machine, Replica};
use crate::broker::batcher::BatcherLimits;
use crate::config::topic::TopicConfig;
use crate::controller::commands::METADATA_GROUP;
use crate::controller::machine::MetadataMachine;
use crate::controller::reconcile::WantedPartition;
use crate::durable::votes::VoteFound;
use crate::entry::{Command, OffsetTrack};
use crate::env::Event;
use crate::partition::Partition;
use crate::partition::checkpoint::PartitionCheckpoint;
use crate::versioned::VersionedError;

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
    /// The configuration in the checkpoint.
    membership: Option<Membership>,
}

/// Who belongs to a group, according to the metadata.
#[derive(Clone)]
pub(super) struct Members {
    /// Who began it.
    founders: Vec<ReplicaId>,
    /// Who is to hold replicas of it now.
    desired: Vec<ReplicaId>,
    /// It began after this node had started.
    is_new: bool,
}

impl Members {
    /// The configuration with which a replica begins of which nothing is on this disk. Who came later knows nothing of the group: its
    /// leader tells.
    fn at_first(&self, me: ReplicaId) -> Membership {
        if self.founders.contains(&me) {
            Membership::of_voters(self.founders.clone())
        } else {
            Membership::default()
        }
    }
}

/// A replica that is not opened before a damaged entry is repaired.
pub(super) struct Unopened {
    pub(super) opening: Opening,
    recovered: Option<RecoveredGroup>,
    /// The damaged entry.
    damaged: Index,
}

/// What is to be opened.
pub(super) enum Opening {
    Metadata(Members),
    Partition(WantedPartition),
}

impl Opening {
    /// Who is to hold replicas, as the metadata says.
    pub(super) fn desired(&self) -> &[ReplicaId] {
        match self {
            Self::Metadata(members) => &members.desired,
            Self::Partition(wanted) => &wanted.replicas,
        }
    }

    /// The metadata says who is to hold replicas.
    pub(super) fn desire(&mut self, replicas: Vec<ReplicaId>) {
        match self {
            Self::Metadata(members) => members.desired = replicas,
            Self::Partition(wanted) => wanted.replicas = replicas,
        }
    }
}

/// A replica that waits to be opened until it is durable that its log is suspect.
pub(super) struct Suspected {
    pub(super) options: GroupOptions<Command>,
    pub(super) track: OffsetTrack,
    pub(super) machine: Machine,
    /// Who is to hold replicas of the group, as the metadata says.
    pub(super) desired: Vec<ReplicaId>,
}

/// What lies behind a checkpoint.
#[derive(Default)]
struct Behind {
    /// The first entry that is damaged; what follows it was not looked at.
    damaged: Option<Index>,
    /// The newest entries, for memory.
    tail: VecDeque<Entry<Command>>,
    tail_bytes: usize,
    /// The configurations, each at its index.
    memberships: Vec<(Index, Membership)>,
}

impl Behind {
    fn push(&mut self, entry: Entry<Command>) {
        if let Body::Membership(membership) = &entry.body {
            self.memberships.push((entry.index, membership.clone()));
        }
        self.tail_bytes += entry.len_bytes();
        self.tail.push_back(entry);
        while self.tail_bytes > RECOVERED_TAIL_BYTES {
            let Some(oldest) = self.tail.pop_front() else { break };
            self.tail_bytes -= oldest.len_bytes();
        }
    }
}

impl Owner {
    /// Opens the metadata group.
    ///
    /// # Errors
    /// When what the disk holds of it cannot be understood.
    pub(crate) fn open_metadata(&mut self, founders: Vec<ReplicaId>) -> Result<(), String> {
        self.open_metadata_of(Members { desired: founders.clone(), founders, is_new: false })
    }

    fn open_metadata_of(&mut self, members: Members) -> Result<(), String> {
        let recovered = self.recovered.remove(&METADATA_GROUP);
        let mut machine = self.empty_metadata();
        if self.context.unusable.contains(&METADATA_GROUP) {
            let machine = Machine::metadata(machine, Index::ZERO);
            return self.give_up_at_start(METADATA_GROUP, members.desired, machine);
        }
        let resume = resume_metadata(recovered.as_ref())?;
        if let Some(state) = &resume.state {
            machine.restore(resume.applied, state).map_err(|error| error.to_string())?;
        }
        let machine = Machine::metadata(machine, resume.applied);
        let damaged = self.open(METADATA_GROUP, members.clone(), recovered.as_ref(), &resume, machine)?;
        self.put_off(METADATA_GROUP, damaged, Opening::Metadata(members), recovered);
        Ok(())
    }

    /// Opens the replica of a partition, with whatever the WAL holds of it.
    pub(super) fn create_partition(&mut self, wanted: WantedPartition) {
        let group = wanted.group;
        let here = self.replicas.contains_key(&group)
            || self.anew.contains_key(&group)
            || self.suspected.contains_key(&group)
            || self.unopened.contains_key(&group);
        if here {
            return;
        }
        if let Err(reason) = self.open_partition(wanted) {
            self.fail_group(group, &reason);
        }
    }

    fn open_partition(&mut self, wanted: WantedPartition) -> Result<(), String> {
        let WantedPartition { group, founders, replicas: desired, config, is_new } = wanted.clone();
        let recovered = self.recovered.remove(&group);
        if self.context.unusable.contains(&group) {
            let partition = self.partition_from(group, config, PartitionCheckpoint::default());
            return self.give_up_at_start(group, desired, Machine::Partition(Box::new(partition)));
        }
        let (resume, checkpoint) = resume_partition(recovered.as_ref(), self.context.env.unix_ms())?;
        let machine = Machine::Partition(Box::new(self.partition_from(group, config, checkpoint)));
        let members = Members { founders, desired, is_new };
        let damaged = self.open(group, members, recovered.as_ref(), &resume, machine)?;
        self.put_off(group, damaged, Opening::Partition(wanted), recovered);
        Ok(())
    }

    /// A replica with a damaged entry behind its checkpoint is opened once that is repaired, or nobody can be found who has it.
    fn put_off(
        &mut self,
        group: GroupId,
        damaged: Option<Index>,
        opening: Opening,
        recovered: Option<RecoveredGroup>,
    ) {
        let Some(damaged) = damaged else { return };
        warn!(%group, index = %damaged, "an entry behind the last checkpoint is damaged: this replica is opened when another node has told it");
        self.unopened.insert(group, Unopened { opening, recovered, damaged });
        self.context.repairs.report(group, damaged);
    }

    /// Nobody has a damaged entry. If it is the one for which the group was put off, its log ends there; others are not in the way.
    pub(super) fn on_not_repaired(&mut self, group: GroupId, index: Index) {
        if self.unopened.get(&group).is_some_and(|unopened| unopened.damaged == index) {
            self.open_put_off(group, true);
        }
    }

    /// Opens what was put off. `cut`: at a damaged entry its log ends.
    pub(super) fn open_put_off(&mut self, group: GroupId, cut: bool) {
        let Some(Unopened { opening, recovered, .. }) = self.unopened.remove(&group) else { return };
        if cut {
            self.to_cut.insert(group);
        }
        self.recovered.extend(recovered.map(|recovered| (group, recovered)));
        let opened = match opening {
            Opening::Metadata(members) => self.open_metadata_of(members),
            Opening::Partition(wanted) => self.open_partition(wanted),
        };
        if let Err(reason) = opened {
            self.fail_group(group, &reason);
        }
    }

    /// How safely entries of a group must be stored before they count, before its topic has been asked.
    pub(super) fn required_of(&self, group: GroupId) -> Durability {
        if group == METADATA_GROUP { Durability::Synced } else { self.context.required }
    }

    /// The state of the cluster's metadata before anything has happened.
    pub(super) fn empty_metadata(&self) -> MetadataMachine {
        MetadataMachine::new(Arc::clone(&self.context.image), self.context.applied.clone())
    }

    pub(super) fn partition_from(
        &self,
        group: GroupId,
        config: Arc<TopicConfig>,
        checkpoint: PartitionCheckpoint,
    ) -> Partition {
        let broker = self.context.config.get();
        let limits = BatcherLimits {
            linger: broker.batch_linger(),
            max_bytes: broker.batch_max_bytes,
            max_requests: broker.batch_max_requests,
        };
        Partition::new(group, config, limits, checkpoint)
    }

    /// Opens a replica, or returns the damaged entry that stands in the way.
    fn open(
        &mut self,
        group: GroupId,
        members: Members,
        recovered: Option<&RecoveredGroup>,
        resume: &Resume,
        machine: Machine,
    ) -> Result<Option<Index>, String> {
        let membership = resume.membership.clone().unwrap_or_else(|| members.at_first(self.context.me));
        let mut options = GroupOptions::new(membership, self.required_of(group));
        options.hard_state = hard_state(&self.context, group)?;
        options.recovering = (!members.is_new || planted("young-is-suspect"))
            && self.context.recovering.contains(group)
            && !planted("recovering-votes");
        if options.recovering {
            warn!(%group, "this replica's log is suspect after a machine crash: it gives no vote until a leader has confirmed it");
        }
        let mut track = OffsetTrack::new(resume.applied, resume.next_offset);
        let desired = members.desired;
        let filled = match recovered {
            Some(found) => self.fill(group, &mut options, found.bounds, resume.applied, &mut track),
            None => Ok(None),
        };
        match filled {
            Ok(None) => self.add(group, options, track, machine, desired)?,
            Ok(Some(damaged)) if !self.to_cut.contains(&group) => return Ok(Some(damaged)),
            Ok(Some(_)) if options.recovering => self.add(group, options, track, machine, desired)?,
            Ok(Some(damaged)) => {
                // It gives no vote, and counts for nothing, before its leader has confirmed it; and that has to survive a crash.
                warn!(%group, %damaged, "nobody has told a damaged entry: the log ends before it, and this replica is recovering");
                options.recovering = true;
                self.suspected.insert(group, Suspected { options, track, machine, desired });
                self.suspect(group);
            }
            Err(Unreadable::Other(reason)) => return Err(reason),
            Err(Unreadable::Damaged(index)) => {
                warn!(%group, %index, "what is left around a damaged entry does not tell of which term it was");
                let machine = self.emptied(group, &machine);
                self.give_up_at_start(group, desired, machine)?;
            }
        }
        Ok(None)
    }

    /// Fills in what the WAL holds of a group. Returns the first damaged entry behind the checkpoint, if there is one: the log ends before it
    /// then, since what follows cannot be applied, and is left to the leader.
    fn fill(
        &self,
        group: GroupId,
        options: &mut GroupOptions<Command>,
        bounds: Bounds,
        applied: Index,
        track: &mut OffsetTrack,
    ) -> Result<Option<Index>, Unreadable> {
        options.start_index = Index(bounds.start_index.0);
        options.start_term = Term(bounds.start_term.0);
        options.last_index = Index(bounds.last_index.0);
        options.last_term = Term(bounds.last_term.0);
        options.committed =
            if planted("applied-twice") { Index(applied.0.saturating_sub(1)) } else { applied };
        let behind = self.scan(group, applied, options.last_index, track)?;
        options.memberships = behind.memberships;
        options.tail = behind.tail.into();
        let membership = options.memberships.last().map_or(&options.membership, |(_, membership)| membership);
        let sole = membership.is_sole_voter(self.context.me);
        if let Some(damaged) = behind.damaged {
            if sole {
                return Err(Unreadable::Other(format!(
                    "entry {damaged} is damaged and no other replica has it: nothing behind it can be applied"
                )));
            }
            options.last_index = damaged.prev();
            options.last_term = match options.tail.last() {
                Some(last) => last.term,
                None => self.term_at(group, options.last_index)?,
            };
        }
        let held = options.tail.first().map_or(options.last_index, |first| first.index.prev());
        options.terms = self.terms(group, options.start_index.next(), held, sole)?;
        Ok(behind.damaged)
    }

    /// Brings a replica to life.
    pub(super) fn add(
        &mut self,
        group: GroupId,
        options: GroupOptions<Command>,
        track: OffsetTrack,
        machine: Machine,
        desired: Vec<ReplicaId>,
    ) -> Result<(), String> {
        self.lives += 1;
        let replica = Replica {
            life: self.lives,
            hard_state: options.hard_state,
            track,
            machine,
            starts_after: options.start_index,
            checkpointed: options.committed,
            applied_term: Term::ZERO,
            announced: None,
            confirming: VecDeque::new(),
            floor: self.context.required,
            desired,
        };
        let last = (options.last_index, options.last_term);
        let (start, applied, recovering) = (options.start_index, options.committed, options.recovering);
        let promised = options.hard_state;
        let me = self.context.me;
        let incarnation = self.raft.incarnation_of(me);
        let opened = Event::Opened { start, last, applied, recovering, promised, me, incarnation };
        self.context.env.show(group, &opened);
        self.raft.add_group(group, options).map_err(|error| error.to_string())?;
        if let Machine::Partition(partition) = &replica.machine {
            self.context.partitions.insert(Arc::clone(partition.view()));
        }
        self.replicas.insert(group, replica);
        self.require(group);
        debug!(%group, %applied, "replica opened");
        Ok(())
    }

    /// Looks through the entries behind the checkpoint, as far as they can be read.
    fn scan(
        &self,
        group: GroupId,
        applied: Index,
        last: Index,
        track: &mut OffsetTrack,
    ) -> Result<Behind, Unreadable> {
        let mut behind = Behind::default();
        let mut from = applied.next();
        while from <= last {
            let limit = ReadLimit { max_bytes: SCAN_BYTES, max_records: MAX_RECORDS_PER_READ };
            let entries = match read_entries(&self.context.wal, group, from, last, limit) {
                Ok(entries) => entries,
                Err(Unreadable::Damaged(index)) => {
                    behind.damaged = Some(index);
                    break;
                }
                Err(other) => return Err(other),
            };
            for entry in entries {
                track.append(&entry).map_err(|error| Unreadable::Other(error.to_string()))?;
                from = entry.index.next();
                behind.push(entry);
            }
        }
        Ok(behind)
    }

    fn term_at(&self, group: GroupId, index: Index) -> Result<Term, Unreadable> {
        let found = self.context.wal.term_at(helix_wal::GroupId(group.0), helix_wal::Index(index.0));
        match found.map_err(|error| Unreadable::from_read(&error))? {
            Some(term) => Ok(Term(term.0)),
            None => Err(Unreadable::Other(format!("entry {index} is missing in the WAL"))),
        }
    }

    /// The terms of the entries that are not in memory. Where damage hides them a `sole` voter, which has nobody to compare them with, goes by
    /// the entry behind.
    fn terms(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        sole: bool,
    ) -> Result<Vec<(Index, Term)>, Unreadable> {
        if first > last {
            return Ok(Vec::new());
        }
        let term_at = |index: Index| {
            let mut term = self.term_at(group, index);
            let mut behind = index.next();
            while sole && behind <= last && matches!(term, Err(Unreadable::Damaged(_))) {
                term = self.term_at(group, behind);
                behind = behind.next();
            }
            term
        };
        // Terms never fall along a log: equal ends mean one run, without looking in between.
        let (lowest, highest) = (term_at(first)?, term_at(last)?);
        if lowest == highest {
            return Ok(vec![(first, lowest)]);
        }
        term_runs(first, last, term_at)
    }
}

pub(super) fn hard_state(context: &ShardContext, group: GroupId) -> Result<HardState, String> {
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

/// The newest checkpoint that the WAL has of a group.
fn newest_checkpoint(recovered: &RecoveredGroup) -> Result<Option<(Index, GroupCheckpoint)>, String> {
    let decode = |stored: &StoredRecord| {
        let checkpoint = GroupCheckpoint::decode(&stored.record.payload.to_bytes())?;
        Ok((Index(stored.record.index.0), checkpoint))
    };
    recovered.checkpoint.as_ref().map(decode).transpose().map_err(|damage: VersionedError| damage.to_string())
}

fn resume_metadata(recovered: Option<&RecoveredGroup>) -> Result<Resume, String> {
    let next_offset = helix_wal::Offset(0);
    let begin = |applied| Resume { applied, next_offset, state: None, membership: None };
    let Some(recovered) = recovered else { return Ok(begin(Index::ZERO)) };
    Ok(match newest_checkpoint(recovered)? {
        None => begin(Index(recovered.bounds.start_index.0)),
        Some((applied, GroupCheckpoint { membership, state })) => {
            Resume { applied, next_offset, state: Some(state), membership: Some(membership) }
        }
    })
}

/// The state of a partition before the first entry of its log.
fn first_checkpoint(bounds: &Bounds) -> PartitionCheckpoint {
    let next_offset = bounds.start_offset.0 as i64;
    PartitionCheckpoint {
        applied: Index(bounds.start_index.0),
        next_offset,
        ..PartitionCheckpoint::default()
    }
}

fn resume_partition(
    recovered: Option<&RecoveredGroup>,
    now_ms: i64,
) -> Result<(Resume, PartitionCheckpoint), String> {
    let Some(recovered) = recovered else {
        let next_offset = helix_wal::Offset(0);
        let resume = Resume { applied: Index::ZERO, next_offset, state: None, membership: None };
        return Ok((resume, PartitionCheckpoint::default()));
    };
    let (checkpoint, membership) = match newest_checkpoint(recovered)? {
        Some((index, GroupCheckpoint { membership, state })) => {
            let checkpoint =
                PartitionCheckpoint::decode(&state, now_ms).map_err(|error| error.to_string())?;
            if checkpoint.applied != index {
                return Err(format!("the checkpoint at {index} is one of {}", checkpoint.applied));
            }
            (checkpoint, Some(membership))
        }
        None => (first_checkpoint(&recovered.bounds), None),
    };
    let resume = Resume {
        applied: checkpoint.applied,
        next_offset: helix_wal::Offset(checkpoint.next_offset as u64),
        state: None,
        membership,
    };
    Ok((resume, checkpoint))
}
