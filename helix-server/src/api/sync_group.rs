//! SyncGroup (key 14): brings the assignment of the group's leader, and takes one's own.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use super::{errors, owned};
use crate::broker::Broker;
use crate::broker::budget::Permit;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::{SyncGroup, Synced};

/// First version that names the protocol (KIP-559).
const PROTOCOL_FROM: i16 = 5;

pub(super) async fn handle(
    broker: &Broker,
    request: SyncGroupRequest,
    version: i16,
    held: Vec<Permit>,
) -> SyncGroupResponse {
    let refused = |error: ResponseError| SyncGroupResponse::default().with_error_code(error.code());
    if version >= PROTOCOL_FROM && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return refused(ResponseError::InconsistentGroupProtocol);
    }
    let assignments = request
        .assignments
        .into_iter()
        .map(|assigned| (assigned.member_id.to_string(), Bytes::copy_from_slice(&assigned.assignment)));
    let call = SyncGroup {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id.as_ref()),
        protocol_type: owned(request.protocol_type.as_ref()),
        protocol: owned(request.protocol_name.as_ref()),
        assignments: assignments.collect(),
    };
    // All of it is copied.
    drop(held);
    let group = call.group.clone();
    match broker.coordinators().ask(broker, &group, |reply| GroupCall::Sync(call, reply)).await {
        Ok(Ok(synced)) => shape(synced, version),
        Ok(Err(error)) => refused(ResponseError::from(&error)),
        Err(error) => refused(error.into()),
    }
}

fn shape(synced: Synced, version: i16) -> SyncGroupResponse {
    let out = SyncGroupResponse::default().with_error_code(errors::NONE).with_assignment(synced.assignment);
    if version < PROTOCOL_FROM {
        return out;
    }
    out.with_protocol_type(synced.protocol_type.map(StrBytes::from_string))
        .with_protocol_name(synced.protocol.map(StrBytes::from_string))
}
