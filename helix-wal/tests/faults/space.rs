//! Full disks, and space that comes back.

use super::*;

#[test]
fn a_full_disk_refuses_and_resumes() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 1000)], Durability::Synced).unwrap();
    let used: u64 = disk.list().unwrap().iter().map(|name| disk.contents(name).unwrap().len() as u64).sum();
    disk.set_capacity_bytes(used);
    let mut index = 2;
    let refused = loop {
        match append(&wal, vec![entry(GROUP, index, 1000)], Durability::PageCache) {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::DiskFull), "{refused}");
    assert!(index > 4, "the prepared segment was used up first");
    let behind = append(&wal, vec![entry(GROUP, index + 1, 10)], Durability::PageCache);
    assert!(
        matches!(behind, Err(AppendError::DiskFull)),
        "what follows a refused record has the same reason"
    );
    assert_eq!(bounds(&wal, GROUP).last_index, Index(index - 1));
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len() as u64, index - 1);
    assert!(wal.check_space(4096, SpaceClass::Normal).is_err());

    // A leader asks before it appends, and appends nothing while it is refused: asking alone must show that there is space again.
    disk.set_capacity_bytes(used + 100_000);
    wal.step_until_idle();
    wal.check_space(4096, SpaceClass::Normal).unwrap();
    append(&wal, vec![entry(GROUP, index, 1000)], Durability::Synced).unwrap();
    wal.check_space(4096, SpaceClass::Normal).unwrap();
    drop(wal);
    disk.crash(Crash::Machine);
    let (wal, recovered) = open(&disk, false);
    assert_eq!(recovered.damage, []);
    assert_eq!(bounds(&wal, GROUP).last_index, Index(index));
}

#[test]
fn space_comes_back_when_the_log_start_moves() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    for index in 1..=30 {
        append(&wal, vec![entry(GROUP, index, 1000)], Durability::PageCache).unwrap();
    }
    let before = wal.stats();
    let kept_from = wal.index_keeping(GROUP, 10_000).unwrap().unwrap();
    assert!(
        (Index(10)..=Index(21)).contains(&kept_from),
        "ten entries and what shares a segment: {kept_from}"
    );
    assert_eq!(wal.index_keeping(GROUP, 1 << 30).unwrap(), None);
    let start = Record { kind: RecordKind::Start, base_offset: Offset(25), ..entry(GROUP, 25, 10) };
    append(&wal, vec![start], Durability::PageCache).unwrap();
    let report = wal.reclaim(&|_| Index(30)).unwrap();
    assert!(report.dead_segments >= 6, "{report:?}");
    let after = wal.stats();
    assert!(after.segments < before.segments && after.disk_bytes < before.disk_bytes);
    let below = wal.read(GROUP, Index(25), ALL);
    assert!(matches!(below, Err(ReadError::BelowStart { start_index: Index(25), .. })));
    assert_eq!(wal.read(GROUP, Index(26), ALL).unwrap().len(), 5);
}

#[test]
fn what_is_dead_goes_a_part_at_a_time() {
    let disk = FaultyDisk::new(1);
    let options = WalOptions { recycled_segments: 0, ..options() };
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), options).unwrap();
    for index in 1..=30 {
        append(&wal, vec![entry(GROUP, index, 1000)], Durability::PageCache).unwrap();
    }
    let start = Record { kind: RecordKind::Start, base_offset: Offset(29), ..entry(GROUP, 29, 0) };
    append(&wal, vec![start], Durability::PageCache).unwrap();
    let segments = wal.stats().segments;
    let mut steps = Vec::new();
    loop {
        let report = wal.reclaim_some(&|_| Index(0), 2 * wal.stats().disk_bytes / segments).unwrap();
        steps.push(report.dead_segments);
        assert_eq!(wal.read(GROUP, Index(30), ALL).unwrap().len(), 1);
        if !report.unfinished {
            break;
        }
        // Machines crash in the middle of it too.
        let crashed = disk.duplicate(7);
        crashed.crash(Crash::Machine);
        let (again, recovered) = open(&crashed, false);
        assert_eq!((recovered.damage, recovered.missing), (vec![], vec![]));
        assert_eq!(bounds(&again, GROUP).start_index, Index(29));
    }
    assert!(steps.len() > 3 && steps.iter().all(|dead| *dead <= 2), "{steps:?}");
    assert_eq!(wal.reclaim(&|_| Index(0)).unwrap().dead_segments, 0, "nothing is left");
}

