//! DescribeGroups (key 15): members and assignments of consumer groups.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::answer_room::{AnswerRoom, NO_ROOM, part_bytes};
use super::{errors, operations};
use crate::broker::Broker;
use crate::coordinator::groups::{GroupCall, call};

/// First version in which a group that does not exist is an error (KIP-1043).
const NOT_FOUND_FROM: i16 = 6;
/// First version in which an error has a message.
const MESSAGE_FROM: i16 = 6;
/// First version that names static members.
const INSTANCE_FROM: i16 = 4;

pub(super) async fn handle(
    broker: &Broker,
    request: DescribeGroupsRequest,
    version: i16,
    room: &mut AnswerRoom,
) -> DescribeGroupsResponse {
    let allowed = operations::on_group(request.include_authorized_operations);
    let mut groups = Vec::with_capacity(request.groups.len());
    for id in request.groups {
        let bytes = |group: &DescribedGroup| {
            part_bytes::<_, DescribedGroupMember>(group, group.members.len(), version)
        };
        let group = room.hold(describe(broker, id.clone(), version, allowed), bytes).await;
        groups.push(group.unwrap_or_else(|| no_room(id, version)));
        tokio::task::consume_budget().await;
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

async fn describe(broker: &Broker, id: GroupId, version: i16, allowed: i32) -> DescribedGroup {
    let call = |reply| GroupCall::Describe(id.to_string(), reply);
    match broker.coordinators().ask(broker, &id, call).await {
        Ok(Some(group)) => shape(id, group, version).with_authorized_operations(allowed),
        // Before it was an error, such a group was described as one without members.
        Ok(None) if version < NOT_FOUND_FROM => dead(id, errors::NONE).with_authorized_operations(allowed),
        Ok(None) => missing(id),
        Err(error) => dead(id, ResponseError::from(error).code()),
    }
}

/// Clients ask once more for the groups that are answered so, and for them alone.
fn no_room(id: GroupId, version: i16) -> DescribedGroup {
    let out = dead(id, ResponseError::CoordinatorLoadInProgress.code());
    if version >= MESSAGE_FROM {
        out.with_error_message(Some(StrBytes::from_static_str(NO_ROOM)))
    } else {
        out
    }
}

fn shape(id: GroupId, group: call::DescribedGroup, version: i16) -> DescribedGroup {
    let members = group.members.into_iter().map(|member| {
        let out = DescribedGroupMember::default()
            .with_member_id(StrBytes::from_string(member.id))
            .with_client_id(StrBytes::from_string(member.client_id))
            .with_client_host(StrBytes::from_string(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment);
        if version >= INSTANCE_FROM {
            out.with_group_instance_id(member.instance.map(StrBytes::from_string))
        } else {
            out
        }
    });
    DescribedGroup::default()
        .with_error_code(errors::NONE)
        .with_group_id(id)
        .with_group_state(StrBytes::from_static_str(group.state))
        .with_protocol_type(StrBytes::from_string(group.protocol_type))
        .with_protocol_data(StrBytes::from_string(group.protocol))
        .with_members(members.collect())
}

fn missing(id: GroupId) -> DescribedGroup {
    let message = format!("Group {} not found.", id.as_str());
    dead(id, ResponseError::GroupIdNotFound.code()).with_error_message(Some(StrBytes::from_string(message)))
}

fn dead(id: GroupId, code: i16) -> DescribedGroup {
    let state =
        if code == errors::NONE || code == ResponseError::GroupIdNotFound.code() { "Dead" } else { "" };
    DescribedGroup::default()
        .with_error_code(code)
        .with_group_id(id)
        .with_group_state(StrBytes::from_static_str(state))
        .with_authorized_operations(operations::NOT_ASKED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::protocol::Encodable;

    #[test]
    fn what_there_is_no_room_for_can_be_said_in_every_version() {
        for version in 0..=6 {
            let group = no_room(GroupId(StrBytes::from_static_str("g")), version);
            assert_eq!(group.error_message.is_some(), version >= MESSAGE_FROM);
            group.encode(&mut BytesMut::new(), version).expect("valid");
        }
    }
}
