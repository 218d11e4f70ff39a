//! Which of all the records on disk are live: a pure function of what the segments say.
//!
//! It works on whole runs. A run was live as a whole when its last record was written (or copied), so of two runs of a
//! group the one with the higher last LSN wins wherever both have an index, and everything of the other from there on is
//! dead. Replaying runs in that order, each replacing the suffix from its first index on, gives the live log.

use std::collections::{BTreeMap, HashMap};

use crate::footer::{EntryMeta, RunSummary, StateKind, StateMeta};
use crate::index::{GroupLog, Hole, LogStart, Range, StateRef};
use crate::recovered::DamagedRange;
use crate::types::{GroupId, Index, Lsn, SegmentId, Term};

/// What one segment contributes.
pub(crate) struct SegmentView {
    pub(crate) id: SegmentId,
    /// Its footer was not there; its end may be missing.
    pub(crate) scanned: bool,
    /// It stands in for damaged records of others.
    pub(crate) repair: bool,
    pub(crate) runs: Vec<RunSummary>,
    pub(crate) states: Vec<StateMeta>,
}

/// What is known about the end of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    /// Everything up to here was durable.
    pub(crate) synced_lsn: Lsn,
    /// The page cache is the one that was written to.
    pub(crate) trust_unsynced: bool,
    /// The earliest place at which records of unknown groups are damaged: after this LSN.
    pub(crate) unknown_damage: Option<Lsn>,
}

/// The answer.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    pub(crate) groups: HashMap<GroupId, GroupLog>,
    pub(crate) deleted: HashMap<GroupId, StateRef>,
    /// Runs that do not follow what is before them, because that was not synced: segment, group and first index. At most
    /// one for each group: without it others may be all right. The rest of the answer counts only if there is none.
    pub(crate) rejected: Vec<(SegmentId, GroupId, Index)>,
    /// Entries that were there once and cannot be found.
    pub(crate) missing: Vec<DamagedRange>,
    /// Groups with an entry that does not follow the one before it.
    pub(crate) contradictory: Vec<GroupId>,
}

#[derive(Default)]
struct Candidates {
    runs: Vec<(SegmentId, bool, RunSummary)>,
    repairs: Vec<(SegmentId, RunSummary)>,
    states: Vec<StateRef>,
}

/// `meta_at` looks up one entry of a run; `None` if it cannot be read.
pub(crate) fn resolve(
    segments: &[SegmentView],
    evidence: Evidence,
    meta_at: &dyn Fn(SegmentId, &RunSummary, Index) -> Option<EntryMeta>,
) -> Resolved {
    let mut candidates: BTreeMap<GroupId, Candidates> = BTreeMap::new();
    for segment in segments {
        for run in &segment.runs {
            let candidates = candidates.entry(run.group).or_default();
            if segment.repair {
                candidates.repairs.push((segment.id, *run));
            } else {
                candidates.runs.push((segment.id, segment.scanned, *run));
            }
        }
        for meta in &segment.states {
            let state = StateRef { segment: segment.id, meta: *meta };
            candidates.entry(meta.group).or_default().states.push(state);
        }
    }
    let mut resolved = Resolved::default();
    for (group, candidates) in candidates {
        resolve_group(group, candidates, evidence, meta_at, &mut resolved);
    }
    resolved
}

fn newest(states: &[StateRef], kind: StateKind) -> Option<StateRef> {
    let of_kind = states.iter().filter(|state| state.meta.kind == kind);
    of_kind.max_by_key(|state| (state.meta.lsn, state.segment)).copied()
}

