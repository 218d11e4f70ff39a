//! One replica: its process, while it runs, and the driver's side of the contract.

use std::collections::{BTreeMap, VecDeque};

use helix_raft::{
    CommittedRange, Durability, Entry, GroupId, GroupOptions, HardState, HeartbeatEvent, HeartbeatOptions,
    Heartbeats, Incarnation, Index, Membership, Message, MultiRaft, MultiRaftConfig, ReadRequest, Ready,
    ReplicaId, Start,
};

use crate::checker::Checker;
use crate::disk::{GroupDisk, Payload, Report, WalOp};
use crate::rng::Rng;

pub(crate) const TICK_MS: u64 = 50;
pub(crate) const ELECTION_TICKS: u32 = 10;

/// The application's side of one group in a running process.
#[derive(Debug, Default)]
struct Application {
    applied: Index,
    state: u64,
    reads: VecDeque<ReadRequest>,
    committed_reads: VecDeque<CommittedRange>,
    starts: VecDeque<ReplicaId>,
    /// Rounds in which leadership is to be confirmed, and what was committed somewhere, and not known here, when that was asked.
    confirming: VecDeque<(u64, Option<Index>)>,
}

pub(crate) struct Process {
    pub(crate) raft: MultiRaft<Payload>,
    pub(crate) heartbeats: Heartbeats,
    apps: BTreeMap<GroupId, Application>,
}

pub(crate) struct Node {
    pub(crate) id: ReplicaId,
    pub(crate) incarnation: u64,
    pub(crate) clock_ms: u64,
    pub(crate) disks: BTreeMap<GroupId, GroupDisk>,
    pub(crate) process: Option<Process>,
    /// Term and vote in groups whose log was deleted here.
    kept_votes: BTreeMap<GroupId, HardState>,
    /// Its disk is gone for good.
    pub(crate) lost: bool,
    pub(crate) diverged: u64,
    pub(crate) unclean: u64,
    pub(crate) confirmed: u64,
    /// How often a leader was asked that was deposed and did not know.
    pub(crate) deposed_asked: u64,
}

/// Groups with an even id demand a sync.
pub(crate) fn required(group: GroupId) -> Durability {
    if group.get().is_multiple_of(2) { Durability::Synced } else { Durability::PageCache }
}

impl Node {
    pub(crate) fn new(id: ReplicaId, groups: &[GroupId], members: &Membership) -> Node {
        let disks = groups.iter().map(|group| (*group, GroupDisk::new(members))).collect();
        Node {
            id,
            incarnation: 0,
            clock_ms: 0,
            disks,
            process: None,
            kept_votes: BTreeMap::new(),
            lost: false,
            diverged: 0,
            unclean: 0,
            confirmed: 0,
            deposed_asked: 0,
        }
    }

    pub(crate) fn start(&mut self, peers: &[ReplicaId], rng: &mut Rng, checker: &mut Checker) {
        self.incarnation += 1;
        let incarnation = Incarnation(self.incarnation);
        let mut config = MultiRaftConfig::new(self.id, incarnation, rng.next());
        config.election_timeout_ticks = ELECTION_TICKS;
        config.max_append_bytes = 1000;
        config.max_inflight_bytes = 3000;
        config.max_tail_bytes = 4000;
        let raft = MultiRaft::new(config);
        let timeout_ms = TICK_MS * u64::from(ELECTION_TICKS);
        let mut heartbeats = Heartbeats::new(HeartbeatOptions {
            me: self.id,
            incarnation,
            interval_ms: timeout_ms / 5,
            timeout_ms,
        });
        for peer in peers.iter().filter(|peer| **peer != self.id) {
            heartbeats.add_peer(self.clock_ms, *peer);
        }
        self.process = Some(Process { raft, heartbeats, apps: BTreeMap::new() });
        for group in self.disks.keys().copied().collect::<Vec<_>>() {
            self.open(group, rng, checker);
        }
    }

    /// Adds a group to the process with what its disk holds.
    fn open(&mut self, group: GroupId, rng: &mut Rng, checker: &mut Checker) {
        let Some(process) = &mut self.process else { return };
        let disk = &self.disks[&group];
        let options: GroupOptions<Payload> = disk.options(required(group), rng);
        let (applied, state) = disk.log.checkpoint;
        process.apps.insert(group, Application { applied, state, ..Application::default() });
        process.raft.add_group(group, options).expect("the disk is consistent");
        checker.process_started(group, self.id);
    }

