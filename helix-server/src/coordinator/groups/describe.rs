//! DescribeGroups, ListGroups and DeleteGroups.

use super::call::{DescribedGroup, DescribedMember, GroupError, ListedGroup, Reply};
use super::group::{Member, State};
use super::{Groups, Then, records};
use crate::coordinator::Effects;

impl Groups {
    /// `None`: there is no such group.
    pub(super) fn describe(&self, id: &str) -> Option<DescribedGroup> {
        let group = self.groups.get(id)?;
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
        let listed = self.groups.values().map(|group| ListedGroup {
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
        let Some(group) = self.groups.get(id) else { return reply.send(Err(GroupError::GroupIdNotFound)) };
        if group.state != State::Empty {
            return reply.send(Err(GroupError::NonEmptyGroup));
        }
        let offsets = group.offsets.keys().map(|key| records::offset_record(id, key, None));
        let records = offsets.chain([records::group_record(id, None)]).collect();
        effects.write(records, Then::Deleted(reply));
    }
}
