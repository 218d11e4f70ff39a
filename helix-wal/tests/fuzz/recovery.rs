//! Whatever lies in the directory of a log: it opens, everything in it can be asked for, nothing panics, and no length on
//! the disk makes it allocate out of proportion.
//!
//! An input is a little program: it appends records, crashes, and writes bytes into the files, with or without correcting
//! the checksums. So the fuzzer reaches both the search for whole frames in garbage and what comes behind the checksums.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use helix_wal::disk::{Crash, Disk, FaultyDisk};
use helix_wal::{
    Bounds, Durability, GroupId, Index, Offset, OpenError, Payload, ReadLimit, Record, RecordKind, Recovered,
    Term, Wal, WalOptions, inspect,
};

use crate::allocations::within;
use crate::checksums;
use crate::target::Target;

pub(crate) const TARGET: Target = Target { name: "recovery", run, seeds };

/// Four groups are enough for every rule about them.
const GROUPS: u64 = 4;
/// The longest program.
const MAX_STEPS: usize = 64;
/// Reads of one group at the end.
const MAX_READS: u64 = 40;

const TRUST_UNSYNCED: u8 = 1;
const CORRECT_CHECKSUMS: u8 = 2;
const MACHINE_CRASH: u8 = 4;

const APPEND: u8 = 0;
const IDLE: u8 = 1;
const RECLAIM: u8 = 2;
const OVERWRITE: u8 = 3;
const REPLACE_FILE: u8 = 4;
const CRASH: u8 = 5;
const CLOSE: u8 = 6;
const STEPS: u8 = 7;

fn run(input: &[u8]) {
    let mut program = Program { rest: input };
    let Some(flags) = program.byte() else { return };
    let mut log = Log { disk: FaultyDisk::new(1), flags, wal: None };
    for _ in 0..MAX_STEPS {
        if log.step(&mut program).is_none() {
            break;
        }
    }
    log.check();
}

/// What is left of the input.
struct Program<'a> {
    rest: &'a [u8],
}

