//! Sending: this node's connections to one other node, and what waits for them.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use helix_raft::Message;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::bulk::Reunion;
use super::frame::{self, FRAME_HEADER_BYTES, FrameKind};
use super::hello::{
    Hello, HelloAnswer, HelloError, Identity, Lane, MAX_HELLO_BYTES, Refusal, decode_answer, encode_hello,
};
use super::queue::{NotSent, Outgoing, Part, SendQueue};
use super::reader::{FrameReader, ReadFrameError};
use super::shared::{LaneStatus, PeerStatus, Shared};
use super::{PeerLimits, PeerState, codec};
use crate::entry::Command;
use crate::env::{PeerStream, watch};
use crate::ids::NodeId;

/// How long a node may take to accept a connection, and again to answer the hello.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that stood this long is made again at once when it breaks.
const STABLE: Duration = Duration::from_secs(1);
/// A failure that goes on is logged again after this time.
const LOG_AGAIN: Duration = Duration::from_secs(30);
/// What is written at once, unless a single message is longer.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_MESSAGES: usize = 128;
/// How many slices one write call takes.
const SLICES: usize = 64;

/// The way to one node.
pub(super) struct Link {
    pub(super) node: NodeId,
    address: String,
    control: LaneLink,
    data: LaneLink,
    bulk: LaneLink,
    /// The number of the last message that was sent in parts. Locked while both are queued: both queues have them in order.
    numbers: Mutex<u64>,
    /// What came from there in parts.
    pub(super) reunion: Mutex<Reunion>,
}

/// One lane of it.
struct LaneLink {
    queue: SendQueue,
    /// Raised when the connection has to be made anew.
    renewals: watch::Sender<u64>,
    connected: Mutex<Option<(Identity, Instant)>>,
    sent_messages: AtomicU64,
    sent_bytes: AtomicU64,
    dropped_messages: AtomicU64,
    connections: AtomicU64,
}

impl LaneLink {
    fn new(queue_bytes: usize) -> Self {
        Self {
            queue: SendQueue::new(queue_bytes),
            renewals: watch::Sender::new(0),
            connected: Mutex::new(None),
            sent_messages: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            dropped_messages: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }

    fn status(&self) -> LaneStatus {
        LaneStatus {
            connected: self.connected.lock().map(|(identity, _)| identity),
            queued_bytes: self.queue.bytes(),
            sent_messages: self.sent_messages.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            dropped_messages: self.dropped_messages.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
        }
    }

    fn dropped(&self, messages: usize) {
        self.dropped_messages.fetch_add(messages as u64, Ordering::Relaxed);
    }
}

impl Link {
    pub(super) fn new(node: NodeId, address: String, limits: &PeerLimits) -> Self {
        let [control, data, bulk] =
            [limits.control_queue_bytes, limits.data_queue_bytes, limits.data_queue_bytes].map(LaneLink::new);
        let (numbers, reunion) = (Mutex::new(0), Mutex::new(Reunion::new()));
        Self { node, address, control, data, bulk, numbers, reunion }
    }

    fn lane(&self, lane: Lane) -> &LaneLink {
        match lane {
            Lane::Control => &self.control,
            Lane::Data => &self.data,
            Lane::Bulk => &self.bulk,
        }
    }

    pub(super) fn push(&self, lane: Lane, item: Outgoing) -> Result<(), NotSent> {
        let lane = self.lane(lane);
        lane.queue.push(item).inspect_err(|_| lane.dropped(1))
    }

    /// Sends the payloads of a message on the bulk lane and the rest on the data lane.
    pub(super) fn push_in_parts(&self, message: Message<Command>) -> Result<(), NotSent> {
        let mut number = self.numbers.lock();
        *number += 1;
        let payloads = Outgoing::Raft { message: message.clone(), part: Part::Payloads(*number) };
        self.push(Lane::Bulk, payloads)?;
        self.push(Lane::Data, Outgoing::Raft { message, part: Part::Description(*number) })
    }

    /// Makes all connections anew.
    pub(super) fn renew(&self) {
        for lane in [&self.control, &self.data, &self.bulk] {
            lane.renewals.send_modify(|renewals| *renewals += 1);
        }
    }

