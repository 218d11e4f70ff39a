//! The index of one segment: built while the segment is written or scanned, stored behind its frames when it is sealed.
//!
//! Layout, right behind the last frame: for each run its dense entries; then the directory (runs, states, damages); then
//! the trailer, which ends the file. A restart reads trailer and directory only; entries are loaded when asked for.

use std::collections::BTreeMap;
use std::io;

use crate::disk::DiskFile;
use crate::frame::{FrameHeader, FrameKind, frame_bytes, read_u32, read_u64};
use crate::record::RecordKind;
use crate::types::{GroupId, Index, Lsn, Offset, SegmentId, Term};

pub(crate) const ENTRY_BYTES: usize = 48;
pub(crate) const RUN_BYTES: usize = 112;
pub(crate) const STATE_BYTES: usize = 72;
pub(crate) const DAMAGE_BYTES: usize = 40;
pub(crate) const TRAILER_BYTES: usize = 72;

const TRAILER_MAGIC: &[u8; 8] = b"HELIXEND";
/// A directory larger than this is not believed.
const MAX_DIRECTORY_BYTES: u64 = 1 << 30;

/// Where one entry is and what can be asked about it without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryMeta {
    pub(crate) position: u64,
    pub(crate) term: Term,
    pub(crate) base_offset: Offset,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) lsn: Lsn,
    pub(crate) offset_count: u32,
    pub(crate) payload_len: u32,
}

impl EntryMeta {
    pub(crate) fn of(header: &FrameHeader, position: u64) -> Self {
        Self {
            position,
            term: header.term,
            base_offset: header.base_offset,
            max_timestamp_ms: header.max_timestamp_ms,
            lsn: header.lsn,
            offset_count: header.offset_count,
            payload_len: header.payload_len,
        }
    }

    pub(crate) fn next_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(u64::from(self.offset_count)))
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_len)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for number in [
            self.position,
            self.term.0,
            self.base_offset.0,
            self.max_timestamp_ms.cast_unsigned(),
            self.lsn.0,
        ] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.offset_count.to_le_bytes());
        out.extend(self.payload_len.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            position: read_u64(bytes, 0),
            term: Term(read_u64(bytes, 8)),
            base_offset: Offset(read_u64(bytes, 16)),
            max_timestamp_ms: read_u64(bytes, 24).cast_signed(),
            lsn: Lsn(read_u64(bytes, 32)),
            offset_count: read_u32(bytes, 40),
            payload_len: read_u32(bytes, 44),
        }
    }
}

/// Consecutive entries of one group in one segment, each the successor of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: Index,
    /// The term before the first entry.
    pub(crate) prev_term: Term,
    pub(crate) entries: Vec<EntryMeta>,
    pub(crate) bytes: u64,
    /// Not lowered when entries are taken away.
    pub(crate) max_timestamp_ms: i64,
}

impl Run {
    fn new(first: Index, prev_term: Term, meta: EntryMeta) -> Self {
        let mut run = Self { first, prev_term, entries: Vec::new(), bytes: 0, max_timestamp_ms: i64::MIN };
        run.push(meta);
        run
    }

    fn push(&mut self, meta: EntryMeta) {
        self.bytes += meta.frame_bytes();
        if meta.offset_count > 0 {
            self.max_timestamp_ms = self.max_timestamp_ms.max(meta.max_timestamp_ms);
        }
        self.entries.push(meta);
    }

