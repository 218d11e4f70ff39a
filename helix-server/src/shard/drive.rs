//! Does what the groups ask for: entries to the WAL, votes to their file, messages to peers, committed entries to the state
//! machines. The one place where consensus, storage and the state machines meet.

use helix_raft::planted;
use helix_raft::{
    Body, CommittedRange, Durability, Entry, GroupId, HardState, Index, ReadRequest, Ready, ReplicaId, Start,
    Term,
};
use helix_wal::{ReadError, ReadLimit, Record, RecordKind, Wal};
use thiserror::Error;
use tracing::warn;

use super::checkpoint::GroupCheckpoint;
use super::owner::Owner;
use super::replica::{Machine, Replica};
use super::{ShardMessage, Shards};
use crate::controller::commands::METADATA_GROUP;
use crate::durable::recovering::Finding;
use crate::entry::{self, Command, EntryTag, OffsetTrack};
use crate::env::Event;
use crate::ops::fatal::Fatal;
use crate::partition::checkpoint::PartitionCheckpoint;

/// Bytes of committed entries read from the WAL at a time when they are not in memory.
const COMMITTED_READ_BYTES: u64 = 4 << 20;
/// Entries read from the WAL at a time.
pub(super) const MAX_RECORDS_PER_READ: usize = 65_536;

/// Records of one round that go to the WAL together.
#[derive(Default)]
struct Outgoing {
    /// Runs of records that need the same durability, in order.
    runs: Vec<Run>,
    /// Positions up to which groups want synced what they wrote before or write in this round.
    syncs: Vec<(GroupId, Index, Term)>,
}

struct Run {
    durability: Durability,
    records: Vec<Record>,
    positions: Vec<(GroupId, Index, Term)>,
}

impl Outgoing {
    fn run(&mut self, durability: Durability) -> &mut Run {
        if self.runs.last().is_none_or(|run| run.durability != durability) {
            self.runs.push(Run { durability, records: Vec::new(), positions: Vec::new() });
        }
        self.runs.last_mut().expect("a run was just pushed if there was none")
    }
}

impl Owner {
    /// Does everything that groups ask for, until none asks for more.
    pub(super) fn drive(&mut self) {
        let mut outgoing = Outgoing::default();
        let mut leadership_changed = false;
        loop {
            let ready = self.raft.take_ready();
            if ready.is_empty() {
                break;
            }
            for (group, ready) in ready {
                leadership_changed |= ready.role_changed.is_some();
                self.guarded(group, |owner| owner.process(group, ready, &mut outgoing));
            }
        }
        self.write(outgoing);
        self.trim_tails();
        if leadership_changed {
            self.publish_digests();
        }
    }

    /// Before anybody is told of it.
    fn show_committed(&self, group: GroupId, ready: &Ready<Command>) {
        let news = !ready.committed.is_empty() || ready.committed_to_read.is_some();
        if news
            && self.context.env.is_observed()
            && let Some(through) = self.raft.committed(group)
            && let Some(status) = self.raft.status(group)
        {
            let known = |voter: &ReplicaId| (*voter, self.raft.incarnation_of(*voter));
            let incarnations: Vec<_> = status.membership.all_voters().iter().map(known).collect();
            self.context.env.show(group, &Event::Committed { through, incarnations: &incarnations });
        }
    }

