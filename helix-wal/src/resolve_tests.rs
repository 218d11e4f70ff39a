//! What is live, by example.

use super::*;
use crate::types::Offset;

const GROUP: GroupId = GroupId(1);
const SYNCED: Evidence = Evidence { synced_lsn: Lsn(0), trust_unsynced: false, unknown_damage: None };

/// A run whose LSNs end at `last_lsn` and whose entries all have `term`.
fn run(first: u64, last: u64, last_lsn: u64, prev_term: u64, term: u64) -> RunSummary {
    RunSummary {
        group: GROUP,
        first: Index(first),
        count: last - first + 1,
        prev_term: Term(prev_term),
        last_term: Term(term),
        first_lsn: Lsn(last_lsn - (last - first)),
        last_lsn: Lsn(last_lsn),
        base_offset: Offset(first),
        next_offset: Offset(last + 1),
        max_timestamp_ms: 0,
        bytes: 0,
        entries_position: 0,
        entries_crc: 0,
    }
}

fn start(index: u64, term: u64, lsn: u64, floor_lsn: u64) -> StateMeta {
    StateMeta {
        group: GROUP,
        kind: StateKind::Start,
        index: Index(index),
        term: Term(term),
        base_offset: Offset(index + 1),
        lsn: Lsn(lsn),
        floor_lsn: Lsn(floor_lsn),
        position: 0,
        payload_len: 0,
    }
}

fn view(id: u64, scanned: bool, runs: Vec<RunSummary>, states: Vec<StateMeta>) -> SegmentView {
    SegmentView { id: SegmentId(id), scanned, repair: false, runs, states }
}

fn repair(id: u64, runs: Vec<RunSummary>) -> SegmentView {
    SegmentView { repair: true, ..view(id, false, runs, vec![]) }
}

fn extents(segments: &[SegmentView], evidence: Evidence) -> (Vec<(u64, u64, u64)>, usize) {
    let meta_at = |_, run: &RunSummary, index: Index| {
        Some(EntryMeta {
            position: 0,
            term: run.last_term,
            base_offset: Offset(index.0),
            max_timestamp_ms: 0,
            lsn: Lsn(run.first_lsn.0 + index.0 - run.first.0),
            offset_count: 1,
            payload_len: 0,
        })
    };
    let resolved = resolve(segments, evidence, &meta_at);
    let log = resolved.groups.get(&GROUP);
    let ranges = log.into_iter().flat_map(|log| &log.ranges);
    let extents = ranges.map(|range| (range.segment.0, range.first.0, range.last.0)).collect();
    (extents, resolved.rejected.len())
}

#[test]
fn the_newer_run_replaces_the_suffix() {
    let segments = [
        view(1, false, vec![run(1, 10, 10, 0, 1)], vec![]),
        view(2, true, vec![run(6, 8, 20, 1, 2)], vec![]),
    ];
    assert_eq!(extents(&segments, SYNCED), (vec![(1, 1, 5), (2, 6, 8)], 0));
}

#[test]
fn a_copy_and_its_source_are_the_same() {
    // 6..=10 of the source were superseded before the copy was made.
    let segments = [
        view(1, false, vec![run(1, 10, 10, 0, 1)], vec![]),
        view(2, false, vec![run(6, 8, 20, 1, 2)], vec![]),
        view(3, false, vec![run(1, 5, 5, 0, 1)], vec![]),
    ];
    assert_eq!(extents(&segments, SYNCED), (vec![(1, 1, 5), (2, 6, 8)], 0));
    assert_eq!(extents(&segments[1..], SYNCED), (vec![(3, 1, 5), (2, 6, 8)], 0));
}

#[test]
fn after_a_gap_nothing_is_taken_unless_it_was_synced() {
    let segments =
        [view(1, false, vec![run(1, 5, 5, 0, 1)], vec![]), view(2, true, vec![run(7, 9, 20, 1, 1)], vec![])];
    assert_eq!(extents(&segments, SYNCED), (vec![(1, 1, 5)], 1));
    let synced = Evidence { synced_lsn: Lsn(18), ..SYNCED };
    assert_eq!(extents(&segments, synced), (vec![(1, 1, 5), (2, 7, 9)], 0));
    let damaged = Evidence { unknown_damage: Some(Lsn(6)), ..SYNCED };
    assert_eq!(extents(&segments, damaged), (vec![(1, 1, 5), (2, 7, 9)], 0));
}

#[test]
fn what_has_another_previous_term_is_as_if_it_had_not_been_written() {
    let segments =
        [view(1, false, vec![run(1, 5, 5, 0, 1)], vec![]), view(2, true, vec![run(4, 9, 20, 2, 2)], vec![])];
    assert_eq!(extents(&segments, SYNCED), (vec![(1, 1, 5)], 1));
}

