//! What the log does when the disk does not do what it should.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod opening;
mod reading;
mod rewriting;
mod space;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use helix_wal::disk::{Crash, Disk, FaultyDisk};
use helix_wal::{
    AppendError, Bounds, DamageScope, DamagedRange, Durability, GroupId, Index, Offset, OpenError, Part,
    Payload, ReadError, ReadLimit, Record, RecordKind, Recovered, SpaceClass, Term, Wal, WalOptions, inspect,
};

const GROUP: GroupId = GroupId(1);
const OTHER: GroupId = GroupId(2);
const ALL: ReadLimit = ReadLimit { max_bytes: u64::MAX, max_records: 1000 };

type Outcomes = Arc<Mutex<Vec<Result<(), AppendError>>>>;

fn options() -> WalOptions {
    // One is prepared: these tests count files.
    WalOptions {
        segment_bytes: 4096,
        reserve_bytes: 4096,
        prepared_segments: 1,
        trust_unsynced: true,
        ..WalOptions::default()
    }
}

fn open(disk: &FaultyDisk, trust_unsynced: bool) -> (Wal, Recovered) {
    Wal::open_stepped(Arc::new(disk.clone()), WalOptions { trust_unsynced, ..options() }).unwrap()
}

fn entry(group: GroupId, index: u64, size: usize) -> Record {
    Record {
        group,
        kind: RecordKind::Entry { tag: 1 },
        index: Index(index),
        term: Term(1),
        prev_term: Term(u64::from(index > 1)),
        base_offset: Offset(index - 1),
        offset_count: 1,
        max_timestamp_ms: 0,
        payload: Payload::from_chunks(vec![Bytes::from(vec![index as u8; size])]),
    }
}

/// Appends and lets everything happen.
fn append(wal: &Wal, records: Vec<Record>, durability: Durability) -> Result<(), AppendError> {
    let outcomes = queue(wal, records, durability);
    wal.step_until_idle();
    let outcome = outcomes.lock().unwrap().pop();
    outcome.expect("the log was stepped until idle")
}

fn queue(wal: &Wal, records: Vec<Record>, durability: Durability) -> Outcomes {
    let outcomes = Outcomes::default();
    let mine = Arc::clone(&outcomes);
    wal.append(records, durability, move |outcome| mine.lock().unwrap().push(outcome));
    outcomes
}

fn bounds(wal: &Wal, group: GroupId) -> Bounds {
    wal.bounds(group).unwrap()
}

fn names(disk: &FaultyDisk, suffix: &str) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    names
}

#[test]
fn a_failed_sync_stops_the_log_once_and_for_all() {
    let disk = FaultyDisk::new(1);
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let on_fatal = Arc::new(move |_: &helix_wal::FatalError| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), WalOptions { on_fatal, ..options() }).unwrap();
    append(&wal, vec![entry(GROUP, 1, 10)], Durability::PageCache).unwrap();
    disk.fail_syncs(true);
    let failed = append(&wal, vec![entry(GROUP, 2, 10)], Durability::Synced);
    assert!(matches!(failed, Err(AppendError::Failed(_))));
    disk.fail_syncs(false);
    let later = append(&wal, vec![entry(GROUP, 3, 10)], Durability::PageCache);
    assert!(matches!(later, Err(AppendError::Failed(_))));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 2, "reading goes on");
    assert!(wal.close().is_err());
}

/// What a failed sync was to write counts as written from then on, and another sync has nothing to do: a process that takes over
/// with the page cache has to write it again.
#[test]
fn what_a_failed_sync_left_in_memory_is_written_again() {
    let disk = FaultyDisk::new(1);
    let open = |trust_unsynced| {
        let options = WalOptions { segment_bytes: 4 << 20, trust_unsynced, ..options() };
        Wal::open_stepped(Arc::new(disk.clone()), options).unwrap()
    };
    let (wal, _) = open(true);
    append(&wal, vec![entry(GROUP, 1, 10)], Durability::Synced).unwrap();
    disk.fail_syncs(true);
    // Of many pages, more than are written again at a time: the ones in the middle share nothing with the footer, whose writing would make them dirty again.
    append(&wal, vec![entry(GROUP, 2, 2_500_000)], Durability::Synced).unwrap_err();
    drop(wal);
    disk.crash(Crash::Process);

    let (wal, _) = open(true);
    assert_eq!(bounds(&wal, GROUP).last_index, Index(2));
    drop(wal);
    disk.crash(Crash::Machine);

    let (wal, recovered) = open(false);
    assert_eq!(recovered.damage, []);
    assert_eq!(bounds(&wal, GROUP).last_index, Index(2), "the second process had said that it was stored");
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 2);
}

