//! DescribeTopicPartitions, ElectLeaders, DescribeLogDirs, DescribeProducers, DeleteRecords.

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest as ProducersOf;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, DescribeLogDirsRequest, DescribeProducersRequest,
    DescribeTopicPartitionsRequest, ElectLeadersRequest, ListOffsetsRequest,
};

use super::super::case::{Case, ask};
use super::produce::{stored, stored_by_producers};
use super::{Times, made_topic, topic};

const TIMEOUT_MS: i32 = 30_000;
/// Fits any answer of the script.
const NO_LIMIT: i32 = 1000;

pub(super) fn describe_topic_partitions(version: i16, _: &Times) -> Vec<Case> {
    let names = |names: &[&str], limit: i32| {
        let topics = names.iter().map(|name| TopicRequest::default().with_name(topic(name)));
        DescribeTopicPartitionsRequest::default()
            .with_topics(topics.collect())
            .with_response_partition_limit(limit)
            .with_cursor(None)
    };
    let plain = |what: &str, named: &[&str]| ask(what, version, names(named, NO_LIMIT));
    let limited = |what: &str, named: &[&str], limit: i32| ask(what, version, names(named, limit));
    let from = |what: &str, named: &[&str], limit: i32, at: (&str, i32)| {
        let cursor = Cursor::default().with_topic_name(topic(at.0)).with_partition_index(at.1);
        ask(what, version, names(named, limit).with_cursor(Some(cursor)))
    };
    let two = &["empty", "orders"];
    vec![
        plain("known topic", &["orders"]),
        plain("known topic twice", &["orders", "orders"]),
        plain("several, in another order", &["orders", "empty"]),
        plain("all topics", &[]),
        plain("a topic of the broker's own", &["__consumer_offsets"]),
        plain("unknown topic", &["nowhere"]),
        plain("unknown topic twice", &["nowhere", "nowhere"]),
        plain("known, unknown and illegal", &["orders", "nowhere", "a b"]),
        plain("illegal characters", &["a b"]),
        plain("empty name", &[""]),
        plain("two dots", &[".."]),
        plain("oversized name", &[&"x".repeat(250)]),
        limited("limited to all there are", &["orders"], 3),
        limited("limited to two", &["orders"], 2),
        limited("limited to one", two, 1),
        limited("limited inside of a later topic", two, 2),
        limited("limited to none", &["orders"], 0),
        limited("a negative limit", &["orders"], -1),
        limited("a limit above the broker's", &["orders"], 1_000_000),
        limited("limited, with an unknown topic first", &["nowhere", "orders"], 1),
        limited("limited, with an unknown topic last", &["empty", "nowhere"], 1),
        limited("all topics, limited", &[], 2),
        from("from the start", two, NO_LIMIT, ("empty", 0)),
        from("from a later topic", two, NO_LIMIT, ("orders", 0)),
        from("from a later partition", two, NO_LIMIT, ("orders", 1)),
        from("from a later partition, limited", two, 1, ("orders", 1)),
        from("from behind the last partition", two, NO_LIMIT, ("orders", 3)),
        from("from far behind the last partition", two, NO_LIMIT, ("empty", 99)),
        from("from a negative partition", two, NO_LIMIT, ("orders", -1)),
        from("from a negative partition of an unknown topic", two, NO_LIMIT, ("nowhere", -1)),
        from("from an unknown topic", two, NO_LIMIT, ("nowhere", 0)),
        from("from an unknown topic, later partition", two, NO_LIMIT, ("nowhere", 5)),
        from("from a topic that was not asked for", two, NO_LIMIT, ("log-append", 0)),
        from("from behind the last topic", two, NO_LIMIT, ("zzz", 0)),
        from("from an empty name", two, NO_LIMIT, ("", 0)),
        from("from an unknown topic that was asked for", &["nowhere", "orders"], NO_LIMIT, ("nowhere", 1)),
        from("all topics, from a later partition", &[], NO_LIMIT, ("orders", 1)),
    ]
}

/// First version that says what kind of election it is.
const ELECTION_TYPE_FROM: i16 = 1;