    fn process(&mut self, group: GroupId, ready: Ready<Command>, outgoing: &mut Outgoing) {
        self.show_committed(group, &ready);
        if let Some(state) = ready.hard_state {
            self.persist_vote(group, state);
        }
        if !ready.append.is_empty() {
            self.append(group, &ready.append, ready.append_required, outgoing);
        }
        if let Some(position) = ready.sync {
            outgoing.syncs.push((group, position.index, position.term));
        }
        for message in ready.messages {
            self.context.cluster.send_raft(message);
        }
        self.apply_all(group, ready.committed);
        if let Some(range) = ready.committed_to_read {
            self.read_committed(group, range);
        }
        for request in ready.reads {
            self.read_for_follower(group, request);
        }
        for to in ready.need_start {
            self.provide_start(group, to);
        }
        if let Some(start) = ready.install {
            self.install(group, start);
        }
        if ready.unclean_recovery {
            warn!(%group, "unclean recovery: too few replicas were sound after machine crashes, the one with the longest log leads");
            self.context.metrics.unclean_recovery();
            self.context.env.show(group, &Event::UncleanRecovery);
        }
        if ready.sound {
            self.context.env.show(group, &Event::Sound);
            if self.context.findings.send(Finding::Sound(group)).is_err() {
                tracing::debug!(%group, "the node stops; the group is marked sound at its next start");
            }
        }
        if ready.membership.is_some() {
            self.unsettled.insert(group);
        }
        if let Some(change) = ready.role_changed {
            self.on_role_changed(group, change);
        }
        if ready.leader_ready {
            self.on_leader_ready(group);
        }
        if let Some(round) = ready.confirmed {
            self.on_confirmed(group, round);
        }
        if let Some(position) = ready.diverged {
            self.begin_anew(group, position);
        }
    }

    fn persist_vote(&mut self, group: GroupId, state: HardState) {
        if let Some(replica) = self.replicas.get_mut(&group) {
            replica.hard_state = state;
        }
        let (shards, fatal) = (self.context.shards.clone(), self.context.fatal.clone());
        self.context.votes.persist(group, state, move |result| match result {
            Ok(()) => shards.send(group, ShardMessage::VotePersisted { group, state }),
            Err(error) => fatal.report(format!("a vote could not be stored: {error}")),
        });
    }

    /// Gives entries their place in the WAL. They are written when the round ends.
    fn append(
        &mut self,
        group: GroupId,
        entries: &[Entry<Command>],
        required: Durability,
        outgoing: &mut Outgoing,
    ) {
        let (Some(replica), Some(last)) = (self.replicas.get_mut(&group), entries.last()) else { return };
        self.context.env.show(group, &Event::Appended(entries));
        let mut records = Vec::with_capacity(entries.len());
        for entry in entries {
            let base_offset = match replica.track.append(entry) {
                Ok(base_offset) => base_offset,
                Err(error) => panic!("an appended entry does not fit the log: {error}"),
            };
            records.push(entry::to_record(group, entry, base_offset));
        }
        let run = outgoing.run(required.max(replica.floor));
        run.records.append(&mut records);
        run.positions.push((group, last.index, last.term));
        let end = replica.track.next_offset().0 as i64;
        if let Some(partition) = replica.partition() {
            partition.view().set_log_end(end);
        }
    }

    fn write(&mut self, outgoing: Outgoing) {
        // Messages that brought no entries need their permits no longer. With several runs the last one is the last to be stored,
        // but for a difference in durability; the first one holds the permits, so that a slow sync does not stop the peers.
        let mut permits = Some(std::mem::take(&mut self.permits));
        for run in outgoing.runs {
            let (shards, fatal) = (self.context.shards.clone(), self.context.fatal.clone());
            let permits = permits.take();
            let (positions, durability) = (run.positions, run.durability);
            let wal_durability = to_wal(durability);
            let shard_of = positions[0].0;
            if planted("acknowledged-before-written") {
                self.context
                    .shards
                    .send(shard_of, ShardMessage::Stored { positions: positions.clone(), durability });
            }
            self.context.wal.append(run.records, wal_durability, move |result| {
                drop(permits);
                match result {
                    Ok(()) => shards.send(shard_of, ShardMessage::Stored { positions, durability }),
                    Err(error) => on_append_error(&shards, &fatal, positions, &error),
                }
            });
        }
        self.sync(outgoing.syncs);
    }

    /// Syncs what was handed to the WAL so far, in one go for all groups that want it.
    fn sync(&self, positions: Vec<(GroupId, Index, Term)>) {
        let Some(&(shard_of, ..)) = positions.first() else { return };
        let (shards, fatal) = (self.context.shards.clone(), self.context.fatal.clone());
        self.context.wal.sync(move |result| match result {
            Ok(()) => {
                shards.send(shard_of, ShardMessage::Stored { positions, durability: Durability::Synced });
            }
            Err(error) => fatal.report(format!("the WAL could not be synced: {error}")),
        });
    }