#[test]
fn a_log_begins_anew_with_a_start_at_index_0() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    for index in 1..=10 {
        append(&wal, vec![entry(GROUP, index, 1000)], Durability::PageCache).unwrap();
    }
    let anew = Record {
        kind: RecordKind::Start,
        index: Index(0),
        term: Term(0),
        offset_count: 0,
        ..entry(GROUP, 1, 10)
    };
    append(&wal, vec![anew], Durability::Synced).unwrap();
    assert_eq!((bounds(&wal, GROUP).start_index, bounds(&wal, GROUP).last_index), (Index(0), Index(0)));
    let first = Record { term: Term(5), ..entry(GROUP, 1, 20) };
    append(&wal, vec![first.clone()], Durability::Synced).unwrap();
    let check = |wal: &Wal| {
        let read = wal.read(GROUP, Index(1), ALL).unwrap();
        assert_eq!(read.iter().map(|stored| &stored.record).collect::<Vec<_>>(), [&first]);
    };
    check(&wal);
    assert!(wal.reclaim(&|_| Index(0)).unwrap().dead_segments > 0);
    drop(wal);
    disk.crash(Crash::Machine);
    let (wal, recovered) = open(&disk, false);
    assert_eq!((recovered.damage, recovered.missing), (vec![], vec![]));
    check(&wal);
}

/// A log of one segment with eight entries of two groups, the first five synced and said to be.
fn two_groups(disk: &FaultyDisk) {
    let (wal, _) = open(disk, true);
    for index in 1..=4 {
        append(&wal, vec![entry(GROUP, index, 100)], Durability::Synced).unwrap();
    }
    append(&wal, vec![entry(OTHER, 1, 100)], Durability::Synced).unwrap();
    append(&wal, vec![entry(GROUP, 5, 100), entry(GROUP, 6, 100)], Durability::PageCache).unwrap();
    append(&wal, vec![entry(OTHER, 2, 100)], Durability::PageCache).unwrap();
}

/// Header and padded payload.
const FRAME: u64 = 96 + 104;

fn segment(disk: &FaultyDisk) -> String {
    names(disk, ".wal").remove(0)
}

#[test]
fn a_flipped_payload_bit_is_reported_and_nothing_else_is_lost() {
    for trust_unsynced in [true, false] {
        let disk = FaultyDisk::new(1);
        two_groups(&disk);
        disk.crash(Crash::Process);
        assert!(disk.flip_bit(&segment(&disk), 64 + FRAME + 96 + 7, 3));
        let (wal, recovered) = open(&disk, trust_unsynced);
        let range = DamagedRange { group: GROUP, first: Index(2), last: Index(2) };
        assert_eq!(recovered.damage.len(), 1);
        assert_eq!(recovered.damage[0].scope, DamageScope::Entries(vec![range]));
        assert_eq!(bounds(&wal, GROUP).last_index, Index(6));
        assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 1);
        let read = wal.read(GROUP, Index(2), ALL);
        assert!(matches!(read, Err(ReadError::Damaged { group: GROUP, index: Index(2) })), "{read:?}");
        assert_eq!(wal.read(GROUP, Index(3), ALL).unwrap().len(), 4);
        assert_eq!(wal.read(OTHER, Index(1), ALL).unwrap().len(), 2);
        drop(wal);
        disk.crash(Crash::Process);
        let (_, again) = open(&disk, true);
        assert_eq!(again.damage, recovered.damage, "it is not forgotten");
        let report = inspect::verify(&disk).unwrap();
        assert!(!report.problems.is_empty());
    }
}

