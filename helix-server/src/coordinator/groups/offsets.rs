//! Committed offsets: OffsetCommit, OffsetFetch, OffsetDelete, and their expiry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Buf;
use helix_raft::{GroupId, planted};

use super::call::{GroupError, OffsetResults, Reply};
use super::group::{Group, State};
use super::undecided::Change;
use super::{Groups, Then, What, records};
use crate::coordinator::{Effects, Now};

/// Largest `offset.metadata.max.bytes`: records hold texts with a length of 16 bits.
pub(crate) const MAX_METADATA_BYTES_LIMIT: i64 = i16::MAX as i64;
/// What consumers call their protocol.
const CONSUMER: &str = "consumer";

/// Which partition an offset is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OffsetKey {
    /// Shared: a request may name many partitions of a topic, and a topic's name may be long.
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) offset: i64,
    /// -1 if the client does not know it.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    /// Milliseconds since 1970.
    pub(crate) committed_ms: i64,
    /// When it expires, if the client has said so.
    pub(crate) expires_ms: Option<i64>,
    /// The Raft group of the partition. It tells the partition from another of the same name, before or after it. `None` if it is not known.
    pub(crate) incarnation: Option<GroupId>,
}

/// An offset to be committed.
#[derive(Debug, Clone)]
pub(crate) struct NewOffset {
    pub(crate) key: OffsetKey,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    /// As in [`CommittedOffset`].
    pub(crate) incarnation: Option<GroupId>,
}

/// OffsetCommit.
#[derive(Debug, Clone)]
pub(crate) struct CommitOffsets {
    pub(crate) group: String,
    /// Negative for who is no member.
    pub(crate) generation: i32,
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    /// For how long to keep them, if the client says so.
    pub(crate) retention_ms: Option<i64>,
    pub(crate) offsets: Vec<NewOffset>,
}

/// OffsetFetch.
#[derive(Debug, Clone)]
pub(crate) struct FetchOffsets {
    pub(crate) group: String,
    /// Partitions by topic, each of them once: what is committed may be a thousand times as large as the name of a partition. `None`: all that
    /// there are.
    pub(crate) partitions: Option<BTreeMap<Arc<str>, BTreeSet<i32>>>,
}

/// An answer to [`FetchOffsets`]: partitions by topic, in their order. `None`: nothing is committed.
pub(crate) type FetchedOffsets = BTreeMap<Arc<str>, Vec<(i32, Option<CommittedOffset>)>>;

/// OffsetDelete.
#[derive(Debug, Clone)]
pub(crate) struct DeleteOffsets {
    pub(crate) group: String,
    pub(crate) keys: Vec<OffsetKey>,
}

/// Answers a commit when it is decided. What was refused at once stays so.
#[derive(Debug)]
pub(crate) struct CommitReply {
    reply: Reply<OffsetResults>,
    results: OffsetResults,
}

impl CommitReply {
    pub(super) fn committed(self) {
        self.reply.send(self.results);
    }

    pub(super) fn refused(self, error: &GroupError) {
        let all = self.results.into_iter();
        self.reply.send(all.map(|(key, refused)| (key, refused.or_else(|| Some(error.clone())))).collect());
    }
}

/// Answers a deletion when it is decided.
#[derive(Debug)]
pub(crate) struct DeleteReply {
    reply: Reply<Result<OffsetResults, GroupError>>,
    results: OffsetResults,
}

impl DeleteReply {
    pub(super) fn deleted(self) {
        self.reply.send(Ok(self.results));
    }

    pub(super) fn refused(self, error: &GroupError) {
        self.reply.send(Err(error.clone()));
    }
}

impl Groups {
    pub(super) fn commit_offsets(
        &mut self,
        request: CommitOffsets,
        reply: Reply<OffsetResults>,
        now: Now,
        effects: &mut Effects<Then>,
    ) {
        // Whoever keeps offsets without being a member needs no group.
        if request.generation >= 0 && !self.groups.contains_key(&request.group) {
            return refuse(request, reply, &GroupError::GroupIdNotFound);
        }
        let id = request.group.clone();
        self.with_new(&id, now, |groups, group| match check_commit(group, &request, now) {
            Ok(()) => groups.commit_in(group, request, reply, now, effects),
            Err(error) => refuse(request, reply, &error),
        });
    }

