//! Giving space back: segments without any live record are retired, mostly dead ones are rewritten.
//!
//! The order matters. What is dead is decided first; then the log is synced, so that whatever supersedes it is durable; only
//! then does anything go. A tombstone stays as long as another segment has a record of its group, counted after the
//! removal of that segment has become durable.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::contents::SegmentIndex;
use crate::disk::is_out_of_space;
use crate::error::{AppendError, ReclaimError};
use crate::footer::Directory;
use crate::frame::FrameHeader;
use crate::housekeeper::retire;
use crate::index::{Contents, GroupLog, Index, Range, SegmentEntry, StateRef};
use crate::planted::planted;
use crate::reader;
use crate::record::StoredRecord;
use crate::segment::{FileName, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::shared::Shared;
use crate::types::{GroupId, Index as EntryIndex, Lsn, SegmentId};

/// A segment is rewritten when less than one part in this many is live.
const MOSTLY_DEAD_PARTS: u64 = 4;
/// So many small segments are worth merging even if all in them is live.
const SMALL_SEGMENTS: usize = 8;
/// How many groups are looked at in one go.
const GROUPS_PER_LOCK: usize = 256;
/// Copies are written in pieces of about this size.
const COPY_BYTES: usize = 1 << 20;

/// What a reclaim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReclaimReport {
    /// Segments whose records were all dead.
    pub dead_segments: u64,
    /// Mostly dead segments whose survivors were copied.
    pub rewritten_segments: u64,
    /// Bytes of survivors copied.
    pub copied_bytes: u64,
    /// Bytes of files removed or kept for reuse, less the copies.
    pub freed_bytes: u64,
    /// There is more to give back than this reclaim was allowed to.
    pub unfinished: bool,
}

/// `sync` returns once everything written before the call is durable. Files of at most `allowed_bytes` go, but one at least.
pub(crate) fn reclaim(
    shared: &Shared,
    committed: &dyn Fn(GroupId) -> EntryIndex,
    sync: &dyn Fn() -> Result<(), AppendError>,
    allowed_bytes: u64,
) -> Result<ReclaimReport, ReclaimError> {
    if shared.reclaiming.swap(true, Ordering::AcqRel) {
        return Err(ReclaimError::AlreadyRunning);
    }
    let _running = Running(shared);
    let mut report = ReclaimReport::default();
    retire_dead(shared, sync, allowed_bytes, &mut report)?;
    if !report.unfinished {
        rewrite_mostly_dead(shared, committed, sync, allowed_bytes, &mut report)?;
    }
    shared.space.refresh(&*shared.disk);
    Ok(report)
}

fn retire_dead(
    shared: &Shared,
    sync: &dyn Fn() -> Result<(), AppendError>,
    allowed_bytes: u64,
    report: &mut ReclaimReport,
) -> Result<(), ReclaimError> {
    loop {
        if shared.condemned.lock().is_empty() {
            let dead = survey(shared).dead();
            if dead.is_empty() {
                return Ok(());
            }
            sync()?;
            *shared.condemned.lock() = dead.into();
        }
        let now = next_condemned(shared, allowed_bytes, report.freed_bytes);
        if now.is_empty() {
            report.unfinished = true;
            return Ok(());
        }
        report.dead_segments += now.len() as u64;
        report.freed_bytes += retire_durably(shared, &now)?;
        // Tombstones that were kept for a segment that is gone now may be dead in turn.
    }
}

/// The condemned segments that may go after `freed_bytes` have gone: as many as are allowed, and the first in any case.
fn next_condemned(shared: &Shared, allowed_bytes: u64, freed_bytes: u64) -> Vec<SegmentId> {
    let mut condemned = shared.condemned.lock();
    let index = shared.index.read();
    let bytes_of = |segment: &SegmentId| index.segments.get(segment).map_or(0, |entry| entry.file_bytes);
    let count = affordable(condemned.iter().map(bytes_of), allowed_bytes, freed_bytes);
    condemned.drain(..count).collect()
}

/// How many of these files may go: as many as are allowed, and one at least if none has gone yet.
fn affordable(sizes: impl Iterator<Item = u64>, allowed_bytes: u64, freed_bytes: u64) -> usize {
    let mut freed_bytes = freed_bytes;
    sizes
        .take_while(|bytes| {
            let first = freed_bytes == 0;
            freed_bytes += bytes;
            first || freed_bytes <= allowed_bytes
        })
        .count()
}

