//! ListConfigResources (key 74): what has configurations that can be described (KIP-1142).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use super::configs;
use crate::broker::Broker;

pub(super) fn handle(
    broker: &Broker,
    request: &ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    let asked = &request.resource_types;
    if asked.iter().any(|one| !configs::TYPES.contains(one)) {
        return ListConfigResourcesResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code());
    }
    // Version 0 lists client metrics alone. Of these, groups and loggers Helix has no configurations, so none is listed.
    let wants = |kind: i8| version >= 1 && (asked.is_empty() || asked.contains(&kind));
    let resource = |kind: i8, name: String| {
        ConfigResource::default().with_resource_type(kind).with_resource_name(StrBytes::from_string(name))
    };
    let image = broker.image();
    let mut resources = Vec::new();
    if wants(configs::BROKER) {
        let alive = image.brokers().filter(|registered| broker.is_alive(registered.node));
        resources.extend(alive.map(|registered| resource(configs::BROKER, registered.node.to_string())));
    }
    if wants(configs::TOPIC) {
        resources.extend(image.topics().map(|topic| resource(configs::TOPIC, topic.name.clone())));
    }
    ListConfigResourcesResponse::default().with_config_resources(resources)
}
