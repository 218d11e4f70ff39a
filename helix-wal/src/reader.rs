//! Reading entries back: by index in order, and looking up indexes by offset and timestamp.
//!
//! The index is asked under a short lock; files are read without one. A segment that is retired meanwhile stays readable for
//! those who got hold of it before.

use std::cmp::Reverse;
use std::sync::Arc;

use bytes::Bytes;

use crate::contents::SegmentIndex;
use crate::error::ReadError;
use crate::footer::{EntryMeta, RunSummary, StateMeta, load_entries};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use crate::index::{Hole, Located, Range};
use crate::payload::Payload;
use crate::record::{Record, RecordKind, StoredRecord, written_ms};
use crate::repair;
use crate::scan::scan;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::types::{GroupId, Index, Offset, SegmentId, Term};

/// Where a read ends. One record is always read, if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimit {
    /// Payload bytes.
    pub max_bytes: u64,
    /// Records.
    pub max_records: usize,
}

/// Frames of other groups that lie between two wanted ones are read along if they are not longer than this.
const MAX_GAP_BYTES: u64 = 16 << 10;
/// One call reads about this much at most, unless a single frame is longer.
const MAX_CALL_BYTES: u64 = 4 << 20;

/// A range and the segment it is in, held so that it stays readable.
struct Place {
    segment: Arc<Segment>,
    range: Range,
    /// The entries from the asked one on, if they are in memory.
    dense: Option<Vec<EntryMeta>>,
}

/// The range that holds `from`, if there is one: a hole is an error.
fn place_of(
    shared: &Shared,
    group: GroupId,
    from: Index,
    max_count: usize,
) -> Result<Option<Place>, ReadError> {
    let index = shared.index.read();
    let log = index.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
    if from <= log.start.index {
        let start_index = log.start.index;
        return Err(ReadError::BelowStart { group, requested: from, start_index });
    }
    if from > log.last_index {
        return Ok(None);
    }
    let damaged = ReadError::Damaged { group, index: from };
    let Some(range) = log.range_at(from).filter(|range| range.first <= from) else { return Err(damaged) };
    let Some(entry) = index.segments.get(&range.segment) else { return Err(damaged) };
    let dense = match index.locate(range, from, max_count as u64) {
        Located::Dense(entries) => Some(entries),
        Located::Stored => None,
    };
    Ok(Some(Place { segment: Arc::clone(&entry.segment), range: *range, dense }))
}

/// All dense entries of the stored run that `range` is a part of.
fn stored_run(shared: &Shared, segment: &Segment, range: &Range) -> Result<Arc<[EntryMeta]>, ReadError> {
    let run = &range.run;
    let key = (segment.id, run.group, run.first);
    if let Some(entries) = shared.footers.get(&key) {
        return Ok(entries);
    }
    let entries = match load_entries(&*segment.file, run.entries_position, run.count, run.entries_crc)? {
        Some(entries) => entries,
        None => {
            rebuild_run(segment, run)?.ok_or(ReadError::Damaged { group: run.group, index: range.first })?
        }
    };
    let entries: Arc<[EntryMeta]> = entries.into();
    shared.footers.put(key, &entries);
    Ok(entries)
}

/// The dense entries of a run from the frames themselves, when those in the footer are damaged. `None` if frames are too.
fn rebuild_run(segment: &Segment, run: &RunSummary) -> Result<Option<Vec<EntryMeta>>, ReadError> {
    tracing::warn!(segment = %segment.id, group = %run.group, "index entries are damaged, reading the segment");
    let scan = scan(segment)?;
    let mut index = SegmentIndex::default();
    let of_run = |header: &FrameHeader| {
        header.group == run.group && (run.first_lsn..=run.last_lsn).contains(&header.lsn)
    };
    for frame in scan.frames().filter(|frame| of_run(&frame.header)) {
        index.add(&frame.header, frame.position);
    }
    let rebuilt = index.run_of(run.group, run.first).filter(|rebuilt| {
        let lsns = (rebuilt.entries.first().map(|e| e.lsn), rebuilt.entries.last().map(|e| e.lsn));
        rebuilt.first == run.first && lsns == (Some(run.first_lsn), Some(run.last_lsn))
    });
    Ok(rebuilt
        .filter(|rebuilt| rebuilt.entries.len() as u64 == run.count)
        .map(|rebuilt| rebuilt.entries.clone()))
}

