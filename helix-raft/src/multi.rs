//! Many groups with one owner. Only groups for which time matters are ticked, and only groups to which something
//! happened are asked what they want done.

use crate::planted::planted;
use std::collections::{BTreeMap, BTreeSet};

use crate::config::{
    AddGroupError, ConfirmError, GroupOptions, MultiRaftConfig, ProposeError, TransferError,
};
use crate::digest::{Contribution, Digests};
use crate::group::{Group, Standing};
use crate::membership::ChangeError;
use crate::message::{Message, Start};
use crate::peers::{Context, Liveness, Seen};
use crate::ready::{Ready, Status};
use crate::recovering::ForceRecoverError;
use crate::types::{
    BUCKETS, Bucket, Durability, Entry, GroupId, HardState, Incarnation, Index, Membership, Payload,
    Position, ReplicaId, Term,
};

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// Its group has looked at it.
    Handled,
    /// There is no such group here.
    UnknownGroup,
    /// It is for another replica.
    NotForMe,
    /// It comes from, or is for, a process that is gone.
    OldIncarnation,
}

#[derive(Debug)]
struct Slot<P> {
    group: Group<P>,
    /// Waits in the queue for `take_ready`.
    queued: bool,
    /// What the contribution was made from.
    standing: Option<Standing>,
    contribution: Contribution,
    /// Whose nodes matter to this group, as they stand in the index by replica.
    shared_with: Vec<ReplicaId>,
    tail_bytes: usize,
    last_used: u64,
}

/// The consensus groups of one shard.
#[derive(Debug)]
pub struct MultiRaft<P> {
    cx: Context,
    slots: BTreeMap<GroupId, Slot<P>>,
    /// Groups for which time matters.
    active: BTreeSet<GroupId>,
    /// Groups to which something happened since `take_ready`.
    dirty: Vec<GroupId>,
    /// Groups by the other replicas in them.
    shared: BTreeMap<(ReplicaId, Bucket), BTreeSet<GroupId>>,
    digests: Digests,
    tail_bytes: usize,
    /// Groups with entries in memory, least recently used first.
    tails: BTreeSet<(u64, GroupId)>,
    uses: u64,
    ticks_visited: u64,
}

impl<P: Payload> MultiRaft<P> {
    /// An empty set of groups.
    pub fn new(config: MultiRaftConfig) -> MultiRaft<P> {
        MultiRaft {
            cx: Context::new(config),
            slots: BTreeMap::new(),
            active: BTreeSet::new(),
            dirty: Vec::new(),
            shared: BTreeMap::new(),
            digests: Digests::default(),
            tail_bytes: 0,
            tails: BTreeSet::new(),
            uses: 0,
            ticks_visited: 0,
        }
    }

    /// The settings it was created with.
    pub const fn config(&self) -> &MultiRaftConfig {
        &self.cx.config
    }

    // ------------------------------------------------------------------------------------------------------------
    // Groups

    /// Adds a group as it was recovered, or a new one.
    ///
    /// # Errors
    ///
    /// If it is here already, or if `options` contradict themselves.
    pub fn add_group(&mut self, id: GroupId, options: GroupOptions<P>) -> Result<(), AddGroupError> {
        if self.slots.contains_key(&id) {
            return Err(AddGroupError::Exists(id));
        }
        let group = Group::open(&self.cx, id, options)?;
        let slot = Slot {
            group,
            queued: false,
            standing: None,
            contribution: Contribution::default(),
            shared_with: Vec::new(),
            tail_bytes: 0,
            last_used: 0,
        };
        self.slots.insert(id, slot);
        self.settle(id);
        Ok(())
    }

