//! JoinGroup (key 11): becomes a member of a consumer group, or takes part in its rebalance.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::errors;
use super::{ClientInfo, owned};
use crate::broker::Broker;
use crate::broker::budget::Permit;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::{JoinGroup, JoinRefused, Joined, Protocol};

/// First version whose clients take a member id and ask again with it (KIP-394).
const MEMBER_ID_FROM: i16 = 4;
/// First version with a rebalance timeout of its own.
const REBALANCE_TIMEOUT_FROM: i16 = 1;
/// First version in which no protocol is null and not empty (KIP-559).
const PROTOCOL_TYPE_FROM: i16 = 7;
/// First version whose leaders can leave the assignment as it is (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

pub(super) async fn handle(
    broker: &Broker,
    request: JoinGroupRequest,
    version: i16,
    client: ClientInfo,
    held: Vec<Permit>,
) -> JoinGroupResponse {
    let member = request.member_id.to_string();
    let call = call(request, version, client);
    // All of it is copied, and becomes part of the group.
    drop(held);
    let group = call.group.clone();
    let answer = broker.coordinators().ask(broker, &group, |reply| GroupCall::Join(call, reply)).await;
    match answer {
        Ok(Ok(joined)) => shape(joined, version),
        Ok(Err(JoinRefused { error, member })) => refused(ResponseError::from(&error), member, version),
        Err(error) => refused(error.into(), member, version),
    }
}

fn call(request: JoinGroupRequest, version: i16, client: ClientInfo) -> JoinGroup {
    let rebalance_timeout_ms = if version >= REBALANCE_TIMEOUT_FROM {
        request.rebalance_timeout_ms
    } else {
        request.session_timeout_ms
    };
    let protocols = request.protocols.into_iter().map(|protocol| Protocol {
        name: protocol.name.to_string(),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    JoinGroup {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id.as_ref()),
        client_id: client.id,
        client_host: client.host,
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        takes_member_id: version >= MEMBER_ID_FROM,
        can_skip_assignment: version >= SKIP_ASSIGNMENT_FROM,
    }
}

fn shape(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        let out = JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(member.id))
            .with_metadata(member.metadata);
        // Sent from version 5 on; the encoder leaves it out before.
        if version >= 5 {
            out.with_group_instance_id(member.instance.map(StrBytes::from_string))
        } else {
            out
        }
    });
    let mut out = JoinGroupResponse::default()
        .with_error_code(errors::NONE)
        .with_generation_id(joined.generation)
        .with_protocol_name(Some(StrBytes::from_string(joined.protocol.unwrap_or_default())))
        .with_leader(StrBytes::from_string(joined.leader))
        .with_member_id(StrBytes::from_string(joined.member))
        .with_members(members.collect());
    if version >= PROTOCOL_TYPE_FROM {
        out.protocol_type = joined.protocol_type.map(StrBytes::from_string);
    }
    if version >= SKIP_ASSIGNMENT_FROM {
        out.skip_assignment = joined.skip_assignment;
    }
    out
}

fn refused(error: ResponseError, member: String, version: i16) -> JoinGroupResponse {
    let protocol = if version >= PROTOCOL_TYPE_FROM { None } else { Some(StrBytes::default()) };
    JoinGroupResponse::default()
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_name(protocol)
        .with_member_id(StrBytes::from_string(member))
}
