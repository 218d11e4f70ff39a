//! Consumer groups of the classic protocol, and committed offsets.
//!
//! One [`Groups`] holds the groups of one partition of `__consumer_offsets`. One file per thing that is asked: [`join`], [`sync`],
//! [`heartbeat`] (and members that are silent), [`leave`], [`offsets`], [`describe`] (and deleting). [`group`] is the state of one group and the rules that
//! all of them share; [`records`] is what is stored. Durable are the committed offsets, and each group as of the end of its last rebalance; the
//! rest (who waits for what, pending members, deadlines) lives and ends with the coordinator: clients ask again.
//!
//! The rules are those of Apache Kafka's `GroupMetadataManager` for classic groups (KIP-62, 98, 134, 345, 394, 429, 559, 814).

pub(crate) mod call;
mod describe;
mod group;
mod heartbeat;
mod join;
mod leave;
mod offsets;
mod records;
mod sync;
mod undecided;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use helix_raft::GroupId;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use call::GroupCall;
pub(crate) use offsets::MAX_METADATA_BYTES_LIMIT;

use super::{Effects, LogRecord, Now, StateMachine, WriteError};
use crate::config::BrokerConfig;
use call::GroupError;
use group::Group;
use offsets::OffsetKey;
use records::Key;

/// What of the node's configuration groups go by.
#[derive(Debug, Clone)]
pub(crate) struct GroupsConfig {
    pub(crate) initial_rebalance_delay: Duration,
    pub(crate) min_session_timeout_ms: i32,
    pub(crate) max_session_timeout_ms: i32,
    pub(crate) max_size: usize,
    pub(crate) offset_metadata_max_bytes: usize,
    pub(crate) offsets_retention_ms: i64,
    pub(crate) offsets_retention_check_interval: Duration,
}

impl GroupsConfig {
    pub(crate) fn of(config: &BrokerConfig) -> Self {
        Self {
            initial_rebalance_delay: Duration::from_millis(config.group_initial_rebalance_delay_ms),
            min_session_timeout_ms: config.group_min_session_timeout_ms,
            max_session_timeout_ms: config.group_max_session_timeout_ms,
            max_size: config.group_max_size,
            offset_metadata_max_bytes: config.offset_metadata_max_bytes,
            offsets_retention_ms: config.offsets_retention_minutes.saturating_mul(60_000),
            offsets_retention_check_interval: Duration::from_millis(
                config.offsets_retention_check_interval_ms,
            ),
        }
    }
}

/// A write that is to be decided.
pub(crate) struct Then {
    /// Whose records they are.
    group: String,
    /// One is of the group itself.
    of_group: bool,
    /// The offsets among them.
    offsets: Vec<OffsetKey>,
    what: What,
}

/// What is to be done when a write is decided.
enum What {
    /// A group's assignment is stored: its members get theirs.
    AssignmentStored {
        generation: i32,
    },
    /// A static member has taken the place of another with the same instance id.
    MemberReplaced {
        member: String,
    },
    /// There is a group, or it has no members any more: nobody waits for that to be stored.
    Noted,
    /// Offsets are committed.
    OffsetsCommitted(offsets::CommitReply),
    /// Offsets or a group were deleted.
    Deleted(call::Reply<Result<(), GroupError>>),
    OffsetsDeleted(offsets::DeleteReply),
    /// What has expired is gone.
    Expired,
}

/// Whether the partition of an offset, as it was when that was committed, is gone for good.
pub(crate) type IsGone = Box<dyn Fn(&OffsetKey, GroupId) -> bool + Send + Sync>;

/// The groups of one partition.
pub(crate) struct Groups {
    config: GroupsConfig,
    new_uuid: Box<dyn Fn() -> Uuid + Send + Sync>,
    is_gone: IsGone,
    groups: BTreeMap<String, Group>,
    /// When groups want to be looked at; each at most once.
    wake: BTreeSet<(Instant, String)>,
    /// When expired offsets are looked for.
    retention_check: Option<Instant>,
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Groups").field("groups", &self.groups.len()).finish_non_exhaustive()
    }
}

impl Groups {
    pub(crate) fn new(
        config: GroupsConfig,
        new_uuid: Box<dyn Fn() -> Uuid + Send + Sync>,
        is_gone: IsGone,
    ) -> Self {
        let (groups, wake) = (BTreeMap::new(), BTreeSet::new());
        Self { config, new_uuid, is_gone, groups, wake, retention_check: None }
    }