    pub(crate) fn last(&self) -> Index {
        Index(self.first.0 + self.entries.len() as u64 - 1)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&EntryMeta> {
        let at = index.0.checked_sub(self.first.0)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Drops `index` and what follows. False if nothing is left.
    fn truncate_from(&mut self, index: Index) -> bool {
        let keep = usize::try_from(index.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        if keep < self.entries.len() {
            self.bytes -= self.entries[keep..].iter().map(EntryMeta::frame_bytes).sum::<u64>();
            self.entries.truncate(keep);
        }
        !self.entries.is_empty()
    }

    /// Drops everything up to `index`. False if nothing is left.
    fn trim_through(&mut self, index: Index) -> bool {
        if index < self.first {
            return true;
        }
        let drop = usize::try_from(index.0 - self.first.0 + 1).unwrap_or(usize::MAX).min(self.entries.len());
        for dropped in self.entries.drain(..drop) {
            self.bytes -= dropped.frame_bytes();
            self.prev_term = dropped.term;
        }
        self.first = index.next();
        !self.entries.is_empty()
    }

    /// The summary of a run that is not stored in a footer yet.
    pub(crate) fn summary(&self, group: GroupId) -> RunSummary {
        let (first, last) = (self.entries[0], self.entries[self.entries.len() - 1]);
        RunSummary {
            group,
            first: self.first,
            count: self.entries.len() as u64,
            prev_term: self.prev_term,
            last_term: last.term,
            first_lsn: first.lsn,
            last_lsn: last.lsn,
            base_offset: first.base_offset,
            next_offset: last.next_offset(),
            max_timestamp_ms: self.max_timestamp_ms,
            bytes: self.bytes,
            entries_position: 0,
            entries_crc: 0,
        }
    }
}

/// What the directory says about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunSummary {
    pub(crate) group: GroupId,
    pub(crate) first: Index,
    /// At least one.
    pub(crate) count: u64,
    pub(crate) prev_term: Term,
    pub(crate) last_term: Term,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
    pub(crate) base_offset: Offset,
    pub(crate) next_offset: Offset,
    /// Of the entries with offsets; `i64::MIN` if there are none. An upper bound.
    pub(crate) max_timestamp_ms: i64,
    /// Bytes of the frames.
    pub(crate) bytes: u64,
    /// Where the dense entries are; zero if they are only in memory.
    pub(crate) entries_position: u64,
    pub(crate) entries_crc: u32,
}

impl RunSummary {
    pub(crate) fn last(&self) -> Index {
        Index(self.first.0 + self.count - 1)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        for number in [
            self.group.0,
            self.first.0,
            self.count,
            self.prev_term.0,
            self.last_term.0,
            self.first_lsn.0,
            self.last_lsn.0,
            self.base_offset.0,
            self.next_offset.0,
            self.max_timestamp_ms.cast_unsigned(),
            self.bytes,
            self.entries_position,
            u64::from(self.entries_crc),
        ] {
            out.extend(number.to_le_bytes());
        }
        out.extend([0; RUN_BYTES - 13 * 8]);
    }

    /// `None` if the numbers cannot be of a run.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let run = Self {
            group: GroupId(read_u64(bytes, 0)),
            first: Index(read_u64(bytes, 8)),
            count: read_u64(bytes, 16),
            prev_term: Term(read_u64(bytes, 24)),
            last_term: Term(read_u64(bytes, 32)),
            first_lsn: Lsn(read_u64(bytes, 40)),
            last_lsn: Lsn(read_u64(bytes, 48)),
            base_offset: Offset(read_u64(bytes, 56)),
            next_offset: Offset(read_u64(bytes, 64)),
            max_timestamp_ms: read_u64(bytes, 72).cast_signed(),
            bytes: read_u64(bytes, 80),
            entries_position: read_u64(bytes, 88),
            entries_crc: u32::try_from(read_u64(bytes, 96)).ok()?,
        };
        let sane = run.count > 0 && run.count < u64::from(u32::MAX) && run.first.0 < u64::MAX - run.count;
        sane.then_some(run)
    }
}

/// A `Start`, `Checkpoint` or `Delete` in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateMeta {
    pub(crate) group: GroupId,
    pub(crate) kind: StateKind,
    pub(crate) index: Index,
    pub(crate) term: Term,
    pub(crate) base_offset: Offset,
    pub(crate) lsn: Lsn,
    pub(crate) floor_lsn: Lsn,
    pub(crate) position: u64,
    pub(crate) payload_len: u32,
}

/// The kinds of records that are not entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum StateKind {
    Start,
    Checkpoint,
    Delete,
}

impl StateMeta {
    pub(crate) fn of(header: &FrameHeader, kind: StateKind, position: u64) -> Self {
        Self {
            group: header.group,
            kind,
            index: header.index,
            term: header.term,
            base_offset: header.base_offset,
            lsn: header.lsn,
            floor_lsn: header.floor_lsn,
            position,
            payload_len: header.payload_len,
        }
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_len)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let kind: u32 = match self.kind {
            StateKind::Start => 2,
            StateKind::Checkpoint => 3,
            StateKind::Delete => 4,
        };
        out.extend(self.group.0.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend(self.payload_len.to_le_bytes());
        for number in
            [self.index.0, self.term.0, self.base_offset.0, self.lsn.0, self.floor_lsn.0, self.position]
        {
            out.extend(number.to_le_bytes());
        }
        out.extend([0; STATE_BYTES - 8 * 8]);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let kind = match read_u32(bytes, 8) {
            2 => StateKind::Start,
            3 => StateKind::Checkpoint,
            4 => StateKind::Delete,
            _ => return None,
        };
        Some(Self {
            group: GroupId(read_u64(bytes, 0)),
            kind,
            payload_len: read_u32(bytes, 12),
            index: Index(read_u64(bytes, 16)),
            term: Term(read_u64(bytes, 24)),
            base_offset: Offset(read_u64(bytes, 32)),
            lsn: Lsn(read_u64(bytes, 40)),
            floor_lsn: Lsn(read_u64(bytes, 48)),
            position: read_u64(bytes, 56),
        })
    }
}