impl Place {
    /// The live entries of this place from `from` on, at most `max_count`.
    fn entries(&self, shared: &Shared, from: Index, max_count: usize) -> Result<Vec<EntryMeta>, ReadError> {
        if let Some(dense) = &self.dense {
            return Ok(dense.clone());
        }
        let run = stored_run(shared, &self.segment, &self.range)?;
        let at = |index: Index| usize::try_from(index.0 - self.range.run.first.0).unwrap_or(usize::MAX);
        let end = (at(self.range.last) + 1).min(at(from).saturating_add(max_count));
        let live = run.get(at(from)..end.min(run.len()));
        live.map(<[EntryMeta]>::to_vec).ok_or(ReadError::Damaged { group: self.range.run.group, index: from })
    }
}

/// All live entries of a range of a sealed segment.
pub(crate) fn live_entries(
    shared: &Shared,
    segment: &Arc<Segment>,
    range: &Range,
) -> Result<Vec<EntryMeta>, ReadError> {
    let place = Place { segment: Arc::clone(segment), range: *range, dense: None };
    place.entries(shared, range.first, usize::MAX)
}

/// One entry of a range, from memory or from the footer.
pub(crate) fn meta_in(shared: &Shared, range: &Range, index: Index) -> Result<EntryMeta, ReadError> {
    let (segment, located) = {
        let all = shared.index.read();
        let entry = all.segments.get(&range.segment);
        (entry.map(|entry| Arc::clone(&entry.segment)), all.locate(range, index, 1))
    };
    let damaged = ReadError::Damaged { group: range.run.group, index };
    let Some(segment) = segment else { return Err(damaged) };
    let dense = match located {
        Located::Dense(entries) => Some(entries),
        Located::Stored => None,
    };
    let place = Place { segment, range: *range, dense };
    place.entries(shared, index, 1)?.first().copied().ok_or(damaged)
}

pub(crate) fn term_at(shared: &Shared, group: GroupId, index: Index) -> Result<Option<Term>, ReadError> {
    {
        let all = shared.index.read();
        let log = all.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
        if index == log.last_index {
            return Ok(Some(log.last_term));
        }
        if index == log.start.index {
            return Ok(Some(log.start.term));
        }
        if index < log.start.index {
            return Ok(None);
        }
    }
    let place = match place_of(shared, group, index, 1) {
        Ok(Some(place)) => place,
        Ok(None) => return Ok(None),
        Err(damaged) => return repair::term_in_hole(shared, group, index)?.map(Some).ok_or(damaged),
    };
    if place.range.last == index && place.range.last == place.range.run.last() {
        return Ok(Some(place.range.run.last_term));
    }
    Ok(place.entries(shared, index, 1)?.first().map(|meta| meta.term))
}

pub(crate) fn read(
    shared: &Shared,
    group: GroupId,
    from: Index,
    limit: ReadLimit,
) -> Result<Vec<StoredRecord>, ReadError> {
    let mut records: Vec<StoredRecord> = Vec::new();
    let mut bytes_left = limit.max_bytes;
    let mut next = from;
    let max_records = limit.max_records.max(1);
    while records.len() < max_records {
        let place = match place_of(shared, group, next, max_records - records.len()) {
            Ok(Some(place)) => place,
            Ok(None) => break,
            // What was read so far is good; the next read begins at the damage.
            Err(_) if !records.is_empty() => break,
            Err(error) => return Err(error),
        };
        let entries = match place.entries(shared, next, max_records - records.len()) {
            Ok(entries) => entries,
            Err(_) if !records.is_empty() => break,
            Err(error) => return Err(error),
        };
        let wanted = within(&entries, &mut bytes_left, records.is_empty());
        let complete = wanted.len() == entries.len();
        shared.residency.read(&place.segment)?;
        let outcome = read_entries(&place.segment, group, next, wanted, &mut records);
        if let Err(error) = outcome {
            return if records.is_empty() { Err(error) } else { Ok(records) };
        }
        if !complete || wanted.is_empty() {
            break;
        }
        next = Index(from.0 + records.len() as u64);
        if !is_chain(&records) {
            break;
        }
    }
    Ok(keep_chain(records))
}

