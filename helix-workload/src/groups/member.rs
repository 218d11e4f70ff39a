//! A member of a consumer group by the classic protocol (KIP-62, KIP-394), one request at a time.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiKey, ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, HeartbeatRequest,
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    OffsetCommitRequest, OffsetCommitResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::call::{ANSWER, Connection, Coordinator, find_coordinator};
use crate::wire::topic_name;

const JOIN_VERSION: i16 = 7;
const SYNC_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;
const LEAVE_VERSION: i16 = 4;
const COMMIT_VERSION: i16 = 8;
/// Of what members tell each other.
const CONSUMER_PROTOCOL_VERSION: i16 = 1;
/// Partitions are dealt out in turn.
const PROTOCOL: &str = "roundrobin";
const PROTOCOL_TYPE: &str = "consumer";

/// Why a request to the coordinator did not do what it was to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Setback {
    /// The member has to join again, as who it is.
    #[error("the group rebalances")]
    Rebalance,
    /// The member is nobody any more.
    #[error("the coordinator does not know the member")]
    Membership,
    /// Another node may coordinate the group, or the same one later.
    #[error("no coordinator: {0}")]
    Coordinator(String),
    /// Nothing that a member must expect.
    #[error("{api:?} is answered with error {code}")]
    Refused {
        /// What was asked.
        api: ApiKey,
        /// Kafka's error code.
        code: i16,
    },
}

impl From<io::Error> for Setback {
    fn from(error: io::Error) -> Self {
        Self::Coordinator(error.to_string())
    }
}

/// Who is to join what.
#[derive(Debug, Clone)]
pub(crate) struct MemberOptions {
    /// `HOST:PORT` of the brokers that are asked for the coordinator, in turn.
    pub(crate) bootstrap: Vec<String>,
    /// The group.
    pub(crate) group: String,
    /// What the group reads.
    pub(crate) topic: String,
    /// Partitions of it.
    pub(crate) partitions: i32,
    /// Without a heartbeat for so long a member is taken for dead.
    pub(crate) session_timeout: Duration,
    /// So long a rebalance waits for a member.
    pub(crate) rebalance_timeout: Duration,
}

/// A member, or somebody who is about to become one.
pub(crate) struct Member {
    options: MemberOptions,
    id: StrBytes,
    generation: i32,
    coordinator: Option<(Coordinator, Connection)>,
    /// Which broker is asked next.
    turn: usize,
}

impl Member {
    /// Nobody yet; `turn` says which broker is asked first.
    pub(crate) fn new(options: MemberOptions, turn: usize) -> Self {
        Self { options, id: StrBytes::default(), generation: -1, coordinator: None, turn }
    }

    /// The id that the coordinator gave.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Of the last assignment.
    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// The node that coordinates the group, as far as the member knows.
    pub(crate) fn coordinator(&self) -> Option<i32> {
        self.coordinator.as_ref().map(|(coordinator, _)| coordinator.node)
    }

    /// Forgets who it was.
    pub(crate) fn become_nobody(&mut self) {
        self.id = StrBytes::default();
        self.generation = -1;
    }

    /// Joins and waits for the assignment: partitions that are the member's from now on.
    pub(crate) async fn join(&mut self) -> Result<Vec<i32>, Setback> {
        let joined = self.ask_to_join().await?;
        let assignments = if joined.leader == joined.member_id { self.deal(&joined) } else { Vec::new() };
        let request = SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
            .with_protocol_name(Some(StrBytes::from_static_str(PROTOCOL)))
            .with_assignments(assignments);
        let patience = self.options.rebalance_timeout + ANSWER;
        let answer: SyncGroupResponse = self.ask(ApiKey::SyncGroup, SYNC_VERSION, &request, patience).await?;
        check(answer.error_code, ApiKey::SyncGroup)?;
        Ok(assigned(answer.assignment, &self.options.topic)?)
    }

