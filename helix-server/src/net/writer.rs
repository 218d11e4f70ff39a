//! Writes answers in the order of their requests. Several that are ready leave in one write; chunks are never copied together.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::api::{Outcome, PendingOutcome, Response};
use crate::broker::budget::Permit;

/// Bytes gathered before they are written although more answers may be ready.
const FLUSH_BYTES: usize = 256 * 1024;
/// Chunks handed to one vectored write.
const MAX_SLICES: usize = 64;

/// Bytes on their way out.
#[derive(Default)]
struct Outgoing {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    permits: Vec<Permit>,
}

/// How a connection's answers ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// No more requests will come.
    Drained,
    /// An answer says that the connection is to be closed.
    Close,
}

/// Writes until the queue ends, an answer asks for the end, or the client does not take what it asked for in time.
pub(super) async fn run<W: AsyncWrite + Unpin>(
    mut socket: W,
    mut queue: mpsc::Receiver<PendingOutcome>,
    stall_limit: Duration,
) -> io::Result<Ended> {
    let mut outgoing = Outgoing::default();
    while let Some(mut pending) = queue.recv().await {
        // What is ready is gathered; before waiting, everything gathered leaves.
        let outcome = match futures_util::poll!(&mut pending) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                outgoing.flush(&mut socket, stall_limit).await?;
                pending.await
            }
        };
        match outcome {
            Outcome::Response(response) => outgoing.push(response),
            Outcome::Silent => {}
            Outcome::Close => {
                outgoing.flush(&mut socket, stall_limit).await?;
                return Ok(Ended::Close);
            }
        }
        if queue.is_empty() || outgoing.bytes >= FLUSH_BYTES {
            outgoing.flush(&mut socket, stall_limit).await?;
        }
    }
    outgoing.flush(&mut socket, stall_limit).await?;
    Ok(Ended::Drained)
}

impl Outgoing {
    fn push(&mut self, response: Response) {
        let bytes: usize = response.chunks.iter().map(Bytes::len).sum();
        self.chunks.push_back(Bytes::copy_from_slice(&(bytes as u32).to_be_bytes()));
        self.chunks.extend(response.chunks);
        self.bytes += bytes + 4;
        self.permits.extend(response.permit);
    }

    async fn flush<W: AsyncWrite + Unpin>(
        &mut self,
        socket: &mut W,
        stall_limit: Duration,
    ) -> io::Result<()> {
        while !self.chunks.is_empty() {
            let written = {
                let slices: Vec<IoSlice<'_>> =
                    self.chunks.iter().take(MAX_SLICES).map(|chunk| IoSlice::new(chunk)).collect();
                match tokio::time::timeout(stall_limit, socket.write_vectored(&slices)).await {
                    Ok(written) => written?,
                    Err(_) => {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the client does not read its answers",
                        ));
                    }
                }
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(written);
        }
        self.bytes = 0;
        self.permits.clear();
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(first) = self.chunks.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn answer(text: &'static str) -> PendingOutcome {
        let chunks = vec![Bytes::from_static(text.as_bytes()), Bytes::new()];
        Box::pin(std::future::ready(Outcome::Response(Response { chunks, permit: None })))
    }

    #[tokio::test]
    async fn answers_leave_in_order_and_silence_takes_no_bytes() {
        let (client, server) = tokio::io::duplex(7);
        let (sender, queue) = mpsc::channel(8);
        let writing = tokio::spawn(run(server, queue, Duration::from_secs(60)));
        sender.send(answer("first")).await.unwrap();
        sender.send(Box::pin(std::future::ready(Outcome::Silent))).await.unwrap();
        sender.send(answer("second")).await.unwrap();
        drop(sender);
        let mut read = Vec::new();
        let mut client = client;
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"\0\0\0\x05first\0\0\0\x06second");
        assert_eq!(writing.await.unwrap().unwrap(), Ended::Drained);
    }
}
