//! Where everything is: per group its live ranges by segment, per segment what it holds.
//!
//! Memory grows with the number of (group, segment) pairs, not with the number of records: dense entries are kept only
//! for segments that have no footer yet.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::contents::SegmentIndex;
use crate::footer::{Directory, EntryMeta, RunSummary, StateKind, StateMeta};
use crate::frame::{FrameHeader, FrameKind};
use crate::record::{Bounds, RecordKind};
use crate::recovered::DamagedRange;
use crate::segment::Segment;
use crate::types::{GroupId, Index as EntryIndex, Lsn, Offset, SegmentId, Term};

/// The index of the whole log.
#[derive(Default)]
pub(crate) struct Index {
    pub(crate) groups: HashMap<GroupId, GroupLog>,
    /// Tombstones whose groups may still have records on disk.
    pub(crate) deleted: HashMap<GroupId, StateRef>,
    pub(crate) segments: BTreeMap<SegmentId, SegmentEntry>,
}

/// One segment.
pub(crate) struct SegmentEntry {
    pub(crate) segment: Arc<Segment>,
    pub(crate) contents: Contents,
    pub(crate) file_bytes: u64,
}

/// What is in a segment.
pub(crate) enum Contents {
    /// Being written to.
    Active(SegmentIndex),
    /// Complete, its footer on the way.
    Closing(Arc<SegmentIndex>),
    /// The footer is durable.
    Sealed(SealedContents),
}

/// What stays in memory of a sealed segment, apart from the ranges of the groups.
pub(crate) struct SealedContents {
    /// Every group with anything in it, in order.
    pub(crate) groups: Box<[GroupId]>,
    pub(crate) damaged: bool,
    /// What it holds stands in for damaged records.
    pub(crate) repair: bool,
}

impl SealedContents {
    pub(crate) fn of(directory: &Directory, repair: bool) -> Self {
        Self { groups: directory.groups().into(), damaged: !directory.damage.is_empty(), repair }
    }
}

impl SegmentEntry {
    /// The dense index, while it is in memory.
    pub(crate) fn dense(&self) -> Option<&SegmentIndex> {
        match &self.contents {
            Contents::Active(index) => Some(index),
            Contents::Closing(index) => Some(index),
            Contents::Sealed(_) => None,
        }
    }

    pub(crate) fn has_group(&self, group: GroupId) -> bool {
        match &self.contents {
            Contents::Sealed(sealed) => sealed.groups.binary_search(&group).is_ok(),
            _ => self.dense().is_some_and(|index| index.groups.contains_key(&group)),
        }
    }
}

/// A state record and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateRef {
    pub(crate) segment: SegmentId,
    pub(crate) meta: StateMeta,
}

/// Where a group's log begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogStart {
    pub(crate) index: EntryIndex,
    pub(crate) term: Term,
    pub(crate) offset: Offset,
}

/// The live part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) segment: SegmentId,
    pub(crate) first: EntryIndex,
    pub(crate) last: EntryIndex,
    /// The run in the segment, of which `first..=last` is live.
    pub(crate) run: RunSummary,
}

impl Range {
    pub(crate) fn new(segment: SegmentId, run: RunSummary) -> Self {
        Self { segment, first: run.first, last: run.last(), run }
    }