    /// Does something with a group that there is; afterwards it is known when it wants to be looked at.
    fn with<T>(&mut self, group: &str, what: impl FnOnce(&mut Self, &mut Group) -> T) -> Option<T> {
        // It is taken out meanwhile so that both can be changed.
        let mut taken = self.groups.remove(group)?;
        let done = what(self, &mut taken);
        self.put_back(taken);
        Some(done)
    }

    /// As [`Self::with`], for a group that is made if there is none, and stays if something comes of it.
    fn with_new<T>(&mut self, group: &str, now: Now, what: impl FnOnce(&mut Self, &mut Group) -> T) -> T {
        let mut taken = self.groups.remove(group).unwrap_or_else(|| Group::new(group, now.unix_ms));
        let done = what(self, &mut taken);
        self.put_back(taken);
        done
    }

    /// Takes back what was taken out: the one place where it is decided whether a group stays.
    fn put_back(&mut self, mut group: Group) {
        if group.stays() {
            self.rearm(&mut group);
            self.groups.insert(group.id.clone(), group);
        } else if let Some(at) = group.wake_at {
            self.wake.remove(&(at, group.id));
        }
    }

    /// Notes when a group wants to be looked at. That asks all its members: a heartbeat costs as much as the group has members, which is little up to
    /// thousands of them.
    fn rearm(&mut self, group: &mut Group) {
        let next = group.next_deadline();
        // Deadlines move on with every heartbeat; to wake too early costs less than to note that every time.
        let later = matches!((group.wake_at, next), (Some(at), Some(next)) if at <= next);
        if group.wake_at == next || later {
            return;
        }
        if let Some(at) = group.wake_at.take() {
            self.wake.remove(&(at, group.id.clone()));
        }
        if let Some(at) = next {
            self.wake.insert((at, group.id.clone()));
            group.wake_at = next;
        }
    }

    /// The groups that want to be looked at by now. None of them is noted any more.
    fn take_due(&mut self, now: Now) -> Vec<String> {
        let mut due = Vec::new();
        while let Some((_, id)) = self.wake.first().filter(|(at, _)| *at <= now.instant) {
            due.push(id.clone());
            self.wake.pop_first();
        }
        due
    }

    fn replay_offset(&mut self, group: String, key: OffsetKey, value: Option<&[u8]>) -> Result<(), String> {
        let Some(value) = value else {
            // The group stays, without offsets, until it expires.
            self.with(&group, |_, group| group.offsets.remove(&key));
            return Ok(());
        };
        let offset = records::decode_offset(value)?;
        let group = self.groups.entry(group).or_insert_with_key(|id| Group::new(id, offset.committed_ms));
        group.exists = true;
        group.offsets.insert(key, offset);
        Ok(())
    }

    fn replay_group(&mut self, id: String, value: Option<&[u8]>) -> Result<(), String> {
        let Some(value) = value else {
            self.with(&id, |_, group| {
                group.stored = None;
                group.exists = false;
            });
            return Ok(());
        };
        let stored = records::decode_group(value)?;
        let group = self.groups.entry(id).or_insert_with_key(|id| Group::new(id, stored.since_ms));
        group.exists = true;
        group.stored = Some(stored);
        Ok(())
    }

    /// Nothing of a write is on its way any more.
    fn decided(&mut self, then: Then) -> (String, What) {
        let Then { group, of_group, offsets, what } = then;
        self.with(&group, |_, group| group.undecided.end(of_group, &offsets));
        (group, what)
    }
}

impl StateMachine for Groups {
    type Call = GroupCall;
    type Then = Then;

    fn barrier() -> LogRecord {
        // No client can have committed it: partitions begin at 0.
        records::offset_record("", &OffsetKey { topic: "".into(), partition: -1 }, None)
    }

    fn replay(&mut self, record: &LogRecord) -> Result<(), String> {
        match records::decode_key(&record.key)? {
            Key::Offset(group, key) => self.replay_offset(group, key, record.value.as_deref()),
            Key::Group(id) => self.replay_group(id, record.value.as_deref()),
            Key::Unknown => Ok(()),
        }
    }