pub(super) fn elect_leaders(version: i16, _: &Times) -> Vec<Case> {
    let of = |name: &str, partitions: &[i32]| {
        TopicPartitions::default().with_topic(topic(name)).with_partitions(partitions.to_vec())
    };
    let request = |topics: Option<Vec<TopicPartitions>>| {
        ElectLeadersRequest::default().with_topic_partitions(topics).with_timeout_ms(TIMEOUT_MS)
    };
    let some = |what: &str, topics: Vec<TopicPartitions>| ask(what, version, request(Some(topics)));
    let mut cases = vec![
        some("led by the preferred one", vec![of("orders", &[0])]),
        some("all of a topic", vec![of("orders", &[0, 1, 2])]),
        some("the same partition twice", vec![of("orders", &[0, 0])]),
        some("the same topic twice", vec![of("orders", &[0]), of("orders", &[1])]),
        some("unknown topic", vec![of("nowhere", &[0])]),
        some("unknown partition", vec![of("orders", &[0, 99])]),
        some("negative partition", vec![of("orders", &[-1])]),
        some("empty name", vec![of("", &[0])]),
        some("illegal characters", vec![of("a b", &[0])]),
        some("a topic of the broker's own", vec![of("__consumer_offsets", &[0])]),
        some("no partitions", vec![of("orders", &[])]),
        some("no topics", Vec::new()),
        ask("all topics", version, request(None)),
        ask("no timeout", version, request(Some(vec![of("orders", &[0])])).with_timeout_ms(0)),
        ask("negative timeout", version, request(Some(vec![of("orders", &[0])])).with_timeout_ms(-1)),
    ];
    if version >= ELECTION_TYPE_FROM {
        let kind = |what: &str, kind: i8, topics: Option<Vec<TopicPartitions>>| {
            ask(what, version, request(topics).with_election_type(kind))
        };
        cases.extend([
            kind("whoever is there", 1, Some(vec![of("orders", &[0])])),
            kind("whoever is there, of an unknown topic", 1, Some(vec![of("nowhere", &[0])])),
            kind("whoever is there, all topics", 1, None),
            kind("an unknown election", 2, Some(vec![of("orders", &[0])])),
            kind("an unknown election of all", 2, None),
            kind("a negative election", -1, Some(vec![of("orders", &[0])])),
        ]);
    }
    cases
}

pub(super) fn describe_log_dirs(version: i16, _: &Times) -> Vec<Case> {
    let of = |name: &str, partitions: &[i32]| {
        DescribableLogDirTopic::default().with_topic(topic(name)).with_partitions(partitions.to_vec())
    };
    let request = |topics| DescribeLogDirsRequest::default().with_topics(topics);
    let some = |what: &str, topics: Vec<DescribableLogDirTopic>| ask(what, version, request(Some(topics)));
    vec![
        ask("all topics", version, request(None)),
        some("known topic", vec![of("orders", &[0, 1, 2])]),
        some("known and unknown partition", vec![of("orders", &[0, 99])]),
        some("negative partition", vec![of("orders", &[-1])]),
        some("the same partition twice", vec![of("orders", &[0, 0])]),
        some("the same topic twice", vec![of("orders", &[0]), of("orders", &[1])]),
        some("two topics", vec![of("orders", &[0]), of("empty", &[0])]),
        some("unknown topic", vec![of("nowhere", &[0])]),
        some("known and unknown topic", vec![of("orders", &[0]), of("nowhere", &[0])]),
        some("empty name", vec![of("", &[0])]),
        some("illegal characters", vec![of("a b", &[0])]),
        some("a topic without partitions", vec![of("orders", &[])]),
        some("no topics", Vec::new()),
    ]
}

pub(super) fn describe_producers(version: i16, times: &Times) -> Vec<Case> {
    let name = format!("producers-of-{version}");
    let of = |name: &str, partitions: &[i32]| {
        ProducersOf::default().with_name(topic(name)).with_partition_indexes(partitions.to_vec())
    };
    let request = |topics| DescribeProducersRequest::default().with_topics(topics);
    let some = |what: &str, topics: Vec<ProducersOf>| ask(what, version, request(topics));
    let mut cases = made_topic(&name, 2, &[]);
    cases.extend(stored_by_producers(&name, times));
    cases.extend([
        some("two producers", vec![of(&name, &[0])]),
        some("none", vec![of(&name, &[1])]),
        some("several partitions", vec![of(&name, &[1, 0]), of("orders", &[0])]),
        some("the same partition twice", vec![of(&name, &[0, 0])]),
        some("the same topic twice", vec![of(&name, &[0]), of(&name, &[1])]),
        some("unknown partition", vec![of(&name, &[0, 99])]),
        some("negative partition", vec![of(&name, &[-1])]),
        some("unknown topic", vec![of("nowhere", &[0])]),
        some("known and unknown topic", vec![of("nowhere", &[0]), of("orders", &[0])]),
        some("empty name", vec![of("", &[0])]),
        some("illegal characters", vec![of("a b", &[0])]),
        some("oversized name", vec![of(&"x".repeat(250), &[0])]),
        some("a topic of the broker's own", vec![of("__consumer_offsets", &[0])]),
        some("no partitions", vec![of(&name, &[])]),
        some("no partitions of an unknown topic", vec![of("nowhere", &[])]),
        some("no topics", Vec::new()),
    ]);
    cases
}

