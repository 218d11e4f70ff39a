//! The index of one segment in memory, built frame by frame while the segment is written or scanned.

use std::collections::BTreeMap;

use crate::footer::{DamageMeta, EntryMeta, RunSummary, StateKind, StateMeta};
use crate::frame::{FrameHeader, FrameKind};
use crate::record::RecordKind;
use crate::types::{GroupId, Index, Lsn, Term};

/// Consecutive entries of one group in one segment, each the successor of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: Index,
    /// The term before the first entry.
    pub(crate) prev_term: Term,
    pub(crate) entries: Vec<EntryMeta>,
    pub(crate) bytes: u64,
    /// Not lowered when entries are taken away.
    pub(crate) max_timestamp_ms: i64,
}

impl Run {
    fn new(first: Index, prev_term: Term, meta: EntryMeta) -> Self {
        let mut run = Self { first, prev_term, entries: Vec::new(), bytes: 0, max_timestamp_ms: i64::MIN };
        run.push(meta);
        run
    }

    fn push(&mut self, meta: EntryMeta) {
        self.bytes += meta.frame_bytes();
        if meta.offset_count > 0 {
            self.max_timestamp_ms = self.max_timestamp_ms.max(meta.max_timestamp_ms);
        }
        self.entries.push(meta);
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.first.0 + self.entries.len() as u64 - 1)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&EntryMeta> {
        let at = index.0.checked_sub(self.first.0)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Drops `index` and what follows. False if nothing is left.
    fn truncate_from(&mut self, index: Index) -> bool {
        let keep = usize::try_from(index.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        if keep < self.entries.len() {
            self.bytes -= self.entries[keep..].iter().map(EntryMeta::frame_bytes).sum::<u64>();
            self.entries.truncate(keep);
        }
        !self.entries.is_empty()
    }

    /// Drops everything up to `index`. False if nothing is left.
    fn trim_through(&mut self, index: Index) -> bool {
        if index < self.first {
            return true;
        }
        let drop = usize::try_from(index.0 - self.first.0 + 1).unwrap_or(usize::MAX).min(self.entries.len());
        for dropped in self.entries.drain(..drop) {
            self.bytes -= dropped.frame_bytes();
            self.prev_term = dropped.term;
        }
        self.first = index.next();
        !self.entries.is_empty()
    }

    /// The summary of a run that is not stored in a footer yet.
    pub(crate) fn summary(&self, group: GroupId) -> RunSummary {
        let (first, last) = (self.entries[0], self.entries[self.entries.len() - 1]);
        RunSummary {
            group,
            first: self.first,
            count: self.entries.len() as u64,
            prev_term: self.prev_term,
            last_term: last.term,
            first_lsn: first.lsn,
            last_lsn: last.lsn,
            base_offset: first.base_offset,
            next_offset: last.next_offset(),
            max_timestamp_ms: self.max_timestamp_ms,
            bytes: self.bytes,
            entries_position: 0,
            entries_crc: 0,
        }
    }
}

/// Everything of one group in one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupContents {
    /// Ordered by index.
    pub(crate) runs: Vec<Run>,
    /// The newest of each kind.
    pub(crate) states: Vec<StateMeta>,
}

/// The index of one segment in memory: what its records say once all of them are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    pub(crate) groups: BTreeMap<GroupId, GroupContents>,
    pub(crate) damage: Vec<DamageMeta>,
    /// Smallest and largest LSN; zero if there is no frame.
    pub(crate) min_lsn: Lsn,
    pub(crate) max_lsn: Lsn,
}

impl SegmentIndex {
    /// Takes in the next frame of the segment.
    pub(crate) fn add(&mut self, header: &FrameHeader, position: u64) {
        self.max_lsn = self.max_lsn.max(header.lsn);
        self.min_lsn = if self.min_lsn.0 == 0 { header.lsn } else { self.min_lsn.min(header.lsn) };
        let FrameKind::Record(kind) = header.kind else { return };
        let contents = self.groups.entry(header.group).or_default();
        match kind {
            RecordKind::Entry { .. } => contents.add_entry(header, position),
            RecordKind::Start => contents.add_state(StateMeta::of(header, StateKind::Start, position)),
            RecordKind::Checkpoint => {
                contents.add_state(StateMeta::of(header, StateKind::Checkpoint, position));
            }
            RecordKind::Delete => contents.add_state(StateMeta::of(header, StateKind::Delete, position)),
        }
    }

    /// The run of the group that holds the entry.
    pub(crate) fn run_of(&self, group: GroupId, index: Index) -> Option<&Run> {
        let runs = &self.groups.get(&group)?.runs;
        runs.iter().rev().find(|run| run.first <= index && index <= run.last())
    }
}

impl GroupContents {
    fn add_entry(&mut self, header: &FrameHeader, position: u64) {
        let meta = EntryMeta::of(header, position);
        self.runs.retain_mut(|run| run.first < header.index && run.truncate_from(header.index));
        if let Some(run) = self.runs.last_mut() {
            let follows = run.last().next() == header.index
                && run.entries.last().is_some_and(|last| last.term == header.prev_term);
            if follows {
                run.push(meta);
                return;
            }
        }
        self.runs.push(Run::new(header.index, header.prev_term, meta));
    }

