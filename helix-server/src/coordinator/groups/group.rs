//! One group: its members, how far its rebalance is, and the rules that every call goes by.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::{
    GroupError, JoinAnswer, JoinGroup, JoinRefused, Joined, JoinedMember, Protocol, Reply, SyncAnswer,
    Synced, duration_of,
};
use super::offsets::{CommittedOffset, OffsetKey};
use super::records::{StoredGroup, StoredMember};
use super::undecided::Undecided;
use crate::coordinator::Now;

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// All have joined, and wait for what their leader assigns them.
    CompletingRebalance,
    /// Every member knows what is its own.
    Stable,
}

impl State {
    /// Its name in Kafka.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// The wait for members to join.
#[derive(Debug)]
pub(super) struct Rebalance {
    pub(super) deadline: Instant,
    /// The first of an empty group: it is not over before the deadline, which moves on while more members come, for so long at most
    /// (KIP-134).
    pub(super) initial: Option<Duration>,
    /// Somebody has come since the deadline was set.
    pub(super) member_added: bool,
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// It has not got its first answer to JoinGroup yet, so it cannot send heartbeats.
    pub(super) is_new: bool,
    pub(super) joining: Option<Reply<JoinAnswer>>,
    pub(super) syncing: Option<Reply<SyncAnswer>>,
    /// It has asked for its assignment in this generation.
    pub(super) synced: bool,
    /// Waits until it is stored that it took another's place.
    pub(super) replacing: Option<(Joined, Reply<JoinAnswer>)>,
    /// When it counts as gone, if it says nothing until then.
    pub(super) deadline: Instant,
}

impl Member {
    pub(super) fn new(id: String, request: JoinGroup, now: Now) -> Self {
        Self {
            id,
            instance: request.instance,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout: duration_of(request.session_timeout_ms),
            rebalance_timeout: duration_of(request.rebalance_timeout_ms),
            protocols: request.protocols,
            assignment: Bytes::new(),
            is_new: true,
            joining: None,
            syncing: None,
            synced: false,
            replacing: None,
            deadline: now.instant,
        }
    }

    fn restored(stored: StoredMember, protocol: Option<&str>, now: Now) -> Self {
        let session_timeout = duration_of(stored.session_timeout_ms);
        let name = protocol.unwrap_or_default().to_owned();
        Self {
            id: stored.id,
            instance: stored.instance_id,
            client_id: stored.client_id,
            client_host: stored.client_host,
            session_timeout,
            rebalance_timeout: duration_of(stored.rebalance_timeout_ms),
            protocols: vec![Protocol { name, metadata: stored.subscription }],
            assignment: stored.assignment,
            is_new: false,
            joining: None,
            syncing: None,
            synced: true,
            replacing: None,
            deadline: now.instant + session_timeout,
        }
    }

    /// It is there: its session begins anew.
    pub(super) fn heard(&mut self, now: Now) {
        self.deadline = now.instant + self.session_timeout;
    }

    /// When it counts as gone. While the coordinator owes it an answer it cannot show that it is there.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        let waits = self.joining.is_some() && !self.is_new || self.syncing.is_some();
        (!waits).then_some(self.deadline)
    }

    pub(super) fn metadata_for(&self, protocol: Option<&str>) -> Bytes {
        let spoken = self.protocols.iter().find(|spoken| Some(spoken.name.as_str()) == protocol);
        spoken.map(|spoken| spoken.metadata.clone()).unwrap_or_default()
    }

    /// Answers whatever it waits for.
    pub(super) fn refuse(&mut self, error: &GroupError) {
        if let Some(reply) = self.joining.take() {
            reply.send(Err(JoinRefused { error: error.clone(), member: self.id.clone() }));
        }
        if let Some((_, reply)) = self.replacing.take() {
            reply.send(Err(JoinRefused { error: error.clone(), member: self.id.clone() }));
        }
        self.refuse_sync(error);
    }

    pub(super) fn refuse_sync(&mut self, error: &GroupError) {
        if let Some(reply) = self.syncing.take() {
            reply.send(Err(error.clone()));
        }
    }

    fn stored(&self, protocol: Option<&str>, assignment: Bytes) -> StoredMember {
        let ms = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        StoredMember {
            id: self.id.clone(),
            instance_id: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: ms(self.rebalance_timeout),
            session_timeout_ms: ms(self.session_timeout),
            subscription: self.metadata_for(protocol),
            assignment,
        }
    }
}

