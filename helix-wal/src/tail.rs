//! Whether a record fits the end of its group's log, ahead of the index by what is on its way to the disk.

use crate::frame::MAX_PAYLOAD_BYTES;
use crate::index::Index as LogIndex;
use crate::record::{Record, RecordKind};
use crate::types::{GroupId, Index, QUANTITY_END, Term};

/// The end of a group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) start_index: Index,
    pub(crate) start_term: Term,
    pub(crate) last_index: Index,
    pub(crate) last_term: Term,
    pub(crate) state: TailState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TailState {
    Normal,
    /// An append did not fit on the disk; what follows it does not fit the log.
    Refused,
    Deleted,
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            start_index: Index(0),
            start_term: Term(0),
            last_index: Index(0),
            last_term: Term(0),
            state: TailState::Normal,
        }
    }
}

impl Tail {
    pub(crate) fn deleted() -> Self {
        Self { state: TailState::Deleted, ..Self::default() }
    }

    pub(crate) fn of(index: &LogIndex, group: GroupId) -> Self {
        let Some(log) = index.groups.get(&group) else { return Self::default() };
        Self {
            start_index: log.start.index,
            start_term: log.start.term,
            last_index: log.last_index,
            last_term: log.last_term,
            state: TailState::Normal,
        }
    }

    /// Nothing of the group was ever written.
    fn is_nothing(&self) -> bool {
        self.state == TailState::Refused && self.start_index.0 == 0 && self.last_index.0 == 0
    }

    /// The term of the entry at `index`, where it is known without asking the index.
    fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.last_index {
            Some(self.last_term)
        } else if index == self.start_index {
            Some(self.start_term)
        } else {
            None
        }
    }
}

/// The tail after the record, or why it does not fit. Of a start, `contained` says whether the log has the entry that it names.
pub(crate) fn after(known: Option<&Tail>, record: &Record, contained: bool) -> Result<Tail, &'static str> {
    let tail = known.copied().unwrap_or_default();
    if record.payload.len() > MAX_PAYLOAD_BYTES {
        return Err("the payload is larger than 1 GiB");
    }
    if [record.index.0, record.term.0, record.prev_term.0, record.base_offset.0]
        .iter()
        .any(|number| *number >= QUANTITY_END)
    {
        return Err("its index, a term or its offset is higher than any can be");
    }
    if tail.state == TailState::Deleted {
        return Err("the group was deleted, and group ids are never reused");
    }
    match record.kind {
        RecordKind::Entry { .. } => after_entry(known, &tail, record),
        // Index 0 is that of a log that is given up. Any other is a mistake that would cost all entries.
        RecordKind::Start if (1..tail.start_index.0).contains(&record.index.0) => {
            Err("the log begins after that index")
        }
        RecordKind::Start => {
            let started =
                Tail { start_index: record.index, start_term: record.term, state: TailState::Normal, ..tail };
            let rest_is_kept = contained && record.index < tail.last_index;
            Ok(if rest_is_kept { started } else { started.ending_at_start() })
        }
        RecordKind::Checkpoint => {
            let within = (tail.start_index..=tail.last_index).contains(&record.index);
            if known.is_some() && within {
                Ok(tail)
            } else {
                Err("a checkpoint must be of an index within the log")
            }
        }
        RecordKind::Delete => Ok(Tail::deleted()),
    }
}

fn after_entry(known: Option<&Tail>, tail: &Tail, record: &Record) -> Result<Tail, &'static str> {
    if record.index <= tail.start_index {
        return Err("the log begins after that index");
    }
    if record.index > tail.last_index.next() {
        return Err("entries between the last one and this one are missing");
    }
    // A group begins with its first entry, if with no start record.
    let from_nothing = known.is_none_or(Tail::is_nothing);
    let term_before = tail.term_at(record.index.previous());
    if !from_nothing && term_before.is_some_and(|term| term != record.prev_term) {
        return Err("its previous term is not that of the entry before it");
    }
    Ok(Tail {
        start_index: tail.start_index,
        start_term: if from_nothing { record.prev_term } else { tail.start_term },
        last_index: record.index,
        last_term: record.term,
        state: TailState::Normal,
    })
}