    /// The commit path: every committed entry of every group passes here, once, in order.
    fn apply_all(&mut self, group: GroupId, entries: Vec<Entry<Command>>) {
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        let now_ms = self.context.env.unix_ms();
        let mut published = None;
        let mut new_log_start = None;
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            self.context.env.show(group, &Event::Applied { index, term, body: &entry.body });
            replica.track.commit(index);
            replica.applied_term = term;
            match (&mut replica.machine, &entry.body) {
                (Machine::Partition(partition), Body::Data(command)) => {
                    let applied = partition.apply(index, term, command, now_ms);
                    if applied.tail_bytes > 0 {
                        self.tails.push_back((group, applied.tail_bytes));
                        self.tail_bytes += applied.tail_bytes;
                    }
                    new_log_start = applied.new_log_start.or(new_log_start);
                }
                (Machine::Partition(partition), _) => partition.apply_bare(index, term),
                (Machine::Metadata(metadata), body) => {
                    let bytes = match body {
                        Body::Data(command) if command.tag == EntryTag::Metadata => {
                            Some(command.payload.to_bytes())
                        }
                        _ => None,
                    };
                    metadata.apply(index, term, bytes.as_deref());
                    published = Some(index);
                }
            }
        }
        if let Some(index) = published {
            self.publish_metadata(index);
        }
        if let Some((log_start, replica)) = new_log_start.zip(self.replicas.get(&group)) {
            self.move_log_start(group, replica, log_start);
        }
    }

    /// Shows the metadata through `index` to readers. A deletion is checkpointed before anybody can act on it.
    fn publish_metadata(&mut self, index: Index) {
        let deleted = match self.replicas.get_mut(&METADATA_GROUP).map(|replica| &mut replica.machine) {
            Some(Machine::Metadata(metadata)) => metadata.machine.take_deleted(),
            _ => return,
        };
        if deleted {
            self.checkpoint_groups(&[METADATA_GROUP]);
        }
        if let Some(Machine::Metadata(metadata)) =
            self.replicas.get_mut(&METADATA_GROUP).map(|replica| &mut replica.machine)
        {
            metadata.machine.publish(index);
        }
    }

    /// Reads committed entries that are not in memory, a part at a time, on a blocking thread; they are applied when they come.
    /// What cannot be read takes the group out of service: it could never go on.
    fn read_committed(&self, group: GroupId, range: CommittedRange) {
        let (wal, shards) = (self.context.wal.clone(), self.context.shards.clone());
        let Some(life) = self.replicas.get(&group).map(|replica| replica.life) else { return };
        let CommittedRange { from, through } = range;
        let limit = ReadLimit { max_bytes: COMMITTED_READ_BYTES, max_records: MAX_RECORDS_PER_READ };
        self.context.env.spawn_blocking(move || {
            let entries = read_entries(&wal, group, from, through, limit);
            shards.send(group, ShardMessage::CommittedRead { group, life, range, entries });
        });
    }

    /// Applies what [`Self::read_committed`] read, and asks for the rest.
    pub(super) fn on_committed_read(
        &mut self,
        group: GroupId,
        life: u64,
        range: CommittedRange,
        entries: Result<Vec<Entry<Command>>, Unreadable>,
    ) {
        let CommittedRange { from, through } = range;
        let goes_on = |replica: &Replica| {
            replica.life == life && replica.applied().next() == from && replica.starts_after < from
        };
        if !self.replicas.get(&group).is_some_and(goes_on) {
            // The log has been replaced meanwhile, or is being replaced: what was read, or could no longer be, is of the past.
            return;
        }
        let entries = match entries {
            Ok(entries) => entries,
            Err(Unreadable::Damaged(index)) => {
                warn!(%group, %index, "a committed entry is damaged: nothing is applied before it is repaired");
                self.context.repairs.report(group, index);
                self.stalled.insert(group, range);
                return;
            }
            Err(Unreadable::Other(reason)) => return self.fail_group(group, &reason),
        };
        let Some(last) = entries.last().map(|entry| entry.index) else { return };
        self.apply_all(group, entries);
        if last < through {
            self.read_committed(group, CommittedRange { from: last.next(), through });
        } else {
            self.raft.committed_read(group, through);
        }
    }

    /// Entries that were damaged may be whole again.
    pub(super) fn on_repaired(&mut self, group: GroupId) {
        if let Some(range) = self.stalled.remove(&group) {
            self.read_committed(group, range);
        }
        self.open_put_off(group, false);
    }

    fn read_for_follower(&self, group: GroupId, request: ReadRequest) {
        let (wal, shards) = (self.context.wal.clone(), self.context.shards.clone());
        let repairs = self.context.repairs.clone();
        let ReadRequest { to, from, through, max_bytes } = request;
        let limit = ReadLimit { max_bytes: max_bytes as u64, max_records: MAX_RECORDS_PER_READ };
        self.context.env.spawn_blocking(move || {
            // An answer without entries makes the core ask again later, or send a "start here". What is damaged here comes from a
            // follower that has it meanwhile; if none has, no other leader could do better.
            let entries = read_entries(&wal, group, from, through, limit).unwrap_or_else(|unreadable| {
                if let Unreadable::Damaged(index) = unreadable {
                    repairs.report(group, index);
                }
                warn!(%group, %to, %unreadable, "entries for a follower cannot be read");
                Vec::new()
            });
            let entries = if planted("entry-left-out") { without_second(entries) } else { entries };
            let prev_term = entries.first().map_or(Term::ZERO, |entry| entry.prev_term);
            shards.send(group, ShardMessage::EntriesRead { group, to, from, prev_term, entries });
        });
    }

    /// Tells a follower that is behind the log's start where to begin.
    fn provide_start(&mut self, group: GroupId, to: ReplicaId) {
        let Some(replica) = self.replicas.get(&group) else { return };
        let start = match &replica.machine {
            // Clients may read everything from the start of the log on, so a new replica gets all of it too.
            Machine::Partition(_) => {
                let Some(bounds) = self.context.wal.bounds(helix_wal::GroupId(group.0)) else { return };
                let (index, term) = (Index(bounds.start_index.0), Term(bounds.start_term.0));
                self.start_at(group, index, term, bounds.start_offset)
            }
            Machine::Metadata(metadata) => {
                let Some(term) = self.raft.term_at(group, metadata.applied) else { return };
                self.start_at(group, metadata.applied, term, replica.track.committed_offset())
            }
        };
        // Without one the core asks again.
        if let Some(start) = start {
            self.raft.start_provided(group, to, start);
        }
    }

    /// Replaces a group's log by "start here": on disk first, then in memory.
    fn install(&mut self, group: GroupId, start: Start<Command>) {
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        replica.starts_after = start.index;
        replica.checkpointed = start.index;
        let record = start_record(group, &start);
        self.context.env.show(group, &Event::Installing { index: start.index, term: start.term });
        let (shards, fatal) = (self.context.shards.clone(), self.context.fatal.clone());
        self.context.wal.append(vec![record], helix_wal::Durability::Synced, move |result| match result {
            Ok(()) => shards.send(group, ShardMessage::StartInstalled { group, start }),
            Err(error) => fatal.report(format!("a group's new start could not be stored: {error}")),
        });
    }

    /// The "start here" is on disk: the state machine and the core follow.
    pub(super) fn on_start_installed(&mut self, group: GroupId, start: &Start<Command>) {
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        let next_offset = start.payload.base_offset;
        let bytes = match GroupCheckpoint::decode(&start.payload.payload.to_bytes()) {
            Ok(checkpoint) => checkpoint.state,
            Err(damage) => return self.fail_group(group, &damage.to_string()),
        };
        let restored = match &mut replica.machine {
            Machine::Partition(partition) => PartitionCheckpoint::decode(&bytes, self.context.env.unix_ms())
                .map(|checkpoint| partition.install(checkpoint, start.term))
                .map_err(|error| error.to_string()),
            Machine::Metadata(metadata) => {
                metadata.applied = start.index;
                metadata.machine.restore(start.index, &bytes).map_err(|error| error.to_string())
            }
        };
        if let Err(reason) = restored {
            self.fail_group(group, &reason);
            return;
        }
        replica.track = OffsetTrack::new(start.index, next_offset);
        replica.applied_term = start.term;
        self.context.env.show(group, &Event::Installed { index: start.index, term: start.term });
        self.raft.start_installed(group, start.index, start.term);
    }

    fn trim_tails(&mut self) {
        let limit = self.context.config.get().tail_max_bytes / self.context.shards.count();
        while self.tail_bytes > limit {
            let Some((group, bytes)) = self.tails.pop_front() else { break };
            self.tail_bytes -= bytes;
            if let Some(partition) = self.replicas.get_mut(&group).and_then(Replica::partition) {
                partition.view().drop_oldest();
            }
        }
        self.raft.trim_tails();
    }
}

