//! Damaged entries are put back as another replica has them, and stay there whatever happens to the log.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

use std::sync::Arc;

use bytes::Bytes;
use helix_wal::disk::{Crash, Disk, FaultyDisk};
use helix_wal::{
    DamagedRange, Durability, GroupId, Index, Offset, Payload, ReadError, ReadLimit, Record, RecordKind,
    Recovered, RepairError, Term, Wal, WalOptions, inspect,
};
use proptest::prelude::*;

const ENTRIES: u64 = 24;
const GROUPS: u64 = 3;
/// Of group 2: what lies before has been trimmed.
const TRIMMED: u64 = 6;
const ALL: ReadLimit = ReadLimit { max_bytes: u64::MAX, max_records: 1000 };

fn open(disk: &FaultyDisk, trust_unsynced: bool) -> (Wal, Recovered) {
    open_with(disk, trust_unsynced, 4096)
}

fn open_with(disk: &FaultyDisk, trust_unsynced: bool, segment_bytes: u64) -> (Wal, Recovered) {
    let options = WalOptions { segment_bytes, trust_unsynced, ..WalOptions::default() };
    Wal::open_stepped(Arc::new(disk.clone()), options).unwrap()
}

fn term(index: u64) -> Term {
    Term(if index == 0 { 0 } else { 1 + index / 5 })
}

fn record(group: u64, kind: RecordKind, index: u64) -> Record {
    let size = usize::try_from(index * 31 + group * 7).unwrap() % 300;
    let mut payload = [group.to_be_bytes(), index.to_be_bytes()].concat();
    payload.resize(16 + size, 0xAB);
    Record {
        group: GroupId(group),
        kind,
        index: Index(index),
        term: term(index),
        prev_term: term(index.saturating_sub(1)),
        base_offset: Offset(index.saturating_sub(1)),
        offset_count: 1,
        max_timestamp_ms: index.cast_signed(),
        payload: Payload::from_chunks(vec![Bytes::from(payload)]),
    }
}

fn entry(group: u64, index: u64) -> Record {
    record(group, RecordKind::Entry { tag: 3 }, index)
}

fn append(wal: &Wal, records: Vec<Record>) {
    wal.append(records, Durability::PageCache, |outcome| outcome.unwrap());
    wal.step_until_idle();
}

/// Three groups over several segments, of which the oldest are rewritten and the last one holds a quarter of the entries.
fn log(closed: bool) -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    for index in 1..=ENTRIES / 4 * 3 {
        append(&wal, (1..=GROUPS).map(|group| entry(group, index)).collect());
        if index == ENTRIES / 2 {
            let start = record(2, RecordKind::Start, TRIMMED);
            append(&wal, vec![Record { base_offset: Offset(TRIMMED), offset_count: 0, ..start }]);
            wal.reclaim(&|_| Index(index)).unwrap();
        }
    }
    wal.close().unwrap();
    let (wal, _) = open_with(&disk, true, 1 << 16);
    for index in ENTRIES / 4 * 3 + 1..=ENTRIES {
        append(&wal, (1..=GROUPS).map(|group| entry(group, index)).collect());
    }
    if closed {
        wal.close().unwrap();
    } else {
        wal.sync_now().unwrap();
        drop(wal);
        disk.crash(Crash::Process);
    }
    disk
}

/// Everything that should be readable, as one of these says of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Census {
    whole: u64,
    damaged: Vec<(u64, u64)>,
}

/// Reads every entry that the log claims to have.
fn census(wal: &Wal, recovered: &Recovered) -> Census {
    let mut census = Census::default();
    for group in 1..=GROUPS {
        let Some(bounds) = wal.bounds(GroupId(group)) else { continue };
        if recovered.contradictory.contains(&GroupId(group)) {
            continue;
        }
        for index in bounds.start_index.0 + 1..=bounds.last_index.0 {
            let one = ReadLimit { max_bytes: 1, max_records: 1 };
            match wal.read(GroupId(group), Index(index), one) {
                Ok(read) => {
                    assert_eq!(read[0].record, entry(group, index));
                    census.whole += 1;
                }
                Err(ReadError::Damaged { .. }) => census.damaged.push((group, index)),
                Err(error) => panic!("{error}"),
            }
        }
    }
    census
}