/// A stretch that was found damaged when the segment was scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamageMeta {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) of: DamageOf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DamageOf {
    /// The header is gone.
    Unknown,
    /// The payload of this entry.
    Entry(GroupId, Index),
    /// The payload of a state of this group.
    State(GroupId),
}

impl DamageMeta {
    fn encode(&self, out: &mut Vec<u8>) {
        let (kind, group, index) = match self.of {
            DamageOf::Unknown => (0_u64, 0, 0),
            DamageOf::Entry(group, index) => (1, group.0, index.0),
            DamageOf::State(group) => (2, group.0, 0),
        };
        for number in [self.from, self.to, kind, group, index] {
            out.extend(number.to_le_bytes());
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let group = GroupId(read_u64(bytes, 24));
        let of = match read_u64(bytes, 16) {
            0 => DamageOf::Unknown,
            1 => DamageOf::Entry(group, Index(read_u64(bytes, 32))),
            2 => DamageOf::State(group),
            _ => return None,
        };
        Some(Self { from: read_u64(bytes, 0), to: read_u64(bytes, 8), of })
    }
}

/// Everything of one group in one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupContents {
    /// Ordered by index.
    pub(crate) runs: Vec<Run>,
    /// The newest of each kind.
    pub(crate) states: Vec<StateMeta>,
}

/// The index of one segment in memory: what its records say once all of them are applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    pub(crate) groups: BTreeMap<GroupId, GroupContents>,
    pub(crate) damage: Vec<DamageMeta>,
    /// Smallest and largest LSN; zero if there is no frame.
    pub(crate) min_lsn: Lsn,
    pub(crate) max_lsn: Lsn,
}

impl SegmentIndex {
    /// Takes in the next frame of the segment.
    pub(crate) fn add(&mut self, header: &FrameHeader, position: u64) {
        self.max_lsn = self.max_lsn.max(header.lsn);
        self.min_lsn = if self.min_lsn.0 == 0 { header.lsn } else { self.min_lsn.min(header.lsn) };
        let FrameKind::Record(kind) = header.kind else { return };
        let contents = self.groups.entry(header.group).or_default();
        match kind {
            RecordKind::Entry { .. } => contents.add_entry(header, position),
            RecordKind::Start => contents.add_state(StateMeta::of(header, StateKind::Start, position)),
            RecordKind::Checkpoint => {
                contents.add_state(StateMeta::of(header, StateKind::Checkpoint, position));
            }
            RecordKind::Delete => contents.add_state(StateMeta::of(header, StateKind::Delete, position)),
        }
    }

    /// The run of the group that holds the entry.
    pub(crate) fn run_of(&self, group: GroupId, index: Index) -> Option<&Run> {
        let runs = &self.groups.get(&group)?.runs;
        runs.iter().rev().find(|run| run.first <= index && index <= run.last())
    }

    /// The footer to be written at `position`.
    pub(crate) fn encode(&self, segment: SegmentId, position: u64) -> Footer {
        let mut bytes = Vec::new();
        let mut directory = Directory {
            data_end: position,
            min_lsn: self.min_lsn,
            max_lsn: self.max_lsn,
            runs: Vec::new(),
            states: Vec::new(),
            damage: self.damage.clone(),
        };
        for (group, contents) in &self.groups {
            for run in &contents.runs {
                let from = bytes.len();
                run.entries.iter().for_each(|entry| entry.encode(&mut bytes));
                directory.runs.push(RunSummary {
                    entries_position: position + from as u64,
                    entries_crc: crc32fast::hash(&bytes[from..]),
                    ..run.summary(*group)
                });
            }
            directory.states.extend(&contents.states);
        }
        let directory_from = bytes.len();
        directory.encode(segment, position + directory_from as u64, &mut bytes);
        Footer { position, bytes, directory_from, directory }
    }
}