#[test]
fn what_supersedes_is_durable_before_the_superseded_is_gone() {
    for seed in 0..20 {
        let disk = FaultyDisk::new(seed);
        let (wal, _) = open(&disk, true);
        for index in 1..=20 {
            append(&wal, vec![entry(GROUP, index, 1000)], Durability::Synced).unwrap();
        }
        let start = Record { kind: RecordKind::Start, base_offset: Offset(15), ..entry(GROUP, 15, 10) };
        append(&wal, vec![start], Durability::PageCache).unwrap();
        assert!(wal.reclaim(&|_| Index(20)).unwrap().dead_segments > 0);
        drop(wal);
        disk.crash(Crash::Machine);
        let (wal, recovered) = open(&disk, false);
        assert_eq!((recovered.damage, recovered.missing), (vec![], vec![]));
        assert_eq!(bounds(&wal, GROUP).start_index, Index(15));
        assert_eq!(wal.read(GROUP, Index(16), ALL).unwrap().len(), 5);
    }
}

#[test]
fn survivors_of_a_mostly_dead_segment_are_copied_only_if_committed() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    for index in 1..=12 {
        let mut records = vec![entry(GROUP, index, 1000)];
        if index % 4 == 1 {
            records.push(entry(OTHER, index.div_ceil(4), 50));
        }
        append(&wal, records, Durability::PageCache).unwrap();
    }
    append(&wal, vec![Record { kind: RecordKind::Delete, ..entry(GROUP, 12, 0) }], Durability::PageCache)
        .unwrap();
    // A large one closes the segment of the tombstone.
    append(&wal, vec![entry(OTHER, 4, 9000)], Durability::PageCache).unwrap();
    let little = wal.reclaim(&|_| Index(0)).unwrap();
    assert_eq!(little.rewritten_segments, 1, "only that of the tombstone");
    let lsns: Vec<_> = wal.read(OTHER, Index(1), ALL).unwrap().iter().map(|stored| stored.lsn).collect();
    let report = wal.reclaim(&|_| Index(100)).unwrap();
    assert!(report.rewritten_segments >= 3 && report.freed_bytes > 8000, "{report:?}");
    let check = |wal: &Wal| {
        let read = wal.read(OTHER, Index(1), ALL).unwrap();
        assert_eq!(read.iter().map(|stored| stored.lsn).collect::<Vec<_>>(), lsns);
        assert_eq!(read[0].record, entry(OTHER, 1, 50));
        assert!(wal.bounds(GROUP).is_none());
    };
    check(&wal);
    wal.close().unwrap();
    check(&open(&disk, false).0);
}

#[test]
fn many_small_segments_are_merged() {
    let disk = FaultyDisk::new(1);
    for index in 1..=20 {
        let (wal, _) = open(&disk, true);
        append(&wal, vec![entry(GROUP, index, 10)], Durability::PageCache).unwrap();
        wal.close().unwrap();
    }
    let (wal, _) = open(&disk, true);
    assert_eq!(wal.stats().segments, 20);
    wal.reclaim(&|_| Index(20)).unwrap();
    assert!(wal.stats().segments <= 3);
    assert!(names(&disk, ".free").is_empty(), "none is worth being used again");
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 20);
}

