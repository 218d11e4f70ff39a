//! What is kept, and what is not, when segments are rewritten or retired.

use super::*;

fn start_after(index: u64) -> Record {
    Record {
        kind: RecordKind::Start,
        index: Index(index),
        prev_term: Term(1),
        base_offset: Offset(index),
        offset_count: 0,
        ..entry(GROUP, 1, 8)
    }
}

/// Appends to a segment of its own.
fn sealed(disk: &FaultyDisk, records: Vec<Record>) {
    let (wal, _) = open(disk, true);
    append(&wal, records, Durability::PageCache).unwrap();
    wal.close().unwrap();
}

#[test]
fn a_segment_is_kept_for_a_start_alone() {
    let disk = FaultyDisk::new(1);
    sealed(&disk, vec![entry(GROUP, 1, 1000), entry(GROUP, 2, 1000), entry(GROUP, 3, 1000), start_after(3)]);
    sealed(&disk, vec![entry(GROUP, 4, 1000), entry(GROUP, 5, 1000)]);
    let (wal, _) = open(&disk, true);
    let report = wal.reclaim(&|_| Index(5)).unwrap();
    assert_eq!((report.dead_segments, report.rewritten_segments), (0, 1), "{report:?}");
    wal.close().unwrap();
    let (wal, recovered) = open(&disk, false);
    let found = &recovered.groups[&GROUP];
    assert_eq!(found.start.as_ref().map(|start| &start.record), Some(&start_after(3)));
    assert_eq!(found.checkpoint, found.start, "a start is the first checkpoint");
    assert_eq!((bounds(&wal, GROUP).start_index, bounds(&wal, GROUP).last_index), (Index(3), Index(5)));
    assert_eq!(wal.read(GROUP, Index(4), ALL).unwrap().len(), 2);
}

#[test]
fn a_mostly_dead_segment_waits_for_its_last_entry_to_be_committed() {
    let disk = FaultyDisk::new(1);
    sealed(&disk, (1..=8).map(|index| entry(GROUP, index, 300)).collect());
    sealed(&disk, vec![entry(GROUP, 9, 1500), start_after(7)]);
    let (wal, _) = open(&disk, true);
    assert_eq!(wal.reclaim(&|_| Index(7)).unwrap().rewritten_segments, 0);
    let report = wal.reclaim(&|_| Index(8)).unwrap();
    assert_eq!(report.rewritten_segments, 1, "{report:?}");
    assert!(report.copied_bytes > 0 && report.freed_bytes > 2000, "{report:?}");
    assert_eq!(wal.read(GROUP, Index(8), ALL).unwrap().len(), 2);
}

#[test]
fn as_many_dead_segments_are_counted_as_there_are() {
    let disk = FaultyDisk::new(1);
    sealed(&disk, vec![entry(GROUP, 1, 1500), entry(GROUP, 2, 1500)]);
    sealed(&disk, vec![entry(GROUP, 3, 1500), entry(GROUP, 4, 1500)]);
    sealed(&disk, vec![entry(GROUP, 5, 1500), start_after(4)]);
    let (wal, _) = open(&disk, true);
    let report = wal.reclaim(&|_| Index(5)).unwrap();
    assert_eq!(report.dead_segments, 2, "{report:?}");
    assert!(report.freed_bytes > 4 * 1500, "{report:?}");
}

