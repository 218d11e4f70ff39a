//! The log with its threads, on the real file system.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use helix_wal::disk::RealDisk;
use helix_wal::{
    Durability, GroupId, Index, Offset, Payload, ReadLimit, Record, RecordKind, Term, Wal, WalOptions,
};

const ENTRIES: u64 = 300;

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 64 << 10,
        writeback_bytes: 16 << 10,
        background_sync_bytes: 32 << 10,
        recycled_segments: 3,
        reserve_bytes: 0,
        footer_cache_bytes: 10_000,
        trust_unsynced: true,
        ..WalOptions::default()
    }
}

fn entry(group: u64, index: u64) -> Record {
    let size = usize::try_from(group * 37 + index * 13).unwrap() % 700;
    Record {
        group: GroupId(group),
        kind: RecordKind::Entry { tag: 0 },
        index: Index(index),
        term: Term(1),
        prev_term: Term(u64::from(index > 1)),
        base_offset: Offset(index - 1),
        offset_count: 1,
        max_timestamp_ms: index.cast_signed(),
        payload: Payload::from_chunks(vec![
            Bytes::from(vec![group as u8; 20]),
            Bytes::from(vec![index as u8; size]),
        ]),
    }
}

fn read_all(wal: &Wal, group: u64, from: u64) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let next = Index(from + records.len() as u64);
        let limit = ReadLimit { max_bytes: 5000, max_records: 17 };
        let read = wal.read(GroupId(group), next, limit).unwrap();
        if read.is_empty() {
            return records;
        }
        records.extend(read.into_iter().map(|stored| stored.record));
    }
}

#[test]
fn appenders_readers_and_reclaim_side_by_side() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Wal::open(Arc::new(RealDisk::new(directory.path()).unwrap()), options()).unwrap();
    let (wal, recovered) = open();
    assert!(recovered.groups.is_empty());
    let appenders: Vec<_> = (1..=4_u64)
        .map(|group| {
            let wal = wal.clone();
            thread::spawn(move || append_and_trim(&wal, group))
        })
        .collect();
    let starts: HashMap<u64, u64> = appenders.into_iter().map(|thread| thread.join().unwrap()).collect();
    let stats = wal.stats();
    assert!(stats.seals > 0 && stats.syncs > 0 && stats.frames >= 4 * ENTRIES);
    assert_eq!((stats.queue_units, stats.queue_bytes), (0, 0));
    wal.close().unwrap();
    drop(wal);

    let (wal, recovered) = open();
    assert_eq!(recovered.damage, []);
    assert_eq!(recovered.truncated_bytes, 0);
    for (group, start) in starts {
        let bounds = wal.bounds(GroupId(group)).unwrap();
        assert_eq!((bounds.start_index, bounds.last_index), (Index(start), Index(ENTRIES)));
        let expected: Vec<_> = (start + 1..=ENTRIES).map(|index| entry(group, index)).collect();
        assert_eq!(read_all(&wal, group, start + 1), expected);
    }
    wal.close().unwrap();
}

/// Appends with a few in flight, reads back what is acknowledged, moves the start now and then.
fn append_and_trim(wal: &Wal, group: u64) -> (u64, u64) {
    let (done, acknowledged) = mpsc::channel();
    let mut start = 0;
    for index in 1..=ENTRIES {
        let durability = if index % 7 == 0 { Durability::Synced } else { Durability::PageCache };
        let done = done.clone();
        wal.append(vec![entry(group, index)], durability, move |outcome| {
            outcome.unwrap();
            done.send(index).unwrap();
        });
        if index % 10 == 0 {
            acknowledged.iter().take(10).for_each(drop);
            let read =
                wal.read(GroupId(group), Index(index), ReadLimit { max_bytes: 1, max_records: 1 }).unwrap();
            assert_eq!(read[0].record, entry(group, index));
        }
        if index % 50 == 0 {
            start = index - 20;
            let record =
                Record { kind: RecordKind::Start, base_offset: Offset(start), ..entry(group, start) };
            let (done, started) = mpsc::channel();
            wal.append(vec![record], Durability::PageCache, move |outcome| done.send(outcome).unwrap());
            started.recv().unwrap().unwrap();
            // Somebody else may be at it.
            let _ = wal.reclaim(&|_| Index(u64::MAX));
            let read = read_all(wal, group, start + 1);
            assert_eq!(read.len() as u64, index - start);
        }
    }
    (group, start)
}

