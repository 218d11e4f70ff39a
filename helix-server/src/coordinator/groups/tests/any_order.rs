//! Whatever happens, in whatever order: nothing is owned twice, and nothing acknowledged is lost.

use proptest::prelude::*;

use super::*;

/// What may happen to a group.
#[derive(Debug, Clone)]
enum Event {
    /// A client (of four) joins, or joins again.
    Join(usize),
    /// It asks for its assignment; the leader brings one.
    Sync(usize),
    Heartbeat(usize),
    Leave(usize),
    Commit(usize),
    Decide {
        taken: bool,
    },
    Wait {
        ms: u64,
    },
    FailOver,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..4_usize).prop_map(Event::Join),
        4 => (0..4_usize).prop_map(Event::Sync),
        2 => (0..4_usize).prop_map(Event::Heartbeat),
        1 => (0..4_usize).prop_map(Event::Leave),
        2 => (0..4_usize).prop_map(Event::Commit),
        6 => prop::bool::weighted(0.9).prop_map(|taken| Event::Decide { taken }),
        3 => (1..8000_u64).prop_map(|ms| Event::Wait { ms }),
        1 => Just(Event::FailOver),
    ]
}

/// A client as it sees itself.
#[derive(Default)]
struct Client {
    member: String,
    generation: i32,
    leads: Vec<String>,
    joining: Option<Answer<JoinAnswer>>,
    syncing: Option<Answer<SyncAnswer>>,
    committing: Option<(i64, Answer<call::OffsetResults>)>,
}

/// What has been seen.
#[derive(Default)]
struct Seen {
    /// Who owns what, by generation: each generation has one owner.
    owners: BTreeMap<i32, BTreeSet<String>>,
    /// The highest offset that was acknowledged.
    acknowledged: i64,
    next_offset: i64,
}

/// Two things that can be owned, for the first two members.
fn assignments(members: &[String]) -> Vec<(String, Bytes)> {
    members.iter().zip(["left", "right"]).map(|(member, what)| (member.clone(), Bytes::from(what))).collect()
}

fn look(client: &mut Client, seen: &mut Seen) {
    if let Some(answer) = client.joining.as_mut().and_then(|answer| answer.0.try_recv().ok()) {
        client.joining = None;
        match answer {
            Ok(joined) => {
                client.member = joined.member;
                client.generation = joined.generation;
                client.leads = joined.members.into_iter().map(|member| member.id).collect();
            }
            Err(refused) => {
                client.member =
                    if refused.error == GroupError::MemberIdRequired { refused.member } else { String::new() }
            }
        }
    }
    if let Some(answer) = client.syncing.as_mut().and_then(|answer| answer.0.try_recv().ok()) {
        client.syncing = None;
        if let Ok(synced) = answer
            && !synced.assignment.is_empty()
        {
            let what = String::from_utf8(synced.assignment.to_vec()).unwrap();
            let owned = format!("{what} by {}", client.member);
            let owners = seen.owners.entry(client.generation).or_default();
            owners.insert(owned);
            let count = owners.iter().filter(|owner| owner.starts_with(&what)).count();
            assert_eq!(count, 1, "generation {}: {owners:?}", client.generation);
        }
    }
    if let Some((offset, answer)) =
        client.committing.as_mut().and_then(|(offset, answer)| Some((*offset, answer.0.try_recv().ok()?)))
    {
        client.committing = None;
        if answer[0].1.is_none() {
            seen.acknowledged = seen.acknowledged.max(offset);
        }
    }
}

fn happen(world: &mut World, clients: &mut [Client], seen: &mut Seen, event: &Event) {
    match *event {
        Event::Join(number) => {
            let request = JoinGroup { takes_member_id: true, ..joining("client", &clients[number].member) };
            clients[number].joining = Some(world.join(request));
        }
        Event::Sync(number) => {
            let client = &mut clients[number];
            let request = SyncGroup {
                group: GROUP.to_owned(),
                generation: client.generation,
                member: client.member.clone(),
                instance: None,
                protocol_type: None,
                protocol: None,
                assignments: assignments(&client.leads),
            };
            client.syncing = Some(world.call(|reply| GroupCall::Sync(request, reply)));
        }
        Event::Heartbeat(number) => {
            let (member, generation) = (clients[number].member.clone(), clients[number].generation);
            if world.heartbeat(&member, generation) == Err(GroupError::UnknownMemberId) {
                clients[number].member = String::new();
            }
        }
        Event::Leave(number) => {
            let member = std::mem::take(&mut clients[number].member);
            world.leave(&member, None);
        }
        Event::Commit(number) => {
            seen.next_offset += 1;
            let (at, client) = (seen.next_offset, &mut clients[number]);
            let member = client.member.clone();
            client.committing =
                Some((at, world.commit_offset(&member, client.generation, offset("topic", at))));
        }
        Event::Decide { taken: true } => world.commit(),
        Event::Decide { taken: false } => world.refuse(),
        Event::Wait { ms } => world.wait_ms(ms),
        Event::FailOver => world.fail_over(),
    }
}

proptest! {
    #[test]
    fn nothing_is_owned_twice_and_nothing_acknowledged_is_lost(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::new();
        let mut clients: Vec<Client> = (0..4).map(|_| Client::default()).collect();
        let mut seen = Seen::default();
        let mut committed = None;
        for event in &events {
            happen(&mut world, &mut clients, &mut seen, event);
            clients.iter_mut().for_each(|client| look(client, &mut seen));
            let now = world.committed("topic");
            prop_assert!(now >= committed, "{now:?} after {committed:?}");
            prop_assert!(now.unwrap_or(0) >= seen.acknowledged);
            committed = now;
        }
        // What is stored leads to the same, whether read as it was written or written anew.
        world.commit();
        let whole = world.groups.snapshot();
        world.log = whole.clone();
        world.fail_over();
        prop_assert_eq!(world.groups.snapshot(), whole);
    }
}
