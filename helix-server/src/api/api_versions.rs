//! ApiVersions (key 18): what this broker serves.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use super::errors;
use super::table::SERVED;

/// Answers a request of a served version.
pub(super) fn handle(request: &ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    // KIP-511: from version 3 on the client names itself, and nonsense is refused.
    if version >= 3 && !(named(&request.client_software_name) && named(&request.client_software_version)) {
        return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    with_table(errors::NONE)
}

/// The answer to a version that is not known: in the encoding of version 0, so that any client can read it (KIP-511).
pub(super) fn unsupported() -> ApiVersionsResponse {
    with_table(ResponseError::UnsupportedVersion.code())
}

fn with_table(error_code: i16) -> ApiVersionsResponse {
    let keys = SERVED
        .iter()
        .map(|api| {
            ApiVersion::default()
                .with_api_key(api.key as i16)
                .with_min_version(api.advertised_min)
                .with_max_version(api.max)
        })
        .collect();
    ApiVersionsResponse::default().with_error_code(error_code).with_api_keys(keys)
}

fn named(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let edge = |c: char| c.is_ascii_alphanumeric();
    name.starts_with(edge) && name.ends_with(edge) && name.chars().all(inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn nameless_clients_are_refused_from_version_three_on() {
        let nameless = ApiVersionsRequest::default();
        assert_eq!(handle(&nameless, 2).error_code, 0);
        assert_eq!(handle(&nameless, 3).error_code, 42);
        let named = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("apache-kafka-java"))
            .with_client_software_version(StrBytes::from_static_str("4.1.0"));
        assert_eq!(handle(&named, 3).error_code, 0);
        assert_eq!(handle(&named, 4).api_keys.len(), SERVED.len());
    }
}
