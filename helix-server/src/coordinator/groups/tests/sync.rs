//! SyncGroup: assignments are stored, then given out.

use super::*;

#[test]
fn assignments_are_given_out_when_they_are_stored() {
    let mut world = World::new();
    let (first, second) = (world.newcomer("a"), world.newcomer("b"));
    world.wait_ms(6000);
    let mut all = [first.joined(), second.joined()];
    all.sort_by_key(|one| one.leader != one.member);
    let [leader, other] = all;
    let mut waiting = world.sync(&other, &[]);
    assert!(waiting.is_open(), "nothing is assigned yet");
    let mut own = world.sync(&leader, &[(&other.member, "all")]);
    assert!(waiting.is_open() && own.is_open(), "it is not stored yet");
    assert_eq!(world.heartbeat(&other.member, 1), Ok(()));
    world.commit();
    assert_eq!(waiting.now().unwrap().assignment, "all");
    assert_eq!(own.now().unwrap().assignment, "", "nothing was assigned to it");
    assert_eq!(world.state(), Some("Stable"));
    let again = world.sync(&other, &[]).now().unwrap();
    assert_eq!(again.assignment, "all", "whoever asks again is told again");
}

#[test]
fn an_assignment_that_is_not_stored_begins_a_rebalance() {
    let mut world = World::new();
    let first = world.newcomer("a");
    world.wait_ms(3000);
    let joined = first.joined();
    let own = world.sync(&joined, &[(&joined.member, "all")]);
    world.refuse();
    assert!(matches!(own.now(), Err(GroupError::NotStored(_))));
    assert_eq!(world.heartbeat(&joined.member, 1), Err(GroupError::RebalanceInProgress));
    let again = world.join(joining("a", &joined.member)).joined();
    assert_eq!(again.generation, 2);
}

#[test]
fn members_that_never_ask_for_their_assignment_are_out() {
    let mut world = World::new();
    let (first, second) = (world.newcomer("a"), world.newcomer("b"));
    world.wait_ms(6000);
    let (first, second) = (first.joined(), second.joined());
    let leader = if first.leader == first.member { &first } else { &second };
    let other = if first.leader == first.member { &second } else { &first };
    let own = world.sync(leader, &[]);
    world.commit();
    own.now().expect("assigned");
    for _ in 0..12 {
        world.heartbeat(&leader.member, 1).expect("stable");
        world.heartbeat(&other.member, 1).expect("stable");
        world.wait_ms(5000);
    }
    assert_eq!(world.heartbeat(&other.member, 1), Err(GroupError::UnknownMemberId));
    assert_eq!(world.heartbeat(&leader.member, 1), Err(GroupError::RebalanceInProgress));
}