    /// This node is to have a replica of the group: an empty one, that waits for a leader.
    pub(crate) fn join(&mut self, group: GroupId, rng: &mut Rng, checker: &mut Checker) {
        if !self.lost && !self.disks.contains_key(&group) {
            self.begin(group, false, rng, checker);
        }
    }

    fn begin(&mut self, group: GroupId, recovering: bool, rng: &mut Rng, checker: &mut Checker) {
        let mut disk = GroupDisk::new(&Membership::default());
        disk.hard = self.kept_votes.remove(&group).unwrap_or_default();
        disk.recovering = recovering;
        self.disks.insert(group, disk);
        self.open(group, rng, checker);
    }

    /// Deletes the log of a group, but not the vote.
    pub(crate) fn delete(&mut self, group: GroupId, checker: &mut Checker) {
        if let Some(disk) = self.disks.remove(&group) {
            self.kept_votes.insert(group, disk.hard);
            checker.log_deleted(group, self.id);
        }
        if let Some(process) = &mut self.process {
            process.apps.remove(&group);
            process.raft.remove_group(group);
        }
    }

    pub(crate) fn is_removed(&self, group: GroupId) -> bool {
        self.process.as_ref().is_some_and(|process| process.raft.is_removed(group))
    }

    /// Begins anew where the others have lost what was committed here.
    fn begin_anew(&mut self, group: GroupId, rng: &mut Rng, checker: &mut Checker) {
        assert!(
            checker.has_lost(group),
            "nothing was lost in {group}, and yet {} has another history",
            self.id
        );
        self.diverged += 1;
        self.delete(group, checker);
        self.begin(group, true, rng, checker);
    }

    pub(crate) fn crash(&mut self, power: bool, rng: &mut Rng, checker: &mut Checker) {
        self.process = None;
        for (group, disk) in &mut self.disks {
            disk.crash(rng);
            checker.log_written(*group, self.id, disk);
            if power {
                disk.lose_power(required(*group), rng);
                checker.log_written(*group, self.id, disk);
            }
        }
    }

    /// The disk is gone, and with it this replica id.
    pub(crate) fn lose_disk(&mut self) {
        self.process = None;
        self.lost = true;
        self.disks.clear();
    }

    /// Passes on what the heartbeats found out.
    pub(crate) fn deliver_events(&mut self) {
        let Some(process) = &mut self.process else { return };
        for event in process.heartbeats.take_events() {
            match event {
                HeartbeatEvent::Liveness(replica, liveness) => process.raft.peer_liveness(replica, liveness),
                HeartbeatEvent::Incarnation(replica, incarnation) => {
                    process.raft.peer_incarnation(replica, incarnation);
                }
            }
        }
    }

    /// Does what the core wants done, as far as it can be done at once; the rest is queued.
    pub(crate) fn drive(&mut self, rng: &mut Rng, checker: &mut Checker) -> Vec<Message<Payload>> {
        let (mut messages, mut diverged) = (Vec::new(), Vec::new());
        let Some(process) = &mut self.process else { return messages };
        for (group, ready) in process.raft.take_ready() {
            let disk = self.disks.get_mut(&group).expect("every group has a disk");
            let app = process.apps.get_mut(&group).expect("every group has an application");
            diverged.extend(ready.diverged.map(|_| group));
            self.confirmed += app.confirmed(group, &ready);
            take(group, disk, app, ready, checker, &mut messages, &mut self.unclean);
        }
        for (group, app) in &process.apps {
            let status = process.raft.status(*group).expect("the group is here");
            assert!(status.applied >= app.applied, "applied more than was handed out");
        }
        for group in diverged {
            self.begin_anew(group, rng, checker);
        }
        messages
    }

    pub(crate) fn check(&self, group: GroupId, checker: &mut Checker) {
        let Some(process) = &self.process else { return };
        let Some(status) = process.raft.status(group) else { return };
        checker.status(group, self.id, required(group), &status, |index| process.raft.term_at(group, index));
    }

    /// Asks whether this replica still leads the group, if it could serve clients.
    pub(crate) fn confirm(&mut self, group: GroupId, checker: &Checker) {
        let Some(process) = &mut self.process else { return };
        let Some(status) = process.raft.status(group).filter(|status| status.leader_ready) else { return };
        let app = process.apps.get_mut(&group).expect("every group has an application");
        let committed = checker.last_committed.get(&group).copied();
        let round = process.raft.confirm_leadership(group).expect("it leads");
        app.confirming.push_back((round, committed.filter(|index| *index > status.commit)));
    }

