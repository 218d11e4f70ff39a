//! ApiVersions, Metadata, DescribeCluster, DescribeQuorum.

use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeClusterRequest, DescribeQuorumRequest, HeartbeatRequest, MetadataRequest,
};
use uuid::Uuid;

use super::super::case::{Case, ask, ask_bytes, ask_with};
use super::{Times, metadata_of, nobodys_id, text, topic};

/// First version that names the client.
const SOFTWARE_FROM: i16 = 3;
/// A version that nobody knows.
const FAR_VERSION: i16 = 99;

pub(super) fn api_versions(version: i16, _: &Times) -> Vec<Case> {
    if version < SOFTWARE_FROM {
        return vec![
            ask("plain", version, ApiVersionsRequest::default()),
            ask_bytes::<ApiVersionsRequest>("unknown version", FAR_VERSION, Vec::new()).answered_in(0),
            ask_bytes::<HeartbeatRequest>("unknown version of another API", FAR_VERSION, Vec::new()),
        ];
    }
    let named = |name: &str, software_version: &str| {
        ApiVersionsRequest::default()
            .with_client_software_name(text(name))
            .with_client_software_version(text(software_version))
    };
    vec![
        ask("named", version, named("apache-kafka-java", "4.1.0")),
        ask("nameless", version, named("", "")),
        ask("without a version", version, named("client", "")),
        ask("name with a blank", version, named("my client", "1")),
        ask("name ending with a dash", version, named("client-", "1")),
    ]
}

/// First version that can ask not to make topics.
const AUTO_CREATION_FROM: i16 = 4;
/// First version with authorized operations.
const OPERATIONS_FROM: i16 = 8;
/// First version with topic ids, though none may be asked for yet.
const IDS_FROM: i16 = 10;

pub(super) fn metadata(version: i16, _: &Times) -> Vec<Case> {
    let names = |names: &[&str]| {
        let topics = names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic(name))));
        let request = MetadataRequest::default().with_topics(Some(topics.collect()));
        if version < AUTO_CREATION_FROM { request } else { request.with_allow_auto_topic_creation(false) }
    };
    let mut cases = vec![
        ask("known topic", version, names(&["orders"])),
        ask("known topic twice", version, names(&["orders", "orders"])),
        ask("several", version, names(&["orders", "empty"])),
        ask("illegal characters", version, names(&["a b"])),
        ask("empty name", version, names(&[""])),
        ask("two dots", version, names(&[".."])),
        ask("oversized name", version, names(&[&"x".repeat(250)])),
        ask("no topics", version, names(&[])),
    ];
    if version >= 1 {
        cases.push(ask("all topics", version, names(&[]).with_topics(None)));
    }
    if version >= AUTO_CREATION_FROM {
        cases.push(ask("unknown topic", version, names(&["nowhere"])));
        cases.push(ask("known, unknown and illegal", version, names(&["orders", "nowhere", "a b"])));
    }
    if version >= OPERATIONS_FROM {
        let request = names(&["orders", "nowhere"]).with_include_topic_authorized_operations(true);
        cases.push(ask("operations on topics", version, request.clone()));
        if version <= IDS_FROM {
            let request = request.with_include_cluster_authorized_operations(true);
            cases.push(ask("operations on the cluster", version, request));
        }
    }
    if version >= IDS_FROM {
        cases.extend(metadata_by_id(version));
    }
    let new = format!("asked-for-{version}");
    let asked = names(&[&new]).with_allow_auto_topic_creation(true);
    cases.push(ask("creation on first use", version, asked));
    cases.push(
        ask("until it is there", 12, metadata_of(&new))
            .until(&format!("topics[{new}].partitions[0].error_code"), "0")
            .keep(&format!("id of {new}"), &format!("topics[{new}].topic_id")),
    );
    cases
}

fn metadata_by_id(version: i16) -> Vec<Case> {
    let request = |name: Option<&str>, id: Uuid| {
        let one = MetadataRequestTopic::default().with_name(name.map(topic)).with_topic_id(id);
        MetadataRequest::default().with_topics(Some(vec![one])).with_allow_auto_topic_creation(false)
    };
    vec![
        ask("unknown id", version, request(None, nobodys_id())),
        ask("neither name nor id", version, request(None, Uuid::nil())),
        ask_with("known id", version, move |known| Ok(request(None, known.id("id of orders")?))),
        ask_with("name and its id", version, move |known| {
            Ok(request(Some("orders"), known.id("id of orders")?))
        }),
        ask_with("name and another's id", version, move |known| {
            Ok(request(Some("orders"), known.id("id of empty")?))
        }),
    ]
}

pub(super) fn describe_cluster(version: i16, _: &Times) -> Vec<Case> {
    let plain = DescribeClusterRequest::default();
    let mut cases = vec![
        ask("plain", version, plain.clone()),
        ask("operations", version, plain.clone().with_include_cluster_authorized_operations(true)),
    ];
    if version >= 1 {
        cases.push(ask("controllers", version, plain.clone().with_endpoint_type(2)));
        cases.push(ask("unknown endpoint type", version, plain.clone().with_endpoint_type(9)));
        cases.push(ask("negative endpoint type", version, plain.clone().with_endpoint_type(-1)));
    }
    if version >= 2 {
        cases.push(ask("fenced brokers too", version, plain.with_include_fenced_brokers(true)));
    }
    cases
}

/// What the log of the metadata is called.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(super) fn describe_quorum(version: i16, _: &Times) -> Vec<Case> {
    let of = |name: &str, partitions: &[i32]| {
        let partitions =
            partitions.iter().map(|number| PartitionData::default().with_partition_index(*number));
        TopicData::default().with_topic_name(topic(name)).with_partitions(partitions.collect())
    };
    let some = |what: &str, topics: Vec<TopicData>| {
        ask(what, version, DescribeQuorumRequest::default().with_topics(topics))
    };
    vec![
        some("metadata", vec![of(METADATA_TOPIC, &[0])]),
        some("unknown partition", vec![of(METADATA_TOPIC, &[1])]),
        some("negative partition", vec![of(METADATA_TOPIC, &[-1])]),
        some("known and unknown partition", vec![of(METADATA_TOPIC, &[0, 1])]),
        some("the same partition twice", vec![of(METADATA_TOPIC, &[0, 0])]),
        some("the same topic twice", vec![of(METADATA_TOPIC, &[0]), of(METADATA_TOPIC, &[0])]),
        some("another topic", vec![of("orders", &[0])]),
        some("known and another topic", vec![of(METADATA_TOPIC, &[0]), of("orders", &[0])]),
        some("unknown topic", vec![of("nowhere", &[0])]),
        some("empty name", vec![of("", &[0])]),
        some("no partitions", vec![of(METADATA_TOPIC, &[])]),
        some("no topics", Vec::new()),
    ]
}
