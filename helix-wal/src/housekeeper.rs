//! Work on files that nobody should wait for: preparing the next segment, writing footers, retiring files.

use std::io;
use std::sync::Arc;

use crate::disk::is_out_of_space;
use crate::error::FatalError;
use crate::footer::Directory;
use crate::index::{Contents, SegmentEntry};
use crate::options::SealedSegment;
use crate::segment::{FileName, Segment};
use crate::shared::{Job, Shared, SpareFile};
use crate::types::{GroupId, Index, SegmentId};
use crate::writer::BLOCK_BYTES;

/// Does jobs until told to stop, but for those of [`run_preparer`].
pub(crate) fn run(shared: &Arc<Shared>) {
    while let Some(job) = shared.wait_job(|job| !matches!(job, Job::Prepare)) {
        do_job(shared, job);
    }
}

/// Prepares segments until told to stop. The writer waits for the next one when its own is full, and should not have to wait for the
/// footer of the last one besides: under load every sync takes the better part of a second.
pub(crate) fn run_preparer(shared: &Arc<Shared>) {
    while let Some(job) = shared.wait_job(|job| matches!(job, Job::Prepare)) {
        do_job(shared, job);
    }
}

/// Does one job if there is one.
pub(crate) fn step(shared: &Arc<Shared>) -> bool {
    shared.take_job().map(|job| do_job(shared, job)).is_some()
}

fn do_job(shared: &Arc<Shared>, job: Job) {
    if shared.failure().is_some() {
        return;
    }
    match job {
        Job::Seal { segment, data_end } => {
            if let Err(error) = seal(shared, &segment, data_end) {
                shared.fail(&FatalError::new(format!("sealing segment {}", segment.id), error));
            }
        }
        Job::Prepare => {
            shared.space.refresh(&*shared.disk);
            while shared.begin_preparing() && prepare_next(shared) {
                shared.space.refresh(&*shared.disk);
            }
        }
        Job::Writeback { segment, position, len } => {
            // Only a hint; the sync that follows reports what is wrong.
            if let Err(error) = segment.file.start_writeback(position, len) {
                tracing::debug!(%error, segment = %segment.id, "starting writeback");
            }
        }
        Job::RefreshSpace => shared.space.refresh(&*shared.disk),
    }
}

/// Has another segment ready, unless there is no space: then the writer will try again when it needs one.
fn prepare_next(shared: &Shared) -> bool {
    match prepare(shared) {
        Ok(segment) => {
            shared.put_next(Some(segment));
            true
        }
        Err(error) => {
            shared.put_next(None);
            if is_out_of_space(&error) {
                tracing::warn!("no space for another log segment; free space or lower the retention");
            } else {
                shared.fail(&FatalError::new("preparing a segment", error));
            }
            false
        }
    }
}

/// Makes a segment with a durable name and nothing valid in it, from a retired file if there is one.
pub(crate) fn prepare(shared: &Shared) -> io::Result<Arc<Segment>> {
    let id = shared.allocate_segment_id();
    let name = FileName::Segment(id).to_string();
    let spare = shared.spares.lock().pop();
    shared.count_spares();
    let file = match spare {
        Some(spare) => {
            let free_name = FileName::Free(spare.id).to_string();
            let file = shared.disk.open(&free_name)?;
            if let Err(error) = file.allocate(shared.options.segment_bytes) {
                shared.spares.lock().push(spare);
                shared.count_spares();
                return Err(error);
            }
            // Zeros say that nothing was written in this life of the file. A whole block: of a part the rest would be read first.
            let head_bytes = BLOCK_BYTES.min(shared.options.segment_bytes) as usize;
            file.write_at(&[0; BLOCK_BYTES as usize][..head_bytes], 0)?;
            shared.disk.rename(&free_name, &name)?;
            file
        }
        None => shared.disk.create(&name, shared.options.segment_bytes)?,
    };
    file.sync_data()?;
    shared.disk.sync_dir()?;
    Ok(Segment::new(id, file))
}

