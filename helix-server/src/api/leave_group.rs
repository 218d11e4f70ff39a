//! LeaveGroup (key 13): members of a consumer group go, by themselves or sent by an administrator (KIP-345).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::{errors, owned};
use crate::broker::Broker;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::{GroupError, LeaveGroup, LeavingMember, LeftMember};

/// First version with several members at once.
const BATCHED_FROM: i16 = 3;

pub(super) async fn handle(broker: &Broker, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let members = if version < BATCHED_FROM {
        vec![LeavingMember { member: request.member_id.to_string(), instance: None }]
    } else {
        let named = request.members.into_iter().map(|member| LeavingMember {
            member: member.member_id.to_string(),
            instance: owned(member.group_instance_id.as_ref()),
        });
        named.collect()
    };
    let call = LeaveGroup { group: request.group_id.to_string(), members };
    let (group, members) = (call.group.clone(), call.members.clone());
    match broker.coordinators().ask(broker, &group, |reply| GroupCall::Leave(call, reply)).await {
        Ok(Ok(left)) => shape(left, version),
        // Where every member has an answer of its own, nobody is a member of a group that is not there.
        Ok(Err(GroupError::UnknownMemberId)) if version >= BATCHED_FROM => {
            let unknown = |who| LeftMember { who, error: Some(GroupError::UnknownMemberId) };
            shape(members.into_iter().map(unknown).collect(), version)
        }
        Ok(Err(error)) => refused(ResponseError::from(&error)),
        Err(error) => refused(error.into()),
    }
}

fn shape(left: Vec<LeftMember>, version: i16) -> LeaveGroupResponse {
    let code = |left: &LeftMember| {
        left.error.as_ref().map_or(errors::NONE, |error| ResponseError::from(error).code())
    };
    if version < BATCHED_FROM {
        let code = left.first().map_or(errors::NONE, code);
        return LeaveGroupResponse::default().with_error_code(code);
    }
    let members = left.into_iter().map(|left| {
        MemberResponse::default()
            .with_error_code(code(&left))
            .with_member_id(StrBytes::from_string(left.who.member))
            .with_group_instance_id(left.who.instance.map(StrBytes::from_string))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

fn refused(error: ResponseError) -> LeaveGroupResponse {
    LeaveGroupResponse::default().with_error_code(error.code())
}
