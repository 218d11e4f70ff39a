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
#[path = "index_tests.rs"]
mod tests;
