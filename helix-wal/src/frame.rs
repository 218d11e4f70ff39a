//! One record on disk: a header of fixed size, the payload, padding to eight bytes.

use crate::record::{Record, RecordKind};
use crate::types::{GroupId, Index, Lsn, Offset, QUANTITY_END, SegmentId, Term};

/// Size of the header.
pub(crate) const FRAME_HEADER_BYTES: usize = 96;
/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGNMENT: u64 = 8;
/// The largest payload of one record.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// Stands in each header, so that a search for the next frame can skip most places without computing a checksum.
const FRAME_MARK: u8 = 0xF5;
const FLAG_REWRITTEN: u8 = 1;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    Record(RecordKind),
    /// Belongs to no group; only carries `synced_lsn`.
    Mark,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// A copy made to free the segment it was in first.
    pub(crate) rewritten: bool,
    pub(crate) group: GroupId,
    pub(crate) index: Index,
    pub(crate) term: Term,
    pub(crate) prev_term: Term,
    pub(crate) base_offset: Offset,
    pub(crate) offset_count: u32,
    pub(crate) max_timestamp_ms: i64,
    pub(crate) lsn: Lsn,
    /// Every frame with an LSN up to this one was durable when this frame was written.
    pub(crate) synced_lsn: Lsn,
    /// Of a `Start`: every record of the group with an LSN below is dead.
    pub(crate) floor_lsn: Lsn,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
}

/// The part of a frame's checksum that ties it to its segment.
#[derive(Clone)]
pub(crate) struct FrameSeed(crc32fast::Hasher);

impl FrameSeed {
    pub(crate) fn new(segment: SegmentId) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&segment.0.to_le_bytes());
        Self(hasher)
    }

    fn checksum(&self, position: u64, header: &[u8; FRAME_HEADER_BYTES]) -> u32 {
        let mut hasher = self.0.clone();
        hasher.update(&position.to_le_bytes());
        hasher.update(&header[4..]);
        hasher.finalize()
    }
}

impl FrameHeader {
    /// The header of a record that is written for the first time. Payloads are at most [`MAX_PAYLOAD_BYTES`].
    pub(crate) fn of(record: &Record, lsn: Lsn, synced_lsn: Lsn, floor_lsn: Lsn) -> Self {
        Self {
            kind: FrameKind::Record(record.kind),
            rewritten: false,
            group: record.group,
            index: record.index,
            term: record.term,
            prev_term: record.prev_term,
            base_offset: record.base_offset,
            offset_count: record.offset_count,
            max_timestamp_ms: record.max_timestamp_ms,
            lsn,
            synced_lsn,
            floor_lsn,
            payload_len: u32::try_from(record.payload.len()).unwrap_or(u32::MAX),
            payload_crc: record.payload.crc32(),
        }
    }

    /// A frame that only says how far the log is synced.
    pub(crate) fn mark(lsn: Lsn, synced_lsn: Lsn) -> Self {
        Self {
            kind: FrameKind::Mark,
            rewritten: false,
            group: GroupId(0),
            index: Index(0),
            term: Term(0),
            prev_term: Term(0),
            base_offset: Offset(0),
            offset_count: 0,
            max_timestamp_ms: 0,
            lsn,
            synced_lsn,
            floor_lsn: Lsn(0),
            payload_len: 0,
            payload_crc: 0,
        }
    }

    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(self.payload_len)
    }

    pub(crate) fn encode(&self, seed: &FrameSeed, position: u64) -> [u8; FRAME_HEADER_BYTES] {
        let (kind, tag) = match self.kind {
            FrameKind::Record(RecordKind::Entry { tag }) => (1, tag),
            FrameKind::Record(RecordKind::Start) => (2, 0),
            FrameKind::Record(RecordKind::Checkpoint) => (3, 0),
            FrameKind::Record(RecordKind::Delete) => (4, 0),
            FrameKind::Mark => (5, 0),
        };
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[12] = kind;
        bytes[13] = tag;
        bytes[14] = if self.rewritten { FLAG_REWRITTEN } else { 0 };
        bytes[15] = FRAME_MARK;
        let numbers = [
            self.group.0,
            self.index.0,
            self.term.0,
            self.prev_term.0,
            self.base_offset.0,
            self.max_timestamp_ms.cast_unsigned(),
            self.lsn.0,
            self.synced_lsn.0,
            self.floor_lsn.0,
        ];
        for (place, number) in bytes[16..88].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[88..92].copy_from_slice(&self.offset_count.to_le_bytes());
        let checksum = seed.checksum(position, &bytes);
        bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at `position`, or `None` if what is there is none.
    pub(crate) fn decode(bytes: &[u8], seed: &FrameSeed, position: u64) -> Option<Self> {
        let bytes: &[u8; FRAME_HEADER_BYTES] = bytes.first_chunk()?;
        if bytes[15] != FRAME_MARK || read_u32(bytes, 0) != seed.checksum(position, bytes) {
            return None;
        }
        let kind = match bytes[12] {
            1 => FrameKind::Record(RecordKind::Entry { tag: bytes[13] }),
            2 => FrameKind::Record(RecordKind::Start),
            3 => FrameKind::Record(RecordKind::Checkpoint),
            4 => FrameKind::Record(RecordKind::Delete),
            5 => FrameKind::Mark,
            _ => return None,
        };
        let header = Self {
            kind,
            rewritten: bytes[14] & FLAG_REWRITTEN != 0,
            group: GroupId(read_u64(bytes, 16)),
            index: Index(read_u64(bytes, 24)),
            term: Term(read_u64(bytes, 32)),
            prev_term: Term(read_u64(bytes, 40)),
            base_offset: Offset(read_u64(bytes, 48)),
            max_timestamp_ms: read_u64(bytes, 56).cast_signed(),
            lsn: Lsn(read_u64(bytes, 64)),
            synced_lsn: Lsn(read_u64(bytes, 72)),
            floor_lsn: Lsn(read_u64(bytes, 80)),
            offset_count: read_u32(bytes, 88),
            payload_len: read_u32(bytes, 4),
            payload_crc: read_u32(bytes, 8),
        };
        header.is_credible().then_some(header)
    }

    fn is_credible(&self) -> bool {
        let Self { index, term, prev_term, base_offset, lsn, synced_lsn, floor_lsn, .. } = self;
        let numbers = [index.0, term.0, prev_term.0, base_offset.0, lsn.0, synced_lsn.0, floor_lsn.0];
        numbers.iter().all(|number| *number < QUANTITY_END)
    }
}

