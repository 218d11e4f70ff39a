//! DescribeConfigs (key 32): what is in force for topics and brokers, and where it comes from.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::configs;
use super::errors::ApiError;
use crate::broker::Broker;
use crate::config::describe::ConfigEntry;

/// What a client wants to know beyond the values.
#[derive(Debug, Clone, Copy)]
struct Detail {
    synonyms: bool,
    documentation: bool,
    version: i16,
}

pub(super) fn handle(
    broker: &Broker,
    request: &DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResponse {
    // One resource of a kind that nobody knows spoils the whole request, as in Kafka.
    let unknown = request.resources.iter().find(|resource| !configs::TYPES.contains(&resource.resource_type));
    let detail =
        Detail { synonyms: request.include_synonyms, documentation: request.include_documentation, version };
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let described = match unknown {
            Some(unknown) => Err(configs::unknown_type(unknown.resource_type)),
            None => describe(broker, resource),
        };
        match described {
            Ok(entries) => {
                result.with_configs(entries.into_iter().map(|entry| shape(entry, detail)).collect())
            }
            Err(error) => result.with_error_code(error.code).with_error_message(error.text()),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, ApiError> {
    if resource.resource_type == configs::TOPIC && resource.resource_name.is_empty() {
        // Altering topics by default is an invalid request; describing them is a wrong name.
        let reason = "the empty string is not allowed: name a topic";
        return Err(ApiError::new(ResponseError::InvalidTopicException, reason));
    }
    let image = broker.image();
    let subject = configs::subject(broker, &image, resource.resource_type, &resource.resource_name)?;
    let mut entries = configs::entries(broker, &image, &subject);
    if let Some(keys) = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
        entries.retain(|entry| keys.iter().any(|key| key.as_str() == entry.name));
    }
    Ok(entries)
}

fn shape(entry: ConfigEntry, detail: Detail) -> DescribeConfigsResourceResult {
    let text = StrBytes::from_static_str;
    let mut out = DescribeConfigsResourceResult::default()
        .with_name(text(entry.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source as i8);
    if detail.synonyms {
        let synonym = |synonym: crate::config::describe::ConfigSynonym| {
            DescribeConfigsSynonym::default()
                .with_name(text(synonym.name))
                .with_value(Some(StrBytes::from_string(synonym.value)))
                .with_source(synonym.source as i8)
        };
        out.synonyms = entry.synonyms.into_iter().map(synonym).collect();
    }
    if detail.version >= 3 {
        out.config_type = entry.kind.code();
        out.documentation = detail.documentation.then(|| text(entry.doc));
    }
    out
}
