//! Shards: each owns a part of this node's consensus groups, and everything that belongs to them.
//!
//! A shard is one task with a mailbox. Whatever concerns a group is a message to its shard; nobody else touches the group,
//! so there is no lock. Mailboxes are unbounded in messages because what can pile up in them is bounded elsewhere, in bytes:
//! produce requests and peer messages carry permits of their budgets until they are done.

mod anew;
mod checkpoint;
mod configure;
mod drive;
mod force;
mod leadership;
mod members;
mod owner;
mod questions;
mod recover;
mod replica;
mod upkeep;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use helix_raft::{
    Bucket, CommittedRange, Durability, Entry, GroupId, HardState, Incarnation, Index, Liveness, ReplicaId,
    Term,
};
use helix_wal::Offset;
use tokio::sync::{mpsc, oneshot};

use crate::broker::delete_records::LogStartRequest;
use crate::broker::produce::AppendRequest;
use crate::broker::questions::QuorumStanding;
use crate::config::topic::TopicConfig;
use crate::controller::Proposed;
use crate::controller::reconcile::WantedPartition;
use crate::entry::Command;
use crate::partition::producers::ProducerBatch;
use crate::peers::Inbound;
use drive::Unreadable;

pub(crate) use force::{Standing, StandingsRequest};
pub(crate) use owner::{Owner, ShardContext, TICK};

/// The way to all shards of this node.
#[derive(Debug, Clone)]
pub struct Shards {
    mailboxes: Arc<[mpsc::UnboundedSender<ShardMessage>]>,
}

/// The receiving end of a mailbox, to be given to the shard's owner.
pub(crate) type Mailbox = mpsc::UnboundedReceiver<ShardMessage>;
/// Those of all shards.
pub(crate) type Mailboxes = Vec<Mailbox>;

/// Everything that can happen to a shard.
#[derive(Debug)]
pub(crate) enum ShardMessage {
    /// Other nodes' replicas say something. Each message's permit is held until what it brought is stored.
    Peer(Vec<Inbound>),
    /// A batch to append.
    Append(AppendRequest),
    /// A metadata command to propose.
    ProposeMetadata { command: Bytes, reply: oneshot::Sender<Proposed> },
    /// A partition replica is to exist.
    CreatePartition(WantedPartition),
    /// The metadata says who is to hold replicas of a group.
    Desired { group: GroupId, replicas: Vec<ReplicaId> },
    /// The configuration of a group's topic, or of the broker, was altered.
    Configure { group: GroupId, config: Arc<TopicConfig> },
    /// It is durable that data of this node need not be synced before it counts.
    RelaxationRecorded,
    /// A group was deleted by a committed command.
    DeleteGroup(GroupId),
    /// Records are in the WAL, this durably.
    Stored { positions: Vec<(GroupId, Index, Term)>, durability: Durability },
    /// Records of a group did not make it into the WAL, and nothing of the group that was given out after them.
    AppendFailed { group: GroupId },
    /// A term and vote are on disk.
    VotePersisted { group: GroupId, state: HardState },
    /// Entries that a follower lacks were read from the WAL.
    EntriesRead { group: GroupId, to: ReplicaId, from: Index, prev_term: Term, entries: Vec<Entry<Command>> },
    /// Committed entries that were not in memory were read from the WAL: the first ones of the range, or why none.
    CommittedRead {
        group: GroupId,
        life: u64,
        range: CommittedRange,
        entries: Result<Vec<Entry<Command>>, Unreadable>,
    },
    /// A "start here" is on disk.
    StartInstalled { group: GroupId, start: helix_raft::Start<Command> },
    /// A node is reached, or not.
    PeerLiveness { replica: ReplicaId, liveness: Liveness },
    /// A node has started (again).
    PeerIncarnation { replica: ReplicaId, incarnation: Incarnation },
    /// The groups of a bucket that are shared with a replica are to be confirmed.
    Wake { replica: ReplicaId, bucket: Bucket },
    /// A client wants the log of a partition to start later.
    DeleteRecords { group: GroupId, request: LogStartRequest },
    /// Retention found that a led group's log should start at this offset.
    Retire { group: GroupId, log_start: i64 },
    /// The log of a group is to begin behind this index, where the offset follows.
    StartFound { group: GroupId, life: u64, index: Index, base_offset: Offset },
    /// The new start of a log is in the WAL.
    LogStartRecorded { group: GroupId, index: Index, term: Term },
    /// Damaged entries of a group are back.
    Repaired { group: GroupId },
    /// Nobody who can be asked has the damaged entries of a group from this one on.
    NotRepaired { group: GroupId, index: Index },
    /// It is durable that the log of a group that begins anew, or that ends at damage, is suspect.
    MarkedRecovering { group: GroupId },
    /// The log of a group that begins anew is gone, durably, and its term and vote are there.
    LogGivenUp { group: GroupId },
    /// A WAL segment was sealed: these groups should write checkpoints.
    Sealed { groups: Vec<GroupId> },
    /// How do these groups stand? Elections may be forced.
    Standings(StandingsRequest),
    /// Hand leadership of a group to this replica; answered when that has begun, or why not.
    HandOverOne { group: GroupId, to: ReplicaId, reply: oneshot::Sender<Result<(), String>> },
    /// Does this replica still lead a group, in this epoch? Answered when a majority has shown it; dropped if it does not.
    ConfirmLeadership { group: GroupId, epoch: i32, reply: oneshot::Sender<()> },
    /// How does a group that is led here stand?
    Quorum { group: GroupId, reply: oneshot::Sender<Option<QuorumStanding>> },
    /// Which producers does a partition remember?
    Producers { group: GroupId, reply: oneshot::Sender<Option<Vec<ProducerBatch>>> },
    /// Hand all leadership to others; answered when nothing is led any more that another replica could lead.
    HandOver { done: oneshot::Sender<()> },
    /// Write checkpoints of everything and stop; answered when they are in the WAL.
    Stop { done: oneshot::Sender<()> },
}

