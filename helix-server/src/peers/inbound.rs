//! Receiving: connections that other nodes dialled.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes};
use helix_raft::{GroupId, MessageBody};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::bulk::{Ready, Reunion};
use super::codec::{self, DecodeError};
use super::control::{self, ControlMessage, MalformedControl};
use super::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use super::hello::{
    Hello, HelloAnswer, HelloError, Identity, Lane, MAX_HELLO_BYTES, Refusal, decode_hello, encode_answer,
};
use super::reader::{FrameReader, ReadFrameError};
use super::shared::Shared;
use super::{Inbound, ReceivePermit};
use crate::env::{PeerListener, PeerStream, watch};
use crate::ops::log_limit::LogLimit;

/// How long a connection may take to say who it is.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How many may be about to do so.
const MAX_HELLOS: usize = 64;
/// After an accept failed (the process is out of file descriptors, usually).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const CONTROL_BUFFER_BYTES: usize = 16 << 10;
const DATA_BUFFER_BYTES: usize = 128 << 10;
/// Messages that are handed over at once.
const BATCH_MESSAGES: usize = 64;

/// Why a connection ended.
#[derive(Debug, Error)]
enum InboundError {
    #[error(transparent)]
    Read(#[from] ReadFrameError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error(transparent)]
    Message(#[from] DecodeError),
    #[error(transparent)]
    Control(#[from] MalformedControl),
    #[error("a {kind:?} frame does not belong on the {lane:?} lane")]
    WrongLane { kind: FrameKind, lane: Lane },
    #[error("it stopped in the middle of a frame")]
    Stalled,
}

/// What is logged about connections before it is known who they are from: anybody can make as many as he likes.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    refused: LogLimit,
    foreign: LogLimit,
    nameless: LogLimit,
    not_accepted: LogLimit,
}

impl Complaints {
    fn about(&self, error: &InboundError) -> &LogLimit {
        match error {
            InboundError::Refused(_) => &self.refused,
            _ => &self.foreign,
        }
    }
}

impl From<io::Error> for InboundError {
    fn from(error: io::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Accepts connections until told to stop.
pub(super) async fn accept(
    shared: Arc<Shared>,
    mut listener: Box<dyn PeerListener>,
    data_runtime: tokio::runtime::Handle,
    mut stop: watch::Receiver<bool>,
) {
    let hellos = Arc::new(Semaphore::new(MAX_HELLOS));
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                if let Some(suppressed) = shared.complaints.not_accepted.admit() {
                    tracing::warn!(suppressed, "can't accept a connection of another node: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&hellos).try_acquire_owned() else {
            if let Some(suppressed) = shared.complaints.nameless.admit() {
                tracing::warn!(
                    suppressed,
                    "too many connections that do not say who they are: one is closed"
                );
            }
            continue;
        };
        let (shared, data_runtime, stop) = (Arc::clone(&shared), data_runtime.clone(), stop.clone());
        let env = shared.env.clone();
        env.spawn(introduce(shared, stream, data_runtime, stop, permit));
    }
}

/// Learns who a connection is from and hands it to its lane.
async fn introduce(
    shared: Arc<Shared>,
    stream: PeerStream,
    data_runtime: tokio::runtime::Handle,
    mut stop: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) {
    let address = stream.peer();
    let introduced = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => return,
        introduced = timeout(HELLO_TIMEOUT, hear_hello(&shared, stream)) => introduced,
    };
    drop(permit);
    let (stream, hello) = match introduced {
        Ok(Ok(introduced)) => introduced,
        Ok(Err(InboundError::Refused(Refusal::NoCluster))) => return,
        Ok(Err(error)) => {
            if let Some(suppressed) = shared.complaints.about(&error).admit() {
                tracing::warn!(address, suppressed, "a connection of another node was not accepted: {error}");
            }
            return;
        }
        Err(_) => {
            if let Some(suppressed) = shared.complaints.nameless.admit() {
                tracing::warn!(
                    address,
                    suppressed,
                    "a connection was closed because it did not say who it is"
                );
            }
            return;
        }
    };
    match hello.lane {
        Lane::Control => receive(shared, stream, hello, stop).await,
        Lane::Data | Lane::Bulk => {
            let env = shared.env.clone();
            match stream.move_to(&data_runtime) {
                Ok(stream) => drop(env.spawn_on(&data_runtime, receive(shared, stream, hello, stop))),
                Err(error) => tracing::warn!(address, "can't serve a data connection: {error}"),
            }
        }
    }
}

async fn hear_hello(shared: &Shared, mut stream: PeerStream) -> Result<(PeerStream, Hello), InboundError> {
    // The other side waits for the answer, so no byte is lost with this buffer.
    let mut reader = FrameReader::new(&mut stream, MAX_HELLO_BYTES, MAX_HELLO_BYTES);
    let header = reader.header().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    if header.kind != FrameKind::Hello {
        return Err(HelloError::Foreign.into());
    }
    let (meta, _) = reader.body(&header).await?;
    let hello = match decode_hello(&meta) {
        Ok(hello) => hello,
        Err(error) => {
            if matches!(error, HelloError::Version(_)) {
                send_answer(&mut stream, &HelloAnswer::Refused(Refusal::OtherVersion)).await?;
            }
            return Err(error.into());
        }
    };
    let decision = shared.admit(&hello);
    let answer = match decision {
        Ok(()) => HelloAnswer::Welcome(shared.me()),
        Err(refusal) => HelloAnswer::Refused(refusal),
    };
    send_answer(&mut stream, &answer).await?;
    decision.map(|()| (stream, hello)).map_err(InboundError::Refused)
}

async fn send_answer(stream: &mut PeerStream, answer: &HelloAnswer) -> Result<(), InboundError> {
    let answer = encode_answer(answer).map_err(ReadFrameError::from)?;
    Ok(stream.write_all(&answer).await?)
}

/// Serves an accepted connection until it breaks or is replaced.
async fn receive(shared: Arc<Shared>, stream: PeerStream, hello: Hello, mut stop: watch::Receiver<bool>) {
    let (identity, lane) = (hello.from, hello.lane);
    let (id, mut cancelled) = shared.register(identity, lane);
    let buffer_bytes = if lane == Lane::Control { CONTROL_BUFFER_BYTES } else { DATA_BUFFER_BYTES };
    let limit = match lane {
        Lane::Control => shared.limits.max_control_frame_bytes,
        Lane::Data | Lane::Bulk => shared.limits.max_data_frame_bytes,
    };
    let reader = FrameReader::new(stream, buffer_bytes, limit);
    let mut connection = Connection { shared: &shared, identity, lane, reader, batch: Vec::new() };
    let ended = tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        _ = cancelled.wait_for(|cancelled| *cancelled) => Ok(()),
        ended = connection.run() => ended,
    };
    shared.unregister(identity.node, lane, id);
    if let Some(link) = shared.link_to(identity.node).filter(|_| lane != Lane::Control) {
        // The other half of what waits was to come here.
        link.reunion.lock().clear(identity.incarnation);
    }
    match ended {
        Ok(()) | Err(InboundError::Read(ReadFrameError::Io(_))) => {
            tracing::debug!(node = %identity.node, ?lane, "an incoming connection ended");
        }
        Err(error) => {
            tracing::warn!(node = %identity.node, ?lane, "an incoming connection was closed: {error}");
        }
    }
}

struct Connection<'a> {
    shared: &'a Shared,
    identity: Identity,
    lane: Lane,
    reader: FrameReader<PeerStream>,
    batch: Vec<Inbound>,
}

impl Connection<'_> {
    async fn run(&mut self) -> Result<(), InboundError> {
        while let Some(header) = self.reader.header().await? {
            if header.kind == FrameKind::Payloads {
                self.with_reunion(|reunion| reunion.payloads_begin(Instant::now()));
            }
            let permit = self.permit(&header).await;
            let (meta, payloads) = timeout(self.shared.limits.stall, self.reader.body(&header))
                .await
                .map_err(|_| InboundError::Stalled)??;
            if !self.shared.is_current(&self.identity) {
                return Ok(());
            }
            match header.kind {
                FrameKind::Raft if self.lane != Lane::Bulk => self.raft(&meta, payloads, permit)?,
                FrameKind::Description if self.lane == Lane::Data => self.description(meta)?,
                FrameKind::Payloads if self.lane == Lane::Bulk => self.payloads(&meta, payloads, permit)?,
                FrameKind::Control if self.lane == Lane::Control => {
                    self.deliver();
                    self.control(control::decode(&meta)?);
                }
                FrameKind::Repair if self.lane == Lane::Data => {
                    let message = codec::repair::decode(&meta, payloads)?;
                    if self.shared.me().shares_cluster_with(&self.identity) {
                        self.shared.events.repair(self.identity.node, message, permit);
                    } else {
                        self.shared.misdirected.fetch_add(1, Ordering::Relaxed);
                    }
                }
                kind => return Err(InboundError::WrongLane { kind, lane: self.lane }),
            }
            // What has arrived already is handed over together.
            if self.batch.len() >= BATCH_MESSAGES || self.reader.arrived().is_none() {
                self.deliver();
            }
        }
        Ok(())
    }

