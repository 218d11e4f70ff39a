//! Damaged entries: which ones they are, and putting back what another replica has of them.
//!
//! A repair is a segment of copies, like that of survivors, with one difference: its records stand in for others and supersede
//! nothing. They have the LSNs of what they stand in for (or, where those are lost, LSNs that fit between the neighbours'), and
//! count only where just that is live. So it does not matter what happens to the log before, meanwhile or after.

use std::io;

use crate::error::{AppendError, ReadError, ReclaimError, RepairError};
use crate::footer::EntryMeta;
use crate::frame::FrameHeader;
use crate::index::{GroupLog, Hole, Range};
use crate::reader;
use crate::record::{Record, RecordKind, StoredRecord};
use crate::recovered::DamagedRange;
use crate::retention::Copy;
use crate::shared::Shared;
use crate::types::{GroupId, Index, Lsn, Term};

/// What is at one index of a log.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// An entry of this range. Nothing else of it is known if its index entry is damaged too.
    Entry(Range, Option<EntryMeta>),
    /// Nothing; the entry behind the hole is the first one of this range.
    Hole(Hole, Range),
}

/// The damaged entries from `from` on, as far as one stretch of the log reaches: through the end of a hole, or of what is in one
/// segment. Reads all of that.
pub(crate) fn find(shared: &Shared, group: GroupId, from: Index) -> Result<Vec<DamagedRange>, ReadError> {
    let (from, found) = {
        let index = shared.index.read();
        let log = index.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
        let from = from.max(log.start.index.next());
        (from, at(log, from))
    };
    let damaged = match found {
        None => Vec::new(),
        Some(Place::Hole(hole, _)) => vec![hole],
        Some(Place::Range(range)) => reader::damaged_in(shared, &range, from)?,
    };
    Ok(damaged.into_iter().map(|Hole { first, last }| DamagedRange { group, first, last }).collect())
}

/// Where an index lies.
enum Place {
    Range(Range),
    Hole(Hole, Range),
}

/// `None` outside the log.
fn at(log: &GroupLog, index: Index) -> Option<Place> {
    let range = *log.range_at(index)?;
    if range.first <= index {
        return Some(Place::Range(range));
    }
    let hole = log.holes().into_iter().find(|hole| hole.first <= index && index <= hole.last)?;
    Some(Place::Hole(hole, range))
}

fn look(shared: &Shared, group: GroupId, index: Index) -> Result<Found, RepairError> {
    let place = {
        let all = shared.index.read();
        let log = all.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
        at(log, index).ok_or(RepairError::Misfit("the log does not reach there"))?
    };
    Ok(match place {
        Place::Hole(hole, behind) => Found::Hole(hole, behind),
        Place::Range(range) => match reader::meta_in(shared, &range, index) {
            Ok(meta) => Found::Entry(range, Some(meta)),
            Err(ReadError::Damaged { .. }) => Found::Entry(range, None),
            Err(error) => return Err(error.into()),
        },
    })
}

/// Writes those of these consecutive entries that are damaged here. Returns how many that were.
///
/// Whether they are the ones that were there is proved by their terms: two logs that agree about the term of an entry agree about
/// that entry and all before it. So the term of the last one must be known, from what is left of it or from its successor.
pub(crate) fn repair(
    shared: &Shared,
    records: &[Record],
    sync: &dyn Fn() -> Result<(), AppendError>,
) -> Result<u64, RepairError> {
    let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(0) };
    let group = first.group;
    check_chain(records)?;
    let mut planned = Vec::new();
    for record in records {
        let found = look(shared, group, record.index)?;
        if let Some(lsn) = lsn_for(shared, record, &found)? {
            planned.push(Planned { record, found, lsn });
        }
    }
    if planned.is_empty() {
        return Ok(0);
    }
    check_front(shared, first)?;
    check_end(shared, last)?;
    // The footer of the copies will say that everything up to their LSNs is durable.
    sync()?;
    let fill = |copying: &mut crate::retention::Copying| -> Result<bool, ReclaimError> {
        for Planned { record, lsn, .. } in &planned {
            let header = FrameHeader::of(record, *lsn, Lsn(0), Lsn(0));
            copying.add(&header, &StoredRecord { record: (*record).clone(), lsn: *lsn })?;
        }
        Ok(true)
    };
    let copy = Copy::make(shared, true, &fill)?.ok_or(RepairError::DiskFull)?;
    let mut index = shared.index.write();
    let (segment, directory) = copy.enter(&mut index);
    let Some(log) = index.groups.get_mut(&group) else { return Ok(0) };
    for run in &directory.runs {
        install(log, &Range::new(segment, *run), &planned);
    }
    Ok(planned.len() as u64)
}

/// A record, what is in its place, and the LSN that it is written with.
struct Planned<'a> {
    record: &'a Record,
    found: Found,
    lsn: Lsn,
}

