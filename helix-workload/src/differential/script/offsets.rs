//! OffsetCommit, OffsetFetch, OffsetDelete.

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest};
use kafka_protocol::protocol::StrBytes;

use super::super::case::{Case, ask, ask_with};
use super::membership::{joined, settled};
use super::{Times, group, text, topic};

/// Version of OffsetCommit that the script itself uses.
const COMMIT: i16 = 9;
/// More than the metadata of an offset may have.
const TOO_MUCH_METADATA: usize = 4_097;

fn commit(of: &str, topics: Vec<OffsetCommitRequestTopic>) -> OffsetCommitRequest {
    OffsetCommitRequest::default()
        .with_group_id(group(of))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(topics)
}

fn offsets(name: &str, partitions: Vec<OffsetCommitRequestPartition>) -> OffsetCommitRequestTopic {
    OffsetCommitRequestTopic::default().with_name(topic(name)).with_partitions(partitions)
}

fn offset(partition: i32, offset: i64) -> OffsetCommitRequestPartition {
    OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text("metadata")))
}

/// A group without members that has committed something.
pub(super) fn committed(of: &str, at: i64) -> Case {
    let topics =
        vec![offsets("orders", vec![offset(0, at), offset(1, at + 1)]), offsets("empty", vec![offset(0, 0)])];
    ask(&format!("{of} commits"), COMMIT, commit(of, topics))
}

/// First version of OffsetCommit with the leader's epoch.
const EPOCH_FROM: i16 = 6;
/// First version of OffsetCommit with static members.
const INSTANCE_FROM: i16 = 7;
/// The last version of OffsetCommit that says how long offsets are kept.
const RETENTION_UNTIL: i16 = 4;

pub(super) fn offset_commit(version: i16, _: &Times) -> Vec<Case> {
    let of = format!("committed-{version}");
    let one = |what: &str, name: &str, partitions: Vec<OffsetCommitRequestPartition>| {
        ask(what, version, commit(&of, vec![offsets(name, partitions)]))
    };
    let good = || vec![offsets("orders", vec![offset(0, 3)])];
    let mut cases = vec![
        one("without members", "orders", vec![offset(0, 3), offset(1, 4)]),
        one("unknown topic", "nowhere", vec![offset(0, 3)]),
        one("illegal topic", "a b", vec![offset(0, 3)]),
        one("empty topic", "", vec![offset(0, 3)]),
        one("unknown partition", "orders", vec![offset(99, 3)]),
        one("negative partition", "orders", vec![offset(-1, 3)]),
        one("behind the end", "orders", vec![offset(2, 1_000_000)]),
        one("negative offset", "orders", vec![offset(2, -1)]),
        one("very negative offset", "orders", vec![offset(2, -5)]),
        one("null metadata", "orders", vec![offset(0, 3).with_committed_metadata(None)]),
        one(
            "too much metadata",
            "orders",
            vec![
                offset(0, 3).with_committed_metadata(Some(text(&"m".repeat(TOO_MUCH_METADATA)))),
                offset(1, 4),
            ],
        ),
        one(
            "as much metadata as there may be",
            "orders",
            vec![offset(0, 3).with_committed_metadata(Some(text(&"m".repeat(TOO_MUCH_METADATA - 1))))],
        ),
        one("the same partition twice", "orders", vec![offset(0, 3), offset(0, 4)]),
        one("no partitions", "orders", Vec::new()),
        ask("no topics", version, commit(&of, Vec::new())),
        ask(
            "known and unknown topic",
            version,
            commit(&of, vec![offsets("orders", vec![offset(0, 3)]), offsets("nowhere", vec![offset(0, 3)])]),
        ),
        ask(
            "the same topic twice",
            version,
            commit(&of, vec![offsets("orders", vec![offset(0, 3)]), offsets("orders", vec![offset(1, 3)])]),
        ),
        ask("empty group id", version, commit("", good())),
        ask(
            "a generation of an unknown group",
            version,
            commit("nobody-knows", good())
                .with_generation_id_or_member_epoch(3)
                .with_member_id(text("nobody")),
        ),
        ask(
            "a member of a group without members",
            version,
            commit(&of, good()).with_generation_id_or_member_epoch(3).with_member_id(text("nobody")),
        ),
        ask("a member without a generation", version, commit(&of, good()).with_member_id(text("nobody"))),
        ask("very negative generation", version, commit(&of, good()).with_generation_id_or_member_epoch(-5)),
    ];
    if version <= RETENTION_UNTIL {
        for (what, ms) in [("a retention", 60_000), ("no retention", 0), ("negative retention", -5)] {
            cases.push(ask(what, version, commit(&of, good()).with_retention_time_ms(ms)));
        }
    }
    if version >= EPOCH_FROM {
        for (what, epoch) in [("an epoch", 3), ("very negative epoch", -5)] {
            let partition = offset(0, 3).with_committed_leader_epoch(epoch);
            cases.push(one(what, "orders", vec![partition]));
        }
    }
    cases.extend(commit_as_member(version));
    cases
}