/// The first entries that fit, at least one if `need_one`.
fn within<'a>(entries: &'a [EntryMeta], bytes_left: &mut u64, need_one: bool) -> &'a [EntryMeta] {
    let mut count = 0;
    for entry in entries {
        let bytes = u64::from(entry.payload_len);
        if bytes > *bytes_left && !(need_one && count == 0) {
            break;
        }
        *bytes_left = bytes_left.saturating_sub(bytes);
        count += 1;
    }
    &entries[..count]
}

fn is_chain(records: &[StoredRecord]) -> bool {
    records.windows(2).all(|pair| pair[1].record.prev_term == pair[0].record.term)
}

/// A suffix that was replaced between two looks at the index would not fit what was read before; it is left out.
fn keep_chain(mut records: Vec<StoredRecord>) -> Vec<StoredRecord> {
    let fits = records.windows(2).take_while(|pair| pair[1].record.prev_term == pair[0].record.term).count();
    records.truncate(fits + 1);
    records
}

/// Entries that are read with one call.
struct Span {
    position: u64,
    end: u64,
    count: usize,
}

/// Consecutive entries as few calls read them: neighbours together.
fn spans(entries: &[EntryMeta]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for entry in entries {
        let end = entry.position + entry.frame_bytes();
        match spans.last_mut() {
            Some(span)
                if entry.position >= span.end
                    && entry.position - span.end <= MAX_GAP_BYTES
                    && end - span.position <= MAX_CALL_BYTES =>
            {
                span.end = end;
                span.count += 1;
            }
            _ => spans.push(Span { position: entry.position, end, count: 1 }),
        }
    }
    spans
}

/// Reads consecutive entries. What precedes a damaged one is in `records` on error.
fn read_entries(
    segment: &Segment,
    group: GroupId,
    first: Index,
    entries: &[EntryMeta],
    records: &mut Vec<StoredRecord>,
) -> Result<(), ReadError> {
    let spans = spans(entries);
    // The disk gets at all of them while the first is waited for.
    for span in spans.iter().skip(1) {
        if let Err(error) = segment.file.will_read(span.position, span.end - span.position) {
            tracing::debug!(%error, segment = %segment.id, "reading ahead");
        }
    }
    let mut index = first;
    let mut rest = entries;
    for span in spans {
        let damaged = |index| ReadError::Damaged { group, index };
        let bytes = read_bytes(segment, span.position, span.end - span.position)?.ok_or(damaged(index))?;
        for entry in &rest[..span.count] {
            let frame = decode_frame(segment, &bytes, span.position, entry.position, entry.payload_len);
            let (header, payload) = frame.ok_or(damaged(index))?;
            if header.group != group || header.index != index || header.lsn != entry.lsn {
                return Err(damaged(index));
            }
            records.push(stored(&header, payload).ok_or(damaged(index))?);
            index = index.next();
        }
        rest = &rest[span.count..];
    }
    Ok(())
}

/// That many bytes, or `None` if the file ends before.
fn read_bytes(segment: &Segment, position: u64, len: u64) -> Result<Option<Bytes>, ReadError> {
    // Few frames are as long; before memory is taken for one the file must be long enough.
    if len > MAX_CALL_BYTES && segment.file.len_bytes()?.saturating_sub(position) < len {
        return Ok(None);
    }
    let Ok(len) = usize::try_from(len) else { return Ok(None) };
    let buffer = segment.file.read_new(len, position)?;
    Ok((buffer.len() == len).then(|| Bytes::from(buffer)))
}

