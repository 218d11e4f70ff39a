//! DescribeGroups (key 15): members and assignments of consumer groups.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::delete_groups::each_once;
use super::{errors, operations};
use crate::broker::Broker;
use crate::coordinator::groups::{GroupCall, call};

/// First version in which a group that does not exist is an error (KIP-1043).
const NOT_FOUND_FROM: i16 = 6;
/// First version that names static members.
const INSTANCE_FROM: i16 = 4;

pub(super) async fn handle(
    broker: &Broker,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let mut groups = Vec::with_capacity(request.groups.len());
    // A group that is named again has its answer: it may be large.
    for id in each_once(request.groups) {
        let call = |reply| GroupCall::Describe(id.to_string(), reply);
        let described = broker.coordinators().ask(broker, &id, call).await;
        let allowed = operations::on_group(request.include_authorized_operations);
        groups.push(match described {
            Ok(Some(group)) => shape(id, group, version).with_authorized_operations(allowed),
            // Before it was an error, such a group was described as one without members.
            Ok(None) if version < NOT_FOUND_FROM => {
                dead(id, errors::NONE).with_authorized_operations(allowed)
            }
            Ok(None) => missing(id),
            Err(error) => dead(id, ResponseError::from(error).code()),
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
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
