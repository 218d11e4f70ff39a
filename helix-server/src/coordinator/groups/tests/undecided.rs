//! What is on its way to the log while something else happens to its group.

use super::*;

impl World {
    /// Decides the first of the writes: it is committed.
    pub(super) fn commit_one(&mut self) {
        let write = self.writes.remove(0);
        for record in &write.records {
            self.groups.replay(record).expect("just written");
        }
        self.log.extend(write.records);
        self.groups.committed(write.then, self.now);
    }

    pub(super) fn topics_deleted(&mut self, topic: &str) {
        let call = GroupCall::TopicsDeleted(vec![topic.to_owned()]);
        self.step(|groups, now, effects| groups.handle(call, now, effects));
    }

    /// Whoever is no member commits an offset for one incarnation of a partition.
    fn commit_for(&mut self, topic: &str, at: i64, incarnation: u64) -> Answer<call::OffsetResults> {
        let new = NewOffset { incarnation: Some(GroupId(incarnation)), ..offset(topic, at) };
        self.commit_offset("", -1, new)
    }
}

#[test]
fn what_is_being_committed_does_not_expire() {
    let mut world = World::new();
    for topic in ["topic", "other"] {
        world.commit_offset("", -1, offset(topic, 5));
    }
    world.commit();
    world.wait_ms(1_199_000);
    world.commit();
    assert_eq!(world.committed("topic"), Some(5), "not yet");
    world.wait_ms(600_000);
    let answer = world.commit_offset("", -1, offset("topic", 6));
    assert_eq!(world.committed("topic"), Some(5));
    world.wait_ms(1000);
    world.commit();
    assert_eq!(answer.now(), [(key("topic"), None)]);
    assert_eq!((world.committed("topic"), world.committed("other")), (Some(6), None));
    world.fail_over();
    assert_eq!(world.committed("topic"), Some(6));
}

#[test]
fn what_is_being_committed_is_deleted_with_its_topic() {
    let mut world = World::new();
    world.commit_offset("", -1, offset("topic", 5));
    world.topics_deleted("topic");
    world.commit();
    assert_eq!(world.committed("topic"), None);
}

#[test]
fn what_is_being_committed_is_deleted_with_its_group() {
    let mut world = World::new();
    world.commit_offset("", -1, offset("topic", 5));
    world.commit();
    world.commit_offset("", -1, offset("other", 5));
    let deleted = world.delete();
    world.commit();
    assert_eq!(deleted.now(), Ok(()));
    assert_eq!((world.committed("topic"), world.committed("other"), world.listed()), (None, None, None));
    world.fail_over();
    assert_eq!(world.listed(), None);
}

#[test]
fn what_is_being_committed_can_be_deleted() {
    let mut world = World::new();
    world.commit_offset("", -1, offset("topic", 5));
    let request = DeleteOffsets { group: GROUP.to_owned(), keys: vec![key("topic")] };
    let deleted = world.call(|reply| GroupCall::DeleteOffsets(request, reply));
    world.commit();
    assert_eq!(deleted.now(), Ok(vec![(key("topic"), None)]));
    assert_eq!(world.committed("topic"), None);
}

#[test]
fn a_late_word_of_a_deleted_topic_leaves_its_successor_alone() {
    let mut world = World::new();
    world.commit_for("topic", 5, 1);
    world.commit();
    world.gone.store(1, Ordering::Relaxed);
    let mut answer = world.commit_for("topic", 1, 2);
    world.topics_deleted("topic");
    assert!(answer.is_open());
    world.commit();
    assert_eq!(world.committed("topic"), Some(1), "of the topic that has its name now");
    world.topics_deleted("topic");
    world.commit();
    assert_eq!(world.committed("topic"), Some(1));
}

#[test]
fn offsets_of_a_deleted_topic_go_even_if_nobody_was_there_to_hear_of_it() {
    let mut world = World::new();
    world.commit_for("topic", 5, 1);
    world.commit_for("other", 5, 2);
    world.commit();
    world.gone.store(1, Ordering::Relaxed);
    world.fail_over();
    world.refuse();
    assert_eq!(world.committed("topic"), Some(5), "it is tried again");
    world.wait_for_upkeep();
    assert_eq!((world.committed("topic"), world.committed("other")), (None, Some(5)));
    world.gone.store(2, Ordering::Relaxed);
    world.fail_over();
    world.commit();
    assert_eq!(world.committed("other"), None);
}

#[test]
fn a_group_that_only_an_offset_on_its_way_speaks_of_is_not_shown() {
    let mut world = World::new();
    let refused = world.commit_offset("", -1, offset("topic", 5));
    assert_eq!((world.listed(), world.state()), (None, None), "it may never be");
    world.refuse();
    assert!(refused.now()[0].1.is_some());
    assert!(world.groups.groups.is_empty(), "nothing is left of it");
    world.commit_offset("", -1, offset("topic", 5));
    world.commit();
    assert_eq!(world.state(), Some("Empty"));
}

#[test]
fn a_group_stays_the_same_while_a_write_of_it_is_on_its_way() {
    let mut world = World::new();
    let first = world.newcomer("a");
    world.wait_ms(3000);
    let first = first.joined();
    world.commit();
    assert_eq!(world.leave(&first.member, None), None);
    world.commit();
    // There is no such group any more, when that is committed; and yet somebody joins and leaves.
    let deleted = world.delete();
    let second = world.newcomer("b");
    world.wait_ms(3000);
    let second = second.joined();
    world.sync(&second, &[(&second.member, "first life")]);
    assert_eq!(world.leave(&second.member, None), None);
    world.commit_one();
    assert_eq!(deleted.now(), Ok(()));
    let third = world.newcomer("c");
    world.wait_ms(3000);
    let third = third.joined();
    assert!(third.generation > second.generation, "{} after {}", third.generation, second.generation);
    let mut synced = world.sync(&third, &[(&third.member, "second life")]);
    world.commit_one();
    assert!(synced.is_open(), "what it was assigned is not stored yet");
    world.commit();
    assert_eq!(synced.now().expect("assigned").assignment, "second life");
    world.fail_over();
    assert_eq!(world.heartbeat(&third.member, third.generation), Ok(()));
}

#[test]
fn a_group_that_was_only_asked_for_is_forgotten_when_nothing_of_it_is_stored() {
    let mut world = World::new();
    let ask = JoinGroup { takes_member_id: true, ..joining("client", "") };
    assert_eq!(world.join(ask).refused().error, GroupError::MemberIdRequired);
    world.refuse();
    world.wait_for_upkeep();
    assert!(world.groups.groups.is_empty() && world.groups.wake.is_empty());
}
