//! A member of a consumer group: joins, shares partitions with the others, commits offsets, goes and comes back.
//!
//! It reads nothing: what it commits counts on from what was committed before it, so that whatever goes back or gets lost shows.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helix_server::env::watch;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiKey, FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use rand::Rng;

use super::admin;
use super::call::{Connection, Nodes, topic_name};
use super::offsets::Offsets;

/// The topic that holds groups.
pub(crate) const GROUPS_TOPIC: &str = "__consumer_offsets";
const FIND_VERSION: i16 = 3;
const JOIN_VERSION: i16 = 7;
const SYNC_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;
const LEAVE_VERSION: i16 = 4;
const COMMIT_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 7;
const PROTOCOL: &str = "share";
const PROTOCOL_TYPE: &str = "consumer";
const SESSION_TIMEOUT_MS: i32 = 3000;
const REBALANCE_TIMEOUT_MS: i32 = 4000;

/// Why a member has to begin again.
enum Lost {
    /// It joins again, as who it is.
    Rebalance,
    /// It is nobody any more.
    Membership,
    /// Another node may coordinate its group.
    Coordinator,
}

/// A member at work.
pub(crate) struct Member {
    nodes: Nodes,
    offsets: Arc<Offsets>,
    group: String,
    topic: String,
    partitions: i32,
    id: StrBytes,
    generation: i32,
    coordinator: Option<Connection>,
    /// What it owns, and what it commits next.
    owned: Vec<(i32, i64)>,
}

impl Member {
    pub(crate) fn new(
        nodes: Nodes,
        offsets: Arc<Offsets>,
        group: &str,
        topic: &str,
        partitions: i32,
    ) -> Self {
        Self {
            nodes,
            offsets,
            group: group.to_owned(),
            topic: topic.to_owned(),
            partitions,
            id: StrBytes::default(),
            generation: -1,
            coordinator: None,
            owned: Vec::new(),
        }
    }

    /// Works until told to stop, and then until it has once more been a member of a stable group, and has seen what is committed.
    pub(crate) async fn run(mut self, stop: watch::Receiver<bool>) {
        loop {
            let last = stop.get();
            let worked = self.life(&stop).await;
            self.owned.clear();
            match worked {
                Ok(()) if last => break,
                Ok(()) | Err(Lost::Rebalance) => {}
                Err(Lost::Membership) => self.id = StrBytes::default(),
                Err(Lost::Coordinator) => self.coordinator = None,
            }
            self.pause(200).await;
        }
        // Whoever does not leave is missed by the others for a session.
        if self.nodes.random(|random| random.random_bool(0.5)) {
            let left = self.leave().await;
            tracing::debug!(left = left.is_ok(), "a member has gone");
        }
    }

    /// Simulated time: what a client does between two calls, and how long it waits before it tries again.
    async fn pause(&self, most_ms: u64) {
        let pause_ms = self.nodes.random(|random| random.random_range(0..=most_ms));
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }

    /// From joining to the end of the generation, or until it has had enough.
    async fn life(&mut self, stop: &watch::Receiver<bool>) -> Result<(), Lost> {
        let assigned = self.join_and_sync().await?;
        self.offsets.owns(&self.group, self.generation, &assigned, &self.id);
        let committed = self.fetch().await?;
        self.owned = assigned.into_iter().map(|number| (number, committed[number as usize] + 1)).collect();
        let rounds = self.nodes.random(|random| random.random_range(1..30));
        for _ in 0..rounds {
            self.pause(400).await;
            if self.nodes.random(|random| random.random_bool(0.6)) {
                self.commit().await?;
            } else {
                self.heartbeat().await?;
            }
            if stop.get() {
                break;
            }
        }
        self.fetch().await?;
        match self.nodes.random(|random| random.random_range(0..4)) {
            0 if !stop.get() => {
                self.leave().await?;
                Err(Lost::Membership)
            }
            // It dies without a word, and comes back as somebody else.
            1 if !stop.get() => Err(Lost::Membership),
            _ => Ok(()),
        }
    }

    async fn join_and_sync(&mut self) -> Result<Vec<i32>, Lost> {
        let joined = self.join().await?;
        let everybody: Vec<StrBytes> = joined.members.into_iter().map(|member| member.member_id).collect();
        let share = |(at, id): (usize, &StrBytes)| {
            let mine = (0..self.partitions).filter(|number| *number as usize % everybody.len() == at);
            let bytes: Vec<u8> = mine.map(|number| number as u8).collect();
            SyncGroupRequestAssignment::default().with_member_id(id.clone()).with_assignment(bytes.into())
        };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
            .with_protocol_name(Some(StrBytes::from_static_str(PROTOCOL)))
            .with_assignments(everybody.iter().enumerate().map(share).collect());
        let answer: SyncGroupResponse = self.ask(ApiKey::SyncGroup, SYNC_VERSION, &request).await?;
        self.check(answer.error_code, "SyncGroup")?;
        Ok(answer.assignment.iter().map(|number| i32::from(*number)).collect())
    }

