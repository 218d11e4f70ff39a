//! Footers and directories: what was written, what was damaged, what cannot be.

use super::*;
use crate::disk::{Disk, FaultyDisk};
use crate::frame::FrameHeader;
use crate::payload::Payload;
use crate::record::{Record, RecordKind};
use proptest::prelude::*;

fn header(group: u64, kind: RecordKind, index: u64, term: u64, prev_term: u64, lsn: u64) -> FrameHeader {
    let record = Record {
        group: GroupId(group),
        kind,
        index: Index(index),
        term: Term(term),
        prev_term: Term(prev_term),
        base_offset: Offset(index * 10),
        offset_count: 10,
        max_timestamp_ms: index.cast_signed(),
        payload: Payload::empty(),
    };
    FrameHeader::of(&record, Lsn(lsn), Lsn(0), Lsn(if kind == RecordKind::Start { 1 } else { 0 }))
}

fn arbitrary_index() -> impl Strategy<Value = SegmentIndex> {
    let frame = (1..5_u64, 0..6_u8, 1..8_u64, 1..3_u64, 0..3_u64);
    prop::collection::vec(frame, 0..60).prop_map(|frames| {
        let mut index = SegmentIndex::default();
        for (at, (group, kind, number, term, prev_term)) in frames.into_iter().enumerate() {
            let kind = match kind {
                0 => RecordKind::Start,
                1 => RecordKind::Checkpoint,
                _ => RecordKind::Entry { tag: 3 },
            };
            index.add(&header(group, kind, number, term, prev_term, at as u64 + 1), 64 + at as u64 * 96);
        }
        index.damage = vec![
            DamageMeta { from: 1, to: 2, of: DamageOf::Unknown },
            DamageMeta { from: 3, to: 4, of: DamageOf::Entry(GroupId(5), Index(6)) },
            DamageMeta { from: 7, to: 8, of: DamageOf::State(GroupId(9)) },
        ];
        index
    })
}

