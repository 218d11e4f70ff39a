use kafka_protocol::messages::ApiKey;

use super::*;

const LIMITS: GuardLimits = GuardLimits { max_decoded_bytes: 1 << 20 };

fn verdict(api_key: ApiKey, version: i16, body: &[u8]) -> Result<GuardReport, GuardError> {
    check(api_key as i16, version, body, &LIMITS)
}

#[test]
fn the_request_that_kills_the_decoder_is_refused() {
    // Metadata version 1: an array of 2^31 - 1 topics in 4 bytes.
    let refused = verdict(ApiKey::Metadata, 1, &i32::MAX.to_be_bytes());
    assert_eq!(refused, Err(GuardError::Truncated { field: "topics" }));
}

#[test]
fn what_is_not_served_is_refused() {
    assert_eq!(verdict(ApiKey::Envelope, 0, &[]), Err(GuardError::UnknownApi { api_key: 58 }));
    let refused = verdict(ApiKey::Produce, 2, &[]);
    assert_eq!(refused, Err(GuardError::Version { api_key: 0, version: 2, min: 3, max: 13 }));
}

#[test]
fn arrays_are_charged_before_they_are_walked() {
    let mut body = 100_000_i32.to_be_bytes().to_vec();
    body.resize(body.len() + 400_000, 0); // 100,000 topics without a name
    let refused = verdict(ApiKey::Metadata, 0, &body);
    assert_eq!(refused, Err(GuardError::TooLarge { limit: LIMITS.max_decoded_bytes }));
}

#[test]
fn a_few_bytes_that_ask_for_a_large_answer_are_charged_for_it() {
    // Partition 0 of one topic, many times.
    let charged = |count: i32| {
        let topic = [&[0, 0, 0, 0, 1, 0, 1, b't'][..], &count.to_be_bytes()].concat();
        let body = [topic, vec![0; 4 * count as usize], vec![0; 4]].concat();
        verdict(ApiKey::ElectLeaders, 1, &body).map(|report| report.decoded_bytes)
    };
    assert!(charged(4000).expect("within the limit") > 40 * 4000);
    // Decoded alone, these would be within the limit too.
    assert_eq!(charged(40_000), Err(GuardError::TooLarge { limit: LIMITS.max_decoded_bytes }));
}

#[test]
fn null_is_taken_where_the_decoder_takes_it() {
    let null = (-1_i32).to_be_bytes();
    verdict(ApiKey::Metadata, 1, &null).expect("null topics mean all topics");
    let refused = verdict(ApiKey::DeleteTopics, 1, &[null, [0; 4]].concat());
    assert_eq!(refused, Err(GuardError::Length { field: "topic_names" }));
    let refused = verdict(ApiKey::Metadata, 1, &(-2_i32).to_be_bytes());
    assert_eq!(refused, Err(GuardError::Length { field: "topics" }));
}

#[test]
fn trailing_bytes_are_counted_and_ignored() {
    // As librdkafka asks for all topics: a null of four bytes where one belongs.
    let all_topics = [0, 0, 0, 0, 0, 0, 0];
    let report = verdict(ApiKey::Metadata, 13, &all_topics).unwrap();
    assert_eq!(report.trailing_bytes, 3);
}

/// The body of ApiVersions version 3 with two empty strings and these tagged fields.
fn with_tags(tags: &[u8]) -> Result<GuardReport, GuardError> {
    verdict(ApiKey::ApiVersions, 3, &[&[1, 1], tags].concat())
}

#[test]
fn unknown_tags_are_walked_and_charged() {
    let none = with_tags(&[0]).expect("no tags").decoded_bytes;
    let one = with_tags(&[1, 9, 2, b'a', b'b']).expect("one tag").decoded_bytes;
    let two = with_tags(&[2, 9, 0, 10, 0]).expect("two tags").decoded_bytes;
    assert!(none < one && one < two);
    let refused = |tags: &[u8]| with_tags(tags).expect_err("refused");
    assert!(matches!(refused(&[2, 9, 0, 9, 0]), GuardError::Tag { tag: 9, .. }), "twice the same");
    assert!(matches!(refused(&[2, 9, 0, 8, 0]), GuardError::Tag { tag: 8, .. }), "descending");
    assert!(matches!(refused(&[1, 9, 3, 0]), GuardError::Tag { tag: 9, .. }), "longer than the request");
    assert!(matches!(refused(&[0xff, 0xff, 0xff, 0xff, 0x0f]), GuardError::Truncated { .. }));
    assert!(
        matches!(refused(&[0xff, 0xff, 0xff, 0xff, 0x1f]), GuardError::VarInt { .. }),
        "more than 32 bits"
    );
    assert!(
        matches!(refused(&[0xff, 0xff, 0xff, 0xff, 0xff]), GuardError::VarInt { .. }),
        "longer than 5 bytes"
    );
}

#[test]
fn the_size_of_a_known_tag_must_be_true() {
    // Fetch version 12 with empty topics, and the cluster id "ab" as tag 0.
    let fetch = |version: i16, tags: &[u8]| {
        let mut body = vec![0; if version < 15 { 25 } else { 21 }];
        body.extend_from_slice(&[1, 1, 1]);
        body.extend_from_slice(tags);
        verdict(ApiKey::Fetch, version, &body)
    };
    fetch(12, &[1, 0, 3, 3, b'a', b'b']).expect("a true size");
    let refused = fetch(12, &[1, 0, 4, 3, b'a', b'b', 0]).expect_err("refused");
    assert!(matches!(refused, GuardError::Tag { tag: 0, .. }));
    let replica_state = [1, 1, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fetch(15, &replica_state).expect("known since version 15");
    let refused = fetch(12, &replica_state).expect_err("not known before");
    assert!(matches!(refused, GuardError::Tag { tag: 1, .. }));
}

#[test]
fn headers_of_both_versions_are_walked() {
    let fixed = [0, 3, 0, 9, 0, 0, 0, 1];
    let named = [&fixed[..], &[0, 2, b'm', b'e']].concat();
    assert_eq!(check_header(1, &named), Ok(12));
    assert_eq!(check_header(1, &[&fixed[..], &[0xff, 0xff]].concat()), Ok(10), "no client id");
    assert_eq!(check_header(2, &[&named[..], &[0, 99]].concat()), Ok(13), "the body follows");
    assert_eq!(check_header(2, &named), Err(GuardError::Truncated { field: "RequestHeader" }));
    assert_eq!(check_header(1, &named[..11]), Err(GuardError::Truncated { field: "client_id" }));
}

#[test]
fn header_versions_are_those_of_the_decoder() {
    for api in APIS {
        for version in api.min..=api.max {
            let expected = api.key.request_header_version(version);
            assert_eq!(
                request_header_version(api.key as i16, version),
                Some(expected),
                "{:?} {version}",
                api.key
            );
        }
        let known = api.key.valid_versions();
        assert!(known.min <= api.min && api.max <= known.max, "{:?}", api.key);
    }
}