/// Lets the log read from the copies where it is as it was.
fn install(log: &mut GroupLog, patch: &Range, planned: &[Planned<'_>]) {
    let was = |index: Index| planned.iter().find(|planned| planned.record.index == index);
    let is_same = |range: &Range, first: Index, last: Index| {
        [first, last].into_iter().all(|index| {
            was(index).is_some_and(|planned| {
                matches!(&planned.found, Found::Entry(before, _) if before.segment == range.segment)
            })
        })
    };
    let fits_hole = |hole: Hole| {
        [hole.first, hole.last]
            .into_iter()
            .all(|index| was(index).is_some_and(|planned| matches!(planned.found, Found::Hole(..))))
    };
    log.patch(patch, &fits_hole, &is_same);
}

fn check_chain(records: &[Record]) -> Result<(), RepairError> {
    let are_entries = records.iter().all(|record| matches!(record.kind, RecordKind::Entry { .. }));
    let follow = |pair: &[Record]| {
        pair[0].group == pair[1].group
            && pair[0].index.next() == pair[1].index
            && pair[0].term == pair[1].prev_term
    };
    if are_entries && records.windows(2).all(follow) {
        Ok(())
    } else {
        Err(RepairError::Misfit("the entries do not follow each other"))
    }
}

/// The LSN of the damaged entry that the record is to stand in for; `None` if that is whole.
fn lsn_for(shared: &Shared, record: &Record, found: &Found) -> Result<Option<Lsn>, RepairError> {
    match found {
        Found::Entry(range, Some(meta)) => {
            if reader::is_whole(shared, range.segment, meta)? {
                return Ok(None);
            }
            let same = meta.term == record.term
                && meta.base_offset == record.base_offset
                && meta.offset_count == record.offset_count
                && meta.max_timestamp_ms == record.max_timestamp_ms
                && u64::from(meta.payload_len) == record.payload.len() as u64;
            if same {
                Ok(Some(meta.lsn))
            } else {
                Err(RepairError::Misfit("it is not the entry that is damaged"))
            }
        }
        // Every entry has its own LSN, in order: counted from the ends there is room for all.
        Found::Entry(range, None) => {
            Ok(Some(Lsn(range.run.first_lsn.0 + (record.index.0 - range.run.first.0))))
        }
        Found::Hole(hole, behind) => {
            let newest = match reader::meta_in(shared, behind, behind.first) {
                Ok(meta) => meta.lsn,
                Err(ReadError::Damaged { .. }) => behind.run.first_lsn,
                Err(error) => return Err(error.into()),
            };
            let distance = hole.last.0 - record.index.0 + 1;
            let lsn = newest.0.checked_sub(distance).filter(|lsn| *lsn > 0);
            lsn.map(|lsn| Some(Lsn(lsn)))
                .ok_or(RepairError::Misfit("there was never room for so many entries"))
        }
    }
}

/// The first record must follow what is before it, if that is known.
fn check_front(shared: &Shared, first: &Record) -> Result<(), RepairError> {
    match reader::term_at(shared, first.group, first.index.previous()) {
        Ok(Some(term)) if term != first.prev_term => {
            Err(RepairError::Misfit("it does not follow the entry before it"))
        }
        Ok(_) | Err(ReadError::Damaged { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The last record must have the term that is known of it.
fn check_end(shared: &Shared, last: &Record) -> Result<(), RepairError> {
    match reader::term_at(shared, last.group, last.index) {
        Ok(Some(term)) if term == last.term => Ok(()),
        Ok(Some(_)) => Err(RepairError::Misfit("the entry behind it follows another one")),
        Ok(None) | Err(ReadError::Damaged { .. }) => Err(RepairError::Unproven),
        Err(error) => Err(error.into()),
    }
}

/// The term at an index of a hole, as far as its surroundings tell.
pub(crate) fn term_in_hole(shared: &Shared, group: GroupId, index: Index) -> Result<Option<Term>, ReadError> {
    let (hole, behind, in_front) = {
        let all = shared.index.read();
        let log = all.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
        let Some(Place::Hole(hole, behind)) = at(log, index) else { return Ok(None) };
        let in_front = log.ranges.iter().rfind(|range| range.last < hole.first).copied();
        (hole, behind, in_front.ok_or(log.start.term))
    };
    let after = (behind.first == behind.run.first).then_some(behind.run.prev_term);
    if index == hole.last {
        return Ok(after);
    }
    let before = match in_front {
        Ok(range) if range.last == range.run.last() => range.run.last_term,
        Ok(range) => reader::meta_in(shared, &range, range.last)?.term,
        Err(start_term) => start_term,
    };
    // Terms never fall along a log.
    Ok(after.filter(|after| *after == before))
}

impl From<ReclaimError> for RepairError {
    fn from(error: ReclaimError) -> Self {
        match error {
            ReclaimError::Io { operation, source } => Self::Io { operation, source },
            ReclaimError::Read(error) => Self::Read(error),
            ReclaimError::NotSynced(error) => Self::NotSynced(error),
            ReclaimError::AlreadyRunning => {
                Self::Io { operation: "repairing".to_owned(), source: io::ErrorKind::WouldBlock.into() }
            }
        }
    }
}