/// The WAL record of a "start here".
pub(super) fn start_record(group: GroupId, start: &Start<Command>) -> Record {
    Record {
        group: helix_wal::GroupId(group.0),
        kind: RecordKind::Start,
        index: helix_wal::Index(start.index.0),
        term: helix_wal::Term(start.term.0),
        prev_term: helix_wal::Term(start.term.0),
        base_offset: start.payload.base_offset,
        offset_count: 0,
        max_timestamp_ms: entry::NO_TIMESTAMP,
        payload: start.payload.payload.clone(),
    }
}

/// Why entries cannot be had from the WAL.
#[derive(Debug, Error)]
pub(crate) enum Unreadable {
    /// This one is damaged. Another replica may have it.
    #[error("entry {0} is damaged")]
    Damaged(Index),
    /// Anything else; a text for people.
    #[error("{0}")]
    Other(String),
}

impl Unreadable {
    /// What is behind an error of the WAL.
    pub(super) fn from_read(error: &ReadError) -> Self {
        match error {
            ReadError::Damaged { index, .. } => Self::Damaged(Index(index.0)),
            error => Self::Other(format!("entries cannot be read: {error}")),
        }
    }
}

/// Reads entries `from ..= through`, as many as the limit allows but at least one.
pub(super) fn read_entries(
    wal: &Wal,
    group: GroupId,
    from: Index,
    through: Index,
    limit: ReadLimit,
) -> Result<Vec<Entry<Command>>, Unreadable> {
    let stored = wal
        .read(helix_wal::GroupId(group.0), helix_wal::Index(from.0), limit)
        .map_err(|error| Unreadable::from_read(&error))?;
    let entries: Result<Vec<_>, _> = stored
        .iter()
        .take_while(|stored| stored.record.index.0 <= through.0)
        .map(|stored| entry::from_record(&stored.record))
        .collect();
    match entries {
        Ok(entries) if !entries.is_empty() => Ok(entries),
        Ok(_) => Err(Unreadable::Other(format!("entry {from} is missing in the WAL"))),
        Err(error) => Err(Unreadable::Other(error.to_string())),
    }
}

