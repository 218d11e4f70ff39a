//! Groups in the hands of a client that sees what is answered when. Writes are decided when a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::call::{
    CommitOffsets, DeleteOffsets, FetchOffsets, Heartbeat, JoinAnswer, JoinGroup, JoinRefused, Joined,
    LeaveGroup, LeavingMember, NewOffset, Protocol, Reply, SyncAnswer, SyncGroup,
};
use super::*;
use crate::broker::produce::AppendError;
use crate::coordinator::Write;

mod any_events;
mod protocols;
mod timeouts;
mod undecided;

const GROUP: &str = "group";
const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;

fn config() -> GroupsConfig {
    GroupsConfig {
        initial_rebalance_delay: Duration::from_secs(3),
        min_session_timeout_ms: 6000,
        max_session_timeout_ms: 1_800_000,
        max_size: 100,
        offset_metadata_max_bytes: 10,
        offsets_retention_ms: 1_000_000,
        offsets_retention_check_interval: Duration::from_secs(600),
    }
}

/// Groups, their log, and the time.
struct World {
    groups: Groups,
    config: GroupsConfig,
    now: Now,
    /// Writes that are not decided.
    writes: Vec<Write<Then>>,
    log: Vec<LogRecord>,
    /// Partitions up to this incarnation are gone.
    gone: Arc<AtomicU64>,
}

fn machine(config: GroupsConfig, gone: Arc<AtomicU64>) -> Groups {
    // Ids are never given out twice, whoever coordinates.
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let next = &NEXT;
    let new_uuid = move || Uuid::from_u128(next.fetch_add(1, Ordering::Relaxed).into());
    let is_gone = move |_: &OffsetKey, incarnation: GroupId| incarnation.0 <= gone.load(Ordering::Relaxed);
    Groups::new(config, Box::new(new_uuid), Box::new(is_gone))
}

impl World {
    fn new() -> Self {
        Self::with(config())
    }

    fn with(config: GroupsConfig) -> Self {
        let now = Now { instant: Instant::now(), unix_ms: 1_000_000_000 };
        let gone = Arc::new(AtomicU64::new(0));
        let mut groups = machine(config.clone(), Arc::clone(&gone));
        groups.loaded(now, &mut Effects::new());
        Self { groups, config, now, writes: Vec::new(), log: Vec::new(), gone }
    }

    fn step(&mut self, what: impl FnOnce(&mut Groups, Now, &mut Effects<Then>)) {
        let mut effects = Effects::new();
        what(&mut self.groups, self.now, &mut effects);
        self.writes.extend(effects.writes);
    }