    /// Makes the connections anew if they have stood for `age`: they look whole and nothing comes through, so they
    /// would wait for the network's timeouts, which are far longer than ours.
    pub(super) fn renew_if_older(&self, age: Duration) {
        if self.connected_to().is_some_and(|(_, since)| since.elapsed() >= age) {
            tracing::info!(node = %self.node, "no answer on an open connection: connecting anew");
            self.renew();
        }
    }

    fn connected_to(&self) -> Option<(Identity, Instant)> {
        *self.control.connected.lock()
    }

    /// The process that the control connection leads to.
    pub(super) fn identity(&self) -> Option<Identity> {
        self.connected_to().map(|(identity, _)| identity)
    }

    pub(super) fn status(&self) -> PeerStatus {
        PeerStatus {
            node: self.node,
            address: self.address.clone(),
            control: self.control.status(),
            data: self.data.status(),
            bulk: self.bulk.status(),
        }
    }
}

#[derive(Debug, Error)]
enum ConnectError {
    #[error("nobody listens there: the node is not running")]
    Refused,
    #[error("can't connect: {0}")]
    Unreachable(io::Error),
    #[error("no answer within {}", humantime(CONNECT_TIMEOUT))]
    Timeout,
    #[error(transparent)]
    Read(#[from] ReadFrameError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("it refuses this node: {0}")]
    TurnedAway(Refusal),
    #[error("refused by this node: {0}")]
    Unwanted(Refusal),
}

fn humantime(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

impl ConnectError {
    fn state(&self) -> PeerState {
        match self {
            Self::Refused => PeerState::Refused,
            Self::TurnedAway(refusal) | Self::Unwanted(refusal) => PeerState::TurnedAway(*refusal),
            Self::Unreachable(_) | Self::Timeout | Self::Read(_) | Self::Hello(_) => PeerState::Unreachable,
        }
    }
}

/// Says once what is wrong, and again when it changes or goes on for long.
#[derive(Default)]
struct Complaint {
    last: Option<(String, Instant)>,
}

impl Complaint {
    fn about(&mut self, link: &Link, lane: Lane, error: &ConnectError) {
        let text = error.to_string();
        let said = |(last, at): &(String, Instant)| *last == text && at.elapsed() < LOG_AGAIN;
        if !self.last.as_ref().is_some_and(said) {
            let (node, address) = (link.node, &link.address);
            match error {
                ConnectError::TurnedAway(Refusal::NoCluster) => {
                    tracing::debug!(%node, address, ?lane, "{text}");
                }
                _ => tracing::warn!(%node, address, ?lane, "not connected: {text}"),
            }
            self.last = Some((text, Instant::now()));
        }
    }
}

/// Keeps one lane to one node connected and sends what is queued, until told to stop.
pub(super) async fn run(shared: Arc<Shared>, link: Arc<Link>, lane: Lane, mut stop: watch::Receiver<bool>) {
    let lane_link = link.lane(lane);
    let mut renewals = lane_link.renewals.subscribe();
    let mut backoff = Backoff::default();
    let mut dice = SmallRng::seed_from_u64(shared.env.random_u64());
    let mut complaint = Complaint::default();
    let mut told = None;
    let mut tell = |state: PeerState| {
        if lane == Lane::Control && told.as_ref() != Some(&state) {
            shared.events.peer_state(link.node, state.clone());
            told = Some(state);
        }
    };
    loop {
        renewals.mark_unchanged();
        let attempt = async {
            if lane != Lane::Control && shared.me().cluster.is_none() {
                // Nothing to talk about; the founding of the cluster renews the connections.
                return std::future::pending().await;
            }
            connect(&shared, &link, lane).await
        };
        let attempt = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            _ = renewals.changed() => continue,
            attempt = attempt => attempt,
        };
        let wait = match attempt {
            Ok((stream, identity)) => {
                complaint = Complaint::default();
                let since = Instant::now();
                *lane_link.connected.lock() = Some((identity, since));
                lane_link.connections.fetch_add(1, Ordering::Relaxed);
                lane_link.queue.open();
                tracing::info!(node = %link.node, ?lane, incarnation = %identity.incarnation, "connected");
                tell(PeerState::Connected(identity));
                let ended = tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => None,
                    _ = renewals.changed() => Some("it is made anew".to_owned()),
                    error = serve(&shared, &link, lane, stream, &identity) => Some(error.to_string()),
                };
                *lane_link.connected.lock() = None;
                lane_link.dropped(lane_link.queue.close());
                let Some(why) = ended else { return };
                tracing::info!(node = %link.node, ?lane, "disconnected: {why}");
                tell(PeerState::Lost);
                if since.elapsed() >= STABLE {
                    backoff.succeeded();
                    continue;
                }
                backoff.failed(dice.random())
            }
            Err(error) => {
                if lane == Lane::Control && matches!(error, ConnectError::Refused) {
                    shared.heartbeats.refused(&shared, link.node);
                }
                complaint.about(&link, lane, &error);
                tell(error.state());
                backoff.failed(dice.random())
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            _ = renewals.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn connect(shared: &Shared, link: &Link, lane: Lane) -> Result<(PeerStream, Identity), ConnectError> {
    let stream = match timeout(CONNECT_TIMEOUT, shared.env.outside().dial(&link.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(ConnectError::Refused);
        }
        Ok(Err(error)) => return Err(ConnectError::Unreachable(error)),
        Err(_) => return Err(ConnectError::Timeout),
    };
    timeout(CONNECT_TIMEOUT, say_hello(shared, link, lane, stream))
        .await
        .map_err(|_| ConnectError::Timeout)?
}

async fn say_hello(
    shared: &Shared,
    link: &Link,
    lane: Lane,
    mut stream: PeerStream,
) -> Result<(PeerStream, Identity), ConnectError> {
    let me = shared.me();
    let hello = encode_hello(&Hello { lane, from: me, to: link.node }).map_err(ReadFrameError::from)?;
    stream.write_all(&hello).await.map_err(ReadFrameError::from)?;
    // Nothing follows the answer, so no byte is lost with this buffer.
    let mut reader = FrameReader::new(&mut stream, MAX_HELLO_BYTES, MAX_HELLO_BYTES);
    let Some(header) = reader.header().await? else {
        return Err(ReadFrameError::Io(io::ErrorKind::UnexpectedEof.into()).into());
    };
    if header.kind != FrameKind::HelloAnswer {
        return Err(HelloError::Foreign.into());
    }
    let (meta, _) = reader.body(&header).await?;
    let identity = match decode_answer(&meta)? {
        HelloAnswer::Welcome(identity) => identity,
        HelloAnswer::Refused(refusal) => return Err(ConnectError::TurnedAway(refusal)),
    };
    if identity.node != link.node {
        return Err(ConnectError::Unwanted(Refusal::WrongNode { asked: link.node, there: identity.node }));
    }
    if identity.replica == me.replica {
        return Err(ConnectError::Unwanted(Refusal::SameDisk));
    }
    if let (Some(theirs), Some(asked)) = (identity.cluster, me.cluster)
        && theirs != asked
    {
        return Err(ConnectError::Unwanted(Refusal::WrongCluster { there: identity.node, theirs, asked }));
    }
    shared.observe(&identity).map_err(ConnectError::Unwanted)?;
    Ok((stream, identity))
}

/// Sends what is queued until the connection breaks.
async fn serve(
    shared: &Shared,
    link: &Link,
    lane: Lane,
    stream: PeerStream,
    identity: &Identity,
) -> io::Error {
    let (mut read, mut write) = tokio::io::split(stream);
    let lane_link = link.lane(lane);
    let mut scratch = BytesMut::new();
    let sending = async {
        loop {
            let batch = lane_link.queue.next_batch(BATCH_BYTES, BATCH_MESSAGES).await;
            let batch = Batch::encode(shared, link, lane, batch, identity, &mut scratch);
            lane_link.dropped(batch.dropped);
            let (messages, bytes) = (batch.messages as u64, batch.bytes as u64);
            if let Err(error) = write_all(&mut write, batch.chunks, shared.limits.stall).await {
                return error;
            }
            lane_link.sent_messages.fetch_add(messages, Ordering::Relaxed);
            lane_link.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    };
    tokio::select! {
        biased;
        error = sending => error,
        error = closed(&mut read) => error,
    }
}

/// Waits for the other side to close. It never sends anything here.
async fn closed(read: &mut (impl AsyncRead + Unpin)) -> io::Error {
    match read.read(&mut [0]).await {
        Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the other side"),
        Ok(_) => {
            io::Error::new(io::ErrorKind::InvalidData, "the other side sent something where it must not")
        }
        Err(error) => error,
    }
}

/// Frames as slices: heads that are built here, and payloads as they were received.
#[derive(Default)]
struct Batch {
    chunks: Vec<Bytes>,
    messages: usize,
    bytes: usize,
    dropped: usize,
}

impl Batch {
    fn encode(
        shared: &Shared,
        link: &Link,
        lane: Lane,
        items: Vec<Outgoing>,
        identity: &Identity,
        scratch: &mut BytesMut,
    ) -> Self {
        let together = shared.me().shares_cluster_with(identity);
        let limit = match lane {
            Lane::Control => shared.limits.max_control_frame_bytes,
            Lane::Data | Lane::Bulk => shared.limits.max_data_frame_bytes,
        };
        let mut batch = Self::default();
        let mut payloads = Vec::new();
        for item in items {
            let head = match item {
                Outgoing::Frame { bytes, founding } => (founding || together).then_some(bytes),
                // Meant for a process that is gone.
                Outgoing::Raft { message, .. }
                    if !together
                        || message.to != identity.replica
                        || message.to_incarnation.get() != 0
                            && message.to_incarnation != identity.incarnation =>
                {
                    None
                }
                Outgoing::Raft { message, part } => {
                    payloads.clear();
                    let frame = encode_raft(&message, part, limit, scratch, &mut payloads);
                    frame.map(Some).unwrap_or_else(|bytes| {
                        tracing::error!(
                            node = %link.node, group = %message.group, bytes, limit,
                            "a message is longer than a frame may be and can't be sent: raise the limit on every node"
                        );
                        scratch.clear();
                        payloads.clear();
                        None
                    })
                }
            };
            match head {
                None => batch.dropped += 1,
                Some(head) => {
                    batch.messages += 1;
                    batch.chunks.push(head);
                    batch.chunks.append(&mut payloads);
                }
            }
        }
        batch.bytes = batch.chunks.iter().map(Bytes::len).sum();
        batch
    }
}

/// The frame of a message, but for the payloads that follow it. Fails with its length if that is too long.
fn encode_raft(
    message: &Message<Command>,
    part: Part,
    limit: usize,
    scratch: &mut BytesMut,
    payloads: &mut Vec<Bytes>,
) -> Result<Bytes, usize> {
    scratch.put_bytes(0, FRAME_HEADER_BYTES);
    let kind = match part {
        Part::Whole => {
            codec::encode(message, scratch, payloads);
            FrameKind::Raft
        }
        Part::Description(number) => {
            scratch.put_u64_le(number);
            codec::encode(message, scratch, payloads);
            payloads.clear();
            FrameKind::Description
        }
        Part::Payloads(number) => {
            scratch.put_u64_le(number);
            payloads.extend(codec::payloads(message).cloned());
            FrameKind::Payloads
        }
    };
    let payload_bytes = payloads.iter().map(Bytes::len).sum();
    let length = scratch.len() - FRAME_HEADER_BYTES + payload_bytes;
    if length > limit || frame::finish(scratch, 0, kind, payload_bytes).is_err() {
        return Err(length);
    }
    Ok(scratch.split().freeze())
}

/// Writes all chunks in as few calls as possible. Gives up when nothing moves for `stall`.
async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    mut chunks: Vec<Bytes>,
    stall: Duration,
) -> io::Result<()> {
    // Slices of nothing would look like a connection that takes nothing.
    chunks.retain(|chunk| !chunk.is_empty());
    let mut next = 0;
    while next < chunks.len() {
        let slices: Vec<IoSlice<'_>> =
            chunks[next..].iter().take(SLICES).map(|chunk| IoSlice::new(chunk)).collect();
        let mut written = match timeout(stall, stream.write_vectored(&slices)).await {
            Ok(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written?,
            Err(_) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing could be sent for too long"));
            }
        };
        while next < chunks.len() && written >= chunks[next].len() {
            written -= chunks[next].len();
            // What is sent is let go at once, not when the whole batch is.
            chunks[next] = Bytes::new();
            next += 1;
        }
        if written > 0 {
            chunks[next].advance(written);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_arrive_in_order_whatever_the_sizes() {
        let chunks: Vec<Bytes> =
            (0..500_u32).map(|n| Bytes::from(vec![n as u8; (n % 37) as usize])).collect();
        let expected = chunks.concat();
        let (mut near, mut far) = tokio::io::duplex(61);
        let writing = async {
            write_all(&mut near, chunks, Duration::from_secs(60)).await.unwrap();
            drop(near);
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(writing, far.read_to_end(&mut received));
        read.unwrap();
        assert_eq!(received, expected);
    }
}
