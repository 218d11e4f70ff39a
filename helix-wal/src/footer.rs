//! The index of one segment as it is stored behind its frames.
//!
//! Layout, right behind the last frame: for each run its dense entries; then the directory (runs, states, damages); then
//! the trailer, which ends the file. A restart reads trailer and directory only; entries are loaded when asked for.

use std::io;

use crate::contents::SegmentIndex;
use crate::disk::DiskFile;
use crate::frame::{FrameHeader, frame_bytes, read_u32, read_u64};
use crate::types::{GroupId, Index, Lsn, Offset, POSITION_END, QUANTITY_END, SegmentId, Term};

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

    /// `None` if the numbers cannot be of an entry.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let entry = Self {
            position: read_u64(bytes, 0),
            term: Term(read_u64(bytes, 8)),
            base_offset: Offset(read_u64(bytes, 16)),
            max_timestamp_ms: read_u64(bytes, 24).cast_signed(),
            lsn: Lsn(read_u64(bytes, 32)),
            offset_count: read_u32(bytes, 40),
            payload_len: read_u32(bytes, 44),
        };
        (entry.position < POSITION_END && are_quantities(&[entry.term.0, entry.base_offset.0, entry.lsn.0]))
            .then_some(entry)
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
        let quantities = [
            run.first.0,
            run.prev_term.0,
            run.last_term.0,
            run.first_lsn.0,
            run.last_lsn.0,
            run.base_offset.0,
            run.next_offset.0,
        ];
        let credible = are_quantities(&quantities)
            && run.count > 0
            && run.count < u64::from(u32::MAX)
            && run.bytes < POSITION_END
            && run.entries_position < POSITION_END;
        credible.then_some(run)
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
        let state = Self {
            group: GroupId(read_u64(bytes, 0)),
            kind,
            payload_len: read_u32(bytes, 12),
            index: Index(read_u64(bytes, 16)),
            term: Term(read_u64(bytes, 24)),
            base_offset: Offset(read_u64(bytes, 32)),
            lsn: Lsn(read_u64(bytes, 40)),
            floor_lsn: Lsn(read_u64(bytes, 48)),
            position: read_u64(bytes, 56),
        };
        let quantities = [state.index.0, state.term.0, state.base_offset.0, state.lsn.0, state.floor_lsn.0];
        (state.position < POSITION_END && are_quantities(&quantities)).then_some(state)
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
        let (from, to) = (read_u64(bytes, 0), read_u64(bytes, 8));
        (from <= to && to < POSITION_END).then_some(Self { from, to, of })
    }
}

