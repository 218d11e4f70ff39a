//! A handful of replicas of one group, their network and their disks, moved by commands only.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use helix_raft::{
    Body, Bucket, CommittedRange, Durability, Entry, GroupId, GroupOptions, HardState, Incarnation, Index,
    Liveness, Membership, Message, MultiRaft, MultiRaftConfig, Position, ReadRequest, Ready, ReplicaId,
    Start, StepOutcome, Term, term_runs,
};

use crate::show;

pub(crate) const GROUP: GroupId = GroupId(1);

enum Write {
    Append(Vec<Entry<String>>, Durability),
    Sync(Position),
    Install(Start<String>),
}

pub(crate) struct Replica {
    id: ReplicaId,
    incarnation: u64,
    pub(crate) raft: Option<MultiRaft<String>>,
    hard: HardState,
    start: Position,
    /// Configuration as of the start.
    base: Membership,
    log: Vec<Entry<String>>,
    pub(crate) committed: Index,
    recovering: bool,
    /// Disk work waits for a command.
    pub(crate) slow_disk: bool,
    hard_queue: VecDeque<HardState>,
    wal_queue: VecDeque<Write>,
    /// Written, and not yet reported.
    unreported: VecDeque<(Position, Durability)>,
    reads: VecDeque<ReadRequest>,
    committed_reads: VecDeque<CommittedRange>,
    starts: VecDeque<ReplicaId>,
}

pub(crate) struct Settings {
    pub(crate) members: Membership,
    pub(crate) required: Durability,
    pub(crate) max_inflight: usize,
    pub(crate) max_inflight_bytes: usize,
    pub(crate) max_append_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            members: Membership::default(),
            required: Durability::PageCache,
            max_inflight: 5,
            max_inflight_bytes: 1 << 20,
            max_append_bytes: 1 << 16,
        }
    }
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) replicas: BTreeMap<ReplicaId, Replica>,
    pub(crate) network: Vec<Message<String>>,
    pub(crate) cut: Vec<(ReplicaId, ReplicaId)>,
    pub(crate) silent: bool,
    output: String,
}

impl World {
    pub(crate) fn say(&mut self, line: &str) {
        if !self.silent {
            writeln!(self.output, "{line}").expect("a string takes it");
        }
    }

    pub(crate) fn take_output(&mut self) -> String {
        std::mem::take(&mut self.output)
    }

    pub(crate) fn replica(&mut self, id: ReplicaId) -> &mut Replica {
        self.replicas.get_mut(&id).unwrap_or_else(|| panic!("there is no {id}"))
    }

    pub(crate) fn raft(&mut self, id: ReplicaId) -> &mut MultiRaft<String> {
        self.replica(id).raft.as_mut().unwrap_or_else(|| panic!("{id} does not run"))
    }

    /// Adds a replica whose log holds entries of these terms; or that is what the one of this name finds at its next start.
    pub(crate) fn add(&mut self, id: ReplicaId, terms: &[u64], term: Option<u64>) {
        let mut log: Vec<Entry<String>> = Vec::new();
        for (number, term) in terms.iter().enumerate() {
            log.push(Entry {
                index: Index(number as u64 + 1),
                term: Term(*term),
                prev_term: log.last().map_or(Term::ZERO, |entry| entry.term),
                body: Body::Data(format!("old{}", number + 1)),
            });
        }
        let term = Term(term.unwrap_or(terms.last().copied().unwrap_or(0)));
        let base = self.settings.members.clone();
        let incarnation = self.replicas.get(&id).map_or(0, |before| before.incarnation);
        self.replicas.insert(
            id,
            Replica {
                id,
                incarnation,
                raft: None,
                hard: HardState { term, vote: None },
                start: Position::default(),
                base,
                log,
                committed: Index::ZERO,
                recovering: false,
                slow_disk: false,
                hard_queue: VecDeque::new(),
                wal_queue: VecDeque::new(),
                unreported: VecDeque::new(),
                reads: VecDeque::new(),
                committed_reads: VecDeque::new(),
                starts: VecDeque::new(),
            },
        );
    }