fn resolve_group(
    group: GroupId,
    candidates: Candidates,
    evidence: Evidence,
    meta_at: &dyn Fn(SegmentId, &RunSummary, Index) -> Option<EntryMeta>,
    resolved: &mut Resolved,
) {
    if let Some(tombstone) = newest(&candidates.states, StateKind::Delete) {
        resolved.deleted.insert(group, tombstone);
        return;
    }
    let start_state = newest(&candidates.states, StateKind::Start);
    let mut runs = candidates.runs;
    runs.sort_by_key(|(segment, _, run)| (run.last_lsn, run.first, *segment));
    let start = match (start_state, runs.iter().map(|(_, _, run)| run).find(|run| run.first == Index(1))) {
        (Some(state), _) => {
            LogStart { index: state.meta.index, term: state.meta.term, offset: state.meta.base_offset }
        }
        (None, Some(run)) => LogStart { index: Index(0), term: run.prev_term, offset: run.base_offset },
        (None, None) => LogStart::default(),
    };
    let mut replay =
        Replay { log: GroupLog::new(start), evidence, meta_at, rejected: None, contradictory: false };
    replay.log.start_state = start_state;
    for (segment, scanned, run) in runs {
        if let Some(range) = after_start(Range::new(segment, run), start_state.as_ref()) {
            replay.take_in(range, scanned);
        }
    }
    let contradictory = replay.is_contradictory();
    let Replay { mut log, rejected, .. } = replay;
    finish(&mut log, &candidates.states, meta_at);
    for (segment, run) in candidates.repairs {
        if let Some(patch) = after_start(Range::new(segment, run), start_state.as_ref()) {
            stand_in(&mut log, &patch, meta_at);
        }
    }
    let missing = |hole: Hole| DamagedRange { group, first: hole.first, last: hole.last };
    resolved.missing.extend(log.holes().into_iter().map(missing));
    resolved.contradictory.extend(contradictory.then_some(group));
    resolved.rejected.extend(rejected.into_iter().map(|(segment, first)| (segment, group, first)));
    if log.start_state.is_some() || !log.ranges.is_empty() {
        resolved.groups.insert(group, log);
    }
}

/// What the start of the log leaves of a range.
fn after_start(range: Range, start: Option<&StateRef>) -> Option<Range> {
    let Some(start) = start.map(|start| start.meta) else { return Some(range) };
    if range.run.last_lsn < start.floor_lsn || range.last <= start.index {
        return None;
    }
    Some(Range { first: range.first.max(start.index.next()), ..range })
}

/// How a range goes on from what is in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Continuation {
    Follows,
    /// The entry before it is not there.
    Gap,
    /// The entry before it is there, and has another term than it should.
    Contradicts,
}

struct Replay<'a> {
    log: GroupLog,
    evidence: Evidence,
    meta_at: &'a dyn Fn(SegmentId, &RunSummary, Index) -> Option<EntryMeta>,
    rejected: Option<(SegmentId, Index)>,
    contradictory: bool,
}

impl Replay<'_> {
    /// Whether an entry that is live does not follow the one before it. What has been superseded since may have followed something that is gone by
    /// now, and says nothing.
    fn is_contradictory(&self) -> bool {
        self.contradictory
            && self.log.ranges.iter().any(|range| self.continuation(range) == Continuation::Contradicts)
    }

    fn take_in(&mut self, range: Range, scanned: bool) {
        let continuation = self.continuation(&range);
        let certain = !scanned || self.was_complete(&range);
        if certain || (continuation == Continuation::Follows && self.goes_on_from_start(&range)) {
            self.contradictory |= continuation == Continuation::Contradicts;
            self.log.truncate_from(range.first);
            self.log.ranges.push_back(range);
        } else if self.rejected.is_none() {
            self.rejected = Some((range.segment, range.run.first));
        }
    }

    /// Whether the entry before the range is in the log and has the right term.
    fn continuation(&self, range: &Range) -> Continuation {
        let before = range.first.previous();
        let found = if range.first != range.run.first || before.0 == 0 {
            // If its beginning was cut off by the start of the log, that says that the rest belongs there.
            return Continuation::Follows;
        } else if before == self.log.start.index {
            Some(self.log.start.term)
        } else {
            let Some(other) = self.log.range_at(before).filter(|other| other.first <= before) else {
                return Continuation::Gap;
            };
            self.term_in(other, before)
        };
        match found {
            Some(term) if term != range.run.prev_term => Continuation::Contradicts,
            _ => Continuation::Follows,
        }
    }

    /// Whether a range whose beginning the start of the log cut off is of the log that starts there. It is not if the log was given up and
    /// began anew, and the record that says so is lost with the machine while the new log's entries are not.
    fn goes_on_from_start(&self, range: &Range) -> bool {
        if range.first == range.run.first {
            return true;
        }
        let before = (self.meta_at)(range.segment, &range.run, range.first.previous());
        before.is_none_or(|before| before.term == self.log.start.term)
    }

    /// `None` if it cannot be read.
    fn term_in(&self, range: &Range, index: Index) -> Option<Term> {
        if index == range.run.last() {
            return Some(range.run.last_term);
        }
        (self.meta_at)(range.segment, &range.run, index).map(|meta| meta.term)
    }

    /// Whether everything before the range had been stored, so that what is missing is damage.
    fn was_complete(&self, range: &Range) -> bool {
        self.evidence.trust_unsynced
            || range.run.first_lsn <= self.evidence.synced_lsn
            || self.evidence.unknown_damage.is_some_and(|lsn| lsn < range.run.first_lsn)
    }
}

