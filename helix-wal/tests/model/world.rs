//! A log on a faulty disk beside its reference model, driven by a seed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use helix_wal::disk::{Crash, FaultyDisk};
use helix_wal::{
    Durability, GroupId, Index, Offset, Part, Payload, ReadLimit, Record, RecordKind, Recovered, Term, Wal,
    WalOptions,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::reference::{Op, View, is_possible, resolve};

/// The highest operations that were acknowledged.
#[derive(Default)]
struct Acknowledged {
    written: u64,
    synced: u64,
}

/// What the generator knows about a group.
#[derive(Clone, Default)]
struct Planned {
    ops: Vec<Op>,
    committed: Index,
    term: Term,
    deleted: bool,
}

pub(crate) struct World {
    pub(crate) disk: FaultyDisk,
    random: SmallRng,
    wal: Option<Wal>,
    groups: BTreeMap<GroupId, Planned>,
    next_group: u64,
    last_op: u64,
    acknowledged: Arc<Mutex<Acknowledged>>,
    /// A machine crash happened since the log was open.
    machine_crashed: bool,
}

pub(crate) fn options(trust_unsynced: bool) -> WalOptions {
    WalOptions {
        segment_bytes: 4096,
        writeback_bytes: 1024,
        background_sync_bytes: 3000,
        recycled_segments: 2,
        reserve_bytes: 0,
        footer_cache_bytes: 2000,
        trust_unsynced,
        ..WalOptions::default()
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            disk: FaultyDisk::new(seed),
            random: SmallRng::seed_from_u64(seed),
            wal: None,
            groups: BTreeMap::new(),
            next_group: 1,
            last_op: 0,
            acknowledged: Arc::default(),
            machine_crashed: false,
        };
        (0..3).for_each(|_| world.new_group());
        world
    }

    fn new_group(&mut self) {
        self.groups.insert(GroupId(self.next_group), Planned { term: Term(1), ..Planned::default() });
        self.next_group += 1;
    }

    /// Opens the log. False if the disk stopped on the way.
    pub(crate) fn open(&mut self) -> bool {
        let trust_unsynced = !self.machine_crashed;
        let disk: Arc<dyn helix_wal::disk::Disk> = Arc::new(self.disk.clone());
        match Wal::open_stepped(disk, options(trust_unsynced)) {
            Ok(_) if self.disk.is_stopped() => false,
            Ok((wal, recovered)) => {
                self.check(&wal, &recovered);
                self.adopt(&wal, &recovered);
                self.wal = Some(wal);
                true
            }
            Err(error) => {
                assert!(self.disk.is_stopped(), "opening failed on a disk that works: {error}");
                false
            }
        }
    }

    pub(crate) fn crash(&mut self, crash: Crash) {
        self.wal = None;
        self.machine_crashed |= crash == Crash::Machine;
        self.disk.crash(crash);
        if std::env::var_os("HELIX_WAL_DUMP").is_some() {
            let mut text = Vec::new();
            helix_wal::inspect::dump(&self.disk, helix_wal::inspect::DumpOptions::default(), &mut text)
                .unwrap();
            println!("after a crash of the {crash:?}:\n{}", String::from_utf8_lossy(&text));
        }
    }

    /// One random thing a user could do. False once the disk has stopped.
    pub(crate) fn act(&mut self) -> bool {
        match self.random.random_range(0..100) {
            0..45 => self.append_entries(),
            45..50 => self.append_start(),
            50..56 => self.append_checkpoint(),
            56..58 => self.delete(),
            58..63 => self.sync(),
            63..75 => self.step(Part::Writer),
            75..83 => self.step(Part::Syncer),
            83..86 => self.step(Part::BackgroundSync),
            86..93 => self.step(Part::Housekeeper),
            93..97 => self.reclaim(),
            97..98 => self.close_and_open(),
            _ => self.wal().step_until_idle(),
        }
        !self.disk.is_stopped()
    }

    fn wal(&self) -> &Wal {
        self.wal.as_ref().expect("the world acts only while the log is open")
    }

    fn step(&mut self, part: Part) {
        self.wal().step(part);
    }

    fn pick_group(&mut self) -> GroupId {
        let live: Vec<_> =
            self.groups.iter().filter(|(_, planned)| !planned.deleted).map(|(group, _)| *group).collect();
        live[self.random.random_range(0..live.len())]
    }

    fn payload(&mut self, max_bytes: usize) -> Payload {
        let size = self.random.random_range(0..=max_bytes);
        let bytes: Vec<u8> = (0..size).map(|_| self.random.random()).collect();
        let cut = if size == 0 { 0 } else { self.random.random_range(0..size) };
        let bytes = Bytes::from(bytes);
        Payload::from_chunks(vec![bytes.slice(..cut), bytes.slice(cut..)])
    }

    fn record(&mut self, group: GroupId, kind: RecordKind, index: Index, max_bytes: usize) -> Record {
        Record {
            group,
            kind,
            index,
            term: Term(0),
            prev_term: Term(0),
            base_offset: Offset(0),
            offset_count: 0,
            max_timestamp_ms: self.random.random_range(0..50),
            payload: self.payload(max_bytes),
        }
    }

    fn view(&self, group: GroupId) -> Option<View> {
        resolve(&self.groups[&group].ops)
    }

    /// Never leave so much unsynced that not all combinations can be tried.
    fn keep_few_unsynced(&mut self, group: GroupId) {
        let synced = self.acknowledged.lock().unwrap().synced;
        let unsynced = self.groups[&group].ops.iter().filter(|op| op.number > synced).count();
        if unsynced >= 6 {
            self.sync();
            self.wal().step_until_idle();
        }
    }

    fn append_entries(&mut self) {
        let groups: Vec<_> = (0..self.random.random_range(1..3)).map(|_| self.pick_group()).collect();
        groups.iter().for_each(|group| self.keep_few_unsynced(*group));
        if self.disk.is_stopped() {
            return;
        }
        let mut records = Vec::new();
        for group in groups {
            let count = self.random.random_range(1..4);
            records.extend(self.entries(group, count));
        }
        let durability =
            if self.random.random_range(0..3) == 0 { Durability::Synced } else { Durability::PageCache };
        self.append(records, durability);
    }

    fn entries(&mut self, group: GroupId, count: u64) -> Vec<Record> {
        let view = self.view(group);
        let mut entries = view.as_ref().map_or_else(Vec::new, |view| view.entries.clone());
        let start = view.map_or((Index(0), Term(0), Offset(0)), |view| {
            (view.start_index, view.start_term, view.start_offset)
        });
        let last_index = entries.last().map_or(start.0, |last| last.index);
        let committed = self.groups[&group].committed;
        if last_index > committed && self.random.random_range(0..4) == 0 {
            // Another leader replaces what is not committed.
            let from = Index(self.random.random_range(committed.0 + 1..=last_index.0));
            entries.retain(|entry| entry.index < from);
            self.bump_term(group);
        } else if self.random.random_range(0..6) == 0 {
            self.bump_term(group);
        }
        let mut new = Vec::new();
        for _ in 0..count {
            let (index, prev_term, offset) =
                entries.last().map_or(start, |last| (last.index, last.term, last.next_offset()));
            let large = self.random.random_range(0..60) == 0;
            let mut record = self.record(
                group,
                RecordKind::Entry { tag: 7 },
                index.next(),
                if large { 6000 } else { 300 },
            );
            record.prev_term = prev_term;
            record.term = self.groups[&group].term;
            record.base_offset = offset;
            record.offset_count = self.random.random_range(0..3);
            entries.push(record.clone());
            self.plan(&record, 0);
            new.push(record);
        }
        let planned = self.groups.get_mut(&group).unwrap();
        if self.random.random_range(0..2) == 0 {
            let last = entries.last().map_or(start.0, |last| last.index);
            planned.committed = Index(self.random.random_range(planned.committed.0..=last.0));
        }
        new
    }

    fn bump_term(&mut self, group: GroupId) {
        let planned = self.groups.get_mut(&group).unwrap();
        planned.term = planned.term.next();
    }

    fn append_start(&mut self) {
        let group = self.pick_group();
        self.keep_few_unsynced(group);
        let view = self.view(group);
        let committed = self.groups[&group].committed;
        let start_index = view.as_ref().map_or(Index(0), |view| view.start_index);
        let reset = view.is_none() || self.random.random_range(0..4) == 0;
        // A start at index 0 keeps nothing.
        let anew = self.random.random_range(0..8) == 0 || (!reset && committed == Index(0));
        let mut record = self.record(group, RecordKind::Start, Index(0), 100);
        let mut floor = self.last_op + 1;
        if anew {
            self.groups.get_mut(&group).unwrap().committed = Index(0);
            self.bump_term(group);
        } else if reset {
            self.bump_term(group);
            let last_index = view.map_or(Index(0), |view| view.last_index);
            record.index = Index(self.random.random_range(committed.0 + 1..=last_index.0 + 5));
            record.term = self.groups[&group].term;
            record.base_offset = Offset(record.index.0 * 2);
            self.groups.get_mut(&group).unwrap().committed = record.index;
            self.bump_term(group);
        } else if let Some(view) = view {
            let lowest = start_index.0.max(1);
            record.index = Index(self.random.random_range(lowest..=committed.0.max(lowest)));
            let (entry, after): (Vec<_>, Vec<_>) =
                view.entries.iter().partition(|entry| entry.index <= record.index);
            record.term = entry.last().map_or(view.start_term, |entry| entry.term);
            record.base_offset = entry.last().map_or(view.start_offset, |entry| entry.next_offset());
            if let Some(first) = after.first() {
                let ops = &self.groups[&group].ops;
                floor = ops.iter().rfind(|op| op.record == **first).map_or(0, |op| op.number);
            }
        }
        self.plan(&record, floor);
        self.append(vec![record], Durability::PageCache);
    }

    fn append_checkpoint(&mut self) {
        let group = self.pick_group();
        self.keep_few_unsynced(group);
        let Some(view) = self.view(group) else { return };
        let index = self.groups[&group].committed.max(view.start_index);
        let record = self.record(group, RecordKind::Checkpoint, index, 200);
        self.plan(&record, 0);
        self.append(vec![record], Durability::PageCache);
    }

    fn delete(&mut self) {
        let group = self.pick_group();
        self.keep_few_unsynced(group);
        let record = self.record(group, RecordKind::Delete, Index(0), 0);
        self.plan(&record, 0);
        self.groups.get_mut(&group).unwrap().deleted = true;
        self.append(vec![record], Durability::PageCache);
        self.new_group();
    }

    fn plan(&mut self, record: &Record, floor: u64) {
        self.last_op += 1;
        let op = Op { number: self.last_op, record: record.clone(), floor };
        self.groups.get_mut(&record.group).unwrap().ops.push(op);
    }

    fn append(&mut self, records: Vec<Record>, durability: Durability) {
        let acknowledged = Arc::clone(&self.acknowledged);
        let disk = self.disk.clone();
        let last_op = self.last_op;
        self.wal().append(records, durability, move |outcome| match outcome {
            Ok(()) => {
                let mut acknowledged = acknowledged.lock().unwrap();
                acknowledged.written = acknowledged.written.max(last_op);
                if durability == Durability::Synced {
                    acknowledged.synced = acknowledged.synced.max(last_op);
                }
            }
            Err(error) => assert!(disk.is_stopped(), "an append failed on a disk that works: {error}"),
        });
    }

    fn sync(&mut self) {
        self.append(Vec::new(), Durability::Synced);
    }

    fn reclaim(&mut self) {
        let committed: BTreeMap<_, _> =
            self.groups.iter().map(|(group, planned)| (*group, planned.committed)).collect();
        // All at once, or one file after the other.
        let allowed_bytes = if self.random.random() { u64::MAX } else { 1 };
        let outcome = self.wal().reclaim_some(&|group| committed[&group], allowed_bytes);
        assert!(outcome.is_ok() || self.disk.is_stopped(), "reclaiming failed: {outcome:?}");
    }

    fn close_and_open(&mut self) {
        let closed = self.wal().close();
        if closed.is_err() {
            assert!(self.disk.is_stopped());
            return;
        }
        let acknowledged = self.acknowledged.lock().unwrap().synced;
        assert!(acknowledged <= self.last_op);
        self.acknowledged.lock().unwrap().synced = self.last_op;
        self.acknowledged.lock().unwrap().written = self.last_op;
        self.wal = None;
        self.open();
    }

    /// Compares what was found with what may be there.
    fn check(&self, wal: &Wal, recovered: &Recovered) {
        assert_eq!(recovered.damage, [], "nothing was damaged");
        assert_eq!(recovered.missing, [], "nothing was damaged");
        assert_eq!((&recovered.doubtful[..], &recovered.contradictory[..]), (&[][..], &[][..]));
        let found = observe(wal, recovered);
        for group in found.keys() {
            assert!(self.groups.contains_key(group), "a group that never was: {group}");
        }
        if self.machine_crashed {
            let synced = self.acknowledged.lock().unwrap().synced;
            for (group, planned) in &self.groups {
                let certain = planned.ops.iter().take_while(|op| op.number <= synced).count();
                let found = found.get(group);
                assert!(
                    is_possible(found, &planned.ops, certain),
                    "group {group}: found {found:#?}\nwhich no loss of unsynced records explains; {certain} of \
                     {:#?} were synced",
                    planned.ops
                );
            }
        } else {
            let written = self.acknowledged.lock().unwrap().written;
            let explained = (written..=self.last_op).any(|prefix| {
                self.groups.iter().all(|(group, planned)| {
                    let count = planned.ops.iter().take_while(|op| op.number <= prefix).count();
                    resolve(&planned.ops[..count]).as_ref() == found.get(group)
                })
            });
            assert!(
                explained,
                "found {found:#?}\nwhich is no prefix of what was written; {written} were acknowledged of {:#?}",
                self.groups.values().map(|planned| &planned.ops).collect::<Vec<_>>()
            );
        }
    }

    /// Goes on from what was found.
    fn adopt(&mut self, wal: &Wal, recovered: &Recovered) {
        let found = observe(wal, recovered);
        for (group, planned) in &mut self.groups {
            match found.get(group) {
                Some(view) => {
                    planned.ops = view.to_ops();
                    planned.committed = planned.committed.clamp(view.start_index, view.last_index);
                    planned.deleted = false;
                }
                None => {
                    // Deleted, or nothing of it was synced. Ids are not used again.
                    planned.ops.clear();
                    planned.deleted = true;
                }
            }
            planned.term = planned.term.next();
        }
        while self.groups.values().filter(|planned| !planned.deleted).count() < 3 {
            self.new_group();
        }
        self.last_op = 0;
        self.acknowledged = Arc::default();
        self.machine_crashed = false;
    }

    /// Opening twice finds the same, and lookups agree with the entries.
    pub(crate) fn check_again(&mut self) {
        let Some(wal) = self.wal.take() else { return };
        wal.step_until_idle();
        drop(wal);
        self.disk.crash(Crash::Process);
        let once = self.disk.duplicate(1);
        let open = |trust_unsynced| {
            once.crash(Crash::Process);
            let opened = Wal::open_stepped(Arc::new(once.clone()), options(trust_unsynced)).unwrap();
            let (wal, recovered) = opened;
            check_lookups(&wal, &observe(&wal, &recovered));
            assert_eq!(recovered.damage, []);
            recovered.groups
        };
        let first = open(true);
        assert_eq!(first, open(true));
        assert_eq!(first, open(false));
        let report = helix_wal::inspect::verify(&once).unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        assert!(self.open());
    }
}