    /// Adds a replica that has heard nothing yet of the group it is to join.
    pub(crate) fn join(&mut self, id: ReplicaId) {
        self.add(id, &[], None);
        self.replica(id).base = Membership::default();
    }

    pub(crate) fn start(&mut self, id: ReplicaId, recovering: bool, memory: usize) {
        let settings = Settings { members: self.settings.members.clone(), ..self.settings };
        let replica = self.replica(id);
        replica.incarnation += 1;
        replica.recovering |= recovering;
        let mut config = MultiRaftConfig::new(id, Incarnation(replica.incarnation), 1);
        config.max_inflight_appends = settings.max_inflight;
        config.max_inflight_bytes = settings.max_inflight_bytes;
        config.max_append_bytes = settings.max_append_bytes;
        config.max_tail_bytes = 0;
        let mut raft = MultiRaft::new(config);
        raft.add_group(GROUP, replica.options(&settings, memory)).expect("the log is consistent");
        replica.raft = Some(raft);
    }

    pub(crate) fn crash(&mut self, id: ReplicaId) {
        let replica = self.replica(id);
        replica.raft = None;
        replica.hard_queue.clear();
        replica.wal_queue.clear();
        replica.unreported.clear();
        replica.reads.clear();
        replica.committed_reads.clear();
        replica.starts.clear();
    }

    /// Lets every replica say what it wants, and does it as far as its disk is not slow.
    pub(crate) fn settle(&mut self) {
        let ids: Vec<ReplicaId> = self.replicas.keys().copied().collect();
        let mut busy = true;
        while std::mem::take(&mut busy) {
            for id in &ids {
                busy |= self.settle_one(*id);
            }
        }
    }

    fn settle_one(&mut self, id: ReplicaId) -> bool {
        let replica = self.replica(id);
        let Some(raft) = &mut replica.raft else { return false };
        let ready = raft.take_ready();
        let busy = !ready.is_empty();
        for (_, ready) in ready {
            self.take(id, ready);
        }
        let replica = self.replica(id);
        let work = !replica.slow_disk && (!replica.hard_queue.is_empty() || !replica.wal_queue.is_empty());
        if work {
            replica.persist_hard();
            replica.write(usize::MAX);
            replica.report(usize::MAX);
        }
        busy || work
    }

    fn take(&mut self, id: ReplicaId, ready: Ready<String>) {
        for line in describe(&ready) {
            self.say(&format!("{id} {line}"));
        }
        let replica = self.replica(id);
        replica.hard_queue.extend(ready.hard_state);
        if !ready.append.is_empty() {
            replica.wal_queue.push_back(Write::Append(ready.append, ready.append_required));
        }
        replica.wal_queue.extend(ready.sync.map(Write::Sync));
        replica.wal_queue.extend(ready.install.map(Write::Install));
        replica.reads.extend(ready.reads);
        replica.committed_reads.extend(ready.committed_to_read);
        replica.starts.extend(ready.need_start);
        replica.recovering &= !ready.sound;
        for message in ready.messages {
            self.say(&format!("  {}", show::message(&message)));
            self.network.push(message);
        }
    }

    /// Delivers what is under way and `chosen`, once; returns how many.
    pub(crate) fn deliver_once(&mut self, chosen: impl Fn(&Message<String>) -> bool) -> usize {
        let (now, later) = std::mem::take(&mut self.network).into_iter().partition(chosen);
        self.network = later;
        let now: Vec<Message<String>> = now;
        let count = now.len();
        for message in now {
            if self.cut.contains(&(message.from, message.to)) {
                continue;
            }
            let (to, text) = (message.to, show::message(&message));
            let Some(raft) = self.replicas.get_mut(&to).and_then(|replica| replica.raft.as_mut()) else {
                continue;
            };
            let outcome = raft.step(message);
            if outcome != StepOutcome::Handled {
                self.say(&format!("{to} drops ({outcome:?}): {text}"));
            }
            self.settle();
        }
        count
    }