impl Shards {
    /// Mailboxes for `count` shards.
    pub(crate) fn new(count: usize) -> (Self, Mailboxes) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..count.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        (Self { mailboxes: senders.into() }, receivers)
    }

    /// Number of shards.
    pub(crate) fn count(&self) -> usize {
        self.mailboxes.len()
    }

    /// Which shard owns a group. All groups of a bucket are in one shard.
    pub(crate) fn shard_of(&self, group: GroupId) -> usize {
        self.shard_of_bucket(Bucket::of(group))
    }

    fn shard_of_bucket(&self, bucket: Bucket) -> usize {
        usize::from(bucket.0) % self.mailboxes.len()
    }

    /// Sends to the owner of a group. After the shards have ended nobody listens; what the message carries (replies, permits) is
    /// dropped, which answers whoever waits.
    pub(crate) fn send(&self, group: GroupId, message: ShardMessage) {
        self.send_to(self.shard_of(group), message);
    }

    fn send_to(&self, shard: usize, message: ShardMessage) {
        if self.mailboxes[shard].send(message).is_err() {
            tracing::debug!(shard, "a message came after the shard had stopped");
        }
    }

    /// Hands a batch to the owner of its partition.
    pub(crate) fn append(&self, request: AppendRequest) {
        self.send(request.group, ShardMessage::Append(request));
    }

    /// Lets the log of a partition start later, because a client wants it.
    pub(crate) fn move_log_start(&self, group: GroupId, request: LogStartRequest) {
        self.send(group, ShardMessage::DeleteRecords { group, request });
    }

    /// Proposes a metadata command on this node, and waits until it is applied or refused for lack of leadership.
    pub(crate) async fn propose_metadata(&self, command: Bytes) -> Proposed {
        let (reply, answer) = oneshot::channel();
        self.send(
            crate::controller::commands::METADATA_GROUP,
            ShardMessage::ProposeMetadata { command, reply },
        );
        answer.await.unwrap_or(Proposed::NotLeader)
    }

    /// Hands leadership of a group to another replica.
    ///
    /// # Errors
    /// When that has not begun: why, in words.
    pub(crate) async fn hand_over_one(&self, group: GroupId, to: ReplicaId) -> Result<(), String> {
        let (reply, answer) = oneshot::channel();
        self.send(group, ShardMessage::HandOverOne { group, to, reply });
        answer.await.unwrap_or_else(|_| Err("the node stops".to_owned()))
    }

    /// Whether this replica still leads a group in this epoch, and nobody else was elected before this was asked. It takes a round trip to a
    /// majority, which all share who ask at about the same time.
    pub(crate) async fn confirm_leadership(&self, group: GroupId, epoch: i32) -> bool {
        let (reply, confirmed) = oneshot::channel();
        self.send(group, ShardMessage::ConfirmLeadership { group, epoch, reply });
        confirmed.await.is_ok()
    }

    /// How a group that is led here stands.
    pub(crate) async fn quorum(&self, group: GroupId) -> Option<QuorumStanding> {
        let (reply, answer) = oneshot::channel();
        self.send(group, ShardMessage::Quorum { group, reply });
        answer.await.ok()?
    }

    /// The last batch of every producer that a partition remembers.
    pub(crate) async fn producers(&self, group: GroupId) -> Option<Vec<ProducerBatch>> {
        let (reply, answer) = oneshot::channel();
        self.send(group, ShardMessage::Producers { group, reply });
        answer.await.ok()?
    }

    pub(crate) fn create_partition(&self, wanted: WantedPartition) {
        self.send(wanted.group, ShardMessage::CreatePartition(wanted));
    }

    pub(crate) fn desire(&self, group: GroupId, replicas: Vec<ReplicaId>) {
        self.send(group, ShardMessage::Desired { group, replicas });
    }

    pub(crate) fn configure(&self, group: GroupId, config: Arc<TopicConfig>) {
        self.send(group, ShardMessage::Configure { group, config });
    }

    /// It is durable that data of this node need not be synced before it counts.
    pub(crate) fn relaxation_recorded(&self, shard: usize) {
        self.send_to(shard, ShardMessage::RelaxationRecorded);
    }

    pub(crate) fn delete_group(&self, group: GroupId) {
        self.send(group, ShardMessage::DeleteGroup(group));
    }

    /// Distributes what another node sent.
    pub(crate) fn peer_messages(&self, messages: Vec<Inbound>) {
        if let [one] = &messages[..] {
            let shard = self.shard_of(one.message.group);
            return self.send_to(shard, ShardMessage::Peer(messages));
        }
        let mut parts: Vec<Vec<Inbound>> = (0..self.count()).map(|_| Vec::new()).collect();
        for inbound in messages {
            parts[self.shard_of(inbound.message.group)].push(inbound);
        }
        for (shard, messages) in parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            self.send_to(shard, ShardMessage::Peer(messages));
        }
    }

    pub(crate) fn peer_liveness(&self, replica: ReplicaId, liveness: Liveness) {
        for shard in 0..self.count() {
            self.send_to(shard, ShardMessage::PeerLiveness { replica, liveness });
        }
    }

    pub(crate) fn peer_incarnation(&self, replica: ReplicaId, incarnation: Incarnation) {
        for shard in 0..self.count() {
            self.send_to(shard, ShardMessage::PeerIncarnation { replica, incarnation });
        }
    }

    pub(crate) fn wake(&self, replica: ReplicaId, bucket: Bucket) {
        self.send_to(self.shard_of_bucket(bucket), ShardMessage::Wake { replica, bucket });
    }

    /// Tells the owners of these groups that a segment with records of theirs was sealed.
    pub(crate) fn sealed(&self, groups: impl Iterator<Item = GroupId>) {
        let mut parts: Vec<Vec<GroupId>> = vec![Vec::new(); self.count()];
        for group in groups {
            parts[self.shard_of(group)].push(group);
        }
        for (shard, groups) in parts.into_iter().enumerate().filter(|(_, part)| !part.is_empty()) {
            self.send_to(shard, ShardMessage::Sealed { groups });
        }
    }

    /// Damaged entries of a group are back.
    pub(crate) fn repaired(&self, group: GroupId) {
        self.send(group, ShardMessage::Repaired { group });
    }

    /// Nobody who can be asked has the damaged entries of a group. It may be somebody who is down.
    pub(crate) fn not_repaired(&self, group: GroupId, index: Index) {
        self.send(group, ShardMessage::NotRepaired { group, index });
    }

    /// How groups stand, all of them or these. With `force`, elections begin in those that have no leader.
    pub(crate) async fn standings(&self, groups: Option<&BTreeSet<GroupId>>, force: bool) -> Vec<Standing> {
        let mut answers = Vec::with_capacity(self.count());
        for shard in 0..self.count() {
            let (reply, answer) = oneshot::channel();
            let request = StandingsRequest { groups: groups.cloned(), force, reply };
            self.send_to(shard, ShardMessage::Standings(request));
            answers.push(answer);
        }
        let mut standings = Vec::new();
        for answer in answers {
            standings.extend(answer.await.unwrap_or_default());
        }
        standings
    }

    /// Hands leadership over, everywhere. Returns when nothing more can be handed over.
    pub(crate) async fn hand_over(&self) {
        self.ask_all(|done| ShardMessage::HandOver { done }).await;
    }

    /// Stops all shards after they have written checkpoints.
    pub(crate) async fn stop(&self) {
        self.ask_all(|done| ShardMessage::Stop { done }).await;
    }

    async fn ask_all(&self, message: impl Fn(oneshot::Sender<()>) -> ShardMessage) {
        let mut answers = Vec::with_capacity(self.count());
        for shard in 0..self.count() {
            let (done, answer) = oneshot::channel();
            self.send_to(shard, message(done));
            answers.push(answer);
        }
        for answer in answers {
            if answer.await.is_err() {
                tracing::debug!("a shard ended before it answered");
            }
        }
    }
}
