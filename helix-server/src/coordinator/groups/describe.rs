//! DescribeGroups, ListGroups and DeleteGroups.

use super::call::{DescribedGroup, DescribedMember, GroupError, ListedGroup, Reply};
use super::group::{Member, State};
use super::undecided::Change;
use super::{Groups, Then, What};
use crate::coordinator::Effects;

impl Groups {
    /// `None`: there is no such group.
    pub(super) fn describe(&self, id: &str) -> Option<DescribedGroup> {
        let group = self.groups.get(id).filter(|group| group.is_known())?;
        // Between two generations no protocol is chosen; members still hold what they were assigned last.
        let stable = group.state == State::Stable;
        let protocol = group.protocol.as_deref().filter(|_| stable);
        let member = |member: &Member| DescribedMember {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata_for(protocol),
            assignment: member.assignment.clone(),
        };
        Some(DescribedGroup {
            state: group.state.name(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: group.members.values().map(member).collect(),
        })
    }

    pub(super) fn list(&self) -> Vec<ListedGroup> {
        let known = self.groups.values().filter(|group| group.is_known());
        let listed = known.map(|group| ListedGroup {
            id: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state.name(),
        });
        listed.collect()
    }

    pub(super) fn delete(
        &mut self,
        id: &str,
        reply: Reply<Result<(), GroupError>>,
        effects: &mut Effects<Then>,
    ) {
        let Some(group) = self.groups.get_mut(id) else {
            return reply.send(Err(GroupError::GroupIdNotFound));
        };
        if group.state != State::Empty {
            return reply.send(Err(GroupError::NonEmptyGroup));
        }
        // Also those that are on their way: whoever hears that the group is gone must not find them.
        let mut change = Change::default();
        group.offsets_to_come().into_keys().for_each(|key| change.delete_offset(id, key.clone()));
        group.write(change.group(id, None), What::Deleted(reply), effects);
    }
}
