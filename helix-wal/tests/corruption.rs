//! Random damage to the files of a closed log: never a panic, never a wrong byte, and never a silent loss.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

use std::sync::Arc;

use bytes::Bytes;
use helix_wal::disk::{Crash, Disk, FaultyDisk};
use helix_wal::{
    Durability, GroupId, Index, Offset, Payload, ReadError, ReadLimit, Record, RecordKind, Recovered, Term,
    Wal, WalOptions, inspect,
};
use proptest::prelude::*;

const ENTRIES: u64 = 12;
const GROUPS: u64 = 3;

fn options(trust_unsynced: bool) -> WalOptions {
    WalOptions { segment_bytes: 4096, trust_unsynced, ..WalOptions::default() }
}

fn record(group: u64, kind: RecordKind, index: u64) -> Record {
    let size = usize::try_from(index * 31 + group * 7).unwrap() % 300;
    Record {
        group: GroupId(group),
        kind,
        index: Index(index),
        term: Term(1),
        prev_term: Term(u64::from(index > 1)),
        base_offset: Offset(index - 1),
        offset_count: 1,
        max_timestamp_ms: 0,
        payload: Payload::from_chunks(vec![Bytes::from(vec![(index + group) as u8; size])]),
    }
}

fn entry(group: u64, index: u64) -> Record {
    record(group, RecordKind::Entry { tag: 0 }, index)
}

/// Three groups over several segments, closed.
fn closed_log() -> FaultyDisk {
    let disk = FaultyDisk::new(1);
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), options(true)).unwrap();
    for index in 1..=ENTRIES {
        let mut records: Vec<_> = (1..=GROUPS).map(|group| entry(group, index)).collect();
        records.push(record(1, RecordKind::Checkpoint, index));
        wal.append(records, Durability::PageCache, |outcome| outcome.unwrap());
        wal.step_until_idle();
    }
    wal.close().unwrap();
    disk
}

/// Opens the log, compares everything that can be read with what was written, and counts what cannot be read without a
/// report of any kind.
fn silent_losses(disk: &FaultyDisk, trust_unsynced: bool) -> u64 {
    let (wal, recovered) = Wal::open_stepped(Arc::new(disk.clone()), options(trust_unsynced)).unwrap();
    let reported = !recovered.damage.is_empty() || !recovered.missing.is_empty();
    let mut silent = 0;
    for group in 1..=GROUPS {
        for index in 1..=ENTRIES {
            match wal.read(GroupId(group), Index(index), ReadLimit { max_bytes: 1, max_records: 1 }) {
                Ok(read) if read.is_empty() => silent += u64::from(!reported),
                Ok(read) => assert_eq!(read[0].record, entry(group, index)),
                Err(ReadError::Damaged { .. }) => {}
                Err(error) => {
                    assert!(reported, "{error}");
                }
            }
        }
    }
    check_states(&recovered);
    silent
}

fn check_states(recovered: &Recovered) {
    for group in recovered.groups.values() {
        if let Some(checkpoint) = &group.checkpoint {
            let index = checkpoint.record.index.get();
            assert_eq!(checkpoint.record, record(1, RecordKind::Checkpoint, index));
        }
    }
}

/// A byte of one of the segments, chosen among all of them.
fn place(disk: &FaultyDisk, at: prop::sample::Index) -> (String, u64) {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(".wal"));
    names.sort();
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
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_flipped_bit_is_never_a_silent_loss(at: prop::sample::Index, bit in 0..8_u8, trust_unsynced: bool) {
        let disk = closed_log();
        let (name, position) = place(&disk, at);
        disk.flip_bit(&name, position, bit);
        inspect::verify(&disk).unwrap();
        prop_assert_eq!(silent_losses(&disk, trust_unsynced), 0);
        disk.crash(Crash::Process);
        prop_assert_eq!(silent_losses(&disk, true), 0);
    }

    #[test]
    fn whatever_is_overwritten_nothing_wrong_is_read(
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 1..600_usize), 1..6),
        trust_unsynced: bool,
    ) {
        let disk = closed_log();
        for (at, byte, len) in damages {
            let (name, position) = place(&disk, at);
            let left = disk.contents(&name).unwrap().len() - usize::try_from(position).unwrap();
            disk.open(&name).unwrap().write_at(&vec![byte; len.min(left)], position).unwrap();
        }
        inspect::verify(&disk).unwrap();
        inspect::dump(&disk, inspect::DumpOptions::default(), &mut std::io::sink()).unwrap();
        silent_losses(&disk, trust_unsynced);
        disk.crash(Crash::Process);
        silent_losses(&disk, true);
    }

    #[test]
    fn a_segment_of_garbage_is_survived(bytes: Vec<u8>, trust_unsynced: bool) {
        let disk = FaultyDisk::new(1);
        disk.create("0000000000000001.wal", 0).unwrap().write_at(&bytes, 0).unwrap();
        let (wal, recovered) = Wal::open_stepped(Arc::new(disk.clone()), options(trust_unsynced)).unwrap();
        prop_assert!(recovered.groups.is_empty());
        wal.close().unwrap();
    }
}