fn commit_as_member(version: i16) -> Vec<Case> {
    let of = format!("committed-by-member-{version}");
    let member = format!("member of {of}");
    let good = || vec![offsets("orders", vec![offset(0, 3)])];
    let by = |what: &str, change: fn(OffsetCommitRequest) -> OffsetCommitRequest| {
        let (of, member) = (of.clone(), member.clone());
        ask_with(what, version, move |known| {
            let request = commit(&of, vec![offsets("orders", vec![offset(0, 3)])])
                .with_generation_id_or_member_epoch(known.number(&format!("generation of {of}"))?)
                .with_member_id(known.text(&member)?);
            Ok(change(request))
        })
    };
    let mut cases = joined(&of, &member);
    cases.push(by("before the assignment", |request| request));
    cases.extend(settled(&of, &member).pop());
    cases.extend([
        by("by a member", |request| request),
        by("wrong generation", |request| request.with_generation_id_or_member_epoch(9)),
        by("negative generation", |request| request.with_generation_id_or_member_epoch(-1)),
        by("no member", |request| request.with_member_id(StrBytes::default())),
        ask("by nobody while there are members", version, commit(&of, good())),
        ask(
            "unknown member",
            version,
            commit(&of, good()).with_generation_id_or_member_epoch(1).with_member_id(text("nobody")),
        ),
    ]);
    if version >= INSTANCE_FROM {
        cases.push(by("unknown instance", |request| request.with_group_instance_id(Some(text("two")))));
        cases.push(ask(
            "an instance while there are members",
            version,
            commit(&of, good()).with_group_instance_id(Some(text("two"))),
        ));
    }
    cases
}

/// First version of OffsetFetch that asks for several groups.
const FETCH_BATCHED_FROM: i16 = 8;
/// First version of OffsetFetch that can ask for all topics.
const ALL_FROM: i16 = 2;

type Asked<'a> = Option<&'a [(&'a str, &'a [i32])]>;

