//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::super::case::{Case, ask, ask_with, finish};
use super::{Times, group, text};

/// Nobody is expected to fall out during the script.
const TIMEOUT_MS: i32 = 600_000;
/// Versions that the script itself uses where another API is asked.
const JOIN: i16 = 9;
const SYNC: i16 = 5;

fn protocols(names: &[&str]) -> Vec<JoinGroupRequestProtocol> {
    let one = |name: &&str| {
        JoinGroupRequestProtocol::default()
            .with_name(text(name))
            .with_metadata(Bytes::copy_from_slice(&subscription("orders")))
    };
    names.iter().map(one).collect()
}

/// What a consumer that wants a topic says of itself, in the first version of that.
fn subscription(topic: &str) -> Vec<u8> {
    let length = u8::try_from(topic.len()).expect("topics of the script have short names");
    let mut out = vec![0, 0, 0, 0, 0, 1, 0, length];
    out.extend(topic.as_bytes());
    out.extend([0, 0, 0, 0]);
    out
}

fn join(version: i16, of: &str, member: StrBytes) -> JoinGroupRequest {
    let out = JoinGroupRequest::default()
        .with_group_id(group(of))
        .with_session_timeout_ms(TIMEOUT_MS)
        .with_member_id(member)
        .with_protocol_type(text("consumer"))
        .with_protocols(protocols(&["range", "roundrobin"]));
    if version >= 1 { out.with_rebalance_timeout_ms(TIMEOUT_MS) } else { out }
}

fn sync(version: i16, of: &str, generation: i32, member: StrBytes) -> SyncGroupRequest {
    let assigned = SyncGroupRequestAssignment::default()
        .with_member_id(member.clone())
        .with_assignment(Bytes::from_static(b"assigned"));
    let out = SyncGroupRequest::default()
        .with_group_id(group(of))
        .with_generation_id(generation)
        .with_member_id(member)
        .with_assignments(vec![assigned]);
    if version < 5 {
        return out;
    }
    out.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range")))
}

/// One member, known as `NAME`, that is alone in its group; its generation is known as `generation of GROUP`.
pub(super) fn joined(of: &str, member: &str) -> Vec<Case> {
    let (of, name) = (of.to_owned(), member.to_owned());
    let first = ask(&format!("{name} asks for an id"), JOIN, join(JOIN, &of, StrBytes::default()));
    let generation = format!("generation of {of}");
    let second = ask_with(&format!("{name} joins"), JOIN, {
        let name = name.clone();
        let of = of.clone();
        move |known| Ok(join(JOIN, &of, known.text(&name)?))
    });
    vec![first.keep(&name, "member_id"), second.keep(&generation, "generation_id")]
}

/// The same, and it has its assignment.
pub(super) fn settled(of: &str, member: &str) -> Vec<Case> {
    let mut cases = joined(of, member);
    let (of, name) = (of.to_owned(), member.to_owned());
    cases.push(ask_with(&format!("{name} is assigned"), SYNC, move |known| {
        Ok(sync(SYNC, &of, known.number(&format!("generation of {of}"))?, known.text(&name)?))
    }));
    cases
}

/// Waits until a group is in that state.
fn until_state(of: &str, state: &str) -> Case {
    ask(&format!("until {of} is {state}"), 5, DescribeGroupsRequest::default().with_groups(vec![group(of)]))
        .until(&format!("groups[{of}].group_state"), state)
}

/// First version of JoinGroup whose members take an id first.
const MEMBER_ID_FROM: i16 = 4;
/// First version of JoinGroup with static members.
const STATIC_FROM: i16 = 5;

