//! SyncGroup: the leader's assignments are stored, then every member gets its own.

use std::collections::BTreeMap;

use super::call::{GroupError, Reply, SyncAnswer, SyncGroup};
use super::group::{Group, State};
use super::undecided::Change;
use super::{Groups, Then, What};
use crate::coordinator::{Effects, Now};

impl Groups {
    pub(super) fn sync(
        &mut self,
        request: &SyncGroup,
        reply: Reply<SyncAnswer>,
        now: Now,
        effects: &mut Effects<Then>,
    ) {
        let id = request.group.clone();
        let mut reply = Some(reply);
        self.with(&id, |groups, group| {
            let Some(reply) = reply.take() else { return };
            match check(group, request) {
                Ok(()) => groups.sync_member(group, request, reply, now, effects),
                Err(error) => reply.send(Err(error)),
            }
        });
        if let Some(reply) = reply {
            let empty = id.is_empty();
            reply.send(Err(if empty { GroupError::InvalidGroupId } else { GroupError::UnknownMemberId }));
        }
    }

    fn sync_member(
        &self,
        group: &mut Group,
        request: &SyncGroup,
        reply: Reply<SyncAnswer>,
        now: Now,
        effects: &mut Effects<Then>,
    ) {
        let Some(member) = group.members.get_mut(&request.member) else { return };
        member.synced = true;
        member.heard(now);
        if group.state == State::Stable {
            let member = &group.members[&request.member];
            reply.send(Ok(group.synced(member)));
        } else {
            member.syncing = Some(reply);
            if group.is_leader(&request.member) && !group.storing {
                store_assignments(group, request, effects);
            }
        }
        if group.members.values().all(|member| member.synced) {
            group.sync_deadline = None;
        }
    }

    /// The assignments were not taken by the log: the members have to begin again.
    pub(super) fn assignment_refused(
        &self,
        group: &mut Group,
        generation: i32,
        error: &GroupError,
        now: Now,
        effects: &mut Effects<Then>,
    ) {
        if group.generation != generation || group.state != State::CompletingRebalance {
            return;
        }
        group.forget_assignments(error);
        self.prepare_rebalance(group, now, effects);
    }

    /// Members that have not asked for their assignment in time are taken out.
    pub(super) fn sync_time_over(&self, group: &mut Group, now: Now, effects: &mut Effects<Then>) {
        group.sync_deadline = None;
        if !matches!(group.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let late: Vec<String> =
            group.members.values().filter(|member| !member.synced).map(|member| member.id.clone()).collect();
        for id in &late {
            group.take_out(id, &GroupError::UnknownMemberId);
        }
        if !late.is_empty() {
            self.prepare_rebalance(group, now, effects);
        }
    }
}

fn check(group: &Group, request: &SyncGroup) -> Result<(), GroupError> {
    group.check_generation(&request.member, request.instance.as_deref(), request.generation)?;
    let differs = |asked: &Option<String>, is: &Option<String>| asked.is_some() && asked != is;
    if differs(&request.protocol_type, &group.protocol_type) || differs(&request.protocol, &group.protocol) {
        return Err(GroupError::InconsistentGroupProtocol);
    }
    match group.state {
        State::Empty => Err(GroupError::UnknownMemberId),
        State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
        State::CompletingRebalance | State::Stable => Ok(()),
    }
}

fn store_assignments(group: &mut Group, request: &SyncGroup, effects: &mut Effects<Then>) {
    group.storing = true;
    let assignments: BTreeMap<&str, _> =
        request.assignments.iter().map(|(member, bytes)| (member.as_str(), bytes.clone())).collect();
    let change = Change::default().group(&group.id, Some(&group.to_store(&assignments)));
    let generation = group.generation;
    group.write(change, What::AssignmentStored { generation }, effects);
}

impl Group {
    /// The assignments of this generation are committed, and in [`Group::stored`].
    pub(super) fn assignment_stored(&mut self, generation: i32, now: Now) {
        let is_current = self.storing && self.generation == generation;
        let Some(stored) = self.stored.as_ref().filter(|_| is_current) else { return };
        self.storing = false;
        for one in &stored.members {
            if let Some(member) = self.members.get_mut(&one.id) {
                member.assignment = one.assignment.clone();
            }
        }
        self.enter(State::Stable, now);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let synced = self.synced(&self.members[&id]);
            let Some(member) = self.members.get_mut(&id) else { continue };
            if let Some(reply) = member.syncing.take() {
                member.heard(now);
                reply.send(Ok(synced));
            }
        }
    }
}
