//! AlterConfigs (key 33): replaces the whole configuration of topics and brokers.

use kafka_protocol::messages::alter_configs_request::AlterableConfig;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::configs::{self, Operation, Wanted};
use super::mentions::mentions;
use crate::broker::Broker;

pub(super) async fn handle(broker: &Broker, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let named = request.resources.iter().map(|one| (one.resource_type, one.resource_name.as_str()));
    let mut responses = Vec::with_capacity(request.resources.len());
    for (resource, mention) in request.resources.iter().zip(mentions(named)) {
        let whose = (resource.resource_type, resource.resource_name.as_str());
        let outcome = if mention.is_of_many() {
            Err(configs::repetition())
        } else {
            let wanted: Vec<Wanted> = resource.configs.iter().map(wanted).collect();
            configs::change(broker, whose, &wanted, true, request.validate_only).await
        };
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match outcome {
            Ok(()) => response.with_error_message(None),
            Err(error) => response.with_error_code(error.code).with_error_message(error.text()),
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}

fn wanted(config: &AlterableConfig) -> Wanted {
    Wanted {
        name: config.name.to_string(),
        operation: Operation::Set,
        value: config.value.as_ref().map(ToString::to_string),
    }
}
