//! The index, frame by frame.

use super::*;

fn run(first: u64, count: u64) -> RunSummary {
    RunSummary {
        group: GroupId(1),
        first: EntryIndex(first),
        count,
        prev_term: Term(0),
        last_term: Term(0),
        first_lsn: Lsn(1),
        last_lsn: Lsn(2),
        base_offset: Offset(0),
        next_offset: Offset(0),
        max_timestamp_ms: 0,
        bytes: count * 100,
        entries_position: 0,
        entries_crc: 0,
    }
}

fn log() -> GroupLog {
    let mut log = GroupLog::new(LogStart::default());
    log.ranges.push_back(Range::new(SegmentId(1), run(1, 10)));
    log.ranges.push_back(Range::new(SegmentId(2), run(11, 5)));
    log.last_index = EntryIndex(15);
    log
}

fn extents(log: &GroupLog) -> Vec<(u64, u64)> {
    log.ranges.iter().map(|range| (range.first.0, range.last.0)).collect()
}

#[test]
fn truncating_and_trimming_clip_ranges() {
    let mut log = log();
    log.truncate_from(EntryIndex(13));
    log.trim_through(EntryIndex(4));
    assert_eq!(extents(&log), [(5, 10), (11, 12)]);
    assert_eq!(log.bounds().bytes, 600 + 200);
    log.truncate_from(EntryIndex(11));
    assert_eq!(extents(&log), [(5, 10)]);
    log.trim_through(EntryIndex(10));
    assert_eq!(extents(&log), []);
}

#[test]
fn a_patch_splits_what_it_stands_in_for_and_fills_holes() {
    let patch = |first: u64, count: u64| Range::new(SegmentId(9), run(first, count));
    let segments = |log: &GroupLog| -> Vec<_> {
        log.ranges.iter().map(|range| (range.segment.0, range.first.0, range.last.0)).collect()
    };
    let mut log = log();
    log.patch(&patch(4, 2), &|_| false, &|range, _, _| range.segment == SegmentId(1));
    assert_eq!(segments(&log), [(1, 1, 3), (9, 4, 5), (1, 6, 10), (2, 11, 15)]);
    log.patch(&patch(10, 20), &|_| false, &|_, _, _| true);
    assert_eq!(segments(&log), [(1, 1, 3), (9, 4, 5), (1, 6, 9), (9, 10, 10), (9, 11, 15)]);

    let mut holed = GroupLog::new(LogStart::default());
    holed.ranges.push_back(Range::new(SegmentId(1), run(3, 2)));
    holed.ranges.push_back(Range::new(SegmentId(1), run(8, 3)));
    holed.last_index = EntryIndex(10);
    let hole = |first, last| Hole { first: EntryIndex(first), last: EntryIndex(last) };
    assert_eq!(holed.holes(), [hole(1, 2), hole(5, 7)]);
    holed.patch(&patch(6, 10), &|_| true, &|_, _, _| false);
    assert_eq!(segments(&holed), [(1, 3, 4), (9, 6, 7), (1, 8, 10)]);
    holed.patch(&patch(1, 2), &|_| true, &|_, _, _| false);
    assert_eq!(holed.holes(), [hole(5, 5)]);
}

#[test]
fn a_range_is_found_by_index() {
    let log = log();
    assert_eq!(log.range_at(EntryIndex(10)).unwrap().segment, SegmentId(1));
    assert_eq!(log.range_at(EntryIndex(11)).unwrap().segment, SegmentId(2));
    assert!(log.range_at(EntryIndex(16)).is_none());
}

#[test]
fn what_is_cut_may_begin_or_end_at_a_boundary() {
    let cut = |act: &dyn Fn(&mut GroupLog)| {
        let mut log = log();
        act(&mut log);
        extents(&log)
    };
    assert_eq!(cut(&|log| log.truncate_from(EntryIndex(15))), [(1, 10), (11, 14)]);
    assert_eq!(cut(&|log| log.truncate_from(EntryIndex(10))), [(1, 9)]);
    assert_eq!(cut(&|log| log.truncate_from(EntryIndex(16))), [(1, 10), (11, 15)]);
    assert_eq!(cut(&|log| log.trim_through(EntryIndex(1))), [(2, 10), (11, 15)]);
    assert_eq!(cut(&|log| log.trim_through(EntryIndex(11))), [(12, 15)]);
    assert_eq!(cut(&|log| log.trim_through(EntryIndex(0))), [(1, 10), (11, 15)]);
    let mut log = log();
    let within = |log: &mut GroupLog, first, count| log.ranges_within(&run(first, count)).count();
    assert_eq!([within(&mut log, 1, 15), within(&mut log, 5, 11), within(&mut log, 1, 12)], [2, 1, 1]);
}

