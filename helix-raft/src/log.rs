//! The log of one group: all of its terms, its newest entries, and how far it is written, committed and applied.
//!
//! ```text
//!  start        tail begins          stored      handed          last
//!    |---- WAL only ----|---- in memory --|--- being written --|-- new --|
//! ```
//!
//! `applied <= committed`, `applied <= stored <= handed <= last`, `synced <= stored`. Entries leave memory only once
//! they are stored and applied.

use std::collections::VecDeque;

use crate::config::GroupOptions;
use crate::ready::CommittedRange;
use crate::terms::TermRuns;
use crate::types::{Durability, Entry, Index, Payload, Position, Term};

/// A write or sync that the driver was asked for and has not reported yet.
#[derive(Clone, Copy, Debug)]
struct Write {
    position: Position,
    durability: Durability,
}

/// What became of entries that a leader offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// The log now agrees with the leader's through the last entry offered.
    Matched {
        /// Where entries were removed from, if any were.
        truncated_from: Option<Index>,
        /// First entry that was new.
        added_from: Option<Index>,
    },
    /// The logs differ before the first entry; they may agree at this position.
    Mismatch(Position),
    /// The leader has another entry where a committed one is here.
    Diverged(Position),
}

#[derive(Clone, Debug)]
pub(crate) struct RaftLog<P> {
    terms: TermRuns,
    tail: VecDeque<Entry<P>>,
    tail_bytes: usize,
    committed: Index,
    applied: Index,
    /// The driver is reading committed entries from the WAL.
    reading_committed: bool,
    /// Given to the driver for writing.
    handed: Index,
    /// In the page cache or better.
    stored: Index,
    synced: Index,
    /// Entries up to here have to be synced.
    sync_wanted: Index,
    /// A sync up to here is under way.
    sync_asked: Index,
    outstanding: VecDeque<Write>,
    /// Entries under way to the WAL were removed from the log. Nothing more is written until all of that is reported:
    /// a late report could otherwise be taken for one about a new entry with the same index and term.
    barrier: bool,
}

