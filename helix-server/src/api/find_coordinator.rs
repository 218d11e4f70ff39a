//! FindCoordinator (key 10): which node coordinates a consumer group.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::errors::{self, ApiError};
use crate::broker::Broker;
use crate::controller::commands::BrokerRegistration;

/// The kind of key that is a group id.
const GROUP: i8 = 0;
/// First version that asks for several at once (KIP-699).
const BATCHED_FROM: i16 = 4;

pub(super) async fn handle(
    broker: &Broker,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let keys = if version < BATCHED_FROM { vec![request.key] } else { request.coordinator_keys };
    let mut found = Vec::with_capacity(keys.len());
    for key in keys {
        let answer = find(broker, &key, request.key_type).await;
        found.push(coordinator(key, answer));
    }
    if version >= BATCHED_FROM {
        return FindCoordinatorResponse::default().with_coordinators(found);
    }
    let only = found.pop().unwrap_or_default();
    let out = FindCoordinatorResponse::default()
        .with_error_code(only.error_code)
        .with_node_id(only.node_id)
        .with_host(only.host)
        .with_port(only.port);
    // Kafka says "NONE" where nothing is wrong.
    if version >= 1 {
        let message = only.error_message.filter(|message| !message.is_empty());
        out.with_error_message(message.or_else(|| Some(StrBytes::from_static_str("NONE"))))
    } else {
        out
    }
}

async fn find(broker: &Broker, key: &str, key_type: i8) -> Result<BrokerRegistration, ApiError> {
    match key_type {
        GROUP => broker
            .find_group_coordinator(key)
            .await
            .map_err(|error| ApiError::new(ResponseError::from(error), error.to_string())),
        _ => Err(ApiError::new(
            ResponseError::InvalidRequest,
            "this broker coordinates consumer groups; transactions and share groups are not served",
        )),
    }
}

fn coordinator(key: StrBytes, found: Result<BrokerRegistration, ApiError>) -> Coordinator {
    let out = Coordinator::default().with_key(key);
    match found {
        Ok(node) => out
            .with_error_code(errors::NONE)
            .with_node_id(BrokerId(node.node.0))
            .with_host(StrBytes::from_string(node.host))
            .with_port(i32::from(node.port)),
        Err(error) => out
            .with_error_code(error.code)
            .with_error_message(error.text())
            .with_node_id(BrokerId(-1))
            .with_port(-1),
    }
}
