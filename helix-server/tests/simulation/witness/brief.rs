//! Events in short: for the log, and for the fingerprint of a schedule.

use helix_raft::HardState;
use helix_server::env::Event;

/// An event in three numbers.
pub(super) fn mark(event: &Event<'_>) -> [u64; 3] {
    match event {
        Event::Opened { last, applied, .. } => [1, last.0.0, applied.0],
        Event::Appended(entries) => entries.last().map_or([2, 0, 0], |last| [2, last.index.0, last.term.0]),
        Event::Stored { index, term, .. } => [3, index.0, term.0],
        Event::Applied { index, term, .. } => [4, index.0, term.0],
        Event::Installed { index, term } => [5, index.0, term.0],
        Event::LogStartMoved { index } => [6, index.0, 0],
        Event::Role { role, term } => [7, *role as u64, term.0],
        Event::Serving { term } => [8, term.0, 0],
        Event::UncleanRecovery => [9, 0, 0],
        Event::Sound => [10, 0, 0],
        Event::Failed(_) => [11, 0, 0],
        Event::Deleted => [12, 0, 0],
        Event::GivenUp => [13, 0, 0],
        Event::Promised(HardState { term, vote }) => [14, term.0, vote.map_or(0, |vote| vote.0)],
        Event::Committed { through, .. } => [15, through.0, 0],
        Event::Installing { index, term } => [16, index.0, term.0],
    }
}

/// An event in a line.
pub(super) struct Brief<'a>(pub(super) &'a Event<'a>);

impl std::fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Event::Appended(entries) => {
                let ends = entries.first().zip(entries.last());
                let Some((first, last)) = ends else { return Ok(()) };
                write!(f, "appended {}..={} of {}", first.index, last.index, last.term)
            }
            Event::Applied { index, term, .. } => write!(f, "applied {index} of {term}"),
            Event::Committed { through, .. } => write!(f, "committed through {through}"),
            other => write!(f, "{other:?}"),
        }
    }
}
