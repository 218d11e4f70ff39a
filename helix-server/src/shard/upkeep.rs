//! What a shard does from time to time: checkpoints, retention, idle producers, and the end.

use helix_raft::{GroupId, Index};
use helix_wal::{Durability, Offset, Payload, Record, RecordKind};
use tokio::sync::oneshot;
use tracing::{debug, info};

use super::ShardMessage;
use super::checkpoint::GroupCheckpoint;
use super::drive::start_record;
use super::members::RECONCILE_TICKS;
use super::owner::{Owner, TICK};
use super::replica::Replica;
use crate::broker::delete_records::LogStartRequest;
use crate::entry::{Command, NO_TIMESTAMP};
use crate::env::Event;
use crate::partition::Partition;

/// Ticks between two looks at who is in sync.
const CONTACT_TICKS: u64 = 1000 / TICK.as_millis() as u64;
/// Ticks after which everything that is led here is told again: news may have been lost on the way.
const ANNOUNCE_TICKS: u64 = 15_000 / TICK.as_millis() as u64;

impl Owner {
    /// Called at every tick.
    pub(super) fn upkeep(&mut self) {
        if self.ticks.is_multiple_of(CONTACT_TICKS) {
            self.publish_contacts();
            self.publish_digests();
        }
        let check_every = self.context.config.get().log_retention_check_interval_ms / TICK.as_millis() as u64;
        if self.ticks.is_multiple_of(check_every.max(1)) {
            self.retire_old_data();
        }
        if self.ticks.is_multiple_of(ANNOUNCE_TICKS) {
            self.announce_all();
        }
        if self.ticks.is_multiple_of(RECONCILE_TICKS) {
            self.reconcile_members();
        }
        self.continue_hand_over();
    }

    /// Writes checkpoints of these groups, where something was applied since the last one.
    pub(super) fn checkpoint_groups(&mut self, groups: &[GroupId]) {
        let mut records = Vec::new();
        for group in groups {
            let news =
                self.replicas.get(group).is_some_and(|replica| replica.applied() > replica.checkpointed);
            let Some(checkpoint) = news.then(|| self.checkpoint_of(*group)).flatten() else { continue };
            if let Some(replica) = self.replicas.get_mut(group) {
                replica.checkpointed = replica.applied();
                records.push(checkpoint_record(*group, replica, &checkpoint));
            }
        }
        if records.is_empty() {
            return;
        }
        let fatal = self.context.fatal.clone();
        self.context.wal.append(records, Durability::PageCache, move |result| {
            if let Err(error) = result {
                // A missing checkpoint costs time at the next start and nothing else; a broken WAL reports itself.
                tracing::warn!(%error, "checkpoints were not written");
                if matches!(error, helix_wal::AppendError::Failed(_)) {
                    fatal.report(format!("the WAL cannot be written: {error}"));
                }
            }
        });
    }

    /// A committed command deleted the group's topic: its data goes.
    pub(super) fn delete_group(&mut self, group: GroupId) {
        self.context.env.show(group, &Event::Deleted);
        self.take_out(group);
        self.context.leaders.forget(group);
        let record = Record {
            group: helix_wal::GroupId(group.0),
            kind: RecordKind::Delete,
            index: helix_wal::Index(0),
            term: helix_wal::Term(0),
            prev_term: helix_wal::Term(0),
            base_offset: Offset(0),
            offset_count: 0,
            max_timestamp_ms: NO_TIMESTAMP,
            payload: Payload::empty(),
        };
        self.context.wal.append(vec![record], Durability::PageCache, move |result| {
            if let Err(error) = result {
                tracing::warn!(%group, %error, "the deletion was not recorded; it is repeated at the next start");
            }
        });
        self.context.votes.remove(group, move |result| {
            if let Err(error) = result {
                tracing::warn!(%group, %error, "the vote of a deleted group was not removed");
            }
        });
    }

    /// Whether the metadata here is of after the start of this process. What a disk remembers may be of long ago.
    fn knows_the_metadata(&self) -> bool {
        let image = self.context.image.load();
        let known = image.broker_of_replica(self.context.me).map(|broker| broker.incarnation);
        known == Some(self.context.incarnation)
    }

    /// As leader: moves log starts past what is too old or too much, and forgets idle producers. By limits of before this process a
    /// topic could lose what is to be kept now, for good.
    fn retire_old_data(&mut self) {
        if !self.knows_the_metadata() {
            return;
        }
        let now_ms = self.context.env.unix_ms();
        let groups: Vec<GroupId> =
            self.replicas.iter().filter(|(_, r)| r.announced.is_some()).map(|(group, _)| *group).collect();
        for group in groups {
            self.guarded(group, |owner| owner.retire_of(group, now_ms));
        }
    }

    fn retire_of(&mut self, group: GroupId, now_ms: i64) {
        let expiration_ms = i64::from(self.context.config.get().producer_id_expiration_ms);
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        let next_offset = replica.track.next_offset();
        let Some(partition) = replica.partition() else { return };
        if let Some(command) = partition.expiry_command(now_ms, expiration_ms, next_offset) {
            self.propose_upkeep(group, command);
        }
        let (retention_ms, retention_bytes) = match self.replicas.get_mut(&group).and_then(Replica::partition)
        {
            Some(partition) => partition.retention_limits(),
            None => return,
        };
        if retention_ms < 0 && retention_bytes < 0 {
            return;
        }
        // Looking through footers is IO: it happens on a blocking thread, and its outcome comes back as a message.
        let Some(view) = self.context.partitions.get(group) else { return };
        let (wal, shards) = (self.context.wal.clone(), self.context.shards.clone());
        let repairs = self.context.repairs.clone();
        self.context.env.spawn_blocking(move || {
            let limits = crate::broker::retention::Limits { retention_ms, retention_bytes, now_ms };
            match crate::broker::retention::log_start(&wal, &view, limits) {
                Ok(Some(log_start)) => shards.send(group, ShardMessage::Retire { group, log_start }),
                Ok(None) => {}
                Err(error) => {
                    repairs.report_failed_read(&error);
                    tracing::warn!(%group, %error, "retention could not look at the log");
                }
            }
        });
    }

