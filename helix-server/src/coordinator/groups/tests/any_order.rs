//! Whatever happens to a group, in whatever order, and however its writes are decided.

use proptest::prelude::*;

use super::*;

const RETENTION_MS: i64 = 20_000;
/// The client with an instance id.
const FIXED: usize = 3;

#[derive(Debug, Clone)]
enum Event {
    /// A client (of four) joins, or joins again.
    Join {
        client: usize,
        rebalance_timeout_ms: i32,
    },
    /// It asks for its assignment; the leader brings one.
    Sync(usize),
    Heartbeat(usize),
    Leave(usize),
    Commit(usize),
    /// It forgets who it is.
    Restart(usize),
    /// Whoever is no member commits.
    CommitAlone,
    DeleteGroup,
    /// The topic is deleted, and made again. The coordinator does not hear of it.
    TopicMadeAgain,
    /// The coordinator hears of it.
    HearOfTopics,
    /// The first write is decided.
    DecideOne {
        taken: bool,
    },
    DecideAll {
        taken: bool,
    },
    Wait {
        ms: u64,
    },
    FailOver,
}

fn event() -> impl Strategy<Value = Event> {
    let timeout = prop_oneof![4 => Just(REBALANCE_MS), 1 => Just(0), 1 => Just(-1), 1 => Just(i32::MAX)];
    prop_oneof![
        6 => (0..4_usize, timeout)
            .prop_map(|(client, rebalance_timeout_ms)| Event::Join { client, rebalance_timeout_ms }),
        5 => (0..4_usize).prop_map(Event::Sync),
        2 => (0..4_usize).prop_map(Event::Heartbeat),
        2 => (0..4_usize).prop_map(Event::Leave),
        2 => (0..4_usize).prop_map(Event::Commit),
        1 => (0..4_usize).prop_map(Event::Restart),
        3 => Just(Event::CommitAlone),
        1 => Just(Event::DeleteGroup),
        1 => Just(Event::TopicMadeAgain),
        1 => Just(Event::HearOfTopics),
        5 => prop::bool::weighted(0.9).prop_map(|taken| Event::DecideOne { taken }),
        3 => prop::bool::weighted(0.9).prop_map(|taken| Event::DecideAll { taken }),
        4 => (1..8000_u64).prop_map(|ms| Event::Wait { ms }),
        1 => Just(Event::FailOver),
    ]
}

/// A client as it sees itself.
#[derive(Default)]
struct Client {
    instance: Option<String>,
    member: String,
    generation: i32,
    /// Member and instance ids of those it has to assign something to.
    leads: Vec<(String, Option<String>)>,
    joining: Option<Answer<JoinAnswer>>,
    syncing: Option<Answer<SyncAnswer>>,
}

impl Client {
    /// Who it stays, whatever its member id.
    fn name(&self) -> String {
        self.instance.clone().unwrap_or_else(|| self.member.clone())
    }
}

/// A commit that is acknowledged, or not yet.
struct Committing {
    at: i64,
    since_ms: i64,
    answer: Answer<call::OffsetResults>,
}

/// What has been seen.
#[derive(Default)]
struct Seen {
    /// Groups of the same id that came one after another: generations begin anew.
    life: usize,
    /// What leaders have assigned: to whom, in which generation.
    assigned: BTreeSet<(String, i32, String)>,
    /// Who was told to own what, by life and generation.
    owners: BTreeMap<(usize, i32, String), String>,
    next_assignment: u64,
    next_offset: i64,
    incarnation: u64,
    committing: Vec<Committing>,
    /// Offset and time of what was acknowledged.
    acknowledged: Vec<(i64, i64)>,
    /// What was committed up to here may go, as it was asked to be deleted.
    may_go: i64,
    /// What was committed up to here is gone for good.
    is_gone: i64,
    deleting: Vec<(i64, Answer<Result<(), GroupError>>)>,
    committed: Option<i64>,
}