    /// Forgets a group. What the driver still reports about it is ignored.
    pub fn remove_group(&mut self, id: GroupId) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.active.remove(&id);
        self.tails.remove(&(slot.last_used, id));
        self.tail_bytes -= slot.tail_bytes;
        self.digests.replace(id, &slot.contribution, &Contribution::default());
        for replica in slot.shared_with {
            self.unshare(replica, id);
        }
    }

    /// The ids of all groups.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.slots.keys().copied()
    }

    /// A look at a group.
    pub fn status(&self, id: GroupId) -> Option<Status> {
        self.slots.get(&id).map(|slot| slot.group.status(&self.cx))
    }

    /// Whether a replica follows a leader that is heard, with a log that is not suspect: what it knows to be committed it may show.
    pub fn follows(&self, id: GroupId) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.group.follows(&self.cx))
    }

    /// Runs `act` on a group and notes what changed by it.
    fn with<R>(&mut self, id: GroupId, act: impl FnOnce(&mut Group<P>, &Context) -> R) -> Option<R> {
        let slot = self.slots.get_mut(&id)?;
        let result = act(&mut slot.group, &self.cx);
        self.settle(id);
        Some(result)
    }

    /// Brings everything that is kept over all groups in line with group `id`, which may have changed.
    fn settle(&mut self, id: GroupId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if !slot.queued {
            slot.queued = true;
            self.dirty.push(id);
        }
        if slot.group.is_active(&self.cx) {
            self.active.insert(id);
        } else {
            self.active.remove(&id);
        }
        let standing = slot.group.standing();
        if slot.standing != Some(standing) {
            slot.standing = Some(standing);
            let contribution = slot.group.contribution(&self.cx);
            self.digests.replace(id, &slot.contribution, &contribution);
            slot.contribution = contribution;
            self.settle_audience(id);
        }
        self.settle_tail(id);
    }

    fn settle_tail(&mut self, id: GroupId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let bytes = slot.group.log().tail_bytes();
        if bytes == slot.tail_bytes {
            return;
        }
        self.tails.remove(&(slot.last_used, id));
        if bytes > slot.tail_bytes {
            self.uses += 1;
            slot.last_used = self.uses;
        }
        if bytes > 0 {
            self.tails.insert((slot.last_used, id));
        }
        self.tail_bytes = self.tail_bytes + bytes - slot.tail_bytes;
        slot.tail_bytes = bytes;
    }

    fn settle_audience(&mut self, id: GroupId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        let audience = slot.group.audience(&self.cx);
        let before = std::mem::replace(&mut slot.shared_with, audience.clone());
        for replica in before.iter().filter(|replica| !audience.contains(replica)) {
            self.unshare(*replica, id);
        }
        for replica in audience {
            self.shared.entry((replica, Bucket::of(id))).or_default().insert(id);
        }
    }

    fn unshare(&mut self, replica: ReplicaId, id: GroupId) {
        let key = (replica, Bucket::of(id));
        if let Some(groups) = self.shared.get_mut(&key) {
            groups.remove(&id);
            if groups.is_empty() {
                self.shared.remove(&key);
            }
        }
    }

    fn shared_with(&self, replica: ReplicaId) -> Vec<GroupId> {
        let of_replica = (replica, Bucket(0))..=(replica, Bucket(BUCKETS - 1));
        self.shared.range(of_replica).flat_map(|(_, groups)| groups).copied().collect()
    }

    // ------------------------------------------------------------------------------------------------------------
    // Input

    /// Takes a message of another replica.
    pub fn step(&mut self, message: Message<P>) -> StepOutcome {
        if message.to != self.cx.me() {
            return StepOutcome::NotForMe;
        }
        let mine = self.cx.config.incarnation;
        // Whoever a message is for, who it is from is news.
        self.peer_incarnation(message.from, message.from_incarnation);
        if message.to_incarnation != Incarnation::UNKNOWN && message.to_incarnation != mine {
            return StepOutcome::OldIncarnation;
        }
        if !planted("old-incarnation") && message.from_incarnation < self.cx.incarnation_of(message.from) {
            return StepOutcome::OldIncarnation;
        }
        match self.with(message.group, |group, cx| group.step(cx, message)) {
            Some(()) => StepOutcome::Handled,
            None => StepOutcome::UnknownGroup,
        }
    }

    /// Appends `payload` to the log of a group led from here. Returns the index and term that it got; it is committed
    /// once an entry with that index and that term is handed out for apply.
    ///
    /// # Errors
    ///
    /// If this replica does not lead the group, or is handing it over.
    pub fn propose(&mut self, id: GroupId, payload: P) -> Result<(Index, Term), ProposeError> {
        let position =
            self.with(id, |group, _| group.propose(payload)).ok_or(ProposeError::UnknownGroup(id))??;
        Ok((position.index, position.term))
    }

    /// Makes sure that this replica still leads a group (Raft thesis, 6.4). Once [`Ready::confirmed`] has the number that is returned, or a
    /// higher one, in this leadership, nobody else was elected before this call. A leader that is ready had then everything that was
    /// committed before this call: what is read from its state machine is not old. All calls until a round begins share it. If
    /// `Ready::role_changed` comes first, the call has come to nothing.
    ///
    /// # Errors
    ///
    /// If this replica does not lead the group.
    pub fn confirm_leadership(&mut self, id: GroupId) -> Result<u64, ConfirmError> {
        self.with(id, |group, _| group.confirm_leadership()).ok_or(ConfirmError::UnknownGroup(id))?
    }

    /// From here on entries of a group count, on its leader, once they are stored so safely; that holds for what is appended and not
    /// committed too. Returns whether that is news; a leader may have appended an entry then.
    pub fn set_required(&mut self, id: GroupId, required: Durability) -> bool {
        self.with(id, |group, cx| group.set_required(cx, required)).unwrap_or(false)
    }

    /// Hands leadership of a group to `to`, as soon as that holds the whole log. Proposals are refused meanwhile; it is
    /// given up after an election timeout.
    ///
    /// # Errors
    ///
    /// If this replica does not lead the group, or `to` cannot.
    pub fn transfer_leadership(&mut self, id: GroupId, to: ReplicaId) -> Result<(), TransferError> {
        self.with(id, |group, cx| group.transfer_leadership(cx, to)).ok_or(TransferError::UnknownGroup(id))?
    }

    /// Changes the members of a group led from here to `target` (which has no outgoing voters). Returns where the first
    /// configuration on the way is appended: a joint one if voters change, which the leader, this or a later one, leaves by
    /// itself once it is committed. [`Ready::membership`] tells when. A new voter has to be a learner first; a leader that is
    /// not among the voters hands over at the end.
    ///
    /// # Errors
    ///
    /// If this replica does not lead the group, the last change is not through, or a new voter is not fit yet: all of these
    /// pass with time, but for a target that makes no configuration.
    pub fn change_membership(&mut self, id: GroupId, target: &Membership) -> Result<Index, ChangeError> {
        self.with(id, |group, cx| group.change_membership(cx, target)).ok_or(ChangeError::UnknownGroup(id))?
    }

    /// The configuration of a group as of `index`, if its log reaches there: what belongs into a `Start` or a
    /// checkpoint of that index.
    pub fn membership_at(&self, id: GroupId, index: Index) -> Option<Membership> {
        self.slots.get(&id)?.group.membership_at(index).cloned()
    }

    /// Whether the configuration in force excludes this replica and is committed. If it is not wanted any more either, its
    /// log of the group may be deleted: now and not later, since it may be added again, or be on its way to be. Its term and
    /// vote have to stay as long as the group exists.
    pub fn is_removed(&self, id: GroupId) -> bool {
        self.slots.get(&id).is_some_and(|slot| slot.group.is_removed(&self.cx))
    }

    /// Starts an election, beginning with a pre-vote.
    pub fn campaign(&mut self, id: GroupId) {
        self.with(id, |group, cx| group.campaign_on_request(cx));
    }

    /// Starts an election that takes a plain majority, recovering replicas included: for a group that has lost a voter along
    /// with its majority of sound ones, and that would wait for that voter for ever. What only the missing voters hold is
    /// lost, acknowledged or not. To be called on the one replica whose log holds the most (`Status::last_index`, by term first):
    /// one that holds more refuses its vote. If there is a leader that does not become ready, on that. Whether it succeeds is seen by `Ready::role_changed`.
    ///
    /// # Errors
    ///
    /// If this replica is no voter of the group, or the group has a leader.
    pub fn force_recover(&mut self, id: GroupId) -> Result<(), ForceRecoverError> {
        self.with(id, |group, cx| group.force_recover(cx)).ok_or(ForceRecoverError::UnknownGroup(id))?
    }

    /// Time passes, for the groups for which that matters.
    pub fn tick(&mut self) {
        let active: Vec<GroupId> = self.active.iter().copied().collect();
        for id in active {
            self.ticks_visited += 1;
            self.with(id, |group, cx| group.tick(cx));
        }
    }

    /// How many groups ticks have visited so far: what the passing of time costs.
    pub const fn ticks_visited(&self) -> u64 {
        self.ticks_visited
    }

    /// How many groups the next tick visits.
    pub fn active_groups(&self) -> usize {
        self.active.len()
    }

    // ------------------------------------------------------------------------------------------------------------
    // Reports of the driver

    /// `Ready::hard_state` is durable.
    pub fn hard_state_persisted(&mut self, id: GroupId, persisted: HardState) {
        self.with(id, |group, cx| group.hard_state_persisted(cx, persisted));
    }

    /// Everything given out so far up to (`index`, `term`) is stored that durably. Called for each `Ready::append` and
    /// `Ready::sync`, in the order in which they completed. A report about entries that have been replaced meanwhile
    /// does no harm.
    pub fn appended(&mut self, id: GroupId, index: Index, term: Term, durability: Durability) {
        self.with(id, |group, cx| group.appended(cx, Position::new(index, term), durability));
    }

    /// A write failed (the disk is full), and so does everything of the group that was given out after it: a leader
    /// steps down, and entries that are not stored leave the log.
    pub fn append_failed(&mut self, id: GroupId) {
        self.with(id, |group, cx| group.append_failed(cx));
    }

    /// Answers `Ready::committed_to_read`: entries up to `through` have been read and applied.
    pub fn committed_read(&mut self, id: GroupId, through: Index) {
        self.with(id, |group, _| group.committed_read(through));
    }

    /// Answers one of `Ready::reads`; with no entries if they cannot be read.
    pub fn entries_read(
        &mut self,
        id: GroupId,
        to: ReplicaId,
        from: Index,
        prev_term: Term,
        entries: Vec<Entry<P>>,
    ) {
        self.with(id, |group, cx| group.entries_read(cx, to, from, prev_term, entries));
    }

    /// Answers one of `Ready::need_start`.
    pub fn start_provided(&mut self, id: GroupId, to: ReplicaId, start: Start<P>) {
        self.with(id, |group, cx| group.start_provided(cx, to, start));
    }

    /// `Ready::install` is durable, in place of log and state: both begin after (`index`, `term`) now.
    pub fn start_installed(&mut self, id: GroupId, index: Index, term: Term) {
        self.with(id, |group, cx| group.start_installed(cx, Position::new(index, term)));
    }

    /// The log begins after (`index`, `term`) now; what lies before may be gone from the WAL.
    pub fn log_start_moved(&mut self, id: GroupId, index: Index, term: Term) {
        self.with(id, |group, _| group.log_start_moved(Position::new(index, term)));
    }

    // ------------------------------------------------------------------------------------------------------------
    // The other nodes

    /// Whether the node of `replica` is there has changed. Nodes of which nothing was said count as live.
    pub fn peer_liveness(&mut self, replica: ReplicaId, liveness: Liveness) {
        let before = self.cx.set_liveness(replica, liveness);
        for id in self.shared_with(replica) {
            self.with(id, |group, cx| {
                if before.round_trip != liveness.round_trip {
                    group.round_trip_changed(cx);
                }
                if before.heard != liveness.heard {
                    group.heard_changed(cx, replica);
                }
            });
        }
    }

    /// The node of `replica` runs as `incarnation`. A change ends all its leaderships.
    pub fn peer_incarnation(&mut self, replica: ReplicaId, incarnation: Incarnation) {
        if self.cx.see_incarnation(replica, incarnation) == Seen::Restarted {
            for id in self.shared_with(replica) {
                self.with(id, |group, cx| group.restarted(cx, replica, incarnation));
            }
        }
    }

    /// The digests of a bucket differ between this node and that of `replica`: makes sure of all groups of the bucket that
    /// both share, by a heartbeat where this replica leads and by a running election timer where the other one does.
    pub fn wake(&mut self, replica: ReplicaId, bucket: Bucket) {
        let groups = self.shared.get(&(replica, bucket));
        let groups: Vec<GroupId> = groups.into_iter().flatten().copied().collect();
        for id in groups {
            self.with(id, |group, cx| group.wake(cx, replica));
        }
    }

    /// Digest of the groups of a bucket that are led from here and of which `to` is a member.
    pub fn led_digest(&self, to: ReplicaId, bucket: Bucket) -> u64 {
        self.digests.led(to, bucket)
    }

    /// Digest of the groups of a bucket that `leader` leads, as far as is known here.
    pub fn followed_digest(&self, leader: ReplicaId, bucket: Bucket) -> u64 {
        self.digests.followed(leader, bucket)
    }

    // ------------------------------------------------------------------------------------------------------------
    // Output

    /// What there is to do, for the groups to which something happened.
    pub fn take_ready(&mut self) -> Vec<(GroupId, Ready<P>)> {
        let mut result = Vec::new();
        for id in std::mem::take(&mut self.dirty) {
            let Some(ready) = self.with(id, |group, cx| group.take_ready(cx)) else { continue };
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.queued = false;
            }
            if !ready.is_empty() {
                result.push((id, ready));
            }
        }
        result
    }

    /// Whether `take_ready` has anything to look at.
    pub fn has_ready(&self) -> bool {
        !self.dirty.is_empty()
    }

    // ------------------------------------------------------------------------------------------------------------
    // Memory

    /// The entries of a group from `from` on, as far as they are in memory.
    pub fn tail_entries(&self, id: GroupId, from: Index) -> Vec<Entry<P>> {
        self.slots.get(&id).map_or_else(Vec::new, |slot| {
            let log = slot.group.log();
            log.slice(from.max(log.tail_first()), log.last().index, usize::MAX)
        })
    }

    /// Term of the entry at `index`, in memory or not, if the log reaches there.
    pub fn term_at(&self, id: GroupId, index: Index) -> Option<Term> {
        self.slots.get(&id)?.group.log().term_at(index)
    }

    /// The newest incarnation of a replica that has been heard of here; this process's own of its own.
    pub fn incarnation_of(&self, replica: ReplicaId) -> Incarnation {
        if replica == self.cx.me() { self.cx.config.incarnation } else { self.cx.incarnation_of(replica) }
    }

    /// Up to where the log of a group is known to be committed.
    pub fn committed(&self, id: GroupId) -> Option<Index> {
        Some(self.slots.get(&id)?.group.log().committed())
    }

    /// Bytes of entries in memory, over all groups.
    pub const fn tail_bytes(&self) -> u64 {
        self.tail_bytes as u64
    }

    /// Drops stored and applied entries from memory until the budget is kept, least recently used groups first.
    pub fn trim_tails(&mut self) {
        if self.tail_bytes <= self.cx.config.max_tail_bytes {
            return;
        }
        let by_use: Vec<GroupId> = self.tails.iter().map(|(_, id)| *id).collect();
        for id in by_use {
            let excess = self.tail_bytes.saturating_sub(self.cx.config.max_tail_bytes);
            if excess == 0 {
                break;
            }
            if let Some(slot) = self.slots.get_mut(&id) {
                slot.group.trim_tail(excess);
            }
            self.settle_tail(id);
        }
    }
}