fn on_append_error(
    shards: &Shards,
    fatal: &Fatal,
    positions: Vec<(GroupId, Index, Term)>,
    error: &helix_wal::AppendError,
) {
    match error {
        helix_wal::AppendError::DiskFull | helix_wal::AppendError::Invalid { .. } => {
            // The log itself is whole. Leaders among these groups step down, and their entries leave the log.
            warn!(%error, groups = positions.len(), "entries were not stored");
            for (group, _, _) in positions {
                shards.send(group, ShardMessage::AppendFailed { group });
            }
        }
        _ => fatal.report(format!("the WAL cannot be written: {error}")),
    }
}

/// A durability in the words of the WAL.
fn to_wal(durability: Durability) -> helix_wal::Durability {
    match durability {
        Durability::PageCache => helix_wal::Durability::PageCache,
        Durability::Synced => helix_wal::Durability::Synced,
    }
}

/// The bug of a catch-up that leaves an entry out: the one behind it takes its place.
fn without_second(mut entries: Vec<Entry<Command>>) -> Vec<Entry<Command>> {
    if entries.len() > 2 {
        entries.remove(1);
        for (at, entry) in entries.iter_mut().enumerate().skip(1) {
            entry.index = Index(entry.index.0 - 1);
            entry.prev_term = if at == 1 { entry.term } else { entry.prev_term };
        }
    }
    entries
}
