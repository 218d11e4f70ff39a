//! The log of one replica as it was said to be stored, and what a crash may leave of it.

use std::collections::{BTreeMap, VecDeque};

use helix_raft::{Body, Durability, Index, Term};
use helix_server::entry::Command;
use helix_wal::disk::Crash;

/// What an entry says, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digest {
    hash: u32,
    kind: u8,
    base_offset: u64,
    records: u32,
}

impl Digest {
    pub(crate) fn of(body: &Body<Command>) -> Self {
        match body {
            Body::NoOp => Self { hash: 0, kind: 0, base_offset: 0, records: 0 },
            Body::Membership(membership) => {
                let hash = crc32fast::hash(format!("{membership:?}").as_bytes());
                Self { hash, kind: 3, base_offset: 0, records: 0 }
            }
            Body::Data(command) => {
                let mut hasher = crc32fast::Hasher::new();
                for chunk in command.payload.chunks() {
                    hasher.update(chunk);
                }
                Self {
                    hash: hasher.finalize(),
                    kind: command.tag.as_u8(),
                    base_offset: command.base_offset.get(),
                    records: command.offset_count,
                }
            }
        }
    }

    pub(crate) fn is_membership(&self) -> bool {
        self.kind == 3
    }

    /// The offset of its first record, if it has any.
    pub(crate) fn base_offset(&self) -> Option<u64> {
        (self.records > 0).then_some(self.base_offset)
    }
}

/// An entry in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) term: Term,
    pub(crate) digest: Digest,
}

type Entries = BTreeMap<Index, Logged>;

/// Something that was handed to the WAL.
#[derive(Debug)]
enum Write {
    /// These entries, in place of everything from the first of them on.
    Entries(Vec<(Index, Logged)>),
    /// The log begins behind this position.
    Start(Index, Term),
}

impl Write {
    fn end(&self) -> (Index, Term) {
        match self {
            Self::Entries(entries) => {
                let (index, logged) = entries.last().expect("nobody appends nothing");
                (*index, logged.term)
            }
            Self::Start(index, term) => (*index, *term),
        }
    }
}

#[derive(Debug, Default, Clone)]
struct Log {
    start: (Index, Term),
    entries: Entries,
}

impl Log {
    fn end(&self) -> (Index, Term) {
        self.entries.last_key_value().map_or(self.start, |(index, logged)| (*index, logged.term))
    }

    fn put(&mut self, index: Index, logged: Logged) {
        self.entries.split_off(&index);
        self.entries.insert(index, logged);
    }

    /// Ends the log here. Whether it ever held what it is to end with.
    fn cut(&mut self, (index, term): (Index, Term)) -> bool {
        self.entries.split_off(&index.next());
        self.end() == (index, term)
    }

    fn take(&mut self, write: &Write) {
        match write {
            Write::Entries(entries) => entries.iter().for_each(|(index, logged)| self.put(*index, *logged)),
            Write::Start(index, term) => *self = Self { start: (*index, *term), entries: Entries::new() },
        }
    }
}

/// A log: what is synced of it, and what was written since.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    synced: Log,
    /// Since then, oldest first.
    unsynced: VecDeque<Write>,
    /// The first so many of these are in the page cache.
    cached: usize,
    /// Everything that was ever handed out.
    newest: Log,
    /// The same without regard to crashes: what one has cut off still lies behind a gap in its file, until something is appended in its place.
    /// If the footer that leaves it out is damaged, it comes back (docs/wal-format.md).
    left_out: Log,
    /// It is being given up, or deleted.
    doubtful: bool,
}