impl<P: Payload> RaftLog<P> {
    pub(crate) fn open(options: &GroupOptions<P>) -> Result<RaftLog<P>, &'static str> {
        let start = Position::new(options.start_index, options.start_term);
        let mut terms = TermRuns::new(start);
        let tail_first = options.tail.first().map_or(options.last_index.next(), |entry| entry.index);
        if tail_first <= start.index {
            return Err("the tail begins before the log does");
        }
        recover_terms(&mut terms, &options.terms, tail_first)?;
        for entry in &options.tail {
            if entry.index != terms.last().index.next() || entry.prev_term != terms.last().term {
                return Err("the tail has a gap or a wrong previous term");
            }
            if entry.term < terms.last().term {
                return Err("the term falls along the tail");
            }
            terms.extend(entry.index, entry.term);
        }
        let last = Position::new(options.last_index, options.last_term);
        if terms.last() != last {
            return Err("the last position is not where terms and tail end");
        }
        if options.committed < start.index || options.committed > last.index {
            return Err("the commit index lies outside the log");
        }
        let synced = if options.stored == Durability::Synced { last.index } else { start.index };
        Ok(RaftLog {
            terms,
            tail_bytes: options.tail.iter().map(Entry::len_bytes).sum(),
            tail: options.tail.iter().cloned().collect(),
            committed: options.committed,
            applied: options.committed,
            reading_committed: false,
            handed: last.index,
            stored: last.index,
            synced,
            sync_wanted: Index::ZERO,
            sync_asked: Index::ZERO,
            outstanding: VecDeque::new(),
            barrier: false,
        })
    }

    pub(crate) const fn start(&self) -> Position {
        self.terms.start()
    }

    pub(crate) fn last(&self) -> Position {
        self.terms.last()
    }

    pub(crate) const fn committed(&self) -> Index {
        self.committed
    }

    pub(crate) const fn applied(&self) -> Index {
        self.applied
    }

    pub(crate) const fn stored(&self) -> Index {
        self.stored
    }

    pub(crate) const fn synced(&self) -> Index {
        self.synced
    }

    pub(crate) const fn durable(&self, durability: Durability) -> Index {
        match durability {
            Durability::PageCache => self.stored,
            Durability::Synced => self.synced,
        }
    }

    pub(crate) const fn tail_bytes(&self) -> usize {
        self.tail_bytes
    }

    /// First index that is in memory; beyond the last one if none is.
    pub(crate) fn tail_first(&self) -> Index {
        self.tail.front().map_or(self.last().index.next(), |entry| entry.index)
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        self.terms.term_at(index)
    }

    /// The highest position at or below `index` where a log with `term` at `index` may agree with this one.
    pub(crate) fn last_not_above(&self, index: Index, term: Term) -> Position {
        self.terms.last_not_above(index, term)
    }

    /// Whether a log that ends at `other` holds at least as much as this one, as far as elections go.
    pub(crate) fn is_covered_by(&self, other: Position) -> bool {
        let last = self.last();
        (other.term, other.index) >= (last.term, last.index)
    }

    /// Adds an entry at the end.
    pub(crate) fn push(&mut self, entry: Entry<P>) {
        debug_assert_eq!(entry.index, self.last().index.next(), "entries are dense");
        self.terms.extend(entry.index, entry.term);
        self.tail_bytes += entry.len_bytes();
        self.tail.push_back(entry);
    }

    /// Takes over what a leader sent: skips what is here, replaces what differs, adds what is new.
    pub(crate) fn offer(&mut self, prev: Position, entries: &[Entry<P>]) -> Offer {
        if prev.index > self.committed && self.term_at(prev.index) != Some(prev.term) {
            return Offer::Mismatch(self.last_not_above(prev.index, prev.term));
        }
        if let Some(index) = self.first_contradiction(prev, entries) {
            return Offer::Diverged(Position::new(index, self.term_at(index).unwrap_or_default()));
        }
        let known = entries.partition_point(|entry| {
            entry.index <= self.committed || self.term_at(entry.index) == Some(entry.term)
        });
        let Some(first) = entries.get(known) else {
            return Offer::Matched { truncated_from: None, added_from: None };
        };
        let truncated_from = (first.index <= self.last().index).then_some(first.index);
        if let Some(index) = truncated_from {
            self.truncate_from(index);
        }
        for entry in &entries[known..] {
            self.push(entry.clone());
        }
        Offer::Matched { truncated_from, added_from: Some(first.index) }
    }

    /// Where a committed entry differs from what a leader offers.
    fn first_contradiction(&self, prev: Position, entries: &[Entry<P>]) -> Option<Index> {
        let offered = std::iter::once(prev).chain(entries.iter().map(Entry::position));
        let mut committed = offered.take_while(|position| position.index <= self.committed);
        let differs =
            |position: &Position| self.term_at(position.index).is_some_and(|term| term != position.term);
        committed.find(differs).map(|position| position.index)
    }

    fn truncate_from(&mut self, index: Index) {
        assert!(index > self.committed, "committed entries are never replaced");
        self.cut(index);
        self.barrier |= !self.outstanding.is_empty() && self.handed >= index;
        self.limit_marks(index.prev());
    }

    fn cut(&mut self, index: Index) {
        while self.tail.back().is_some_and(|entry| entry.index >= index) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_bytes -= entry.len_bytes();
            }
        }
        self.terms.truncate_from(index);
    }

    fn limit_marks(&mut self, last: Index) {
        for mark in [
            &mut self.handed,
            &mut self.stored,
            &mut self.synced,
            &mut self.sync_wanted,
            &mut self.sync_asked,
        ] {
            *mark = (*mark).min(last);
        }
    }

    /// Everything up to `index` has to be synced.
    pub(crate) fn want_sync(&mut self, index: Index) {
        self.sync_wanted = self.sync_wanted.max(index.min(self.last().index));
    }

    /// What the driver has to write next, and how durably.
    pub(crate) fn next_write(&mut self) -> Option<(Vec<Entry<P>>, Durability)> {
        let last = self.last();
        if self.barrier || self.handed >= last.index {
            return None;
        }
        let entries = self.slice(self.handed.next(), last.index, usize::MAX);
        let durability = if self.lacks_sync() { Durability::Synced } else { Durability::PageCache };
        self.hand_out(last, durability);
        Some((entries, durability))
    }

    /// The position up to which the driver has to sync what it has written before.
    pub(crate) fn next_sync(&mut self) -> Option<Position> {
        if self.barrier || !self.lacks_sync() {
            return None;
        }
        let position = Position::new(self.handed, self.term_at(self.handed)?);
        self.hand_out(position, Durability::Synced);
        Some(position)
    }

    fn lacks_sync(&self) -> bool {
        self.sync_wanted > self.synced.max(self.sync_asked)
    }

    fn hand_out(&mut self, position: Position, durability: Durability) {
        self.handed = position.index;
        if durability == Durability::Synced {
            self.sync_asked = position.index;
        }
        self.outstanding.push_back(Write { position, durability });
    }

    /// The driver has stored everything up to `position`.
    pub(crate) fn reported(&mut self, position: Position, durability: Durability) {
        let asked = self.outstanding.iter().rposition(|write| write.position == position);
        if let Some(newest) = asked {
            let mut number = 0;
            self.outstanding.retain(|write| {
                number += 1;
                number > newest + 1 || write.durability > durability
            });
        }
        let in_log = position.index <= self.handed && self.term_at(position.index) == Some(position.term);
        if asked.is_some() || in_log {
            let done = position.index.min(self.handed);
            self.stored = self.stored.max(done);
            if durability == Durability::Synced {
                self.synced = self.synced.max(done);
            }
        }
        self.barrier &= !self.outstanding.is_empty();
    }

    /// What was given to the driver and not reported is not stored and never will be: takes it out of the log.
    /// Returns where the log was cut.
    pub(crate) fn drop_unstored(&mut self) -> Option<Index> {
        self.outstanding.clear();
        self.barrier = false;
        self.sync_asked = self.synced;
        if self.stored >= self.last().index {
            return None;
        }
        let cut = self.stored.next();
        self.cut(cut);
        self.limit_marks(self.stored);
        self.committed = self.committed.min(self.stored);
        Some(cut)
    }

    /// Moves the commit index up, as far as the log goes.
    pub(crate) fn commit_to(&mut self, index: Index) {
        self.committed = self.committed.max(index.min(self.last().index));
    }

    /// Committed entries that are stored here and can be applied, as far as they are in memory.
    pub(crate) fn next_committed(&mut self) -> Vec<Entry<P>> {
        let through = self.committed.min(self.stored);
        if self.reading_committed || self.applied >= through || self.applied.next() < self.tail_first() {
            return Vec::new();
        }
        let entries = self.slice(self.applied.next(), through, usize::MAX);
        self.applied = through;
        entries
    }

    /// Committed entries that have to be read before anything else can be applied.
    pub(crate) fn next_committed_to_read(&mut self) -> Option<CommittedRange> {
        let through = self.committed.min(self.stored).min(self.tail_first().prev());
        if self.reading_committed || self.applied >= through {
            return None;
        }
        self.reading_committed = true;
        Some(CommittedRange { from: self.applied.next(), through })
    }

    /// The driver has read and applied committed entries up to `through`.
    pub(crate) fn committed_read(&mut self, through: Index) {
        self.reading_committed = false;
        self.applied = self.applied.max(through.min(self.committed).min(self.stored));
    }

    /// Entries `from..=through` as far as they are in memory, at least one, and no more than `max_bytes` beyond it.
    pub(crate) fn slice(&self, from: Index, through: Index, max_bytes: usize) -> Vec<Entry<P>> {
        let Some(skip) = from.get().checked_sub(self.tail_first().get()) else { return Vec::new() };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut bytes = 0;
        let mut entries = Vec::new();
        for entry in self.tail.range(skip.min(self.tail.len())..) {
            bytes += entry.len_bytes();
            if entry.index > through || (bytes > max_bytes && !entries.is_empty()) {
                break;
            }
            entries.push(entry.clone());
        }
        entries
    }

    /// Drops the oldest entries from memory until `bytes` are free or nothing more may go; returns what was freed.
    pub(crate) fn trim(&mut self, bytes: usize) -> usize {
        let droppable = self.stored.min(self.applied);
        let mut freed = 0;
        while freed < bytes && self.tail.front().is_some_and(|entry| entry.index <= droppable) {
            if let Some(entry) = self.tail.pop_front() {
                freed += entry.len_bytes();
            }
        }
        self.tail_bytes -= freed;
        freed
    }

    /// The log begins after `start` now, which was applied before.
    pub(crate) fn move_start(&mut self, start: Position) -> bool {
        let moves = start.index > self.start().index
            && start.index <= self.applied
            && self.term_at(start.index) == Some(start.term);
        if moves {
            self.terms.move_start(start);
            while self.tail.front().is_some_and(|entry| entry.index <= start.index) {
                if let Some(entry) = self.tail.pop_front() {
                    self.tail_bytes -= entry.len_bytes();
                }
            }
        }
        moves
    }

    /// Begins anew after `start`.
    pub(crate) fn restart_at(&mut self, start: Position) {
        *self = RaftLog {
            terms: TermRuns::new(start),
            tail: VecDeque::new(),
            tail_bytes: 0,
            committed: start.index,
            applied: start.index,
            reading_committed: false,
            handed: start.index,
            stored: start.index,
            synced: start.index,
            sync_wanted: Index::ZERO,
            sync_asked: Index::ZERO,
            outstanding: VecDeque::new(),
            barrier: false,
        };
    }
}

fn recover_terms(
    terms: &mut TermRuns,
    runs: &[(Index, Term)],
    tail_first: Index,
) -> Result<(), &'static str> {
    let mut runs = runs.iter().copied().filter(|run| run.0 < tail_first).peekable();
    if terms.start().index.next() < tail_first
        && runs.peek().is_none_or(|run| run.0 > terms.start().index.next())
    {
        return Err("the terms of the first entries are not given");
    }
    while let Some((first, term)) = runs.next() {
        let through = runs.peek().map_or(tail_first, |next| next.0).prev();
        if through <= terms.last().index {
            continue;
        }
        if term < terms.last().term || first > terms.last().index.next() {
            return Err("the term falls along the log");
        }
        terms.extend(through, term);
    }
    Ok(())
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