    async fn ask_to_join(&mut self) -> Result<JoinGroupResponse, Setback> {
        let topic = StrBytes::from_string(self.options.topic.clone());
        let subscription = ConsumerProtocolSubscription::default().with_topics(vec![topic]);
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str(PROTOCOL))
            .with_metadata(with_version(&subscription)?);
        let patience = self.options.rebalance_timeout + ANSWER;
        loop {
            let request = JoinGroupRequest::default()
                .with_group_id(self.group_id())
                .with_session_timeout_ms(milliseconds(self.options.session_timeout))
                .with_rebalance_timeout_ms(milliseconds(self.options.rebalance_timeout))
                .with_member_id(self.id.clone())
                .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
                .with_protocols(vec![protocol.clone()]);
            let answer: JoinGroupResponse =
                self.ask(ApiKey::JoinGroup, JOIN_VERSION, &request, patience).await?;
            if answer.error_code == ResponseError::MemberIdRequired.code() {
                self.id = answer.member_id;
                continue;
            }
            check(answer.error_code, ApiKey::JoinGroup)?;
            self.id = answer.member_id.clone();
            self.generation = answer.generation_id;
            return Ok(answer);
        }
    }

    /// What the leader of a generation says to all of its members.
    fn deal(&self, joined: &JoinGroupResponse) -> Vec<SyncGroupRequestAssignment> {
        let shares = shares(self.options.partitions, joined.members.len());
        let assignment = |(member, partitions): (&StrBytes, Vec<i32>)| {
            let topic = TopicPartition::default()
                .with_topic(topic_name(&self.options.topic))
                .with_partitions(partitions);
            let assignment = ConsumerProtocolAssignment::default().with_assigned_partitions(vec![topic]);
            SyncGroupRequestAssignment::default()
                .with_member_id(member.clone())
                // What can be said in the protocol can be encoded; an empty assignment would be noticed.
                .with_assignment(with_version(&assignment).unwrap_or_default())
        };
        joined.members.iter().map(|member| &member.member_id).zip(shares).map(assignment).collect()
    }

    /// Says that the member lives.
    pub(crate) async fn heartbeat(&mut self) -> Result<(), Setback> {
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        let answer: HeartbeatResponse =
            self.ask(ApiKey::Heartbeat, HEARTBEAT_VERSION, &request, ANSWER).await?;
        check(answer.error_code, ApiKey::Heartbeat)
    }

    /// Commits the offsets that are to be read next.
    pub(crate) async fn commit(&mut self, offsets: &[(i32, i64)]) -> Result<(), Setback> {
        let partition = |(partition, offset): &(i32, i64)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*partition)
                .with_committed_offset(*offset)
        };
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&self.options.topic))
            .with_partitions(offsets.iter().map(partition).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![topic]);
        let answer: OffsetCommitResponse =
            self.ask(ApiKey::OffsetCommit, COMMIT_VERSION, &request, ANSWER).await?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.into_iter().try_for_each(|one| check(one.error_code, ApiKey::OffsetCommit))
    }

    /// Leaves the group; then the member is nobody.
    pub(crate) async fn leave(&mut self) -> Result<(), Setback> {
        let me = MemberIdentity::default().with_member_id(self.id.clone());
        let request = LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![me]);
        let answer: LeaveGroupResponse =
            self.ask(ApiKey::LeaveGroup, LEAVE_VERSION, &request, ANSWER).await?;
        check(answer.error_code, ApiKey::LeaveGroup)?;
        self.become_nobody();
        Ok(())
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.options.group.clone()))
    }

    /// Asks the coordinator, which is looked for first if none is known.
    async fn ask<T: Decodable>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &impl Encodable,
        patience: Duration,
    ) -> Result<T, Setback> {
        let (coordinator, mut connection) = match self.coordinator.take() {
            Some(known) => known,
            None => self.find().await?,
        };
        let answer = connection.ask(api, version, request, patience).await?;
        self.coordinator = Some((coordinator, connection));
        Ok(answer)
    }

    async fn find(&mut self) -> io::Result<(Coordinator, Connection)> {
        let bootstrap = &self.options.bootstrap[self.turn % self.options.bootstrap.len()];
        self.turn = self.turn.wrapping_add(1);
        let coordinator = find_coordinator(bootstrap, &self.options.group).await?;
        let connection = Connection::open(&coordinator.address).await?;
        Ok((coordinator, connection))
    }

    /// Returns as soon as the coordinator has ended the connection, or at once if there is none.
    pub(crate) async fn disconnected(&self) {
        if let Some((_, connection)) = &self.coordinator {
            connection.ended().await;
        }
    }

    /// The next request goes to whoever is named as the coordinator then.
    pub(crate) fn forget_coordinator(&mut self) {
        self.coordinator = None;
    }
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// Partitions in turn to so many members.
fn shares(partitions: i32, members: usize) -> Vec<Vec<i32>> {
    let mut shares = vec![Vec::new(); members];
    for (partition, at) in (0..partitions).zip((0..members).cycle()) {
        shares[at].push(partition);
    }
    shares
}