/// What another replica would do: gives the entries of each damaged range, all of it at once. Returns what could not be proved.
fn repair_all(wal: &Wal) -> Result<Vec<DamagedRange>, RepairError> {
    let mut unproved = Vec::new();
    for group in (1..=GROUPS).map(GroupId) {
        let Some(bounds) = wal.bounds(group) else { continue };
        let mut from = bounds.start_index.next();
        while from <= bounds.last_index {
            let damaged = wal.find_damage(group, from)?;
            for range in &damaged {
                let records: Vec<_> =
                    (range.first.0..=range.last.0).map(|index| entry(group.0, index)).collect();
                match wal.repair(&records) {
                    Ok(count) => assert_eq!(count, records.len() as u64),
                    Err(RepairError::Unproven) => unproved.push(*range),
                    Err(error) => return Err(error),
                }
            }
            from = damaged.last().map_or(from, |range| range.last).next();
        }
    }
    Ok(unproved)
}

fn segments(disk: &FaultyDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".wal"));
    names.sort();
    names
}

/// The place of some bytes in the segments.
fn find(disk: &FaultyDisk, bytes: &[u8]) -> (String, u64) {
    let place = |name: &String| {
        let contents = disk.contents(name).unwrap();
        contents.windows(bytes.len()).position(|window| window == bytes).map(|at| (name.clone(), at as u64))
    };
    segments(disk).iter().find_map(place).expect("the bytes are in some segment")
}

/// Damages the payload of an entry.
fn damage_payload(disk: &FaultyDisk, group: u64, index: u64) {
    let (name, position) = find(disk, &entry(group, index).payload.to_bytes());
    assert!(disk.flip_bit(&name, position + 2, 4));
}

/// Damages the header in front of it: nobody can say any more whose it is.
fn damage_header(disk: &FaultyDisk, group: u64, index: u64) {
    let (name, position) = find(disk, &entry(group, index).payload.to_bytes());
    assert!(disk.flip_bit(&name, position - 90, 4));
}

#[test]
fn damage_in_a_sealed_segment_is_found_by_reading_and_repaired_for_good() {
    let disk = log(true);
    for index in [7, 20, 21, 23] {
        damage_payload(&disk, 1, index);
    }
    let (wal, recovered) = open(&disk, false);
    assert_eq!(recovered.damage, [], "sealed segments are not read at the start");
    assert!(matches!(wal.read(GroupId(1), Index(20), ALL), Err(ReadError::Damaged { index: Index(20), .. })));
    let found = wal.find_damage(GroupId(1), Index(19)).unwrap();
    let range = |first, last| DamagedRange { group: GroupId(1), first: Index(first), last: Index(last) };
    assert_eq!(found, [range(20, 21), range(23, 23)]);
    assert_eq!(repair_all(&wal).unwrap(), []);
    let whole = census(&wal, &recovered);
    assert_eq!(whole, Census { whole: 3 * ENTRIES - TRIMMED, damaged: vec![] });
    assert_eq!(wal.read(GroupId(1), Index(1), ALL).unwrap().len() as u64, ENTRIES);

    // The log goes on, is reclaimed, dies and comes back.
    append(&wal, vec![entry(1, ENTRIES + 1)]);
    wal.reclaim(&|_| Index(ENTRIES)).unwrap();
    wal.sync_now().unwrap();
    drop(wal);
    for crash in [Crash::Process, Crash::Machine] {
        disk.crash(crash);
        let (wal, recovered) = open(&disk, false);
        assert_eq!((&recovered.damage[..], &recovered.missing[..]), (&[][..], &[][..]));
        assert_eq!(census(&wal, &recovered).damaged, []);
        assert_eq!(wal.read(GroupId(1), Index(1), ALL).unwrap().len() as u64, ENTRIES + 1);
    }
}

