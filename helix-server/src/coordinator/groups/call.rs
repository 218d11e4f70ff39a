//! What is asked about consumer groups, and what is answered.

use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::oneshot;

pub(crate) use super::offsets::{
    CommitOffsets, CommittedOffset, DeleteOffsets, FetchOffsets, FetchedOffsets, NewOffset, OffsetKey,
};
use crate::broker::produce::AppendError;
use crate::coordinator::WriteError;

/// Where an answer goes. Dropping it unanswered says that another node coordinates.
#[derive(Debug)]
pub(crate) struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    pub(crate) const fn new(sender: oneshot::Sender<T>) -> Self {
        Self(sender)
    }

    /// Whoever asked may be gone.
    pub(crate) fn send(self, answer: T) {
        drop(self.0.send(answer));
    }
}

/// What became of each offset: an error, if it was not done.
pub(crate) type OffsetResults = Vec<(OffsetKey, Option<GroupError>)>;

/// One call.
#[derive(Debug)]
pub(crate) enum GroupCall {
    Join(JoinGroup, Reply<JoinAnswer>),
    Sync(SyncGroup, Reply<SyncAnswer>),
    Heartbeat(Heartbeat, Reply<Result<(), GroupError>>),
    Leave(LeaveGroup, Reply<Result<Vec<LeftMember>, GroupError>>),
    CommitOffsets(CommitOffsets, Reply<OffsetResults>),
    FetchOffsets(FetchOffsets, Reply<Result<FetchedOffsets, GroupError>>),
    DeleteOffsets(DeleteOffsets, Reply<Result<OffsetResults, GroupError>>),
    Describe(String, Reply<Option<DescribedGroup>>),
    List(Reply<Vec<ListedGroup>>),
    Delete(String, Reply<Result<(), GroupError>>),
    /// These topics are gone, or others have their names.
    TopicsDeleted(Vec<String>),
}

/// Why something that was asked of a group was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum GroupError {
    #[error("the group id must not be empty: set group.id")]
    InvalidGroupId,
    #[error(
        "the session timeout is not within group.min.session.timeout.ms and group.max.session.timeout.ms of the broker"
    )]
    InvalidSessionTimeout,
    #[error("the member is not known to the group: join again without a member id")]
    UnknownMemberId,
    #[error("the group is of another generation: join again")]
    IllegalGeneration,
    #[error("the group is rebalancing: join again")]
    RebalanceInProgress,
    #[error("the group's members have another protocol type, or no protocol in common with this one")]
    InconsistentGroupProtocol,
    #[error("join again with the member id that comes with this answer")]
    MemberIdRequired,
    #[error("another member with the same group.instance.id has taken this one's place")]
    FencedInstanceId,
    #[error("the group has as many members as group.max.size allows")]
    GroupMaxSizeReached,
    #[error("the group has members: stop them first")]
    NonEmptyGroup,
    #[error("there is no group of that id")]
    GroupIdNotFound,
    #[error("the group reads this topic: its members must give it up first")]
    GroupSubscribedToTopic,
    #[error("the metadata of the commit is longer than offset.metadata.max.bytes")]
    OffsetMetadataTooLarge,
    #[error("a name is longer than 32767 bytes, or a number is out of range")]
    InvalidRequest,
    #[error("a member speaks at most {limit} protocols: set fewer partition.assignment.strategy")]
    TooManyProtocols {
        /// Most protocols of a member.
        limit: usize,
    },
    #[error("what is to be stored is larger than the log of groups takes: {0}")]
    TooLarge(String),
    /// Nothing was stored; it may be later.
    #[error("not stored: {0}")]
    NotStored(AppendError),
}

impl From<&WriteError> for GroupError {
    fn from(error: &WriteError) -> Self {
        match error {
            WriteError::TooLarge { .. } => Self::TooLarge(error.to_string()),
            WriteError::Refused(refused) => Self::NotStored(refused.clone()),
        }
    }
}

/// A protocol that a member speaks, and what it has to say in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) metadata: Bytes,
}

/// JoinGroup.
#[derive(Debug, Clone)]
pub(crate) struct JoinGroup {
    pub(crate) group: String,
    /// Empty for a new member.
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<Protocol>,
    /// The client knows MEMBER_ID_REQUIRED (KIP-394, version 4).
    pub(crate) takes_member_id: bool,
    /// The client knows `skip_assignment` (KIP-814, version 9).
    pub(crate) can_skip_assignment: bool,
}

/// A refused JoinGroup: the member id tells a new member who it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub(crate) error: GroupError,
    pub(crate) member: String,
}

pub(crate) type JoinAnswer = Result<Joined, JoinRefused>;

/// A member of the new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: String,
    pub(crate) member: String,
    pub(crate) skip_assignment: bool,
    /// Everybody, for the leader.
    pub(crate) members: Vec<JoinedMember>,
}

/// A member as its leader is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) metadata: Bytes,
}

/// SyncGroup.
#[derive(Debug, Clone)]
pub(crate) struct SyncGroup {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    /// From the leader: by member.
    pub(crate) assignments: Vec<(String, Bytes)>,
}

pub(crate) type SyncAnswer = Result<Synced, GroupError>;

/// What a member is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

/// Heartbeat.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    pub(crate) group: String,
    pub(crate) generation: i32,
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
}

/// LeaveGroup.
#[derive(Debug, Clone)]
pub(crate) struct LeaveGroup {
    pub(crate) group: String,
    pub(crate) members: Vec<LeavingMember>,
}

/// Who leaves: by member id, or by instance id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeavingMember {
    pub(crate) member: String,
    pub(crate) instance: Option<String>,
}

/// Whether one of them has left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeftMember {
    pub(crate) who: LeavingMember,
    pub(crate) error: Option<GroupError>,
}

/// A group as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedGroup {
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

/// A member as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

/// A group as ListGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedGroup {
    pub(crate) id: String,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
}

/// Milliseconds of a request as a duration; negative ones are none.
pub(super) fn duration_of(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