    pub(crate) fn liveness(&mut self, at: ReplicaId, of: ReplicaId, heard: bool, round_trip: bool) {
        self.raft(at).peer_liveness(of, Liveness { heard, round_trip });
    }

    pub(crate) fn wake(&mut self, at: ReplicaId, with: ReplicaId) {
        self.raft(at).wake(with, Bucket::of(GROUP));
    }

    pub(crate) fn status(&mut self, id: ReplicaId) {
        let Some(raft) = &self.replica(id).raft else {
            self.say(&format!("{id} down"));
            return;
        };
        let status = raft.status(GROUP).expect("the group is here");
        let active = if raft.active_groups() > 0 { "" } else { " idle" };
        let text = format!("{id} {}{active}", show::status(&status));
        self.say(&text);
    }
}

impl Replica {
    fn options(&self, settings: &Settings, memory: usize) -> GroupOptions<String> {
        let last = self.log.last().map_or(self.start, Entry::position);
        let (older, tail) = self.log.split_at(self.log.len().saturating_sub(memory));
        let first = self.start.index.next();
        let term_at =
            |index: Index| -> Result<Term, ()> { Ok(older[(index.get() - first.get()) as usize].term) };
        let older_last = older.last().map_or(self.start.index, |entry| entry.index);
        let mut options = GroupOptions::new(self.base.clone(), settings.required);
        options.memberships = self.memberships();
        options.hard_state = self.hard;
        (options.start_index, options.start_term) = (self.start.index, self.start.term);
        (options.last_index, options.last_term) = (last.index, last.term);
        options.terms = term_runs(first, older_last, term_at).expect("it is all here");
        options.tail = tail.to_vec();
        options.committed = self.committed.max(self.start.index);
        options.recovering = self.recovering;
        options
    }

    fn memberships(&self) -> Vec<(Index, Membership)> {
        let membership = |entry: &Entry<String>| match &entry.body {
            Body::Membership(membership) => Some((entry.index, membership.clone())),
            _ => None,
        };
        self.log.iter().filter_map(membership).collect()
    }

    pub(crate) fn persist_hard(&mut self) {
        let Some(raft) = &mut self.raft else { return };
        for hard in self.hard_queue.drain(..) {
            self.hard = hard;
            raft.hard_state_persisted(GROUP, hard);
        }
    }

    /// Does the first `count` of the writes that wait.
    pub(crate) fn write(&mut self, count: usize) {
        let count = count.min(self.wal_queue.len());
        for write in self.wal_queue.drain(..count) {
            match write {
                Write::Append(entries, durability) => {
                    self.log.retain(|entry| entry.index < entries[0].index);
                    let last = entries[entries.len() - 1].position();
                    self.log.extend(entries);
                    self.unreported.push_back((last, durability));
                }
                Write::Sync(position) => self.unreported.push_back((position, Durability::Synced)),
                Write::Install(start) => {
                    self.log.clear();
                    self.start = Position::new(start.index, start.term);
                    self.base = start.membership;
                    if let Some(raft) = &mut self.raft {
                        raft.start_installed(GROUP, start.index, start.term);
                    }
                }
            }
        }
    }

    pub(crate) fn report(&mut self, count: usize) {
        let Some(raft) = &mut self.raft else { return };
        let count = count.min(self.unreported.len());
        for (at, durability) in self.unreported.drain(..count) {
            raft.appended(GROUP, at.index, at.term, durability);
        }
    }

    pub(crate) fn fail_writes(&mut self) {
        self.wal_queue.clear();
        if let Some(raft) = &mut self.raft {
            raft.append_failed(GROUP);
        }
    }