    /// Takes a share of the receive budget before memory is taken for a body. Control messages are short and must not
    /// wait for it.
    async fn permit(&mut self, header: &FrameHeader) -> Option<ReceivePermit> {
        if self.lane == Lane::Control {
            return None;
        }
        let budget = match self.lane {
            Lane::Bulk => &self.shared.bulk_budget,
            Lane::Control | Lane::Data => &self.shared.receive_budget,
        };
        // A frame longer than the whole budget is let in alone.
        let bytes = (FRAME_HEADER_BYTES + header.body_length).min(self.shared.limits.receive_budget_bytes);
        let share = u32::try_from(bytes).unwrap_or(u32::MAX);
        let permit = match Arc::clone(budget).try_acquire_many_owned(share) {
            Ok(permit) => permit,
            Err(_) => {
                // Whoever holds the budget may be waiting for what is collected here.
                self.deliver();
                Arc::clone(budget).acquire_many_owned(share).await.ok()?
            }
        };
        Some(ReceivePermit(permit))
    }

    /// A message in one part.
    fn raft(
        &mut self,
        meta: &[u8],
        payloads: Bytes,
        permit: Option<ReceivePermit>,
    ) -> Result<(), InboundError> {
        let message = codec::decode(meta, payloads)?;
        if self.lane == Lane::Control && !message.body.is_control() {
            return Err(InboundError::WrongLane { kind: FrameKind::Raft, lane: self.lane });
        }
        let group = message.group;
        let inbound = Inbound { message, permit };
        // Only what comes from a leader has an order to keep.
        let is_ordered =
            matches!(inbound.message.body, MessageBody::Append(_) | MessageBody::InstallStart { .. });
        let passed = if is_ordered {
            self.with_reunion(|reunion| reunion.whole(group, inbound))
        } else {
            Some(inbound)
        };
        match passed {
            Some(inbound) => self.pass(inbound),
            None => self.give_up_late()?,
        }
        Ok(())
    }

