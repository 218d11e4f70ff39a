//! Members with an instance id (KIP-345).

use super::*;

#[test]
fn a_static_member_that_is_started_again_keeps_its_place() {
    let mut world = World::new();
    let (first, second) = (world.join(static_member("one")), world.join(static_member("two")));
    world.wait_ms(6000);
    let mut members = [first.joined(), second.joined()];
    members.sort_by_key(|one| one.leader != one.member);
    world.assign(&members);
    let instance = members[1].member.split('-').next().unwrap().to_owned();
    let mut back = world.join(static_member(&instance));
    assert!(back.is_open(), "not before it is stored");
    world.commit();
    let back = back.joined();
    assert_eq!((back.generation, world.state()), (1, Some("Stable")), "without a rebalance");
    assert_ne!(back.member, members[1].member);
    let synced = world.sync(&back, &[]).now().unwrap();
    assert_eq!(synced.assignment, members[1].member.as_bytes(), "what it had before");
    assert_eq!(world.heartbeat(&members[1].member, 1), Err(GroupError::UnknownMemberId));
    let mut late = static_member(&instance);
    late.member.clone_from(&members[1].member);
    assert_eq!(world.join(late).refused().error, GroupError::FencedInstanceId);
    world.fail_over();
    assert_eq!(world.heartbeat(&back.member, 1), Ok(()), "it is stored who has the place");
}

#[test]
fn a_static_leader_that_is_started_again_leaves_the_assignment_as_it_is() {
    let mut world = World::new();
    let first = world.join(static_member("one"));
    world.wait_ms(3000);
    let first = first.joined();
    world.assign(std::slice::from_ref(&first));
    let back = world.join(JoinGroup { can_skip_assignment: true, ..static_member("one") });
    world.commit();
    let back = back.joined();
    assert!(back.skip_assignment && back.leader == back.member && back.members.len() == 1);
    let old_version = world.join(static_member("one"));
    world.commit();
    let old_version = old_version.joined();
    assert!(!old_version.skip_assignment && old_version.members.is_empty());
    assert_ne!(old_version.leader, old_version.member, "it must not think that it leads");
}

#[test]
fn a_static_member_is_sent_away_by_its_instance() {
    let mut world = World::new();
    let first = world.join(static_member("one"));
    world.wait_ms(3000);
    let first = first.joined();
    world.assign(std::slice::from_ref(&first));
    assert_eq!(world.leave("", Some("unknown")), Some(GroupError::UnknownMemberId));
    assert_eq!(world.leave("other", Some("one")), Some(GroupError::FencedInstanceId));
    assert_eq!(world.leave("", Some("one")), None);
    world.commit();
    assert_eq!(world.state(), Some("Empty"));
}

#[test]
fn a_static_member_that_comes_back_into_a_rebalance_is_known_to_the_next_coordinator() {
    let mut world = World::new();
    let (first, second) = (world.join(static_member("one")), world.join(static_member("two")));
    world.wait_ms(6000);
    let mut members = [first.joined(), second.joined()];
    members.sort_by_key(|one| one.leader != one.member);
    world.assign(&members);
    let third = world.newcomer("c");
    let [leader, mut other] = members.each_ref().map(|one| {
        let mut again = static_member(one.member.split('-').next().unwrap());
        if one.member == members[0].member {
            again.member.clone_from(&one.member);
        }
        world.join(again)
    });
    let leader = leader.joined();
    assert!(other.is_open(), "not before it is stored which id it has");
    world.commit();
    let (other, third) = (other.joined(), third.joined());
    assert_eq!([leader.generation, other.generation, third.generation], [2; 3]);
    assert_ne!(other.member, members[1].member);
    world.fail_over();
    assert_eq!(world.heartbeat(&other.member, 1), Ok(()), "it is known by the id that it was told");
}

#[test]
fn who_has_given_up_its_place_is_not_fenced() {
    let mut world = World::new();
    let first = world.join(static_member("one"));
    world.wait_ms(3000);
    let first = first.joined();
    world.assign(std::slice::from_ref(&first));
    let mut heartbeat = |member: &str| {
        let (group, member) = (GROUP.to_owned(), member.to_owned());
        let request = Heartbeat { group, generation: 1, member, instance: Some("one".to_owned()) };
        world.call(|reply| GroupCall::Heartbeat(request, reply)).now()
    };
    assert_eq!(heartbeat(&first.member), Ok(()));
    assert_eq!(heartbeat("another"), Err(GroupError::FencedInstanceId));
    assert_eq!(heartbeat(""), Err(GroupError::UnknownMemberId));
}

#[test]
fn an_absent_static_member_does_not_hold_up_the_others() {
    let mut world = World::new();
    let (first, second) = (world.join(static_member("one")), world.join(static_member("two")));
    world.wait_ms(6000);
    let mut members = [first.joined(), second.joined()];
    members.sort_by_key(|one| one.leader != one.member);
    world.assign(&members);
    let _third = world.newcomer("c");
    let mut again = static_member(members[0].member.split('-').next().unwrap());
    again.member.clone_from(&members[0].member);
    let mut again = world.join(again);
    assert!(again.is_open());
    // The other one sends heartbeats, so that it is no session that ends.
    for _ in 0..12 {
        assert!(world.heartbeat(&members[1].member, 1).is_err());
        world.wait_ms(5000);
    }
    let told = again.joined();
    assert_eq!(told.generation, 2);
    assert_eq!(world.heartbeat(&members[1].member, 2), Ok(()), "it keeps its place");
}