    fn call<T>(&mut self, call: impl FnOnce(Reply<T>) -> GroupCall) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        let call = call(Reply::new(reply));
        self.step(|groups, now, effects| groups.handle(call, now, effects));
        Answer(answer)
    }

    /// Decides all writes: they are committed.
    fn commit(&mut self) {
        while !self.writes.is_empty() {
            for write in std::mem::take(&mut self.writes) {
                for record in &write.records {
                    self.groups.replay(record).expect("just written");
                }
                self.log.extend(write.records);
                self.groups.committed(write.then, self.now);
            }
        }
    }

    /// Decides all writes: the log does not take them.
    fn refuse(&mut self) {
        for write in std::mem::take(&mut self.writes) {
            let error = WriteError::Refused(AppendError::DiskFull);
            self.step(|groups, now, effects| groups.refused(write.then, &error, now, effects));
        }
    }

    /// Time passes, step by step.
    fn wait_ms(&mut self, ms: u64) {
        let until = self.now.instant + Duration::from_millis(ms);
        while let Some(at) = self.groups.next_deadline().filter(|at| *at <= until) {
            self.turn_to(at.max(self.now.instant));
            self.step(|groups, now, effects| groups.expire(now, effects));
        }
        self.turn_to(until);
    }

    fn turn_to(&mut self, at: Instant) {
        let passed = at - self.now.instant;
        self.now.unix_ms += i64::try_from(passed.as_millis()).unwrap();
        self.now.instant = at;
    }

    /// Another coordinator takes over, with the log.
    fn fail_over(&mut self) {
        self.groups = machine(self.config.clone(), Arc::clone(&self.gone));
        for record in &self.log {
            self.groups.replay(record).expect("just written");
        }
        self.writes.clear();
        self.step(|groups, now, effects| groups.loaded(now, effects));
    }

    // ---------------------------------------------------------------------------------------------------------------

    fn join(&mut self, request: JoinGroup) -> Answer<JoinAnswer> {
        self.call(|reply| GroupCall::Join(request, reply))
    }

    /// A new member, of an old version that takes no id first.
    fn newcomer(&mut self, client: &str) -> Answer<JoinAnswer> {
        self.join(joining(client, ""))
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        let request =
            Heartbeat { group: GROUP.to_owned(), generation, member: member.to_owned(), instance: None };
        self.call(|reply| GroupCall::Heartbeat(request, reply)).now()
    }

    fn sync(&mut self, joined: &Joined, assignments: &[(&str, &str)]) -> Answer<SyncAnswer> {
        let assignments = assignments
            .iter()
            .map(|(member, bytes)| ((*member).to_owned(), Bytes::from((*bytes).to_owned())));
        let request = SyncGroup {
            group: GROUP.to_owned(),
            generation: joined.generation,
            member: joined.member.clone(),
            instance: None,
            protocol_type: None,
            protocol: None,
            assignments: assignments.collect(),
        };
        self.call(|reply| GroupCall::Sync(request, reply))
    }

    fn leave(&mut self, member: &str, instance: Option<&str>) -> Option<GroupError> {
        let who = LeavingMember { member: member.to_owned(), instance: instance.map(ToOwned::to_owned) };
        let request = LeaveGroup { group: GROUP.to_owned(), members: vec![who] };
        let left = self.call(|reply| GroupCall::Leave(request, reply)).now();
        match left {
            Ok(mut left) => left.remove(0).error,
            Err(error) => Some(error),
        }
    }

    /// A stable group of so many members; the first leads.
    fn stable(&mut self, count: usize) -> Vec<Joined> {
        let answers: Vec<_> = (0..count).map(|number| self.newcomer(&format!("client{number}"))).collect();
        self.wait_ms(10_000);
        let mut joined: Vec<Joined> = answers.into_iter().map(Answer::joined).collect();
        joined.sort_by_key(|one| one.leader != one.member);
        self.assign(&joined);
        joined
    }

    /// All of a generation ask for their assignments: each its own id.
    fn assign(&mut self, joined: &[Joined]) {
        let assignments: Vec<(&str, &str)> =
            joined.iter().map(|one| (one.member.as_str(), one.member.as_str())).collect();
        let mut waiting: Vec<_> = joined[1..].iter().map(|one| (one, self.sync(one, &[]))).collect();
        waiting.push((&joined[0], self.sync(&joined[0], &assignments)));
        self.commit();
        for (one, answer) in waiting {
            assert_eq!(answer.now().expect("assigned").assignment, one.member.as_bytes());
        }
    }

    fn state(&mut self) -> Option<&'static str> {
        self.call(|reply| GroupCall::Describe(GROUP.to_owned(), reply)).now().map(|group| group.state)
    }

    fn commit_offset(
        &mut self,
        member: &str,
        generation: i32,
        new: NewOffset,
    ) -> Answer<call::OffsetResults> {
        let request = CommitOffsets {
            group: GROUP.to_owned(),
            generation,
            member: member.to_owned(),
            instance: None,
            retention_ms: None,
            offsets: vec![new],
        };
        self.call(|reply| GroupCall::CommitOffsets(request, reply))
    }

    /// Deletes the offset of partition 0 of a topic.
    fn delete_offset(&mut self, topic: &str) -> Result<call::OffsetResults, GroupError> {
        let request = DeleteOffsets { group: GROUP.to_owned(), keys: vec![key(topic)] };
        let answer = self.call(|reply| GroupCall::DeleteOffsets(request, reply));
        self.commit();
        answer.now()
    }

    /// State and protocol type of the group as they are listed.
    fn listed(&mut self) -> Option<(&'static str, String)> {
        let listed = self.call(GroupCall::List).now();
        listed.into_iter().next().map(|group| (group.state, group.protocol_type))
    }

    /// Time passes until unused groups have been looked for.
    fn wait_for_upkeep(&mut self) {
        self.wait_ms(self.config.offsets_retention_check_interval.as_millis() as u64);
        self.commit();
    }

    /// What is committed for partition 0 of a topic.
    fn committed(&mut self, topic: &str) -> Option<i64> {
        let partitions = Some(BTreeMap::from([(topic.into(), BTreeSet::from([0]))]));
        let request = FetchOffsets { group: GROUP.to_owned(), partitions };
        let found = self.call(|reply| GroupCall::FetchOffsets(request, reply)).now().expect("never refused");
        found[topic][0].1.as_ref().map(|committed| committed.offset)
    }

    fn delete(&mut self) -> Answer<Result<(), GroupError>> {
        self.call(|reply| GroupCall::Delete(GROUP.to_owned(), reply))
    }
}