impl Shadow {
    /// From here on nothing is known of what it holds.
    pub(crate) fn doubt(&mut self) {
        self.doubtful = true;
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    pub(crate) fn holds(&self, index: Index, logged: Logged) -> bool {
        // What lies before the start was committed, and is the same everywhere.
        self.doubtful || index <= self.newest.start.0 || self.has(index, logged)
    }

    /// Whether the entry itself is there.
    pub(crate) fn has(&self, index: Index, logged: Logged) -> bool {
        self.newest.entries.get(&index).is_some_and(|held| *held == logged)
    }

    /// All entries that were handed out and not replaced.
    pub(crate) fn positions(&self) -> Vec<(Index, Logged)> {
        self.newest.entries.iter().map(|(index, logged)| (*index, *logged)).collect()
    }

    /// The entries behind `after`, through `through`.
    pub(crate) fn between(&self, after: Index, through: Index) -> Vec<(Index, Logged)> {
        if after >= through {
            return Vec::new();
        }
        self.newest.entries.range(after.next()..=through).map(|(index, logged)| (*index, *logged)).collect()
    }

    pub(crate) fn append(&mut self, entries: Vec<(Index, Logged)>) {
        self.write(Write::Entries(entries));
    }

    /// "Start here" was handed out.
    pub(crate) fn begin_install(&mut self, index: Index, term: Term) {
        self.write(Write::Start(index, term));
    }

    /// "Start here" is written and synced before anything else.
    pub(crate) fn install(&mut self, index: Index, term: Term) {
        self.stored(index, term, Durability::Synced);
        self.doubtful = false;
    }

    fn write(&mut self, write: Write) {
        self.newest.take(&write);
        self.left_out.take(&write);
        self.unsynced.push_back(write);
    }

    /// What lies there is no longer needed. It may still be there.
    pub(crate) fn forget_through(&mut self, index: Index) {
        let kept = self.newest.entries.split_off(&index.next());
        let forgotten = std::mem::replace(&mut self.newest.entries, kept);
        if let Some((index, logged)) = forgotten.last_key_value() {
            self.newest.start = (*index, logged.term);
        }
    }

    /// The log is stored through here. Returns what that is news of.
    pub(crate) fn stored(
        &mut self,
        index: Index,
        term: Term,
        durability: Durability,
    ) -> Vec<(Index, Logged)> {
        let searched = match durability {
            Durability::PageCache => self.cached,
            Durability::Synced => 0,
        };
        let found = self.unsynced.iter().skip(searched).position(|write| write.end() == (index, term));
        let Some(found) = found.map(|found| searched + found + 1) else { return Vec::new() };
        let news = self.unsynced.iter().take(found).skip(searched);
        let news = news.flat_map(|write| match write {
            Write::Entries(entries) => entries.clone(),
            Write::Start(..) => Vec::new(),
        });
        let news = news.collect();
        match durability {
            Durability::PageCache => self.cached = found,
            Durability::Synced => {
                self.cached = self.cached.saturating_sub(found);
                for write in self.unsynced.drain(..found) {
                    self.synced.take(&write);
                }
            }
        }
        news
    }

    /// All that is stored, by how durably.
    pub(crate) fn held(&self) -> [(Durability, Vec<(Index, Logged)>); 2] {
        let mut cached = self.synced.clone();
        self.unsynced.iter().take(self.cached).for_each(|write| cached.take(write));
        let list = |log: &Log| log.entries.iter().map(|(index, logged)| (*index, *logged)).collect();
        [(Durability::Synced, list(&self.synced)), (Durability::PageCache, list(&cached))]
    }

    /// The log was opened again and ends here.
    ///
    /// A crash of the process leaves everything that was stored, and any beginning of what was on its way. One of the machine
    /// leaves what was synced, and any beginning of the rest. A log that is known to be damaged may be cut anywhere, and may end where it did
    /// before an earlier crash.
    pub(crate) fn reopen(
        &mut self,
        end: (Index, Term),
        crash: Crash,
        may_be_cut: bool,
    ) -> Result<(), String> {
        if self.doubtful {
            (self.synced, self.cached) = (Log::default(), 0);
            self.unsynced.clear();
            return Ok(());
        }
        let certain = match crash {
            Crash::Process => self.cached,
            Crash::Machine => 0,
        };
        let mut log = self.synced.clone();
        let mut writes = std::mem::take(&mut self.unsynced);
        let mut kept: VecDeque<Write> = writes.drain(..certain).inspect(|write| log.take(write)).collect();
        let claimed = log.clone();
        if log.end() == end || take_until(&mut log, &mut kept, writes, end) {
            self.go_on_with(log, kept, crash);
            return Ok(());
        }
        let claimed_end = claimed.end();
        if may_be_cut && (self.is_cut(claimed, end) || self.has_grown(end)) {
            return Ok(());
        }
        Err(format!("stored through {claimed_end:?} for certain, and handed out through {:?}", log.end()))
    }

    fn go_on_with(&mut self, log: Log, kept: VecDeque<Write>, crash: Crash) {
        self.newest = log;
        match crash {
            Crash::Process => {
                self.cached = kept.len();
                self.unsynced = kept;
            }
            // What is still there is on the disk.
            Crash::Machine => {
                self.cached = 0;
                self.synced = self.newest.clone();
            }
        }
    }

    /// Whether what was `claimed` was cut here.
    fn is_cut(&mut self, mut claimed: Log, end: (Index, Term)) -> bool {
        if !claimed.cut(end) {
            return false;
        }
        self.synced.cut(end);
        let unsynced =
            claimed.entries.iter().filter(|(index, logged)| self.synced.entries.get(*index) != Some(*logged));
        let unsynced: Vec<_> = unsynced.map(|(index, logged)| (*index, *logged)).collect();
        if !unsynced.is_empty() {
            self.unsynced = VecDeque::from([Write::Entries(unsynced)]);
        }
        self.cached = self.unsynced.len();
        self.newest = claimed;
        true
    }

    /// Whether this is an end that the log had before a crash cut it.
    fn has_grown(&mut self, end: (Index, Term)) -> bool {
        let mut before_cuts = self.left_out.clone();
        if !before_cuts.cut(end) {
            return false;
        }
        self.newest = before_cuts.clone();
        self.synced = before_cuts;
        self.cached = 0;
        true
    }
}

/// Takes `writes` into the log until it ends here. Whether it ever does; `kept` gets what was taken.
fn take_until(
    log: &mut Log,
    kept: &mut VecDeque<Write>,
    writes: VecDeque<Write>,
    end: (Index, Term),
) -> bool {
    for write in writes {
        match write {
            Write::Start(..) => {
                log.take(&write);
                kept.push_back(write);
                if log.end() == end {
                    return true;
                }
            }
            Write::Entries(entries) => {
                let mut part = Vec::new();
                for (index, logged) in entries {
                    log.put(index, logged);
                    part.push((index, logged));
                    if log.end() == end {
                        kept.push_back(Write::Entries(part));
                        return true;
                    }
                }
                kept.push_back(Write::Entries(part));
            }
        }
    }
    false
}
