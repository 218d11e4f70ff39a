//! The loop of a shard: take messages, let batches become entries, do what the groups ask for.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use helix_raft::{
    CommittedRange, Durability, GroupId, HardState, Incarnation, Index, Message, MultiRaft, ReplicaId,
    StepOutcome, Term, planted,
};
use helix_wal::{Payload, RecoveredGroup, SpaceClass, Wal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::error;

use super::anew::Anew;
use super::configure::Relaxation;
use super::recover::{Suspected, Unopened};
use super::replica::{Machine, PendingCommand, Replica};
use super::{ShardMessage, Shards};
use crate::broker::batcher::Gather;
use crate::broker::leaders::LeaderTable;
use crate::broker::partitions::PartitionTable;
use crate::broker::produce::{AppendError, AppendRequest};
use crate::cluster::ClusterLink;
use crate::config::live::LiveConfig;
use crate::controller::Proposed;
use crate::controller::image::ClusterImage;
use crate::durable::recovering::Finding;
use crate::durable::vote_writer::VoteWriter;
use crate::durable::votes::LoadedVotes;
use crate::entry::{Command, EntryTag};
use crate::env::{Env, Event, watch};
use crate::ops::fatal::Fatal;
use crate::ops::metrics::Metrics;
use crate::peers::board::ShardDigests;
use crate::peers::{Inbound, ReceivePermit};
use crate::repair::Repairs;

/// How often a shard looks at its timers.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Messages taken from the mailbox before the groups are driven.
const MESSAGES_PER_ROUND: usize = 256;

/// What a shard works with.
pub(crate) struct ShardContext {
    /// This node's replica id.
    pub(crate) me: ReplicaId,
    /// Which of its processes this is.
    pub(crate) incarnation: Incarnation,
    pub(crate) env: Env,
    pub(crate) config: Arc<LiveConfig>,
    /// Which shard this is.
    pub(crate) number: usize,
    /// How safely data entries must be stored before they count, unless their topic says otherwise.
    pub(crate) required: Durability,
    pub(crate) shards: Shards,
    pub(crate) wal: Wal,
    pub(crate) votes: Arc<VoteWriter>,
    pub(crate) loaded_votes: Arc<LoadedVotes>,
    pub(crate) cluster: ClusterLink,
    pub(crate) digests: ShardDigests,
    pub(crate) leaders: Arc<LeaderTable>,
    pub(crate) partitions: Arc<PartitionTable>,
    pub(crate) image: Arc<ArcSwap<ClusterImage>>,
    pub(crate) applied: watch::Sender<Index>,
    /// Groups whose log on this disk is suspect after a machine crash.
    pub(crate) recovering: Arc<crate::durable::recovering::Recovering>,
    /// Where it is recorded which logs are sound again, and which are given up.
    pub(crate) findings: mpsc::UnboundedSender<Finding>,
    /// Groups whose log, as the WAL holds it, can't be relied on at all.
    pub(crate) unusable: Arc<BTreeSet<GroupId>>,
    pub(crate) repairs: Repairs,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fatal: Fatal,
}

/// The owner of a shard's groups.
pub(crate) struct Owner {
    pub(super) context: ShardContext,
    pub(super) raft: MultiRaft<Command>,
    pub(super) replicas: BTreeMap<GroupId, Replica>,
    /// Replicas that are out of service while they begin anew.
    pub(super) anew: BTreeMap<GroupId, Anew>,
    /// Replicas that are opened once damaged entries are repaired.
    pub(super) unopened: BTreeMap<GroupId, Unopened>,
    /// Groups whose log ends at a damaged entry, since nobody could be found who has that.
    pub(super) to_cut: BTreeSet<GroupId>,
    /// Replicas that wait to be opened until it is durable that their log is suspect.
    pub(super) suspected: BTreeMap<GroupId, Suspected>,
    /// Committed entries that cannot be applied before they are repaired.
    pub(super) stalled: BTreeMap<GroupId, CommittedRange>,
    /// Replicas opened so far: tells apart those that a group had here one after the other.
    pub(super) lives: u64,
    /// What the WAL held at start of groups that the metadata has not asked for yet.
    pub(super) recovered: HashMap<GroupId, RecoveredGroup>,
    /// Partitions with batches that are not yet in an entry.
    pub(super) gathering: BTreeSet<GroupId>,
    /// What lies in the memory tails of this shard, oldest first, and its bytes.
    pub(super) tails: VecDeque<(GroupId, usize)>,
    pub(super) tail_bytes: usize,
    /// Inbound permits of messages whose entries are not stored yet; given to the next WAL append.
    pub(super) permits: Vec<ReceivePermit>,
    /// Groups whose members may not be those that the metadata wants.
    pub(super) unsettled: BTreeSet<GroupId>,
    /// How many of them the metrics show.
    pub(super) changing: usize,
    /// How far it is recorded that data of this node need not be synced before it counts.
    pub(super) relaxation: Relaxation,
    pub(super) handing_over: Option<oneshot::Sender<()>>,
    pub(super) ticks: u64,
}

impl Owner {
    /// A shard without groups.
    pub(crate) fn new(
        context: ShardContext,
        raft: MultiRaft<Command>,
        recovered: HashMap<GroupId, RecoveredGroup>,
    ) -> Self {
        Self {
            context,
            raft,
            replicas: BTreeMap::new(),
            anew: BTreeMap::new(),
            unopened: BTreeMap::new(),
            to_cut: BTreeSet::new(),
            suspected: BTreeMap::new(),
            stalled: BTreeMap::new(),
            lives: 0,
            recovered,
            gathering: BTreeSet::new(),
            tails: VecDeque::new(),
            tail_bytes: 0,
            permits: Vec::new(),
            unsettled: BTreeSet::new(),
            changing: 0,
            relaxation: Relaxation::default(),
            handing_over: None,
            ticks: 0,
        }
    }

    /// Runs until told to stop.
    pub(crate) async fn run(mut self, mut mailbox: mpsc::UnboundedReceiver<ShardMessage>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut messages = Vec::with_capacity(MESSAGES_PER_ROUND);
        let mut begun = Instant::now();
        loop {
            // First what came in is taken into account: an entry that it completes lets the next one go at once.
            self.drive();
            let linger_ends = self.flush_gathered();
            if self.raft.has_ready() {
                self.drive();
            }
            self.context.metrics.shard_round(begun.elapsed());
            let lingering = async {
                match linger_ends {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    begun = Instant::now();
                    self.on_tick();
                }
                received = mailbox.recv_many(&mut messages, MESSAGES_PER_ROUND) => {
                    if received == 0 {
                        return;
                    }
                    begun = Instant::now();
                    for message in messages.drain(..) {
                        if let ShardMessage::Stop { done } = message {
                            self.stop(done);
                            return;
                        }
                        self.on_message(message);
                    }
                }
                () = lingering => begun = Instant::now(),
            }
        }
    }

    fn on_message(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Peer(messages) => {
                for Inbound { message, permit } in messages {
                    let group = message.group;
                    self.guarded(group, |owner| owner.step(message));
                    self.permits.extend(permit);
                }
            }
            ShardMessage::Append(request) => self.on_append(request),
            ShardMessage::ProposeMetadata { command, reply } => self.on_propose_metadata(command, reply),
            ShardMessage::CreatePartition(wanted) => {
                let group = wanted.group;
                self.guarded(group, |owner| owner.create_partition(wanted));
            }
            ShardMessage::Desired { group, replicas } => self.on_desired(group, replicas),
            ShardMessage::Configure { group, config } => {
                self.guarded(group, |owner| owner.configure(group, &config));
            }
            ShardMessage::RelaxationRecorded => self.on_relaxation_recorded(),
            ShardMessage::DeleteGroup(group) => self.delete_group(group),
            ShardMessage::Stored { positions, durability } => self.on_stored(positions, durability),
            ShardMessage::VotePersisted { group, state } => {
                self.guarded(group, |owner| owner.on_promised(group, state));
            }
            ShardMessage::AppendFailed { group } => {
                self.guarded(group, |owner| owner.raft.append_failed(group));
            }
            ShardMessage::EntriesRead { group, to, from, prev_term, entries } => {
                self.guarded(group, |owner| owner.raft.entries_read(group, to, from, prev_term, entries));
            }
            ShardMessage::CommittedRead { group, life, range, entries } => {
                self.guarded(group, |owner| owner.on_committed_read(group, life, range, entries));
            }
            ShardMessage::StartInstalled { group, start } => {
                self.guarded(group, |owner| owner.on_start_installed(group, &start));
            }
            ShardMessage::PeerLiveness { replica, liveness } => {
                self.raft.peer_liveness(replica, liveness);
                self.publish_contacts();
            }
            ShardMessage::PeerIncarnation { replica, incarnation } => {
                self.raft.peer_incarnation(replica, incarnation);
            }
            ShardMessage::Wake { replica, bucket } => self.raft.wake(replica, bucket),
            ShardMessage::DeleteRecords { group, request } => {
                self.guarded(group, |owner| owner.on_delete_records(group, request));
            }
            ShardMessage::Retire { group, log_start } => {
                self.guarded(group, |owner| owner.on_retire(group, log_start));
            }
            ShardMessage::StartFound { group, life, index, base_offset } => {
                self.guarded(group, |owner| owner.on_start_found(group, life, index, base_offset));
            }
            ShardMessage::Repaired { group } => self.guarded(group, |owner| owner.on_repaired(group)),
            ShardMessage::NotRepaired { group, index } => {
                self.guarded(group, |owner| owner.on_not_repaired(group, index));
            }
            ShardMessage::MarkedRecovering { group } => {
                self.guarded(group, |owner| owner.on_marked_recovering(group));
            }
            ShardMessage::LogGivenUp { group } => {
                self.guarded(group, |owner| owner.on_log_given_up(group));
            }
            ShardMessage::LogStartRecorded { group, index, term } => {
                self.guarded(group, |owner| {
                    owner.context.env.show(group, &Event::LogStartMoved { index });
                    owner.raft.log_start_moved(group, index, term);
                });
            }
            ShardMessage::Sealed { groups } => self.checkpoint_groups(&groups),
            ShardMessage::Standings(request) => self.on_standings(request),
            // Whoever asked may have given up.
            ShardMessage::HandOverOne { group, to, reply } => {
                self.guarded(group, |owner| drop(reply.send(owner.hand_over_one(group, to))));
            }
            ShardMessage::ConfirmLeadership { group, epoch, reply } => self.confirm(group, epoch, reply),
            ShardMessage::Quorum { group, reply } => drop(reply.send(self.quorum(group))),
            ShardMessage::Producers { group, reply } => drop(reply.send(self.producers(group))),
            ShardMessage::HandOver { done } => self.hand_over(done),
            // Taken by the loop.
            ShardMessage::Stop { done } => self.stop(done),
        }
    }

    fn step(&mut self, message: Message<Command>) {
        let (group, kind) = (message.group, message.body.name());
        tracing::trace!(%group, kind, from = %message.from, term = %message.term, "a message from a peer");
        let outcome = self.raft.step(message);
        if outcome != StepOutcome::Handled {
            tracing::trace!(%group, kind, ?outcome, "a message from a peer was dropped");
        }
    }

    fn on_append(&mut self, request: AppendRequest) {
        let group = request.group;
        self.guarded(group, |owner| {
            // Without a replica the request is dropped, which answers that another node leads.
            if let Some(partition) = owner.replicas.get_mut(&group).and_then(Replica::partition) {
                partition.gather(request, Instant::now());
                owner.gathering.insert(group);
            }
        });
    }

    fn on_propose_metadata(&mut self, command: Bytes, reply: oneshot::Sender<Proposed>) {
        let group = crate::controller::commands::METADATA_GROUP;
        self.guarded(group, |owner| {
            let Some(replica) = owner.replicas.get_mut(&group) else { return };
            let payload = Payload::from_chunks(vec![command]);
            if owner.context.wal.check_space(payload.len() as u64, SpaceClass::Critical).is_err() {
                // Nobody is answered: the submitter tries again until its time is up.
                return;
            }
            let command = Command::without_offsets(EntryTag::Metadata, replica.track.next_offset(), payload);
            // An error drops the reply: not the leader.
            if let Ok((index, term)) = owner.raft.propose(group, command)
                && let Machine::Metadata(metadata) = &mut replica.machine
            {
                metadata.pending.push_back(PendingCommand { index, term, reply });
            }
        });
    }

    /// Lets gathered batches become entries where they are due. Returns when to look again.
    fn flush_gathered(&mut self) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let now = Instant::now();
        for group in std::mem::take(&mut self.gathering) {
            self.guarded(group, |owner| {
                if owner.poll_gathered(group, now) == Gather::Flush {
                    owner.flush(group, now);
                }
                // What did not fit into the entry waits for the next one.
                let due = match owner.poll_gathered(group, now) {
                    Gather::Empty => return,
                    Gather::Until(due) => due,
                    Gather::Flush => now,
                };
                next = Some(next.map_or(due, |n| n.min(due)));
                owner.gathering.insert(group);
            });
        }
        next
    }

    fn poll_gathered(&mut self, group: GroupId, now: Instant) -> Gather {
        let partition = self.replicas.get_mut(&group).and_then(Replica::partition);
        partition.map_or(Gather::Empty, |partition| partition.poll(now))
    }

    /// Makes one entry of a partition's gathered batches and proposes it.
    fn flush(&mut self, group: GroupId, now: Instant) {
        let Some(replica) = self.replicas.get_mut(&group) else { return };
        let (index, next_offset) = (replica.track.last_index().next(), replica.track.next_offset());
        let Some(partition) = replica.partition() else { return };
        // An entry is at most a full batch and one request more; asking for that much costs nothing.
        let config = self.context.config.get();
        let most = config.batch_max_bytes + config.message_max_bytes;
        if self.context.wal.check_space(most as u64, SpaceClass::Normal).is_err() {
            partition.refuse_gathered(&AppendError::DiskFull, now);
            return;
        }
        let Some(term) = partition.serving_term() else {
            partition.refuse_gathered(&AppendError::NotLeader, now);
            return;
        };
        // While leadership is on its way to another replica nothing new is appended. What was appended before is still
        // answered by its own outcome: refusing that too would make clients send again what is about to commit. And the
        // transfer may be given up: then this replica goes on serving.
        if self.raft.transferring_to(group).is_some() && !planted("transfer-ends-serving") {
            partition.refuse_gathered(&AppendError::NotLeader, now);
            return;
        }
        let Some(prepared) = partition.prepare(index, term, next_offset, now) else { return };
        let batches = prepared.batches;
        let (command, waiting) = prepared.into_parts();
        let command = command.appended_at(self.context.env.unix_ms());
        self.context.metrics.entry_proposed(command.payload.len(), batches);
        match self.raft.propose(group, command) {
            Ok((at, in_term)) => {
                assert_eq!((at, in_term), (index, term), "an entry must lie where its offsets were given");
                partition.proposed(index, term, waiting);
            }
            Err(refused) => {
                tracing::debug!(%group, %refused, "leadership went while a batch was prepared");
                partition.stop_serving(term);
            }
        }
    }

    fn on_promised(&mut self, group: GroupId, state: HardState) {
        self.context.env.show(group, &Event::Promised(state));
        self.raft.hard_state_persisted(group, state);
    }

    fn on_stored(&mut self, positions: Vec<(GroupId, Index, Term)>, durability: Durability) {
        for (group, index, term) in positions {
            self.guarded(group, |owner| {
                owner.context.env.show(group, &Event::Stored { index, term, durability });
                owner.raft.appended(group, index, term, durability);
                if let Some(partition) = owner.replicas.get_mut(&group).and_then(Replica::partition) {
                    partition.stored(index, term);
                }
            });
        }
    }

    /// Runs what concerns one group. A panic in there is a bug, and it ends that group on this node, not the node.
    pub(super) fn guarded(&mut self, group: GroupId, work: impl FnOnce(&mut Self)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(self))) {
            self.context.metrics.panic_caught();
            let reason = panic_text(panic.as_ref());
            self.fail_group(group, &reason);
        }
    }

    /// Takes a group out of service on this node. Its other replicas go on without this one.
    pub(super) fn fail_group(&mut self, group: GroupId, reason: &str) {
        self.context.env.show(group, &Event::Failed(reason));
        error!(%group, reason, "this replica is out of service until the node restarts");
        self.take_out(group);
        if group == crate::controller::commands::METADATA_GROUP {
            self.context.fatal.report(format!("the metadata group failed: {reason}"));
        }
    }

    /// Ends whatever a replica does here.
    pub(super) fn take_out(&mut self, group: GroupId) -> Option<Replica> {
        self.raft.remove_group(group);
        self.anew.remove(&group);
        self.suspected.remove(&group);
        self.unopened.remove(&group);
        self.stalled.remove(&group);
        self.gathering.remove(&group);
        self.context.partitions.remove(group);
        self.tails.retain(|(of, bytes)| {
            let other = *of != group;
            self.tail_bytes -= if other { 0 } else { *bytes };
            other
        });
        let mut replica = self.replicas.remove(&group)?;
        replica.stop_serving(replica.applied_term);
        Some(replica)
    }

    fn on_tick(&mut self) {
        self.raft.tick();
        self.ticks += 1;
        self.upkeep();
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}
