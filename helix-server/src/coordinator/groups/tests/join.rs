//! JoinGroup, and the rebalance that gathers the members.

use super::*;

#[test]
fn a_first_member_waits_for_others() {
    let mut world = World::new();
    let mut first = world.newcomer("a");
    world.wait_ms(2999);
    let mut second = world.newcomer("b");
    world.wait_ms(2000);
    assert!(first.is_open() && second.is_open(), "somebody came, so it waits once more");
    world.wait_ms(1001);
    let (first, second) = (first.joined(), second.joined());
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.protocol.as_deref(), Some("range"), "what all prefer");
    let (leader, other) = if first.leader == first.member { (first, second) } else { (second, first) };
    assert_eq!(leader.members.len(), 2, "the leader is told of everybody");
    assert!(other.members.is_empty() && other.leader == leader.member);
}

#[test]
fn waiting_for_more_members_ends_with_the_rebalance_timeout() {
    let mut world = World::new();
    let mut first = world.newcomer("first");
    for number in 0..19 {
        world.wait_ms(2900);
        world.newcomer(&number.to_string());
    }
    assert!(first.is_open(), "{REBALANCE_MS} ms are not over");
    world.wait_ms(6000);
    assert_eq!(first.joined().generation, 1);
}

#[test]
fn a_member_that_comes_makes_the_others_join_again() {
    let mut world = World::new();
    let members = world.stable(2);
    let mut third = world.newcomer("c");
    for member in &members {
        assert_eq!(world.heartbeat(&member.member, 1), Err(GroupError::RebalanceInProgress));
        assert_eq!(world.sync(member, &[]).now(), Err(GroupError::RebalanceInProgress));
    }
    let mut again = world.join(joining("a", &members[0].member));
    assert!(third.is_open() && again.is_open());
    let last = world.join(joining("b", &members[1].member)).joined();
    assert_eq!((last.generation, again.joined().generation, third.joined().generation), (2, 2, 2));
    assert_eq!(world.heartbeat(&last.member, 1), Err(GroupError::IllegalGeneration));
    assert_eq!(world.heartbeat(&last.member, 2), Ok(()));
    assert_eq!(world.heartbeat("nobody", 2), Err(GroupError::UnknownMemberId));
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let mut world = World::new();
    let members = world.stable(2);
    let third = world.newcomer("c");
    let again = world.join(joining("a", &members[0].member));
    // The second one sends heartbeats, and never joins.
    for _ in 0..12 {
        assert_eq!(world.heartbeat(&members[1].member, 1), Err(GroupError::RebalanceInProgress));
        world.wait_ms(5000);
    }
    let leader = if third.0.is_empty() { again.joined() } else { third.joined() };
    assert_eq!(leader.generation, 2);
    assert_eq!(world.heartbeat(&members[1].member, 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_new_member_is_given_its_id_first() {
    let mut world = World::new();
    let ask = |member: &str| JoinGroup { takes_member_id: true, ..joining("client", member) };
    let refused = world.join(ask("")).refused();
    assert_eq!(refused.error, GroupError::MemberIdRequired);
    assert!(refused.member.starts_with("client-"));
    let answer = world.join(ask(&refused.member));
    world.wait_ms(3000);
    assert_eq!(answer.joined().member, refused.member);
    let never_used = world.join(ask("")).refused().member;
    world.wait_ms(u64::try_from(SESSION_MS).unwrap());
    assert_eq!(world.join(ask(&never_used)).refused().error, GroupError::UnknownMemberId);
}

#[test]
fn a_member_whose_answer_was_lost_is_answered_again() {
    let mut world = World::new();
    let members = world.stable(2);
    let follower = &members[1];
    let again = world.join(joining("b", &follower.member)).joined();
    assert_eq!((again.generation, world.state()), (1, Some("Stable")), "it has nothing new to say");
    let mut changed = joining("b", &follower.member);
    changed.protocols[0].metadata = subscription(&["other"]);
    let mut waiting = world.join(changed);
    assert!(waiting.is_open(), "it reads something else, so all share anew");
    assert_eq!(world.state(), Some("PreparingRebalance"));
}

#[test]
fn the_leader_can_ask_for_another_assignment() {
    let mut world = World::new();
    let members = world.stable(1);
    let again = world.join(joining("a", &members[0].member)).joined();
    assert_eq!(again.generation, 2);
}

#[test]
fn who_does_not_fit_is_refused() {
    let mut world = World::new();
    let refusal = |world: &mut World, request| world.join(request).refused().error;
    let no_group = JoinGroup { group: String::new(), ..joining("a", "") };
    assert_eq!(refusal(&mut world, no_group), GroupError::InvalidGroupId);
    let hasty = JoinGroup { session_timeout_ms: 5999, ..joining("a", "") };
    assert_eq!(refusal(&mut world, hasty), GroupError::InvalidSessionTimeout);
    assert_eq!(refusal(&mut world, joining("a", "stranger")), GroupError::UnknownMemberId);
    let speechless = JoinGroup { protocols: vec![], ..joining("a", "") };
    let endless = JoinGroup { client_id: "x".repeat(40_000), ..joining("a", "") };
    assert_eq!(refusal(&mut world, endless), GroupError::InvalidRequest);
    assert_eq!(world.state(), None, "no group came of it");
    assert_eq!(refusal(&mut world, speechless), GroupError::InconsistentGroupProtocol);
    assert_eq!(world.state(), Some("Empty"), "as in Kafka");
    world.stable(1);
    let other = JoinGroup { protocol_type: "connect".to_owned(), ..joining("a", "") };
    assert_eq!(refusal(&mut world, other), GroupError::InconsistentGroupProtocol);
    let mut foreign = joining("a", "");
    foreign.protocols.iter_mut().for_each(|protocol| protocol.name.insert(0, 'x'));
    assert_eq!(refusal(&mut world, foreign), GroupError::InconsistentGroupProtocol);
}

#[test]
fn the_protocol_is_the_one_that_most_prefer_of_those_that_all_speak() {
    let mut world = World::new();
    let speaking = |names: &[&str]| {
        let protocol = |name: &&str| Protocol { name: (*name).to_owned(), metadata: Bytes::new() };
        JoinGroup { protocols: names.iter().map(protocol).collect(), ..joining("a", "") }
    };
    let first = world.join(speaking(&["sticky", "range", "roundrobin"]));
    let _second = world.join(speaking(&["roundrobin", "range"]));
    let _third = world.join(speaking(&["roundrobin", "range"]));
    world.wait_ms(6000);
    assert_eq!(first.joined().protocol.as_deref(), Some("roundrobin"));
}

#[test]
fn a_group_has_a_size() {
    let mut world = World::with(GroupsConfig { max_size: 2, ..config() });
    let members = world.stable(2);
    assert_eq!(world.newcomer("c").refused().error, GroupError::GroupMaxSizeReached);
    assert_eq!(world.heartbeat(&members[0].member, 1), Ok(()), "the others go on");
}