    /// Asks a leader that lacks what is committed, once: chance hardly ever does in time.
    pub(crate) fn confirm_if_deposed(&mut self, group: GroupId, checker: &Checker) {
        let Some(process) = &self.process else { return };
        let Some(status) = process.raft.status(group).filter(|status| status.leader_ready) else { return };
        let is_behind = checker.last_committed.get(&group).is_some_and(|index| *index > status.commit);
        let is_asked = process.apps[&group].confirming.iter().any(|(_, unknown)| unknown.is_some());
        if is_behind && !is_asked {
            self.deposed_asked += 1;
            self.confirm(group, checker);
        }
    }

    /// How many questions for the leadership of a group are open.
    pub(crate) fn unconfirmed(&self, group: GroupId) -> usize {
        let app = self.process.as_ref().and_then(|process| process.apps.get(&group));
        app.map_or(0, |app| app.confirming.len())
    }

    pub(crate) fn complete(&mut self, group: GroupId, hard: bool, checker: &mut Checker) -> bool {
        let Some(disk) = self.disks.get_mut(&group) else { return false };
        if hard {
            return disk.complete_hard();
        }
        let done = disk.complete_wal();
        checker.log_written(group, self.id, disk);
        done
    }

    /// Gives the core one report, and with `merge` lets a later one stand for all before it.
    pub(crate) fn report(&mut self, group: GroupId, hard: bool, merge: bool) -> bool {
        let Some(process) = &mut self.process else { return false };
        let Some(disk) = self.disks.get_mut(&group) else { return false };
        if hard {
            let report =
                if merge { disk.hard_reports.drain(..).next_back() } else { disk.hard_reports.pop_front() };
            report.is_some_and(|hard| {
                process.raft.hard_state_persisted(group, hard);
                true
            })
        } else {
            let Some(report) = disk.reports.pop_front() else { return false };
            match report {
                Report::Appended(at, durability) => {
                    let next = disk.reports.front();
                    if merge && matches!(next, Some(Report::Appended(_, newer)) if *newer >= durability) {
                        return self.report(group, hard, merge);
                    }
                    process.raft.appended(group, at.index, at.term, durability);
                }
                Report::Installed(start) => {
                    let app = process.apps.get_mut(&group).expect("every group has an application");
                    (app.applied, app.state) = disk.log.checkpoint;
                    app.committed_reads.clear();
                    process.raft.start_installed(group, start.index, start.term);
                }
            }
            true
        }
    }

