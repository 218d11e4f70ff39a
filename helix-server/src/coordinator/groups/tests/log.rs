//! What the next coordinator finds.

use super::*;

#[test]
fn another_coordinator_goes_on_with_what_is_stored() {
    let mut world = World::new();
    let members = world.stable(2);
    world.commit_offset(&members[0].member, 1, offset("topic", 5));
    world.commit();
    world.commit_offset(&members[0].member, 1, offset("topic", 6));
    world.fail_over();
    assert_eq!(world.committed("topic"), Some(5), "the other was never answered");
    for member in &members {
        assert_eq!(world.heartbeat(&member.member, 1), Ok(()));
        let synced = world.sync(member, &[]).now().unwrap();
        assert_eq!(synced.assignment, member.member.as_bytes());
    }
    world.wait_ms(SESSION_MS as u64);
    assert_eq!(world.state(), Some("Empty"), "their sessions end all the same");
}

#[test]
fn a_log_written_anew_says_the_same() {
    let mut world = World::new();
    let members = world.stable(2);
    for number in 0..20 {
        world.commit_offset(&members[0].member, 1, offset(["a", "b", "c"][number % 3], number as i64));
        world.commit();
    }
    let snapshot = world.groups.snapshot();
    assert!(snapshot.len() < world.log.len());
    world.log = snapshot;
    world.fail_over();
    assert_eq!(
        [world.committed("a"), world.committed("b"), world.committed("c")],
        [Some(18), Some(19), Some(17)]
    );
    assert_eq!(world.heartbeat(&members[1].member, 1), Ok(()));
}

#[test]
fn groups_are_deleted_when_they_are_empty() {
    let mut world = World::new();
    assert_eq!(world.delete().now(), Err(GroupError::GroupIdNotFound));
    let members = world.stable(1);
    world.commit_offset(&members[0].member, 1, offset("topic", 5));
    world.commit();
    assert_eq!(world.delete().now(), Err(GroupError::NonEmptyGroup));
    world.leave(&members[0].member, None);
    world.commit();
    let mut deleted = world.delete();
    assert!(deleted.is_open());
    world.commit();
    assert_eq!(deleted.now(), Ok(()));
    assert_eq!((world.state(), world.committed("topic")), (None, None));
    world.fail_over();
    assert_eq!((world.state(), world.committed("topic")), (None, None));
}

#[test]
fn an_id_that_was_given_out_is_void_when_its_group_is_deleted() {
    let mut world = World::new();
    let ask = || JoinGroup { takes_member_id: true, ..joining("client", "") };
    let given = world.join(ask()).refused().member;
    let deleted = world.delete();
    world.commit();
    assert_eq!((deleted.now(), world.state()), (Ok(()), None));
    assert_eq!(world.join(joining("client", &given)).refused().error, GroupError::UnknownMemberId);
    assert_eq!(world.join(ask()).refused().error, GroupError::MemberIdRequired);
}
