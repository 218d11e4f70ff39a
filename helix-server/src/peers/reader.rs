//! Reads frames from a connection.

use std::io;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

use super::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader};

/// A connection that can't be read any further.
#[derive(Debug, Error)]
pub(super) enum ReadFrameError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Buffers small frames and reads long ones into their own memory.
pub(super) struct FrameReader<R> {
    stream: BufReader<R>,
    max_body_bytes: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(stream: R, buffer_bytes: usize, max_body_bytes: usize) -> Self {
        Self { stream: BufReader::with_capacity(buffer_bytes, stream), max_body_bytes }
    }

    /// Reads the next header, or `None` when the connection was closed between frames.
    pub(super) async fn header(&mut self) -> Result<Option<FrameHeader>, ReadFrameError> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        if self.stream.read(&mut bytes[..1]).await? == 0 {
            return Ok(None);
        }
        self.stream.read_exact(&mut bytes[1..]).await?;
        Ok(Some(FrameHeader::decode(&bytes, self.max_body_bytes)?))
    }

    /// Reads the body that belongs to a header: meta and payloads.
    pub(super) async fn body(&mut self, header: &FrameHeader) -> Result<(Bytes, Bytes), ReadFrameError> {
        let mut body = BytesMut::with_capacity(header.body_length);
        while body.len() < header.body_length {
            let missing = (header.body_length - body.len()) as u64;
            if (&mut self.stream).take(missing).read_buf(&mut body).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(header.open(body.freeze())?)
    }

    /// The length of the next body if the whole frame has arrived already.
    pub(super) fn arrived(&self) -> Option<usize> {
        let buffered = self.stream.buffer();
        let header = FrameHeader::decode(buffered.first_chunk()?, self.max_body_bytes).ok()?;
        (buffered.len() - FRAME_HEADER_BYTES >= header.body_length).then_some(header.body_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::frame::{FrameKind, encode};

    #[tokio::test]
    async fn frames_are_read_one_by_one() {
        let small = encode(FrameKind::Control, b"small").unwrap();
        let long = encode(FrameKind::Control, &[7; 1000]).unwrap();
        let bytes = [&small[..], &small[..], &long[..]].concat();
        let mut reader = FrameReader::new(&bytes[..], 64, 2000);
        for (index, length) in [5, 5, 1000].into_iter().enumerate() {
            let header = reader.header().await.unwrap().unwrap();
            assert_eq!(header.body_length, length);
            assert_eq!(reader.body(&header).await.unwrap().0.len(), length);
            assert_eq!(reader.arrived(), (index == 0).then_some(5));
        }
        assert!(reader.header().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_frame_that_ends_early_is_an_error() {
        let frame = encode(FrameKind::Control, b"small").unwrap();
        let mut reader = FrameReader::new(&frame[..frame.len() - 1], 64, 2000);
        let header = reader.header().await.unwrap().unwrap();
        assert!(matches!(reader.body(&header).await, Err(ReadFrameError::Io(_))));
        let mut reader = FrameReader::new(&frame[..7], 64, 2000);
        assert!(matches!(reader.header().await, Err(ReadFrameError::Io(_))));
    }
}
