//! DescribeConfigs (key 32): what is in force for topics and brokers, and where it comes from.

use std::collections::HashSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use super::answer_room::{AnswerRoom, NO_ROOM, part_bytes};
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

pub(super) async fn handle(
    broker: &Broker,
    request: &DescribeConfigsRequest,
    version: i16,
    room: &mut AnswerRoom,
) -> DescribeConfigsResponse {
    // One resource of a kind that nobody knows spoils the whole request, as in Kafka.
    let unknown = request.resources.iter().find(|resource| !configs::TYPES.contains(&resource.resource_type));
    let unknown = unknown.map(|resource| configs::unknown_type(resource.resource_type));
    let detail =
        Detail { synonyms: request.include_synonyms, documentation: request.include_documentation, version };
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        let result = async {
            let entries = unknown.clone().map_or_else(|| entries(broker, resource), Err);
            described(resource, entries, detail)
        };
        let result = room.hold(result, |result| bytes(result, version)).await;
        results.push(result.unwrap_or_else(|| {
            result_of(resource)
                .with_error_code(ResponseError::InvalidRequest.code())
                .with_error_message(Some(StrBytes::from_static_str(NO_ROOM)))
        }));
        // Many small parts take long together.
        tokio::task::consume_budget().await;
    }
    DescribeConfigsResponse::default().with_results(results)
}

fn result_of(resource: &DescribeConfigsResource) -> DescribeConfigsResult {
    DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
}

fn bytes(result: &DescribeConfigsResult, version: i16) -> usize {
    let synonyms: usize = result.configs.iter().map(|entry| entry.synonyms.len()).sum();
    part_bytes::<_, DescribeConfigsResourceResult>(result, result.configs.len(), version)
        + synonyms * size_of::<DescribeConfigsSynonym>()
}

fn described(
    resource: &DescribeConfigsResource,
    entries: Result<Vec<ConfigEntry>, ApiError>,
    detail: Detail,
) -> DescribeConfigsResult {
    match entries {
        Ok(entries) => {
            let configs = entries.into_iter().map(|entry| shape(entry, detail));
            result_of(resource).with_configs(configs.collect())
        }
        Err(error) => result_of(resource).with_error_code(error.code).with_error_message(error.text()),
    }
}

fn entries(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, ApiError> {
    if resource.resource_type == configs::TOPIC && resource.resource_name.is_empty() {
        // Altering topics by default is an invalid request; describing them is a wrong name.
        let reason = "the empty string is not allowed: name a topic";
        return Err(ApiError::new(ResponseError::InvalidTopicException, reason));
    }
    let image = broker.image();
    let subject = configs::subject(broker, &image, resource.resource_type, &resource.resource_name)?;
    let mut entries = configs::entries(broker, &image, &subject);
    if let Some(keys) = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
        let keys: HashSet<&str> = keys.iter().map(StrBytes::as_str).collect();
        entries.retain(|entry| keys.contains(entry.name));
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