#[test]
fn what_is_queued_when_the_log_is_closed_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Wal::open(Arc::new(RealDisk::new(directory.path()).unwrap()), options()).unwrap();
    let (wal, _) = open();
    let (done, outcomes) = mpsc::channel();
    for index in 1..=50 {
        let done = done.clone();
        let durability = if index % 2 == 0 { Durability::Synced } else { Durability::PageCache };
        wal.append(vec![entry(1, index)], durability, move |outcome| done.send(outcome).unwrap());
    }
    wal.close().unwrap();
    let stored = outcomes.try_iter().filter(Result::is_ok).count();
    assert_eq!(stored, 50, "nobody waited for them but the one who closed it");
    let mut late = None;
    wal.append(vec![entry(1, 51)], Durability::PageCache, {
        let done = done.clone();
        move |outcome| done.send(outcome).unwrap()
    });
    drop(done);
    for outcome in outcomes {
        if let Err(error) = outcome {
            late = Some(error);
        }
    }
    assert!(matches!(late, Some(helix_wal::AppendError::Closed)));
    wal.close().unwrap();
    drop(wal);
    let (wal, _) = open();
    assert_eq!(read_all(&wal, 1, 1).len(), 50);
}

#[test]
fn a_log_that_was_not_closed_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let disk = || Arc::new(RealDisk::new(directory.path()).unwrap());
    let (wal, _) = Wal::open(disk(), options()).unwrap();
    let (done, outcome) = mpsc::channel();
    wal.append((1..=100).map(|index| entry(1, index)).collect(), Durability::PageCache, move |outcome| {
        done.send(outcome).unwrap();
    });
    outcome.recv().unwrap().unwrap();
    let second = Wal::open(disk(), options());
    assert!(matches!(second, Err(helix_wal::OpenError::Locked)));
    // As kill -9 would leave it: a copy of the files, without the lock.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let (again, recovered) = Wal::open(Arc::new(RealDisk::new(copy.path()).unwrap()), options()).unwrap();
    assert_eq!(recovered.damage, []);
    assert_eq!(read_all(&again, 1, 1).len(), 100);
    wal.close().unwrap();
}

/// Who comes first does not wait for all who come behind.
#[test]
fn what_queues_up_is_written_in_pieces_of_eight_mib() {
    let writes = |sizes: &[usize]| {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(RealDisk::new(directory.path()).unwrap());
        let options = WalOptions { segment_bytes: 64 << 20, ..options() };
        let (wal, _) = Wal::open_stepped(disk, options).unwrap();
        for (size, index) in sizes.iter().zip(1..) {
            let payload = Payload::from_parts_verified(vec![Bytes::from(vec![0; *size])], 0);
            let record = Record { payload, ..entry(1, index) };
            wal.append(vec![record], Durability::PageCache, |outcome| outcome.unwrap());
        }
        wal.step_until_idle();
        wal.stats().writes
    };
    let four_mib = (4 << 20) - 96;
    assert_eq!(writes(&[four_mib, four_mib]), 1);
    assert_eq!(writes(&[four_mib, four_mib, 8]), 2);
}

/// The threads of a log that was dropped end by themselves, and with them goes its hold on the directory.
#[test]
fn a_log_that_is_dropped_lets_go_of_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let disk = || Arc::new(RealDisk::new(directory.path()).unwrap());
    let (wal, _) = Wal::open(disk(), options()).unwrap();
    drop(wal);
    let given_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Err(error) = Wal::open(disk(), options()) {
        assert!(matches!(error, helix_wal::OpenError::Locked), "{error}");
        assert!(std::time::Instant::now() < given_up, "the directory is still locked");
        thread::yield_now();
    }
}

#[test]
fn the_newest_entry_is_found_while_the_start_moves() {
    const LAST: Index = Index(ENTRIES);
    let directory = tempfile::tempdir().unwrap();
    let (wal, _) = Wal::open(Arc::new(RealDisk::new(directory.path()).unwrap()), options()).unwrap();
    let append = |record: Record| {
        let (done, outcome) = mpsc::channel();
        wal.append(vec![record], Durability::PageCache, move |result| done.send(result).unwrap());
        outcome.recv().unwrap().unwrap();
    };
    (1..=ENTRIES).for_each(|index| append(entry(1, index)));
    let (stop, stopped) = mpsc::channel::<()>();
    let looker = {
        let wal = wal.clone();
        thread::spawn(move || {
            let (group, timestamp_ms) = (GroupId(1), ENTRIES.cast_signed());
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                assert_eq!(wal.index_at_offset(group, Offset(ENTRIES - 1)).unwrap(), Some(LAST));
                assert_eq!(wal.index_at_timestamp(group, Index(0), timestamp_ms).unwrap(), Some(LAST));
                assert_eq!(wal.index_written_since(group, timestamp_ms).unwrap(), Some(LAST));
                assert_eq!(wal.index_of_max_timestamp(group, Offset(u64::MAX)).unwrap(), Some(LAST));
            }
        })
    };
    for index in 1..ENTRIES {
        append(Record {
            kind: RecordKind::Start,
            base_offset: Offset(index),
            offset_count: 0,
            ..entry(1, index)
        });
    }
    drop(stop);
    looker.join().unwrap();
    wal.close().unwrap();
}
