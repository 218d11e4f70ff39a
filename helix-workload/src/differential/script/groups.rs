//! FindCoordinator, DescribeGroups, ListGroups, DeleteGroups.

use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, ListGroupsRequest,
};

use super::super::case::{Case, ask};
use super::membership::settled;
use super::offsets::committed;
use super::{Times, group, text};

/// First version of FindCoordinator that asks for several at once.
const FIND_BATCHED_FROM: i16 = 4;
/// Kinds of keys.
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

pub(super) fn find_coordinator(version: i16, _: &Times) -> Vec<Case> {
    let request = |keys: &[&str]| {
        let request = FindCoordinatorRequest::default();
        if version < FIND_BATCHED_FROM {
            return request.with_key(text(keys.first().copied().unwrap_or_default()));
        }
        request.with_coordinator_keys(keys.iter().map(|key| text(key)).collect())
    };
    let mut cases = vec![
        ask("a group", version, request(&["group"])),
        ask("empty group id", version, request(&[""])),
        ask("oversized group id", version, request(&[&"g".repeat(300)])),
    ];
    if version >= 1 {
        for (what, kind) in [("unknown kind", 9), ("negative kind", -1), ("share group", SHARE)] {
            cases.push(ask(what, version, request(&["key"]).with_key_type(kind)));
        }
        cases.push(ask("transaction", version, request(&["key"]).with_key_type(TRANSACTION)));
        cases.push(ask("empty transactional id", version, request(&[""]).with_key_type(TRANSACTION)));
    }
    if version >= FIND_BATCHED_FROM {
        cases.push(ask("several", version, request(&["one", "two"])));
        cases.push(ask("the same twice", version, request(&["one", "one"])));
        cases.push(ask("none", version, request(&[])));
    }
    cases
}

pub(super) fn describe_groups(version: i16, _: &Times) -> Vec<Case> {
    let (full, empty) = (format!("described-{version}"), format!("described-empty-{version}"));
    let request = |names: &[&str]| {
        DescribeGroupsRequest::default().with_groups(names.iter().map(|n| group(n)).collect())
    };
    let mut cases = settled(&full, &format!("member of {full}"));
    cases.push(committed(&empty, 7));
    cases.extend([
        ask("with a member", version, request(&[&full])),
        ask("with offsets alone", version, request(&[&empty])),
        ask("unknown", version, request(&["nobody-knows"])),
        ask("empty group id", version, request(&[""])),
        ask("several", version, request(&[&full, "nobody-knows", &empty])),
        ask("the same twice", version, request(&[&full, &full])),
        ask("none", version, request(&[])),
    ]);
    if version >= 3 {
        let request = request(&[&full, "nobody-knows"]);
        cases.push(ask("operations", version, request.with_include_authorized_operations(true)));
    }
    cases
}

/// First version of ListGroups with a filter by state.
const STATES_FROM: i16 = 4;
/// First version of ListGroups with a filter by type.
const TYPES_FROM: i16 = 5;

pub(super) fn list_groups(version: i16, _: &Times) -> Vec<Case> {
    let all = ListGroupsRequest::default();
    let mut cases = vec![ask("all", version, all.clone())];
    if version >= STATES_FROM {
        for states in [&["Stable"][..], &["Empty"], &["Stable", "Empty"], &["stable"], &["nonsense"], &[""]] {
            let filter = states.iter().map(|state| text(state)).collect();
            let what = format!("states {states:?}");
            cases.push(ask(&what, version, all.clone().with_states_filter(filter)));
        }
    }
    if version >= TYPES_FROM {
        for types in [&["classic"][..], &["consumer"], &["Classic"], &["share"], &["nonsense"], &[""]] {
            let filter = types.iter().map(|one| text(one)).collect();
            let what = format!("types {types:?}");
            cases.push(ask(&what, version, all.clone().with_types_filter(filter)));
        }
    }
    cases
}

pub(super) fn delete_groups(version: i16, _: &Times) -> Vec<Case> {
    let name = |what: &str| format!("gone-{version}-{what}");
    let request = |names: &[&str]| {
        DeleteGroupsRequest::default().with_groups_names(names.iter().map(|n| group(n)).collect())
    };
    let mut cases = settled(&name("full"), &format!("member of {}", name("full")));
    cases.extend(["one", "two", "three"].map(|what| committed(&name(what), 7)));
    cases.extend([
        ask("with a member", version, request(&[&name("full")])),
        ask("with offsets alone", version, request(&[&name("one")])),
        ask("deleted already", version, request(&[&name("one")])),
        ask("unknown", version, request(&["nobody-knows"])),
        ask("empty group id", version, request(&[""])),
        ask("the same twice", version, request(&[&name("two"), &name("two")])),
        ask("several", version, request(&[&name("three"), "nobody-knows", &name("full")])),
        ask("none", version, request(&[])),
    ]);
    cases
}
