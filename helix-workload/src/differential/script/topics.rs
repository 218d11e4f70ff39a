//! CreateTopics, DeleteTopics, CreatePartitions.

use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};
use uuid::Uuid;

use super::super::case::{Case, ask, ask_with};
use super::{Times, config, made_topic, new_topic, nobodys_id, topic};

const TIMEOUT_MS: i32 = 30_000;

pub(super) fn create_topics(version: i16, _: &Times) -> Vec<Case> {
    let name = |what: &str| format!("created-{version}-{what}");
    let request = |topics: Vec<CreatableTopic>| {
        CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(TIMEOUT_MS)
    };
    let one = |what: &str, topic: CreatableTopic| {
        let name = topic.name.to_string();
        ask(what, version, request(vec![topic]))
            .keep(&format!("id of {name}"), &format!("topics[{name}].topic_id"))
    };
    let sized = |what: &str, partitions: i32, replicas: i16| {
        one(what, new_topic(&name(&what.replace(' ', "-")), partitions).with_replication_factor(replicas))
    };
    let mut cases = vec![
        one("two partitions", new_topic(&name("first"), 2)),
        one("exists already", new_topic(&name("first"), 2)),
        ask(
            "exists already and validated only",
            version,
            request(vec![new_topic(&name("first"), 2)]).with_validate_only(true),
        ),
        ask("validated only", version, request(vec![new_topic(&name("not"), 2)]).with_validate_only(true)),
        sized("defaults", -1, -1),
        sized("no partitions", 0, 1),
        sized("negative partitions", -2, 1),
        sized("no replicas", 1, 0),
        sized("negative replicas", 1, -2),
        sized("more replicas than brokers", 1, 2),
        ask("empty", version, request(Vec::new())),
        ask(
            "the same twice",
            version,
            request(vec![new_topic(&name("twice"), 1), new_topic(&name("twice"), 1)]),
        ),
        ask(
            "good and bad",
            version,
            request(vec![new_topic(&name("good"), 1), new_topic("a b", 1), new_topic(&name("bad"), 0)]),
        )
        .keep(&format!("id of {}", name("good")), &format!("topics[{}].topic_id", name("good"))),
        ask("negative timeout", version, request(vec![new_topic("a b", 1)]).with_timeout_ms(-1)),
        one("dots and underscores", new_topic(&name("a.b"), 1)),
        one("a name that collides", new_topic(&name("a_b"), 1)),
        one("an internal name", new_topic("__consumer_offsets", 1)),
    ];
    for (what, bad) in [("empty name", ""), ("a dot", "."), ("two dots", ".."), ("illegal characters", "ä/b")]
    {
        cases.push(one(what, new_topic(bad, 1)));
    }
    cases.push(one("oversized name", new_topic(&"x".repeat(250), 1)));
    cases.extend(assigned(version, &name));
    cases.extend(configured(version, &name));
    cases
}

fn assigned(version: i16, name: &dyn Fn(&str) -> String) -> Vec<Case> {
    let assignments = |all: &[(i32, &[i32])]| -> Vec<CreatableReplicaAssignment> {
        let one = |(partition, brokers): &(i32, &[i32])| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*partition)
                .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
        };
        all.iter().map(one).collect()
    };
    let case = |what: &str, partitions: i32, replicas: i16, all: &[(i32, &[i32])]| {
        let name = name(&what.replace(' ', "-"));
        let new =
            new_topic(&name, partitions).with_replication_factor(replicas).with_assignments(assignments(all));
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(TIMEOUT_MS);
        ask(what, version, request).keep(&format!("id of {name}"), &format!("topics[{name}].topic_id"))
    };
    vec![
        case("assigned", -1, -1, &[(0, &[1]), (1, &[1])]),
        case("assigned in another order", -1, -1, &[(1, &[1]), (0, &[1])]),
        case("assigned to an unknown broker", -1, -1, &[(0, &[99])]),
        case("assigned to a negative broker", -1, -1, &[(0, &[-1])]),
        case("assigned with a gap", -1, -1, &[(0, &[1]), (2, &[1])]),
        case("assigned from one on", -1, -1, &[(1, &[1])]),
        case("assigned twice", -1, -1, &[(0, &[1]), (0, &[1])]),
        case("assigned to the same broker twice", -1, -1, &[(0, &[1, 1])]),
        case("assigned to nobody", -1, -1, &[(0, &[])]),
        case("assigned and counted", 1, -1, &[(0, &[1])]),
        case("assigned and replicated", -1, 1, &[(0, &[1])]),
    ]
}

