//! Reading and looking up, over segments and their ends.

use super::*;
use helix_wal::without_timestamps;

/// Entries of terms 1, 1, 2, 2 in a sealed segment, the last of which is replaced in another one.
fn replaced_suffix(disk: &FaultyDisk) -> Wal {
    let (wal, _) = open(disk, true);
    let of = |index, term, prev_term| Record {
        term: Term(term),
        prev_term: Term(prev_term),
        ..entry(GROUP, index, 700)
    };
    append(&wal, vec![of(1, 1, 0), of(2, 1, 1), of(3, 2, 1), of(4, 2, 2)], Durability::PageCache).unwrap();
    wal.close().unwrap();
    let (wal, _) = open(disk, true);
    append(&wal, vec![of(3, 3, 1), of(4, 3, 3), of(5, 3, 3)], Durability::PageCache).unwrap();
    wal
}

#[test]
fn a_term_is_that_of_the_entry_in_force() {
    let disk = FaultyDisk::new(1);
    let wal = replaced_suffix(&disk);
    let term = |index| wal.term_at(GROUP, Index(index)).unwrap().map(Term::get);
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(term), [Some(0), Some(1), Some(1), Some(3), Some(3), Some(3), None]);
}

#[test]
fn a_read_ends_where_it_is_told_to_whatever_lies_between() {
    let disk = FaultyDisk::new(1);
    let wal = replaced_suffix(&disk);
    let check = |wal: &Wal| {
        let read = |from, max_bytes, max_records| {
            let records = wal.read(GROUP, Index(from), ReadLimit { max_bytes, max_records }).unwrap();
            records.iter().map(|stored| stored.record.index.get()).collect::<Vec<_>>()
        };
        assert_eq!(read(1, u64::MAX, 2), [1, 2]);
        assert_eq!(read(1, u64::MAX, 3), [1, 2, 3], "over two segments");
        assert_eq!(read(1, 2100, 9), [1, 2, 3]);
        assert_eq!(read(1, 2099, 9), [1, 2]);
        assert_eq!(read(2, 0, 0), [2], "one is always read");
        assert_eq!(read(6, 1, 1), [0; 0]);
    };
    check(&wal);
    wal.close().unwrap();
    check(&open(&disk, true).0);
}

#[test]
fn what_was_read_before_damage_is_given_and_then_the_damage_is_said() {
    let disk = FaultyDisk::new(1);
    let wal = replaced_suffix(&disk);
    wal.close().unwrap();
    let sealed = names(&disk, ".wal");
    // Of the second segment: a payload, or the index entries of all.
    for position in [64 + 100, 64 + 3 * 800 + 8] {
        let disk = disk.duplicate(2);
        assert!(disk.flip_bit(&sealed[1], position, 1));
        if position > 1000 {
            assert!(disk.flip_bit(&sealed[1], 64 + 20, 1), "and a header, so that they are not found again");
        }
        let (wal, _) = open(&disk, true);
        assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 2);
        assert!(matches!(wal.read(GROUP, Index(3), ALL), Err(ReadError::Damaged { .. })));
    }
}

/// Where offsets and timestamps are looked up: two sealed segments and one that is written to, and entries without records between.
fn timed(disk: &FaultyDisk) -> Wal {
    let of = |index, base_offset, offset_count, max_timestamp_ms| Record {
        base_offset: Offset(base_offset),
        offset_count,
        max_timestamp_ms,
        ..entry(GROUP, index, 10)
    };
    for records in [
        vec![of(1, 100, 5, 10), of(2, 105, 0, 99), of(3, 105, 5, 30)],
        vec![of(4, 110, 5, 20), of(5, 115, 5, 40), of(6, 120, 0, 99)],
    ] {
        let (wal, _) = open(disk, true);
        append(&wal, records, Durability::PageCache).unwrap();
        wal.close().unwrap();
    }
    let (wal, _) = open(disk, true);
    append(&wal, vec![of(7, 120, 5, 40), of(8, 125, 5, 35)], Durability::PageCache).unwrap();
    wal
}