impl Seen {
    fn look(&mut self, world: &mut World, clients: &mut [Client]) {
        let begins = |group: &Group| group.stored.is_none() && group.generation == 0;
        if world.groups.groups.get(GROUP).is_none_or(begins) {
            self.life += 1;
        }
        clients.iter_mut().for_each(|client| self.look_at(client));
        self.look_at_answers();
        let now = world.committed("topic");
        let old = now.zip(self.committed).is_some_and(|(now, before)| now < before);
        assert!(!old, "{now:?} after {:?}", self.committed);
        assert!(now.is_none_or(|now| now > self.is_gone), "{now:?}, and {} was deleted", self.is_gone);
        let kept_from = world.now.unix_ms - RETENTION_MS;
        let kept = self.acknowledged.iter().filter(|(at, since)| *at > self.may_go && *since > kept_from);
        let least = kept.map(|(at, _)| *at).max().unwrap_or(0);
        assert!(now.unwrap_or(0) >= least, "{now:?}, and {least} was acknowledged");
        self.committed = now;
    }

    fn look_at(&mut self, client: &mut Client) {
        match client.joining.as_mut().and_then(|answer| answer.0.try_recv().ok()) {
            None => {}
            Some(Ok(joined)) => {
                client.joining = None;
                client.member = joined.member;
                client.generation = joined.generation;
                client.leads = joined.members.into_iter().map(|one| (one.id, one.instance)).collect();
            }
            Some(Err(refused)) => {
                client.joining = None;
                let is_named = refused.error == GroupError::MemberIdRequired;
                client.member = if is_named { refused.member } else { String::new() };
            }
        }
        let Some(answer) = client.syncing.as_mut().and_then(|answer| answer.0.try_recv().ok()) else {
            return;
        };
        client.syncing = None;
        let Ok(synced) = answer else { return };
        let what = String::from_utf8(synced.assignment.to_vec()).unwrap();
        let (name, generation) = (client.name(), client.generation);
        let told = (name.clone(), generation, what.clone());
        assert!(self.assigned.contains(&told), "nobody assigned {told:?}");
        let share = what.split('@').next().unwrap().to_owned();
        let owner = self.owners.entry((self.life, generation, share)).or_insert_with(|| name.clone());
        assert_eq!(*owner, name, "two own {what} in generation {generation}");
    }

    fn look_at_answers(&mut self) {
        for mut one in std::mem::take(&mut self.committing) {
            match one.answer.0.try_recv() {
                Ok(results) if results[0].1.is_none() => self.acknowledged.push((one.at, one.since_ms)),
                Err(TryRecvError::Empty) => self.committing.push(one),
                _ => {}
            }
        }
        for (through, mut answer) in std::mem::take(&mut self.deleting) {
            match answer.0.try_recv() {
                Ok(Ok(())) => self.is_gone = self.is_gone.max(through),
                Err(TryRecvError::Empty) => self.deleting.push((through, answer)),
                _ => {}
            }
        }
    }

    fn commit(&mut self, world: &mut World, member: &str, generation: i32) {
        self.next_offset += 1;
        let (at, since_ms) = (self.next_offset, world.now.unix_ms);
        let new = NewOffset { incarnation: Some(GroupId(self.incarnation + 1)), ..offset("topic", at) };
        let answer = world.commit_offset(member, generation, new);
        self.committing.push(Committing { at, since_ms, answer });
    }

    fn sync(&mut self, world: &mut World, client: &mut Client) {
        let mut assignments = Vec::new();
        for (number, (member, instance)) in client.leads.iter().enumerate() {
            self.next_assignment += 1;
            let what = format!("{number}@{}", self.next_assignment);
            let name = instance.clone().unwrap_or_else(|| member.clone());
            self.assigned.insert((name, client.generation, what.clone()));
            assignments.push((member.clone(), Bytes::from(what)));
        }
        let request = SyncGroup {
            group: GROUP.to_owned(),
            generation: client.generation,
            member: client.member.clone(),
            instance: client.instance.clone(),
            protocol_type: None,
            protocol: None,
            assignments,
        };
        client.syncing = Some(world.call(|reply| GroupCall::Sync(request, reply)));
    }
}

/// Time passes; nothing may ask to be looked at without end meanwhile.
fn wait(world: &mut World, ms: u64) {
    let until = world.now.instant + Duration::from_millis(ms);
    for _ in 0..1000 {
        match world.groups.next_deadline().filter(|at| *at <= until) {
            Some(at) => {
                world.turn_to(at.max(world.now.instant));
                world.step(|groups, now, effects| groups.expire(now, effects));
            }
            None => return world.turn_to(until),
        }
    }
    panic!("looked at a thousand times in {ms} ms");
}