fn rewrite_mostly_dead(
    shared: &Shared,
    committed: &dyn Fn(GroupId) -> EntryIndex,
    sync: &dyn Fn() -> Result<(), AppendError>,
    allowed_bytes: u64,
    report: &mut ReclaimReport,
) -> Result<(), ReclaimError> {
    let survey = survey(shared);
    // What stands in for damaged records is kept apart: it supersedes nothing.
    for repair in [false, true] {
        let mut sources = survey.worth_rewriting(shared.options.segment_bytes, repair);
        keep_committed(shared, &mut sources, committed);
        for batch in batches(&sources, &survey, shared.options.segment_bytes) {
            // What was copied has been written, and what was freed removed: both are a burden on the disk.
            let done_bytes = report.freed_bytes + report.copied_bytes;
            if done_bytes > 0 && done_bytes >= allowed_bytes {
                report.unfinished = true;
                return Ok(());
            }
            sync()?;
            rewrite(shared, &batch, repair, &survey, report)?;
        }
    }
    Ok(())
}

struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.reclaiming.store(false, Ordering::Release);
    }
}

fn retire_durably(shared: &Shared, segments: &[SegmentId]) -> Result<u64, ReclaimError> {
    let failed = |operation: &str| {
        let operation = operation.to_owned();
        move |source| ReclaimError::Io { operation, source }
    };
    let freed_bytes = retire(shared, segments).map_err(failed("retiring segments"))?;
    shared.disk.sync_dir().map_err(failed("syncing the directory"))?;
    shared.index.write().deleted.retain(|_, tombstone| !segments.contains(&tombstone.segment));
    Ok(freed_bytes)
}

/// How much of each sealed segment is live.
struct Survey {
    usage: BTreeMap<SegmentId, Usage>,
    /// Tombstones that nothing needs any more.
    expendable: Vec<GroupId>,
}

#[derive(Clone, Copy, Default)]
struct Usage {
    live_bytes: u64,
    file_bytes: u64,
    damaged: bool,
    repair: bool,
}

/// Looks at a few groups at a time, so that the writer never waits long for the index. What is live in a sealed segment can
/// only become less meanwhile.
fn each_group(shared: &Shared, mut look: impl FnMut(GroupId, &GroupLog)) {
    let groups: Vec<GroupId> = shared.index.read().groups.keys().copied().collect();
    for some in groups.chunks(GROUPS_PER_LOCK) {
        let index = shared.index.read();
        for group in some {
            if let Some(log) = index.groups.get(group) {
                look(*group, log);
            }
        }
    }
}

fn survey(shared: &Shared) -> Survey {
    let mut survey = Survey { usage: BTreeMap::new(), expendable: Vec::new() };
    {
        let index = shared.index.read();
        for (id, entry) in &index.segments {
            if let Contents::Sealed(sealed) = &entry.contents {
                let (damaged, repair) = (sealed.damaged, sealed.repair);
                let usage = Usage { live_bytes: 0, file_bytes: entry.file_bytes, damaged, repair };
                survey.usage.insert(*id, usage);
            }
        }
        for (group, tombstone) in &index.deleted {
            let mut others = index.segments.iter().filter(|(id, _)| **id != tombstone.segment);
            if others.any(|(_, entry)| entry.has_group(*group)) {
                survey.count(tombstone.segment, tombstone.meta.frame_bytes());
            } else {
                survey.expendable.push(*group);
            }
        }
    }
    each_group(shared, |_, log| {
        for range in &log.ranges {
            survey.count(range.segment, range.live_bytes().max(1));
        }
        for state in log.states() {
            survey.count(state.segment, state.meta.frame_bytes());
        }
    });
    survey
}

impl Survey {
    fn count(&mut self, segment: SegmentId, bytes: u64) {
        if let Some(usage) = self.usage.get_mut(&segment) {
            usage.live_bytes += bytes;
        }
    }

    fn dead(&self) -> Vec<SegmentId> {
        self.usage.iter().filter(|(_, usage)| usage.live_bytes == 0).map(|(id, _)| *id).collect()
    }

    /// Mostly dead segments, and small ones if there are many.
    fn worth_rewriting(&self, segment_bytes: u64, repair: bool) -> Vec<SegmentId> {
        let whole = || self.usage.iter().filter(move |(_, usage)| !usage.damaged && usage.repair == repair);
        let is_small = |usage: &Usage| usage.file_bytes < segment_bytes / MOSTLY_DEAD_PARTS;
        let many_small = whole().filter(|(_, usage)| is_small(usage)).count() >= SMALL_SEGMENTS;
        whole()
            .filter(|(_, usage)| {
                usage.live_bytes < usage.file_bytes / MOSTLY_DEAD_PARTS || (many_small && is_small(usage))
            })
            .map(|(id, _)| *id)
            .collect()
    }
}

