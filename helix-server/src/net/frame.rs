//! The first bytes of a request: its length, its header, and the fields of a Produce request that decide how long it
//! may wait.
//!
//! Everything here looks at bytes that may be incomplete: a connection peeks before it decides whether to read on.

use std::ops::Range;

use thiserror::Error;

use super::guard::{GuardError, check_header, request_header_version};

/// Bytes of the length in front of every frame.
pub const LENGTH_BYTES: usize = 4;
/// Bytes of api key, api version and correlation id, with which every request begins.
pub const FIXED_HEADER_BYTES: usize = 8;
/// A header longer than this is refused: it holds a client id of at most 32 KiB and no tagged field that anyone uses.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

const PRODUCE_KEY: i16 = 0;
const API_VERSIONS_KEY: i16 = 18;
/// First version of Produce with compact lengths.
const PRODUCE_FLEXIBLE_FROM: i16 = 9;
/// First version of ApiVersions with header version 2, whatever else a client may think it knows.
const API_VERSIONS_FLEXIBLE_FROM: i16 = 3;

/// Why a connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is negative or too small for any request.
    #[error(
        "a request claims {length} bytes, which is impossible; is the client speaking another protocol, or TLS?"
    )]
    TooSmall {
        /// The length claimed.
        length: i32,
    },
    /// The length is above `socket.request.max.bytes`.
    #[error("a request claims {length} bytes, more than socket.request.max.bytes ({max_bytes}) allows")]
    TooLarge {
        /// The length claimed.
        length: i32,
        /// The limit.
        max_bytes: usize,
    },
    /// The header is longer than the frame, or longer than any sane one.
    #[error("the request header does not fit into its {available} bytes")]
    HeaderTooLong {
        /// Bytes that it may take.
        available: usize,
    },
    /// The header is malformed.
    #[error("malformed request header: {0}")]
    Header(GuardError),
}

/// Checks the length prefix of a frame and returns the bytes that follow it.
///
/// # Errors
/// When no request can have that length, or it is above `max_bytes`.
pub fn frame_bytes(prefix: [u8; LENGTH_BYTES], max_bytes: usize) -> Result<usize, FrameError> {
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(bytes) if bytes > max_bytes => Err(FrameError::TooLarge { length, max_bytes }),
        Ok(bytes) if bytes >= FIXED_HEADER_BYTES => Ok(bytes),
        _ => Err(FrameError::TooSmall { length }),
    }
}

/// The header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// Which API.
    pub api_key: i16,
    /// Which version of it.
    pub api_version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// Where the client id lies in the frame; `None` if the client has none. Not checked to be UTF-8.
    pub client_id: Option<Range<usize>>,
    /// Where the body starts in the frame.
    pub body_at: usize,
}

/// Reads the header of a request from the first bytes of a frame that has `frame_bytes` in all. `None` means that more
/// bytes are needed.
///
/// A request of an API that is not known here has a header of unknown version. It is read as version 1, so its body may
/// seem to begin too early; all that can be done with it is to refuse it by its correlation id.
///
/// # Errors
/// When the header is malformed or cannot fit.
pub fn peek_head(bytes: &[u8], frame_bytes: usize) -> Result<Option<RequestHead>, FrameError> {
    let available = frame_bytes.min(MAX_HEADER_BYTES);
    let bytes = &bytes[..bytes.len().min(available)];
    let Some(fixed) = bytes.first_chunk::<FIXED_HEADER_BYTES>() else { return Ok(None) };
    let [k0, k1, v0, v1, c0, c1, c2, c3] = *fixed;
    let api_key = i16::from_be_bytes([k0, k1]);
    let api_version = i16::from_be_bytes([v0, v1]);
    let body_at = match check_header(head_version(api_key, api_version), bytes) {
        Ok(body_at) => body_at,
        Err(GuardError::Truncated { .. } | GuardError::Tag { .. }) if bytes.len() < available => {
            return Ok(None);
        }
        Err(GuardError::Truncated { .. }) => return Err(FrameError::HeaderTooLong { available }),
        Err(error) => return Err(FrameError::Header(error)),
    };
    Ok(Some(RequestHead {
        api_key,
        api_version,
        correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
        client_id: client_id(&bytes[FIXED_HEADER_BYTES..body_at]),
        body_at,
    }))
}

/// Version of the header in front of a request.
pub fn head_version(api_key: i16, api_version: i16) -> i16 {
    if api_key == API_VERSIONS_KEY {
        // Clients newer than this broker ask in a version that is not in the table, and must still be answered.
        return if api_version >= API_VERSIONS_FLEXIBLE_FROM { 2 } else { 1 };
    }
    request_header_version(api_key, api_version).unwrap_or(1)
}

/// Version of the header in front of a response. ApiVersions is always answered with version 0: at that point the client
/// cannot know yet what the broker speaks.
pub fn response_header_version(api_key: i16, api_version: i16) -> i16 {
    if api_key == API_VERSIONS_KEY { 0 } else { head_version(api_key, api_version) - 1 }
}

/// The range of the client id, from the bytes behind the fixed part of a header that was found well formed.
fn client_id(rest: &[u8]) -> Option<Range<usize>> {
    let (length, _) = rest.split_first_chunk::<2>()?;
    let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
    let start = FIXED_HEADER_BYTES + 2;
    Some(start..start + length)
}

/// The fields in front of the records of a Produce request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducePeek {
    /// 0: no answer; 1: stored by the leader; -1: stored by a majority.
    pub acks: i16,
    /// How long the client lets the broker wait.
    pub timeout_ms: i32,
}