proptest! {
    #[test]
    fn a_stored_footer_says_what_was_in_memory(index in arbitrary_index()) {
        let segment = SegmentId(11);
        let footer = index.encode(segment, 8192);
        let directory = &footer.directory;
        let file = FaultyDisk::new(1).create("x", 0).unwrap();
        footer.write(&*file).unwrap();
        let len = file.len_bytes().unwrap();
        let loaded = Directory::load(&*file, segment, len).unwrap();
        prop_assert_eq!(loaded.as_ref(), Some(directory));
        prop_assert_eq!(Directory::load(&*file, SegmentId(12), len).unwrap(), None);
        for summary in &directory.runs {
            let entries =
                load_entries(&*file, summary.entries_position, summary.count, summary.entries_crc).unwrap();
            let run = index.run_of(summary.group, summary.first).unwrap();
            prop_assert_eq!(entries.as_ref(), Some(&run.entries));
            prop_assert_eq!(summary.last(), run.last());
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(index in arbitrary_index(), at: prop::sample::Index) {
        let segment = SegmentId(11);
        let Footer { mut bytes, directory, .. } = index.encode(segment, 64);
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let file = FaultyDisk::new(1).create("x", 0).unwrap();
        file.write_at(&bytes, 64).unwrap();
        if let Some(loaded) = Directory::load(&*file, segment, file.len_bytes().unwrap()).unwrap() {
            prop_assert_eq!(&loaded, &directory);
            let damaged = loaded.runs.iter().filter(|run| {
                load_entries(&*file, run.entries_position, run.count, run.entries_crc).unwrap().is_none()
            });
            prop_assert_eq!(damaged.count(), 1);
        }
    }

    #[test]
    fn garbage_is_no_footer(bytes: Vec<u8>) {
        let file = FaultyDisk::new(1).create("x", 0).unwrap();
        file.write_at(&bytes, 0).unwrap();
        prop_assert_eq!(Directory::load(&*file, SegmentId(1), bytes.len() as u64).unwrap(), None);
    }
}

/// What is read back if that was written.
fn read_back<T>(encode: impl FnOnce(&mut Vec<u8>), decode: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    decode(&bytes)
}

const HIGHEST: u64 = QUANTITY_END - 1;

#[test]
fn entries_with_numbers_that_cannot_be_are_refused() {
    let read_back = |entry: EntryMeta| read_back(|out| entry.encode(out), EntryMeta::decode);
    let highest = EntryMeta {
        position: POSITION_END - 1,
        term: Term(HIGHEST),
        base_offset: Offset(HIGHEST),
        max_timestamp_ms: -1,
        lsn: Lsn(HIGHEST),
        offset_count: u32::MAX,
        payload_len: u32::MAX,
    };
    assert_eq!(read_back(highest), Some(highest));
    for beyond in [
        EntryMeta { position: POSITION_END, ..highest },
        EntryMeta { term: Term(QUANTITY_END), ..highest },
        EntryMeta { base_offset: Offset(QUANTITY_END), ..highest },
        EntryMeta { lsn: Lsn(QUANTITY_END), ..highest },
    ] {
        assert_eq!(read_back(beyond), None, "{beyond:?}");
    }
}

#[test]
fn runs_with_numbers_that_cannot_be_are_refused() {
    let read_back = |run: RunSummary| read_back(|out| run.encode(out), RunSummary::decode);
    let highest = RunSummary {
        group: GroupId(u64::MAX),
        first: Index(HIGHEST),
        count: u64::from(u32::MAX) - 1,
        prev_term: Term(HIGHEST),
        last_term: Term(HIGHEST),
        first_lsn: Lsn(HIGHEST),
        last_lsn: Lsn(HIGHEST),
        base_offset: Offset(HIGHEST),
        next_offset: Offset(HIGHEST),
        max_timestamp_ms: i64::MIN,
        bytes: POSITION_END - 1,
        entries_position: POSITION_END - 1,
        entries_crc: u32::MAX,
    };
    assert_eq!(read_back(highest), Some(highest));
    for beyond in [
        RunSummary { first: Index(QUANTITY_END), ..highest },
        RunSummary { count: 0, ..highest },
        RunSummary { count: u64::from(u32::MAX), ..highest },
        RunSummary { prev_term: Term(QUANTITY_END), ..highest },
        RunSummary { next_offset: Offset(QUANTITY_END), ..highest },
        RunSummary { bytes: POSITION_END, ..highest },
        RunSummary { entries_position: POSITION_END, ..highest },
    ] {
        assert_eq!(read_back(beyond), None, "{beyond:?}");
    }
}

#[test]
fn states_with_numbers_that_cannot_be_are_refused() {
    let read_back = |state: StateMeta| read_back(|out| state.encode(out), StateMeta::decode);
    let highest = StateMeta {
        group: GroupId(u64::MAX),
        kind: StateKind::Delete,
        index: Index(HIGHEST),
        term: Term(HIGHEST),
        base_offset: Offset(HIGHEST),
        lsn: Lsn(HIGHEST),
        floor_lsn: Lsn(HIGHEST),
        position: POSITION_END - 1,
        payload_len: 100,
    };
    for kind in [StateKind::Start, StateKind::Checkpoint, StateKind::Delete] {
        let state = StateMeta { kind, ..highest };
        assert_eq!(read_back(state), Some(state));
    }
    assert_eq!(highest.frame_bytes(), 96 + 104);
    for beyond in [
        StateMeta { position: POSITION_END, ..highest },
        StateMeta { index: Index(QUANTITY_END), ..highest },
        StateMeta { floor_lsn: Lsn(QUANTITY_END), ..highest },
    ] {
        assert_eq!(read_back(beyond), None, "{beyond:?}");
    }
}

#[test]
fn damage_ends_behind_its_beginning_and_within_a_file() {
    let read_back = |damage: DamageMeta| read_back(|out| damage.encode(out), DamageMeta::decode);
    for of in [DamageOf::Unknown, DamageOf::Entry(GroupId(5), Index(6)), DamageOf::State(GroupId(9))] {
        let damage = DamageMeta { from: POSITION_END - 1, to: POSITION_END - 1, of };
        assert_eq!(read_back(damage), Some(damage));
        assert_eq!(read_back(DamageMeta { to: POSITION_END - 2, ..damage }), None);
        assert_eq!(read_back(DamageMeta { to: POSITION_END, ..damage }), None);
    }
}

#[test]
fn the_newest_state_of_each_kind_is_kept() {
    let mut index = SegmentIndex::default();
    for (kind, lsn) in [(RecordKind::Start, 1), (RecordKind::Checkpoint, 2), (RecordKind::Start, 3)] {
        index.add(&header(1, kind, 0, 0, 0, lsn), 64 + lsn * 96);
    }
    let states = &index.encode(SegmentId(1), 4096).directory.states;
    let kinds: Vec<_> = states.iter().map(|state| (state.kind, state.lsn.0)).collect();
    assert_eq!(kinds, [(StateKind::Checkpoint, 2), (StateKind::Start, 3)]);
}

#[test]
fn a_directory_with_numbers_that_cannot_be_is_none() {
    let load = |directory: &Directory| {
        let mut bytes = Vec::new();
        directory.encode(SegmentId(1), 0, &mut bytes);
        let file = FaultyDisk::new(1).create("x", 0).unwrap();
        file.write_at(&bytes, 0).unwrap();
        Directory::load(&*file, SegmentId(1), bytes.len() as u64).unwrap()
    };
    let lsn = Lsn(HIGHEST);
    let highest =
        Directory { data_end: POSITION_END - 1, min_lsn: lsn, max_lsn: lsn, ..Directory::default() };
    assert_eq!(load(&highest).as_ref(), Some(&highest));
    assert_eq!(load(&Directory { data_end: POSITION_END, ..highest.clone() }), None);
    assert_eq!(load(&Directory { max_lsn: Lsn(QUANTITY_END), ..highest }), None);
}

#[test]
fn entries_at_the_end_of_a_file_are_read_and_beyond_it_are_none() {
    let mut index = SegmentIndex::default();
    index.add(&header(1, RecordKind::Entry { tag: 0 }, 1, 1, 0, 1), 64);
    let footer = index.encode(SegmentId(1), 8192);
    let run = footer.directory.runs[0];
    let file = FaultyDisk::new(1).create("x", 0).unwrap();
    file.write_at(&footer.bytes[..ENTRY_BYTES], 8192).unwrap();
    let load = |count| load_entries(&*file, 8192, count, run.entries_crc).unwrap();
    assert_eq!(load(1).map(|entries| entries.len()), Some(1));
    assert_eq!(load(2), None);
}