fn seal(shared: &Shared, segment: &Arc<Segment>, data_end: u64) -> io::Result<()> {
    let closing = {
        let index = shared.index.read();
        match index.segments.get(&segment.id).map(|entry| &entry.contents) {
            Some(Contents::Closing(dense)) => Arc::clone(dense),
            _ => return Ok(()),
        }
    };
    let footer = closing.encode(segment.id, data_end);
    match footer.write(&*segment.file) {
        Err(error) if is_out_of_space(&error) => {
            // The frames are durable and the index stays in memory; the next start writes the footer.
            tracing::warn!(segment = %segment.id, "no space for the index footer of a segment");
            return Ok(());
        }
        other => other?,
    }
    shared.index.write().seal(segment.id, &footer.directory, footer.end());
    shared.stats.seals.add(1);
    give_back_pages(shared, segment, footer.end());
    shared.space.refresh(&*shared.disk);
    (shared.options.on_seal)(SealedSegment { sequence: segment.id, groups: last_indexes(&footer.directory) });
    Ok(())
}

/// A segment was sealed: the pages of those that nobody is expected to read go back to the system.
fn give_back_pages(shared: &Shared, segment: &Arc<Segment>, file_bytes: u64) {
    for leaving in shared.residency.sealed(segment, file_bytes) {
        // Only a hint; what stays in the page cache does no harm.
        if let Err(error) = leaving.file.drop_cached() {
            tracing::debug!(%error, segment = %leaving.id, "giving back the pages of a segment");
        }
    }
}

fn last_indexes(directory: &Directory) -> Vec<(GroupId, Index)> {
    let mut groups: Vec<(GroupId, Index)> = Vec::new();
    for run in &directory.runs {
        match groups.last_mut() {
            Some((group, last)) if *group == run.group => *last = run.last(),
            _ => groups.push((run.group, run.last())),
        }
    }
    groups
}

/// Takes segments out of use: their names are gone or changed when this returns, durably after the next directory sync.
/// Returns how many bytes that frees.
pub(crate) fn retire(shared: &Shared, segments: &[SegmentId]) -> io::Result<u64> {
    let mut retired = Vec::new();
    {
        let mut index = shared.index.write();
        retired.extend(segments.iter().filter_map(|segment| index.segments.remove(segment)));
    }
    let mut freed_bytes = 0;
    for entry in retired {
        freed_bytes += entry.file_bytes;
        retire_file(shared, entry)?;
        shared.stats.segments_retired.add(1);
    }
    shared.count_spares();
    Ok(freed_bytes)
}

fn retire_file(shared: &Shared, entry: SegmentEntry) -> io::Result<()> {
    let SegmentEntry { segment, file_bytes, .. } = entry;
    shared.footers.forget(segment.id);
    shared.residency.forget(segment.id);
    let name = segment.name();
    // Nobody can get at the segment through the index any more. If somebody still reads it, its bytes must stay.
    let unused = Arc::strong_count(&segment) == 1;
    let wanted = shared.spares.lock().len() < shared.options.recycled_segments
        && file_bytes <= shared.options.segment_bytes
        && file_bytes >= shared.options.segment_bytes / 2;
    if unused && wanted {
        shared.disk.rename(&name, &FileName::Free(segment.id).to_string())?;
        shared.spares.lock().push(SpareFile { id: segment.id, bytes: file_bytes });
        Ok(())
    } else {
        shared.disk.remove(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::SegmentIndex;
    use crate::frame::FrameHeader;
    use crate::payload::Payload;
    use crate::record::{Record, RecordKind};
    use crate::types::{Lsn, Offset, Term};

    #[test]
    fn each_group_is_named_once_with_its_last_index() {
        let mut contents = SegmentIndex::default();
        // Those of the first group do not follow each other: they are two runs.
        for (lsn, (group, index)) in [(1, 1), (1, 5), (2, 3)].into_iter().enumerate() {
            let record = Record {
                group: GroupId(group),
                kind: RecordKind::Entry { tag: 0 },
                index: Index(index),
                term: Term(1),
                prev_term: Term(1),
                base_offset: Offset(0),
                offset_count: 0,
                max_timestamp_ms: 0,
                payload: Payload::empty(),
            };
            contents.add(&FrameHeader::of(&record, Lsn(lsn as u64 + 1), Lsn(0), Lsn(0)), 64);
        }
        let directory = contents.encode(SegmentId(1), 4096).directory;
        assert_eq!(directory.runs.len(), 3);
        assert_eq!(last_indexes(&directory), [(GroupId(1), Index(5)), (GroupId(2), Index(3))]);
    }
}