/// The frame at `position` within bytes that were read from `from`, checked.
fn decode_frame(
    segment: &Segment,
    bytes: &Bytes,
    from: u64,
    position: u64,
    payload_len: u32,
) -> Option<(FrameHeader, Payload)> {
    let at = usize::try_from(position - from).ok()?;
    let header = FrameHeader::decode(bytes.get(at..)?, &segment.seed, position)?;
    if header.payload_len != payload_len {
        return None;
    }
    let payload_at = at + FRAME_HEADER_BYTES;
    let payload_end = payload_at + payload_len as usize;
    if payload_end > bytes.len() {
        return None;
    }
    let payload =
        Payload::from_parts_verified(vec![bytes.slice(payload_at..payload_end)], header.payload_crc);
    payload.verify().then_some((header, payload))
}

fn stored(header: &FrameHeader, payload: Payload) -> Option<StoredRecord> {
    let FrameKind::Record(kind) = header.kind else { return None };
    let record = Record {
        group: header.group,
        kind,
        index: header.index,
        term: header.term,
        prev_term: header.prev_term,
        base_offset: header.base_offset,
        offset_count: header.offset_count,
        max_timestamp_ms: header.max_timestamp_ms,
        payload,
    };
    Some(StoredRecord { record, lsn: header.lsn })
}

/// Reads one frame, whatever it is: its header as stored and the record. `None` if it is damaged.
pub(crate) fn read_frame(
    segment: &Segment,
    position: u64,
    payload_len: u32,
) -> Result<Option<(FrameHeader, StoredRecord)>, ReadError> {
    let Some(bytes) = read_bytes(segment, position, crate::frame::frame_bytes(payload_len))? else {
        return Ok(None);
    };
    let frame = decode_frame(segment, &bytes, position, position, payload_len);
    Ok(frame.and_then(|(header, payload)| Some((header, stored(&header, payload)?))))
}

/// Whether the frame of an entry can be read.
pub(crate) fn is_whole(shared: &Shared, segment: SegmentId, meta: &EntryMeta) -> Result<bool, ReadError> {
    let segment = shared.index.read().segments.get(&segment).map(|entry| Arc::clone(&entry.segment));
    let Some(segment) = segment else { return Ok(false) };
    let frame = read_frame(&segment, meta.position, meta.payload_len)?;
    Ok(frame.is_some_and(|(header, _)| header.lsn == meta.lsn))
}

/// The damaged entries of a range from `from` on. Reads all of it.
pub(crate) fn damaged_in(shared: &Shared, range: &Range, from: Index) -> Result<Vec<Hole>, ReadError> {
    let mut damaged: Vec<Hole> = Vec::new();
    let mut next = from;
    while next <= range.last {
        let place = match place_of(shared, range.run.group, next, usize::MAX) {
            Err(ReadError::BelowStart { start_index, .. }) => {
                next = start_index.next();
                continue;
            }
            place => place?,
        };
        let Some(place) = place else { break };
        let last = match check_some(shared, &place, next)? {
            Checked::Whole(last) => last,
            Checked::Damaged(last) => {
                match damaged.last_mut() {
                    Some(hole) if hole.last.next() == next => hole.last = last,
                    _ => damaged.push(Hole { first: next, last }),
                }
                last
            }
        };
        next = last.next();
    }
    Ok(damaged)
}

/// What some consecutive entries are, through the last one named.
enum Checked {
    Whole(Index),
    Damaged(Index),
}