impl Program<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn short(&mut self) -> Option<usize> {
        Some(usize::from(u16::from_le_bytes([self.byte()?, self.byte()?])))
    }

    /// As many of `count` bytes as are left.
    fn bytes(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

struct Log {
    disk: FaultyDisk,
    flags: u8,
    wal: Option<Wal>,
}

impl Log {
    /// One step of the program; `None` at its end, or when the log can't be opened.
    fn step(&mut self, program: &mut Program<'_>) -> Option<()> {
        match program.byte()? % STEPS {
            APPEND => self.append(program.byte()?, program.byte()?)?,
            IDLE => self.open()?.step_until_idle(),
            RECLAIM => {
                let committed = u64::from(program.byte()?);
                // Out of space or a damaged index: an answer like any other.
                let _ = self.open()?.reclaim(&|_| Index(committed));
            }
            OVERWRITE => {
                let (file, position, count) = (program.byte()?, program.short()?, program.byte()?);
                self.overwrite(file, position, program.bytes(usize::from(count)));
            }
            REPLACE_FILE => {
                let (number, count) = (u64::from(program.byte()?), program.short()?);
                self.replace_file(number, program.bytes(count));
            }
            CRASH => self.crash(),
            _ => drop(self.wal.take().map(|wal| wal.close())),
        }
        Some(())
    }

    /// The running log, opened if need be.
    fn open(&mut self) -> Option<&Wal> {
        if self.wal.is_none() {
            self.wal = Some(self.recover()?.0);
        }
        self.wal.as_ref()
    }

    fn recover(&self) -> Option<(Wal, Recovered)> {
        let trust_unsynced = self.flags & TRUST_UNSYNCED != 0;
        let options = WalOptions { segment_bytes: 4096, trust_unsynced, ..WalOptions::default() };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        match within(self.fair_share(), || Wal::open_stepped(disk, options)) {
            Ok(opened) => Some(opened),
            Err(OpenError::Version { .. }) => None,
            Err(error) => panic!("a disk that works was refused: {error}"),
        }
    }

    /// What reading everything once may allocate.
    fn fair_share(&self) -> usize {
        let names = self.disk.list().unwrap();
        let bytes: usize =
            names.iter().filter_map(|name| self.disk.contents(name)).map(|file| file.len()).sum();
        (8 << 20) + 64 * bytes
    }

    fn append(&mut self, what: u8, size: u8) -> Option<()> {
        let wal = self.open()?;
        let group = GroupId(u64::from(what) % GROUPS);
        let record = next_record(wal, group, what / GROUPS as u8 % 8, usize::from(size));
        // What does not fit is refused, which is fine.
        wal.append(vec![record], Durability::PageCache, drop);
        Some(())
    }

    fn crash(&mut self) {
        self.wal = None;
        let machine = self.flags & MACHINE_CRASH != 0;
        self.disk.crash(if machine { Crash::Machine } else { Crash::Process });
    }

    fn overwrite(&mut self, file: u8, position: usize, bytes: &[u8]) {
        self.crash();
        let mut names = self.disk.list().unwrap();
        names.sort();
        let Some(name) = names.get(usize::from(file) % names.len().max(1)) else { return };
        let length = self.disk.contents(name).map_or(0, |file| file.len());
        let position = position % length.max(1);
        self.disk.open(name).unwrap().write_at(bytes, position as u64).unwrap();
        self.correct_checksums(name);
    }

    fn replace_file(&mut self, number: u64, bytes: &[u8]) {
        self.crash();
        let name = format!("{number:016x}.wal");
        let file = self.disk.open(&name).or_else(|_| self.disk.create(&name, 0)).unwrap();
        file.set_len(0).unwrap();
        file.write_at(bytes, 0).unwrap();
        self.correct_checksums(&name);
    }

    fn correct_checksums(&self, name: &str) {
        let segment = name.split_once('.').and_then(|(number, _)| u64::from_str_radix(number, 16).ok());
        let (Some(segment), Some(mut bytes)) = (segment, self.disk.contents(name)) else { return };
        if self.flags & CORRECT_CHECKSUMS != 0 {
            checksums::correct(&mut bytes, segment);
            self.disk.open(name).unwrap().write_at(&bytes, 0).unwrap();
        }
    }

    /// Looks at everything, goes on, and looks again after another start.
    fn check(&mut self) {
        self.crash();
        within(2 * self.fair_share(), || {
            inspect::verify(&self.disk).unwrap();
            inspect::dump(&self.disk, inspect::DumpOptions::default(), &mut std::io::sink()).unwrap();
        });
        let Some((wal, recovered)) = self.recover() else { return };
        let share = MAX_READS as usize * self.fair_share();
        within(share, || recovered.groups.keys().for_each(|group| ask(&wal, *group)));
        drop(wal);
        self.disk.crash(Crash::Process);
        let (wal, again) = self.recover().expect("a log that could be opened can be opened again");
        assert_eq!(bounds(&recovered), bounds(&again), "a second start finds something else");
        recovered.groups.keys().for_each(|group| put_back(&wal, *group));
        for group in (0..GROUPS).map(GroupId) {
            wal.append(vec![next_record(&wal, group, 0, 10)], Durability::Synced, drop);
        }
        wal.step_until_idle();
        wal.close().unwrap();
    }
}

fn bounds(recovered: &Recovered) -> BTreeMap<GroupId, Bounds> {
    recovered.groups.iter().map(|(group, found)| (*group, found.bounds)).collect()
}

/// A record that fits the group's log in most cases.
fn next_record(wal: &Wal, group: GroupId, variant: u8, size: usize) -> Record {
    let (last_index, last_term, next_offset) =
        wal.bounds(group).map_or((Index(0), Term(0), Offset(0)), |bounds| {
            (bounds.last_index, bounds.last_term, bounds.next_offset)
        });
    let term = if variant.is_multiple_of(2) { Term(last_term.0.max(1)) } else { last_term.next() };
    let entry = RecordKind::Entry { tag: variant };
    let (kind, index, term, prev_term) = match variant {
        0 | 1 => (entry, last_index.next(), term, last_term),
        2 | 3 => (entry, last_index, term, last_term),
        4 => (RecordKind::Checkpoint, last_index, last_term, last_term),
        5 => (RecordKind::Start, Index(last_index.0.saturating_add(3)), term, last_term),
        6 => (RecordKind::Start, last_index, last_term, last_term),
        _ => (RecordKind::Delete, last_index, last_term, last_term),
    };
    Record {
        group,
        kind,
        index,
        term,
        prev_term,
        base_offset: next_offset,
        offset_count: u32::from(variant),
        max_timestamp_ms: i64::from(variant) - 1,
        payload: Payload::from_chunks(vec![Bytes::from(vec![variant; size * 8])]),
    }
}

/// Asks for everything that can be asked about a group.
fn ask(wal: &Wal, group: GroupId) {
    let bounds = wal.bounds(group).expect("the group was recovered");
    let limit = ReadLimit { max_bytes: 1 << 20, max_records: 16 };
    let mut from = bounds.start_index.next();
    for _ in 0..MAX_READS {
        let Ok(read) = wal.read(group, from, limit) else { break };
        let Some(last) = read.last() else { break };
        from = last.record.index.next();
    }
    for index in [bounds.start_index, bounds.start_index.next(), bounds.last_index, bounds.last_index.next()]
    {
        let _ = wal.read(group, index, limit);
        let _ = wal.term_at(group, index);
    }
    for offset in [bounds.start_offset, bounds.next_offset.previous(), bounds.next_offset] {
        let _ = wal.index_at_offset(group, offset);
    }
    for timestamp_ms in [i64::MIN, 0, i64::MAX] {
        let _ = wal.index_at_timestamp(group, bounds.start_index, timestamp_ms);
        let _ = wal.index_written_since(group, timestamp_ms);
    }
    let _ = wal.find_damage(group, bounds.start_index.next());
    let _ = wal.index_of_max_timestamp(group, bounds.next_offset);
    let _ = wal.index_keeping(group, bounds.bytes / 2);
}

/// Offers something for everything that is damaged: what does not fit is refused, and nothing else happens.
fn put_back(wal: &Wal, group: GroupId) {
    let Some(mut from) = wal.bounds(group).map(|bounds| bounds.start_index.next()) else { return };
    for _ in 0..MAX_READS {
        let Ok(damaged) = wal.find_damage(group, from) else { return };
        let Some(last) = damaged.last() else { return };
        for range in &damaged {
            let record = Record { index: range.last, ..next_record(wal, group, 0, 10) };
            let _ = wal.repair(&[record]);
        }
        from = last.last.next();
    }
}

/// Programs that append, crash and damage, and whole segment files.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let write: Vec<u8> = (0..24)
        .flat_map(|n: u8| [APPEND, n.wrapping_mul(5), 20 + n, if n.is_multiple_of(3) { IDLE } else { CRASH }])
        .collect();
    let damage =
        [OVERWRITE, 0, 100, 0, 4, 1, 2, 3, 4, OVERWRITE, 1, 0xb8, 0x0f, 8, 0xff, 0, 0, 0, 0, 0, 0, 1];
    for flags in 0..8 {
        seeds.push([&[flags][..], &write, &[IDLE, CLOSE, RECLAIM, 3], &damage].concat());
        seeds.extend(segments().into_iter().map(|(number, bytes)| {
            let length = u16::try_from(bytes.len()).unwrap().to_le_bytes();
            [&[flags, REPLACE_FILE, number], &length[..], &bytes, &[CRASH, APPEND, 0, 3]].concat()
        }));
    }
    seeds
}

/// The files of a closed log.
fn segments() -> Vec<(u8, Vec<u8>)> {
    let mut log = Log { disk: FaultyDisk::new(1), flags: TRUST_UNSYNCED, wal: None };
    for step in 0..18 {
        log.append(step * 3, 9).unwrap();
        log.open().unwrap().step_until_idle();
    }
    log.wal.take().unwrap().close().unwrap();
    let mut names = log.disk.list().unwrap();
    names.retain(|name| name.ends_with(".wal"));
    let number = |name: &str| u8::from_str_radix(&name[..16], 16).unwrap();
    names.iter().map(|name| (number(name), log.disk.contents(name).unwrap())).collect()
}