/// Reads acks and timeout from the first bytes of a Produce body; `None` if they are not there yet, or the request is
/// another one or malformed (the guard will say so).
pub fn peek_produce(head: &RequestHead, body: &[u8]) -> Option<ProducePeek> {
    if head.api_key != PRODUCE_KEY {
        return None;
    }
    let rest = if head.api_version >= PRODUCE_FLEXIBLE_FROM {
        let (length, rest) = split_varint(body)?;
        rest.get(usize::try_from(length).ok()?.saturating_sub(1)..)?
    } else {
        let (length, rest) = body.split_first_chunk::<2>()?;
        rest.get(usize::try_from(i16::from_be_bytes(*length)).unwrap_or(0)..)?
    };
    let (acks, rest) = rest.split_first_chunk::<2>()?;
    let (timeout_ms, _) = rest.split_first_chunk::<4>()?;
    Some(ProducePeek { acks: i16::from_be_bytes(*acks), timeout_ms: i32::from_be_bytes(*timeout_ms) })
}

fn split_varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value: u64 = 0;
    for (at, &byte) in bytes.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((u32::try_from(value).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::{ApiKey, ProduceRequest, RequestHeader, TransactionalId};
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use proptest::prelude::*;

    use super::*;

    fn head_bytes(key: ApiKey, version: i16, client_id: Option<&'static str>) -> Vec<u8> {
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(77)
            .with_client_id(client_id.map(StrBytes::from_static_str));
        let mut out = BytesMut::new();
        header.encode(&mut out, head_version(key as i16, version)).expect("encodes");
        out.to_vec()
    }

    #[test]
    fn lengths_have_limits() {
        assert_eq!(frame_bytes(100_i32.to_be_bytes(), 100), Ok(100));
        assert_eq!(
            frame_bytes(101_i32.to_be_bytes(), 100),
            Err(FrameError::TooLarge { length: 101, max_bytes: 100 })
        );
        assert_eq!(frame_bytes((-1_i32).to_be_bytes(), 100), Err(FrameError::TooSmall { length: -1 }));
        assert_eq!(frame_bytes(7_i32.to_be_bytes(), 100), Err(FrameError::TooSmall { length: 7 }));
    }

    #[test]
    fn a_head_is_read_as_soon_as_it_is_there() {
        for (key, version) in [(ApiKey::Produce, 3), (ApiKey::Produce, 9), (ApiKey::ApiVersions, 4)] {
            for client in [Some("rdkafka"), None] {
                let bytes = head_bytes(key, version, client);
                let frame = bytes.len() + 20;
                for end in 0..bytes.len() {
                    assert_eq!(peek_head(&bytes[..end], frame), Ok(None));
                }
                let head = peek_head(&bytes, frame).expect("well formed").expect("complete");
                assert_eq!((head.api_key, head.api_version, head.correlation_id), (key as i16, version, 77));
                assert_eq!(head.body_at, bytes.len());
                let client_id = head.client_id.map(|range| &bytes[range]);
                assert_eq!(client_id, client.map(str::as_bytes));
                let cut = peek_head(&bytes, bytes.len() - 1);
                assert_eq!(cut, Err(FrameError::HeaderTooLong { available: bytes.len() - 1 }));
            }
        }
    }

    #[test]
    fn newer_versions_of_api_versions_are_understood() {
        let bytes = head_bytes(ApiKey::ApiVersions, 99, Some("tomorrow"));
        let head = peek_head(&bytes, bytes.len()).expect("well formed").expect("complete");
        assert_eq!(head.body_at, bytes.len());
        assert_eq!(response_header_version(head.api_key, 99), 0);
    }

    #[test]
    fn an_unknown_api_still_has_a_correlation_id() {
        let bytes = [0x7f, 0xff, 0, 0, 0, 0, 0, 5, 0xff, 0xff];
        let head = peek_head(&bytes, 10).expect("well formed").expect("complete");
        assert_eq!((head.api_key, head.correlation_id), (0x7fff, 5));
    }

    #[test]
    fn a_head_that_never_ends_is_refused() {
        let mut bytes = vec![0, 18, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 1, 0, 0x80, 0x80, 0x40];
        bytes.resize(MAX_HEADER_BYTES + 10, 0);
        assert_eq!(peek_head(&bytes[..1000], bytes.len()), Ok(None));
        peek_head(&bytes, bytes.len()).expect_err("longer than any header");
    }

    #[test]
    fn response_headers_are_those_of_the_client() {
        for key in
            [ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata, ApiKey::ApiVersions, ApiKey::CreateTopics]
        {
            for version in key.valid_versions().min..=key.valid_versions().max {
                let expected = key.response_header_version(version);
                assert_eq!(response_header_version(key as i16, version), expected, "{key:?} {version}");
            }
        }
    }

    #[test]
    fn acks_and_timeout_are_seen_before_the_records() {
        for version in 3..=13 {
            for id in [None, Some(""), Some("a-transaction")] {
                let request = ProduceRequest::default()
                    .with_acks(-1)
                    .with_timeout_ms(1234)
                    .with_transactional_id(id.map(|id| TransactionalId(StrBytes::from_static_str(id))));
                let mut body = BytesMut::new();
                request.encode(&mut body, version).expect("encodes");
                let bytes = head_bytes(ApiKey::Produce, version, None);
                let head = peek_head(&bytes, 1000).expect("well formed").expect("complete");
                let expected = ProducePeek { acks: -1, timeout_ms: 1234 };
                assert_eq!(peek_produce(&head, &body), Some(expected));
                assert_eq!(peek_produce(&head, &body[..5]), None);
            }
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            bytes in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..60),
            frame in 0_usize..100,
        ) {
            if let Ok(Some(head)) = peek_head(&bytes, frame) {
                prop_assert!(head.body_at <= frame && head.body_at <= bytes.len());
                let _ = peek_produce(&head, &bytes[head.body_at..]);
            }
        }
    }
}