/// The names of protocols, each once.
fn names(protocols: &[Protocol]) -> impl Iterator<Item = &str> {
    let names: BTreeSet<&str> = protocols.iter().map(|protocol| protocol.name.as_str()).collect();
    names.into_iter()
}

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: String,
    pub(super) state: State,
    /// When its state last changed, in milliseconds since 1970.
    pub(super) since_ms: i64,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// How many members speak each protocol.
    spoken: BTreeMap<String, usize>,
    /// Members by instance id (KIP-345).
    pub(super) statics: BTreeMap<String, String>,
    /// Ids that were given out, to be joined with until then (KIP-394).
    pub(super) pending: BTreeMap<String, Instant>,
    pub(super) rebalance: Option<Rebalance>,
    /// Until when members have to ask for what is assigned to them.
    pub(super) sync_deadline: Option<Instant>,
    /// What the leader has assigned is on its way to the log.
    pub(super) storing: bool,
    /// As of the last record of it.
    pub(super) stored: Option<StoredGroup>,
    pub(super) offsets: BTreeMap<OffsetKey, CommittedOffset>,
    /// Clients are told that there is such a group: somebody has asked to join it, or it is in the log. Until a record says that it is gone.
    pub(super) exists: bool,
    /// What of it is on its way to the log.
    pub(super) undecided: Undecided,
    /// When it is noted to be looked at.
    pub(super) wake_at: Option<Instant>,
}

impl Group {
    pub(super) fn new(id: &str, now_ms: i64) -> Self {
        Self {
            id: id.to_owned(),
            state: State::Empty,
            since_ms: now_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            spoken: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeMap::new(),
            rebalance: None,
            sync_deadline: None,
            storing: false,
            stored: None,
            offsets: BTreeMap::new(),
            exists: false,
            undecided: Undecided::default(),
            wake_at: None,
        }
    }

    /// Nobody is in it, and no offset is kept for it. What was on its way when it was to be deleted may have changed that; an id that was
    /// given out is void, as in Kafka, and its owner asks for another.
    pub(super) fn is_unused(&self) -> bool {
        self.members.is_empty() && self.offsets.is_empty()
    }

    /// Whether clients are told of it.
    pub(super) fn is_known(&self) -> bool {
        self.exists || !self.is_unused()
    }

    /// Something would be lost with it. What is on its way has to find the group that it was written for: another one of the same id would begin
    /// with the same generation, and take what is not its own.
    pub(super) fn stays(&self) -> bool {
        self.is_known() || !self.undecided.is_none()
    }

    /// Comes to life as it was stored: whoever was a member is one, and has a session's time to show that it is there.
    pub(super) fn restore(&mut self, now: Now) {
        let Some(stored) = self.stored.clone() else { return };
        self.state = if stored.members.is_empty() { State::Empty } else { State::Stable };
        self.since_ms = stored.since_ms;
        self.generation = stored.generation;
        self.protocol_type = (!stored.protocol_type.is_empty()).then_some(stored.protocol_type);
        self.leader = stored.leader;
        for member in stored.members {
            if let Some(instance) = &member.instance_id {
                self.statics.insert(instance.clone(), member.id.clone());
            }
            let member = Member::restored(member, stored.protocol.as_deref(), now);
            self.insert(member);
        }
        self.protocol = stored.protocol;
    }

    /// As it is to be stored, with these assignments; a member without one gets nothing to do.
    pub(super) fn to_store(&self, assignments: &BTreeMap<&str, Bytes>) -> StoredGroup {
        let protocol = self.protocol.as_deref();
        let members = self.members.values().map(|member| {
            let assignment = assignments.get(member.id.as_str()).cloned().unwrap_or_default();
            member.stored(protocol, assignment)
        });
        StoredGroup {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            since_ms: self.since_ms,
            members: members.collect(),
        }
    }

    pub(super) fn enter(&mut self, state: State, now: Now) {
        self.state = state;
        self.since_ms = now.unix_ms;
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// The longest time that any member needs to join again.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    /// When something is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let members = self.members.values().filter_map(Member::expires_at);
        let pending = self.pending.values().copied();
        let rebalance = self.rebalance.as_ref().map(|rebalance| rebalance.deadline);
        members.chain(pending).chain(rebalance).chain(self.sync_deadline).min()
    }

    // ---------------------------------------------------------------------------------------------------------------
    // Members