use crate::disk::{Disk, FaultyDisk};
use crate::payload::Payload;
use crate::record::Record;

fn frame(kind: RecordKind, index: u64, prev_term: u64, lsn: u64) -> FrameHeader {
    let record = Record {
        group: GroupId(1),
        kind,
        index: EntryIndex(index),
        term: Term(1),
        prev_term: Term(prev_term),
        base_offset: Offset(index * 10),
        offset_count: 10,
        max_timestamp_ms: i64::try_from(index).unwrap(),
        payload: Payload::empty(),
    };
    FrameHeader::of(&record, Lsn(lsn), Lsn(0), Lsn(0))
}

fn entry(index: u64, lsn: u64) -> FrameHeader {
    frame(RecordKind::Entry { tag: 0 }, index, u64::from(index > 1), lsn)
}

/// With that many segments, all of which are written to: what was sealed is not asked here.
fn active(segments: u64) -> Index {
    let disk = FaultyDisk::new(1);
    let mut index = Index::default();
    for id in 1..=segments {
        let segment = Segment::new(SegmentId(id), disk.create(&id.to_string(), 0).unwrap());
        let contents = Contents::Active(SegmentIndex::default());
        index.segments.insert(SegmentId(id), SegmentEntry { segment, contents, file_bytes: 4096 });
    }
    index
}

/// Three entries in the first of two segments.
fn three() -> Index {
    let mut index = active(2);
    (1..=3).for_each(|at| index.apply(SegmentId(1), &entry(at, at), 64 + at * 96));
    index
}

fn log_of(index: &Index) -> &GroupLog {
    &index.groups[&GroupId(1)]
}

#[test]
fn entries_that_follow_each_other_in_a_segment_are_one_range() {
    let mut index = three();
    let log = log_of(&index);
    assert_eq!((extents(log), log.start.offset, log.next_offset), (vec![(1, 3)], Offset(10), Offset(40)));
    let run = log.ranges[0].run;
    assert_eq!((run.first, run.count, run.bytes), (EntryIndex(1), 3, 3 * 96));
    assert_eq!((run.first_lsn, run.last_lsn, run.max_timestamp_ms), (Lsn(1), Lsn(3), 3));
    assert_eq!((run.base_offset, run.next_offset), (Offset(10), Offset(40)));
    index.apply(SegmentId(2), &entry(4, 4), 64);
    assert_eq!(extents(log_of(&index)), [(1, 3), (4, 4)], "another segment");
    index.apply(SegmentId(2), &frame(RecordKind::Entry { tag: 0 }, 5, 9, 5), 160);
    assert_eq!(extents(log_of(&index)), [(1, 3), (4, 4), (5, 5)], "it follows something else");
    index.apply(SegmentId(2), &entry(3, 6), 256);
    assert_eq!(extents(log_of(&index)), [(1, 2), (3, 3)], "a suffix is replaced");
    assert_eq!((log_of(&index).last_index, log_of(&index).next_offset), (EntryIndex(3), Offset(40)));
}

#[test]
fn a_checkpoint_is_of_entries_that_are_there() {
    let mut index = three();
    index.apply(SegmentId(1), &frame(RecordKind::Checkpoint, 3, 0, 4), 400);
    index.apply(SegmentId(1), &entry(4, 5), 500);
    assert_eq!(log_of(&index).checkpoint.unwrap().meta.index, EntryIndex(3));
    index.apply(SegmentId(1), &entry(3, 6), 600);
    assert!(log_of(&index).checkpoint.is_none());
}

#[test]
fn a_start_keeps_what_follows_it_unless_all_is_dead() {
    let started = |at, floor_lsn| {
        let mut index = three();
        let start = FrameHeader { floor_lsn: Lsn(floor_lsn), ..frame(RecordKind::Start, at, 0, 4) };
        index.apply(SegmentId(2), &start, 64);
        let log = log_of(&index);
        assert_eq!(log.start.index, EntryIndex(at));
        (extents(log), log.last_index.0, log.next_offset.0)
    };
    assert_eq!(started(2, 3), (vec![(3, 3)], 3, 40));
    assert_eq!(started(2, 4), (vec![], 2, 20));
    assert_eq!(started(3, 0), (vec![], 3, 30));
    assert_eq!(started(9, 0), (vec![], 9, 90));
}

