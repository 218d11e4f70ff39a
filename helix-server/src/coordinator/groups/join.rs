//! JoinGroup: new members, members that come again, and the rebalance that gathers them.

use tokio::time::Instant;

use super::call::{GroupError, JoinAnswer, JoinGroup, JoinRefused, Reply, duration_of};
use super::group::{Group, Member, Rebalance, State};
use super::records::StoredGroup;
use super::undecided::Change;
use super::{Groups, Then, What, records};
use crate::coordinator::{Effects, Now};

/// How long a new member's JoinGroup may wait. It has no id yet with which to send heartbeats, and its connection cannot show that it is gone: it is
/// expected to ask again after this. As in Kafka.
const NEW_MEMBER_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5 * 60);

/// How long static members that have not come back are waited for at least, at a time: their timeouts are their own, and may be 0.
const LEAST_WAIT_FOR_LEADER: std::time::Duration = std::time::Duration::from_secs(1);

/// Most protocols of a member. Clients have a handful; every one is looked at, and kept, for every member.
const MAX_PROTOCOLS: usize = 1000;
/// One JoinGroup, and what every step towards its answer needs.
struct Joining<'a> {
    request: JoinGroup,
    reply: Reply<JoinAnswer>,
    now: Now,
    effects: &'a mut Effects<Then>,
}

impl Joining<'_> {
    fn refuse(self, error: GroupError) {
        refuse(self.reply, error, self.request.member);
    }
}

impl Groups {
    pub(super) fn join(
        &mut self,
        request: JoinGroup,
        reply: Reply<JoinAnswer>,
        now: Now,
        effects: &mut Effects<Then>,
    ) {
        if let Err(error) = self.check_join(&request) {
            return refuse(reply, error, request.member);
        }
        let id = request.group.clone();
        self.with_new(&id, now, |groups, group| {
            if !group.stays() {
                // Whatever comes of it, it is listed until it expires: as in Kafka.
                group.exists = true;
                group.note(effects);
            }
            groups.join_group(group, Joining { request, reply, now, effects });
        });
    }

    fn check_join(&self, request: &JoinGroup) -> Result<(), GroupError> {
        let texts = [&request.group, &request.member, &request.client_id, &request.protocol_type];
        let names = request.protocols.iter().map(|protocol| &protocol.name).chain(&request.instance);
        // Ids get a UUID of 36 characters behind them.
        let room_for_id = |text: &String| text.len() <= i16::MAX as usize - 40;
        if request.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        if !texts.into_iter().chain(names).all(|text| records::fits(text) && room_for_id(text)) {
            return Err(GroupError::InvalidRequest);
        }
        if request.protocols.len() > MAX_PROTOCOLS {
            return Err(GroupError::TooManyProtocols { limit: MAX_PROTOCOLS });
        }
        let valid = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if !valid.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if !request.member.is_empty() && !self.groups.contains_key(&request.group) {
            return Err(GroupError::UnknownMemberId);
        }
        Ok(())
    }

    fn join_group(&self, group: &mut Group, joining: Joining<'_>) {
        let request = &joining.request;
        if !group.supports(&request.protocol_type, &request.protocols) {
            return joining.refuse(GroupError::InconsistentGroupProtocol);
        }
        if !group.has_room_for(&request.member, self.config.max_size) {
            group.take_out(&request.member, &GroupError::GroupMaxSizeReached);
            return joining.refuse(GroupError::GroupMaxSizeReached);
        }
        if request.member.is_empty() {
            self.join_new(group, joining);
        } else {
            self.join_known(group, joining);
        }
    }

    fn join_new(&self, group: &mut Group, joining: Joining<'_>) {
        let request = &joining.request;
        let uuid = (self.new_uuid)();
        let id = format!("{}-{uuid}", request.instance.as_ref().unwrap_or(&request.client_id));
        match &request.instance {
            Some(instance) => match group.statics.get(instance).cloned() {
                Some(before) => self.replace_static(group, &before, id, joining),
                None => self.add(group, id, joining),
            },
            None if request.takes_member_id => {
                let until = joining.now.instant + duration_of(request.session_timeout_ms);
                group.pending.insert(id.clone(), until);
                refuse(joining.reply, GroupError::MemberIdRequired, id);
            }
            None => self.add(group, id, joining),
        }
    }

