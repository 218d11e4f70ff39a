//! Heartbeat, and what happens to those that send none.

use super::call::{GroupError, Heartbeat};
use super::group::{Group, State};
use super::{Groups, Then};
use crate::coordinator::{Effects, Now};

impl Groups {
    pub(super) fn heartbeat(&mut self, request: &Heartbeat, now: Now) -> Result<(), GroupError> {
        if request.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let beat = |group: &mut Group| {
            group.check_generation(&request.member, request.instance.as_deref(), request.generation)?;
            if let Some(member) = group.members.get_mut(&request.member) {
                member.heard(now);
            }
            match group.state {
                State::Empty => Err(GroupError::UnknownMemberId),
                State::PreparingRebalance => Err(GroupError::RebalanceInProgress),
                // Consumers begin with heartbeats before they have their assignment.
                State::CompletingRebalance | State::Stable => Ok(()),
            }
        };
        self.with(&request.group, |_, group| beat(group)).unwrap_or(Err(GroupError::UnknownMemberId))
    }

    /// Does what is due in a group.
    pub(super) fn look_after(&self, group: &mut Group, now: Now, effects: &mut Effects<Then>) {
        let due = |at: tokio::time::Instant| at <= now.instant;
        let before = group.pending.len();
        group.pending.retain(|_, until| !due(*until));
        if group.pending.len() < before {
            self.maybe_complete_join(group, now, effects);
        }
        let silent = group.members.values().filter(|member| member.expires_at().is_some_and(due));
        let silent: Vec<String> = silent.map(|member| member.id.clone()).collect();
        if !silent.is_empty() {
            self.remove(group, &silent, now, effects);
        }
        if group.rebalance.as_ref().is_some_and(|rebalance| due(rebalance.deadline)) {
            self.join_time_over(group, now, effects);
        }
        if group.sync_deadline.is_some_and(due) {
            self.sync_time_over(group, now, effects);
        }
    }

    /// Members are gone; the others share what they had.
    pub(super) fn remove(&self, group: &mut Group, ids: &[String], now: Now, effects: &mut Effects<Then>) {
        for id in ids {
            group.take_out(id, &GroupError::UnknownMemberId);
        }
        match group.state {
            State::Empty => {}
            State::PreparingRebalance => self.maybe_complete_join(group, now, effects),
            State::CompletingRebalance | State::Stable => self.prepare_rebalance(group, now, effects),
        }
    }
}