/// An answer to come.
struct Answer<T>(oneshot::Receiver<T>);

impl<T: std::fmt::Debug> Answer<T> {
    /// It is there.
    fn now(mut self) -> T {
        self.0.try_recv().expect("answered")
    }

    fn is_open(&mut self) -> bool {
        matches!(self.0.try_recv(), Err(TryRecvError::Empty))
    }
}

impl Answer<JoinAnswer> {
    fn joined(self) -> Joined {
        self.now().expect("joined")
    }

    fn refused(self) -> JoinRefused {
        self.now().expect_err("refused")
    }
}

fn joining(client: &str, member: &str) -> JoinGroup {
    let protocol = |name: &str| Protocol { name: name.to_owned(), metadata: subscription(&["topic"]) };
    JoinGroup {
        group: GROUP.to_owned(),
        member: member.to_owned(),
        instance: None,
        client_id: client.to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range"), protocol("roundrobin")],
        takes_member_id: false,
        can_skip_assignment: false,
    }
}

fn static_member(instance: &str) -> JoinGroup {
    JoinGroup { instance: Some(instance.to_owned()), ..joining("client", "") }
}

fn subscription(topics: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(-1);
    out.freeze()
}

fn key(topic: &str) -> OffsetKey {
    OffsetKey { topic: topic.into(), partition: 0 }
}

fn offset(topic: &str, offset: i64) -> NewOffset {
    NewOffset { key: key(topic), offset, leader_epoch: 1, metadata: "note".to_owned(), incarnation: None }
}

#[test]
fn a_first_member_waits_for_others() {
    let mut world = World::new();
    let mut first = world.newcomer("a");
    world.wait_ms(2999);
    let mut second = world.newcomer("b");
    world.wait_ms(2000);
    assert!(first.is_open() && second.is_open(), "somebody came, so it waits once more");
    world.wait_ms(1001);
    let (first, second) = (first.joined(), second.joined());
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.protocol.as_deref(), Some("range"), "what all prefer");
    let (leader, other) = if first.leader == first.member { (first, second) } else { (second, first) };
    assert_eq!(leader.members.len(), 2, "the leader is told of everybody");
    assert!(other.members.is_empty() && other.leader == leader.member);
}

#[test]
fn waiting_for_more_members_ends_with_the_rebalance_timeout() {
    let mut world = World::new();
    let mut first = world.newcomer("first");
    for number in 0..19 {
        world.wait_ms(2900);
        world.newcomer(&number.to_string());
    }
    assert!(first.is_open(), "{REBALANCE_MS} ms are not over");
    world.wait_ms(6000);
    assert_eq!(first.joined().generation, 1);
}

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
fn a_member_that_comes_makes_the_others_join_again() {
    let mut world = World::new();
    let members = world.stable(2);
    let mut third = world.newcomer("c");
    for member in &members {
        assert_eq!(world.heartbeat(&member.member, 1), Err(GroupError::RebalanceInProgress));
        assert_eq!(world.sync(member, &[]).now(), Err(GroupError::RebalanceInProgress));
    }
    let mut again = world.join(joining("a", &members[0].member));
    assert!(third.is_open() && again.is_open());
    let last = world.join(joining("b", &members[1].member)).joined();
    assert_eq!((last.generation, again.joined().generation, third.joined().generation), (2, 2, 2));
    assert_eq!(world.heartbeat(&last.member, 1), Err(GroupError::IllegalGeneration));
    assert_eq!(world.heartbeat(&last.member, 2), Ok(()));
    assert_eq!(world.heartbeat("nobody", 2), Err(GroupError::UnknownMemberId));
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let mut world = World::new();
    let members = world.stable(2);
    let third = world.newcomer("c");
    let again = world.join(joining("a", &members[0].member));
    // The second one sends heartbeats, and never joins.
    for _ in 0..12 {
        assert_eq!(world.heartbeat(&members[1].member, 1), Err(GroupError::RebalanceInProgress));
        world.wait_ms(5000);
    }
    let leader = if third.0.is_empty() { again.joined() } else { third.joined() };
    assert_eq!(leader.generation, 2);
    assert_eq!(world.heartbeat(&members[1].member, 1), Err(GroupError::UnknownMemberId));
}

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

