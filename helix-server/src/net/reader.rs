//! Reads from a socket without ever holding more than it was allowed to.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Room for small requests, several of which then cost one system call.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// A socket's incoming bytes.
#[derive(Debug)]
pub struct FrameReader<R> {
    socket: R,
    buffer: BytesMut,
    /// How long the rest of a frame may take.
    body_deadline: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `socket`; the rest of a frame that has begun may take as long as `body_deadline`.
    pub fn new(socket: R, body_deadline: Duration) -> Self {
        Self { socket, buffer: BytesMut::with_capacity(BUFFER_BYTES), body_deadline }
    }

    /// Bytes that have arrived and were not consumed.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Throws away bytes that have arrived.
    pub fn consume(&mut self, bytes: usize) {
        self.buffer.advance(bytes);
    }

    /// Throws away a request's header, all of which has arrived.
    pub async fn consume_head(&mut self, bytes: usize) -> io::Result<()> {
        self.fill_frame(bytes).await?;
        self.consume(bytes);
        Ok(())
    }

    /// Waits until `bytes` have arrived, at most [`BUFFER_BYTES`]. `false`: the other side closed before the first of them.
    pub async fn fill(&mut self, bytes: usize) -> io::Result<bool> {
        while self.buffer.len() < bytes {
            self.buffer.reserve(BUFFER_BYTES.max(bytes) - self.buffer.len());
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(false) } else { Err(cut_off()) };
            }
        }
        Ok(true)
    }

    /// Waits until `bytes` of a frame that has begun have arrived.
    pub async fn fill_frame(&mut self, bytes: usize) -> io::Result<()> {
        match tokio::time::timeout(self.body_deadline, self.fill(bytes)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(cut_off()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(too_slow()),
        }
    }

    /// Reads exactly `bytes`. Whoever calls has reserved that much memory.
    pub async fn take(&mut self, bytes: usize) -> io::Result<Bytes> {
        if self.buffer.len() >= bytes && bytes <= BUFFER_BYTES / 4 {
            // A small request gets memory of its own, so that it does not keep the whole buffer alive.
            let frame = Bytes::copy_from_slice(&self.buffer[..bytes]);
            self.buffer.advance(bytes);
            return Ok(frame);
        }
        let mut frame = BytesMut::with_capacity(bytes);
        let have = self.buffer.len().min(bytes);
        frame.extend_from_slice(&self.buffer[..have]);
        self.buffer.advance(have);
        let rest = async {
            let mut limited = (&mut self.socket).take((bytes - have) as u64);
            while frame.len() < bytes {
                if limited.read_buf(&mut frame).await? == 0 {
                    return Err(cut_off());
                }
            }
            Ok(())
        };
        tokio::time::timeout(self.body_deadline, rest).await.map_err(|_| too_slow())??;
        Ok(frame.freeze())
    }

    /// Reads `bytes` and forgets them.
    pub async fn discard(&mut self, mut bytes: usize) -> io::Result<()> {
        while bytes > 0 {
            if self.buffer.is_empty() {
                self.fill_frame(1).await?;
            }
            let now = bytes.min(self.buffer.len());
            self.buffer.advance(now);
            bytes -= now;
        }
        Ok(())
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended in the middle of a request")
}

fn too_slow() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the rest of a request did not arrive in time")
}
