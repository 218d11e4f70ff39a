//! Entries, and the WAL of one replica: a list of records of which a crash keeps a beginning.

use std::fmt;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Body {
    /// A no-op or data: here they are one, since something has to be told apart only when it is lost.
    Data,
    /// The new replica is a learner.
    Learner,
    /// The new replica is to take the place of the one that goes: majorities of both configurations count.
    Joint,
    /// It has taken its place.
    Replaced,
}

/// One entry. Term and index name it, since no two replicas lead in one term (which is checked on its own).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Entry {
    pub(crate) term: u8,
    pub(crate) body: Body,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{}", self.term)?;
        if self.body != Body::Data {
            write!(f, " {:?}", self.body)?;
        }
        Ok(())
    }
}

/// One record. It supersedes every earlier one at its index and above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Record {
    index: u8,
    entry: Entry,
}

/// The log in memory and the records that make it up. What of them is stored is left open: a crash of the process keeps any number of
/// records from `written` up, one of the machine any from `synced` up. That covers every order of writing, syncing in the
/// background and crashing, with no step for each. Records that are cut off bring to light again what they had superseded.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Wal {
    log: Vec<Entry>,
    records: Vec<Record>,
    written: u8,
    synced: u8,
}

fn replay(records: &[Record]) -> Vec<Entry> {
    let mut log = Vec::new();
    for record in records {
        log.truncate(usize::from(record.index) - 1);
        log.push(record.entry);
    }
    log
}

impl Wal {
    pub(crate) fn log(&self) -> &[Entry] {
        &self.log
    }

    pub(crate) fn last_index(&self) -> u8 {
        self.log.len() as u8
    }

    /// Term and index of the last entry, in the order in which candidates are compared.
    pub(crate) fn last(&self) -> (u8, u8) {
        (self.log.last().map_or(0, |entry| entry.term), self.last_index())
    }

    /// Puts `entry` at `index`, in the place of everything from there on.
    pub(crate) fn put(&mut self, index: u8, entry: Entry) {
        self.log.truncate(usize::from(index) - 1);
        self.log.push(entry);
        self.records.push(Record { index, entry });
    }

    /// How many records it takes to hold the log through `index`.
    fn records_through(&self, index: u8) -> u8 {
        let last = self.records.iter().rposition(|record| record.index == index);
        last.map_or(0, |position| position as u8 + 1)
    }

    /// The log is written through `index`.
    pub(crate) fn write_through(&mut self, index: u8) {
        self.written = self.written.max(self.records_through(index));
    }

    /// The log is synced through `index`.
    pub(crate) fn sync_through(&mut self, index: u8) {
        self.synced = self.synced.max(self.records_through(index));
        self.written = self.written.max(self.synced);
        self.forget_superseded();
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u8 {
        self.records.len() as u8
    }

    /// Whether the first `kept` records hold the log through `index`.
    pub(crate) fn holds(&self, index: u8, kept: u8) -> bool {
        self.records_through(index) <= kept
    }

    /// How many records a crash may keep.
    pub(crate) fn crash_keeps(&self, machine: bool) -> impl Iterator<Item = u8> + use<> {
        let least = if machine { self.synced } else { self.written };
        least..=self.records.len() as u8
    }

    /// What the next process finds.
    pub(crate) fn crash(&mut self, machine: bool, kept: u8) {
        self.records.truncate(usize::from(kept));
        self.log = replay(&self.records);
        self.written = kept;
        if machine {
            self.synced = kept;
        }
        self.synced = self.synced.min(kept);
        self.forget_superseded();
    }

    /// What is stored decides nothing any more where nothing can crash.
    pub(crate) fn forget_stored(&mut self, process_may_crash: bool, machine_may_crash: bool) {
        if !process_may_crash {
            self.written = self.synced;
        }
        if !machine_may_crash {
            self.synced = if process_may_crash { self.written } else { self.records() };
        }
        self.written = self.written.max(self.synced);
        self.forget_superseded();
    }

    /// Drops the records that no crash can bring to light again, so that states that differ in nothing else are one.
    fn forget_superseded(&mut self) {
        let (synced, rest) = self.records.split_at(usize::from(self.synced));
        let log = replay(synced);
        let dropped = synced.len() - log.len();
        if dropped > 0 {
            let kept = (1..).zip(log).map(|(index, entry)| Record { index, entry });
            self.records = kept.chain(rest.iter().copied()).collect();
            self.synced -= dropped as u8;
            self.written -= dropped as u8;
        }
    }
}
