//! IncrementalAlterConfigs (key 44): changes single configurations of topics and brokers (KIP-339).

use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::configs::{self, Operation, Wanted, invalid_request};
use super::errors::ApiError;
use super::mentions::mentions;
use crate::broker::Broker;

pub(super) async fn handle(
    broker: &Broker,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let named = request.resources.iter().map(|one| (one.resource_type, one.resource_name.as_str()));
    let mut responses = Vec::with_capacity(request.resources.len());
    for (resource, mention) in request.resources.iter().zip(mentions(named)) {
        let outcome = if mention.is_of_many() {
            Err(configs::repetition())
        } else {
            alter(broker, resource, request.validate_only).await
        };
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match outcome {
            Ok(()) => response.with_error_message(None),
            Err(error) => response.with_error_code(error.code).with_error_message(error.text()),
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    broker: &Broker,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), ApiError> {
    let wanted: Vec<Wanted> = resource.configs.iter().map(wanted).collect::<Result<_, _>>()?;
    let whose = (resource.resource_type, resource.resource_name.as_str());
    configs::change(broker, whose, &wanted, false, validate_only).await
}

fn wanted(config: &AlterableConfig) -> Result<Wanted, ApiError> {
    let operation = match config.config_operation {
        0 => Operation::Set,
        1 => Operation::Delete,
        2 => Operation::Append,
        3 => Operation::Subtract,
        other => {
            return Err(invalid_request(format!("Unknown operation type {other} for {}", &*config.name)));
        }
    };
    let value = config.value.as_ref().map(ToString::to_string);
    Ok(Wanted { name: config.name.to_string(), operation, value })
}