fn join(world: &mut World, client: &mut Client, rebalance_timeout_ms: i32) {
    let request = JoinGroup {
        instance: client.instance.clone(),
        takes_member_id: true,
        rebalance_timeout_ms,
        ..joining("client", &client.member)
    };
    client.joining = Some(world.join(request));
}

fn happen(world: &mut World, clients: &mut [Client], seen: &mut Seen, event: &Event) {
    match *event {
        Event::Join { client, rebalance_timeout_ms } => {
            join(world, &mut clients[client], rebalance_timeout_ms);
        }
        Event::Sync(number) => seen.sync(world, &mut clients[number]),
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
            let (member, generation) = (clients[number].member.clone(), clients[number].generation);
            seen.commit(world, &member, generation);
        }
        Event::Restart(number) => {
            let instance = clients[number].instance.clone();
            clients[number] = Client { instance, ..Client::default() };
        }
        Event::CommitAlone => seen.commit(world, "", -1),
        Event::DeleteGroup => {
            let mut answer = world.delete();
            if answer.is_open() {
                seen.may_go = seen.next_offset;
                seen.deleting.push((seen.next_offset, answer));
            }
        }
        Event::TopicMadeAgain => {
            seen.may_go = seen.next_offset;
            seen.incarnation += 1;
            world.gone.store(seen.incarnation, Ordering::Relaxed);
        }
        Event::HearOfTopics => world.topics_deleted("topic"),
        Event::DecideOne { taken: true } if !world.writes.is_empty() => world.commit_one(),
        Event::DecideOne { taken: false } if !world.writes.is_empty() => world.refuse_one(),
        Event::DecideOne { .. } => {}
        Event::DecideAll { taken: true } => world.commit(),
        Event::DecideAll { taken: false } => world.refuse(),
        Event::Wait { ms } => wait(world, ms),
        Event::FailOver => world.fail_over(),
    }
}

impl World {
    /// Decides the first of the writes: it is not taken.
    fn refuse_one(&mut self) {
        let write = self.writes.remove(0);
        let error = WriteError::Refused(AppendError::DiskFull);
        self.step(|groups, now, effects| groups.refused(write.then, &error, now, effects));
    }
}

/// Longer than anybody waits for anything.
fn wait_long(world: &mut World) {
    for _ in 0..20 {
        world.turn_to(world.now.instant + Duration::from_secs(30 * 24 * 60 * 60));
        world.step(|groups, now, effects| groups.expire(now, effects));
        world.commit();
    }
}

/// What is stored leads to the same, whether read as it was written or written anew; and nothing is kept for what is gone.
fn check_end(world: &mut World, last_of_gone_topic: i64) {
    world.commit();
    let whole = world.groups.snapshot();
    world.log.clone_from(&whole);
    world.fail_over();
    assert_eq!(world.groups.snapshot(), whole);
    world.commit();
    let found = world.committed("topic");
    assert!(
        found.is_none_or(|at| at > last_of_gone_topic),
        "{found:?}, and up to {last_of_gone_topic} is gone"
    );
    wait_long(world);
    assert!(world.groups.groups.is_empty(), "nobody comes any more, so nothing is left");
}

proptest! {
    #[test]
    fn nothing_is_owned_twice_and_nothing_acknowledged_is_lost(events in prop::collection::vec(event(), 0..120)) {
        let mut world = World::with(GroupsConfig {
            offsets_retention_ms: RETENTION_MS,
            offsets_retention_check_interval: Duration::from_secs(5),
            ..config()
        });
        let mut clients: Vec<Client> = (0..4).map(|_| Client::default()).collect();
        clients[FIXED].instance = Some("fixed".to_owned());
        let mut seen = Seen::default();
        let mut last_of_gone_topic = 0;
        for event in &events {
            happen(&mut world, &mut clients, &mut seen, event);
            if matches!(event, Event::TopicMadeAgain) {
                last_of_gone_topic = seen.next_offset;
            }
            seen.look(&mut world, &mut clients);
        }
        check_end(&mut world, last_of_gone_topic);
    }
}