    /// Reads entries for a slow follower.
    pub(crate) fn serve_read(&mut self, group: GroupId, rng: &mut Rng) -> bool {
        let Some(process) = &mut self.process else { return false };
        let Some(app) = process.apps.get_mut(&group) else { return false };
        let Some(request) = app.reads.pop_front() else { return false };
        let log = &self.disks[&group].log;
        let mut entries: Vec<Entry<Payload>> = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = log.entry(Index(request.from.get() + entries.len() as u64)) {
            bytes += entry.len_bytes();
            if entry.index > request.through || (bytes > request.max_bytes && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        if rng.chance(50) {
            entries.clear();
        }
        let prev_term = entries.first().map_or_else(Default::default, |entry| entry.prev_term);
        process.raft.entries_read(group, request.to, request.from, prev_term, entries);
        true
    }

    /// Reads committed entries that were not in memory, and applies them.
    pub(crate) fn serve_committed_read(
        &mut self,
        group: GroupId,
        rng: &mut Rng,
        checker: &mut Checker,
    ) -> bool {
        let Some(process) = &mut self.process else { return false };
        let Some(app) = process.apps.get_mut(&group) else { return false };
        let Some(range) = app.committed_reads.pop_front() else { return false };
        let count = range.through.get() - range.from.get() + 1;
        let through = Index(range.from.get() + rng.next() % count);
        for index in (range.from.get()..=through.get()).map(Index) {
            let log = &self.disks[&group].log;
            if index <= log.start.index {
                return true; // A start is just replacing the log; it brings the state along.
            }
            let entry = log.entry(index).expect("committed entries are stored").clone();
            app.apply(group, &entry, checker);
        }
        process.raft.committed_read(group, through);
        true
    }

    /// Makes a start for a follower that is far behind.
    pub(crate) fn serve_start(&mut self, group: GroupId) -> bool {
        let Some(process) = &mut self.process else { return false };
        let Some(app) = process.apps.get_mut(&group) else { return false };
        let Some(to) = app.starts.pop_front() else { return false };
        let Some(term) = process.raft.term_at(group, app.applied) else { return false };
        let start = Start {
            index: app.applied,
            term,
            membership: process.raft.membership_at(group, app.applied).expect("the log reaches there"),
            payload: app.state.to_le_bytes().to_vec(),
        };
        process.raft.start_provided(group, to, start);
        true
    }

    /// Remembers the state of the application on disk, from where the next process goes on.
    pub(crate) fn checkpoint(&mut self, group: GroupId) {
        let Some(process) = &self.process else { return };
        let (Some(app), Some(disk)) = (process.apps.get(&group), self.disks.get_mut(&group)) else { return };
        if app.applied > disk.log.checkpoint.0
            && disk.wal_queue.iter().all(|op| !matches!(op, WalOp::Install(_)))
        {
            disk.log.checkpoint = (app.applied, app.state);
        }
    }

    /// Drops the beginning of the log, durably.
    pub(crate) fn move_start(&mut self, group: GroupId, rng: &mut Rng) {
        let Some(process) = &mut self.process else { return };
        let Some(disk) = self.disks.get_mut(&group) else { return };
        let busy = !disk.wal_queue.is_empty() || !disk.reports.is_empty();
        let (from, to) = (disk.log.start.index.get(), disk.log.checkpoint.0.get());
        if busy || to <= from {
            return;
        }
        let index = Index(from + 1 + rng.next() % (to - from));
        disk.log.move_start(index);
        disk.synced = disk.log.clone();
        process.raft.log_start_moved(group, index, disk.log.start.term);
    }
}

impl Application {
    /// Takes over whether this replica (still) leads: then it knew, when it was asked, everything that was committed. Returns how often it
    /// was asked.
    fn confirmed(&mut self, group: GroupId, ready: &Ready<Payload>) -> u64 {
        if ready.role_changed.is_some() {
            self.confirming.clear();
        }
        let mut count = 0;
        while let Some((_, unknown)) =
            self.confirming.front().copied().filter(|(round, _)| Some(*round) <= ready.confirmed)
        {
            assert_eq!(unknown, None, "{group} is confirmed to be led, by a leader that was deposed");
            self.confirming.pop_front();
            count += 1;
        }
        count
    }

    fn apply(&mut self, group: GroupId, entry: &Entry<Payload>, checker: &mut Checker) {
        assert_eq!(entry.index, self.applied.next(), "{group} is applied out of order");
        self.applied = entry.index;
        self.state = fold(self.state, entry);
        checker.applied(group, entry.position(), self.state);
    }
}

fn fold(state: u64, entry: &Entry<Payload>) -> u64 {
    let mut hash = state ^ entry.index.get().wrapping_mul(31) ^ entry.term.get().wrapping_mul(17);
    if let helix_raft::Body::Data(payload) = &entry.body {
        for byte in payload.iter().take(16) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

fn take(
    group: GroupId,
    disk: &mut GroupDisk,
    app: &mut Application,
    ready: Ready<Payload>,
    checker: &mut Checker,
    messages: &mut Vec<Message<Payload>>,
    unclean: &mut u64,
) {
    *unclean += u64::from(ready.unclean_recovery);
    if ready.sound {
        disk.recovering = false;
    }
    for message in &ready.messages {
        checker.message(message, disk);
    }
    messages.extend(ready.messages);
    disk.hard_queue.extend(ready.hard_state);
    ready.append.iter().for_each(|entry| checker.entry(group, entry));
    if !ready.append.is_empty() {
        disk.wal_queue.push_back(WalOp::Append(ready.append, ready.append_required));
    }
    disk.wal_queue.extend(ready.sync.map(WalOp::Sync));
    for entry in &ready.committed {
        app.apply(group, entry, checker);
    }
    app.committed_reads.extend(ready.committed_to_read);
    app.reads.extend(ready.reads);
    app.starts.extend(ready.need_start);
    disk.wal_queue.extend(ready.install.map(WalOp::Install));
}