/// The log was given up and began anew; a machine crash took the record that says so, and kept entries of the new log.
#[test]
fn remains_of_a_new_log_do_not_go_on_from_the_start_of_the_old_one() {
    let old_start = || view(1, false, vec![run(1, 5, 5, 0, 1)], vec![start(5, 1, 12, 0)]);
    let new_log = vec![run(4, 8, 30, 9, 9)];
    assert_eq!(extents(&[old_start(), view(2, true, new_log.clone(), vec![])], SYNCED), (vec![], 1));
    let same_log = vec![run(4, 8, 30, 1, 1)];
    assert_eq!(extents(&[old_start(), view(2, true, same_log, vec![])], SYNCED), (vec![(2, 6, 8)], 0));
    // With the record it is the log.
    let begun = view(2, true, new_log, vec![start(3, 9, 26, 26)]);
    assert_eq!(extents(&[old_start(), begun], SYNCED), (vec![(2, 4, 8)], 0));
}

#[test]
fn a_start_trims_or_supersedes_everything() {
    let old = vec![run(1, 10, 10, 0, 1)];
    let trimmed = [view(1, false, old.clone(), vec![start(4, 1, 11, 5)])];
    assert_eq!(extents(&trimmed, SYNCED), (vec![(1, 5, 10)], 0));
    let reset = [view(1, false, old, vec![start(4, 3, 11, 11)])];
    assert_eq!(extents(&reset, SYNCED), (vec![], 0));
}

#[test]
fn what_a_lost_record_had_superseded_stays_dead_behind_a_start() {
    // 8 had been replaced (lsn 15) before the log was trimmed through 7; the replacement was lost, the start not.
    let segments = [
        view(1, false, vec![run(1, 10, 10, 0, 1)], vec![]),
        view(2, true, vec![], vec![start(7, 1, 20, 15)]),
    ];
    assert_eq!(extents(&segments, SYNCED), (vec![], 0));
}

#[test]
fn a_repair_stands_in_for_the_same_records_and_supersedes_nothing() {
    let base = view(1, false, vec![run(1, 10, 10, 0, 1)], vec![]);
    let part = repair(2, vec![run(4, 5, 5, 1, 1)]);
    let segments = [base, part, view(3, true, vec![run(8, 9, 20, 1, 2)], vec![])];
    assert_eq!(extents(&segments, SYNCED), (vec![(1, 1, 3), (2, 4, 5), (1, 6, 7), (3, 8, 9)], 0));
    // What it stood in for has been replaced, or was another life of the log.
    let replaced = view(3, true, vec![run(3, 9, 20, 1, 2)], vec![]);
    let [base, part, _] = segments;
    assert_eq!(extents(&[base, part, replaced], SYNCED), (vec![(1, 1, 2), (3, 3, 9)], 0));
    let anew = view(3, true, vec![run(1, 9, 40, 0, 2)], vec![start(0, 0, 30, 30)]);
    assert_eq!(extents(&[repair(2, vec![run(4, 5, 5, 1, 1)]), anew], SYNCED), (vec![(3, 1, 9)], 0));
}

#[test]
fn a_repair_fills_a_hole_into_which_its_lsns_fit() {
    let holed = |lsn| {
        [
            view(1, false, vec![run(1, 4, 4, 0, 1), run(7, 10, 10, 1, 1)], vec![]),
            repair(2, vec![run(5, 6, lsn, 1, 1)]),
        ]
    };
    assert_eq!(extents(&holed(6), SYNCED), (vec![(1, 1, 4), (2, 5, 6), (1, 7, 10)], 0));
    for lsn in [5, 7, 20] {
        assert_eq!(extents(&holed(lsn), SYNCED), (vec![(1, 1, 4), (1, 7, 10)], 0));
    }
}

#[test]
fn entries_whose_successors_are_damaged_are_told_of() {
    let damaged = Evidence { unknown_damage: Some(Lsn(11)), ..SYNCED };
    let meta_at = |_, _: &RunSummary, _| None;
    let contradictory = |prev_term| {
        let segments = [
            view(1, false, vec![run(1, 8, 8, 0, 1)], vec![]),
            view(2, true, vec![run(9, 10, 20, prev_term, 2)], vec![]),
        ];
        resolve(&segments, damaged, &meta_at).contradictory
    };
    assert_eq!(contradictory(1), []);
    assert_eq!(contradictory(2), [GROUP]);
}

#[test]
fn remains_of_a_replaced_suffix_stay_dead_after_their_successor_is_gone() {
    // 6..=10 were replaced by 6..=7 (since reclaimed), then the log was trimmed through 7.
    let segments = [
        view(1, false, vec![run(1, 10, 10, 0, 1)], vec![]),
        view(3, true, vec![], vec![start(7, 2, 30, 30)]),
    ];
    assert_eq!(extents(&segments, SYNCED), (vec![], 0));
}

