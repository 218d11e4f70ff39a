//! DescribeConfigs, ListConfigResources.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::{DescribeConfigsRequest, ListConfigResourcesRequest};

use super::super::case::{Case, ask};
use super::{Times, made_topic, text};

/// The numbers of what has configurations.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

/// First version that tells types and documentation.
const TYPES_FROM: i16 = 3;
/// The version in which other APIs' effects are looked at.
const LOOK_VERSION: i16 = 4;

fn resource(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResource {
    DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| text(key)).collect()))
}

fn request(resources: Vec<DescribeConfigsResource>) -> DescribeConfigsRequest {
    DescribeConfigsRequest::default().with_resources(resources)
}

/// Asks for some configurations of one resource, or for all, and where they come from.
pub(super) fn described(what: &str, kind: i8, name: &str, keys: &[&str]) -> Case {
    let keys = Some(keys).filter(|keys| !keys.is_empty());
    ask(what, LOOK_VERSION, request(vec![resource(kind, name, keys)]).with_include_synonyms(true))
}

/// The names under which brokers know what Helix lets be configured, or at least tells, with Kafka's meaning.
const BROKER_CONFIGS: &[&str] = &[
    "auto.create.topics.enable",
    "broker.id",
    "compression.type",
    "connections.max.idle.ms",
    "default.replication.factor",
    "group.initial.rebalance.delay.ms",
    "group.max.session.timeout.ms",
    "group.min.session.timeout.ms",
    "log.cleanup.policy",
    "log.retention.bytes",
    "log.retention.hours",
    "log.retention.minutes",
    "log.retention.ms",
    "log.segment.bytes",
    "max.connections",
    "message.max.bytes",
    "min.insync.replicas",
    "node.id",
    "num.partitions",
    "offsets.retention.minutes",
];

pub(super) fn describe_configs(version: i16, _: &Times) -> Vec<Case> {
    let name = format!("described-{version}");
    let mut cases = made_topic(
        &name,
        1,
        &[("retention.ms", "86400000"), ("cleanup.policy", "delete"), ("max.message.bytes", "2000000")],
    );
    let all =
        |what: &str, kind: i8, name: &str| ask(what, version, request(vec![resource(kind, name, None)]));
    let keyed = |what: &str, kind: i8, name: &str, keys: &[&str]| {
        ask(what, version, request(vec![resource(kind, name, Some(keys))]))
    };
    let of_topic = || request(vec![resource(TOPIC, &name, None)]);
    cases.extend([
        all("topic", TOPIC, &name),
        all("topic without a config of its own", TOPIC, "orders"),
        all("a topic of the broker's own", TOPIC, "__consumer_offsets"),
        ask("topic with synonyms", version, of_topic().with_include_synonyms(true)),
        keyed("one key", TOPIC, &name, &["retention.ms"]),
        keyed("two keys", TOPIC, &name, &["retention.ms", "cleanup.policy"]),
        keyed("the same key twice", TOPIC, &name, &["retention.ms", "retention.ms"]),
        keyed("an unknown key", TOPIC, &name, &["no.such.config"]),
        keyed("known and unknown key", TOPIC, &name, &["no.such.config", "retention.ms"]),
        keyed("an empty key", TOPIC, &name, &[""]),
        keyed("a broker's key", TOPIC, &name, &["log.retention.ms"]),
        keyed("no keys", TOPIC, &name, &[]),
        all("unknown topic", TOPIC, "nowhere"),
        all("no topic's name", TOPIC, ""),
        all("illegal characters", TOPIC, "a b"),
        all("oversized name", TOPIC, &"x".repeat(250)),
        keyed("unknown topic and key", TOPIC, "nowhere", &["no.such.config"]),
        ask("nothing", version, request(Vec::new())),
        ask(
            "the same topic twice",
            version,
            request(vec![resource(TOPIC, &name, None), resource(TOPIC, &name, None)]),
        ),
        ask(
            "the same topic with other keys",
            version,
            request(vec![
                resource(TOPIC, &name, Some(&["retention.ms"])),
                resource(TOPIC, &name, Some(&["cleanup.policy"])),
            ]),
        ),
        ask(
            "known, unknown and a broker",
            version,
            request(vec![
                resource(TOPIC, &name, Some(&["retention.ms"])),
                resource(TOPIC, "nowhere", None),
                resource(BROKER, "1", Some(&["log.retention.ms"])),
            ]),
        ),
    ]);
    if version >= TYPES_FROM {
        cases.push(ask("topic with documentation", version, of_topic().with_include_documentation(true)));
    }
    cases.extend(describe_brokers(version));
    cases.extend(describe_others(version));
    cases
}

