//! Which protocols a group can speak.

use super::*;

fn speaking(member: &str, names: &[&str]) -> JoinGroup {
    let protocol = |name: &&str| Protocol { name: (*name).to_owned(), metadata: Bytes::new() };
    JoinGroup { protocols: names.iter().map(protocol).collect(), ..joining("a", member) }
}

/// Whether somebody who speaks this could join.
fn could_join(world: &mut World, name: &str) -> bool {
    world.groups.with(GROUP, |_, group| group.supports("consumer", &speaking("", &[name]).protocols)).unwrap()
}

#[test]
fn a_protocol_is_common_as_long_as_every_member_speaks_it() {
    let mut world = World::new();
    // Named twice, and yet one member.
    let first = world.join(speaking("", &["old", "new", "new"]));
    let second = world.join(speaking("", &["old"]));
    world.wait_ms(6000);
    let (first, second) = (first.joined(), second.joined());
    assert_eq!((could_join(&mut world, "old"), could_join(&mut world, "new")), (true, false));
    let mut both = [first.clone(), second.clone()];
    both.sort_by_key(|one| one.leader != one.member);
    world.assign(&both);
    world.join(speaking(&second.member, &["old", "new"]));
    assert!(could_join(&mut world, "new"), "it has learned it");
    world.join(speaking(&first.member, &["new"]));
    assert_eq!((could_join(&mut world, "old"), could_join(&mut world, "new")), (false, true));
    assert_eq!(world.leave(&first.member, None), None);
    assert!(could_join(&mut world, "old"), "whoever does not speak it is gone");
}

#[test]
fn a_group_that_was_read_speaks_what_was_chosen() {
    let mut world = World::new();
    world.stable(2);
    world.fail_over();
    assert_eq!((could_join(&mut world, "range"), could_join(&mut world, "roundrobin")), (true, false));
}

#[test]
fn nobody_speaks_more_protocols_than_can_be_kept() {
    let mut world = World::new();
    let names: Vec<String> = (0..1001).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let refused = world.join(speaking("", &names)).refused();
    assert_eq!(refused.error, GroupError::TooManyProtocols { limit: 1000 });
    world.join(speaking("", &names[1..]));
    world.wait_ms(3000);
    assert_eq!(world.state(), Some("CompletingRebalance"));
}
