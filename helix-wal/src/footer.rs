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
#[path = "footer_tests.rs"]
mod tests;