#[test]
fn a_flipped_header_bit_is_reported_for_all_who_may_be_concerned() {
    for trust_unsynced in [true, false] {
        let disk = FaultyDisk::new(1);
        two_groups(&disk);
        disk.crash(Crash::Process);
        assert!(disk.flip_bit(&segment(&disk), 64 + FRAME + 20, 3));
        let (wal, recovered) = open(&disk, trust_unsynced);
        assert_eq!(recovered.damage[0].scope, DamageScope::Unknown { seen: vec![GROUP, OTHER] });
        assert_eq!((recovered.damage[0].from_position, recovered.damage[0].to_position), (264, 464));
        assert_eq!(recovered.missing, [DamagedRange { group: GROUP, first: Index(2), last: Index(2) }]);
        assert_eq!(bounds(&wal, GROUP).last_index, Index(6));
        assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 1, "up to the hole");
        assert!(matches!(wal.read(GROUP, Index(2), ALL), Err(ReadError::Damaged { .. })));
        assert_eq!(wal.read(GROUP, Index(3), ALL).unwrap().len(), 4);
    }
}

#[test]
fn damage_above_the_synced_position_is_a_cut_only_after_a_machine_crash() {
    let disk = FaultyDisk::new(1);
    two_groups(&disk);
    disk.crash(Crash::Process);
    // The frame of group 1 index 5, which nobody was promised to find after a power loss.
    assert!(disk.flip_bit(&segment(&disk), 64 + 5 * FRAME + 100, 0));
    let copy = disk.duplicate(2);

    let (wal, recovered) = open(&disk, false);
    assert_eq!(recovered.damage, []);
    assert_eq!(recovered.cut, [GROUP]);
    assert_eq!(recovered.truncated_bytes, 2 * FRAME, "the damaged frame and what followed it");
    assert_eq!(bounds(&wal, GROUP).last_index, Index(4));
    assert_eq!(bounds(&wal, OTHER).last_index, Index(2));

    let (wal, recovered) = open(&copy, true);
    assert_eq!(recovered.damage.len(), 1);
    assert_eq!(bounds(&wal, GROUP).last_index, Index(6));
}

#[test]
fn a_torn_tail_is_dropped_and_said_to_be() {
    let disk = FaultyDisk::new(1);
    two_groups(&disk);
    disk.crash(Crash::Process);
    assert!(disk.flip_bit(&segment(&disk), 64 + 7 * FRAME + 100, 0));
    let (wal, recovered) = open(&disk, true);
    assert_eq!(recovered.damage, []);
    assert_eq!(recovered.truncated_bytes, FRAME);
    assert_eq!(bounds(&wal, OTHER).last_index, Index(1));
    append(&wal, vec![entry(OTHER, 2, 100)], Durability::PageCache).unwrap();
    assert_eq!(wal.read(OTHER, Index(1), ALL).unwrap().len(), 2);
}

#[test]
fn a_broken_footer_is_built_again() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    for index in 1..=20 {
        append(&wal, vec![entry(GROUP, index, 700)], Durability::PageCache).unwrap();
    }
    wal.close().unwrap();
    for name in names(&disk, ".wal") {
        let len = disk.contents(&name).unwrap().len() as u64;
        disk.flip_bit(&name, len - 40, 1);
    }
    assert!(inspect::verify(&disk).unwrap().problems.is_empty());
    let (wal, recovered) = open(&disk, false);
    assert_eq!(recovered.damage, []);
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 20);
}

#[test]
fn broken_index_entries_are_read_from_the_frames() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, (1..=5).map(|index| entry(GROUP, index, 100)).collect(), Durability::PageCache).unwrap();
    wal.close().unwrap();
    assert!(disk.flip_bit(&segment(&disk), 64 + 5 * FRAME + 10, 1));
    let report = inspect::verify(&disk).unwrap();
    assert_eq!(report.problems.len(), 1, "{report:?}");
    let (wal, recovered) = open(&disk, false);
    assert_eq!(recovered.damage, []);
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 5);
}