/// As long as there are entries of it anywhere, a deleted group stays deleted, whatever is cleared up, and however often.
#[test]
fn a_tombstone_outlives_what_it_buries() {
    let disk = FaultyDisk::new(1);
    let of_other = |index, size| entry(OTHER, index, size);
    // Stays: most of it is live. What it holds of the deleted group would come back without the tombstone.
    sealed(&disk, vec![entry(GROUP, 1, 100), of_other(1, 2500)]);
    // Dead as soon as its entry is replaced.
    sealed(&disk, vec![of_other(2, 2500)]);
    // The tombstone, beside what will be replaced.
    let delete = Record { kind: RecordKind::Delete, ..entry(GROUP, 1, 0) };
    let (wal, _) = open(&disk, true);
    append(&wal, vec![delete, of_other(3, 1500)], Durability::PageCache).unwrap();
    wal.close().unwrap();
    let replaced =
        |index, prev_term| Record { term: Term(2), prev_term: Term(prev_term), ..of_other(index, 1500) };
    sealed(&disk, vec![replaced(2, 1)]);
    for round in 0..3 {
        let (wal, recovered) = open(&disk, true);
        for _ in 0..3 {
            wal.reclaim(&|_| Index(9)).unwrap();
        }
        assert!(!recovered.groups.contains_key(&GROUP), "round {round}");
        assert!(wal.bounds(GROUP).is_none(), "round {round}");
        let refused = append(&wal, vec![entry(GROUP, 1, 10)], Durability::PageCache);
        assert!(matches!(refused, Err(AppendError::Invalid { .. })), "round {round}: {refused:?}");
        assert_eq!(wal.read(OTHER, Index(1), ALL).unwrap().len(), 2);
        wal.close().unwrap();
    }
}

#[test]
fn a_log_that_begins_again_where_it_begins_keeps_what_follows() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    let records = (1..=5).map(|index| entry(GROUP, index, 10)).collect();
    append(&wal, records, Durability::PageCache).unwrap();
    for start in [2, 2, 4, 5, 9] {
        append(&wal, vec![start_after(start)], Durability::PageCache).unwrap();
        let log = bounds(&wal, GROUP);
        assert_eq!((log.start_index, log.last_index), (Index(start), Index(start.max(5))));
    }
    append(&wal, vec![entry(GROUP, 10, 10)], Durability::PageCache).unwrap();
    wal.close().unwrap();
    let (wal, _) = open(&disk, false);
    assert_eq!((bounds(&wal, GROUP).start_index, bounds(&wal, GROUP).last_index), (Index(9), Index(10)));
    // What lay before is gone, and what follows is not thrown away for an earlier start.
    let refused = append(&wal, vec![start_after(7)], Durability::PageCache);
    assert!(matches!(refused, Err(AppendError::Invalid { .. })), "{refused:?}");
    append(&wal, vec![entry(GROUP, 11, 10)], Durability::PageCache).unwrap();
    assert_eq!((bounds(&wal, GROUP).start_index, bounds(&wal, GROUP).last_index), (Index(9), Index(11)));
}

#[test]
fn the_first_entry_of_a_log_that_begins_anew_follows_its_start() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 10)], Durability::PageCache).unwrap();
    append(&wal, vec![Record { term: Term(0), ..start_after(0) }], Durability::PageCache).unwrap();
    let stranger = Record { term: Term(9), prev_term: Term(7), ..entry(GROUP, 1, 10) };
    let refused = append(&wal, vec![stranger], Durability::PageCache);
    assert!(matches!(refused, Err(AppendError::Invalid { .. })), "{refused:?}");
    append(&wal, vec![entry(GROUP, 1, 10)], Durability::PageCache).unwrap();
}

/// Rewriting gives up where there is no room for copies, and nothing has happened.
#[test]
fn nothing_is_rewritten_on_a_full_disk() {
    let disk = FaultyDisk::new(1);
    sealed(&disk, (1..=8).map(|index| entry(GROUP, index, 300)).collect());
    sealed(&disk, vec![entry(GROUP, 9, 1500), start_after(7)]);
    let (wal, _) = open(&disk, true);
    let used: u64 = disk.list().unwrap().iter().map(|name| disk.contents(name).unwrap().len() as u64).sum();
    disk.set_capacity_bytes(used);
    let before = disk.list().unwrap().len();
    let report = wal.reclaim(&|_| Index(9)).unwrap();
    assert_eq!((report.rewritten_segments, disk.list().unwrap().len()), (0, before), "{report:?}");
    assert_eq!(wal.read(GROUP, Index(8), ALL).unwrap().len(), 2);
    disk.set_capacity_bytes(used + 100_000);
    assert_eq!(wal.reclaim(&|_| Index(9)).unwrap().rewritten_segments, 1);
}