pub(super) fn offset_fetch(version: i16, _: &Times) -> Vec<Case> {
    let of = format!("fetched-{version}");
    let mut cases = vec![committed(&of, 7)];
    let asked: [(&str, &str, Asked<'_>); 11] = [
        ("known", &of, Some(&[("orders", &[0, 1])])),
        ("nothing committed", &of, Some(&[("orders", &[2])])),
        ("unknown partition", &of, Some(&[("orders", &[99, 0])])),
        ("negative partition", &of, Some(&[("orders", &[-1])])),
        ("unknown topic", &of, Some(&[("nowhere", &[0])])),
        ("empty topic", &of, Some(&[("", &[0])])),
        ("the same partition twice", &of, Some(&[("orders", &[0, 0])])),
        ("no partitions", &of, Some(&[("orders", &[])])),
        ("no topics", &of, Some(&[])),
        ("unknown group", "nobody-knows", Some(&[("orders", &[0])])),
        ("empty group id", "", Some(&[("orders", &[0])])),
    ];
    for (what, of, topics) in asked {
        cases.push(ask(what, version, offset_fetch_of(version, &[(of, topics)])));
    }
    if version >= ALL_FROM {
        cases.push(ask("all topics", version, offset_fetch_of(version, &[(&of, None)])));
        cases.push(ask(
            "all topics of an unknown group",
            version,
            offset_fetch_of(version, &[("nobody-knows", None)]),
        ));
        cases.push(ask("all topics of an empty group id", version, offset_fetch_of(version, &[("", None)])));
    }
    if version >= 7 {
        let request = offset_fetch_of(version, &[(&of, None)]).with_require_stable(true);
        cases.push(ask("stable ones", version, request));
    }
    if version >= FETCH_BATCHED_FROM {
        let known: Asked<'_> = Some(&[("orders", &[0])]);
        cases.extend([
            ask(
                "several groups",
                version,
                offset_fetch_of(version, &[(&of, known), ("nobody-knows", known)]),
            ),
            ask("the same group twice", version, offset_fetch_of(version, &[(&of, known), (&of, None)])),
            ask("no groups", version, offset_fetch_of(version, &[])),
        ]);
    }
    if version >= 9 {
        cases.extend(offset_fetch_by_member(version, &of));
    }
    cases
}

fn offset_fetch_of(version: i16, groups: &[(&str, Asked<'_>)]) -> OffsetFetchRequest {
    if version < FETCH_BATCHED_FROM {
        let Some((of, topics)) = groups.first() else { return OffsetFetchRequest::default() };
        let one = |(name, partitions): &(&str, &[i32])| {
            OffsetFetchRequestTopic::default()
                .with_name(topic(name))
                .with_partition_indexes(partitions.to_vec())
        };
        return OffsetFetchRequest::default()
            .with_group_id(group(of))
            .with_topics(topics.map(|topics| topics.iter().map(one).collect()));
    }
    let one = |(name, partitions): &(&str, &[i32])| {
        OffsetFetchRequestTopics::default().with_name(topic(name)).with_partition_indexes(partitions.to_vec())
    };
    let of_group = |(of, topics): &(&str, Asked<'_>)| {
        OffsetFetchRequestGroup::default()
            .with_group_id(group(of))
            .with_topics(topics.map(|topics| topics.iter().map(one).collect()))
    };
    OffsetFetchRequest::default().with_groups(groups.iter().map(of_group).collect())
}

fn offset_fetch_by_member(version: i16, of: &str) -> Vec<Case> {
    let request = |of: &str, member: Option<&str>, epoch: i32| {
        let mut request = offset_fetch_of(version, &[(of, Some(&[("orders", &[0])]))]);
        for group in &mut request.groups {
            group.member_id = member.map(text);
            group.member_epoch = epoch;
        }
        request
    };
    vec![
        ask("by a member that is none", version, request(of, Some("nobody"), 3)),
        ask("by a member of an unknown group", version, request("nobody-knows", Some("nobody"), 3)),
        ask("by an epoch alone", version, request(of, None, 3)),
        ask("by an empty member", version, request(of, Some(""), -1)),
    ]
}

pub(super) fn offset_delete(version: i16, _: &Times) -> Vec<Case> {
    let (free, full) = (format!("forgotten-{version}"), format!("forgotten-full-{version}"));
    let request = |of: &str, topics: &[(&str, &[i32])]| {
        let partition = |number: &i32| OffsetDeleteRequestPartition::default().with_partition_index(*number);
        let one = |(name, partitions): &(&str, &[i32])| {
            OffsetDeleteRequestTopic::default()
                .with_name(topic(name))
                .with_partitions(partitions.iter().map(partition).collect())
        };
        OffsetDeleteRequest::default().with_group_id(group(of)).with_topics(topics.iter().map(one).collect())
    };
    let mut cases = vec![committed(&free, 7)];
    cases.extend(settled(&full, &format!("member of {full}")));
    cases.extend([
        ask("known", version, request(&free, &[("orders", &[0])])),
        ask("forgotten already", version, request(&free, &[("orders", &[0])])),
        ask("unknown partition", version, request(&free, &[("orders", &[99, 1])])),
        ask("negative partition", version, request(&free, &[("orders", &[-1])])),
        ask("unknown topic", version, request(&free, &[("nowhere", &[0]), ("orders", &[2])])),
        ask("the same twice", version, request(&free, &[("orders", &[2, 2])])),
        ask("no partitions", version, request(&free, &[("orders", &[])])),
        ask("no topics", version, request(&free, &[])),
        ask("subscribed", version, request(&full, &[("orders", &[0])])),
        ask("not subscribed", version, request(&full, &[("empty", &[0])])),
        ask("unknown group", version, request("nobody-knows", &[("orders", &[0])])),
        ask("empty group id", version, request("", &[("orders", &[0])])),
    ]);
    cases
}