    /// What a message says; its payloads come on the bulk lane.
    fn description(&mut self, mut meta: Bytes) -> Result<(), InboundError> {
        let number = meta.try_get_u64_le().map_err(|_| DecodeError::Short)?;
        let group = codec::group_of(&meta)?;
        if self.with_reunion(|reunion| reunion.described(Instant::now(), group, number, meta)) {
            return self.deliver_joined(group);
        }
        self.give_up_late()
    }

    /// The payloads of a message; what it says comes on the data lane.
    fn payloads(
        &mut self,
        mut meta: &[u8],
        payloads: Bytes,
        permit: Option<ReceivePermit>,
    ) -> Result<(), InboundError> {
        let number = meta.try_get_u64_le().map_err(|_| DecodeError::Short)?;
        let arrived = |reunion: &mut Reunion| reunion.payloads(Instant::now(), number, payloads, permit);
        self.with_reunion(arrived).into_iter().try_for_each(|group| self.deliver_joined(group))
    }

    /// Looked at when something has to wait: whoever sends it would wait for an answer in vain.
    fn give_up_late(&mut self) -> Result<(), InboundError> {
        let late = self.with_reunion(|reunion| reunion.give_up_late(Instant::now()));
        late.into_iter().try_for_each(|group| self.deliver_joined(group))
    }

    /// Hands over what can go on of a group, in order.
    fn deliver_joined(&mut self, group: GroupId) -> Result<(), InboundError> {
        while let Some(ready) = self.with_reunion(|reunion| reunion.next(group)) {
            match ready {
                Ready::Whole(inbound) => self.pass(inbound),
                Ready::Joined { meta, payloads, permit } => {
                    let message = codec::decode(&meta, payloads)?;
                    self.pass(Inbound { message, permit });
                }
            }
            self.deliver();
        }
        Ok(())
    }

    fn with_reunion<T>(&self, act: impl FnOnce(&mut Reunion) -> T) -> T {
        let link = self.shared.link_to(self.identity.node).expect("only nodes of --peers are admitted");
        act(link.reunion.lock().of(self.identity.incarnation))
    }

    /// Takes a message if it is for this process, and from the one at the other end.
    fn pass(&mut self, inbound: Inbound) {
        let (me, message) = (self.shared.me(), &inbound.message);
        let addressed = message.to == me.replica
            && (message.to_incarnation.get() == 0 || message.to_incarnation == me.incarnation);
        let named =
            message.from == self.identity.replica && message.from_incarnation == self.identity.incarnation;
        if addressed && named && me.shares_cluster_with(&self.identity) {
            self.batch.push(inbound);
        } else {
            self.shared.misdirected.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn control(&self, message: ControlMessage) {
        if !message.is_founding() && !self.shared.me().shares_cluster_with(&self.identity) {
            self.shared.misdirected.fetch_add(1, Ordering::Relaxed);
            return;
        }
        match message {
            ControlMessage::Heartbeat(heartbeat) => {
                self.shared.heartbeats.on_heartbeat(self.shared, &self.identity, &heartbeat);
            }
            ControlMessage::HeartbeatAnswer(answer) => {
                self.shared.heartbeats.on_answer(self.shared, &self.identity, &answer);
            }
            message => self.shared.events.control(self.identity, message),
        }
    }

    fn deliver(&mut self) {
        if !self.batch.is_empty() {
            self.shared.events.raft(std::mem::take(&mut self.batch));
        }
    }
}
