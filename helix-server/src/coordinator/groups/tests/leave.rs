//! LeaveGroup, and members that fall silent.

use super::*;

#[test]
fn a_silent_member_is_out_after_its_session() {
    let mut world = World::new();
    let members = world.stable(2);
    for _ in 0..2 {
        world.wait_ms(4999);
        assert_eq!(world.heartbeat(&members[0].member, 1), Ok(()));
    }
    world.wait_ms(10);
    assert_eq!(world.heartbeat(&members[0].member, 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(world.heartbeat(&members[1].member, 1), Err(GroupError::UnknownMemberId));
    assert_eq!(world.join(joining("a", &members[0].member)).joined().members.len(), 1);
}

#[test]
fn members_leave_by_their_id() {
    let mut world = World::new();
    let members = world.stable(2);
    assert_eq!(world.leave("nobody", None), Some(GroupError::UnknownMemberId));
    assert_eq!(world.leave(&members[0].member, None), None);
    assert_eq!(world.heartbeat(&members[1].member, 1), Err(GroupError::RebalanceInProgress));
    let rest = world.join(joining("b", &members[1].member)).joined();
    assert_eq!((rest.generation, rest.leader), (2, members[1].member.clone()));
    assert_eq!(world.leave(&members[1].member, None), None);
    world.commit();
    assert_eq!(world.state(), Some("Empty"));
}