#[test]
fn a_new_member_is_given_its_id_first() {
    let mut world = World::new();
    let ask = |member: &str| JoinGroup { takes_member_id: true, ..joining("client", member) };
    let refused = world.join(ask("")).refused();
    assert_eq!(refused.error, GroupError::MemberIdRequired);
    assert!(refused.member.starts_with("client-"));
    let answer = world.join(ask(&refused.member));
    world.wait_ms(3000);
    assert_eq!(answer.joined().member, refused.member);
    let never_used = world.join(ask("")).refused().member;
    world.wait_ms(u64::try_from(SESSION_MS).unwrap());
    assert_eq!(world.join(ask(&never_used)).refused().error, GroupError::UnknownMemberId);
}

#[test]
fn a_member_whose_answer_was_lost_is_answered_again() {
    let mut world = World::new();
    let members = world.stable(2);
    let follower = &members[1];
    let again = world.join(joining("b", &follower.member)).joined();
    assert_eq!((again.generation, world.state()), (1, Some("Stable")), "it has nothing new to say");
    let mut changed = joining("b", &follower.member);
    changed.protocols[0].metadata = subscription(&["other"]);
    let mut waiting = world.join(changed);
    assert!(waiting.is_open(), "it reads something else, so all share anew");
    assert_eq!(world.state(), Some("PreparingRebalance"));
}

#[test]
fn the_leader_can_ask_for_another_assignment() {
    let mut world = World::new();
    let members = world.stable(1);
    let again = world.join(joining("a", &members[0].member)).joined();
    assert_eq!(again.generation, 2);
}

#[test]
fn who_does_not_fit_is_refused() {
    let mut world = World::new();
    let refusal = |world: &mut World, request| world.join(request).refused().error;
    let no_group = JoinGroup { group: String::new(), ..joining("a", "") };
    assert_eq!(refusal(&mut world, no_group), GroupError::InvalidGroupId);
    let hasty = JoinGroup { session_timeout_ms: 5999, ..joining("a", "") };
    assert_eq!(refusal(&mut world, hasty), GroupError::InvalidSessionTimeout);
    assert_eq!(refusal(&mut world, joining("a", "stranger")), GroupError::UnknownMemberId);
    let speechless = JoinGroup { protocols: vec![], ..joining("a", "") };
    let endless = JoinGroup { client_id: "x".repeat(40_000), ..joining("a", "") };
    assert_eq!(refusal(&mut world, endless), GroupError::InvalidRequest);
    assert_eq!(world.state(), None, "no group came of it");
    assert_eq!(refusal(&mut world, speechless), GroupError::InconsistentGroupProtocol);
    assert_eq!(world.state(), Some("Empty"), "as in Kafka");
    world.stable(1);
    let other = JoinGroup { protocol_type: "connect".to_owned(), ..joining("a", "") };
    assert_eq!(refusal(&mut world, other), GroupError::InconsistentGroupProtocol);
    let mut foreign = joining("a", "");
    foreign.protocols.iter_mut().for_each(|protocol| protocol.name.insert(0, 'x'));
    assert_eq!(refusal(&mut world, foreign), GroupError::InconsistentGroupProtocol);
}

#[test]
fn the_protocol_is_the_one_that_most_prefer_of_those_that_all_speak() {
    let mut world = World::new();
    let speaking = |names: &[&str]| {
        let protocol = |name: &&str| Protocol { name: (*name).to_owned(), metadata: Bytes::new() };
        JoinGroup { protocols: names.iter().map(protocol).collect(), ..joining("a", "") }
    };
    let first = world.join(speaking(&["sticky", "range", "roundrobin"]));
    let _second = world.join(speaking(&["roundrobin", "range"]));
    let _third = world.join(speaking(&["roundrobin", "range"]));
    world.wait_ms(6000);
    assert_eq!(first.joined().protocol.as_deref(), Some("roundrobin"));
}