/// Fills in the end of the log and the checkpoint.
fn finish(
    log: &mut GroupLog,
    states: &[StateRef],
    meta_at: &dyn Fn(SegmentId, &RunSummary, Index) -> Option<EntryMeta>,
) {
    if let Some(range) = log.ranges.back().copied() {
        log.last_index = range.last;
        log.last_term = range.run.last_term;
        log.next_offset = range.run.next_offset;
        if range.last != range.run.last()
            && let Some(meta) = meta_at(range.segment, &range.run, range.last)
        {
            log.last_term = meta.term;
            log.next_offset = meta.next_offset();
        }
    }
    let start_lsn = log.start_state.map_or(Lsn(0), |start| start.meta.lsn);
    let usable = states.iter().filter(|state| {
        state.meta.kind == StateKind::Checkpoint
            && state.meta.lsn > start_lsn
            && (log.start.index..=log.last_index).contains(&state.meta.index)
            && lsn_at(log, state.meta.index, meta_at).is_none_or(|lsn| lsn < state.meta.lsn)
    });
    log.checkpoint = usable.max_by_key(|state| (state.meta.lsn, state.segment)).copied();
}

/// When the entry that is now at `index` was written. `None` if there is none or it cannot be told.
fn lsn_at(
    log: &GroupLog,
    index: Index,
    meta_at: &dyn Fn(SegmentId, &RunSummary, Index) -> Option<EntryMeta>,
) -> Option<Lsn> {
    let range = log.range_at(index).filter(|range| range.first <= index)?;
    match index {
        _ if index == range.run.first => Some(range.run.first_lsn),
        _ if index == range.run.last() => Some(range.run.last_lsn),
        _ => meta_at(range.segment, &range.run, index).map(|meta| meta.lsn),
    }
}

/// Lets a repair stand in for damaged entries. It says the same as they did, so it only has to be made sure that it is they who
/// are live: they have the same LSNs, or if those are lost too, LSNs that fit in between.
fn stand_in(
    log: &mut GroupLog,
    patch: &Range,
    meta_at: &dyn Fn(SegmentId, &RunSummary, Index) -> Option<EntryMeta>,
) {
    let before = log.clone();
    let lsn_of = |range: &Range, index: Index| meta_at(range.segment, &range.run, index).map(|meta| meta.lsn);
    let is_same = |range: &Range, first: Index, last: Index| {
        let Some((from, to)) = lsn_of(patch, first).zip(lsn_of(patch, last)) else { return false };
        match lsn_of(range, first).zip(lsn_of(range, last)) {
            Some(lsns) => lsns == (from, to),
            None => range.run.first_lsn <= from && to <= range.run.last_lsn,
        }
    };
    let fits_hole = |hole: Hole| {
        let Some((from, to)) = lsn_of(patch, hole.first).zip(lsn_of(patch, hole.last)) else { return false };
        let behind = before.range_at(hole.last);
        let in_front = before.ranges.iter().rfind(|range| range.last < hole.first);
        let newest = behind.map(|range| lsn_of(range, range.first).unwrap_or(range.run.last_lsn));
        let oldest = in_front.map(|range| lsn_of(range, range.last).unwrap_or(range.run.first_lsn));
        oldest.is_none_or(|lsn| lsn < from) && newest.is_none_or(|lsn| to < lsn)
    };
    log.patch(patch, &fits_hole, &is_same);
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