    fn join_known(&self, group: &mut Group, joining: Joining<'_>) {
        let request = &joining.request;
        let id = request.member.clone();
        if group.pending.contains_key(&id) && request.instance.is_none() {
            return self.add(group, id, joining);
        }
        if let Err(error) = group.check_member(&id, request.instance.as_deref()) {
            return joining.refuse(error);
        }
        let same = group.members.get(&id).is_some_and(|member| member.protocols == request.protocols);
        let again = match group.state {
            // Its leader joins again to have partitions assigned anew.
            State::Stable => same && !group.is_leader(&id),
            // The answer may have been lost.
            State::CompletingRebalance => same,
            State::PreparingRebalance => false,
            State::Empty => return joining.refuse(GroupError::UnknownMemberId),
        };
        if again {
            return joining.reply.send(Ok(group.joined(&id)));
        }
        self.join_again(group, joining);
    }

    /// A new member, with the id that it was given.
    fn add(&self, group: &mut Group, id: String, joining: Joining<'_>) {
        let Joining { request, reply, now, effects } = joining;
        if let Some(rebalance) = &mut group.rebalance {
            rebalance.member_added = true;
        }
        let protocol_type = request.protocol_type.clone();
        let mut member = Member::new(id, request, now);
        member.joining = Some(reply);
        member.deadline = now.instant + NEW_MEMBER_PATIENCE;
        group.add(member, protocol_type);
        self.rebalance(group, now, effects);
    }

    fn join_again(&self, group: &mut Group, joining: Joining<'_>) {
        let Joining { request, reply, now, effects } = joining;
        let Some(member) = group.members.get_mut(&request.member) else { return };
        member.rebalance_timeout = duration_of(request.rebalance_timeout_ms);
        member.session_timeout = duration_of(request.session_timeout_ms);
        // An earlier request of it that waits is of a connection that is gone.
        member.joining = Some(reply);
        group.set_protocols(&request.member, request.protocols);
        self.rebalance(group, now, effects);
    }

    /// A static member has come back without its member id: it was started again, and takes the place that it had (KIP-345).
    fn replace_static(&self, group: &mut Group, before: &str, id: String, joining: Joining<'_>) {
        let Joining { request, reply, now, effects } = joining;
        let old_leader = group.leader.clone();
        let can_skip_assignment = request.can_skip_assignment;
        let was_leader = group.is_leader(before);
        let protocol_type = request.protocol_type.clone();
        let Some(old) = group.take_out(before, &GroupError::FencedInstanceId) else { return };
        let mut member = Member::new(id.clone(), request, now);
        member.assignment = old.assignment;
        member.synced = old.synced;
        if was_leader {
            group.leader = Some(id.clone());
        }
        if group.state != State::Stable || group_would_change(group, &member) {
            member.joining = Some(reply);
            member.deadline = now.instant + NEW_MEMBER_PATIENCE;
            group.add(member, protocol_type);
            return self.rebalance(group, now, effects);
        }
        member.is_new = false;
        member.heard(now);
        group.add(member, protocol_type);
        let mut joined = group.joined(&id);
        if can_skip_assignment {
            joined.skip_assignment = was_leader;
        } else {
            // Told of its own leadership it would assign anew, and the others would not hear of it (KIP-814).
            joined.leader = old_leader.unwrap_or_default();
            joined.members.clear();
        }
        let assignments = group.members.values().map(|m| (m.id.as_str(), m.assignment.clone())).collect();
        let stored = group.to_store(&assignments);
        if let Some(member) = group.members.get_mut(&id) {
            member.replacing = Some((joined, reply));
        }
        let change = Change::default().group(&group.id, Some(&stored));
        group.write(change, What::MemberReplaced { member: id }, effects);
    }

    /// Members are to join anew; or it is over, if this was the last one to wait for.
    pub(super) fn rebalance(&self, group: &mut Group, now: Now, effects: &mut Effects<Then>) {
        if group.state == State::PreparingRebalance {
            self.maybe_complete_join(group, now, effects);
        } else {
            self.prepare_rebalance(group, now, effects);
        }
    }

    pub(super) fn prepare_rebalance(&self, group: &mut Group, now: Now, effects: &mut Effects<Then>) {
        if group.state == State::CompletingRebalance {
            group.forget_assignments(&GroupError::RebalanceInProgress);
        }
        group.sync_deadline = None;
        group.storing = false;
        let timeout = group.rebalance_timeout();
        let (wait, initial) = if group.state == State::Empty {
            let delay = self.config.initial_rebalance_delay;
            (delay, Some(timeout.saturating_sub(delay)))
        } else {
            (timeout, None)
        };
        group.rebalance = Some(Rebalance { deadline: now.instant + wait, initial, member_added: false });
        group.enter(State::PreparingRebalance, now);
        self.maybe_complete_join(group, now, effects);
    }