    /// Whether a call comes from a member.
    ///
    /// # Errors
    /// [`GroupError::UnknownMemberId`], or [`GroupError::FencedInstanceId`] if another one has taken its place. Who has no id has given up its
    /// place itself: librdkafka sends a heartbeat so when its session is over, and takes being fenced (which it is in Kafka) for the end.
    pub(super) fn check_member(&self, member: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(known) if known != member && !member.is_empty() => {
                    return Err(GroupError::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// As [`Self::check_member`], and whether it is of this generation.
    pub(super) fn check_generation(
        &self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        self.check_member(member, instance)?;
        if generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    pub(super) fn add(&mut self, member: Member, protocol_type: String) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        self.pending.remove(&member.id);
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        self.leader.get_or_insert_with(|| member.id.clone());
        self.insert(member);
    }

    fn insert(&mut self, member: Member) {
        names(&member.protocols).for_each(|name| *self.spoken.entry(name.to_owned()).or_default() += 1);
        self.members.insert(member.id.clone(), member);
    }

    /// A member speaks these protocols from now on.
    pub(super) fn set_protocols(&mut self, member: &str, protocols: Vec<Protocol>) {
        if let Some(mut member) = self.remove(member) {
            member.protocols = protocols;
            self.insert(member);
        }
    }

    fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        for name in names(&member.protocols) {
            if let Some(count) = self.spoken.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.spoken.remove(name);
                }
            }
        }
        Some(member)
    }

    /// Takes a member out. Whatever it waits for is answered with `error`.
    pub(super) fn take_out(&mut self, id: &str, error: &GroupError) -> Option<Member> {
        let mut member = self.remove(id)?;
        member.refuse(error);
        if let Some(instance) = &member.instance
            && self.statics.get(instance).is_some_and(|known| known == id)
        {
            self.statics.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Whether a group that may have `max_size` members has room for this one.
    pub(super) fn has_room_for(&self, member: &str, max_size: usize) -> bool {
        let joining = || self.members.values().filter(|member| member.joining.is_some()).count();
        match self.state {
            State::Empty => true,
            // Whoever comes back first stays; the limit may have been lowered.
            State::PreparingRebalance => {
                self.members.get(member).is_some_and(|member| member.joining.is_some())
                    || joining() < max_size
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(member) || self.members.len() < max_size
            }
        }
    }

    // ---------------------------------------------------------------------------------------------------------------
    // Protocols

    /// Whether someone who speaks these can be a member.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|protocol| self.is_common(&protocol.name))
    }

    fn is_common(&self, protocol: &str) -> bool {
        self.spoken.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    /// The protocol that most members prefer of those that all speak. Between equals the leader's order decides.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let common = member.protocols.iter().find(|protocol| self.is_common(&protocol.name));
            common.into_iter().for_each(|common| *votes.entry(&common.name).or_default() += 1);
        }
        let count = |name: &str| votes.get(name).copied().unwrap_or(0);
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        let spoken = &leader.or_else(|| self.members.values().next())?.protocols;
        // `max_by_key` takes the last of equals.
        spoken.iter().rev().map(|protocol| &protocol.name).max_by_key(|name| count(name)).cloned()
    }

    // ---------------------------------------------------------------------------------------------------------------
    // A rebalance

    /// Whether everybody who is known has joined, or will not come.
    pub(super) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    /// Makes a member the leader who has joined; `false` if there is none.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let joined = |member: &&Member| member.joining.is_some();
        let leads = self.leader.as_ref().and_then(|leader| self.members.get(leader)).filter(joined);
        let leader = leads.or_else(|| self.members.values().find(joined)).map(|member| member.id.clone());
        let found = leader.is_some();
        self.leader = leader.or(self.leader.take());
        found
    }

    /// What a member is told of its generation. The leader is told of everybody.
    pub(super) fn joined(&self, member: &str) -> Joined {
        let protocol = self.protocol.as_deref();
        let all = |member: &Member| JoinedMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata_for(protocol),
        };
        let told = if self.is_leader(member) { self.members.values().map(all).collect() } else { Vec::new() };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member: member.to_owned(),
            skip_assignment: false,
            members: told,
        }
    }

    /// What a member is to do.
    pub(super) fn synced(&self, member: &Member) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: member.assignment.clone(),
        }
    }

    /// Nothing is assigned any more; who waits for it joins again.
    pub(super) fn forget_assignments(&mut self, error: &GroupError) {
        for member in self.members.values_mut() {
            member.assignment = Bytes::new();
            member.refuse_sync(error);
        }
    }
}