pub(super) fn join_group(version: i16, _: &Times) -> Vec<Case> {
    let of = format!("joined-{version}");
    let request = || join(version, &of, StrBytes::default());
    let mut cases = vec![
        ask("empty group id", version, join(version, "", StrBytes::default())),
        ask("too short a session", version, request().with_session_timeout_ms(100)),
        ask("too long a session", version, request().with_session_timeout_ms(10_000_000)),
        ask("negative session", version, request().with_session_timeout_ms(-1)),
        ask("unknown member of an unknown group", version, join(version, "nobody-knows", text("nobody"))),
        ask("no protocols", version, request().with_protocols(Vec::new())),
        ask("no protocol type", version, request().with_protocol_type(StrBytes::default())),
        ask("neither", version, request().with_protocols(Vec::new()).with_protocol_type(StrBytes::default())),
        ask("first", version, request()).keep("member", "member_id").keep("generation", "generation_id"),
    ];
    let again = |what: &str, change: fn(JoinGroupRequest) -> JoinGroupRequest| {
        let of = of.clone();
        ask_with(what, version, move |known| Ok(change(join(version, &of, known.text("member")?))))
            .keep("generation", "generation_id")
    };
    if version >= MEMBER_ID_FROM {
        cases.push(again("with its id", |request| request));
    }
    cases.extend([
        again("again before it is assigned", |request| request),
        again("with the same protocols in another order", |request| {
            request.with_protocols(protocols(&["roundrobin", "range"]))
        }),
        ask("unknown member", version, join(version, &of, text("nobody"))),
        ask("another protocol type", version, request().with_protocol_type(text("connect"))),
        ask("no common protocol", version, request().with_protocols(protocols(&["other"]))),
        again("itself with another protocol type", |request| request.with_protocol_type(text("connect"))),
        again("itself with another protocol", |request| request.with_protocols(protocols(&["other"]))),
        ask(
            "oversized group id",
            version,
            join(version, &format!("{}{version}", "g".repeat(300)), StrBytes::default()),
        ),
        until_state(&of, "CompletingRebalance"),
    ]);
    if version >= 1 {
        let other = format!("joined-{version}-negative");
        let request = join(version, &other, StrBytes::default()).with_rebalance_timeout_ms(-1);
        cases.push(ask("negative rebalance timeout", version, request));
    }
    if version >= STATIC_FROM {
        cases.extend(join_static(version));
    }
    cases
}

fn join_static(version: i16) -> Vec<Case> {
    let of = format!("static-{version}");
    let request = {
        let of = of.clone();
        move |member: StrBytes, instance: &str| {
            join(version, &of, member).with_group_instance_id(Some(text(instance)))
        }
    };
    // In a group of its own, so that it need not wait for others.
    let alone = |what: &str, instance: &str| {
        let of = format!("{of}-{}", what.replace(' ', "-"));
        let request = join(version, &of, StrBytes::default());
        ask(what, version, request.with_group_instance_id(Some(text(instance))))
    };
    let of = of.clone();
    let first = request.clone();
    let mine = request.clone();
    let other = request.clone();
    let anothers = request.clone();
    vec![
        ask("static", version, first(StrBytes::default(), "one"))
            .keep("static member", "member_id")
            .keep("static generation", "generation_id"),
        ask_with("static with its id", version, move |known| Ok(mine(known.text("static member")?, "one")))
            .keep("static generation", "generation_id"),
        ask_with("static is assigned", SYNC, move |known| {
            let (generation, member) = (known.number("static generation")?, known.text("static member")?);
            Ok(sync(SYNC, &of, generation, member).with_group_instance_id(Some(text("one"))))
        }),
        ask("static comes back", version, request(StrBytes::default(), "one"))
            .keep("replacing member", "member_id"),
        ask_with("the static one that was replaced", version, move |known| {
            Ok(anothers(known.text("static member")?, "one"))
        }),
        ask_with("id of another instance", version, move |known| {
            Ok(other(known.text("replacing member")?, "two"))
        }),
        alone("empty instance", ""),
        alone("illegal instance", "a b"),
        alone("oversized instance", &"i".repeat(250)),
        ask("unknown member with an instance", version, request(text("nobody"), "one")),
    ]
}

/// First version of SyncGroup, and of Heartbeat, with static members.
const INSTANCE_FROM: i16 = 3;
/// First version of SyncGroup that names the protocol.
const PROTOCOL_FROM: i16 = 5;