/// As the records say: the entry at an index has the LSN that follows from its run.
fn meta_of(run: &RunSummary, index: Index) -> EntryMeta {
    EntryMeta {
        position: 0,
        term: run.prev_term,
        base_offset: Offset(index.0 * 10),
        max_timestamp_ms: 0,
        lsn: Lsn(run.first_lsn.0 + index.0 - run.first.0),
        offset_count: 10,
        payload_len: 0,
    }
}

fn log_of(segments: &[SegmentView]) -> GroupLog {
    let mut resolved = resolve(segments, SYNCED, &|_, run, index| Some(meta_of(run, index)));
    resolved.groups.remove(&GROUP).unwrap()
}

#[test]
fn a_checkpoint_counts_if_it_is_newer_than_the_start_and_than_what_it_is_of() {
    let checkpoint = |index, lsn| StateMeta { kind: StateKind::Checkpoint, ..start(index, 1, lsn, 0) };
    // Entries 1 to 10 have the LSNs 11 to 20.
    let usable = |state: StateMeta| {
        let states = vec![start(2, 1, 13, 0), state];
        log_of(&[view(1, false, vec![run(1, 10, 20, 0, 1)], states)]).checkpoint.is_some()
    };
    assert!(usable(checkpoint(2, 14)) && !usable(checkpoint(2, 13)), "the start");
    assert!(usable(checkpoint(5, 16)) && !usable(checkpoint(5, 15)), "its entry");
    assert!(usable(checkpoint(10, 21)) && !usable(checkpoint(10, 20)), "the last entry");
    assert!(!usable(checkpoint(1, 99)) && !usable(checkpoint(11, 99)), "it lies outside");
    let first = |lsn| {
        let log = log_of(&[view(1, false, vec![run(1, 10, 20, 0, 1)], vec![checkpoint(1, lsn)])]);
        log.checkpoint.is_some()
    };
    assert!(first(12) && !first(11), "the first entry");
    let two = vec![checkpoint(5, 30), checkpoint(6, 31), checkpoint(4, 29)];
    let newest = log_of(&[view(1, false, vec![run(1, 10, 20, 0, 1)], two)]).checkpoint.unwrap();
    assert_eq!(newest.meta.index, Index(6));
}

#[test]
fn the_end_of_a_log_is_that_of_its_last_live_entry() {
    let whole = log_of(&[view(1, false, vec![run(1, 10, 10, 3, 4)], vec![])]);
    assert_eq!((whole.last_index, whole.last_term, whole.next_offset), (Index(10), Term(4), Offset(11)));
    assert_eq!((whole.start.index, whole.start.term, whole.start.offset), (Index(0), Term(3), Offset(1)));
    // 6 to 10 are superseded by a single entry.
    let cut = [
        view(1, false, vec![run(1, 10, 10, 3, 4)], vec![]),
        view(2, false, vec![run(6, 6, 20, 3, 5)], vec![]),
    ];
    let log = log_of(&cut);
    assert_eq!((log.last_index, log.last_term, log.next_offset), (Index(6), Term(5), Offset(7)));
    assert_eq!(
        log.ranges.iter().map(|range| (range.first.0, range.last.0)).collect::<Vec<_>>(),
        [(1, 5), (6, 6)]
    );
}

#[test]
fn where_a_start_ends_what_was_before_is_exact() {
    let live = |start| extents(&[view(1, false, vec![run(1, 10, 10, 0, 1)], vec![start])], SYNCED).0;
    assert_eq!(live(start(9, 1, 11, 10)), [(1, 10, 10)]);
    assert_eq!(live(start(10, 1, 11, 0)), []);
    assert_eq!(live(start(9, 1, 11, 11)), []);
    let unsynced =
        [view(1, false, vec![run(1, 5, 5, 0, 1)], vec![]), view(2, true, vec![run(7, 9, 20, 1, 1)], vec![])];
    let damaged = |lsn| Evidence { unknown_damage: Some(Lsn(lsn)), ..SYNCED };
    assert_eq!(extents(&unsynced, damaged(17)).1, 0);
    assert_eq!(extents(&unsynced, damaged(18)).1, 1, "the damage lies behind it");
    assert_eq!(extents(&unsynced, Evidence { synced_lsn: Lsn(17), ..SYNCED }).1, 1);
    assert_eq!(extents(&unsynced, Evidence { trust_unsynced: true, ..SYNCED }).1, 0);
}

#[test]
fn a_tombstone_ends_a_group_and_the_newest_counts() {
    let delete = |lsn| StateMeta { kind: StateKind::Delete, ..start(0, 0, lsn, 0) };
    let segments = [
        view(1, false, vec![run(1, 10, 10, 0, 1)], vec![delete(11)]),
        view(2, false, vec![], vec![delete(12)]),
    ];
    let resolved = resolve(&segments, SYNCED, &|_, _, _| None);
    assert!(resolved.groups.is_empty());
    assert_eq!(resolved.deleted[&GROUP].segment, SegmentId(2));
}