/// The disk has room again when the group begins anew; what was refused before does not count any more.
#[test]
fn a_start_ends_what_a_refusal_began() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 1000)], Durability::PageCache).unwrap();
    let used: u64 = disk.list().unwrap().iter().map(|name| disk.contents(name).unwrap().len() as u64).sum();
    disk.set_capacity_bytes(used);
    let mut index = 2;
    while append(&wal, vec![entry(GROUP, index, 1000)], Durability::PageCache).is_ok() {
        index += 1;
    }
    assert!(wal.check_space(4096, SpaceClass::Normal).is_err());
    disk.set_capacity_bytes(used + 100_000);
    wal.step_until_idle();
    wal.check_space(4096, SpaceClass::Normal).unwrap();
    append(&wal, vec![start_after(50)], Durability::PageCache).unwrap();
    let gap = append(&wal, vec![entry(GROUP, 60, 10)], Durability::PageCache);
    assert!(matches!(gap, Err(AppendError::Invalid { .. })), "the disk is not to blame: {gap:?}");
    append(&wal, vec![entry(GROUP, 51, 10)], Durability::PageCache).unwrap();
    assert_eq!((bounds(&wal, GROUP).start_index, bounds(&wal, GROUP).last_index), (Index(50), Index(51)));
}

#[test]
fn a_damaged_start_is_reported_with_its_place() {
    let disk = FaultyDisk::new(1);
    sealed(&disk, vec![entry(GROUP, 1, 96), start_after(1), entry(GROUP, 2, 96)]);
    // Behind the header of the segment and one frame.
    assert!(disk.flip_bit(&segment(&disk), 64 + 96 + 96 + 96 + 3, 1));
    let (_, recovered) = open(&disk, true);
    assert_eq!(recovered.damage.len(), 1, "{:?}", recovered.damage);
    let damage = &recovered.damage[0];
    assert_eq!(damage.scope, DamageScope::State(GROUP));
    assert_eq!((damage.from_position, damage.to_position), (64 + 192, 64 + 192 + 104));
    assert_eq!(recovered.groups[&GROUP].start, None);
}

#[test]
fn damage_of_what_was_replaced_is_nobodys() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, (1..=4).map(|index| entry(GROUP, index, 96)).collect(), Durability::PageCache).unwrap();
    let replaced = Record { term: Term(2), ..entry(GROUP, 2, 10) };
    append(&wal, vec![replaced], Durability::PageCache).unwrap();
    drop(wal);
    disk.crash(Crash::Process);
    assert!(disk.flip_bit(&segment(&disk), 64 + 2 * 192 + 100, 1), "in the payload of the third");
    let (wal, recovered) = open(&disk, true);
    assert_eq!((recovered.damage, recovered.missing), (vec![], vec![]));
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 2);
}

/// Copies are written in pieces of a megabyte; what is in them lies where the footer says.
#[test]
fn many_megabytes_are_rewritten_in_pieces() {
    let large = || WalOptions { segment_bytes: 16 << 20, ..options() };
    let disk = FaultyDisk::new(1);
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), large()).unwrap();
    for index in 1..=38 {
        append(&wal, vec![entry(GROUP, index, 400_000)], Durability::PageCache).unwrap();
    }
    append(&wal, vec![start_after(31)], Durability::PageCache).unwrap();
    wal.close().unwrap();
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), large()).unwrap();
    let report = wal.reclaim(&|_| Index(38)).unwrap();
    assert!(report.rewritten_segments == 1 && report.copied_bytes > 7 * 400_000, "{report:?}");
    let check = |wal: &Wal| {
        let read: Vec<Record> =
            wal.read(GROUP, Index(32), ALL).unwrap().into_iter().map(|stored| stored.record).collect();
        assert!(read.iter().eq(&(32..=38).map(|index| entry(GROUP, index, 400_000)).collect::<Vec<_>>()));
    };
    check(&wal);
    wal.close().unwrap();
    check(&Wal::open_stepped(Arc::new(disk), large()).unwrap().0);
}