/// Configurations of topics, with values that are valid and others.
pub(super) const VALUES: &[(&str, &str)] = &[
    ("retention.ms", "86400000"),
    ("retention.ms", "-1"),
    ("retention.ms", "-2"),
    ("retention.ms", "abc"),
    ("retention.ms", ""),
    ("retention.ms", " 5 "),
    ("retention.bytes", "-1"),
    ("retention.bytes", "-2"),
    ("cleanup.policy", "compact"),
    ("cleanup.policy", "compact,delete"),
    ("cleanup.policy", "nonsense"),
    ("cleanup.policy", ""),
    ("compression.type", "zstd"),
    ("compression.type", "nonsense"),
    ("max.message.bytes", "2000000"),
    ("max.message.bytes", "-1"),
    ("min.insync.replicas", "1"),
    ("min.insync.replicas", "0"),
    ("segment.bytes", "1048576"),
    ("segment.bytes", "1"),
    ("message.timestamp.type", "LogAppendTime"),
    ("message.timestamp.type", "nonsense"),
    ("message.timestamp.after.max.ms", "1000"),
    ("unclean.leader.election.enable", "true"),
    ("unclean.leader.election.enable", "maybe"),
    ("delete.retention.ms", "1000"),
    ("segment.ms", "0"),
    ("segment.ms", "60000"),
    ("flush.messages", "1"),
    ("index.interval.bytes", "4096"),
    ("no.such.config", "1"),
    ("", "1"),
    ("retention.ms", "9223372036854775807"),
    ("retention.ms", "9223372036854775808"),
    ("retention.ms", "5.0"),
    ("retention.bytes", "1000000"),
    ("retention.bytes", "x"),
    ("cleanup.policy", "delete"),
    ("cleanup.policy", "Delete"),
    ("cleanup.policy", "delete,nonsense"),
    ("compression.type", "producer"),
    ("compression.type", ""),
    ("compression.gzip.level", "9"),
    ("compression.gzip.level", "0"),
    ("compression.lz4.level", "9"),
    ("compression.lz4.level", "99"),
    ("compression.zstd.level", "19"),
    ("compression.zstd.level", "99"),
    ("max.message.bytes", "0"),
    ("max.message.bytes", "2147483648"),
    ("min.insync.replicas", "100"),
    ("min.cleanable.dirty.ratio", "0.5"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("min.cleanable.dirty.ratio", "1.1"),
    ("min.cleanable.dirty.ratio", "-0.1"),
    ("min.cleanable.dirty.ratio", "x"),
    ("min.compaction.lag.ms", "1000"),
    ("max.compaction.lag.ms", "1000"),
    ("max.compaction.lag.ms", "0"),
    ("message.timestamp.type", "CreateTime"),
    ("message.timestamp.before.max.ms", "1000"),
    ("message.timestamp.before.max.ms", "-1"),
    ("unclean.leader.election.enable", "false"),
    ("unclean.leader.election.enable", "TRUE"),
    ("delete.retention.ms", "-1"),
    ("segment.index.bytes", "1048576"),
    ("segment.jitter.ms", "1000"),
    ("flush.messages", "0"),
    ("flush.ms", "1000"),
    ("file.delete.delay.ms", "1000"),
    ("preallocate", "true"),
    ("follower.replication.throttled.replicas", "*"),
    ("follower.replication.throttled.replicas", "0:1,1:1"),
    ("leader.replication.throttled.replicas", "nonsense"),
    ("remote.storage.enable", "true"),
    ("remote.storage.enable", "false"),
    ("remote.log.copy.disable", "true"),
    ("local.retention.ms", "1000"),
    ("local.retention.ms", "-2"),
    ("local.retention.bytes", "-3"),
    ("message.format.version", "3.0-IV1"),
    ("message.downconversion.enable", "false"),
    ("log.retention.ms", "1"),
];

fn configured(version: i16, name: &dyn Fn(&str) -> String) -> Vec<Case> {
    let case = |what: &str, configs: &[(&str, Option<&str>)]| {
        let name = name(&what.replace([' ', ',', '='], "-"));
        let configs = configs.iter().map(|(name, value)| config(name, *value)).collect();
        let new = new_topic(&name, 1).with_configs(configs);
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(TIMEOUT_MS);
        ask(what, version, request).keep(&format!("id of {name}"), &format!("topics[{name}].topic_id"))
    };
    let mut cases = vec![
        case("null value", &[("retention.ms", None)]),
        case("the same config twice", &[("retention.ms", Some("1000")), ("retention.ms", Some("2000"))]),
        case("two configs", &[("retention.ms", Some("86400000")), ("cleanup.policy", Some("delete"))]),
    ];
    for (config, value) in VALUES {
        cases.push(case(&format!("{config}={value}"), &[(*config, Some(*value))]));
    }
    cases
}

/// First version that takes ids.
const DELETE_BY_ID_FROM: i16 = 6;

pub(super) fn delete_topics(version: i16, _: &Times) -> Vec<Case> {
    let name = |what: &str| format!("deleted-{version}-{what}");
    let request = |names: &[&str]| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(TIMEOUT_MS);
        if version < DELETE_BY_ID_FROM {
            return request.with_topic_names(names.iter().map(|name| topic(name)).collect());
        }
        let state = |name: &&str| DeleteTopicState::default().with_name(Some(topic(name)));
        request.with_topics(names.iter().map(state).collect())
    };
    let mut cases = made_topic(&name("one"), 1, &[]);
    cases.extend(made_topic(&name("two"), 1, &[]));
    cases.extend(made_topic(&name("three"), 1, &[]));
    cases.extend([
        ask("known topic", version, request(&[&name("one")])),
        ask("deleted already", version, request(&[&name("one")])),
        ask("unknown topic", version, request(&["nowhere"])),
        ask("the same twice", version, request(&[&name("two"), &name("two")])),
        ask("an unknown one twice", version, request(&["nowhere", "nowhere"])),
        ask("known and unknown", version, request(&[&name("three"), "nowhere"])),
        ask("illegal characters", version, request(&["a b"])),
        ask("empty name", version, request(&[""])),
        ask("oversized name", version, request(&[&"x".repeat(250)])),
        ask("empty", version, request(&[])),
        ask("negative timeout", version, request(&["nowhere"]).with_timeout_ms(-1)),
    ]);
    if version >= DELETE_BY_ID_FROM {
        cases.extend(delete_by_id(version));
    }
    cases
}

