//! The one owner of the active segment.
//!
//! A state machine without a thread of its own: each [`Writer::turn`] takes what is queued, gives every record its LSN and
//! place, and writes it with as few vectored writes as there are segments and size limits. What queued up meanwhile is the
//! next turn's: that is the group commit.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Instant;

use crate::contents::SegmentIndex;
use crate::disk::is_out_of_space;
use crate::error::{AppendError, FatalError};
use crate::footer::{ENTRY_BYTES, RUN_BYTES, STATE_BYTES, TRAILER_BYTES};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::housekeeper;
use crate::index::{Contents, FirstLive, SegmentEntry};
use crate::reader;
use crate::record::{Durability, Record, RecordKind};
use crate::residency::Residency;
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentHeader};
use crate::shared::{Command, Done, Job, Shared, Unit};
use crate::tail::{self, Tail, TailState};
use crate::types::{GroupId, Index as EntryIndex, Lsn, SegmentId};

/// One vectored write takes at most about this much, so that the first to wait does not wait for all the others.
const BATCH_BYTES: u64 = 8 << 20;

/// What file systems read and write of a file at once. With larger blocks the only loss is time.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// The segment being written to.
struct Active {
    segment: Arc<Segment>,
    /// Where the next frame goes.
    position: u64,
    capacity: u64,
    /// To be written in front of the first frame.
    header: Option<[u8; SEGMENT_HEADER_BYTES as usize]>,
    /// What the footer will take at least.
    footer_bytes: u64,
    groups: HashSet<GroupId>,
    /// Up to where writeback was started.
    writeback_position: u64,
}

/// A frame on its way to the disk.
struct Planned {
    header: FrameHeader,
    position: u64,
    record: Option<Record>,
}

/// What the next vectored write consists of.
#[derive(Default)]
struct Batch {
    frames: Vec<Planned>,
    /// Bytes of all frames, padding included.
    bytes: u64,
    /// Where the first frame goes.
    position: u64,
    finished: Vec<(Done, Durability)>,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    tails: HashMap<GroupId, Tail>,
    next_lsn: Lsn,
    /// The segment written to before the active one, and where its frames end.
    previous: (SegmentId, u64),
    /// The synced position is in the last frame already.
    marked: bool,
    /// A segment could not be had in this turn.
    full: bool,
    batch: Batch,
    /// Headers and padding of the batch; kept for its memory.
    scratch: Vec<u8>,
}

