//! What opening a log found.

use std::collections::HashMap;

use crate::record::{Bounds, StoredRecord};
use crate::types::{GroupId, Index, SegmentId};

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The groups that exist.
    pub groups: HashMap<GroupId, RecoveredGroup>,
    /// What is stored, still live, and can no longer be read. Nothing after it was cut off.
    pub damage: Vec<Damage>,
    /// Entries within their group's log that are nowhere to be found.
    pub missing: Vec<DamagedRange>,
    /// Bytes of torn and cut records that were dropped: writes that nobody was promised.
    pub truncated_bytes: u64,
    /// Groups that may have lost records at the end of their log to a damage of which it can't be told whom it concerns: the
    /// newest entry that is left of them is not newer than the segment that is damaged.
    pub doubtful: Vec<GroupId>,
    /// Groups in whose log some entry does not follow the one before it, although nothing was cut: what had superseded the
    /// latter is damaged. How far it reached back can't be told, so nothing that is before may be relied on.
    pub contradictory: Vec<GroupId>,
    /// Groups that lost records at the end because the machine went down before they were synced.
    pub cut: Vec<GroupId>,
}

/// A group found on opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
    /// The extent of its log.
    pub bounds: Bounds,
    /// The newest [`RecordKind::Start`](crate::RecordKind::Start).
    pub start: Option<StoredRecord>,
    /// The newest of `Start` and [`RecordKind::Checkpoint`](crate::RecordKind::Checkpoint) whose index is in the log.
    pub checkpoint: Option<StoredRecord>,
}

/// A stretch of a segment that does not match its checksums although it was complete once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which segment.
    pub segment: SegmentId,
    /// The first damaged byte.
    pub from_position: u64,
    /// The byte after the last damaged one.
    pub to_position: u64,
    /// Whose records are concerned.
    pub scope: DamageScope,
}

/// Whose records are concerned by a damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamageScope {
    /// Exactly these entries.
    Entries(Vec<DamagedRange>),
    /// A checkpoint or start payload of this group.
    State(GroupId),
    /// It cannot be known. Any group of the log may have lost records there; these have others in that segment.
    Unknown {
        /// The groups seen in the segment.
        seen: Vec<GroupId>,
    },
}

/// Consecutive entries of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRange {
    /// The group.
    pub group: GroupId,
    /// The first entry.
    pub first: Index,
    /// The last entry.
    pub last: Index,
}
