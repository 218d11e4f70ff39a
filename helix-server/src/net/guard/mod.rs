//! The guard in front of the request decoder.
//!
//! The decoder (`kafka-protocol`) allocates whatever array length a client claims before it reads the first element, so
//! twelve bytes can ask for 154 GB and abort the process. No byte of a client reaches it before the guard has walked the
//! request by its schema: every length fits into what is there, and what the decoder will allocate is known and within
//! a limit. A schema is data, so serving one more API means adding one table entry (see `schema.rs`).

mod cluster;
mod configs;
mod describe;
mod groups;
mod log;
mod schema;
mod topics;
mod walk;

use thiserror::Error;

use schema::Api;
use walk::Walker;

/// Every request that is served.
const APIS: &[&Api] = &[
    &log::PRODUCE,
    &log::FETCH,
    &log::LIST_OFFSETS,
    &cluster::METADATA,
    &cluster::API_VERSIONS,
    &topics::CREATE_TOPICS,
    &topics::DELETE_TOPICS,
    &log::DELETE_RECORDS,
    &cluster::INIT_PRODUCER_ID,
    &log::OFFSET_FOR_LEADER_EPOCH,
    &configs::DESCRIBE_CONFIGS,
    &configs::ALTER_CONFIGS,
    &describe::DESCRIBE_LOG_DIRS,
    &topics::CREATE_PARTITIONS,
    &groups::OFFSET_COMMIT,
    &groups::OFFSET_FETCH,
    &groups::FIND_COORDINATOR,
    &groups::JOIN_GROUP,
    &groups::HEARTBEAT,
    &groups::LEAVE_GROUP,
    &groups::SYNC_GROUP,
    &groups::DESCRIBE_GROUPS,
    &groups::LIST_GROUPS,
    &groups::DELETE_GROUPS,
    &groups::OFFSET_DELETE,
    &describe::ELECT_LEADERS,
    &configs::INCREMENTAL_ALTER_CONFIGS,
    &describe::DESCRIBE_QUORUM,
    &cluster::DESCRIBE_CLUSTER,
    &describe::DESCRIBE_PRODUCERS,
    &configs::LIST_CONFIG_RESOURCES,
    &describe::DESCRIBE_TOPIC_PARTITIONS,
];

/// Bytes that decoding a request header may allocate: room for thousands of tagged fields, of which there are none.
const MAX_HEADER_DECODED_BYTES: usize = 1024 * 1024;

/// What a request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardLimits {
    /// Bytes that decoding may allocate, besides the request's own buffer, and with them the least that an answer takes where
    /// that is much more.
    pub max_decoded_bytes: usize,
}

/// What is known of a request that may be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardReport {
    /// Upper bound of the bytes that decoding allocates, more where an answer takes much more; strings and records are slices of the request.
    pub decoded_bytes: usize,
    /// Bytes behind the last field, which nothing looks at.
    pub trailing_bytes: usize,
}

/// Why a request must not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GuardError {
    /// The API is not served.
    #[error("API {api_key} is not served")]
    UnknownApi {
        /// Key of the request.
        api_key: i16,
    },
    /// This version of the API is not served.
    #[error("API {api_key} is served in versions {min} to {max}, not {version}")]
    Version {
        /// Key of the request.
        api_key: i16,
        /// Version of the request.
        version: i16,
        /// Lowest version served.
        min: i16,
        /// Highest version served.
        max: i16,
    },
    /// The request ends in the middle of a field.
    #[error("field {field} reaches past the end of the request")]
    Truncated {
        /// Name of the field.
        field: &'static str,
    },
    /// A length below -1, or null where there must be a value.
    #[error("field {field} has an impossible length, or is null but must not be")]
    Length {
        /// Name of the field.
        field: &'static str,
    },
    /// A variable-length integer that does not fit into 32 bits.
    #[error("field {field} holds a malformed variable-length integer")]
    VarInt {
        /// Name of the field.
        field: &'static str,
    },
    /// Tagged fields out of order, of the wrong size, or not defined in this version.
    #[error("tagged field {tag} of {field} {reason}")]
    Tag {
        /// Name of the structure that carries it.
        field: &'static str,
        /// The tag.
        tag: u32,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Decoding would allocate too much.
    #[error("decoding the request would take more than {limit} bytes of memory: send fewer elements at once")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

/// Walks the body of a request (what follows its header). The decoder takes what it needs of it, or refuses it with an error.
///
/// # Errors
/// When the request is malformed or would take more memory than the limits allow.
pub fn check(
    api_key: i16,
    version: i16,
    body: &[u8],
    limits: &GuardLimits,
) -> Result<GuardReport, GuardError> {
    let api = api(api_key).ok_or(GuardError::UnknownApi { api_key })?;
    let Api { min, max, .. } = *api;
    if !(min..=max).contains(&version) {
        return Err(GuardError::Version { api_key, version, min, max });
    }
    let mut walker = Walker::new(body, version, version >= api.flexible_from, limits.max_decoded_bytes);
    walker.message(api.request)?;
    // What follows the last field is ignored, as in Kafka: librdkafka 2.12 asks for all topics in Metadata version 13 with three
    // bytes too many.
    Ok(GuardReport { decoded_bytes: walker.decoded_bytes(), trailing_bytes: walker.remaining() })
}

/// Walks a request header of version 1 or 2 and returns how many bytes it takes.
///
/// # Errors
/// [`GuardError::Truncated`] when `bytes` end before the header does, another error when it is malformed.
pub fn check_header(header_version: i16, bytes: &[u8]) -> Result<usize, GuardError> {
    let mut walker = Walker::new(bytes, header_version, header_version >= 2, MAX_HEADER_DECODED_BYTES);
    walker.message(&cluster::REQUEST_HEADER)?;
    Ok(bytes.len() - walker.remaining())
}

/// Version of the request header in front of a request; `None` if the API is not known here.
pub fn request_header_version(api_key: i16, version: i16) -> Option<i16> {
    api(api_key).map(|api| if version >= api.flexible_from { 2 } else { 1 })
}

fn api(api_key: i16) -> Option<&'static Api> {
    APIS.iter().copied().find(|api| api.key as i16 == api_key)
}

#[cfg(test)]
mod tests;