    fn add_state(&mut self, state: StateMeta) {
        match state.kind {
            StateKind::Start => {
                self.runs.retain_mut(|run| {
                    run.trim_through(state.index)
                        && run.entries.last().is_some_and(|last| last.lsn >= state.floor_lsn)
                });
            }
            StateKind::Delete => {
                self.runs.clear();
                self.states.clear();
            }
            StateKind::Checkpoint => {}
        }
        self.states.retain(|other| other.kind != state.kind);
        self.states.push(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;
    use crate::record::Record;
    use crate::types::Offset;

    fn header(group: u64, kind: RecordKind, index: u64, term: u64, prev_term: u64, lsn: u64) -> FrameHeader {
        let record = Record {
            group: GroupId(group),
            kind,
            index: Index(index),
            term: Term(term),
            prev_term: Term(prev_term),
            base_offset: Offset(index * 10),
            offset_count: 10,
            max_timestamp_ms: index.cast_signed(),
            payload: Payload::empty(),
        };
        FrameHeader::of(&record, Lsn(lsn), Lsn(0), Lsn(if kind == RecordKind::Start { 1 } else { 0 }))
    }

    fn entry(group: u64, index: u64, term: u64, prev_term: u64, lsn: u64) -> FrameHeader {
        header(group, RecordKind::Entry { tag: 0 }, index, term, prev_term, lsn)
    }

    #[test]
    fn a_suffix_is_replaced_and_the_run_goes_on() {
        let mut index = SegmentIndex::default();
        for (at, prev) in [(1, 0), (2, 1), (3, 1), (4, 1)] {
            index.add(&entry(1, at, 1, prev, at), at * 96);
        }
        index.add(&entry(1, 3, 2, 1, 9), 900);
        let runs = &index.groups[&GroupId(1)].runs;
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].first, runs[0].last()), (Index(1), Index(3)));
        assert_eq!(runs[0].get(Index(3)).unwrap().position, 900);
        assert_eq!(runs[0].bytes, 3 * 96);
        assert_eq!((index.min_lsn, index.max_lsn), (Lsn(1), Lsn(9)));
    }

    #[test]
    fn a_gap_or_another_previous_term_begins_a_new_run() {
        let mut index = SegmentIndex::default();
        index.add(&entry(1, 1, 1, 0, 1), 96);
        index.add(&entry(1, 3, 1, 1, 2), 192);
        index.add(&entry(1, 4, 2, 2, 3), 288);
        assert_eq!(index.groups[&GroupId(1)].runs.len(), 3);
        assert_eq!(index.run_of(GroupId(1), Index(3)).unwrap().first, Index(3));
        assert!(index.run_of(GroupId(1), Index(2)).is_none());
    }

    #[test]
    fn a_start_trims_and_a_delete_clears() {
        let mut index = SegmentIndex::default();
        for at in 1..=5 {
            index.add(&entry(1, at, 1, u64::from(at > 1), at), at * 96);
        }
        index.add(&header(1, RecordKind::Start, 3, 1, 0, 6), 600);
        let contents = &index.groups[&GroupId(1)];
        assert_eq!((contents.runs[0].first, contents.runs[0].prev_term), (Index(4), Term(1)));
        index.add(&header(1, RecordKind::Delete, 0, 0, 0, 7), 700);
        let contents = &index.groups[&GroupId(1)];
        assert!(contents.runs.is_empty());
        assert_eq!(contents.states.len(), 1);
    }

    #[test]
    fn only_entries_with_records_have_a_timestamp() {
        let with = |index, offset_count, max_timestamp_ms| FrameHeader {
            offset_count,
            max_timestamp_ms,
            ..entry(1, index, 1, u64::from(index > 1), index)
        };
        let mut index = SegmentIndex::default();
        index.add(&with(1, 0, 900), 96);
        assert_eq!(index.groups[&GroupId(1)].runs[0].max_timestamp_ms, i64::MIN);
        index.add(&with(2, 1, 500), 192);
        index.add(&with(3, 0, 700), 288);
        assert_eq!(index.groups[&GroupId(1)].runs[0].max_timestamp_ms, 500);
    }

    #[test]
    fn a_log_that_starts_with_its_first_entry_begins_with_the_second() {
        let mut index = SegmentIndex::default();
        for at in 1..=3 {
            index.add(&entry(1, at, 1, u64::from(at > 1), at), at * 96);
        }
        index.add(&header(1, RecordKind::Start, 1, 1, 0, 4), 600);
        assert_eq!(index.groups[&GroupId(1)].runs[0].first, Index(2));
    }

    #[test]
    fn what_a_start_leaves_is_where_it_was() {
        let mut whole = SegmentIndex::default();
        for at in 1..=5 {
            whole.add(&entry(1, at, 1, u64::from(at > 1), at), at * 96);
        }
        let mut trimmed = whole.clone();
        trimmed.add(&header(1, RecordKind::Start, 3, 1, 0, 6), 600);
        let run = trimmed.run_of(GroupId(1), Index(4)).unwrap();
        assert_eq!((run.last(), run.bytes), (Index(5), 2 * 96));
        assert_eq!([4, 5].map(|at| run.get(Index(at)).unwrap().position), [4 * 96, 5 * 96]);
        assert!(run.get(Index(3)).is_none() && run.get(Index(6)).is_none());
        // Everything from before its floor is dead, whatever its index.
        let start = header(1, RecordKind::Start, 3, 1, 0, 6);
        whole.add(&FrameHeader { floor_lsn: Lsn(6), ..start }, 600);
        assert!(whole.groups[&GroupId(1)].runs.is_empty());
    }
}