/// Reads some entries of a place from `from` on.
fn check_some(shared: &Shared, place: &Place, from: Index) -> Result<Checked, ReadError> {
    let entries = match place.entries(shared, from, usize::MAX) {
        // Without their index entries none of them can be found.
        Err(ReadError::Damaged { .. }) => return Ok(Checked::Damaged(place.range.last)),
        other => other?,
    };
    let mut bytes_left = MAX_CALL_BYTES;
    let some = within(&entries, &mut bytes_left, true);
    let group = place.range.run.group;
    match read_entries(&place.segment, group, from, some, &mut Vec::new()) {
        Ok(()) if some.is_empty() => Ok(Checked::Damaged(place.range.last)),
        Ok(()) => Ok(Checked::Whole(Index(from.0 + some.len() as u64 - 1))),
        Err(ReadError::Damaged { index, .. }) if index > from => Ok(Checked::Whole(index.previous())),
        Err(ReadError::Damaged { .. }) => one_damaged(place, from, some),
        Err(error) => Err(error),
    }
}

/// Neighbours are read with one call, so one that is damaged may make it fail for all of them.
fn one_damaged(place: &Place, from: Index, some: &[EntryMeta]) -> Result<Checked, ReadError> {
    let first = &some[..1];
    match read_entries(&place.segment, place.range.run.group, from, first, &mut Vec::new()) {
        Ok(()) => Ok(Checked::Whole(from)),
        Err(ReadError::Damaged { .. }) => Ok(Checked::Damaged(from)),
        Err(error) => Err(error),
    }
}

/// Reads a start, checkpoint or delete record. `None` if it is damaged.
pub(crate) fn read_state(segment: &Segment, meta: &StateMeta) -> Result<Option<StoredRecord>, ReadError> {
    let frame = read_frame(segment, meta.position, meta.payload_len)?;
    Ok(frame
        .filter(|(header, _)| header.lsn == meta.lsn && header.group == meta.group)
        .filter(|(header, _)| !matches!(header.kind, FrameKind::Record(RecordKind::Entry { .. })))
        .map(|(_, record)| record))
}

/// Looks through the ranges of a group, in order, for the first entry that `find_in` finds, skipping ranges that are not
/// `possible`. If a hole lies right in front of what it finds, `in_hole` says whether the right one may have been there.
fn find(
    shared: &Shared,
    group: GroupId,
    from: Index,
    possible: impl Fn(&Range) -> bool,
    find_in: impl Fn(&[EntryMeta]) -> Option<usize>,
    in_hole: impl Fn(&EntryMeta) -> bool,
) -> Result<Option<Index>, ReadError> {
    until_not_cut(|| {
        let (ranges, holes, from): (Vec<Range>, Vec<Hole>, Index) = {
            let index = shared.index.read();
            let log = index.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
            let from = from.max(log.start.index.next());
            let ranges = log.ranges.iter().filter(|range| range.last >= from && possible(range));
            (ranges.copied().collect(), log.holes(), from)
        };
        for range in ranges {
            let found = look_into(shared, &range, from, |first, entries| {
                let at = find_in(entries)?;
                let index = Index(first.0 + at as u64);
                Some(match holes.iter().find(|hole| hole.last.next() == index) {
                    Some(hole) if in_hole(&entries[at]) => {
                        Err(ReadError::Damaged { group, index: hole.first })
                    }
                    _ => Ok(index),
                })
            })?;
            if let Some(found) = found {
                return found.map(Some);
            }
        }
        Ok(None)
    })
}

/// Shows `look` the entries of a range from `from` on, until it finds something: all at once, or piece by piece where a repair has
/// split the range since it was copied.
fn look_into<T>(
    shared: &Shared,
    range: &Range,
    from: Index,
    mut look: impl FnMut(Index, &[EntryMeta]) -> Option<T>,
) -> Result<Option<T>, ReadError> {
    let mut next = range.first.max(from);
    while next <= range.last {
        let Some(place) = place_of(shared, range.run.group, next, usize::MAX)? else { break };
        if let Some(found) = look(next, &place.entries(shared, next, usize::MAX)?) {
            return Ok(Some(found));
        }
        next = place.range.last.next();
    }
    Ok(None)
}

