//! Segment files: their names, their headers, an open one.

use std::fmt;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::frame::{FrameSeed, read_u32, read_u64};
use crate::residency::Residence;
use crate::types::{Lsn, POSITION_END, QUANTITY_END, SegmentId};

/// Size of the header; frames begin right after it.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 64;
/// What this build writes and reads.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The file that holds the lock.
pub(crate) const LOCK_NAME: &str = "lock";

const MAGIC: &[u8; 8] = b"HELIXWAL";
const FLAG_REWRITTEN: u32 = 1;
const FLAG_REPAIR: u32 = 2;

/// What a file in the directory is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileName {
    /// A segment, written or prepared.
    Segment(SegmentId),
    /// A retired segment kept for reuse.
    Free(SegmentId),
    /// A segment of survivors that is not complete.
    Temporary(SegmentId),
}

impl FileName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (number, kind) = name.split_once('.')?;
        if number.len() != 16 || number.bytes().any(|digit| digit.is_ascii_uppercase()) {
            return None;
        }
        let number = u64::from_str_radix(number, 16).ok().filter(|number| *number < QUANTITY_END)?;
        let segment = SegmentId(number);
        match kind {
            "wal" => Some(Self::Segment(segment)),
            "free" => Some(Self::Free(segment)),
            "tmp" => Some(Self::Temporary(segment)),
            _ => None,
        }
    }

    pub(crate) fn segment(self) -> SegmentId {
        match self {
            Self::Segment(segment) | Self::Free(segment) | Self::Temporary(segment) => segment,
        }
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Segment(_) => "wal",
            Self::Free(_) => "free",
            Self::Temporary(_) => "tmp",
        };
        write!(formatter, "{:016x}.{kind}", self.segment().0)
    }
}

/// The first bytes of a segment, written together with its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) segment: SegmentId,
    /// Holds copies of survivors, all durable before the file got its name.
    pub(crate) rewritten: bool,
    /// Rewritten, and what it holds stands in for damaged records: it supersedes nothing.
    pub(crate) repair: bool,
    /// The LSN of the first frame.
    pub(crate) first_lsn: Lsn,
    /// The segment that was written to before, zero if there is none without a footer.
    pub(crate) previous: SegmentId,
    /// Where the frames of that one end.
    pub(crate) previous_end: u64,
}

/// What stands at the beginning of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFound {
    Valid(SegmentHeader),
    /// All zeros: prepared, never written to.
    Unused,
    /// Written by another version.
    OtherVersion(u32),
    Invalid,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[12..16].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let rewritten = if self.rewritten { FLAG_REWRITTEN } else { 0 };
        let repair = if self.repair { FLAG_REPAIR } else { 0 };
        bytes[16..20].copy_from_slice(&(rewritten | repair).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.segment.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous.0.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.previous_end.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], segment: SegmentId) -> HeaderFound {
        let Some(bytes) = bytes.first_chunk::<{ SEGMENT_HEADER_BYTES as usize }>() else {
            return HeaderFound::Invalid;
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return HeaderFound::Unused;
        }
        if &bytes[..8] != MAGIC || read_u32(bytes, 8) != crc32fast::hash(&bytes[12..]) {
            return HeaderFound::Invalid;
        }
        let header = Self {
            segment: SegmentId(read_u64(bytes, 24)),
            rewritten: read_u32(bytes, 16) & FLAG_REWRITTEN != 0,
            repair: read_u32(bytes, 16) & FLAG_REPAIR != 0,
            first_lsn: Lsn(read_u64(bytes, 32)),
            previous: SegmentId(read_u64(bytes, 40)),
            previous_end: read_u64(bytes, 48),
        };
        match read_u32(bytes, 12) {
            // A recycled file still has the header of its last life.
            _ if header.segment != segment => HeaderFound::Invalid,
            FORMAT_VERSION if header.is_credible() => HeaderFound::Valid(header),
            FORMAT_VERSION => HeaderFound::Invalid,
            other => HeaderFound::OtherVersion(other),
        }
    }

    fn is_credible(&self) -> bool {
        self.first_lsn.0 < QUANTITY_END && self.previous_end < POSITION_END
    }
}

/// An open segment file.
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) seed: FrameSeed,
    pub(crate) residence: Residence,
}