pub(super) fn sync_group(version: i16, _: &Times) -> Vec<Case> {
    let of = format!("synced-{version}");
    let member = format!("member of {of}");
    let by = |what: &str, change: fn(SyncGroupRequest) -> SyncGroupRequest| {
        let (of, member) = (of.clone(), member.clone());
        ask_with(what, version, move |known| {
            let generation = known.number(&format!("generation of {of}"))?;
            Ok(change(sync(version, &of, generation, known.text(&member)?)))
        })
    };
    let mut cases = joined(&of, &member);
    cases.extend([
        ask("empty group id", version, sync(version, "", 1, text("nobody"))),
        ask("unknown group", version, sync(version, "nobody-knows", 1, text("nobody"))),
        ask("unknown member", version, sync(version, &of, 1, text("nobody"))),
        ask("empty member", version, sync(version, &of, 1, StrBytes::default())),
        by("wrong generation", |request| request.with_generation_id(9)),
        by("negative generation", |request| request.with_generation_id(-1)),
    ]);
    if version >= INSTANCE_FROM {
        cases.push(by("unknown instance", |request| request.with_group_instance_id(Some(text("two")))));
    }
    if version >= PROTOCOL_FROM {
        cases.extend([
            by("another protocol", |request| request.with_protocol_name(Some(text("other")))),
            by("another protocol type", |request| request.with_protocol_type(Some(text("connect")))),
            by("no protocol", |request| request.with_protocol_name(None)),
            by("no protocol type", |request| request.with_protocol_type(None)),
        ]);
    }
    cases.extend([
        by("its leader", |request| request),
        by("its leader again", |request| request),
        by("its leader without assignments", |request| request.with_assignments(Vec::new())),
    ]);
    cases.extend(two_members(version));
    cases
}

/// A second member makes the first rebalance; both get what the leader assigned.
fn two_members(version: i16) -> Vec<Case> {
    let of = format!("two-{version}");
    let (first, second) = (format!("first of {of}"), format!("second of {of}"));
    let generation = format!("generation of {of}");
    let mut cases = settled(&of, &first);
    let joins = |what: &str, member: &str| {
        let (of, member) = (of.clone(), member.to_owned());
        ask_with(what, JOIN, move |known| Ok(join(JOIN, &of, known.text(&member)?)))
    };
    let beats = |what: &str| {
        let (of, member, generation) = (of.clone(), first.clone(), generation.clone());
        ask_with(what, 4, move |known| Ok(heart(&of, known.number(&generation)?, known.text(&member)?)))
    };
    let syncs = |what: &str, member: &str, leads: bool| {
        let (of, member, generation) = (of.clone(), member.to_owned(), generation.clone());
        let both = [first.clone(), second.clone()];
        ask_with(what, version, move |known| {
            let request = sync(version, &of, known.number(&generation)?, known.text(&member)?);
            let mut assigned = Vec::new();
            for one in both.iter().filter(|_| leads) {
                let what = if *one == member { "leader's" } else { "other's" };
                let of_one = SyncGroupRequestAssignment::default().with_member_id(known.text(one)?);
                assigned.push(of_one.with_assignment(Bytes::from_static(what.as_bytes())));
            }
            Ok(request.with_assignments(assigned))
        })
    };
    cases.extend([
        ask("second asks for an id", JOIN, join(JOIN, &of, StrBytes::default())).keep(&second, "member_id"),
        joins("second begins to join", &second).on("second").begin(),
        until_state(&of, "PreparingRebalance"),
        beats("heartbeat while others join"),
        syncs("in the midst of a rebalance", &first, true),
        joins("first joins again", &first).keep(&generation, "generation_id"),
        finish::<JoinGroupRequest>("second has joined", JOIN, "second"),
        until_state(&of, "CompletingRebalance"),
        beats("heartbeat before the assignment"),
        syncs("second waits for its assignment", &second, false).on("second").begin(),
        syncs("leader assigns", &first, true),
        finish::<SyncGroupRequest>("second is assigned", version, "second"),
        beats("heartbeat afterwards"),
    ]);
    cases
}

fn heart(of: &str, generation: i32, member: StrBytes) -> HeartbeatRequest {
    HeartbeatRequest::default().with_group_id(group(of)).with_generation_id(generation).with_member_id(member)
}

pub(super) fn heartbeat(version: i16, _: &Times) -> Vec<Case> {
    let of = format!("beating-{version}");
    let member = format!("member of {of}");
    let by = |what: &str, change: fn(HeartbeatRequest) -> HeartbeatRequest| {
        let (of, member) = (of.clone(), member.clone());
        ask_with(what, version, move |known| {
            let generation = known.number(&format!("generation of {of}"))?;
            Ok(change(heart(&of, generation, known.text(&member)?)))
        })
    };
    let mut cases = joined(&of, &member);
    cases.push(by("before the assignment", |request| request));
    cases.extend(settled(&of, &member).pop());
    cases.extend([
        by("good", |request| request),
        by("wrong generation", |request| request.with_generation_id(9)),
        by("negative generation", |request| request.with_generation_id(-1)),
        ask("unknown member", version, heart(&of, 1, text("nobody"))),
        ask("empty member", version, heart(&of, 1, StrBytes::default())),
        ask("unknown group", version, heart("nobody-knows", 1, text("nobody"))),
        ask("empty group id", version, heart("", 1, text("nobody"))),
    ]);
    if version >= INSTANCE_FROM {
        cases.push(by("unknown instance", |request| request.with_group_instance_id(Some(text("two")))));
        cases.extend(static_heartbeats(version));
    }
    cases
}