/// Whether a header could begin here, as far as can be seen without computing a checksum.
pub(crate) fn looks_like_header(bytes: &[u8]) -> bool {
    bytes.len() >= FRAME_HEADER_BYTES && bytes[15] == FRAME_MARK && (1..=5).contains(&bytes[12])
}

/// Bytes of a frame with such a payload: header, payload, padding.
pub(crate) fn frame_bytes(payload_len: u32) -> u64 {
    (FRAME_HEADER_BYTES as u64 + u64::from(payload_len)).next_multiple_of(FRAME_ALIGNMENT)
}

/// A little-endian number; callers know that it is there.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// A little-endian number; callers know that it is there.
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    prop_compose! {
        fn headers()(
            kind in 0..5_u8, tag: u8, rewritten: bool, group: u64, numbers in prop::array::uniform7(0..QUANTITY_END), max_timestamp_ms: i64,
            offset_count: u32, payload_len: u32, payload_crc: u32,
        ) -> FrameHeader {
            let kind = match kind {
                0 => FrameKind::Record(RecordKind::Entry { tag }),
                1 => FrameKind::Record(RecordKind::Start),
                2 => FrameKind::Record(RecordKind::Checkpoint),
                3 => FrameKind::Record(RecordKind::Delete),
                _ => FrameKind::Mark,
            };
            let [index, term, prev_term, base_offset, lsn, synced_lsn, floor_lsn] = numbers;
            FrameHeader {
                kind, rewritten, group: GroupId(group), index: Index(index), term: Term(term),
                prev_term: Term(prev_term), base_offset: Offset(base_offset), offset_count, max_timestamp_ms,
                lsn: Lsn(lsn), synced_lsn: Lsn(synced_lsn), floor_lsn: Lsn(floor_lsn), payload_len, payload_crc,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(header in headers(), segment: u64, position: u64) {
            let seed = FrameSeed::new(SegmentId(segment));
            let bytes = header.encode(&seed, position);
            prop_assert!(looks_like_header(&bytes));
            prop_assert_eq!(FrameHeader::decode(&bytes, &seed, position), Some(header));
        }

        #[test]
        fn a_flipped_bit_is_noticed(header in headers(), bit in 0..FRAME_HEADER_BYTES * 8) {
            let seed = FrameSeed::new(SegmentId(1));
            let mut bytes = header.encode(&seed, 64);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(FrameHeader::decode(&bytes, &seed, 64), None);
        }

        #[test]
        fn it_is_valid_in_its_own_place_only(header in headers(), segment: u64, position: u64, other: u64) {
            let bytes = header.encode(&FrameSeed::new(SegmentId(segment)), position);
            if other != segment {
                let seed = FrameSeed::new(SegmentId(other));
                prop_assert_eq!(FrameHeader::decode(&bytes, &seed, position), None);
            }
            if other != position {
                let seed = FrameSeed::new(SegmentId(segment));
                prop_assert_eq!(FrameHeader::decode(&bytes, &seed, other), None);
            }
        }

        #[test]
        fn garbage_is_no_header(bytes: Vec<u8>, position: u64) {
            prop_assert_eq!(FrameHeader::decode(&bytes, &FrameSeed::new(SegmentId(9)), position), None);
        }
    }

    #[test]
    fn frames_are_padded_to_eight_bytes() {
        assert_eq!(frame_bytes(0), 96);
        assert_eq!(frame_bytes(1), 104);
        assert_eq!(frame_bytes(8), 104);
    }

    #[test]
    fn numbers_that_cannot_be_are_refused_whatever_the_checksum_says() {
        let seed = FrameSeed::new(SegmentId(1));
        let decoded = |header: FrameHeader| FrameHeader::decode(&header.encode(&seed, 64), &seed, 64);
        let highest = FrameHeader { index: Index(QUANTITY_END - 1), ..FrameHeader::mark(Lsn(1), Lsn(1)) };
        assert_eq!(decoded(highest), Some(highest));
        assert_eq!(decoded(FrameHeader { index: Index(QUANTITY_END), ..highest }), None);
        assert_eq!(decoded(FrameHeader { floor_lsn: Lsn(QUANTITY_END), ..highest }), None);
    }

    #[test]
    fn most_places_do_not_look_like_a_header() {
        let header = FrameHeader::mark(Lsn(1), Lsn(1)).encode(&FrameSeed::new(SegmentId(1)), 64);
        let changed = |at: usize, byte: u8| {
            let mut bytes = header;
            bytes[at] = byte;
            looks_like_header(&bytes)
        };
        assert!(looks_like_header(&header) && changed(12, 1));
        assert!(!changed(12, 0) && !changed(12, 6) && !changed(15, 0) && !changed(15, 0xF4));
        assert!(!looks_like_header(&header[..FRAME_HEADER_BYTES - 1]));
    }
}
