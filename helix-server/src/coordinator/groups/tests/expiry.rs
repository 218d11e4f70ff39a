//! What is not used any more goes: offsets, and groups.

use super::*;

#[test]
fn offsets_expire_when_nobody_uses_them() {
    let mut world = World::new();
    let members = world.stable(1);
    for topic in ["topic", "other"] {
        world.commit_offset(&members[0].member, 1, offset(topic, 5));
    }
    world.commit();
    let wait = |world: &mut World, alive: bool| {
        for _ in 0..320 {
            world.wait_ms(5000);
            if alive {
                world.heartbeat(&members[0].member, 1).expect("stable");
            }
            world.commit();
        }
    };
    wait(&mut world, true);
    assert_eq!(
        (world.committed("topic"), world.committed("other")),
        (Some(5), None),
        "it reads the one only"
    );
    assert_eq!(world.leave(&members[0].member, None), None);
    wait(&mut world, false);
    assert_eq!(
        (world.committed("topic"), world.state()),
        (None, None),
        "with the last offset the group goes"
    );
    world.fail_over();
    assert_eq!(world.state(), None);
}

#[test]
fn offsets_expire_when_their_owner_says() {
    let mut world = World::new();
    let request = CommitOffsets {
        group: GROUP.to_owned(),
        generation: -1,
        member: String::new(),
        instance: None,
        retention_ms: Some(5_000_000),
        offsets: vec![offset("topic", 5)],
    };
    world.call(|reply| GroupCall::CommitOffsets(request, reply));
    world.commit();
    world.wait_ms(4_000_000);
    world.commit();
    assert_eq!(world.committed("topic"), Some(5), "later than others");
    world.wait_ms(2_000_000);
    world.commit();
    assert_eq!(world.committed("topic"), None);
}

#[test]
fn what_members_do_not_read_expires_when_its_owner_says() {
    let mut world = World::new();
    let members = world.stable(1);
    let request = CommitOffsets {
        group: GROUP.to_owned(),
        generation: 1,
        member: members[0].member.clone(),
        instance: None,
        retention_ms: Some(5_000_000),
        offsets: vec![offset("topic", 5), offset("other", 5)],
    };
    world.call(|reply| GroupCall::CommitOffsets(request, reply));
    world.commit();
    let mut wait = |seconds: u64| {
        for _ in 0..seconds / 5 {
            world.wait_ms(5000);
            world.heartbeat(&members[0].member, 1).expect("stable");
            world.commit();
        }
        (world.committed("topic"), world.committed("other"))
    };
    assert_eq!(wait(4000), (Some(5), Some(5)), "later than others");
    assert_eq!(wait(2000), (Some(5), None));
}

#[test]
fn a_group_that_was_left_before_anything_was_assigned_is_listed_until_it_expires() {
    let mut world = World::new();
    let first = world.join(static_member("one"));
    world.wait_ms(3000);
    assert_eq!(first.joined().generation, 1);
    assert_eq!(world.leave("", Some("one")), None);
    let expected = Some(("Empty", "consumer".to_owned()));
    assert_eq!(world.listed(), expected, "nothing of it is stored yet");
    world.commit();
    assert_eq!(world.listed(), expected);
    world.fail_over();
    assert_eq!(world.listed(), expected);
    world.wait_for_upkeep();
    assert_eq!(world.listed(), None);
    world.fail_over();
    assert_eq!(world.listed(), None);
}

#[test]
fn a_group_that_nobody_has_joined_is_listed_until_it_expires() {
    let mut world = World::new();
    let ask = || JoinGroup { takes_member_id: true, ..joining("client", "") };
    let given = world.join(ask()).refused().member;
    assert_eq!(world.leave(&given, None), None);
    assert_eq!(world.listed(), Some(("Empty", String::new())));
    world.commit();
    world.fail_over();
    assert_eq!(world.listed(), Some(("Empty", String::new())));
    world.wait_ms(599_000);
    let given = world.join(ask()).refused().member;
    world.wait_ms(2000);
    world.commit();
    assert_eq!(world.listed(), Some(("Empty", String::new())), "somebody is about to join");
    let answer = world.join(joining("client", &given));
    world.wait_ms(3000);
    assert_eq!(answer.joined().member, given);
}

#[test]
fn a_group_outlives_its_last_offset_until_it_expires() {
    let mut world = World::new();
    world.commit_offset("", -1, offset("topic", 5));
    world.commit();
    assert_eq!(world.delete_offset("topic"), Ok(vec![(key("topic"), None)]));
    assert_eq!((world.committed("topic"), world.listed()), (None, Some(("Empty", String::new()))));
    assert_eq!(world.delete_offset("topic"), Ok(vec![(key("topic"), None)]), "there is such a group");
    world.fail_over();
    assert_eq!(world.listed(), Some(("Empty", String::new())));
    world.wait_for_upkeep();
    assert_eq!(world.delete_offset("topic"), Err(GroupError::GroupIdNotFound));
    world.fail_over();
    assert_eq!(world.listed(), None);
}

#[test]
fn what_is_committed_while_its_group_expires_stays() {
    let mut world = World::new();
    world.commit_offset("", -1, offset("topic", 5));
    world.commit();
    assert_eq!(world.delete_offset("topic"), Ok(vec![(key("topic"), None)]));
    world.wait_ms(599_000);
    world.commit_offset("", -1, offset("topic", 6));
    world.wait_ms(1000);
    assert_eq!(world.writes.len(), 1, "what is on its way may be news of the group");
    world.commit();
    assert_eq!(world.committed("topic"), Some(6));
    world.fail_over();
    assert_eq!(world.committed("topic"), Some(6));
}