fn delete_by_id(version: i16) -> Vec<Case> {
    let request = |states: &[(Option<&str>, Uuid)]| {
        let state = |(name, id): &(Option<&str>, Uuid)| {
            DeleteTopicState::default().with_name(name.map(topic)).with_topic_id(*id)
        };
        DeleteTopicsRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_topics(states.iter().map(state).collect())
    };
    let mut cases = made_topic("deleted-by-id", 1, &[]);
    cases.extend([
        ask("unknown id", version, request(&[(None, nobodys_id())])),
        ask("unknown id twice", version, request(&[(None, nobodys_id()), (None, nobodys_id())])),
        ask("neither name nor id", version, request(&[(None, Uuid::nil())])),
        ask("unknown name and unknown id", version, request(&[(Some("nowhere"), nobodys_id())])),
        ask_with("name and its id", version, move |known| {
            Ok(request(&[(Some("deleted-by-id"), known.id("id of deleted-by-id")?)]))
        }),
        ask_with("once by name and once by id", version, move |known| {
            let id = known.id("id of deleted-by-id")?;
            Ok(request(&[(Some("deleted-by-id"), Uuid::nil()), (None, id)]))
        }),
        ask_with("known id", version, move |known| Ok(request(&[(None, known.id("id of deleted-by-id")?)]))),
    ]);
    cases
}

pub(super) fn create_partitions(version: i16, _: &Times) -> Vec<Case> {
    let grown = format!("grown-{version}");
    let to =
        |name: &str, count: i32| CreatePartitionsTopic::default().with_name(topic(name)).with_count(count);
    let request = |topics: Vec<CreatePartitionsTopic>| {
        CreatePartitionsRequest::default().with_topics(topics).with_timeout_ms(TIMEOUT_MS)
    };
    let assigned = |count: i32, brokers: &[&[i32]]| {
        let one = |brokers: &&[i32]| {
            CreatePartitionsAssignment::default()
                .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
        };
        to(&grown, count).with_assignments(Some(brokers.iter().map(one).collect()))
    };
    let one = |what: &str, topic: CreatePartitionsTopic| ask(what, version, request(vec![topic]));
    let mut cases = made_topic(&grown, 2, &[]);
    cases.extend([
        ask("validated only", version, request(vec![to(&grown, 3)]).with_validate_only(true)),
        one("as many", to(&grown, 2)),
        one("fewer", to(&grown, 1)),
        one("none", to(&grown, 0)),
        one("negative", to(&grown, -1)),
        ask("very many, validated only", version, request(vec![to(&grown, 20_000)]).with_validate_only(true)),
        one("unknown topic", to("nowhere", 3)),
        one("empty name", to("", 3)),
        one("illegal characters", to("a b", 3)),
        ask("the same twice", version, request(vec![to(&grown, 3), to(&grown, 4)])),
        ask("empty", version, request(Vec::new())),
        one("more", to(&grown, 3)),
        one("assigned", assigned(4, &[&[1]])),
        one("assigned to too many", assigned(5, &[&[1], &[1]])),
        one("assigned to too few", assigned(7, &[&[1], &[1]])),
        one("assigned to an unknown broker", assigned(5, &[&[99]])),
        one("assigned to the same broker twice", assigned(5, &[&[1, 1]])),
        one("assigned to nobody", assigned(5, &[&[]])),
        one("assigned with an empty list", assigned(5, &[])),
        ask("good and unknown", version, request(vec![to(&grown, 5), to("nowhere", 3)])),
    ]);
    cases
}
