//! Reading a segment frame by frame, whatever state it is in.

use std::io;

use crate::disk::DiskFile;
use crate::frame::{FRAME_ALIGNMENT, FRAME_HEADER_BYTES, FrameHeader, frame_bytes, looks_like_header};
use crate::segment::{HeaderFound, SEGMENT_HEADER_BYTES, Segment, SegmentHeader};

const WINDOW_BYTES: usize = 1 << 20;

/// What is in a segment, in the order of positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) header: HeaderFound,
    pub(crate) items: Vec<Item>,
    /// The byte after the last frame with a valid header.
    pub(crate) end: u64,
    pub(crate) file_bytes: u64,
}

/// A stretch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Frame(ScannedFrame),
    /// No valid header begins in it; a valid one follows.
    Gap {
        from: u64,
        to: u64,
    },
}

/// A frame whose header is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScannedFrame {
    pub(crate) position: u64,
    pub(crate) header: FrameHeader,
    pub(crate) payload_valid: bool,
}

impl ScannedFrame {
    pub(crate) fn end(&self) -> u64 {
        self.position + self.header.frame_bytes()
    }
}

impl Scan {
    /// Of a segment that was not looked into because it is known to be unused.
    pub(crate) fn nothing(file_bytes: u64) -> Self {
        Self { header: HeaderFound::Unused, items: Vec::new(), end: SEGMENT_HEADER_BYTES, file_bytes }
    }

    pub(crate) fn frames(&self) -> impl DoubleEndedIterator<Item = &ScannedFrame> {
        self.items.iter().filter_map(|item| match item {
            Item::Frame(frame) => Some(frame),
            Item::Gap { .. } => None,
        })
    }

    pub(crate) fn valid_header(&self) -> Option<SegmentHeader> {
        match self.header {
            HeaderFound::Valid(header) => Some(header),
            _ => None,
        }
    }
}

/// Reads the header of a segment.
pub(crate) fn read_header(segment: &Segment) -> io::Result<HeaderFound> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    let count = segment.file.read_at(&mut bytes, 0)?;
    Ok(SegmentHeader::decode(&bytes[..count], segment.id))
}

/// Finds all frames of a segment.
pub(crate) fn scan(segment: &Segment) -> io::Result<Scan> {
    let file_bytes = segment.file.len_bytes()?;
    let mut window = Window { file: &*segment.file, file_bytes, from: 0, bytes: Vec::new() };
    let mut found =
        Scan { header: read_header(segment)?, items: Vec::new(), end: SEGMENT_HEADER_BYTES, file_bytes };
    let mut position = SEGMENT_HEADER_BYTES;
    while let Some((at, header)) = next_header(segment, &mut window, position, file_bytes)? {
        if at > found.end {
            found.items.push(Item::Gap { from: found.end, to: at });
        }
        let payload_valid = payload_is_valid(&mut window, &header, at)?;
        let frame = ScannedFrame { position: at, header, payload_valid };
        found.items.push(Item::Frame(frame));
        position = frame.end();
        found.end = position;
    }
    Ok(found)
}

/// The first valid header at or after `position`.
fn next_header(
    segment: &Segment,
    window: &mut Window<'_>,
    position: u64,
    file_bytes: u64,
) -> io::Result<Option<(u64, FrameHeader)>> {
    let mut position = position;
    while position + FRAME_HEADER_BYTES as u64 <= file_bytes {
        let bytes = window.at(position, FRAME_HEADER_BYTES)?;
        if bytes.len() < FRAME_HEADER_BYTES {
            break;
        }
        let mut at = 0;
        while at + FRAME_HEADER_BYTES <= bytes.len() {
            if looks_like_header(&bytes[at..]) {
                let here = position + at as u64;
                let header = FrameHeader::decode(&bytes[at..], &segment.seed, here);
                if let Some(header) = header.filter(|header| fits(header, here, file_bytes)) {
                    return Ok(Some((here, header)));
                }
            }
            at += FRAME_ALIGNMENT as usize;
        }
        position += at as u64;
    }
    Ok(None)
}

fn fits(header: &FrameHeader, position: u64, file_bytes: u64) -> bool {
    position + FRAME_HEADER_BYTES as u64 + u64::from(header.payload_len) <= file_bytes
}