/// Writes until the log is closed.
pub(crate) fn run(mut writer: Writer) {
    while let Some(commands) = writer.shared.wait_commands() {
        writer.turn(commands);
    }
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, last_lsn: Lsn, previous: (SegmentId, u64)) -> Self {
        let tails = {
            let index = shared.index.read();
            let deleted = index.deleted.keys().map(|group| (*group, Tail::deleted()));
            index.groups.keys().map(|group| (*group, Tail::of(&index, *group))).chain(deleted).collect()
        };
        Self {
            shared,
            active: None,
            tails,
            next_lsn: last_lsn.next(),
            previous,
            marked: false,
            full: false,
            batch: Batch::default(),
            scratch: Vec::new(),
        }
    }

    /// Takes what is queued, if anything.
    pub(crate) fn step(&mut self) -> bool {
        let commands = self.shared.take_commands();
        let any = !commands.is_empty();
        if any {
            self.turn(commands);
        }
        any
    }

    fn turn(&mut self, commands: VecDeque<Command>) {
        self.full = false;
        for command in commands {
            match command {
                Command::Append(unit) => self.append(unit),
                Command::Mark => self.mark(),
                Command::Close => {
                    self.flush();
                    self.close_active();
                }
            }
        }
        self.flush();
        let left = self.active.as_ref().map_or(0, |active| active.capacity.saturating_sub(active.position));
        self.shared.space.active_bytes.set(left);
    }

    fn append(&mut self, unit: Unit) {
        let Unit { records, durability, done, payload_bytes } = unit;
        self.shared.stats.queue_units.subtract(1);
        self.shared.stats.queue_bytes.subtract(payload_bytes);
        self.shared.space.queued_bytes.subtract(payload_bytes);
        for record in records {
            if let Err(error) = self.plan(record) {
                self.shared.stats.appends_failed.add(1);
                done(Err(error));
                return;
            }
        }
        self.shared.stats.appends.add(1);
        self.batch.finished.push((done, durability));
    }

    fn plan(&mut self, record: Record) -> Result<(), AppendError> {
        if self.shared.failure().is_some() {
            return Err(self.shared.stop_reason());
        }
        if record.kind == RecordKind::Start {
            // What it supersedes is looked up in the index, which knows only what has been written.
            self.flush();
        }
        let mut tail = self.next_tail(&record)?;
        let mut floor_lsn = Some(Lsn(0));
        if record.kind == RecordKind::Start {
            floor_lsn = self.floor_lsn(record.group, record.index, tail.last_index)?;
            if floor_lsn.is_none() {
                tail = tail.ending_at_start();
            }
        }
        let floor_lsn = floor_lsn.unwrap_or(self.next_lsn);
        let header = FrameHeader::of(&record, self.next_lsn, self.shared.synced_lsn(), floor_lsn);
        if let Err(error) = self.make_room(&header) {
            self.tails.entry(record.group).or_default().state = TailState::Refused;
            return Err(error);
        }
        self.push(header, Some(record));
        self.tails.insert(header.group, tail);
        Ok(())
    }

    /// The tail that the record leaves behind, or why it does not fit.
    fn next_tail(&self, record: &Record) -> Result<Tail, AppendError> {
        let known = self.tails.get(&record.group);
        let contained =
            record.kind == RecordKind::Start && known.is_some_and(|tail| self.contains(record, tail));
        tail::after(known, record, contained).map_err(|reason| match known {
            // Whoever appended behind a refused record has not heard of it yet; the reason is the same.
            Some(tail) if tail.state == TailState::Refused => AppendError::DiskFull,
            _ => AppendError::Invalid { group: record.group, index: record.index, reason },
        })
    }

    /// Whether the log has the entry that a start record refers to. All of it has been written.
    fn contains(&self, record: &Record, tail: &Tail) -> bool {
        let begins_anew = record.index == EntryIndex(0);
        if begins_anew || record.index > tail.last_index {
            return false;
        }
        // If the entry cannot be read, the log is not thrown away for that: entries that do not belong there will be
        // superseded by those that follow the start.
        !matches!(reader::term_at(&self.shared, record.group, record.index),
            Ok(Some(term)) if term != record.term)
    }

    /// Below which LSN everything of the group is dead once it starts after `start_index` and ends at `last_index`.
    /// `None` if all of it is.
    fn floor_lsn(
        &self,
        group: GroupId,
        start_index: EntryIndex,
        last_index: EntryIndex,
    ) -> Result<Option<Lsn>, AppendError> {
        if start_index >= last_index {
            return Ok(None);
        }
        loop {
            let first_live = self.shared.index.read().first_live_lsn_after(group, start_index);
            let (range, index) = match first_live {
                FirstLive::Nothing => return Ok(None),
                FirstLive::Lsn(lsn) => return Ok(Some(lsn)),
                FirstLive::Stored(range, index) => (range, index),
            };
            if let Ok(meta) = reader::meta_in(&self.shared, &range, index) {
                return Ok(Some(meta.lsn));
            }
            // Where its segment is gone, reclaim has put the entry elsewhere meanwhile.
            if self.shared.index.read().segments.contains_key(&range.segment) {
                let reason = "the index of the entry after it is damaged; start after another index";
                return Err(AppendError::Invalid { group, index: start_index, reason });
            }
        }
    }

    /// Makes sure that the frame fits into the active segment, behind what is planned already.
    fn make_room(&mut self, header: &FrameHeader) -> Result<(), AppendError> {
        let frame_bytes = header.frame_bytes();
        if self.batch.bytes > 0 && self.batch.bytes + frame_bytes > BATCH_BYTES {
            self.flush();
        }
        let fits = self.active.as_ref().is_some_and(|active| {
            active.position + frame_bytes + active.footer_bytes + footer_share(header) <= active.capacity
        });
        if fits {
            return Ok(());
        }
        self.flush();
        if self.shared.failure().is_some() {
            return Err(self.shared.stop_reason());
        }
        if self.full {
            return Err(AppendError::DiskFull);
        }
        self.roll(SEGMENT_HEADER_BYTES + frame_bytes + footer_share(header) + TRAILER_BYTES as u64)
    }

    /// Goes on in a new segment of at least that size.
    fn roll(&mut self, needed_bytes: u64) -> Result<(), AppendError> {
        let segment = match self.shared.take_next() {
            Some(segment) => segment,
            None => {
                let prepared = housekeeper::prepare(&self.shared);
                self.shared.put_next(None);
                prepared.map_err(|error| self.no_segment(error))?
            }
        };
        self.shared.count_spares();
        let mut capacity = self.shared.options.segment_bytes;
        if needed_bytes > capacity {
            if let Err(error) = segment.file.allocate(needed_bytes) {
                let error = self.no_segment(error);
                self.shared.return_next(segment);
                return Err(error);
            }
            capacity = needed_bytes;
        }
        Residency::expect(&segment);
        self.close_active();
        let (previous, previous_end) = self.previous;
        let header = SegmentHeader {
            segment: segment.id,
            rewritten: false,
            repair: false,
            first_lsn: self.next_lsn,
            previous,
            previous_end,
        };
        let entry = SegmentEntry {
            segment: Arc::clone(&segment),
            contents: Contents::Active(SegmentIndex::default()),
            file_bytes: capacity,
        };
        self.shared.index.write().segments.insert(segment.id, entry);
        self.active = Some(Active {
            segment,
            position: SEGMENT_HEADER_BYTES,
            capacity,
            header: Some(header.encode()),
            footer_bytes: TRAILER_BYTES as u64,
            groups: HashSet::new(),
            writeback_position: 0,
        });
        self.shared.push_job(Job::Prepare);
        Ok(())
    }

    fn no_segment(&mut self, error: io::Error) -> AppendError {
        if is_out_of_space(&error) {
            self.full = true;
            self.shared.push_job(Job::RefreshSpace);
            return AppendError::DiskFull;
        }
        self.shared.fail(&FatalError::new("preparing a segment", error));
        self.shared.stop_reason()
    }

    /// Ends the active segment: its footer is written once its frames are durable. Everything planned has been written.
    fn close_active(&mut self) {
        let Some(active) = self.active.take() else { return };
        self.previous = (active.segment.id, active.position);
        {
            let mut index = self.shared.index.write();
            if active.header.is_some() {
                // Nothing was written to it; the next start finds it unused.
                index.segments.remove(&active.segment.id);
                return;
            }
            if let Some(entry) = index.segments.get_mut(&active.segment.id)
                && let Contents::Active(dense) = &mut entry.contents
            {
                entry.contents = Contents::Closing(Arc::new(std::mem::take(dense)));
            }
        }
        let shared = Arc::downgrade(&self.shared);
        let (segment, data_end) = (active.segment, active.position);
        self.shared.when_synced(Box::new(move |synced| {
            if let (Ok(()), Some(shared)) = (synced, shared.upgrade()) {
                shared.push_job(Job::Seal { segment, data_end });
            }
        }));
    }

    /// Writes down how far the log is synced, if there is room and the last frame does not say so.
    fn mark(&mut self) {
        self.flush();
        let header = FrameHeader::mark(self.next_lsn, self.shared.synced_lsn());
        let fits = self.active.as_ref().is_some_and(|active| {
            active.header.is_none()
                && active.position + header.frame_bytes() + active.footer_bytes <= active.capacity
        });
        if fits && !self.marked && self.shared.failure().is_none() {
            self.push(header, None);
        }
    }

    fn push(&mut self, header: FrameHeader, record: Option<Record>) {
        let Some(active) = &mut self.active else { return };
        if self.batch.frames.is_empty() {
            self.batch.position = active.position;
        }
        if record.is_some() {
            active.footer_bytes += footer_share(&header);
            if active.groups.insert(header.group) {
                active.footer_bytes += RUN_BYTES as u64;
            }
        }
        self.marked = record.is_none();
        self.batch.frames.push(Planned { header, position: active.position, record });
        self.batch.bytes += header.frame_bytes();
        active.position += header.frame_bytes();
        self.next_lsn = self.next_lsn.next();
    }

    /// Writes what is planned and completes those who wait for no more than that.
    fn flush(&mut self) {
        let mut batch = std::mem::take(&mut self.batch);
        if batch.frames.is_empty() {
            self.complete(&mut batch, None);
        } else if let Some(mut active) = self.active.take() {
            let begun = Instant::now();
            let written = write_batch(&mut active, &batch, &mut self.scratch);
            self.shared.stats.write_latency.record(begun.elapsed());
            match written {
                Ok(()) => self.after_write(&mut active, &mut batch),
                Err(error) => {
                    let operation = format!("writing to segment {}", active.segment.id);
                    self.shared.fail(&FatalError::new(operation, error));
                }
            }
            self.active = Some(active);
        }
        for (done, _) in batch.finished.drain(..) {
            self.shared.stats.appends_failed.add(1);
            done(Err(self.shared.stop_reason()));
        }
        batch.frames.clear();
        self.batch = Batch { frames: batch.frames, finished: batch.finished, ..Batch::default() };
    }

    fn after_write(&mut self, active: &mut Active, batch: &mut Batch) {
        let stats = &self.shared.stats;
        stats.writes.add(1);
        stats.bytes.add(batch.bytes);
        stats.frames.add(batch.frames.len() as u64);
        {
            let mut index = self.shared.index.write();
            for frame in &batch.frames {
                index.apply(active.segment.id, &frame.header, frame.position);
            }
        }
        let payloads = batch.frames.iter().map(|frame| u64::from(frame.header.payload_len));
        stats.payload_bytes.add(payloads.sum());
        let record_bytes: u64 = batch
            .frames
            .iter()
            .filter(|frame| frame.record.is_some())
            .map(|frame| frame.header.frame_bytes())
            .sum();
        self.start_writeback(active);
        let written = Written { segment: Arc::clone(&active.segment), record_bytes };
        self.complete(batch, Some(&written));
    }

    /// Completes those who wait for the page cache; hands the others to the syncer.
    fn complete(&self, batch: &mut Batch, written: Option<&Written>) {
        let mut now = Vec::new();
        let mut synced = Vec::new();
        for (done, durability) in batch.finished.drain(..) {
            match durability {
                Durability::PageCache => now.push(done),
                Durability::Synced => synced.push(done),
            }
        }
        self.shared.stats.appends_synced.add(synced.len() as u64);
        match written {
            Some(written) => {
                let last_lsn = self.next_lsn.previous();
                self.shared.written(&written.segment, last_lsn, written.record_bytes, synced);
            }
            None => synced.into_iter().for_each(|done| self.shared.when_synced(done)),
        }
        for done in now {
            match self.shared.failure() {
                // A sync failed meanwhile: nothing written to the page cache can be relied on.
                Some(error) => done(Err(AppendError::Failed(error.clone()))),
                None => done(Ok(())),
            }
        }
    }

    fn start_writeback(&self, active: &mut Active) {
        let position = active.writeback_position;
        let len = active.position - position;
        if len >= self.shared.options.writeback_bytes {
            active.writeback_position = active.position;
            self.shared.push_job(Job::Writeback { segment: Arc::clone(&active.segment), position, len });
        }
    }
}