/// Looks through a log again for as long as it is cut at its start meanwhile: what is left of a range that was cut counts, and
/// who is told that there is nothing may remove all of it. Whoever looks begins behind the start that it has found, so that there is
/// an end to it even where a disk tells of entries that no log can have.
fn until_not_cut<T>(look: impl Fn() -> Result<T, ReadError>) -> Result<T, ReadError> {
    loop {
        match look() {
            Err(ReadError::BelowStart { .. }) => {}
            found => return found,
        }
    }
}

pub(crate) fn index_at_offset(
    shared: &Shared,
    group: GroupId,
    offset: Offset,
) -> Result<Option<Index>, ReadError> {
    find(
        shared,
        group,
        Index(0),
        |range| range.run.next_offset > offset,
        |entries| {
            let at = entries.partition_point(|entry| entry.next_offset() <= offset);
            (at < entries.len()).then_some(at)
        },
        |entry| entry.base_offset > offset,
    )
}

pub(crate) fn index_at_timestamp(
    shared: &Shared,
    group: GroupId,
    from: Index,
    timestamp_ms: i64,
) -> Result<Option<Index>, ReadError> {
    find(
        shared,
        group,
        from,
        |range| range.run.max_timestamp_ms >= timestamp_ms,
        |entries| {
            entries.iter().position(|entry| entry.offset_count > 0 && entry.max_timestamp_ms >= timestamp_ms)
        },
        // What is missing further ahead counts as older than what follows it.
        |_| true,
    )
}

pub(crate) fn index_written_since(
    shared: &Shared,
    group: GroupId,
    oldest_ms: i64,
) -> Result<Option<Index>, ReadError> {
    find(
        shared,
        group,
        Index(0),
        // The largest timestamp of a range says nothing of entries without. Of those that are too old there are few: they go.
        |_| true,
        |entries| {
            entries
                .iter()
                .position(|entry| entry.offset_count > 0 && written_ms(entry.max_timestamp_ms) >= oldest_ms)
        },
        |_| true,
    )
}

/// The first entry of the oldest range that is needed to keep at least `bytes`; `None` if all of them are.
pub(crate) fn index_keeping(shared: &Shared, group: GroupId, bytes: u64) -> Result<Option<Index>, ReadError> {
    let index = shared.index.read();
    let log = index.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
    let mut kept = 0;
    for range in log.ranges.iter().rev() {
        kept += range.live_bytes();
        if kept >= bytes {
            return Ok(Some(range.first));
        }
    }
    Ok(None)
}

pub(crate) fn index_of_max_timestamp(
    shared: &Shared,
    group: GroupId,
    end: Offset,
) -> Result<Option<Index>, ReadError> {
    until_not_cut(|| {
        let (mut ranges, from): (Vec<Range>, Index) = {
            let index = shared.index.read();
            let log = index.groups.get(&group).ok_or(ReadError::UnknownGroup(group))?;
            if let Some(hole) = log.holes().first() {
                return Err(ReadError::Damaged { group, index: hole.first });
            }
            (log.ranges.iter().copied().collect(), log.start.index.next())
        };
        // The numbers of the ranges are upper bounds, so the most promising is looked at first.
        ranges.sort_by_key(|range| (Reverse(range.run.max_timestamp_ms), range.first));
        let mut best: Option<(i64, Reverse<Index>)> = None;
        for range in ranges {
            if best.is_some_and(|(timestamp_ms, _)| range.run.max_timestamp_ms < timestamp_ms) {
                break;
            }
            look_into(shared, &range, from, |first, entries| {
                let counts = |entry: &EntryMeta| entry.offset_count > 0 && entry.next_offset() <= end;
                let counting = entries.iter().zip(first.0..).filter(|(entry, _)| counts(entry));
                // Of several that have it the first.
                best =
                    best.max(counting.map(|(entry, at)| (entry.max_timestamp_ms, Reverse(Index(at)))).max());
                None::<()>
            })?;
        }
        Ok(best.map(|(_, Reverse(index))| index))
    })
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