#[test]
fn a_large_record_gets_a_segment_of_its_own() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 100)], Durability::PageCache).unwrap();
    append(&wal, vec![entry(GROUP, 2, 100_000)], Durability::PageCache).unwrap();
    append(&wal, vec![entry(GROUP, 3, 100)], Durability::Synced).unwrap();
    let one = wal.read(GROUP, Index(2), ReadLimit { max_bytes: 1, max_records: 10 }).unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].record, entry(GROUP, 2, 100_000));
    drop(wal);
    disk.crash(Crash::Machine);
    let (wal, _) = open(&disk, false);
    assert_eq!(wal.read(GROUP, Index(1), ALL).unwrap().len(), 3);
    assert_eq!(wal.stats().segments, 3);
}

#[test]
fn records_that_do_not_fit_the_log_are_refused() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    let refused = |record| {
        matches!(append(&wal, vec![record], Durability::PageCache), Err(AppendError::Invalid { .. }))
    };
    assert!(refused(entry(GROUP, 2, 10)), "a gap");
    append(&wal, vec![entry(GROUP, 1, 10), entry(GROUP, 2, 10)], Durability::PageCache).unwrap();
    assert!(refused(Record { prev_term: Term(7), ..entry(GROUP, 3, 10) }), "another previous term");
    assert!(refused(Record { kind: RecordKind::Checkpoint, ..entry(GROUP, 3, 10) }), "ahead of the log");
    append(&wal, vec![Record { kind: RecordKind::Start, ..entry(GROUP, 1, 10) }], Durability::PageCache)
        .unwrap();
    assert!(refused(entry(GROUP, 1, 10)), "below the start");
    append(&wal, vec![Record { kind: RecordKind::Delete, ..entry(GROUP, 1, 0) }], Durability::PageCache)
        .unwrap();
    assert!(refused(entry(GROUP, 1, 10)), "deleted");
    assert!(matches!(wal.read(GROUP, Index(2), ALL), Err(ReadError::UnknownGroup(GROUP))));
}

#[test]
fn sealing_is_announced_with_the_last_indexes() {
    let disk = FaultyDisk::new(1);
    let sealed = Arc::new(Mutex::new(Vec::new()));
    let mine = Arc::clone(&sealed);
    let on_seal = Arc::new(move |segment: helix_wal::SealedSegment| mine.lock().unwrap().push(segment));
    let (wal, _) = Wal::open_stepped(Arc::new(disk.clone()), WalOptions { on_seal, ..options() }).unwrap();
    append(&wal, vec![entry(OTHER, 1, 100)], Durability::PageCache).unwrap();
    for index in 1..=4 {
        append(&wal, vec![entry(GROUP, index, 1000)], Durability::PageCache).unwrap();
    }
    let sealed = sealed.lock().unwrap();
    assert_eq!(sealed.len(), 1);
    assert_eq!(sealed[0].groups, [(GROUP, Index(3)), (OTHER, Index(1))]);
}