/// A static member beats with its own id, with another's, and as librdkafka does after its session: with none.
fn static_heartbeats(version: i16) -> Vec<Case> {
    let of = format!("beating-static-{version}");
    let (member, generation) = (format!("member of {of}"), format!("generation of {of}"));
    let joins = join(JOIN, &of, StrBytes::default()).with_group_instance_id(Some(text("one")));
    let by = |what: &str, id: Option<&'static str>| {
        let (of, member, generation) = (of.clone(), member.clone(), generation.clone());
        ask_with(what, version, move |known| {
            let id = id.map_or_else(|| known.text(&member), |id| Ok(text(id)))?;
            Ok(heart(&of, known.number(&generation)?, id).with_group_instance_id(Some(text("one"))))
        })
    };
    vec![
        ask("instance joins", JOIN, joins).keep(&member, "member_id").keep(&generation, "generation_id"),
        by("instance with its id", None),
        by("instance with another's id", Some("nobody")),
        by("instance without an id", Some("")),
        by("instance with its id again", None),
    ]
}

/// First version of LeaveGroup with several members.
const LEAVE_BATCHED_FROM: i16 = 3;

pub(super) fn leave_group(version: i16, _: &Times) -> Vec<Case> {
    let of = format!("left-{version}");
    let member = format!("member of {of}");
    let request = move |of: &str, members: &[StrBytes]| {
        let request = LeaveGroupRequest::default().with_group_id(group(of));
        if version < LEAVE_BATCHED_FROM {
            return request.with_member_id(members.first().cloned().unwrap_or_default());
        }
        let one = |member: &StrBytes| MemberIdentity::default().with_member_id(member.clone());
        request.with_members(members.iter().map(one).collect())
    };
    let by = |what: &str, count: usize| {
        let (of, member) = (of.clone(), member.clone());
        ask_with(what, version, move |known| Ok(request(&of, &vec![known.text(&member)?; count])))
    };
    let mut cases = settled(&of, &member);
    cases.extend([
        ask("unknown group", version, request("nobody-knows", &[text("nobody")])),
        ask("empty group id", version, request("", &[text("nobody")])),
        ask("unknown member", version, request(&of, &[text("nobody")])),
        ask("empty member", version, request(&of, &[StrBytes::default()])),
    ]);
    if version >= LEAVE_BATCHED_FROM {
        let instance = |member: StrBytes, instance: &str| {
            let one =
                MemberIdentity::default().with_member_id(member).with_group_instance_id(Some(text(instance)));
            request(&of, &[]).with_members(vec![one])
        };
        cases.extend([
            ask("no members", version, request(&of, &[])),
            ask("no members of an unknown group", version, request("nobody-knows", &[])),
            ask("two unknown members", version, request(&of, &[text("nobody"), text("nobody else")])),
            ask("unknown instance", version, instance(StrBytes::default(), "one")),
            ask("unknown instance with an id", version, instance(text("nobody"), "one")),
            by("the same twice", 2),
        ]);
        cases.extend(leave_static(version));
    } else {
        cases.push(by("a member", 1));
    }
    cases.push(by("who has left already", 1));
    cases.push(until_state(&of, "Empty"));
    cases
}

fn leave_static(version: i16) -> Vec<Case> {
    let of = format!("left-static-{version}");
    let joined = join(JOIN, &of, StrBytes::default()).with_group_instance_id(Some(text("one")));
    let leave = |member: StrBytes| {
        let one = MemberIdentity::default().with_member_id(member).with_group_instance_id(Some(text("one")));
        LeaveGroupRequest::default().with_group_id(group(&of)).with_members(vec![one])
    };
    vec![
        ask("static member joins", JOIN, joined),
        ask("instance with another's id", version, leave(text("nobody"))),
        ask("by instance", version, leave(StrBytes::default())),
        ask("by instance again", version, leave(StrBytes::default())),
    ]
}