    pub(crate) fn count(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// Bytes of the live frames; in proportion, where only a part of the run is live.
    pub(crate) fn live_bytes(&self) -> u64 {
        if self.count() >= self.run.count {
            return self.run.bytes;
        }
        let share = u128::from(self.run.bytes) * u128::from(self.count()) / u128::from(self.run.count.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

/// Consecutive entries of a log that are nowhere to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) first: EntryIndex,
    pub(crate) last: EntryIndex,
}

/// The log of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupLog {
    pub(crate) start: LogStart,
    pub(crate) start_state: Option<StateRef>,
    /// Newer than `start_state`.
    pub(crate) checkpoint: Option<StateRef>,
    /// Ordered by index. There are gaps only where something is damaged.
    pub(crate) ranges: VecDeque<Range>,
    pub(crate) last_index: EntryIndex,
    pub(crate) last_term: Term,
    pub(crate) next_offset: Offset,
}

impl GroupLog {
    pub(crate) fn new(start: LogStart) -> Self {
        Self {
            start,
            start_state: None,
            checkpoint: None,
            ranges: VecDeque::new(),
            last_index: start.index,
            last_term: start.term,
            next_offset: start.offset,
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Bounds {
            start_index: self.start.index,
            start_term: self.start.term,
            start_offset: self.start.offset,
            last_index: self.last_index,
            last_term: self.last_term,
            next_offset: self.next_offset,
            bytes: self.ranges.iter().map(Range::live_bytes).sum(),
        }
    }

    /// The first range that ends at or above `index`; it may begin above it.
    pub(crate) fn range_at(&self, index: EntryIndex) -> Option<&Range> {
        self.ranges.get(self.ranges.partition_point(|range| range.last < index))
    }

    /// The ranges that are a part of these indexes.
    fn ranges_within(&mut self, run: &RunSummary) -> impl Iterator<Item = &mut Range> {
        let (first, last) = (run.first, run.last());
        let from = self.ranges.partition_point(|range| range.last < first);
        let candidates = self.ranges.range_mut(from..).take_while(move |range| range.first <= last);
        candidates.filter(move |range| first <= range.first && range.last <= last)
    }

    /// Makes everything from `index` on dead. The last term and offset are the caller's to set.
    pub(crate) fn truncate_from(&mut self, index: EntryIndex) {
        while let Some(range) = self.ranges.back_mut() {
            if range.last < index {
                break;
            }
            if range.first < index {
                range.last = index.previous();
                break;
            }
            self.ranges.pop_back();
        }
    }

    /// Makes everything up to `index` dead.
    pub(crate) fn trim_through(&mut self, index: EntryIndex) {
        while let Some(range) = self.ranges.front_mut() {
            if range.first > index {
                break;
            }
            if range.last > index {
                range.first = index.next();
                break;
            }
            self.ranges.pop_front();
        }
    }

    /// Entries that are nowhere to be found, in order of index.
    pub(crate) fn holes(&self) -> Vec<Hole> {
        let mut expected = self.start.index.next();
        let mut holes = Vec::new();
        for range in &self.ranges {
            if range.first > expected {
                holes.push(Hole { first: expected, last: range.first.previous() });
            }
            expected = range.last.next();
        }
        holes
    }

    /// Lets `patch` stand in for the entries in its place: where there are none, and where `is_same` says so of a range and
    /// the first and last index in question. It never reaches beyond the ends of the log.
    pub(crate) fn patch(
        &mut self,
        patch: &Range,
        fits_hole: &dyn Fn(Hole) -> bool,
        is_same: &dyn Fn(&Range, EntryIndex, EntryIndex) -> bool,
    ) {
        let mut at = patch.first.max(self.start.index.next());
        let last = patch.last.min(self.last_index);
        while at <= last {
            let Some(next) = self.range_at(at).copied() else { return };
            let (end, taken) = if next.first <= at {
                let end = next.last.min(last);
                (end, is_same(&next, at, end))
            } else {
                let end = next.first.previous().min(last);
                (end, fits_hole(Hole { first: at, last: end }))
            };
            if taken {
                self.put(Range { first: at, last: end, ..*patch });
            }
            at = end.next();
        }
    }

    /// Puts a range into a hole, or in the place of a part of one other.
    fn put(&mut self, range: Range) {
        let at = self.ranges.partition_point(|other| other.last < range.first);
        let replaced = self.ranges.get(at).copied().filter(|other| other.first <= range.last);
        let mut pieces = vec![range];
        if let Some(replaced) = replaced {
            self.ranges.remove(at);
            if replaced.first < range.first {
                pieces.insert(0, Range { last: range.first.previous(), ..replaced });
            }
            if range.last < replaced.last {
                pieces.push(Range { first: range.last.next(), ..replaced });
            }
        }
        for (offset, piece) in pieces.into_iter().enumerate() {
            self.ranges.insert(at + offset, piece);
        }
    }

    /// All segments the group needs.
    pub(crate) fn states(&self) -> impl Iterator<Item = &StateRef> {
        self.start_state.iter().chain(&self.checkpoint)
    }
}

/// Dense entries of one range, or where to load them from.
pub(crate) enum Located {
    /// From memory: the entries from the asked one on, as many as wanted.
    Dense(Vec<EntryMeta>),
    /// In the footer of the segment.
    Stored,
}

impl Index {
    /// Takes in a frame that has been written to the active segment.
    pub(crate) fn apply(&mut self, segment: SegmentId, header: &FrameHeader, position: u64) {
        let Some(entry) = self.segments.get_mut(&segment) else { return };
        let Contents::Active(dense) = &mut entry.contents else { return };
        dense.add(header, position);
        let FrameKind::Record(kind) = header.kind else { return };
        let state = |kind| StateRef { segment, meta: StateMeta::of(header, kind, position) };
        match kind {
            RecordKind::Entry { .. } => {
                let run = dense.run_of(header.group, header.index);
                let run = run.map(|run| (run.first, run.bytes, run.max_timestamp_ms));
                self.apply_entry(segment, header, position, run);
            }
            RecordKind::Start => self.apply_start(state(StateKind::Start)),
            RecordKind::Checkpoint => {
                if let Some(log) = self.groups.get_mut(&header.group) {
                    log.checkpoint = Some(state(StateKind::Checkpoint));
                }
            }
            RecordKind::Delete => {
                self.groups.remove(&header.group);
                self.deleted.insert(header.group, state(StateKind::Delete));
            }
        }
    }

    /// `run` is the first index, the bytes and the largest timestamp of the run that the entry has become a part of.
    fn apply_entry(
        &mut self,
        segment: SegmentId,
        header: &FrameHeader,
        position: u64,
        run: Option<(EntryIndex, u64, i64)>,
    ) {
        let meta = EntryMeta::of(header, position);
        let log = self.groups.entry(header.group).or_insert_with(|| {
            GroupLog::new(LogStart {
                index: header.index.previous(),
                term: header.prev_term,
                offset: header.base_offset,
            })
        });
        log.truncate_from(header.index);
        if log.ranges.is_empty() && log.start_state.is_none() {
            // A log without a start record begins where its first entry does.
            log.start.offset = header.base_offset;
        }
        log.last_index = header.index;
        log.last_term = header.term;
        log.next_offset = meta.next_offset();
        if log.checkpoint.is_some_and(|checkpoint| checkpoint.meta.index >= header.index) {
            log.checkpoint = None;
        }
        let Some((run_first, run_bytes, run_max_timestamp_ms)) = run else { return };
        let alone = RunSummary {
            group: header.group,
            first: header.index,
            count: 1,
            prev_term: header.prev_term,
            last_term: header.term,
            first_lsn: header.lsn,
            last_lsn: header.lsn,
            base_offset: header.base_offset,
            next_offset: meta.next_offset(),
            max_timestamp_ms: run_max_timestamp_ms,
            bytes: meta.frame_bytes(),
            entries_position: 0,
            entries_crc: 0,
        };
        match log.ranges.back_mut() {
            Some(back)
                if back.segment == segment && back.last.next() == header.index && run_first <= back.first =>
            {
                back.last = header.index;
                back.run.first = run_first;
                back.run.count = header.index.0 - run_first.0 + 1;
                back.run.bytes = run_bytes;
                back.run.last_term = header.term;
                back.run.last_lsn = header.lsn;
                back.run.next_offset = meta.next_offset();
                back.run.max_timestamp_ms = run_max_timestamp_ms;
            }
            _ => log.ranges.push_back(Range::new(segment, alone)),
        }
    }

    fn apply_start(&mut self, state: StateRef) {
        let meta = state.meta;
        let start = LogStart { index: meta.index, term: meta.term, offset: meta.base_offset };
        let log = self.groups.entry(meta.group).or_insert_with(|| GroupLog::new(start));
        if meta.floor_lsn == meta.lsn || meta.index >= log.last_index {
            log.ranges.clear();
            log.last_index = start.index;
            log.last_term = start.term;
            log.next_offset = start.offset;
        } else {
            log.trim_through(meta.index);
        }
        log.start = start;
        log.start_state = Some(state);
        log.checkpoint = None;
    }

    /// Whether any of these entries is read from that segment.
    pub(crate) fn needs(&self, segment: SegmentId, entries: &DamagedRange) -> bool {
        let log = self.groups.get(&entries.group);
        log.into_iter().flat_map(|log| &log.ranges).any(|range| {
            range.segment == segment && range.first <= entries.last && entries.first <= range.last
        })
    }

    /// The entries of `range` from `from` on, at most `max_count`.
    pub(crate) fn locate(&self, range: &Range, from: EntryIndex, max_count: u64) -> Located {
        let dense = self.segments.get(&range.segment).and_then(SegmentEntry::dense);
        let Some(dense) = dense else { return Located::Stored };
        let last = EntryIndex(range.last.0.min(from.0.saturating_add(max_count.saturating_sub(1))));
        let entries = dense.run_of(range.run.group, from).and_then(|run| {
            let at = |index: EntryIndex| usize::try_from(index.0 - run.first.0).unwrap_or(usize::MAX);
            let end = at(last).saturating_add(1).min(run.entries.len());
            run.entries.get(at(from)..end)
        });
        Located::Dense(entries.unwrap_or_default().to_vec())
    }

    /// The LSN below which all records of a group are dead once a `Start` at `index` is written with `lsn`, or `None` if
    /// it must be looked up in the footer of this range.
    pub(crate) fn first_live_lsn_after(&self, group: GroupId, index: EntryIndex) -> FirstLive {
        let Some(log) = self.groups.get(&group) else { return FirstLive::Nothing };
        let Some(range) = log.range_at(index.next()) else { return FirstLive::Nothing };
        let first = range.first.max(index.next());
        if first == range.run.first {
            return FirstLive::Lsn(range.run.first_lsn);
        }
        match self.locate(range, first, 1) {
            Located::Dense(entries) => {
                entries.first().map_or(FirstLive::Stored(*range, first), |entry| FirstLive::Lsn(entry.lsn))
            }
            Located::Stored => FirstLive::Stored(*range, first),
        }
    }

    /// Replaces the dense index of a closed segment by what its footer says.
    pub(crate) fn seal(&mut self, segment: SegmentId, directory: &Directory, file_bytes: u64) {
        let Some(entry) = self.segments.get_mut(&segment) else { return };
        entry.contents = Contents::Sealed(SealedContents::of(directory, false));
        entry.file_bytes = file_bytes;
        self.set_stored_runs(segment, directory);
    }

    /// Tells the ranges of a segment where their dense entries are stored.
    pub(crate) fn set_stored_runs(&mut self, segment: SegmentId, directory: &Directory) {
        for run in &directory.runs {
            let Some(log) = self.groups.get_mut(&run.group) else { continue };
            for range in log.ranges_within(run).filter(|range| range.segment == segment) {
                range.run = *run;
            }
        }
    }

    /// Moves everything live from `sources` to the segment that holds the copies.
    pub(crate) fn move_survivors(&mut self, sources: &[SegmentId], target: SegmentId, directory: &Directory) {
        for run in &directory.runs {
            let Some(log) = self.groups.get_mut(&run.group) else { continue };
            for range in log.ranges_within(run).filter(|range| sources.contains(&range.segment)) {
                range.segment = target;
                range.run = *run;
            }
        }
        for state in &directory.states {
            let log = self.groups.get_mut(&state.group);
            let of_log =
                log.into_iter().flat_map(|log| [&mut log.start_state, &mut log.checkpoint]).flatten();
            let of_deleted = self.deleted.get_mut(&state.group);
            for reference in of_log.chain(of_deleted) {
                if reference.meta.lsn == state.lsn && reference.meta.kind == state.kind {
                    *reference = StateRef { segment: target, meta: *state };
                }
            }
        }
    }
}

/// Answer of [`Index::first_live_lsn_after`].
pub(crate) enum FirstLive {
    /// No entry would be left.
    Nothing,
    Lsn(Lsn),
    /// To be loaded: the entry with that index of that range.
    Stored(Range, EntryIndex),
}

#[cfg(test)]
mod tests {
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
            let entries =
                DamagedRange { group: GroupId(1), first: EntryIndex(first), last: EntryIndex(last) };
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
        let it = Directory {
            runs: vec![all],
            states: vec![copied(StateKind::Checkpoint, 4)],
            ..Directory::default()
        };
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
        let sealed = Directory {
            runs: vec![RunSummary { entries_position: 777, ..run(1, 3) }],
            ..Directory::default()
        };
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
}