/// A footer as it is stored.
pub(crate) struct Footer {
    pub(crate) position: u64,
    pub(crate) bytes: Vec<u8>,
    /// Where the dense entries end and the directory begins, within `bytes`.
    directory_from: usize,
    pub(crate) directory: Directory,
}

impl Footer {
    /// Where the file ends.
    pub(crate) fn end(&self) -> u64 {
        self.position + self.bytes.len() as u64
    }

    /// Makes it durable and cuts off what lies behind. The frames it describes are durable already.
    ///
    /// A start believes in dense entries whose directory is whole without looking at them, so they have to be durable
    /// before it.
    pub(crate) fn write(&self, file: &dyn DiskFile) -> io::Result<()> {
        let (entries, directory) = self.bytes.split_at(self.directory_from);
        if !entries.is_empty() {
            file.write_at(entries, self.position)?;
            file.sync_data()?;
        }
        file.write_at(directory, self.position + self.directory_from as u64)?;
        file.set_len(self.end())?;
        file.sync_data()
    }
}

impl GroupContents {
    fn add_entry(&mut self, header: &FrameHeader, position: u64) {
        let meta = EntryMeta::of(header, position);
        self.runs.retain_mut(|run| run.first < header.index && run.truncate_from(header.index));
        if let Some(run) = self.runs.last_mut() {
            let follows = run.last().next() == header.index
                && run.entries.last().is_some_and(|last| last.term == header.prev_term);
            if follows {
                run.push(meta);
                return;
            }
        }
        self.runs.push(Run::new(header.index, header.prev_term, meta));
    }

    fn add_state(&mut self, state: StateMeta) {
        match state.kind {
            StateKind::Start => {
                self.runs.retain_mut(|run| {
                    run.trim_through(state.index)
                        && run.entries.last().is_some_and(|last| last.lsn >= state.floor_lsn)
                });
            }
            StateKind::Delete => {
                self.runs.clear();
                self.states.clear();
            }
            StateKind::Checkpoint => {}
        }
        self.states.retain(|other| other.kind != state.kind);
        self.states.push(state);
    }
}

/// The directory of a sealed segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    /// Where the frames end.
    pub(crate) data_end: u64,
    pub(crate) min_lsn: Lsn,
    pub(crate) max_lsn: Lsn,
    /// Ordered by group and index.
    pub(crate) runs: Vec<RunSummary>,
    /// Ordered by group.
    pub(crate) states: Vec<StateMeta>,
    pub(crate) damage: Vec<DamageMeta>,
}

