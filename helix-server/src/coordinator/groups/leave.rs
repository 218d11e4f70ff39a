//! LeaveGroup: members that go, or are sent away by an administrator.

use super::call::{GroupError, LeaveGroup, LeavingMember, LeftMember};
use super::group::Group;
use super::{Groups, Then};
use crate::coordinator::{Effects, Now};

impl Groups {
    pub(super) fn leave(
        &mut self,
        request: &LeaveGroup,
        now: Now,
        effects: &mut Effects<Then>,
    ) -> Result<Vec<LeftMember>, GroupError> {
        if request.group.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.with(&request.group, |groups, group| groups.leave_group(group, &request.members, now, effects))
            .ok_or(GroupError::UnknownMemberId)
    }

    fn leave_group(
        &self,
        group: &mut Group,
        members: &[LeavingMember],
        now: Now,
        effects: &mut Effects<Then>,
    ) -> Vec<LeftMember> {
        let mut gone = Vec::new();
        let mut pending_gone = false;
        let answers = members.iter().map(|who| {
            let result = match leaving(group, who) {
                Ok(Leaving::Pending) => {
                    group.pending.remove(&who.member);
                    pending_gone = true;
                    Ok(())
                }
                Ok(Leaving::Member(id)) => {
                    group.take_out(&id, &GroupError::UnknownMemberId);
                    gone.push(id);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            LeftMember { who: who.clone(), error: result.err() }
        });
        let answers = answers.collect();
        if !gone.is_empty() {
            self.remove(group, &[], now, effects);
        } else if pending_gone {
            self.maybe_complete_join(group, now, effects);
        }
        answers
    }
}

enum Leaving {
    /// It was given an id, and has not joined with it.
    Pending,
    Member(String),
}

fn leaving(group: &Group, who: &LeavingMember) -> Result<Leaving, GroupError> {
    let Some(instance) = &who.instance else {
        return if group.pending.contains_key(&who.member) {
            Ok(Leaving::Pending)
        } else if group.members.contains_key(&who.member) {
            Ok(Leaving::Member(who.member.clone()))
        } else {
            Err(GroupError::UnknownMemberId)
        };
    };
    let known = group.statics.get(instance).ok_or(GroupError::UnknownMemberId)?;
    // An administrator knows the instance alone.
    if who.member.is_empty() || who.member == *known {
        Ok(Leaving::Member(known.clone()))
    } else {
        Err(GroupError::FencedInstanceId)
    }
}