/// Drops the segments with live entries that are not committed.
fn keep_committed(shared: &Shared, sources: &mut Vec<SegmentId>, committed: &dyn Fn(GroupId) -> EntryIndex) {
    let mut needed = Vec::new();
    each_group(shared, |group, log| {
        let mine = log.ranges.iter().filter(|range| sources.contains(&range.segment));
        needed.extend(mine.map(|range| (range.segment, group, range.last)));
    });
    // Not under the lock: the caller may well ask the log something.
    needed.retain(|(_, group, last)| *last > committed(*group));
    sources.retain(|source| needed.iter().all(|(segment, _, _)| segment != source));
}

/// Sources whose survivors fit into one segment.
fn batches(sources: &[SegmentId], survey: &Survey, segment_bytes: u64) -> Vec<Vec<SegmentId>> {
    let mut batches: Vec<Vec<SegmentId>> = Vec::new();
    let mut bytes = 0;
    for source in sources {
        let live_bytes = survey.usage.get(source).map_or(0, |usage| usage.live_bytes);
        match batches.last_mut() {
            Some(batch) if bytes + live_bytes <= segment_bytes / 2 => batch.push(*source),
            _ => {
                batches.push(vec![*source]);
                bytes = 0;
            }
        }
        bytes += live_bytes;
    }
    batches
}

/// The live records of the sources, by group.
#[derive(Default)]
struct Survivors {
    segments: HashMap<SegmentId, Arc<Segment>>,
    groups: BTreeMap<GroupId, (Vec<StateRef>, Vec<Range>)>,
}

impl Survivors {
    fn of(shared: &Shared, sources: &[SegmentId], expendable: &[GroupId]) -> Self {
        let mut survivors = Self::default();
        {
            let index = shared.index.read();
            for source in sources {
                if let Some(entry) = index.segments.get(source) {
                    survivors.segments.insert(*source, Arc::clone(&entry.segment));
                }
            }
            let tombstones = index.deleted.iter().filter(|(group, tombstone)| {
                sources.contains(&tombstone.segment) && !expendable.contains(group)
            });
            for (group, tombstone) in tombstones {
                survivors.groups.insert(*group, (vec![*tombstone], Vec::new()));
            }
        }
        each_group(shared, |group, log| {
            let states = log.states().filter(|state| sources.contains(&state.segment));
            let ranges = log.ranges.iter().filter(|range| sources.contains(&range.segment));
            let found: (Vec<_>, Vec<_>) = (states.copied().collect(), ranges.copied().collect());
            if !found.0.is_empty() || !found.1.is_empty() {
                survivors.groups.insert(group, found);
            }
        });
        survivors
    }

    /// Whether one of them still points to a source.
    fn need(&self, index: &Index, sources: &[SegmentId]) -> bool {
        let logs = self.groups.keys().filter_map(|group| index.groups.get(group));
        let mut needing = logs.filter(|log| {
            log.ranges.iter().any(|range| sources.contains(&range.segment))
                || log.states().any(|state| sources.contains(&state.segment))
        });
        needing.next().is_some()
    }
}

fn rewrite(
    shared: &Shared,
    sources: &[SegmentId],
    repair: bool,
    survey: &Survey,
    report: &mut ReclaimReport,
) -> Result<(), ReclaimError> {
    let survivors = Survivors::of(shared, sources, &survey.expendable);
    let mut copied_bytes = 0;
    if !survivors.groups.is_empty() {
        let fill = |copying: &mut Copying| copying.copy_all(shared, &survivors);
        let Some(copy) = Copy::make(shared, repair, &fill)? else { return Ok(()) };
        copied_bytes = copy.file_bytes;
        if !install(shared, sources, &survivors, copy) {
            return Ok(());
        }
    }
    drop(survivors);
    let freed_bytes = retire_durably(shared, sources)?;
    shared.stats.rewritten_bytes.add(copied_bytes);
    report.rewritten_segments += sources.len() as u64;
    report.copied_bytes += copied_bytes;
    report.freed_bytes += freed_bytes.saturating_sub(copied_bytes);
    Ok(())
}