impl Directory {
    /// All groups that have anything in the segment, in order.
    pub(crate) fn groups(&self) -> Vec<GroupId> {
        let of_runs = self.runs.iter().map(|run| run.group);
        let mut groups: Vec<_> = of_runs.chain(self.states.iter().map(|state| state.group)).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn encode(&self, segment: SegmentId, position: u64, out: &mut Vec<u8>) {
        let from = out.len();
        self.runs.iter().for_each(|run| run.encode(out));
        self.states.iter().for_each(|state| state.encode(out));
        self.damage.iter().for_each(|damage| damage.encode(out));
        let directory_crc = crc32fast::hash(&out[from..]);
        let trailer = out.len();
        out.extend(TRAILER_MAGIC);
        for number in [segment.0, self.data_end, position, self.min_lsn.0, self.max_lsn.0] {
            out.extend(number.to_le_bytes());
        }
        for count in [self.runs.len(), self.states.len(), self.damage.len()] {
            out.extend(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.extend(directory_crc.to_le_bytes());
        // A checksum of the trailer closes it and the file.
        out.extend([0; 4]);
        let trailer_crc = crc32fast::hash(&out[trailer..]);
        out.extend(trailer_crc.to_le_bytes());
    }

    /// Reads the directory of a segment file of that size. `None` if the file does not end with a valid footer.
    pub(crate) fn load(file: &dyn DiskFile, segment: SegmentId, len: u64) -> io::Result<Option<Self>> {
        let Some(trailer_position) = len.checked_sub(TRAILER_BYTES as u64) else { return Ok(None) };
        let mut trailer = [0; TRAILER_BYTES];
        if file.read_at(&mut trailer, trailer_position)? != TRAILER_BYTES {
            return Ok(None);
        }
        let checksum_at = TRAILER_BYTES - 4;
        let valid = &trailer[..8] == TRAILER_MAGIC
            && read_u64(&trailer, 8) == segment.0
            && read_u32(&trailer, checksum_at) == crc32fast::hash(&trailer[..checksum_at]);
        if !valid {
            return Ok(None);
        }
        let position = read_u64(&trailer, 24);
        let size = trailer_position.checked_sub(position).filter(|size| *size <= MAX_DIRECTORY_BYTES);
        let Some(size) = size.and_then(|size| usize::try_from(size).ok()) else { return Ok(None) };
        let mut bytes = vec![0; size];
        if file.read_at(&mut bytes, position)? != size
            || crc32fast::hash(&bytes) != read_u32(&trailer, checksum_at - 8)
        {
            return Ok(None);
        }
        Ok(Self::decode(&trailer, &bytes))
    }

    fn decode(trailer: &[u8; TRAILER_BYTES], bytes: &[u8]) -> Option<Self> {
        let count = |at| read_u32(trailer, at) as usize;
        let (runs, states, damage) = (count(48), count(52), count(56));
        let (run_bytes, rest) = bytes.split_at_checked(runs.checked_mul(RUN_BYTES)?)?;
        let (state_bytes, damage_bytes) = rest.split_at_checked(states.checked_mul(STATE_BYTES)?)?;
        if damage_bytes.len() != damage.checked_mul(DAMAGE_BYTES)? {
            return None;
        }
        Some(Self {
            data_end: read_u64(trailer, 16),
            min_lsn: Lsn(read_u64(trailer, 32)),
            max_lsn: Lsn(read_u64(trailer, 40)),
            runs: run_bytes.chunks_exact(RUN_BYTES).map(RunSummary::decode).collect::<Option<_>>()?,
            states: state_bytes.chunks_exact(STATE_BYTES).map(StateMeta::decode).collect::<Option<_>>()?,
            damage: damage_bytes.chunks_exact(DAMAGE_BYTES).map(DamageMeta::decode).collect::<Option<_>>()?,
        })
    }
}

/// Reads the dense entries of a stored run. `None` if they do not match their checksum.
pub(crate) fn load_entries(
    file: &dyn DiskFile,
    position: u64,
    count: u64,
    checksum: u32,
) -> io::Result<Option<Vec<EntryMeta>>> {
    let Some(size) = usize::try_from(count).ok().and_then(|count| count.checked_mul(ENTRY_BYTES)) else {
        return Ok(None);
    };
    if file.len_bytes()?.saturating_sub(position) < size as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; size];
    if file.read_at(&mut bytes, position)? != size || crc32fast::hash(&bytes) != checksum {
        return Ok(None);
    }
    Ok(Some(bytes.chunks_exact(ENTRY_BYTES).map(EntryMeta::decode).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, FaultyDisk};
    use crate::frame::FrameHeader;
    use crate::payload::Payload;
    use crate::record::Record;
    use proptest::prelude::*;

    fn header(group: u64, kind: RecordKind, index: u64, term: u64, prev_term: u64, lsn: u64) -> FrameHeader {
        let record = Record {
            group: GroupId(group),
            kind,
            index: Index(index),
            term: Term(term),
            prev_term: Term(prev_term),
            base_offset: Offset(index * 10),
            offset_count: 10,
            max_timestamp_ms: index.cast_signed(),
            payload: Payload::empty(),
        };
        FrameHeader::of(&record, Lsn(lsn), Lsn(0), Lsn(if kind == RecordKind::Start { 1 } else { 0 }))
    }

    fn entry(group: u64, index: u64, term: u64, prev_term: u64, lsn: u64) -> FrameHeader {
        header(group, RecordKind::Entry { tag: 0 }, index, term, prev_term, lsn)
    }

    #[test]
    fn a_suffix_is_replaced_and_the_run_goes_on() {
        let mut index = SegmentIndex::default();
        for (at, prev) in [(1, 0), (2, 1), (3, 1), (4, 1)] {
            index.add(&entry(1, at, 1, prev, at), at * 96);
        }
        index.add(&entry(1, 3, 2, 1, 9), 900);
        let runs = &index.groups[&GroupId(1)].runs;
        assert_eq!(runs.len(), 1);
        assert_eq!((runs[0].first, runs[0].last()), (Index(1), Index(3)));
        assert_eq!(runs[0].get(Index(3)).unwrap().position, 900);
        assert_eq!(runs[0].bytes, 3 * 96);
        assert_eq!((index.min_lsn, index.max_lsn), (Lsn(1), Lsn(9)));
    }

    #[test]
    fn a_gap_or_another_previous_term_begins_a_new_run() {
        let mut index = SegmentIndex::default();
        index.add(&entry(1, 1, 1, 0, 1), 96);
        index.add(&entry(1, 3, 1, 1, 2), 192);
        index.add(&entry(1, 4, 2, 2, 3), 288);
        assert_eq!(index.groups[&GroupId(1)].runs.len(), 3);
        assert_eq!(index.run_of(GroupId(1), Index(3)).unwrap().first, Index(3));
        assert!(index.run_of(GroupId(1), Index(2)).is_none());
    }

    #[test]
    fn a_start_trims_and_a_delete_clears() {
        let mut index = SegmentIndex::default();
        for at in 1..=5 {
            index.add(&entry(1, at, 1, u64::from(at > 1), at), at * 96);
        }
        index.add(&header(1, RecordKind::Start, 3, 1, 0, 6), 600);
        let contents = &index.groups[&GroupId(1)];
        assert_eq!((contents.runs[0].first, contents.runs[0].prev_term), (Index(4), Term(1)));
        index.add(&header(1, RecordKind::Delete, 0, 0, 0, 7), 700);
        let contents = &index.groups[&GroupId(1)];
        assert!(contents.runs.is_empty());
        assert_eq!(contents.states.len(), 1);
    }

    fn arbitrary_index() -> impl Strategy<Value = SegmentIndex> {
        let frame = (1..5_u64, 0..6_u8, 1..8_u64, 1..3_u64, 0..3_u64);
        prop::collection::vec(frame, 0..60).prop_map(|frames| {
            let mut index = SegmentIndex::default();
            for (at, (group, kind, number, term, prev_term)) in frames.into_iter().enumerate() {
                let kind = match kind {
                    0 => RecordKind::Start,
                    1 => RecordKind::Checkpoint,
                    _ => RecordKind::Entry { tag: 3 },
                };
                index.add(&header(group, kind, number, term, prev_term, at as u64 + 1), 64 + at as u64 * 96);
            }
            index.damage = vec![
                DamageMeta { from: 1, to: 2, of: DamageOf::Unknown },
                DamageMeta { from: 3, to: 4, of: DamageOf::Entry(GroupId(5), Index(6)) },
                DamageMeta { from: 7, to: 8, of: DamageOf::State(GroupId(9)) },
            ];
            index
        })
    }

    proptest! {
        #[test]
        fn a_stored_footer_says_what_was_in_memory(index in arbitrary_index()) {
            let segment = SegmentId(11);
            let footer = index.encode(segment, 8192);
            let directory = &footer.directory;
            let file = FaultyDisk::new(1).create("x", 0).unwrap();
            footer.write(&*file).unwrap();
            let len = file.len_bytes().unwrap();
            let loaded = Directory::load(&*file, segment, len).unwrap();
            prop_assert_eq!(loaded.as_ref(), Some(directory));
            prop_assert_eq!(Directory::load(&*file, SegmentId(12), len).unwrap(), None);
            for summary in &directory.runs {
                let entries =
                    load_entries(&*file, summary.entries_position, summary.count, summary.entries_crc).unwrap();
                let run = index.run_of(summary.group, summary.first).unwrap();
                prop_assert_eq!(entries.as_ref(), Some(&run.entries));
                prop_assert_eq!(summary.last(), run.last());
            }
        }

        #[test]
        fn a_flipped_bit_is_noticed(index in arbitrary_index(), at: prop::sample::Index) {
            let segment = SegmentId(11);
            let Footer { mut bytes, directory, .. } = index.encode(segment, 64);
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let file = FaultyDisk::new(1).create("x", 0).unwrap();
            file.write_at(&bytes, 64).unwrap();
            if let Some(loaded) = Directory::load(&*file, segment, file.len_bytes().unwrap()).unwrap() {
                prop_assert_eq!(&loaded, &directory);
                let damaged = loaded.runs.iter().filter(|run| {
                    load_entries(&*file, run.entries_position, run.count, run.entries_crc).unwrap().is_none()
                });
                prop_assert_eq!(damaged.count(), 1);
            }
        }

        #[test]
        fn garbage_is_no_footer(bytes: Vec<u8>) {
            let file = FaultyDisk::new(1).create("x", 0).unwrap();
            file.write_at(&bytes, 0).unwrap();
            prop_assert_eq!(Directory::load(&*file, SegmentId(1), bytes.len() as u64).unwrap(), None);
        }
    }
}
