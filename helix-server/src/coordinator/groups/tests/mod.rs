//! Groups in the hands of a client that sees what is answered when. Writes are decided when a test says so.

mod any_order;
mod expiry;
mod join;
mod leave;
mod log;
mod offsets;
mod protocols;
mod static_members;
mod sync;
mod timeouts;
mod undecided;

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
    let new_uuid = || Uuid::from_u128(NEXT.fetch_add(1, Ordering::Relaxed).into());
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