/// Lets the index point to the copies. False if something still needs a source.
fn install(shared: &Shared, sources: &[SegmentId], survivors: &Survivors, copy: Copy) -> bool {
    let mut index = shared.index.write();
    let (id, directory) = copy.enter(&mut index);
    index.move_survivors(sources, id, &directory);
    !survivors.need(&index, sources)
}

/// A complete, durable segment of copies.
pub(crate) struct Copy {
    segment: Arc<Segment>,
    repair: bool,
    directory: Directory,
    file_bytes: u64,
}

impl Copy {
    /// Makes the segment known. The log points to it when the caller says so.
    pub(crate) fn enter(self, index: &mut Index) -> (SegmentId, Directory) {
        let Self { segment, repair, directory, file_bytes } = self;
        let id = segment.id;
        let contents = Contents::Sealed(crate::index::SealedContents::of(&directory, repair));
        index.segments.insert(id, SegmentEntry { segment, contents, file_bytes });
        (id, directory)
    }

    /// A segment of what `fill` adds; that returns whether it could. `None` if it could not, or if there is no space: then
    /// nothing has happened.
    pub(crate) fn make(
        shared: &Shared,
        repair: bool,
        fill: &dyn Fn(&mut Copying) -> Result<bool, ReclaimError>,
    ) -> Result<Option<Self>, ReclaimError> {
        let id = shared.allocate_segment_id();
        let temporary = FileName::Temporary(id).to_string();
        let operation = || format!("writing copies to {temporary}");
        let failed = |source| ReclaimError::Io { operation: operation(), source };
        let file = match shared.disk.create(&temporary, 0) {
            Err(error) if is_out_of_space(&error) => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mut copying = Copying {
            segment: Segment::new(id, file),
            index: SegmentIndex::default(),
            position: SEGMENT_HEADER_BYTES,
            buffer: vec![0; SEGMENT_HEADER_BYTES as usize],
            buffer_position: 0,
        };
        let outcome = fill(&mut copying).and_then(|complete| {
            if complete { copying.finish(repair).map(Some).map_err(failed) } else { Ok(None) }
        });
        let file_and_directory = match outcome {
            Ok(Some(finished)) => finished,
            Ok(None) => {
                shared.disk.remove(&temporary).map_err(failed)?;
                return Ok(None);
            }
            Err(ReclaimError::Io { source, .. }) if is_out_of_space(&source) => {
                shared.disk.remove(&temporary).map_err(failed)?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let (directory, file_bytes) = file_and_directory;
        // The name says that the copy is complete and durable.
        shared.disk.rename(&temporary, &FileName::Segment(id).to_string()).map_err(failed)?;
        shared.disk.sync_dir().map_err(failed)?;
        Ok(Some(Self { segment: copying.segment, repair, directory, file_bytes }))
    }
}

/// A segment of copies that is being written.
pub(crate) struct Copying {
    segment: Arc<Segment>,
    index: SegmentIndex,
    position: u64,
    buffer: Vec<u8>,
    buffer_position: u64,
}

impl Copying {
    /// False if a survivor is damaged.
    fn copy_all(&mut self, shared: &Shared, survivors: &Survivors) -> Result<bool, ReclaimError> {
        for (states, ranges) in survivors.groups.values() {
            for state in states {
                let Some(source) = survivors.segments.get(&state.segment) else { return Ok(false) };
                if !self.copy(source, state.meta.position, state.meta.payload_len)? {
                    return Ok(false);
                }
            }
            for range in ranges {
                let Some(source) = survivors.segments.get(&range.segment) else { return Ok(false) };
                for meta in reader::live_entries(shared, source, range)? {
                    if !self.copy(source, meta.position, meta.payload_len)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn copy(&mut self, source: &Segment, position: u64, payload_len: u32) -> Result<bool, ReclaimError> {
        let Some((header, record)) = reader::read_frame(source, position, payload_len)? else {
            return Ok(false);
        };
        self.add(&header, &record)?;
        Ok(true)
    }

    /// Adds a record with the LSN that its header says.
    pub(crate) fn add(&mut self, header: &FrameHeader, record: &StoredRecord) -> Result<(), ReclaimError> {
        self.try_add(header, record).map_err(|source| ReclaimError::Io {
            operation: format!("writing copies to segment {}", self.segment.id),
            source,
        })
    }

    fn try_add(&mut self, header: &FrameHeader, record: &StoredRecord) -> io::Result<()> {
        let header = FrameHeader { rewritten: true, synced_lsn: Lsn(0), ..*header };
        let indexed_at = if planted("stale-footer") { SEGMENT_HEADER_BYTES } else { self.position };
        self.index.add(&header, indexed_at);
        self.buffer.extend(header.encode(&self.segment.seed, self.position));
        record.record.payload.chunks().iter().for_each(|chunk| self.buffer.extend_from_slice(chunk));
        self.position += header.frame_bytes();
        let padded = usize::try_from(self.position - self.buffer_position).unwrap_or(self.buffer.len());
        self.buffer.resize(padded, 0);
        if self.buffer.len() >= COPY_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.segment.file.write_at(&self.buffer, self.buffer_position)?;
        self.buffer_position = self.position;
        self.buffer.clear();
        Ok(())
    }

    /// Writes footer and header and makes all of it durable.
    fn finish(&mut self, repair: bool) -> io::Result<(Directory, u64)> {
        let footer = self.index.encode(self.segment.id, self.position);
        self.buffer.extend(&footer.bytes);
        self.position = footer.end();
        self.write_out()?;
        let header = SegmentHeader {
            segment: self.segment.id,
            rewritten: true,
            repair,
            first_lsn: self.index.min_lsn,
            previous: SegmentId(0),
            previous_end: 0,
        };
        self.segment.file.write_at(&header.encode(), 0)?;
        self.segment.file.sync_data()?;
        Ok((footer.directory, self.position))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 4000;

    fn survey(usage: &[(u64, u64)]) -> Survey {
        let of = |(id, (live_bytes, file_bytes)): (usize, &(u64, u64))| {
            let usage = Usage { live_bytes: *live_bytes, file_bytes: *file_bytes, ..Usage::default() };
            (SegmentId(id as u64 + 1), usage)
        };
        Survey { usage: usage.iter().enumerate().map(of).collect(), expendable: Vec::new() }
    }

    #[test]
    fn no_more_goes_than_is_allowed_but_one_file_in_any_case() {
        let count = |sizes: &[u64], allowed_bytes, freed_bytes| {
            affordable(sizes.iter().copied(), allowed_bytes, freed_bytes)
        };
        assert_eq!(count(&[10, 10, 10], 20, 0), 2);
        assert_eq!(count(&[10, 10, 10], 29, 0), 2);
        assert_eq!(count(&[10, 10, 10], 0, 0), 1, "or it would never end");
        assert_eq!(count(&[10, 10, 10], 20, 10), 1);
        assert_eq!(count(&[10, 10, 10], 20, 20), 0);
        assert_eq!(count(&[0, 0, 10, 10], 10, 0), 3, "what takes no space costs nothing");
        assert_eq!(count(&[10, 10, 10], u64::MAX, 0), 3);
        assert_eq!(count(&[], 20, 0), 0);
    }

    fn worth(survey: &Survey, repair: bool) -> Vec<u64> {
        survey.worth_rewriting(SEGMENT_BYTES, repair).iter().map(|segment| segment.0).collect()
    }

    #[test]
    fn a_segment_is_copied_when_less_than_a_quarter_lives() {
        let mut survey = survey(&[(1000, 4000), (999, 4000), (0, 4000), (999, 4000)]);
        assert_eq!(worth(&survey, false), [2, 3, 4]);
        survey.usage.get_mut(&SegmentId(2)).unwrap().damaged = true;
        survey.usage.get_mut(&SegmentId(3)).unwrap().repair = true;
        assert_eq!(worth(&survey, false), [4]);
        assert_eq!(worth(&survey, true), [3]);
    }

    #[test]
    fn small_segments_are_merged_when_there_are_many() {
        let small = (900, 999);
        assert_eq!(worth(&survey(&[small; 7]), false), [0; 0]);
        assert_eq!(worth(&survey(&[small; 8]), false).len(), 8);
        let mut not_so_small = [small; 8];
        not_so_small[0] = (1000, 1000);
        assert_eq!(worth(&survey(&not_so_small), false), [0; 0]);
    }

    #[test]
    fn what_is_copied_together_fills_half_a_segment() {
        let survey = survey(&[(1000, 4000), (1000, 4000), (1, 4000), (1999, 4000), (3000, 4000)]);
        let sources: Vec<SegmentId> = survey.usage.keys().copied().collect();
        let batches = batches(&sources, &survey, SEGMENT_BYTES);
        let batches: Vec<Vec<u64>> =
            batches.iter().map(|batch| batch.iter().map(|segment| segment.0).collect()).collect();
        assert_eq!(batches, [vec![1, 2], vec![3, 4], vec![5]]);
    }
}