/// What members tell each other begins with its version.
fn with_version(message: &impl Encodable) -> io::Result<Bytes> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(CONSUMER_PROTOCOL_VERSION);
    message.encode(&mut bytes, CONSUMER_PROTOCOL_VERSION).map_err(io::Error::other)?;
    Ok(bytes.freeze())
}

/// Partitions of a topic that an assignment names.
pub(super) fn assigned(mut assignment: Bytes, topic: &str) -> io::Result<Vec<i32>> {
    if assignment.len() < 2 {
        return Ok(Vec::new());
    }
    let version = assignment.get_i16().clamp(0, 3);
    let assignment =
        ConsumerProtocolAssignment::decode(&mut assignment, version).map_err(io::Error::other)?;
    let of_topic = assignment.assigned_partitions.into_iter().filter(|one| one.topic.0.as_str() == topic);
    Ok(of_topic.flat_map(|one| one.partitions).collect())
}

fn check(code: i16, api: ApiKey) -> Result<(), Setback> {
    Err(match ResponseError::try_from_code(code) {
        None => return Ok(()),
        Some(ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration) => Setback::Rebalance,
        Some(ResponseError::UnknownMemberId) => Setback::Membership,
        Some(
            error @ (ResponseError::NotCoordinator
            | ResponseError::CoordinatorNotAvailable
            | ResponseError::CoordinatorLoadInProgress
            | ResponseError::RequestTimedOut),
        ) => Setback::Coordinator(format!("{api:?} is answered with {error:?}")),
        Some(_) => Setback::Refused { api, code },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_goes_to_one_member() {
        assert_eq!(shares(5, 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(shares(1, 3), [vec![0], vec![], vec![]]);
        assert!(shares(3, 0).is_empty());
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written() {
        let of = |topic, partitions| {
            TopicPartition::default().with_topic(topic_name(topic)).with_partitions(partitions)
        };
        let message = ConsumerProtocolAssignment::default()
            .with_assigned_partitions(vec![of("other", vec![7]), of("topic", vec![1, 2])]);
        assert_eq!(assigned(with_version(&message).unwrap(), "topic").unwrap(), [1, 2]);
        assert_eq!(assigned(Bytes::new(), "topic").unwrap(), [0; 0]);
        assert!(assigned(Bytes::from_static(&[0, 1, 0xFF]), "topic").is_err());
    }

    #[test]
    fn errors_say_what_a_member_is_to_do() {
        let code = |error: ResponseError| check(error.code(), ApiKey::Heartbeat);
        assert_eq!(check(0, ApiKey::Heartbeat), Ok(()));
        assert_eq!(code(ResponseError::RebalanceInProgress), Err(Setback::Rebalance));
        assert_eq!(code(ResponseError::IllegalGeneration), Err(Setback::Rebalance));
        assert_eq!(code(ResponseError::UnknownMemberId), Err(Setback::Membership));
        assert!(matches!(code(ResponseError::NotCoordinator), Err(Setback::Coordinator(_))));
        assert!(matches!(code(ResponseError::GroupMaxSizeReached), Err(Setback::Refused { code: 81, .. })));
    }
}