/// Everything that can be read.
fn observe(wal: &Wal, recovered: &Recovered) -> BTreeMap<GroupId, View> {
    let mut views = BTreeMap::new();
    for (group, found) in &recovered.groups {
        let bounds = wal.bounds(*group).unwrap();
        assert_eq!(bounds, found.bounds);
        let mut entries: Vec<Record> = Vec::new();
        loop {
            let next = entries.last().map_or(bounds.start_index, |last| last.index).next();
            let limit = ReadLimit { max_bytes: 500, max_records: 3 };
            let read = wal.read(*group, next, limit).unwrap();
            if read.is_empty() {
                break;
            }
            entries.extend(read.into_iter().map(|stored| stored.record));
        }
        let view = View {
            start_index: bounds.start_index,
            start_term: bounds.start_term,
            start_offset: bounds.start_offset,
            last_index: bounds.last_index,
            last_term: bounds.last_term,
            next_offset: bounds.next_offset,
            start: found.start.as_ref().map(|stored| stored.record.clone()),
            checkpoint: found.checkpoint.as_ref().map(|stored| stored.record.clone()),
            entries,
        };
        views.insert(*group, view);
    }
    views
}

fn check_lookups(wal: &Wal, views: &BTreeMap<GroupId, View>) {
    for (group, view) in views {
        for entry in &view.entries {
            assert_eq!(wal.term_at(*group, entry.index).unwrap(), Some(entry.term));
        }
        assert_eq!(wal.term_at(*group, view.start_index).unwrap(), Some(view.start_term));
        assert_eq!(wal.term_at(*group, view.last_index.next()).unwrap(), None);
        let first = |matches: &dyn Fn(&&Record) -> bool| view.entries.iter().find(matches).map(|e| e.index);
        for offset in view.start_offset.0..=view.next_offset.0 {
            let expected = first(&|entry| entry.next_offset() > Offset(offset));
            assert_eq!(wal.index_at_offset(*group, Offset(offset)).unwrap(), expected);
        }
        for timestamp_ms in 0..51 {
            let expected = first(&|entry| entry.offset_count > 0 && entry.max_timestamp_ms >= timestamp_ms);
            assert_eq!(wal.index_at_timestamp(*group, Index(0), timestamp_ms).unwrap(), expected);
            let middle = Index(view.start_index.0.midpoint(view.last_index.0));
            let expected = first(&|entry| {
                entry.index >= middle && entry.offset_count > 0 && entry.max_timestamp_ms >= timestamp_ms
            });
            assert_eq!(wal.index_at_timestamp(*group, middle, timestamp_ms).unwrap(), expected);
        }
        for end in [view.next_offset, Offset(view.start_offset.0.midpoint(view.next_offset.0))] {
            let counts = |entry: &Record| entry.offset_count > 0 && entry.next_offset() <= end;
            let counting = view.entries.iter().filter(|entry| counts(entry));
            let largest = counting.map(|entry| entry.max_timestamp_ms).max();
            let expected = first(&|entry| counts(entry) && Some(entry.max_timestamp_ms) == largest);
            assert_eq!(wal.index_of_max_timestamp(*group, end).unwrap(), expected);
        }
    }
}