    fn commit_in(
        &self,
        group: &mut Group,
        request: CommitOffsets,
        reply: Reply<OffsetResults>,
        now: Now,
        effects: &mut Effects<Then>,
    ) {
        let expires_ms = request.retention_ms.map(|ms| now.unix_ms.saturating_add(ms));
        let (mut change, mut results) = (Change::default(), Vec::new());
        for new in request.offsets {
            let refused = self.check_offset(&group.id, &new).err();
            if refused.is_none() {
                let committed = CommittedOffset {
                    offset: new.offset,
                    leader_epoch: new.leader_epoch,
                    metadata: new.metadata,
                    committed_ms: now.unix_ms,
                    expires_ms,
                    incarnation: new.incarnation,
                };
                change.set_offset(&group.id, new.key.clone(), &committed);
            }
            results.push((new.key, refused));
        }
        let reply = CommitReply { reply, results };
        if change.is_empty() {
            reply.committed();
        } else if planted("offsets-acknowledged-early") {
            reply.committed();
            group.write(change, What::Expired, effects);
        } else {
            group.write(change, What::OffsetsCommitted(reply), effects);
        }
    }

    fn check_offset(&self, group: &str, new: &NewOffset) -> Result<(), GroupError> {
        if new.metadata.len() > self.config.offset_metadata_max_bytes {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        let fits = [group, &*new.key.topic, &new.metadata].into_iter().all(records::fits);
        if fits { Ok(()) } else { Err(GroupError::InvalidRequest) }
    }

    pub(super) fn fetch_offsets(&self, request: FetchOffsets) -> Result<FetchedOffsets, GroupError> {
        let group = self.groups.get(&request.group);
        let Some(asked) = request.partitions else {
            let mut all = FetchedOffsets::new();
            for (key, offset) in group.into_iter().flat_map(|group| &group.offsets) {
                let of_topic = all.entry(Arc::clone(&key.topic)).or_default();
                of_topic.push((key.partition, Some(offset.clone())));
            }
            return Ok(all);
        };
        let committed = |topic: &Arc<str>, partition| {
            let key = OffsetKey { topic: Arc::clone(topic), partition };
            group.and_then(|group| group.offsets.get(&key)).cloned()
        };
        let of_topic = |(topic, partitions): (Arc<str>, BTreeSet<i32>)| {
            let found =
                partitions.into_iter().map(|partition| (partition, committed(&topic, partition))).collect();
            (topic, found)
        };
        Ok(asked.into_iter().map(of_topic).collect())
    }

    pub(super) fn delete_offsets(
        &mut self,
        request: DeleteOffsets,
        reply: Reply<Result<OffsetResults, GroupError>>,
        effects: &mut Effects<Then>,
    ) {
        let Some(group) = self.groups.get_mut(&request.group) else {
            return reply.send(Err(GroupError::GroupIdNotFound));
        };
        let read = match subscribed_topics(group) {
            _ if group.state == State::Empty => BTreeSet::new(),
            Some(topics) => topics,
            // It is not known what such members read.
            None => return reply.send(Err(GroupError::NonEmptyGroup)),
        };
        let (mut change, mut results) = (Change::default(), Vec::new());
        for key in request.keys {
            let refused = read.contains(&*key.topic).then_some(GroupError::GroupSubscribedToTopic);
            if refused.is_none() && (group.offsets.contains_key(&key) || group.undecided.holds(&key)) {
                change.delete_offset(&group.id, key.clone());
            }
            results.push((key, refused));
        }
        let reply = DeleteReply { reply, results };
        if change.is_empty() {
            reply.deleted();
        } else {
            group.write(change, What::OffsetsDeleted(reply), effects);
        }
    }

    /// What was committed for partitions that are gone goes too: another one of that name begins at 0. Of offsets that do not say which partition
    /// they are of it is asked whether their topic is among `topics`.
    ///
    /// What is on its way is in the log already when this comes to lie behind it, so the last write of an offset counts.
    pub(super) fn delete_gone(&mut self, topics: &[String], effects: &mut Effects<Then>) {
        for group in self.groups.values_mut() {
            let is_gone = |key: &OffsetKey, incarnation: Option<GroupId>| match incarnation {
                Some(incarnation) => (self.is_gone)(key, incarnation),
                None => topics.iter().any(|topic| **topic == *key.topic),
            };
            let offsets = group.offsets_to_come().into_iter();
            let gone: Vec<&OffsetKey> =
                offsets.filter(|(key, incarnation)| is_gone(key, *incarnation)).map(|(key, _)| key).collect();
            let mut change = Change::default();
            gone.into_iter().for_each(|key| change.delete_offset(&group.id, key.clone()));
            if !change.is_empty() {
                group.write(change, What::Expired, effects);
            }
        }
    }

    /// Deletes what has not been used for `offsets.retention.minutes` (KIP-211), and groups without members that no offset is kept for. What is
    /// on its way may be news of either: then it is looked again the next time.
    pub(super) fn expire_offsets(&mut self, now: Now, effects: &mut Effects<Then>) {
        for group in self.groups.values_mut() {
            let expired = expired(group, self.config.offsets_retention_ms, now);
            let nothing_left = group.state == State::Empty
                && expired.len() == group.offsets.len()
                && group.pending.is_empty()
                && group.undecided.is_none();
            let mut change = Change::default();
            expired.into_iter().for_each(|key| change.delete_offset(&group.id, key.clone()));
            if nothing_left {
                change = change.group(&group.id, None);
            }
            if !change.is_empty() {
                group.write(change, What::Expired, effects);
            }
        }
    }
}

fn refuse(request: CommitOffsets, reply: Reply<OffsetResults>, error: &GroupError) {
    let refused = |new: NewOffset| (new.key, Some(error.clone()));
    reply.send(request.offsets.into_iter().map(refused).collect());
}

/// Whether a commit may be taken. That a member commits shows that it is there.
fn check_commit(group: &mut Group, request: &CommitOffsets, now: Now) -> Result<(), GroupError> {
    let is_member = request.generation >= 0 || !request.member.is_empty() || request.instance.is_some();
    if request.generation < 0 && group.state == State::Empty {
        return Ok(());
    }
    if !is_member {
        // It would overwrite what the members commit.
        return Err(GroupError::UnknownMemberId);
    }
    group.check_generation(&request.member, request.instance.as_deref(), request.generation)?;
    if group.state == State::CompletingRebalance {
        return Err(GroupError::RebalanceInProgress);
    }
    if let Some(member) = group.members.get_mut(&request.member) {
        member.heard(now);
    }
    Ok(())
}

fn is_past(since_ms: i64, retention_ms: i64, now: Now) -> bool {
    now.unix_ms.saturating_sub(since_ms) >= retention_ms
}

fn expired(group: &Group, retention_ms: i64, now: Now) -> Vec<&OffsetKey> {
    let read = subscribed_topics(group);
    let is_expired = |key: &OffsetKey, offset: &CommittedOffset| match (group.state, offset.expires_ms) {
        (State::Empty, Some(expires_ms)) => now.unix_ms >= expires_ms,
        // Whoever keeps offsets without being a member is as good as gone when it does not commit any more.
        (State::Empty, None) if group.protocol_type.is_none() => {
            is_past(offset.committed_ms, retention_ms, now)
        }
        (State::Empty, None) => is_past(group.since_ms.max(offset.committed_ms), retention_ms, now),
        // As long as there are members, only what they do not read (any more).
        (State::Stable, _) if read.as_ref().is_none_or(|read| read.contains(&*key.topic)) => false,
        (State::Stable, Some(expires_ms)) => now.unix_ms >= expires_ms,
        (State::Stable, None) => is_past(offset.committed_ms, retention_ms, now),
        (State::PreparingRebalance | State::CompletingRebalance, _) => false,
    };
    let expired = |(key, offset): &(&OffsetKey, &CommittedOffset)| {
        is_expired(key, offset) && !group.undecided.holds(key)
    };
    group.offsets.iter().filter(expired).map(|(key, _)| key).collect()
}

/// The topics that the members read; `None` if they are no consumers, or it cannot be told.
fn subscribed_topics(group: &Group) -> Option<BTreeSet<String>> {
    if group.protocol_type.as_deref() != Some(CONSUMER) || group.protocol.is_none() {
        return None;
    }
    let mut all = BTreeSet::new();
    for member in group.members.values() {
        all.extend(topics_of(&member.metadata_for(group.protocol.as_deref()))?);
    }
    Some(all)
}

/// The topics of a consumer's subscription (ConsumerProtocolSubscription of any version begins with them).
fn topics_of(mut bytes: &[u8]) -> Option<Vec<String>> {
    let _version = bytes.try_get_i16().ok()?;
    let count = usize::try_from(bytes.try_get_i32().ok()?).ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let len = usize::try_from(bytes.try_get_i16().ok()?).ok()?;
        let (name, rest) = bytes.split_at_checked(len)?;
        topics.push(std::str::from_utf8(name).ok()?.to_owned());
        bytes = rest;
    }
    Some(topics)
}
