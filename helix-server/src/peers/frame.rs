//! Frames between nodes. Pure.
//!
//! ```text
//! kind            u8
//! reserved        3 bytes, zero
//! body length     u32   of everything behind this header
//! meta length     u32   of the first part of the body
//! checksum        u32   CRC32 of kind, lengths and meta
//! meta            what the frame says
//! payloads        bytes that go to the WAL as they are; each has its CRC32 in the meta
//! ```
//!
//! All numbers are little endian. Every byte is covered by exactly one checksum: that of the frame, or that of its
//! payload, which the WAL stores and which is therefore never computed a second time on the same node.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes in front of every body.
pub const FRAME_HEADER_BYTES: usize = 16;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// The first frame of a connection.
    Hello = 1,
    /// The only frame that ever goes back on a connection.
    HelloAnswer = 2,
    /// A message of the Raft core.
    Raft = 3,
    /// A [`super::control::ControlMessage`].
    Control = 4,
    /// A [`super::codec::repair::RepairMessage`].
    Repair = 5,
    /// A message of the Raft core whose payloads come as [`Self::Payloads`]: a number, then the meta.
    Description = 6,
    /// The payloads of a message; the meta is the number of its [`Self::Description`].
    Payloads = 7,
}

impl FrameKind {
    const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Hello,
            2 => Self::HelloAnswer,
            3 => Self::Raft,
            4 => Self::Control,
            5 => Self::Repair,
            6 => Self::Description,
            7 => Self::Payloads,
            _ => return None,
        })
    }
}

/// A frame that is not one, or not one that may come here. The connection is closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// Not a frame at all.
    #[error("unknown frame kind {0}: the other side is no Helix node of this version")]
    Kind(u8),
    /// Longer than allowed.
    #[error("a frame of {length} bytes exceeds the limit of {limit} bytes")]
    TooLong {
        /// Its length.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The meta does not fit into the body.
    #[error("the lengths in the frame header contradict each other")]
    Lengths,
    /// Bytes were changed on the way.
    #[error("the checksum of a frame is wrong: the network or the memory of a machine corrupts data")]
    Checksum,
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame holds.
    pub kind: FrameKind,
    /// Bytes behind the header.
    pub body_length: usize,
    /// Bytes of the meta, which comes first in the body.
    pub meta_length: usize,
    checksum: u32,
}

impl FrameHeader {
    /// Reads a header and checks it against the limit, before anything is allocated for the body.
    ///
    /// # Errors
    /// When the header makes no sense or the frame is too long.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES], max_body_bytes: usize) -> Result<Self, FrameError> {
        let (words, _) = bytes.as_chunks::<4>();
        let [_, body_length, meta_length, checksum] =
            [0, 1, 2, 3].map(|word| u32::from_le_bytes(words[word]));
        let kind = match (FrameKind::from_u8(bytes[0]), &bytes[1..4]) {
            (Some(kind), [0, 0, 0]) => kind,
            _ => return Err(FrameError::Kind(bytes[0])),
        };
        let (body_length, meta_length) = (body_length as usize, meta_length as usize);
        if body_length > max_body_bytes {
            return Err(FrameError::TooLong { length: body_length, limit: max_body_bytes });
        }
        if meta_length > body_length {
            return Err(FrameError::Lengths);
        }
        Ok(Self { kind, body_length, meta_length, checksum })
    }

    /// Splits the body into meta and payloads and checks the meta.
    ///
    /// # Errors
    /// When the checksum is wrong.
    pub fn open(&self, mut body: Bytes) -> Result<(Bytes, Bytes), FrameError> {
        if body.len() != self.body_length || self.meta_length > body.len() {
            return Err(FrameError::Lengths);
        }
        let payloads = body.split_off(self.meta_length);
        if checksum(self.kind, self.body_length as u32, &body) != self.checksum {
            return Err(FrameError::Checksum);
        }
        Ok((body, payloads))
    }
}

/// Puts the header in front of a meta that begins at `start + FRAME_HEADER_BYTES` of `frame`, where room for the
/// header was left. `payload_bytes` follow it on the wire.
///
/// # Errors
/// When the frame would not fit into 4 GiB.
pub fn finish(
    frame: &mut BytesMut,
    start: usize,
    kind: FrameKind,
    payload_bytes: usize,
) -> Result<(), FrameError> {
    let meta_start = start + FRAME_HEADER_BYTES;
    let meta_length = frame.len() - meta_start;
    let too_long = FrameError::TooLong { length: meta_length + payload_bytes, limit: u32::MAX as usize };
    let body_length = u32::try_from(meta_length + payload_bytes).map_err(|_| too_long)?;
    let checksum = checksum(kind, body_length, &frame[meta_start..]);
    let mut header = &mut frame[start..meta_start];
    header.put_u32_le(u32::from(kind as u8));
    header.put_u32_le(body_length);
    header.put_u32_le(meta_length as u32);
    header.put_u32_le(checksum);
    Ok(())
}

/// A frame without payloads.
///
/// # Errors
/// When the frame would not fit into 4 GiB.
pub fn encode(kind: FrameKind, meta: &[u8]) -> Result<Bytes, FrameError> {
    let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + meta.len());
    frame.put_bytes(0, FRAME_HEADER_BYTES);
    frame.extend_from_slice(meta);
    finish(&mut frame, 0, kind, 0)?;
    Ok(frame.freeze())
}

fn checksum(kind: FrameKind, body_length: u32, meta: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind as u8]);
    hasher.update(&body_length.to_le_bytes());
    hasher.update(&(meta.len() as u32).to_le_bytes());
    hasher.update(meta);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let frame = encode(FrameKind::Control, b"hello").unwrap();
        let header = FrameHeader::decode(frame.first_chunk().unwrap(), 100).unwrap();
        assert_eq!((header.kind, header.body_length, header.meta_length), (FrameKind::Control, 5, 5));
        let (meta, payloads) = header.open(frame.slice(FRAME_HEADER_BYTES..)).unwrap();
        assert_eq!(&meta[..], b"hello");
        assert!(payloads.is_empty());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let frame = encode(FrameKind::Hello, b"hello").unwrap();
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let opened = FrameHeader::decode(damaged.first_chunk().unwrap(), 100)
                .and_then(|header| header.open(Bytes::from(damaged).slice(FRAME_HEADER_BYTES..)));
            assert!(opened.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_header() {
        let frame = encode(FrameKind::Control, &[7; 101]).unwrap();
        let header = FrameHeader::decode(frame.first_chunk().unwrap(), 100);
        assert_eq!(header, Err(FrameError::TooLong { length: 101, limit: 100 }));
    }
}