impl Segment {
    pub(crate) fn new(id: SegmentId, file: Arc<dyn DiskFile>) -> Arc<Self> {
        Arc::new(Self { id, file, seed: FrameSeed::new(id), residence: Residence::default() })
    }

    pub(crate) fn name(&self) -> String {
        FileName::Segment(self.id).to_string()
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Segment({})", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn headers_round_trip(
            segment: u64, rewritten: bool, repair: bool, first_lsn in 0..QUANTITY_END, previous: u64,
            previous_end in 0..POSITION_END, bit in 0..512_usize,
        ) {
            let header = SegmentHeader {
                segment: SegmentId(segment), rewritten, repair, first_lsn: Lsn(first_lsn),
                previous: SegmentId(previous), previous_end,
            };
            let mut bytes = header.encode();
            prop_assert_eq!(SegmentHeader::decode(&bytes, SegmentId(segment)), HeaderFound::Valid(header));
            prop_assert_eq!(SegmentHeader::decode(&bytes, SegmentId(!segment)), HeaderFound::Invalid);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(SegmentHeader::decode(&bytes, SegmentId(segment)), HeaderFound::Invalid);
        }

        #[test]
        fn names_round_trip(number in 0..QUANTITY_END) {
            let segment = SegmentId(number);
            for name in [FileName::Segment(segment), FileName::Free(segment), FileName::Temporary(segment)] {
                prop_assert_eq!(FileName::parse(&name.to_string()), Some(name));
            }
        }
    }

    #[test]
    fn strange_names_are_nobodys() {
        for name in [
            "lock",
            "1.wal",
            "00000000000000AA.wal",
            "000000000000000a.log",
            "000000000000000a",
            "ffffffffffffffff.wal",
        ] {
            assert_eq!(FileName::parse(name), None);
        }
    }

    #[test]
    fn zeros_are_an_unused_segment() {
        assert_eq!(SegmentHeader::decode(&[0; 64], SegmentId(1)), HeaderFound::Unused);
        assert_eq!(SegmentHeader::decode(&[0; 63], SegmentId(1)), HeaderFound::Invalid);
    }

    const HEADER: SegmentHeader = SegmentHeader {
        segment: SegmentId(3),
        rewritten: false,
        repair: false,
        first_lsn: Lsn(QUANTITY_END - 1),
        previous: SegmentId(2),
        previous_end: POSITION_END - 1,
    };

    /// The header with a part changed and the checksum made anew.
    fn decoded(header: SegmentHeader, change: impl FnOnce(&mut [u8])) -> HeaderFound {
        let mut bytes = header.encode();
        change(&mut bytes);
        let checksum = crc32fast::hash(&bytes[12..]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        SegmentHeader::decode(&bytes, SegmentId(3))
    }

    #[test]
    fn what_a_header_says_is_believed_if_it_can_be() {
        for (rewritten, repair) in [(false, false), (true, false), (false, true), (true, true)] {
            let header = SegmentHeader { rewritten, repair, ..HEADER };
            assert_eq!(decoded(header, |_| {}), HeaderFound::Valid(header));
        }
        let beyond = SegmentHeader { first_lsn: Lsn(QUANTITY_END), ..HEADER };
        assert_eq!(decoded(beyond, |_| {}), HeaderFound::Invalid);
        let beyond = SegmentHeader { previous_end: POSITION_END, ..HEADER };
        assert_eq!(decoded(beyond, |_| {}), HeaderFound::Invalid);
    }

    #[test]
    fn the_version_is_told_only_of_what_is_a_header_of_this_segment() {
        assert_eq!(decoded(HEADER, |bytes| bytes[12] = 9), HeaderFound::OtherVersion(9));
        assert_eq!(decoded(HEADER, |bytes| bytes[0] = b'X'), HeaderFound::Invalid);
        let other = SegmentHeader { segment: SegmentId(4), ..HEADER };
        assert_eq!(decoded(other, |bytes| bytes[12] = 9), HeaderFound::Invalid);
    }

    #[test]
    fn a_number_that_no_segment_can_have_names_none() {
        assert_eq!(FileName::parse("4000000000000000.wal"), None);
        assert_eq!(
            FileName::parse("3fffffffffffffff.wal"),
            Some(FileName::Segment(SegmentId(QUANTITY_END - 1)))
        );
    }
}