fn payload_is_valid(window: &mut Window<'_>, header: &FrameHeader, position: u64) -> io::Result<bool> {
    let mut hasher = crc32fast::Hasher::new();
    let mut at = position + FRAME_HEADER_BYTES as u64;
    let mut left = header.payload_len as usize;
    while left > 0 {
        let bytes = window.at(at, left.min(WINDOW_BYTES))?;
        let take = left.min(bytes.len());
        if take == 0 {
            return Ok(false);
        }
        hasher.update(&bytes[..take]);
        at += take as u64;
        left -= take;
    }
    debug_assert!(at <= position + frame_bytes(header.payload_len));
    Ok(hasher.finalize() == header.payload_crc)
}

/// A moving view of a file.
struct Window<'a> {
    file: &'a dyn DiskFile,
    file_bytes: u64,
    from: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes from `position` on: at least `need` (at most a window), fewer only at the end of the file.
    fn at(&mut self, position: u64, need: usize) -> io::Result<&[u8]> {
        let held = self.from..self.from + self.bytes.len() as u64;
        if !held.contains(&position) || position + need as u64 > held.end {
            let left = usize::try_from(self.file_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
            self.bytes.resize(left.min(WINDOW_BYTES), 0);
            let count = self.file.read_at(&mut self.bytes, position)?;
            self.bytes.truncate(count);
            self.from = position;
        }
        let at = usize::try_from(position - self.from).unwrap_or(usize::MAX).min(self.bytes.len());
        Ok(&self.bytes[at..])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::disk::{Disk, FaultyDisk};
    use crate::payload::Payload;
    use crate::record::{Record, RecordKind};
    use crate::types::{GroupId, Index, Lsn, Offset, SegmentId, Term};

    const WINDOW: u64 = WINDOW_BYTES as u64;

    /// A segment file with frames in these places, with payloads of those sizes, that ends there.
    fn segment(places: &[(u64, usize)], file_bytes: u64) -> Arc<Segment> {
        let file = FaultyDisk::new(1).create("x", file_bytes).unwrap();
        let segment = Segment::new(SegmentId(1), file);
        for (position, size) in places {
            let record = Record {
                group: GroupId(1),
                kind: RecordKind::Entry { tag: 0 },
                index: Index(1),
                term: Term(1),
                prev_term: Term(0),
                base_offset: Offset(0),
                offset_count: 0,
                max_timestamp_ms: 0,
                payload: Payload::from_chunks(vec![Bytes::from(vec![7; *size])]),
            };
            let header = FrameHeader::of(&record, Lsn(1), Lsn(0), Lsn(0));
            segment.file.write_at(&header.encode(&segment.seed, *position), *position).unwrap();
            segment.file.write_at(&record.payload.to_bytes(), position + 96).unwrap();
        }
        segment.file.set_len(file_bytes).unwrap();
        segment
    }

    /// Frames as `(position, whole)`, gaps as `(from, to)`, and the end.
    type Found = (Vec<(u64, bool)>, Vec<(u64, u64)>, u64);

    fn found(segment: &Segment) -> Found {
        let scan = scan(segment).unwrap();
        let frames = scan.frames().map(|frame| (frame.position, frame.payload_valid)).collect();
        let gaps = scan.items.iter().filter_map(|item| match item {
            Item::Gap { from, to } => Some((*from, *to)),
            Item::Frame(_) => None,
        });
        (frames, gaps.collect(), scan.end)
    }

    #[test]
    fn frames_are_found_wherever_the_window_ends() {
        for position in [WINDOW - 96, WINDOW - 88, WINDOW - 40, WINDOW - 8, WINDOW, WINDOW + 64] {
            let segment = segment(&[(64, 0), (position, 16)], 2 * WINDOW);
            let expected = (vec![(64, true), (position, true)], vec![(160, position)], position + 112);
            assert_eq!(found(&segment), expected);
        }
    }

    #[test]
    fn a_payload_may_be_longer_than_the_window() {
        let size = WINDOW_BYTES + 4000;
        let whole = segment(&[(64, size)], 2 * WINDOW);
        assert_eq!(found(&whole).0, [(64, true)]);
        for at in [0, WINDOW - 96, WINDOW, WINDOW + 3999] {
            let damaged = segment(&[(64, size)], 2 * WINDOW);
            damaged.file.write_at(&[0], 64 + 96 + at).unwrap();
            assert_eq!(found(&damaged).0, [(64, false)]);
        }
    }

    #[test]
    fn a_frame_ends_within_the_file_but_for_its_padding() {
        let ends_at = |file_bytes| found(&segment(&[(64, 0), (160, 5)], file_bytes)).0;
        assert_eq!(ends_at(160 + 96 + 5), [(64, true), (160, true)]);
        assert_eq!(ends_at(160 + 96 + 4), [(64, true)]);
        assert_eq!(ends_at(160), [(64, true)]);
        assert_eq!(ends_at(159), []);
    }
}
