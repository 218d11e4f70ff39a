//! Whatever the guard accepts, the decoder takes without a panic and without allocating more than the guard said.
//!
//! `tests/fuzz` looks for what these tests don't think of.

#[macro_use]
mod support;

use bytes::Bytes;
use helix_server::net::guard::{GuardLimits, check, check_header, request_header_version};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::StrBytes;
use proptest::prelude::*;

use support::requests::{api_versions, decode, encoded, every_version, guard_holds, sample};

const LIMITS: GuardLimits = GuardLimits { max_decoded_bytes: 1 << 20 };

#[test]
fn whole_requests_are_accepted_and_consumed() {
    for (key, version) in every_version() {
        let body = sample(key, version);
        let report = check(key as i16, version, &body, &LIMITS)
            .unwrap_or_else(|error| panic!("{key:?} {version} is refused: {error}"));
        assert_eq!(report.trailing_bytes, 0, "{key:?} {version}");
        assert_eq!(decode(key, version, body.clone()), Some(0), "{key:?} {version} is not decoded");
        assert!(guard_holds(key, version, &body, &LIMITS));
    }
}

#[test]
fn every_truncation_is_refused() {
    for (key, version) in every_version() {
        let body = sample(key, version);
        for end in 0..body.len() {
            check(key as i16, version, &body[..end], &LIMITS).expect_err("a truncated request");
        }
    }
}

#[test]
fn text_that_is_not_utf8_is_a_clean_error_of_the_decoder() {
    let body = Bytes::from_static(&[0, 0, 0, 1, 0, 2, 0xff, 0xfe]); // Metadata 0: one topic
    check(ApiKey::Metadata as i16, 0, &body, &LIMITS).expect("the guard does not look into strings");
    assert_eq!(decode(ApiKey::Metadata, 0, body), None);
}

#[test]
fn many_tagged_fields_take_no_more_than_was_said() {
    for tags in [1, 2, 11, 12, 13, 66, 67, 1000] {
        let mut request = api_versions(3);
        for tag in 0..tags {
            request.unknown_tagged_fields.insert(tag, Bytes::new());
        }
        assert!(guard_holds(ApiKey::ApiVersions, 3, &encoded(&request, 3), &LIMITS), "accepted");
    }
}

#[test]
fn headers_are_walked_as_they_are_decoded() {
    for (key, version) in every_version() {
        let header_version = request_header_version(key as i16, version).expect("served");
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(StrBytes::from_static_str("client")));
        let mut bytes = encoded(&tags!(header, header_version == 2), header_version).to_vec();
        let length = bytes.len();
        bytes.extend_from_slice(b"body");
        assert_eq!(check_header(header_version, &bytes), Ok(length));
        for end in 0..length {
            check_header(header_version, &bytes[..end]).expect_err("a truncated header");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_requests_do_no_harm(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        end in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let all: Vec<_> = every_version().collect();
        let (key, version) = all[which.index(all.len())];
        let mut body = sample(key, version).to_vec();
        for (at, byte) in damage {
            let at = at.index(body.len().max(1));
            if let Some(place) = body.get_mut(at) {
                *place = byte;
            }
        }
        if let Some(end) = end {
            body.truncate(end.index(body.len() + 1));
        }
        guard_holds(key, version, &body.into(), &LIMITS);
    }

    #[test]
    fn random_requests_do_no_harm(
        which in any::<prop::sample::Index>(),
        // Small numbers make plausible lengths.
        body in prop::collection::vec(prop_oneof![3 => 0_u8..4, 1 => any::<u8>()], 0..120),
    ) {
        let all: Vec<_> = every_version().collect();
        let (key, version) = all[which.index(all.len())];
        guard_holds(key, version, &body.into(), &LIMITS);
    }
}