    pub(super) fn maybe_complete_join(&self, group: &mut Group, now: Now, effects: &mut Effects<Then>) {
        let waits_for_more = group.rebalance.as_ref().is_some_and(|rebalance| rebalance.initial.is_some());
        if group.state == State::PreparingRebalance && !waits_for_more && group.all_joined() {
            self.complete_join(group, now, effects);
        }
    }

    /// The time for joining is over.
    pub(super) fn join_time_over(&self, group: &mut Group, now: Now, effects: &mut Effects<Then>) {
        let delay = self.config.initial_rebalance_delay;
        let Some(rebalance) = &mut group.rebalance else { return };
        match &mut rebalance.initial {
            Some(left) if rebalance.member_added && !left.is_zero() => {
                let wait = delay.min(*left);
                *left = left.saturating_sub(delay);
                rebalance.member_added = false;
                rebalance.deadline = now.instant + wait;
            }
            _ => self.complete_join(group, now, effects),
        }
    }

    /// Whoever has joined makes up the next generation. Static members that have not keep their places.
    fn complete_join(&self, group: &mut Group, now: Now, effects: &mut Effects<Then>) {
        let absent = |member: &&Member| member.joining.is_none() && member.instance.is_none();
        let absent: Vec<String> = group.members.values().filter(absent).map(|m| m.id.clone()).collect();
        for id in absent {
            group.take_out(&id, &GroupError::UnknownMemberId);
        }
        let waits_for_leader = !group.elect_joined_leader() && !group.members.is_empty();
        if waits_for_leader {
            // None but static members, and none of them has come back: their sessions decide.
            let deadline: Instant = now.instant + group.rebalance_timeout().max(LEAST_WAIT_FOR_LEADER);
            group.rebalance = Some(Rebalance { deadline, initial: None, member_added: false });
            return;
        }
        group.rebalance = None;
        group.generation = group.generation.checked_add(1).unwrap_or(1);
        if group.members.is_empty() {
            return self.become_empty(group, now, effects);
        }
        group.protocol = group.select_protocol();
        group.enter(State::CompletingRebalance, now);
        group.sync_deadline = Some(now.instant + group.rebalance_timeout());
        let ids: Vec<String> = group.members.keys().cloned().collect();
        for id in ids {
            let joined = group.joined(&id);
            let renamed = group.written_as(&id);
            let Some(member) = group.members.get_mut(&id) else { continue };
            member.synced = false;
            let Some(reply) = member.joining.take() else { continue };
            member.is_new = false;
            member.heard(now);
            match renamed {
                None => reply.send(Ok(joined)),
                Some(written) => {
                    member.replacing = Some((joined, reply));
                    let change = Change::default().group(&group.id, Some(&written));
                    group.write(change, What::MemberReplaced { member: id }, effects);
                }
            }
        }
    }

    fn become_empty(&self, group: &mut Group, now: Now, effects: &mut Effects<Then>) {
        group.protocol = None;
        group.leader = None;
        group.enter(State::Empty, now);
        group.note(effects);
    }
}

/// Whether the members would speak another protocol with this one among them.
fn group_would_change(group: &Group, member: &Member) -> bool {
    let speaks = |name: &String| member.protocols.iter().any(|protocol| protocol.name == *name);
    !group.protocol.as_ref().is_some_and(speaks)
}

fn refuse(reply: Reply<JoinAnswer>, error: GroupError, member: String) {
    reply.send(Err(JoinRefused { error, member }));
}

impl Group {
    /// The last record of the group, under the id that a static member has now, if it has another one there. Nobody may be told of such an id
    /// before it is stored: the next coordinator would know the former one alone, and refuse the member for good. (Kafka's does.)
    fn written_as(&self, id: &str) -> Option<StoredGroup> {
        let instance = self.members.get(id)?.instance.as_ref()?;
        let mut written = self.written()?.clone();
        let place = written.members.iter_mut().find(|one| one.instance_id.as_ref() == Some(instance))?;
        if place.id == id {
            return None;
        }
        let before = std::mem::replace(&mut place.id, id.to_owned());
        if written.leader.as_ref() == Some(&before) {
            written.leader = Some(id.to_owned());
        }
        Some(written)
    }

    /// It is stored that a member has taken another's place.
    pub(super) fn answer_replaced(&mut self, member: &str) {
        if let Some((joined, reply)) = self.members.get_mut(member).and_then(|m| m.replacing.take()) {
            reply.send(Ok(joined));
        }
    }

    /// It is not stored that a member has taken another's place. It asks again, and takes its own.
    pub(super) fn refuse_replaced(&mut self, member: &str, error: &GroupError) {
        if let Some((_, reply)) = self.members.get_mut(member).and_then(|m| m.replacing.take()) {
            reply.send(Err(JoinRefused { error: error.clone(), member: member.to_owned() }));
        }
    }
}