impl SegmentIndex {
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
        let (data_end, min_lsn, max_lsn) =
            (read_u64(trailer, 16), read_u64(trailer, 32), read_u64(trailer, 40));
        if data_end >= POSITION_END || !are_quantities(&[min_lsn, max_lsn]) {
            return None;
        }
        Some(Self {
            data_end,
            min_lsn: Lsn(min_lsn),
            max_lsn: Lsn(max_lsn),
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
    Ok(bytes.chunks_exact(ENTRY_BYTES).map(EntryMeta::decode).collect())
}

fn are_quantities(numbers: &[u64]) -> bool {
    numbers.iter().all(|number| *number < QUANTITY_END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, FaultyDisk};
    use crate::frame::FrameHeader;
    use crate::payload::Payload;
    use crate::record::{Record, RecordKind};
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

    /// What is read back if that was written.
    fn read_back<T>(encode: impl FnOnce(&mut Vec<u8>), decode: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        decode(&bytes)
    }

    const HIGHEST: u64 = QUANTITY_END - 1;

    #[test]
    fn entries_with_numbers_that_cannot_be_are_refused() {
        let read_back = |entry: EntryMeta| read_back(|out| entry.encode(out), EntryMeta::decode);
        let highest = EntryMeta {
            position: POSITION_END - 1,
            term: Term(HIGHEST),
            base_offset: Offset(HIGHEST),
            max_timestamp_ms: -1,
            lsn: Lsn(HIGHEST),
            offset_count: u32::MAX,
            payload_len: u32::MAX,
        };
        assert_eq!(read_back(highest), Some(highest));
        for beyond in [
            EntryMeta { position: POSITION_END, ..highest },
            EntryMeta { term: Term(QUANTITY_END), ..highest },
            EntryMeta { base_offset: Offset(QUANTITY_END), ..highest },
            EntryMeta { lsn: Lsn(QUANTITY_END), ..highest },
        ] {
            assert_eq!(read_back(beyond), None, "{beyond:?}");
        }
    }

    #[test]
    fn runs_with_numbers_that_cannot_be_are_refused() {
        let read_back = |run: RunSummary| read_back(|out| run.encode(out), RunSummary::decode);
        let highest = RunSummary {
            group: GroupId(u64::MAX),
            first: Index(HIGHEST),
            count: u64::from(u32::MAX) - 1,
            prev_term: Term(HIGHEST),
            last_term: Term(HIGHEST),
            first_lsn: Lsn(HIGHEST),
            last_lsn: Lsn(HIGHEST),
            base_offset: Offset(HIGHEST),
            next_offset: Offset(HIGHEST),
            max_timestamp_ms: i64::MIN,
            bytes: POSITION_END - 1,
            entries_position: POSITION_END - 1,
            entries_crc: u32::MAX,
        };
        assert_eq!(read_back(highest), Some(highest));
        for beyond in [
            RunSummary { first: Index(QUANTITY_END), ..highest },
            RunSummary { count: 0, ..highest },
            RunSummary { count: u64::from(u32::MAX), ..highest },
            RunSummary { prev_term: Term(QUANTITY_END), ..highest },
            RunSummary { next_offset: Offset(QUANTITY_END), ..highest },
            RunSummary { bytes: POSITION_END, ..highest },
            RunSummary { entries_position: POSITION_END, ..highest },
        ] {
            assert_eq!(read_back(beyond), None, "{beyond:?}");
        }
    }

    #[test]
    fn states_with_numbers_that_cannot_be_are_refused() {
        let read_back = |state: StateMeta| read_back(|out| state.encode(out), StateMeta::decode);
        let highest = StateMeta {
            group: GroupId(u64::MAX),
            kind: StateKind::Delete,
            index: Index(HIGHEST),
            term: Term(HIGHEST),
            base_offset: Offset(HIGHEST),
            lsn: Lsn(HIGHEST),
            floor_lsn: Lsn(HIGHEST),
            position: POSITION_END - 1,
            payload_len: 100,
        };
        for kind in [StateKind::Start, StateKind::Checkpoint, StateKind::Delete] {
            let state = StateMeta { kind, ..highest };
            assert_eq!(read_back(state), Some(state));
        }
        assert_eq!(highest.frame_bytes(), 96 + 104);
        for beyond in [
            StateMeta { position: POSITION_END, ..highest },
            StateMeta { index: Index(QUANTITY_END), ..highest },
            StateMeta { floor_lsn: Lsn(QUANTITY_END), ..highest },
        ] {
            assert_eq!(read_back(beyond), None, "{beyond:?}");
        }
    }

    #[test]
    fn damage_ends_behind_its_beginning_and_within_a_file() {
        let read_back = |damage: DamageMeta| read_back(|out| damage.encode(out), DamageMeta::decode);
        for of in [DamageOf::Unknown, DamageOf::Entry(GroupId(5), Index(6)), DamageOf::State(GroupId(9))] {
            let damage = DamageMeta { from: POSITION_END - 1, to: POSITION_END - 1, of };
            assert_eq!(read_back(damage), Some(damage));
            assert_eq!(read_back(DamageMeta { to: POSITION_END - 2, ..damage }), None);
            assert_eq!(read_back(DamageMeta { to: POSITION_END, ..damage }), None);
        }
    }

    #[test]
    fn the_newest_state_of_each_kind_is_kept() {
        let mut index = SegmentIndex::default();
        for (kind, lsn) in [(RecordKind::Start, 1), (RecordKind::Checkpoint, 2), (RecordKind::Start, 3)] {
            index.add(&header(1, kind, 0, 0, 0, lsn), 64 + lsn * 96);
        }
        let states = &index.encode(SegmentId(1), 4096).directory.states;
        let kinds: Vec<_> = states.iter().map(|state| (state.kind, state.lsn.0)).collect();
        assert_eq!(kinds, [(StateKind::Checkpoint, 2), (StateKind::Start, 3)]);
    }

    #[test]
    fn a_directory_with_numbers_that_cannot_be_is_none() {
        let load = |directory: &Directory| {
            let mut bytes = Vec::new();
            directory.encode(SegmentId(1), 0, &mut bytes);
            let file = FaultyDisk::new(1).create("x", 0).unwrap();
            file.write_at(&bytes, 0).unwrap();
            Directory::load(&*file, SegmentId(1), bytes.len() as u64).unwrap()
        };
        let lsn = Lsn(HIGHEST);
        let highest =
            Directory { data_end: POSITION_END - 1, min_lsn: lsn, max_lsn: lsn, ..Directory::default() };
        assert_eq!(load(&highest).as_ref(), Some(&highest));
        assert_eq!(load(&Directory { data_end: POSITION_END, ..highest.clone() }), None);
        assert_eq!(load(&Directory { max_lsn: Lsn(QUANTITY_END), ..highest }), None);
    }

    #[test]
    fn entries_at_the_end_of_a_file_are_read_and_beyond_it_are_none() {
        let mut index = SegmentIndex::default();
        index.add(&header(1, RecordKind::Entry { tag: 0 }, 1, 1, 0, 1), 64);
        let footer = index.encode(SegmentId(1), 8192);
        let run = footer.directory.runs[0];
        let file = FaultyDisk::new(1).create("x", 0).unwrap();
        file.write_at(&footer.bytes[..ENTRY_BYTES], 8192).unwrap();
        let load = |count| load_entries(&*file, 8192, count, run.entries_crc).unwrap();
        assert_eq!(load(1).map(|entries| entries.len()), Some(1));
        assert_eq!(load(2), None);
    }
}