    fn loaded(&mut self, now: Now, effects: &mut Effects<Then>) {
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with(&id, |groups, group| {
                group.restore(now);
                if group.members.len() > groups.config.max_size {
                    // The limit was lowered: whoever comes back first may stay.
                    groups.prepare_rebalance(group, now, effects);
                }
            });
        }
        // Nobody may have been there to hear of it when their topics were deleted.
        self.delete_gone(&[], effects);
        self.retention_check = Some(now.instant + self.config.offsets_retention_check_interval);
    }

    fn handle(&mut self, call: GroupCall, now: Now, effects: &mut Effects<Then>) {
        match call {
            GroupCall::Join(request, reply) => self.join(request, reply, now, effects),
            GroupCall::Sync(request, reply) => self.sync(&request, reply, now, effects),
            GroupCall::Heartbeat(request, reply) => reply.send(self.heartbeat(&request, now)),
            GroupCall::Leave(request, reply) => reply.send(self.leave(&request, now, effects)),
            GroupCall::CommitOffsets(request, reply) => self.commit_offsets(request, reply, now, effects),
            GroupCall::FetchOffsets(request, reply) => reply.send(self.fetch_offsets(request)),
            GroupCall::DeleteOffsets(request, reply) => self.delete_offsets(request, reply, effects),
            GroupCall::Describe(group, reply) => reply.send(self.describe(&group)),
            GroupCall::List(reply) => reply.send(self.list()),
            GroupCall::Delete(group, reply) => self.delete(&group, reply, effects),
            GroupCall::TopicsDeleted(topics) => self.delete_gone(&topics, effects),
        }
    }

    fn committed(&mut self, then: Then, now: Now) {
        let (group, what) = self.decided(then);
        match what {
            What::AssignmentStored { generation } => {
                self.with(&group, |_, group| group.assignment_stored(generation, now));
            }
            What::MemberReplaced { member } => {
                self.with(&group, |_, group| group.answer_replaced(&member));
            }
            What::OffsetsCommitted(reply) => reply.committed(),
            What::Deleted(reply) => reply.send(Ok(())),
            What::OffsetsDeleted(reply) => reply.deleted(),
            What::Noted | What::Expired => {}
        }
    }

    fn refused(&mut self, then: Then, error: &WriteError, now: Now, effects: &mut Effects<Then>) {
        let error = GroupError::from(error);
        let (group, what) = self.decided(then);
        match what {
            What::AssignmentStored { generation } => {
                self.with(&group, |groups, group| {
                    groups.assignment_refused(group, generation, &error, now, effects);
                });
            }
            What::MemberReplaced { member } => {
                self.with(&group, |_, group| group.refuse_replaced(&member, &error));
            }
            What::OffsetsCommitted(reply) => reply.refused(&error),
            What::Deleted(reply) => reply.send(Err(error)),
            What::OffsetsDeleted(reply) => reply.refused(&error),
            // What expires is looked for again; a group that has become empty is stored as it was, and its members of then will be found missing.
            What::Noted | What::Expired => {
                tracing::debug!(%error, "an upkeep of consumer groups was not stored");
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let groups = self.wake.first().map(|(at, _)| *at);
        [groups, self.retention_check].into_iter().flatten().min()
    }

    fn expire(&mut self, now: Now, effects: &mut Effects<Then>) {
        // Once each: what is due again at once has to wait its turn behind everything else.
        for id in self.take_due(now) {
            self.with(&id, |groups, group| {
                group.wake_at = None;
                groups.look_after(group, now, effects);
            });
        }
        if self.retention_check.is_some_and(|at| at <= now.instant) {
            self.delete_gone(&[], effects);
            self.expire_offsets(now, effects);
            self.retention_check = Some(now.instant + self.config.offsets_retention_check_interval);
        }
    }

    fn snapshot(&self) -> Vec<LogRecord> {
        let records = self.groups.iter().flat_map(|(id, group)| {
            let stored = group.stored.as_ref().map(|stored| records::group_record(id, Some(stored)));
            let offsets =
                group.offsets.iter().map(|(key, offset)| records::offset_record(id, key, Some(offset)));
            stored.into_iter().chain(offsets)
        });
        records.collect()
    }
}

#[cfg(test)]
mod tests;
