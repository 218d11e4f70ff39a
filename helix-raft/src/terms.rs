//! Which term each entry of a log has, in a few numbers per term.

use crate::types::{Index, Position, Term};

/// The terms of all entries of one log, from the position before its first entry to its last one.
#[derive(Clone, Debug)]
pub(crate) struct TermRuns {
    start: Position,
    /// First index and term of each run of equal terms after `start`.
    runs: Vec<(Index, Term)>,
    last: Index,
}

impl TermRuns {
    pub(crate) const fn new(start: Position) -> TermRuns {
        TermRuns { start, runs: Vec::new(), last: start.index }
    }

    pub(crate) const fn start(&self) -> Position {
        self.start
    }

    pub(crate) fn last(&self) -> Position {
        Position::new(self.last, self.runs.last().map_or(self.start.term, |run| run.1))
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index < self.start.index || index > self.last {
            return None;
        }
        let run = self.runs.partition_point(|run| run.0 <= index);
        self.runs.get(run.checked_sub(1)?).map(|run| run.1)
    }

    /// Adds the entries after the last one, up to `through`, all of `term`.
    pub(crate) fn extend(&mut self, through: Index, term: Term) {
        debug_assert!(through > self.last, "entries are added at the end");
        if self.last().term != term || self.runs.is_empty() {
            self.runs.push((self.last.next(), term));
        }
        self.last = through;
    }

    /// Removes all entries from `index` on.
    pub(crate) fn truncate_from(&mut self, index: Index) {
        debug_assert!(index > self.start.index, "the start itself is never removed");
        self.last = self.last.min(index.prev());
        while self.runs.last().is_some_and(|run| run.0 >= index) {
            self.runs.pop();
        }
    }

    /// Forgets all entries up to `start`, which must be one of them.
    pub(crate) fn move_start(&mut self, start: Position) {
        while self.runs.get(1).is_some_and(|second| second.0 <= start.index.next()) {
            self.runs.remove(0);
        }
        if let Some(first) = self.runs.first_mut() {
            first.0 = first.0.max(start.index.next());
        }
        if start.index >= self.last {
            self.runs.clear();
            self.last = start.index;
        }
        self.start = start;
    }

    /// The highest position at or below `index` whose term is at most `term`: where two logs may still agree when
    /// the other one has `term` at `index`.
    pub(crate) fn last_not_above(&self, index: Index, term: Term) -> Position {
        let mut upper = index.min(self.last);
        for run in self.runs.iter().rev() {
            if run.0 > upper {
                continue;
            }
            if run.1 <= term {
                return Position::new(upper, run.1);
            }
            upper = run.0.prev();
        }
        self.start
    }
}

/// Finds where each run of equal terms begins among the entries `first..=last` of a log, given a way to look up
/// single terms, in few look-ups: terms never fall along a log.
///
/// # Errors
///
/// Whatever `term_at` fails with.
pub fn term_runs<E>(
    first: Index,
    last: Index,
    mut term_at: impl FnMut(Index) -> Result<Term, E>,
) -> Result<Vec<(Index, Term)>, E> {
    let mut runs = Vec::new();
    let mut from = first;
    while from <= last {
        let term = term_at(from)?;
        runs.push((from, term));
        let (mut same, mut beyond) = (from.get(), last.get() + 1);
        while beyond - same > 1 {
            let middle = Index(same + (beyond - same) / 2);
            if term_at(middle)? == term {
                same = middle.get();
            } else {
                beyond = middle.get();
            }
        }
        from = Index(beyond);
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A log of terms that never fall, after a start.
    fn logs() -> impl Strategy<Value = (u64, Vec<u64>)> {
        (0u64..5, prop::collection::vec(0u64..3, 0..30)).prop_map(|(start, steps)| {
            let mut term = 1;
            let terms = steps.into_iter().map(|step| {
                term += step / 2;
                term
            });
            (start, terms.collect())
        })
    }

    fn runs_of(start: u64, terms: &[u64]) -> TermRuns {
        let mut runs = TermRuns::new(Position::new(Index(start), Term(1)));
        for (number, term) in terms.iter().enumerate() {
            runs.extend(Index(start + 1 + number as u64), Term(*term));
        }
        runs
    }

    fn check(runs: &TermRuns, start: u64, terms: &[u64]) {
        for index in 0..start + terms.len() as u64 + 3 {
            let expected = match index.checked_sub(start) {
                None => None,
                Some(0) => Some(runs.start().term),
                Some(at) => terms.get(at as usize - 1).map(|term| Term(*term)),
            };
            assert_eq!(runs.term_at(Index(index)), expected, "at {index} of {terms:?} after {start}");
        }
        assert_eq!(runs.last().index, Index(start + terms.len() as u64));
    }

    proptest! {
        #[test]
        fn every_term_is_known((start, terms) in logs(), cut in 0usize..30, moved in 0usize..30) {
            let mut runs = runs_of(start, &terms);
            check(&runs, start, &terms);
            let kept = cut.min(terms.len());
            if kept < terms.len() {
                runs.truncate_from(Index(start + 1 + kept as u64));
            }
            check(&runs, start, &terms[..kept]);
            let moved = moved.min(kept);
            if moved > 0 {
                runs.move_start(Position::new(Index(start + moved as u64), Term(terms[moved - 1])));
                check(&runs, start + moved as u64, &terms[moved..kept]);
            }
        }

        #[test]
        fn the_hint_is_the_highest_position_that_can_match((start, terms) in logs(), index in 0u64..40, term in 1u64..9) {
            let runs = runs_of(start, &terms);
            let last = start + terms.len() as u64;
            let expected = (start..=index.min(last))
                .rev()
                .find(|at| runs.term_at(Index(*at)).is_some_and(|found| found <= Term(term)))
                .unwrap_or(start);
            prop_assert_eq!(runs.last_not_above(Index(index), Term(term)).index, Index(expected));
        }

        #[test]
        fn runs_are_found_by_few_questions((start, terms) in logs()) {
            let runs = runs_of(start, &terms);
            let mut asked = 0;
            let found = term_runs(Index(start + 1), runs.last().index, |index| {
                asked += 1;
                runs.term_at(index).ok_or(())
            });
            let distinct = terms.iter().collect::<std::collections::BTreeSet<_>>().len();
            prop_assert_eq!(found.as_deref().map(<[_]>::len), Ok(distinct));
            prop_assert!(asked <= distinct * 7);
            for (first, term) in found.unwrap() {
                prop_assert_eq!(runs.term_at(first), Some(term));
            }
        }
    }
}