/// Where a batch went.
struct Written {
    segment: Arc<Segment>,
    record_bytes: u64,
}

/// What a frame adds to the footer, apart from the line of its group.
fn footer_share(header: &FrameHeader) -> u64 {
    match header.kind {
        crate::frame::FrameKind::Record(RecordKind::Entry { .. }) => ENTRY_BYTES as u64,
        crate::frame::FrameKind::Record(_) => (STATE_BYTES + RUN_BYTES) as u64,
        crate::frame::FrameKind::Mark => 0,
    }
}

/// One vectored write: the padding of a frame and the header of the next one are one slice, payload chunks are slices of
/// their own and never copied.
fn write_batch(active: &mut Active, batch: &Batch, scratch: &mut Vec<u8>) -> io::Result<()> {
    const PADDING: [u8; 8] = [0; 8];
    scratch.clear();
    let mut cuts = Vec::with_capacity(batch.frames.len() + 1);
    let mut position = batch.position;
    if let Some(header) = active.header.take() {
        position = 0;
        scratch.extend(header);
    }
    for frame in &batch.frames {
        scratch.extend(frame.header.encode(&active.segment.seed, frame.position));
        cuts.push(scratch.len());
        let unpadded = FRAME_HEADER_BYTES as u64 + u64::from(frame.header.payload_len);
        let padding = usize::try_from(frame.header.frame_bytes() - unpadded).unwrap_or(0);
        scratch.extend(&PADDING[..padding]);
    }
    cuts.push(scratch.len());
    let mut slices = Vec::with_capacity(2 * cuts.len());
    let mut from = 0;
    for (at, cut) in cuts.iter().enumerate() {
        if from < *cut {
            slices.push(IoSlice::new(&scratch[from..*cut]));
        }
        from = *cut;
        let record = batch.frames.get(at).and_then(|frame| frame.record.as_ref());
        let chunks = record.into_iter().flat_map(|record| record.payload.chunks());
        slices.extend(chunks.map(|chunk| IoSlice::new(chunk)));
    }
    let zeros = [0; BLOCK_BYTES as usize];
    let end = batch.position + batch.bytes;
    slices.push(IoSlice::new(&zeros[..zeros_behind(position, end, active.capacity)]));
    active.segment.file.write_vectored_at(&slices, position)
}