#[test]
fn retired_files_are_used_again_and_their_remains_are_never_read() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    for index in 1..=200_u64 {
        append(&wal, vec![entry(GROUP, index, 1000)], Durability::PageCache).unwrap();
        if index % 10 == 0 {
            let start =
                Record { kind: RecordKind::Start, base_offset: Offset(index), ..entry(GROUP, index, 0) };
            append(&wal, vec![start], Durability::PageCache).unwrap();
            wal.reclaim(&|_| Index(index)).unwrap();
        }
    }
    assert!((1..=4).contains(&names(&disk, ".free").len()), "as many as are to be kept");
    assert!(wal.stats().segments < 5);
    append(&wal, vec![entry(GROUP, 201, 10)], Durability::Synced).unwrap();
    drop(wal);
    disk.crash(Crash::Machine);
    let (wal, recovered) = open(&disk, false);
    assert_eq!((recovered.damage, recovered.missing), (vec![], vec![]));
    assert_eq!(bounds(&wal, GROUP).start_index, Index(200));
    assert_eq!(wal.read(GROUP, Index(201), ALL).unwrap().len(), 1);
}

#[test]
fn as_many_retired_files_are_kept_as_one_is_told() {
    for recycled_segments in [0, 1, 3] {
        let disk = FaultyDisk::new(1);
        let options = WalOptions { recycled_segments, ..options() };
        let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), options).unwrap();
        for index in 1..=30 {
            append(&wal, vec![entry(GROUP, index, 1000)], Durability::PageCache).unwrap();
        }
        let start = Record { kind: RecordKind::Start, base_offset: Offset(30), ..entry(GROUP, 30, 0) };
        append(&wal, vec![start], Durability::PageCache).unwrap();
        assert!(wal.reclaim(&|_| Index(30)).unwrap().dead_segments > 4);
        assert_eq!(names(&disk, ".free").len(), recycled_segments);
    }
}

#[test]
fn a_tombstone_goes_when_there_is_nothing_left_to_bury() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    for index in 1..=6 {
        append(&wal, vec![entry(GROUP, index, 1000)], Durability::PageCache).unwrap();
    }
    append(&wal, vec![Record { kind: RecordKind::Delete, ..entry(GROUP, 6, 0) }], Durability::PageCache)
        .unwrap();
    for index in 1..=6 {
        append(&wal, vec![entry(OTHER, index, 1000)], Durability::PageCache).unwrap();
    }
    wal.close().unwrap();
    let (wal, _) = open(&disk, true);
    for _ in 0..3 {
        wal.reclaim(&|_| Index(6)).unwrap();
    }
    wal.close().unwrap();
    let mut dump = Vec::new();
    inspect::dump(&disk, inspect::DumpOptions { group: Some(GROUP), summary: false }, &mut dump).unwrap();
    let dump = String::from_utf8(dump).unwrap();
    assert!(!dump.contains("group 1"), "{dump}");
}

/// A record that is larger than a segment finds out that there is no room before it is written, not half way.
#[test]
fn a_large_record_is_refused_by_a_full_disk_and_small_ones_go_on() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 100)], Durability::Synced).unwrap();
    let used: u64 = disk.list().unwrap().iter().map(|name| disk.contents(name).unwrap().len() as u64).sum();
    disk.set_capacity_bytes(used + 8192);
    let large = append(&wal, vec![entry(GROUP, 2, 100_000)], Durability::PageCache);
    assert!(matches!(large, Err(AppendError::DiskFull)), "{large:?}");
    append(&wal, vec![entry(OTHER, 1, 100)], Durability::Synced).unwrap();
    disk.set_capacity_bytes(used + 300_000);
    assert!(wal.check_space(200_000, SpaceClass::Normal).is_err());
    wal.step_until_idle();
    append(&wal, vec![entry(GROUP, 2, 100_000)], Durability::Synced).unwrap();
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 2);
}

/// How far the log is synced is written down once; after that there is nothing new to say.
#[test]
fn a_log_at_rest_writes_nothing() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 100)], Durability::PageCache).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..5 {
        wal.step(Part::BackgroundSync);
        wal.step_until_idle();
        bytes.push(wal.stats().bytes);
    }
    assert!(bytes[0] > 0 && bytes[4] == bytes[1], "{bytes:?}");
}
