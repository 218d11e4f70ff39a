//! Heartbeat (key 12): a member of a consumer group is there, and learns of rebalances.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::{errors, owned};
use crate::broker::Broker;
use crate::coordinator::groups::GroupCall;
use crate::coordinator::groups::call::Heartbeat;

pub(super) async fn handle(broker: &Broker, request: HeartbeatRequest) -> HeartbeatResponse {
    let call = Heartbeat {
        group: request.group_id.to_string(),
        generation: request.generation_id,
        member: request.member_id.to_string(),
        instance: owned(request.group_instance_id.as_ref()),
    };
    let group = call.group.clone();
    let code =
        match broker.coordinators().ask(broker, &group, |reply| GroupCall::Heartbeat(call, reply)).await {
            Ok(Ok(())) => errors::NONE,
            Ok(Err(error)) => ResponseError::from(&error).code(),
            Err(error) => ResponseError::from(error).code(),
        };
    HeartbeatResponse::default().with_error_code(code)
}
