//! What a log must say, computed the slow way from the list of records.

use helix_wal::{Index, Offset, Record, RecordKind, Term};

/// A record and its place in the order of all records. Zero: it was there when the log was opened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Op {
    pub(crate) number: u64,
    pub(crate) record: Record,
    /// Of a start: records with smaller numbers are dead.
    pub(crate) floor: u64,
}

/// A group as a user sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    pub(crate) start_index: Index,
    pub(crate) start_term: Term,
    pub(crate) start_offset: Offset,
    pub(crate) last_index: Index,
    pub(crate) last_term: Term,
    pub(crate) next_offset: Offset,
    pub(crate) start: Option<Record>,
    pub(crate) checkpoint: Option<Record>,
    pub(crate) entries: Vec<Record>,
}

impl View {
    /// As operations that happened before all others.
    pub(crate) fn to_ops(&self) -> Vec<Op> {
        let records = self.start.iter().chain(&self.entries).chain(&self.checkpoint);
        let mut seen: Vec<Op> = Vec::new();
        for record in records {
            if seen.iter().all(|op| op.record != *record) {
                seen.push(Op { number: 0, record: record.clone(), floor: 0 });
            }
        }
        seen
    }
}

/// The view after these operations, which are in order and of one group. Some may be missing; what does not follow what
/// is there is left out as if it were missing too.
pub(crate) fn resolve(ops: &[Op]) -> Option<View> {
    if ops.iter().any(|op| op.record.kind == RecordKind::Delete) {
        return None;
    }
    let start = ops.iter().enumerate().rfind(|(_, op)| op.record.kind == RecordKind::Start);
    let (start_index, start_term, start_offset) = start.map_or((Index(0), Term(0), Offset(0)), |(_, op)| {
        (op.record.index, op.record.term, op.record.base_offset)
    });
    // With the place in `ops` of each entry.
    let mut log: Vec<(usize, Record)> = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        if !matches!(op.record.kind, RecordKind::Entry { .. }) {
            continue;
        }
        if let Some((start_at, start)) = start {
            let trimmed = at < start_at && op.record.index <= start.record.index;
            if trimmed || op.number < start.floor {
                continue;
            }
        }
        let before = log.iter().map(|(_, entry)| entry).rfind(|entry| entry.index < op.record.index);
        let (index_before, term_before) =
            before.map_or((start_index, start_term), |before| (before.index, before.term));
        if op.record.index == index_before.next() && op.record.prev_term == term_before {
            log.retain(|(_, entry)| entry.index < op.record.index);
            log.push((at, op.record.clone()));
        }
    }
    if start.is_none() && log.is_empty() {
        return None;
    }
    let last = log.last().map(|(_, entry)| entry);
    let last_index = last.map_or(start_index, |last| last.index);
    let from = start.map_or(0, |(at, _)| at);
    let mut checkpoints = ops.iter().enumerate().skip(from).filter(|(at, op)| {
        let of_the_log = op.record.index >= start_index && op.record.index <= last_index;
        let replaced = log.iter().any(|(entry_at, entry)| entry.index == op.record.index && entry_at > at);
        op.record.kind == RecordKind::Checkpoint && of_the_log && !replaced
    });
    let checkpoint = checkpoints.next_back().map(|(_, op)| op);
    Some(View {
        start_index,
        start_term,
        start_offset,
        last_index,
        last_term: last.map_or(start_term, |last| last.term),
        next_offset: last.map_or(start_offset, Record::next_offset),
        start: start.map(|(_, op)| op.record.clone()),
        checkpoint: checkpoint.or(start.map(|(_, op)| op)).map(|op| op.record.clone()),
        entries: log.into_iter().map(|(_, entry)| entry).collect(),
    })
}

/// Every view that can be left if the first `certain` operations are there and any of the others may be missing.
pub(crate) fn is_possible(found: Option<&View>, ops: &[Op], certain: usize) -> bool {
    let uncertain = ops.len() - certain;
    assert!(uncertain <= 14, "too many unsynced records of one group to try all combinations: {uncertain}");
    // Most crashes keep a prefix; trying all first is cheap.
    (0..1_u32 << uncertain).rev().any(|kept| {
        let subset: Vec<Op> = ops
            .iter()
            .enumerate()
            .filter(|(at, _)| *at < certain || kept & (1 << (at - certain)) != 0)
            .map(|(_, op)| op.clone())
            .collect();
        resolve(&subset).as_ref() == found
    })
}
