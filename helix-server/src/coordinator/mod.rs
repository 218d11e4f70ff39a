//! Coordinators: replicated state machines whose log is a partition of an internal topic.
//!
//! A partition of the topic is an ordinary one. Whoever leads it runs the coordinator of all that is hashed to it: `registry` begins
//! and ends it with the leadership, `runtime` replays the log, takes calls one by one, and writes; `log` is what its records
//! look like as batches. What is coordinated is a [`StateMachine`], pure and without a clock: consumer groups are the first (`groups`).
//!
//! What makes it safe:
//!
//! * A call answers with records and with what is to be done once they are committed. **Replay of committed records is the only thing that
//!   changes durable state**, on the leader as after a restart; so nothing that may vanish is ever shown, and nothing has to be undone.
//! * Appends name the epoch of the leadership in which they were made, and are refused in any other. When one comes to an
//!   unknown end the coordinator ends with the leadership, and the next one reads the log.
//! * The log does not grow for ever: from time to time everything is written once more, behind all else, and the log's start moves there.

pub(crate) mod groups;
mod hash;
mod log;
mod registry;
mod runtime;

use thiserror::Error;
use tokio::time::Instant;

pub(crate) use groups::MAX_METADATA_BYTES_LIMIT;
pub(crate) use hash::partition_of;
pub(crate) use log::LogRecord;
pub(crate) use registry::{Coordinators, follow_leadership};

use crate::broker::produce::AppendError;

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// For deadlines: never jumps.
    pub(crate) instant: Instant,
    /// For what is stored: milliseconds since 1970.
    pub(crate) unix_ms: i64,
}

/// Why nobody answers for what is coordinated here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum CoordinatorError {
    /// Another node coordinates it (16): ask for it with FindCoordinator.
    #[error("this node does not coordinate it: find the coordinator again")]
    NotCoordinator,
    /// The log is being read (14): ask again.
    #[error("the coordinator reads its log: try again")]
    Loading,
    /// There is none just now (15), or the outcome of a write is not known: find the coordinator again, then ask.
    #[error("the coordinator is not available: try again")]
    NotAvailable,
}

/// Why records were not written. Nothing of them is in the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum WriteError {
    /// The log does not take them now.
    #[error(transparent)]
    Refused(#[from] AppendError),
    /// Together they are larger than a batch may be.
    #[error("{bytes} bytes in one write, and at most {limit} are stored: ask for less at once")]
    TooLarge {
        /// Bytes of the batch.
        bytes: usize,
        /// Most bytes of a batch.
        limit: usize,
    },
}

/// Records to be written as one batch, and what comes then.
#[derive(Debug)]
pub(crate) struct Write<T> {
    pub(crate) records: Vec<LogRecord>,
    pub(crate) then: T,
}

/// What a state machine wants to be written, in this order.
#[derive(Debug)]
pub(crate) struct Effects<T> {
    pub(crate) writes: Vec<Write<T>>,
}

impl<T> Effects<T> {
    pub(crate) const fn new() -> Self {
        Self { writes: Vec::new() }
    }

    /// Has records written; `then` is handed back when that is decided.
    pub(crate) fn write(&mut self, records: Vec<LogRecord>, then: T) {
        self.writes.push(Write { records, then });
    }
}

/// A record that a state machine does not understand.
#[derive(Debug, Error)]
#[error("record {offset} of the coordinator's log cannot be read: {reason}")]
pub(crate) struct ReplayError {
    pub(crate) offset: i64,
    pub(crate) reason: String,
}

/// What is coordinated. No IO, and no clock but what it is told.
pub(crate) trait StateMachine: Send + 'static {
    /// What is asked of it. Carries where the answer goes; dropping that unanswered says that another node coordinates.
    type Call: Send + 'static;
    /// What is to be done when a write is decided.
    type Then: Send + 'static;

    /// A record that says nothing.
    fn barrier() -> LogRecord;

    /// Takes over a committed record. Nothing else changes what is durable.
    ///
    /// # Errors
    /// When the record is nothing that this release writes.
    fn replay(&mut self, record: &LogRecord) -> Result<(), String>;

    /// All of the log is replayed: from now on calls come.
    fn loaded(&mut self, now: Now, effects: &mut Effects<Self::Then>);

    /// Takes a call.
    fn handle(&mut self, call: Self::Call, now: Now, effects: &mut Effects<Self::Then>);

    /// The records of a write are committed, and replayed.
    fn committed(&mut self, then: Self::Then, now: Now);

    /// The records of a write were not taken.
    fn refused(&mut self, then: Self::Then, error: &WriteError, now: Now, effects: &mut Effects<Self::Then>);

    /// When [`Self::expire`] wants to be called next.
    fn next_deadline(&self) -> Option<Instant>;

    /// Does what is due.
    fn expire(&mut self, now: Now, effects: &mut Effects<Self::Then>);

    /// Everything durable, as records that lead there from nothing.
    fn snapshot(&self) -> Vec<LogRecord>;
}