#[test]
fn offsets_are_looked_up() {
    let wal = timed(&FaultyDisk::new(1));
    let at = |offset| wal.index_at_offset(GROUP, Offset(offset)).unwrap().map(Index::get);
    assert_eq!([0, 100, 104, 105, 109, 110].map(at), [Some(1), Some(1), Some(1), Some(3), Some(3), Some(4)]);
    assert_eq!([114, 115, 119, 120, 129, 130].map(at), [Some(4), Some(5), Some(5), Some(7), Some(8), None]);
    assert!(matches!(wal.index_at_offset(OTHER, Offset(0)), Err(ReadError::UnknownGroup(OTHER))));
}

#[test]
fn timestamps_are_looked_up() {
    let wal = timed(&FaultyDisk::new(1));
    let at = |timestamp_ms| wal.index_at_timestamp(GROUP, Index(0), timestamp_ms).unwrap().map(Index::get);
    assert_eq!(
        [0, 10, 11, 30, 31, 40, 41].map(at),
        [Some(1), Some(1), Some(3), Some(3), Some(5), Some(5), None]
    );
    assert_eq!(
        wal.index_of_max_timestamp(GROUP, Offset(u64::MAX)).unwrap(),
        Some(Index(5)),
        "the first that has it"
    );
    let start = Record { kind: RecordKind::Start, base_offset: Offset(120), ..entry(GROUP, 6, 0) };
    append(&wal, vec![start], Durability::PageCache).unwrap();
    assert_eq!(wal.index_of_max_timestamp(GROUP, Offset(u64::MAX)).unwrap(), Some(Index(7)));
    assert_eq!(wal.index_at_timestamp(GROUP, Index(0), 36).unwrap(), Some(Index(7)));
    assert_eq!(wal.index_at_offset(GROUP, Offset(0)).unwrap(), Some(Index(7)));
}

#[test]
fn what_has_no_timestamp_is_as_old_as_its_append() {
    let disk = FaultyDisk::new(1);
    let of = |index, base_offset, offset_count, max_timestamp_ms| Record {
        base_offset: Offset(base_offset),
        offset_count,
        max_timestamp_ms,
        ..entry(GROUP, index, 10)
    };
    let (wal, _) = open(&disk, true);
    // The third has no records at all.
    let records =
        vec![of(1, 0, 1, 20), of(2, 1, 1, without_timestamps(40)), of(3, 2, 0, -1), of(4, 2, 1, 30)];
    append(&wal, records, Durability::PageCache).unwrap();
    let check = |wal: &Wal| {
        let since = |ms| wal.index_written_since(GROUP, ms).unwrap().map(Index::get);
        assert_eq!([0, 20, 21, 40, 41].map(since), [Some(1), Some(1), Some(2), Some(2), None]);
        let at = |ms| wal.index_at_timestamp(GROUP, Index(0), ms).unwrap().map(Index::get);
        assert_eq!([0, 21, 31].map(at), [Some(1), Some(4), None], "nobody finds it by a timestamp");
        assert_eq!(wal.index_of_max_timestamp(GROUP, Offset(u64::MAX)).unwrap(), Some(Index(4)));
        assert_eq!(wal.index_of_max_timestamp(GROUP, Offset(2)).unwrap(), Some(Index(1)));
    };
    check(&wal);
    wal.close().unwrap();
    check(&open(&disk, true).0);
}

#[test]
fn as_much_as_is_to_be_kept_is_kept_in_whole_ranges() {
    let wal = timed(&FaultyDisk::new(1));
    let keeping = |bytes| wal.index_keeping(GROUP, bytes).unwrap().map(Index::get);
    // Each entry takes 96 bytes and 16 for its payload.
    let (last, all) = (2 * 112, 8 * 112);
    assert_eq!([1, last, last + 1, all, all + 1].map(keeping), [Some(7), Some(7), Some(4), Some(1), None]);
}