/// How many zeros are written behind what a write from `position` to `end` has to say, so that its last block is written as a whole.
///
/// In a file that had another life, the rest of the block is on the disk, and the system would read it before it lets anybody write
/// a part: once in nearly each write, behind everything else that the disk has to do. What is left of the block means nothing, and the
/// next write, which begins in it, finds it in memory. A block that was begun earlier is there already.
fn zeros_behind(position: u64, end: u64, capacity: u64) -> usize {
    let block = end - end % BLOCK_BYTES;
    if block < position || block == end {
        return 0;
    }
    usize::try_from((block + BLOCK_BYTES).min(capacity).saturating_sub(end)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_begun_is_written_to_its_end() {
        let zeros = |position, end| zeros_behind(position, end, 1 << 20);
        assert_eq!(zeros(0, 64), 4032);
        assert_eq!((zeros(64, 4096), zeros(4096, 8192)), (0, 0), "it ends with a block");
        assert_eq!((zeros(64, 128), zeros(4160, 8184)), (0, 0), "begun by an earlier write");
        assert_eq!((zeros(4096, 4104), zeros(64, 4104), zeros(64, 8184)), (4088, 4088, 8));
        assert_eq!(zeros_behind(0, 5000, 6000), 1000, "not beyond the end of the segment");
        assert_eq!((zeros_behind(0, 6000, 6000), zeros_behind(0, 5000, 8192)), (0, 3192));
    }
}