#[test]
fn a_dump_shows_what_is_there() {
    let disk = FaultyDisk::new(1);
    two_groups(&disk);
    disk.crash(Crash::Process);
    let dump = |options| {
        let mut text = Vec::new();
        inspect::dump(&disk, options, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    let all = dump(inspect::DumpOptions::default());
    assert!(all.contains("lsn 5 group 2 entry/1 index 1 term 1 after term 0 offsets 0+1"), "{all}");
    assert_eq!(all.matches("payload 100 bytes").count(), 8);
    let one = dump(inspect::DumpOptions { group: Some(OTHER), summary: false });
    assert_eq!(one.matches("payload 100 bytes").count(), 2);
    assert!(!dump(inspect::DumpOptions { group: None, summary: true }).contains("payload"));
    let mut json = Vec::new();
    inspect::dump_json(&disk, &mut json).unwrap();
    let json = String::from_utf8(json).unwrap();
    let whole_entry = r#"{"group":2,"kind":"entry","tag":1,"index":1,"term":1,"prev_term":0,"lsn":5,"#;
    assert!(
        json.lines().any(|line| line.starts_with(whole_entry) && line.ends_with(r#""whole":true}"#)),
        "{json}"
    );
    assert_eq!(json.lines().count(), 8);
    let report = inspect::verify(&disk).unwrap();
    assert_eq!((report.frames, report.problems.len()), (8, 0));
    assert_eq!(report.notes.len(), 1, "the missing footer: {:?}", report.notes);
}

#[test]
fn a_footer_that_cannot_be_made_durable_stops_the_log() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    for index in 1..=3 {
        append(&wal, vec![entry(GROUP, index, 1000)], Durability::Synced).unwrap();
    }
    let outcomes = queue(&wal, vec![entry(GROUP, 4, 1000)], Durability::Synced);
    assert!(wal.step(Part::Writer), "it goes to the next segment");
    while wal.step(Part::Housekeeper) {}
    assert!(wal.step(Part::Syncer));
    assert_eq!(outcomes.lock().unwrap().len(), 1);
    disk.fail_syncs(true);
    while wal.step(Part::Housekeeper) {}
    disk.fail_syncs(false);
    let later = append(&wal, vec![entry(GROUP, 5, 10)], Durability::PageCache);
    assert!(matches!(later, Err(AppendError::Failed(_))), "{later:?}");
}

#[test]
fn what_is_done_is_counted() {
    let disk = FaultyDisk::new(1);
    let (wal, _) = open(&disk, true);
    append(&wal, vec![entry(GROUP, 1, 100)], Durability::PageCache).unwrap();
    assert_eq!(wal.stats().unsynced_bytes, FRAME);
    append(&wal, vec![entry(GROUP, 2, 100), entry(OTHER, 1, 98)], Durability::Synced).unwrap();
    append(&wal, vec![entry(GROUP, 9, 100)], Durability::PageCache).unwrap_err();
    let stats = wal.stats();
    assert_eq!((stats.writes, stats.frames, stats.bytes, stats.payload_bytes), (2, 3, 3 * FRAME, 298));
    assert_eq!((stats.appends, stats.appends_synced, stats.appends_failed), (2, 1, 1));
    assert_eq!((stats.syncs, stats.unsynced_bytes, stats.queue_units, stats.queue_bytes), (1, 0, 0, 0));
    assert_eq!((stats.write_latency.count(), stats.sync_latency.count()), (2, 1));
    assert_eq!((stats.segments, stats.seals, stats.disk_bytes), (1, 0, 2 * 4096), "one lies ready");
    let queued = queue(&wal, vec![entry(GROUP, 3, 1000)], Durability::PageCache);
    assert_eq!((wal.stats().queue_units, wal.stats().queue_bytes), (1, 1000));
    wal.step_until_idle();
    assert!(queued.lock().unwrap()[0].is_ok());
    for index in 4..=7 {
        append(&wal, vec![entry(GROUP, index, 1000)], Durability::Synced).unwrap();
    }
    let stats = wal.stats();
    assert_eq!((stats.segments, stats.seals, stats.roll_stalls), (2, 1, 0), "it was prepared in time");
    let start = Record { kind: RecordKind::Start, base_offset: Offset(6), ..entry(GROUP, 6, 0) };
    append(&wal, vec![start], Durability::PageCache).unwrap();
    let report = wal.reclaim(&|_| Index(7)).unwrap();
    let stats = wal.stats();
    assert_eq!((report.rewritten_segments, stats.segments_retired), (1, report.dead_segments + 1));
    assert_eq!((stats.rewritten_bytes, report.copied_bytes), (report.copied_bytes, stats.rewritten_bytes));
    assert!(stats.rewritten_bytes > 0);
    for index in 8..=12 {
        queue(&wal, vec![entry(GROUP, index, 3000)], Durability::PageCache);
    }
    wal.step(Part::Writer);
    let stats = wal.stats();
    assert!((2..=4).contains(&stats.roll_stalls), "nobody prepared any: {}", stats.roll_stalls);
}

#[test]
fn what_queues_up_is_written_at_once() {
    let (wal, _) = open(&FaultyDisk::new(1), true);
    for index in 1..=3 {
        queue(&wal, vec![entry(GROUP, index, 10)], Durability::PageCache);
    }
    wal.step_until_idle();
    assert_eq!(wal.stats().writes, 1);
}