#[test]
fn entries_whose_headers_are_lost_are_repaired_too() {
    let disk = log(false);
    damage_header(&disk, 3, ENTRIES - 1);
    damage_header(&disk, 1, ENTRIES - 1);
    let (wal, recovered) = open(&disk, true);
    let missing =
        |group, first| DamagedRange { group: GroupId(group), first: Index(first), last: Index(first) };
    assert_eq!(recovered.missing, [missing(1, ENTRIES - 1), missing(3, ENTRIES - 1)]);
    assert_eq!(recovered.doubtful, [GroupId(1), GroupId(2), GroupId(3)]);
    assert_eq!(wal.term_at(GroupId(1), Index(ENTRIES - 1)).unwrap(), Some(term(ENTRIES - 1)));
    let lookup = wal.index_at_offset(GroupId(1), Offset(ENTRIES - 2));
    assert!(
        matches!(lookup, Err(ReadError::Damaged { .. })),
        "what is missing is not passed over: {lookup:?}"
    );
    assert_eq!(wal.index_at_offset(GroupId(1), Offset(ENTRIES - 1)).unwrap(), Some(Index(ENTRIES)));
    assert!(wal.index_of_max_timestamp(GroupId(1), Offset(u64::MAX)).is_err());
    assert_eq!(repair_all(&wal).unwrap(), []);
    assert_eq!(census(&wal, &recovered).damaged, []);
    append(&wal, (1..=GROUPS).map(|group| entry(group, ENTRIES + 1)).collect());
    wal.sync_now().unwrap();
    drop(wal);
    disk.crash(Crash::Machine);
    let (wal, recovered) = open(&disk, false);
    assert_eq!((&recovered.missing[..], &recovered.doubtful[..]), (&[][..], &[][..]), "all is newer than it");
    assert_eq!(census(&wal, &recovered).damaged, []);
}

#[test]
fn what_was_not_there_is_not_put_there() {
    let disk = log(false);
    damage_payload(&disk, 1, 20);
    damage_header(&disk, 3, 22);
    let (wal, _) = open(&disk, true);
    let refused = |records: &[Record]| {
        let refused = wal.repair(records);
        assert!(matches!(refused, Err(RepairError::Misfit(_))), "{refused:?}");
    };
    refused(&[Record { term: Term(9), ..entry(1, 20) }]);
    refused(&[Record { payload: Payload::empty(), ..entry(1, 20) }]);
    refused(&[Record { term: Term(9), ..entry(3, 22) }]);
    refused(&[Record { prev_term: Term(1), ..entry(3, 22) }]);
    refused(&[Record { base_offset: Offset(99), ..entry(1, 20) }]);
    refused(&[Record { offset_count: 2, ..entry(1, 20) }]);
    refused(&[Record { max_timestamp_ms: 99, ..entry(1, 20) }]);
    refused(&[record(1, RecordKind::Checkpoint, 20)]);
    refused(&[entry(1, 20), entry(1, 22)]);
    refused(&[entry(1, 20), entry(2, 21)]);
    refused(&[entry(1, 20), Record { prev_term: Term(1), ..entry(1, 21) }]);
    refused(&[Record { prev_term: Term(1), ..entry(1, 20) }]);
    assert_eq!(wal.repair(&[]).unwrap(), 0);
    let unknown = wal.repair(&[entry(9, 1)]);
    assert!(matches!(unknown, Err(RepairError::Read(ReadError::UnknownGroup(GroupId(9))))), "{unknown:?}");
    refused(&[entry(1, ENTRIES + 1)]);
    assert_eq!(wal.repair(&[entry(1, 19)]).unwrap(), 0, "it is whole");
    assert_eq!(wal.repair(&[entry(1, 19), entry(1, 20), entry(1, 21)]).unwrap(), 1);
    assert_eq!(wal.repair(&[entry(3, 22)]).unwrap(), 1);
}

#[test]
fn the_terms_of_lost_entries_are_known_where_both_ends_agree() {
    let disk = log(false);
    for (group, index) in [(1, 21), (1, 22), (3, 19), (3, 20)] {
        damage_header(&disk, group, index);
    }
    let (wal, recovered) = open(&disk, true);
    let missing =
        |group, first, last| DamagedRange { group: GroupId(group), first: Index(first), last: Index(last) };
    assert_eq!(recovered.missing, [missing(1, 21, 22), missing(3, 19, 20)]);
    let term_at = |group, index| wal.term_at(GroupId(group), Index(index));
    assert_eq!((term_at(1, 21).unwrap(), term_at(1, 22).unwrap()), (Some(term(21)), Some(term(22))));
    assert_eq!(term_at(3, 20).unwrap(), Some(term(20)), "its successor knows");
    let between = term_at(3, 19);
    assert!(
        matches!(between, Err(ReadError::Damaged { index: Index(19), .. })),
        "the term changes: {between:?}"
    );
    let unproven = wal.repair(&[entry(3, 19)]);
    assert!(matches!(unproven, Err(RepairError::Unproven)), "{unproven:?}");
    assert_eq!(wal.find_damage(GroupId(3), Index(1)).unwrap(), []);
    assert_eq!(wal.find_damage(GroupId(3), Index(20)).unwrap(), [missing(3, 19, 20)]);
    assert_eq!(wal.repair(&[entry(3, 19), entry(3, 20)]).unwrap(), 2);
    assert_eq!(wal.repair(&[entry(1, 21)]).unwrap(), 1);
    assert_eq!(wal.repair(&[entry(1, 22)]).unwrap(), 1);
}