    /// Answers everything that was to be read.
    pub(crate) fn serve(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        let Some(raft) = &mut self.raft else { return said };
        for request in self.reads.drain(..) {
            let mut bytes = 0;
            let wanted = |entry: &&Entry<String>| (request.from..=request.through).contains(&entry.index);
            let entries: Vec<Entry<String>> = self
                .log
                .iter()
                .filter(wanted)
                .take_while(|entry| {
                    let first = bytes == 0;
                    bytes += entry.len_bytes();
                    first || bytes <= request.max_bytes
                })
                .cloned()
                .collect();
            said.push(format!("{} read {}", self.id, show::entries(&entries)));
            let prev_term = entries.first().map_or(Term::ZERO, |entry| entry.prev_term);
            raft.entries_read(GROUP, request.to, request.from, prev_term, entries);
        }
        for range in self.committed_reads.drain(..) {
            said.push(format!("{} applied {}..={} from the WAL", self.id, range.from, range.through));
            raft.committed_read(GROUP, range.through);
        }
        for to in self.starts.drain(..) {
            let applied = raft.status(GROUP).expect("the group is here").applied;
            let term = raft.term_at(GROUP, applied).expect("applied entries have a term");
            let start = Start {
                index: applied,
                term,
                membership: raft.membership_at(GROUP, applied).expect("the log reaches there"),
                payload: format!("state{applied}"),
            };
            raft.start_provided(GROUP, to, start);
        }
        said
    }

    pub(crate) fn move_start(&mut self, index: Index) {
        let entry = self.log.iter().find(|entry| entry.index == index).expect("the start lies in the log");
        self.start = entry.position();
        let before = self.memberships().into_iter().rfind(|change| change.0 <= index);
        self.base = before.map_or(self.base.clone(), |change| change.1);
        self.log.retain(|entry| entry.index > index);
        if let Some(raft) = &mut self.raft {
            raft.log_start_moved(GROUP, index, self.start.term);
        }
    }

    pub(crate) fn log_text(&self) -> String {
        format!("{} from {}: {}", self.id, self.start, show::entries(&self.log))
    }
}

fn describe(ready: &Ready<String>) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(change) = ready.role_changed {
        let leader = change.leader.map_or("-".to_owned(), |leader| leader.to_string());
        lines.push(format!("is {} {} leader={leader}", show::role(change.role), change.term));
    }
    if let Some(hard) = ready.hard_state {
        let vote = hard.vote.map_or("-".to_owned(), |vote| vote.to_string());
        lines.push(format!("persists {} vote={vote}", hard.term));
    }
    if !ready.append.is_empty() {
        lines.push(format!(
            "writes {}{}",
            show::entries(&ready.append),
            show::durability(ready.append_required)
        ));
    }
    if let Some(sync) = ready.sync {
        lines.push(format!("syncs {sync}"));
    }
    if !ready.committed.is_empty() {
        lines.push(format!("applies {}", show::entries(&ready.committed)));
    }
    if let Some(range) = ready.committed_to_read {
        lines.push(format!("wants to apply {}..={} from the WAL", range.from, range.through));
    }
    for read in &ready.reads {
        lines.push(format!("wants {}..={} for {}", read.from, read.through, read.to));
    }
    for to in &ready.need_start {
        lines.push(format!("wants a start for {to}"));
    }
    if let Some(start) = &ready.install {
        lines.push(format!("installs {}/{} {}", start.index, start.term, start.payload));
    }
    if let Some(committed) = &ready.membership {
        let members = show::membership(&committed.membership);
        lines.push(format!("knows {members} of {} to be committed", committed.index));
    }
    if let Some(at) = ready.diverged {
        lines.push(format!("has another history than its leader at {at}"));
    }
    if let Some(round) = ready.confirmed {
        lines.push(format!("still leads as of round {round}"));
    }
    for (is, line) in [
        (ready.leader_ready, "is ready to serve"),
        (ready.sound, "is sound"),
        (ready.unclean_recovery, "recovers uncleanly"),
    ] {
        if is {
            lines.push(line.to_owned());
        }
    }
    lines
}