pub(super) fn delete_records(version: i16, times: &Times) -> Vec<Case> {
    let name = format!("emptied-{version}");
    let compacted = format!("emptied-compacted-{version}");
    let both = format!("emptied-compacted-and-deleted-{version}");
    let of = |name: &str, partitions: &[(i32, i64)]| {
        let one = |(number, offset): &(i32, i64)| {
            DeleteRecordsPartition::default().with_partition_index(*number).with_offset(*offset)
        };
        DeleteRecordsTopic::default()
            .with_name(topic(name))
            .with_partitions(partitions.iter().map(one).collect())
    };
    let request = |topics| DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(TIMEOUT_MS);
    let some = |what: &str, topics: Vec<DeleteRecordsTopic>| ask(what, version, request(topics));
    let mut cases = made_topic(&name, 3, &[]);
    cases.extend(made_topic(&compacted, 1, &[("cleanup.policy", "compact")]));
    cases.extend(made_topic(&both, 1, &[("cleanup.policy", "compact,delete")]));
    for (name, partition) in [(&name, 0), (&name, 1), (&name, 2), (&compacted, 0), (&both, 0)] {
        cases.push(stored("five records", name, partition, times));
    }
    cases.extend([
        some("none", vec![of(&name, &[(0, 0)])]),
        some("up to the middle", vec![of(&name, &[(0, 2)])]),
        some("up to there again", vec![of(&name, &[(0, 2)])]),
        some("less than is deleted already", vec![of(&name, &[(0, 1)])]),
        some("beyond the end", vec![of(&name, &[(0, 6)])]),
        some("a negative offset", vec![of(&name, &[(0, -2)])]),
        some("a very negative offset", vec![of(&name, &[(0, i64::MIN)])]),
        some("a very large offset", vec![of(&name, &[(0, i64::MAX)])]),
        begin_of("where it begins now", &name, 0),
        some("two partitions, one of them wrong", vec![of(&name, &[(0, 99), (1, 1)])]),
        some("the same partition twice", vec![of(&name, &[(1, 2), (1, 3)])]),
        some("the same topic twice", vec![of(&name, &[(1, 4)]), of(&name, &[(2, 1)])]),
        begin_of("where the next begins", &name, 1),
        some("up to the end", vec![of(&name, &[(2, 5)])]),
        some("all of it", vec![of(&name, &[(0, -1)])]),
        some("all of nothing", vec![of(&name, &[(0, -1)])]),
        begin_of("where it begins in the end", &name, 0),
        some("of a compacted topic", vec![of(&compacted, &[(0, 2)])]),
        some("beyond the end of a compacted topic", vec![of(&compacted, &[(0, 99)])]),
        some("of a topic that is compacted and deleted", vec![of(&both, &[(0, 2)])]),
        some("unknown topic", vec![of("nowhere", &[(0, 0)])]),
        some("unknown partition", vec![of(&name, &[(99, 0)])]),
        some("negative partition", vec![of(&name, &[(-1, 0)])]),
        some("empty name", vec![of("", &[(0, 0)])]),
        some("illegal characters", vec![of("a b", &[(0, 0)])]),
        some("a topic of the broker's own", vec![of("__consumer_offsets", &[(0, 0)])]),
        some("known and unknown topic", vec![of("nowhere", &[(0, 0)]), of(&name, &[(1, 0)])]),
        some("no partitions", vec![of(&name, &[])]),
        some("no partitions of an unknown topic", vec![of("nowhere", &[])]),
        some("no topics", Vec::new()),
        ask("no timeout", version, request(vec![of(&name, &[(1, 4)])]).with_timeout_ms(0)),
        ask("negative timeout", version, request(vec![of(&name, &[(1, 4)])]).with_timeout_ms(-1)),
    ]);
    cases
}

fn begin_of(what: &str, name: &str, partition: i32) -> Case {
    let earliest = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-2);
    let of = ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![earliest]);
    ask(what, 1, ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![of]))
}
