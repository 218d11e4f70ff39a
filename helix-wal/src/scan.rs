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
