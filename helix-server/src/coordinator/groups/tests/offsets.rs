//! OffsetCommit, OffsetFetch and OffsetDelete.

use super::*;

#[test]
fn offsets_are_there_when_they_are_stored() {
    let mut world = World::new();
    let members = world.stable(1);
    let mut answer = world.commit_offset(&members[0].member, 1, offset("topic", 5));
    assert!(answer.is_open());
    assert_eq!(world.committed("topic"), None, "nothing is shown that may get lost");
    world.commit();
    assert_eq!(answer.now(), [(key("topic"), None)]);
    assert_eq!(world.committed("topic"), Some(5));
    let answer = world.commit_offset(&members[0].member, 1, offset("topic", 9));
    world.refuse();
    assert!(matches!(answer.now()[0].1, Some(GroupError::NotStored(_))));
    assert_eq!(world.committed("topic"), Some(5));
}

#[test]
fn who_may_commit() {
    let mut world = World::new();
    let refusal = |world: &mut World, member: &str, generation| {
        let answer = world.commit_offset(member, generation, offset("topic", 5));
        world.commit();
        answer.now()[0].1.clone()
    };
    assert_eq!(refusal(&mut world, "", -1), None, "who is no member needs no group");
    assert_eq!(refusal(&mut world, "somebody", 3), Some(GroupError::UnknownMemberId));
    let members = world.stable(1);
    let member = members[0].member.clone();
    assert_eq!(refusal(&mut world, &member, 1), None);
    assert_eq!(refusal(&mut world, &member, 0), Some(GroupError::IllegalGeneration));
    assert_eq!(refusal(&mut world, "", -1), Some(GroupError::UnknownMemberId), "the group has members");
    assert_eq!(refusal(&mut world, "stranger", 1), Some(GroupError::UnknownMemberId));
    let mut long = offset("topic", 5);
    long.metadata = "eleven long".to_owned();
    let answer = world.commit_offset(&member, 1, long);
    assert_eq!(answer.now()[0].1, Some(GroupError::OffsetMetadataTooLarge));
    let _other = world.newcomer("b");
    assert_eq!(refusal(&mut world, &member, 1), None, "what it has read counts until it has joined again");
    let again = world.join(joining("a", &member)).joined();
    assert_eq!(refusal(&mut world, &member, again.generation), Some(GroupError::RebalanceInProgress));
}

#[test]
fn offsets_of_what_is_read_are_not_deleted() {
    let mut world = World::new();
    let members = world.stable(1);
    for topic in ["topic", "other"] {
        world.commit_offset(&members[0].member, 1, offset(topic, 5));
    }
    world.commit();
    let request =
        || DeleteOffsets { group: GROUP.to_owned(), keys: vec![key("topic"), key("other"), key("none")] };
    let answer = world.call(|reply| GroupCall::DeleteOffsets(request(), reply));
    world.commit();
    let expected =
        [(key("topic"), Some(GroupError::GroupSubscribedToTopic)), (key("other"), None), (key("none"), None)];
    assert_eq!(answer.now().unwrap(), expected);
    assert_eq!((world.committed("topic"), world.committed("other")), (Some(5), None));
}

#[test]
fn offsets_of_a_topic_that_is_gone_go_too() {
    let mut world = World::new();
    for topic in ["topic", "other"] {
        world.commit_offset("", -1, offset(topic, 5));
    }
    world.commit();
    world.step(|groups, now, effects| {
        groups.handle(GroupCall::TopicsDeleted(vec!["topic".to_owned()]), now, effects);
    });
    world.commit();
    assert_eq!((world.committed("topic"), world.committed("other")), (None, Some(5)));
}