#[test]
fn a_repaired_log_can_begin_anew() {
    let disk = log(true);
    damage_payload(&disk, 1, 20);
    let (wal, _) = open(&disk, false);
    assert_eq!(repair_all(&wal).unwrap(), []);
    let start = Record { term: Term(0), ..record(1, RecordKind::Start, 0) };
    let other = Record { term: Term(30), ..entry(1, 1) };
    append(&wal, vec![start, other.clone()]);
    wal.close().unwrap();
    let (wal, _) = open(&disk, false);
    let read = wal.read(GroupId(1), Index(1), ALL).unwrap();
    assert_eq!(read.iter().map(|stored| &stored.record).collect::<Vec<_>>(), [&other]);
}

#[test]
fn many_repairs_become_one_segment() {
    let disk = log(true);
    let (wal, recovered) = open(&disk, false);
    for index in 13..ENTRIES {
        damage_payload(&disk, 1, index);
        assert_eq!(repair_all(&wal).unwrap(), []);
    }
    let before = segments(&disk).len();
    wal.reclaim(&|_| Index(ENTRIES)).unwrap();
    assert!(segments(&disk).len() < before - 8, "{} segments of {before} are left", segments(&disk).len());
    assert_eq!(census(&wal, &recovered).damaged, []);
    drop(wal);
    disk.crash(Crash::Machine);
    let (wal, recovered) = open(&disk, false);
    assert_eq!(census(&wal, &recovered).damaged, []);
}

/// A byte of one of the segments, chosen among all of them.
fn place(disk: &FaultyDisk, at: prop::sample::Index) -> (String, u64) {
    let names = segments(disk);
    let mut position = at.index(names.iter().map(|name| disk.contents(name).unwrap().len()).sum());
    for name in names {
        let len = disk.contents(&name).unwrap().len();
        if position < len {
            return (name, position as u64);
        }
        position -= len;
    }
    unreachable!("the index lies below the sum of the lengths")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is damaged: what can be repaired reads as it was, for good, and a crash within the repair loses nothing.
    #[test]
    fn everything_that_is_known_to_be_missing_comes_back(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1..200_usize), 1..6),
        closed: bool,
        trust_unsynced: bool,
        stop_after in 0..60_u64,
        machine: bool,
    ) {
        let disk = log(closed);
        for (at, byte, len) in damages {
            let (name, position) = place(&disk, at);
            let left = disk.contents(&name).unwrap().len() - usize::try_from(position).unwrap();
            let file = disk.open(&name).unwrap();
            file.write_at(&vec![byte; len.min(left)], position).unwrap();
            file.sync_data().unwrap();
        }
        disk.crash(Crash::Process);
        let (wal, recovered) = open(&disk, trust_unsynced);
        let before = census(&wal, &recovered);
        disk.stop_after(stop_after);
        let outcome = repair_all(&wal);
        prop_assert!(outcome.is_ok() || disk.is_stopped(), "{:?}", outcome);
        drop(wal);
        disk.crash(if machine { Crash::Machine } else { Crash::Process });

        let (wal, recovered) = open(&disk, !machine);
        let after = census(&wal, &recovered);
        prop_assert_eq!(after.whole + after.damaged.len() as u64, before.whole + before.damaged.len() as u64);
        prop_assert!(after.whole >= before.whole);
        let unproved = repair_all(&wal).unwrap();
        let unproved = |group, index| {
            unproved.iter().any(|range| range.group == GroupId(group) && (range.first..=range.last).contains(&Index(index)))
        };
        for _ in 0..2 {
            let left = census(&wal, &recovered).damaged;
            prop_assert!(left.iter().all(|(group, index)| unproved(*group, *index)), "still damaged: {:?}", left);
            wal.reclaim(&|_| Index(ENTRIES)).unwrap();
        }
        inspect::verify(&disk).unwrap();
        drop(wal);
        disk.crash(Crash::Machine);
        let (wal, recovered) = open(&disk, false);
        let left = census(&wal, &recovered).damaged;
        prop_assert!(left.iter().all(|(group, index)| unproved(*group, *index)), "damaged again: {:?}", left);
    }
}

