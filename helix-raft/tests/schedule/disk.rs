//! The disk of one replica, as far as one group is concerned: what is written, what is synced, and what is under way.

use std::collections::VecDeque;

use helix_raft::{
    Body, Durability, Entry, GroupOptions, HardState, Index, Membership, Position, Start, Term, term_runs,
};

use crate::rng::Rng;

pub(crate) type Payload = Vec<u8>;

/// The log as the WAL holds it.
#[derive(Clone, Debug)]
pub(crate) struct StoredLog {
    pub(crate) start: Position,
    /// Configuration as of the start.
    pub(crate) base: Membership,
    pub(crate) entries: Vec<Entry<Payload>>,
    /// State of the application as of an index, newer than `start`.
    pub(crate) checkpoint: (Index, u64),
}

#[derive(Clone, Debug)]
pub(crate) enum WalOp {
    Append(Vec<Entry<Payload>>, Durability),
    Sync(Position),
    Install(Start<Payload>),
}

impl WalOp {
    pub(crate) fn memberships(&self) -> Vec<Membership> {
        match self {
            WalOp::Append(entries, _) => entries
                .iter()
                .filter_map(|entry| match &entry.body {
                    Body::Membership(membership) => Some(membership.clone()),
                    _ => None,
                })
                .collect(),
            WalOp::Install(start) => vec![start.membership.clone()],
            WalOp::Sync(_) => Vec::new(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Report {
    Appended(Position, Durability),
    Installed(Position),
}

#[derive(Clone, Debug)]
pub(crate) struct GroupDisk {
    pub(crate) hard: HardState,
    pub(crate) log: StoredLog,
    /// The log as of the last sync: what a loss of power leaves.
    pub(crate) synced: StoredLog,
    pub(crate) recovering: bool,
    pub(crate) wal_queue: VecDeque<WalOp>,
    pub(crate) hard_queue: VecDeque<HardState>,
    pub(crate) reports: VecDeque<Report>,
    pub(crate) hard_reports: VecDeque<HardState>,
}

impl StoredLog {
    fn new(base: Membership) -> StoredLog {
        StoredLog { start: Position::default(), base, entries: Vec::new(), checkpoint: (Index::ZERO, 0) }
    }

    /// The configurations along the log.
    pub(crate) fn memberships(&self) -> Vec<(Index, Membership)> {
        let membership = |entry: &Entry<Payload>| match &entry.body {
            Body::Membership(membership) => Some((entry.index, membership.clone())),
            _ => None,
        };
        self.entries.iter().filter_map(membership).collect()
    }

    pub(crate) fn all_memberships(&self) -> Vec<Membership> {
        let changes = self.memberships().into_iter().map(|change| change.1);
        std::iter::once(self.base.clone()).chain(changes).collect()
    }

    fn membership_at(&self, index: Index) -> Membership {
        let newest = self.memberships().into_iter().rfind(|change| change.0 <= index);
        newest.map_or_else(|| self.base.clone(), |change| change.1)
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.start, Entry::position)
    }

    pub(crate) fn position(&self, index: Index) -> Option<Position> {
        if index == self.start.index {
            return Some(self.start);
        }
        self.entry(index).map(Entry::position)
    }

    pub(crate) fn entry(&self, index: Index) -> Option<&Entry<Payload>> {
        let offset = index.get().checked_sub(self.start.index.get() + 1)?;
        self.entries.get(offset as usize)
    }

    fn append(&mut self, entries: &[Entry<Payload>]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.get().checked_sub(self.start.index.get() + 1);
        let keep = keep.expect("nothing is written before the start") as usize;
        assert!(keep <= self.entries.len(), "an append leaves a gap: {first:?} after {:?}", self.last());
        self.entries.truncate(keep);
        assert_eq!(self.last().term, first.prev_term, "prev_term does not match");
        self.entries.extend_from_slice(entries);
        assert!(self.checkpoint.0 <= self.last().index, "an applied entry is replaced");
    }

    fn install(&mut self, start: &Start<Payload>) {
        let state = u64::from_le_bytes(start.payload[..8].try_into().expect("eight bytes of state"));
        *self = StoredLog {
            start: Position::new(start.index, start.term),
            base: start.membership.clone(),
            entries: Vec::new(),
            checkpoint: (start.index, state),
        };
    }

    pub(crate) fn move_start(&mut self, index: Index) {
        let to = self.position(index).expect("the start moves within the log");
        assert!(self.checkpoint.0 >= index, "the state after the start has to be known");
        self.base = self.membership_at(index);
        self.entries.retain(|entry| entry.index > index);
        self.start = to;
    }
}

impl GroupDisk {
    pub(crate) fn new(base: &Membership) -> GroupDisk {
        GroupDisk {
            hard: HardState::default(),
            log: StoredLog::new(base.clone()),
            synced: StoredLog::new(base.clone()),
            recovering: false,
            wal_queue: VecDeque::new(),
            hard_queue: VecDeque::new(),
            reports: VecDeque::new(),
            hard_reports: VecDeque::new(),
        }
    }

    /// Writes what was queued first. The report follows later.
    pub(crate) fn complete_wal(&mut self) -> bool {
        let Some(op) = self.wal_queue.pop_front() else { return false };
        let report = match op {
            WalOp::Append(entries, durability) => {
                self.log.append(&entries);
                Report::Appended(self.log.last(), durability)
            }
            WalOp::Sync(position) => Report::Appended(position, Durability::Synced),
            WalOp::Install(start) => {
                self.log.install(&start);
                Report::Installed(self.log.start)
            }
        };
        if !matches!(report, Report::Appended(_, Durability::PageCache)) {
            self.synced = self.log.clone();
        }
        self.reports.push_back(report);
        true
    }

    pub(crate) fn complete_hard(&mut self) -> bool {
        let Some(hard) = self.hard_queue.pop_front() else { return false };
        self.hard = hard;
        self.hard_reports.push_back(hard);
        true
    }

    /// The process dies: of what was under way a part arrives, in order, the last append possibly torn.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        for _ in 0..rng.below(self.wal_queue.len() + 1) {
            self.complete_wal();
        }
        if let Some(WalOp::Append(entries, _)) = self.wal_queue.front()
            && rng.chance(500)
        {
            let torn = entries[..rng.below(entries.len())].to_vec();
            self.log.append(&torn);
        }
        for _ in 0..rng.below(self.hard_queue.len() + 1) {
            self.complete_hard();
        }
        self.wal_queue.clear();
        self.hard_queue.clear();
        self.reports.clear();
        self.hard_reports.clear();
    }

    /// The machine dies: only what was synced is certain, and of the rest a first part may be there. In a group that does not
    /// sync what it acknowledges, that makes the log suspect.
    pub(crate) fn lose_power(&mut self, required: Durability, rng: &mut Rng) {
        self.crash(rng);
        let held = self.synced.entries.len();
        let extends = self.log.start == self.synced.start
            && self.log.entries.get(..held).is_some_and(|entries| entries == self.synced.entries);
        if extends {
            let kept = held + rng.below(self.log.entries.len() - held + 1);
            self.log.entries.truncate(kept);
            self.log.checkpoint = self.synced.checkpoint;
        } else {
            self.log = self.synced.clone();
        }
        self.synced = self.log.clone();
        self.recovering |= required == Durability::PageCache;
    }

    /// What a new process finds.
    pub(crate) fn options(&self, required: Durability, rng: &mut Rng) -> GroupOptions<Payload> {
        let log = &self.log;
        let last = log.last();
        let in_memory = rng.below(log.entries.len() + 1).min(rng.below(20));
        let (older, tail) = log.entries.split_at(log.entries.len() - in_memory);
        let term_at = |index: Index| -> Result<Term, ()> { log.position(index).map(|at| at.term).ok_or(()) };
        let first = log.start.index.next();
        let older_last = older.last().map_or(log.start.index, |entry| entry.index);
        GroupOptions {
            membership: log.base.clone(),
            memberships: log.memberships(),
            hard_state: self.hard,
            start_index: log.start.index,
            start_term: log.start.term,
            last_index: last.index,
            last_term: last.term,
            terms: term_runs(first, older_last, term_at).expect("every entry has a term"),
            tail: tail.to_vec(),
            committed: log.checkpoint.0,
            stored: Durability::PageCache,
            required,
            recovering: self.recovering,
        }
    }
}
