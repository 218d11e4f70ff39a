//! Timeouts that clients may ask for, however odd.

use super::*;

/// A static member that wants to be waited for as long as this, and an ordinary one: both are assigned something, then the latter leaves.
fn left_alone(rebalance_timeout_ms: i32) -> (World, Joined) {
    let mut world = World::new();
    let fixed = world.join(JoinGroup { rebalance_timeout_ms, ..static_member("fixed") });
    let other = world.newcomer("other");
    world.wait_ms(6000);
    let (fixed, other) = (fixed.joined(), other.joined());
    let mut both = [fixed.clone(), other.clone()];
    both.sort_by_key(|one| one.leader != one.member);
    world.assign(&both);
    assert_eq!(world.leave(&other.member, None), None);
    (world, fixed)
}

#[test]
fn an_absent_static_member_is_waited_for_without_haste_whatever_its_timeout() {
    for timeout_ms in [0, -1, i32::MIN] {
        let (mut world, fixed) = left_alone(timeout_ms);
        let mut looked = 0;
        let until = world.now.instant + Duration::from_millis(5000);
        while let Some(at) = world.groups.next_deadline().filter(|at| *at <= until) {
            world.turn_to(at.max(world.now.instant));
            world.step(|groups, now, effects| groups.expire(now, effects));
            looked += 1;
            assert!(looked < 20, "{timeout_ms} ms: once a second is enough");
        }
        world.turn_to(until);
        let again = JoinGroup { member: fixed.member.clone(), ..static_member("fixed") };
        assert_eq!(world.join(again).joined().leader, fixed.member, "{timeout_ms} ms: it may come back");
    }
}