#[test]
fn entries_are_found_in_memory_as_many_as_are_wanted() {
    let index = three();
    let range = log_of(&index).ranges[0];
    let located = |from, count| match index.locate(&range, EntryIndex(from), count) {
        Located::Dense(entries) => entries.iter().map(|entry| entry.position).collect(),
        Located::Stored => vec![0],
    };
    assert_eq!(located(1, 2), [160, 256]);
    assert_eq!(located(2, 1), [256]);
    assert_eq!(located(2, 9), [256, 352]);
    let shorter = Range { last: EntryIndex(2), ..range };
    assert!(
        matches!(index.locate(&shorter, EntryIndex(2), 9), Located::Dense(entries) if entries.len() == 1)
    );
}

#[test]
fn the_first_that_lives_after_a_start_is_known() {
    let mut index = three();
    index.apply(SegmentId(2), &entry(4, 7), 64);
    let after = |at| match index.first_live_lsn_after(GroupId(1), EntryIndex(at)) {
        FirstLive::Nothing => None,
        FirstLive::Lsn(lsn) => Some(lsn.0),
        FirstLive::Stored(..) => Some(0),
    };
    assert_eq!([0, 1, 2, 3, 4].map(after), [Some(1), Some(2), Some(3), Some(7), None]);
    assert!(matches!(index.first_live_lsn_after(GroupId(2), EntryIndex(0)), FirstLive::Nothing));
}

#[test]
fn a_segment_is_needed_for_the_entries_that_are_read_from_it() {
    let mut index = three();
    index.apply(SegmentId(2), &entry(4, 4), 64);
    let needs = |segment, first, last| {
        let entries = DamagedRange { group: GroupId(1), first: EntryIndex(first), last: EntryIndex(last) };
        index.needs(SegmentId(segment), &entries)
    };
    assert!(needs(1, 3, 3) && needs(1, 3, 9) && needs(2, 1, 4) && needs(2, 4, 9));
    assert!(!needs(1, 4, 9) && !needs(2, 1, 3) && !needs(2, 5, 9));
    assert!(index.segments[&SegmentId(1)].has_group(GroupId(1)));
    assert!(!index.segments[&SegmentId(1)].has_group(GroupId(2)));
}

#[test]
fn what_was_copied_is_read_from_the_copy() {
    let mut index = three();
    index.apply(SegmentId(1), &frame(RecordKind::Checkpoint, 3, 0, 4), 400);
    index.apply(SegmentId(2), &entry(4, 5), 64);
    let copied = |kind, lsn| StateMeta {
        kind,
        lsn: Lsn(lsn),
        position: 1234,
        ..log_of(&index).checkpoint.unwrap().meta
    };
    let all = run(1, 4);
    let other_lsn = Directory { states: vec![copied(StateKind::Checkpoint, 9)], ..Directory::default() };
    let other_kind = Directory { states: vec![copied(StateKind::Start, 4)], ..Directory::default() };
    let it =
        Directory { runs: vec![all], states: vec![copied(StateKind::Checkpoint, 4)], ..Directory::default() };
    for directory in [other_lsn, other_kind] {
        index.move_survivors(&[SegmentId(1)], SegmentId(7), &directory);
        assert_eq!(log_of(&index).checkpoint.unwrap().segment, SegmentId(1));
    }
    index.move_survivors(&[SegmentId(1)], SegmentId(7), &it);
    let checkpoint = log_of(&index).checkpoint.unwrap();
    assert_eq!((checkpoint.segment, checkpoint.meta.position), (SegmentId(7), 1234));
    let segments: Vec<_> = log_of(&index).ranges.iter().map(|range| range.segment.0).collect();
    assert_eq!(segments, [7, 2], "the other one was not copied");
}

#[test]
fn what_is_stored_of_a_sealed_segment_is_looked_up_there() {
    let mut index = three();
    index.apply(SegmentId(2), &entry(4, 4), 64);
    let sealed =
        Directory { runs: vec![RunSummary { entries_position: 777, ..run(1, 3) }], ..Directory::default() };
    index.seal(SegmentId(1), &sealed, 900);
    let log = log_of(&index);
    assert_eq!(log.ranges.iter().map(|range| range.run.entries_position).collect::<Vec<_>>(), [777, 0]);
    assert!(matches!(index.locate(&log.ranges[0], EntryIndex(1), 9), Located::Stored));
    assert_eq!(index.segments[&SegmentId(1)].file_bytes, 900);
    assert!(matches!(
        index.first_live_lsn_after(GroupId(1), EntryIndex(1)),
        FirstLive::Stored(range, EntryIndex(2)) if range.segment == SegmentId(1)
    ));
    assert!(index.segments[&SegmentId(1)].has_group(GroupId(1)));
    assert!(!index.segments[&SegmentId(1)].has_group(GroupId(2)));
}