/// Of several holes each is the one that it is, and the terms around it are its own.
#[test]
fn of_two_holes_each_has_its_own_ends() {
    let disk = log(false);
    for index in [20, 22, 24] {
        damage_header(&disk, 1, index - 1);
    }
    let (wal, recovered) = open(&disk, true);
    let missing = |index| DamagedRange { group: GroupId(1), first: Index(index), last: Index(index) };
    assert_eq!(recovered.missing, [missing(19), missing(21), missing(23)]);
    for index in 19..=24 {
        assert_eq!(wal.term_at(GroupId(1), Index(index)).unwrap(), Some(term(index)), "{index}");
    }
    for index in [23, 21, 19] {
        assert_eq!(wal.repair(&[entry(1, index)]).unwrap(), 1);
    }
    let lsns: Vec<_> = wal.read(GroupId(1), Index(1), ALL).unwrap().iter().map(|stored| stored.lsn).collect();
    assert!(lsns.is_sorted_by(|one, next| one < next), "{lsns:?}");
}

/// What is put into a hole lies where it was in the order of everything that was ever written.
#[test]
fn repaired_entries_have_numbers_in_their_order() {
    let disk = log(false);
    for index in 19..=22 {
        damage_header(&disk, 1, index);
    }
    let (wal, _) = open(&disk, true);
    assert_eq!(repair_all(&wal).unwrap(), []);
    let lsns = |wal: &Wal| -> Vec<_> {
        wal.read(GroupId(1), Index(1), ALL).unwrap().iter().map(|stored| stored.lsn).collect()
    };
    let repaired = lsns(&wal);
    assert_eq!(repaired.len() as u64, ENTRIES);
    assert!(repaired.is_sorted_by(|one, next| one < next), "{repaired:?}");
    wal.close().unwrap();
    let (wal, recovered) = open(&disk, false);
    assert_eq!(recovered.missing, []);
    assert_eq!(lsns(&wal), repaired);
}

/// The index entries of a sealed segment and the headers of its frames are lost: all that is known is which entries there were.
#[test]
fn entries_of_which_only_the_number_is_left_come_back() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open_with(&disk, true, 1 << 16);
    append(&wal, (1..=8).map(|index| entry(2, index)).collect());
    append(&wal, (1..=8).map(|index| entry(1, index)).collect());
    wal.close().unwrap();
    let name = segments(&disk).remove(0);
    let whole = disk.contents(&name).unwrap();
    let frames_end = {
        let (_, position) = find(&disk, &entry(1, 8).payload.to_bytes());
        position + entry(1, 8).payload.len() as u64
    };
    for index in 1..=8 {
        damage_header(&disk, 1, index);
    }
    // The lines of the index, which stand right behind the frames, two groups of eight.
    for line in 0..16 {
        assert!(disk.flip_bit(&name, frames_end.next_multiple_of(8) + 48 * line + 20, 1));
    }
    assert!(whole.len() as u64 > frames_end + 16 * 48);
    let (wal, recovered) = open_with(&disk, false, 1 << 16);
    assert_eq!(wal.bounds(GroupId(1)).unwrap().last_index, Index(8), "{:?}", recovered.damage);
    assert!(matches!(wal.read(GroupId(1), Index(3), ALL), Err(ReadError::Damaged { .. })));
    let records: Vec<_> = (1..=8).map(|index| entry(1, index)).collect();
    assert_eq!(wal.repair(&records).unwrap(), 8);
    let read = |wal: &Wal| -> Vec<Record> {
        let stored = wal.read(GroupId(1), Index(1), ALL).unwrap();
        assert!(stored.is_sorted_by(|one, next| one.lsn < next.lsn));
        stored.into_iter().map(|stored| stored.record).collect()
    };
    assert_eq!(read(&wal), records);
    wal.close().unwrap();
    let (wal, _) = open_with(&disk, false, 1 << 16);
    assert_eq!(read(&wal), records, "and stay");
}