impl Tail {
    /// The same without any entry.
    pub(crate) fn ending_at_start(self) -> Self {
        Self { last_index: self.start_index, last_term: self.start_term, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;
    use crate::types::Offset;

    const TAIL: Tail = Tail {
        start_index: Index(10),
        start_term: Term(2),
        last_index: Index(20),
        last_term: Term(4),
        state: TailState::Normal,
    };

    fn record(kind: RecordKind, index: u64, term: u64, prev_term: u64) -> Record {
        Record {
            group: GroupId(1),
            kind,
            index: Index(index),
            term: Term(term),
            prev_term: Term(prev_term),
            base_offset: Offset(0),
            offset_count: 0,
            max_timestamp_ms: 0,
            payload: Payload::empty(),
        }
    }

    fn entry(index: u64, term: u64, prev_term: u64) -> Record {
        record(RecordKind::Entry { tag: 0 }, index, term, prev_term)
    }

    #[test]
    fn entries_follow_or_replace() {
        let next = after(Some(&TAIL), &entry(21, 5, 4), false).unwrap();
        assert_eq!((next.last_index, next.last_term), (Index(21), Term(5)));
        let replaced = after(Some(&TAIL), &entry(15, 5, 3), false).unwrap();
        assert_eq!(replaced.last_index, Index(15));
        for misfit in [entry(22, 5, 4), entry(21, 5, 3), entry(10, 5, 2), entry(11, 5, 3)] {
            assert!(after(Some(&TAIL), &misfit, false).is_err());
        }
    }

    #[test]
    fn a_group_may_begin_with_index_one_and_any_previous_term() {
        let tail = after(None, &entry(1, 7, 6), false).unwrap();
        assert_eq!((tail.start_term, tail.last_index), (Term(6), Index(1)));
        assert!(after(None, &entry(2, 7, 6), false).is_err());
        let refused = Tail { state: TailState::Refused, ..Tail::default() };
        assert_eq!(after(Some(&refused), &entry(1, 7, 6), false), Ok(tail));
    }

    #[test]
    fn a_start_keeps_what_follows_if_it_is_in_the_log() {
        let start = record(RecordKind::Start, 15, 3, 0);
        let kept = after(Some(&TAIL), &start, true).unwrap();
        assert_eq!((kept.start_index, kept.last_index), (Index(15), Index(20)));
        let reset = after(Some(&TAIL), &start, false).unwrap();
        assert_eq!((reset.last_index, reset.last_term), (Index(15), Term(3)));
        let ahead = after(Some(&TAIL), &record(RecordKind::Start, 30, 9, 0), false).unwrap();
        assert_eq!((ahead.start_index, ahead.last_index), (Index(30), Index(30)));
        for earlier in [1, 9] {
            assert!(after(Some(&TAIL), &record(RecordKind::Start, earlier, 1, 0), false).is_err());
        }
        let given_up = after(Some(&TAIL), &record(RecordKind::Start, 0, 0, 0), false).unwrap();
        assert_eq!((given_up.start_index, given_up.last_index), (Index(0), Index(0)));
    }

    #[test]
    fn checkpoints_lie_within_and_nothing_follows_a_delete() {
        let checkpoint = |index| record(RecordKind::Checkpoint, index, 0, 0);
        assert_eq!(after(Some(&TAIL), &checkpoint(20), false), Ok(TAIL));
        assert!(after(Some(&TAIL), &checkpoint(21), false).is_err());
        assert!(after(None, &checkpoint(0), false).is_err());
        let deleted = after(Some(&TAIL), &record(RecordKind::Delete, 0, 0, 0), false).unwrap();
        assert!(after(Some(&deleted), &entry(1, 1, 0), false).is_err());
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        let highest = record(RecordKind::Start, QUANTITY_END - 1, QUANTITY_END - 1, QUANTITY_END - 1);
        let highest = Record { base_offset: Offset(QUANTITY_END - 1), ..highest };
        assert!(after(None, &highest, false).is_ok());
        for beyond in [
            Record { index: Index(QUANTITY_END), ..highest.clone() },
            Record { term: Term(QUANTITY_END), ..highest.clone() },
            Record { prev_term: Term(QUANTITY_END), ..highest.clone() },
            Record { base_offset: Offset(QUANTITY_END), ..highest.clone() },
        ] {
            assert!(after(None, &beyond, false).is_err());
        }
    }

    #[test]
    fn a_payload_of_one_gib_is_the_largest() {
        // Never touched, so it takes no memory.
        let of = |len| Payload::from_parts_verified(vec![vec![0; len].into()], 0);
        let largest = Record { payload: of(MAX_PAYLOAD_BYTES), ..entry(1, 1, 0) };
        assert!(after(None, &largest, false).is_ok());
        assert!(after(None, &Record { payload: of(MAX_PAYLOAD_BYTES + 1), ..largest }, false).is_err());
    }

    #[test]
    fn a_start_at_the_end_leaves_nothing() {
        let started = after(Some(&TAIL), &record(RecordKind::Start, 20, 4, 0), true).unwrap();
        assert_eq!(
            (started.start_index, started.last_index, started.last_term),
            (Index(20), Index(20), Term(4))
        );
        assert_eq!(started.state, TailState::Normal);
    }

    #[test]
    fn a_group_of_which_something_is_there_does_not_begin_anew_when_it_was_refused() {
        let refused = Tail { state: TailState::Refused, ..TAIL };
        assert!(after(Some(&refused), &entry(21, 5, 9), false).is_err());
        let started = Tail {
            start_index: Index(3),
            last_index: Index(3),
            state: TailState::Refused,
            ..Tail::default()
        };
        assert!(after(Some(&started), &entry(4, 5, 9), false).is_err());
        assert_eq!(after(Some(&refused), &entry(21, 5, 4), false).unwrap().start_term, Term(2));
    }
}