    /// Retention found that the log should start later.
    pub(super) fn on_retire(&mut self, group: GroupId, log_start: i64) {
        let Some(replica) = self.replicas.get(&group).filter(|r| r.announced.is_some()) else { return };
        let command = Partition::log_start_command(log_start, replica.track.next_offset());
        self.propose_upkeep(group, command);
    }

    /// A client wants the log to start later. Without a replica that leads the request is dropped, which says so.
    pub(super) fn on_delete_records(&mut self, group: GroupId, request: LogStartRequest) {
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        let next_offset = replica.track.next_offset();
        let Some(partition) = replica.partition().filter(|p| p.serving_term().is_some()) else { return };
        let log_start = match partition.wanted_start(request.offset) {
            Ok(Some(log_start)) => log_start,
            Ok(None) => return request.answer(Ok(partition.view().log_start())),
            Err(error) => return request.answer(Err(error)),
        };
        let command = Partition::log_start_command(log_start, next_offset);
        match self.raft.propose(group, command) {
            Ok((index, term)) => partition.start_proposed(index, term, request),
            Err(refused) => debug!(%group, %refused, "records are not deleted here"),
        }
        self.drive();
    }

    /// Proposes an entry that takes no offsets, then drives, so that the next entry's offsets are known.
    fn propose_upkeep(&mut self, group: GroupId, command: Command) {
        if let Err(refused) = self.raft.propose(group, command) {
            debug!(%group, %refused, "upkeep is left to the next leader");
        }
        self.drive();
    }

    /// A committed entry moved the log start: finds, on a blocking thread, the first entry that is kept.
    /// At the latest it is the one behind what is applied: what comes later may yet be replaced.
    pub(super) fn move_log_start(&self, group: GroupId, replica: &Replica, log_start: i64) {
        let (life, applied, next_offset) =
            (replica.life, replica.applied(), replica.track.committed_offset());
        let (wal, shards) = (self.context.wal.clone(), self.context.shards.clone());
        let repairs = self.context.repairs.clone();
        self.context.env.spawn_blocking(move || {
            match crate::broker::retention::first_kept(&wal, group, log_start) {
                Ok(Some(found)) => {
                    let (index, base_offset) = found.min((applied.next(), next_offset));
                    shards.send(group, ShardMessage::StartFound { group, life, index, base_offset });
                }
                Ok(None) => {}
                Err(error) => {
                    repairs.report_failed_read(&error);
                    tracing::warn!(%group, %error, "the WAL keeps data that clients can no longer read");
                }
            }
        });
    }

    /// The WAL gets a "start here" in front of the first entry that is kept; what lies before it can be reclaimed.
    pub(super) fn on_start_found(
        &mut self,
        group: GroupId,
        life: u64,
        first_kept: Index,
        base_offset: Offset,
    ) {
        let index = first_kept.prev();
        let Some(term) = self.raft.term_at(group, index) else { return };
        let Some(start) = self.start_at(group, index, term, base_offset) else { return };
        let Some(checkpoint) = self.checkpoint_of(group) else { return };
        let Some(replica) = self.replicas.get_mut(&group).filter(|replica| replica.life == life) else {
            return;
        };
        // What a leader sent, or what was found before this, can have moved the start further meanwhile.
        if index <= replica.starts_after || index > replica.applied() {
            debug!(%group, %index, begins_after = %replica.starts_after, "a start found for the log is out of date");
            return;
        }
        replica.starts_after = index;
        replica.checkpointed = replica.applied();
        // The start makes earlier checkpoints void, and says nothing about what was applied since.
        let records = vec![start_record(group, &start), checkpoint_record(group, replica, &checkpoint)];
        info!(%group, %index, "old data retired");
        let shards = self.context.shards.clone();
        self.context.wal.append(records, Durability::PageCache, move |result| match result {
            Ok(()) => shards.send(group, ShardMessage::LogStartRecorded { group, index, term }),
            Err(error) => tracing::warn!(%group, %error, "the new start of a log was not recorded"),
        });
    }

    /// Writes checkpoints of everything, so that the next start reads little, and ends the shard.
    pub(super) fn stop(&mut self, done: oneshot::Sender<()>) {
        self.drive();
        let groups: Vec<GroupId> = self.replicas.keys().copied().collect();
        self.checkpoint_groups(&groups);
        for replica in self.replicas.values_mut() {
            replica.stop_serving(replica.applied_term);
        }
        self.context.wal.sync(move |result| {
            if let Err(error) = result {
                tracing::warn!(%error, "the WAL could not be synced at the end");
            }
            // The node waits for all shards; there is nobody else to tell.
            let _told = done.send(());
        });
    }
}

fn checkpoint_record(group: GroupId, replica: &Replica, checkpoint: &GroupCheckpoint) -> Record {
    Record {
        group: helix_wal::GroupId(group.0),
        kind: RecordKind::Checkpoint,
        index: helix_wal::Index(replica.applied().0),
        term: helix_wal::Term(replica.applied_term.0),
        prev_term: helix_wal::Term(replica.applied_term.0),
        base_offset: replica.track.committed_offset(),
        offset_count: 0,
        max_timestamp_ms: NO_TIMESTAMP,
        payload: Payload::from_chunks(vec![checkpoint.encode().into()]),
    }
}