#[test]
fn a_group_has_a_size() {
    let mut world = World::with(GroupsConfig { max_size: 2, ..config() });
    let members = world.stable(2);
    assert_eq!(world.newcomer("c").refused().error, GroupError::GroupMaxSizeReached);
    assert_eq!(world.heartbeat(&members[0].member, 1), Ok(()), "the others go on");
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

#[test]
fn a_static_member_that_is_started_again_keeps_its_place() {
    let mut world = World::new();
    let (first, second) = (world.join(static_member("one")), world.join(static_member("two")));
    world.wait_ms(6000);
    let mut members = [first.joined(), second.joined()];
    members.sort_by_key(|one| one.leader != one.member);
    world.assign(&members);
    let instance = members[1].member.split('-').next().unwrap().to_owned();
    let mut back = world.join(static_member(&instance));
    assert!(back.is_open(), "not before it is stored");
    world.commit();
    let back = back.joined();
    assert_eq!((back.generation, world.state()), (1, Some("Stable")), "without a rebalance");
    assert_ne!(back.member, members[1].member);
    let synced = world.sync(&back, &[]).now().unwrap();
    assert_eq!(synced.assignment, members[1].member.as_bytes(), "what it had before");
    assert_eq!(world.heartbeat(&members[1].member, 1), Err(GroupError::UnknownMemberId));
    let mut late = static_member(&instance);
    late.member.clone_from(&members[1].member);
    assert_eq!(world.join(late).refused().error, GroupError::FencedInstanceId);
    world.fail_over();
    assert_eq!(world.heartbeat(&back.member, 1), Ok(()), "it is stored who has the place");
}

#[test]
fn a_static_leader_that_is_started_again_leaves_the_assignment_as_it_is() {
    let mut world = World::new();
    let first = world.join(static_member("one"));
    world.wait_ms(3000);
    let first = first.joined();
    world.assign(std::slice::from_ref(&first));
    let back = world.join(JoinGroup { can_skip_assignment: true, ..static_member("one") });
    world.commit();
    let back = back.joined();
    assert!(back.skip_assignment && back.leader == back.member && back.members.len() == 1);
    let old_version = world.join(static_member("one"));
    world.commit();
    let old_version = old_version.joined();
    assert!(!old_version.skip_assignment && old_version.members.is_empty());
    assert_ne!(old_version.leader, old_version.member, "it must not think that it leads");
}

#[test]
fn a_static_member_is_sent_away_by_its_instance() {
    let mut world = World::new();
    let first = world.join(static_member("one"));
    world.wait_ms(3000);
    let first = first.joined();
    world.assign(std::slice::from_ref(&first));
    assert_eq!(world.leave("", Some("unknown")), Some(GroupError::UnknownMemberId));
    assert_eq!(world.leave("other", Some("one")), Some(GroupError::FencedInstanceId));
    assert_eq!(world.leave("", Some("one")), None);
    world.commit();
    assert_eq!(world.state(), Some("Empty"));
}

#[test]
fn an_absent_static_member_does_not_hold_up_the_others() {
    let mut world = World::new();
    let (first, second) = (world.join(static_member("one")), world.join(static_member("two")));
    world.wait_ms(6000);
    let mut members = [first.joined(), second.joined()];
    members.sort_by_key(|one| one.leader != one.member);
    world.assign(&members);
    let _third = world.newcomer("c");
    let mut again = static_member(members[0].member.split('-').next().unwrap());
    again.member.clone_from(&members[0].member);
    let mut again = world.join(again);
    assert!(again.is_open());
    // The other one sends heartbeats, so that it is no session that ends.
    for _ in 0..12 {
        assert!(world.heartbeat(&members[1].member, 1).is_err());
        world.wait_ms(5000);
    }
    let told = again.joined();
    assert_eq!(told.generation, 2);
    assert_eq!(world.heartbeat(&members[1].member, 2), Ok(()), "it keeps its place");
}

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