fn describe_brokers(version: i16) -> Vec<Case> {
    let of = |name: &str, keys: Option<&[&str]>| request(vec![resource(BROKER, name, keys)]);
    vec![
        ask("broker", version, of("1", None)),
        ask("some of a broker", version, of("1", Some(BROKER_CONFIGS)).with_include_synonyms(true)),
        ask("an unknown one of a broker", version, of("1", Some(&["no.such.config"]))),
        ask("a topic's key of a broker", version, of("1", Some(&["retention.ms"]))),
        ask("all brokers", version, of("", None)),
        ask("all brokers with keys", version, of("", Some(&["log.retention.ms"]))),
        ask("another broker", version, of("2", None)),
        ask("a negative broker", version, of("-1", None)),
        ask("no broker's number", version, of("abc", None)),
        ask("a broker's number with zeros", version, of("01", Some(&["log.retention.ms"]))),
        ask("a broker's number with a plus", version, of("+1", Some(&["log.retention.ms"]))),
        ask("a broker's number with blanks", version, of(" 1 ", Some(&["log.retention.ms"]))),
        ask("too large a number of a broker", version, of("9999999999", None)),
    ]
}

fn describe_others(version: i16) -> Vec<Case> {
    let all =
        |what: &str, kind: i8, name: &str| ask(what, version, request(vec![resource(kind, name, None)]));
    vec![
        all("loggers", LOGGER, "1"),
        all("nobody's loggers", LOGGER, ""),
        all("another broker's loggers", LOGGER, "2"),
        all("no broker's loggers", LOGGER, "abc"),
        all("client metrics", CLIENT_METRICS, "nobody"),
        all("client metrics without a name", CLIENT_METRICS, ""),
        all("group", GROUP, "nobody"),
        all("group without a name", GROUP, ""),
        all("unknown type", 0, "orders"),
        all("any type", 1, "orders"),
        all("the type of clusters", 3, "orders"),
        all("another unknown type", 99, "orders"),
        all("negative type", -1, "orders"),
        ask(
            "known topic and unknown type",
            version,
            request(vec![resource(TOPIC, "orders", Some(&["retention.ms"])), resource(99, "other", None)]),
        ),
    ]
}

pub(super) fn list_config_resources(version: i16, _: &Times) -> Vec<Case> {
    if version < 1 {
        return vec![ask("plain", version, ListConfigResourcesRequest::default())];
    }
    let of = |what: &str, kinds: &[i8]| {
        ask(what, version, ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec()))
    };
    vec![
        of("all types", &[]),
        of("topics", &[TOPIC]),
        of("brokers", &[BROKER]),
        of("loggers", &[LOGGER]),
        of("client metrics", &[CLIENT_METRICS]),
        of("groups", &[GROUP]),
        of("topics and brokers", &[TOPIC, BROKER]),
        of("topics twice", &[TOPIC, TOPIC]),
        of("unknown type", &[0]),
        of("any type", &[1]),
        of("another unknown type", &[99]),
        of("negative type", &[-1]),
        of("known and unknown type", &[TOPIC, 99]),
    ]
}