    async fn join(&mut self) -> Result<JoinGroupResponse, Lost> {
        loop {
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(StrBytes::from_static_str(PROTOCOL))
                .with_metadata(Bytes::from_static(b"everything"));
            let request = JoinGroupRequest::default()
                .with_group_id(self.group_id())
                .with_session_timeout_ms(SESSION_TIMEOUT_MS)
                .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
                .with_member_id(self.id.clone())
                .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
                .with_protocols(vec![protocol]);
            let answer: JoinGroupResponse = self.ask(ApiKey::JoinGroup, JOIN_VERSION, &request).await?;
            if answer.error_code == ResponseError::MemberIdRequired.code() {
                self.id = answer.member_id;
                continue;
            }
            self.check(answer.error_code, "JoinGroup")?;
            self.id = answer.member_id.clone();
            self.generation = answer.generation_id;
            return Ok(answer);
        }
    }

    async fn heartbeat(&mut self) -> Result<(), Lost> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        let answer: HeartbeatResponse = self.ask(ApiKey::Heartbeat, HEARTBEAT_VERSION, &request).await?;
        self.check(answer.error_code, "Heartbeat")
    }

    async fn leave(&mut self) -> Result<(), Lost> {
        let me = MemberIdentity::default().with_member_id(self.id.clone());
        let request = LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![me]);
        let answer: LeaveGroupResponse = self.ask(ApiKey::LeaveGroup, LEAVE_VERSION, &request).await?;
        self.check(answer.error_code, "LeaveGroup")
    }

    /// Commits all that it owns.
    async fn commit(&mut self) -> Result<(), Lost> {
        if self.owned.is_empty() {
            return self.heartbeat().await;
        }
        let partition = |(number, offset): &(i32, i64)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*number)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(StrBytes::from_string(format!("by {}", &*self.id))))
        };
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&self.topic))
            .with_partitions(self.owned.iter().map(partition).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![topic]);
        let answer: OffsetCommitResponse = self.ask(ApiKey::OffsetCommit, COMMIT_VERSION, &request).await?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            self.check(partition.error_code, "OffsetCommit")?;
        }
        for (number, offset) in &mut self.owned {
            self.offsets.acknowledged(&self.group, *number, *offset);
            *offset += 1;
        }
        Ok(())
    }

    /// What is committed, by partition; -1 where nothing is.
    async fn fetch(&mut self) -> Result<Vec<i64>, Lost> {
        let asked = OffsetFetchRequestTopic::default()
            .with_name(topic_name(&self.topic))
            .with_partition_indexes((0..self.partitions).collect());
        let request =
            OffsetFetchRequest::default().with_group_id(self.group_id()).with_topics(Some(vec![asked]));
        let before = self.offsets.all_committed(&self.group, self.partitions);
        let answer: OffsetFetchResponse = self.ask(ApiKey::OffsetFetch, FETCH_VERSION, &request).await?;
        self.check(answer.error_code, "OffsetFetch")?;
        let mut committed = vec![-1; before.len()];
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            committed[partition.partition_index as usize] = partition.committed_offset;
        }
        self.offsets.seen(&self.group, &before, &committed);
        Ok(committed)
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group.clone()))
    }

    /// Asks the coordinator.
    async fn ask<T: kafka_protocol::protocol::Decodable + Send + 'static>(
        &mut self,
        key: ApiKey,
        version: i16,
        request: &impl kafka_protocol::protocol::Encodable,
    ) -> Result<T, Lost> {
        if self.coordinator.is_none() {
            self.coordinator = self.find().await;
        }
        let Some(coordinator) = &self.coordinator else { return Err(Lost::Coordinator) };
        coordinator.ask(key, version, request).await.ok_or(Lost::Coordinator)
    }

    async fn find(&self) -> Option<Connection> {
        let request = FindCoordinatorRequest::default().with_key(StrBytes::from_string(self.group.clone()));
        let any = self.nodes.connect_to_any()?;
        let found: FindCoordinatorResponse = any.ask(ApiKey::FindCoordinator, FIND_VERSION, &request).await?;
        if found.error_code != 0 {
            return None;
        }
        admin::tell_groups(&self.nodes, self.offsets.ledger(), GROUPS_TOPIC).await;
        self.nodes.connect(usize::try_from(found.node_id.0 - 1).ok()?)
    }

    fn check(&self, code: i16, what: &str) -> Result<(), Lost> {
        match ResponseError::try_from_code(code) {
            None => Ok(()),
            Some(ResponseError::RebalanceInProgress) => Err(Lost::Rebalance),
            Some(ResponseError::UnknownMemberId | ResponseError::IllegalGeneration) => Err(Lost::Membership),
            Some(
                ResponseError::NotCoordinator
                | ResponseError::CoordinatorNotAvailable
                | ResponseError::CoordinatorLoadInProgress,
            ) => Err(Lost::Coordinator),
            Some(error) => {
                self.offsets
                    .ledger()
                    .accuse(format!("group {}: {what} is answered with {error:?}", self.group));
                Err(Lost::Coordinator)
            }
        }
    }
}