/// The numbers of a range are upper bounds: what they stand for may have been replaced.
#[test]
fn what_was_replaced_is_not_looked_up() {
    let disk = FaultyDisk::new(1);
    let of = |index, base_offset, offset_count, max_timestamp_ms, term, prev_term| Record {
        base_offset: Offset(base_offset),
        offset_count,
        max_timestamp_ms,
        term: Term(term),
        prev_term: Term(prev_term),
        ..entry(GROUP, index, 10)
    };
    for (records, last) in [
        (vec![of(1, 0, 1, 50, 1, 0), of(2, 1, 1, 20, 1, 1)], 2),
        // The last two are replaced below, and with them the highest timestamp and all these offsets.
        (vec![of(3, 2, 1, 40, 1, 1), of(4, 3, 100, 100, 1, 1), of(5, 103, 100, 100, 1, 1)], 5),
        (vec![of(4, 3, 1, 10, 2, 1), of(5, 4, 1, 10, 2, 2), of(6, 5, 1, 10, 2, 2)], 6),
    ] {
        let (wal, _) = open(&disk, true);
        append(&wal, records, Durability::PageCache).unwrap();
        assert_eq!(bounds(&wal, GROUP).last_index, Index(last));
        wal.close().unwrap();
    }
    let (wal, _) = open(&disk, true);
    let at = |offset| wal.index_at_offset(GROUP, Offset(offset)).unwrap().map(Index::get);
    assert_eq!([2, 3, 4, 5, 6, 50].map(at), [Some(3), Some(4), Some(5), Some(6), None, None]);
    assert_eq!(wal.index_of_max_timestamp(GROUP, Offset(u64::MAX)).unwrap(), Some(Index(1)));
    let at = |timestamp_ms| wal.index_at_timestamp(GROUP, Index(0), timestamp_ms).unwrap().map(Index::get);
    assert_eq!([10, 21, 41, 51].map(at), [Some(1), Some(1), Some(1), None]);
}

/// As above, where what is left of the range that was cut is as late as an earlier one.
#[test]
fn of_two_equal_timestamps_the_first_counts_whatever_range_it_is_in() {
    let disk = FaultyDisk::new(1);
    let of = |index, max_timestamp_ms, term, prev_term| Record {
        max_timestamp_ms,
        term: Term(term),
        prev_term: Term(prev_term),
        ..entry(GROUP, index, 10)
    };
    for records in [vec![of(1, 50, 1, 0)], vec![of(2, 50, 1, 1), of(3, 100, 1, 1)], vec![of(3, 10, 2, 1)]] {
        let (wal, _) = open(&disk, true);
        append(&wal, records, Durability::PageCache).unwrap();
        wal.close().unwrap();
    }
    let (wal, _) = open(&disk, true);
    assert_eq!(wal.index_of_max_timestamp(GROUP, Offset(u64::MAX)).unwrap(), Some(Index(1)));
}

/// Entries of which each is read with a call of its own: the look at one says nothing about the next.
#[test]
fn every_large_entry_is_looked_at() {
    const MIB: usize = 1 << 20;
    let large = WalOptions { segment_bytes: 64 << 20, ..options() };
    let disk = FaultyDisk::new(1);
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), large.clone()).unwrap();
    for index in 1..=3 {
        append(&wal, vec![entry(GROUP, index, 3 * MIB)], Durability::PageCache).unwrap();
    }
    wal.close().unwrap();
    let name = segment(&disk);
    assert!(disk.flip_bit(&name, 4 * MIB as u64, 1), "in the second entry");
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), large).unwrap();
    assert!(wal.read(GROUP, Index(1), ReadLimit { max_records: 1, ..ALL }).is_ok());
    assert!(matches!(wal.read(GROUP, Index(2), ALL), Err(ReadError::Damaged { index: Index(2), .. })));
    let damaged = wal.find_damage(GROUP, Index(1)).unwrap();
    assert_eq!(damaged, [DamagedRange { group: GROUP, first: Index(2), last: Index(2) }]);
}
