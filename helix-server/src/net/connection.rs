//! One client connection: reads requests in order, starts them, and lets the writer answer in the same order.
//!
//! Memory comes before bytes: a request's size is reserved from its length prefix, before its body is read. When the produce
//! budget is used up the broker stops reading in front of the body, so that TCP slows the client down; only when that has
//! taken too long the body is read past and refused with a code that every client retries.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::complaints::Complaints;
use super::frame::{self, FrameError, LENGTH_BYTES, RequestHead};
use super::reader::FrameReader;
use super::{skeleton, writer};
use crate::api::{self, ClientInfo, PendingOutcome, Request, RequestError, table};
use crate::broker::Broker;
use crate::broker::budget::Permit;
use crate::env::watch;

/// Requests of one connection that may wait for their answers.
const MAX_PIPELINED: usize = 1024;
/// The rest of a request that has begun must arrive within this time.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// A client that takes none of its answer for this long is gone.
const WRITE_STALL_LIMIT: Duration = Duration::from_secs(30);
/// The longest time for which reading stops in front of a produce body: clients send heartbeats on the same connection.
const MAX_HOLD: Duration = Duration::from_secs(5);
/// What is assumed of a produce request whose timeout cannot be seen yet.
const DEFAULT_TIMEOUT_MS: i32 = 10_000;
/// Requests other than Produce are small; a larger one is refused before it takes memory.
const MAX_OTHER_REQUEST_BYTES: usize = 8 << 20;
/// For this long after the broker refused a produce request, gaps in sequences on that connection are its own doing.
const REJECTION_MEMORY: Duration = Duration::from_secs(120);
/// First bytes of a produce body that hold acks and timeout, if the transactional id is not absurd.
const PRODUCE_PEEK_BYTES: usize = 64;

/// Why a connection ends.
#[derive(Debug, Error)]
pub(crate) enum ConnectionError {
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{api} version {version} is not served")]
    Unserved { api: String, version: i16 },
    #[error("a request of {bytes} bytes to API {api} is larger than any such request needs to be")]
    TooLarge { api: i16, bytes: usize },
    #[error("{api:?} version {version}: {source}")]
    Request { api: ApiKey, version: i16, source: RequestError },
}

/// Serves a connection until it ends. Once `stop` says so no further request is read; those that were are answered.
pub(crate) async fn serve(
    socket: TcpStream,
    broker: Arc<Broker>,
    complaints: &Complaints,
    stop: watch::Receiver<bool>,
) {
    let client_host =
        socket.peer_addr().map_or_else(|_| String::new(), |address| format!("/{}", address.ip()));
    let peer = socket.peer_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
    if let Err(error) = socket.set_nodelay(true) {
        debug!(peer, %error, "TCP_NODELAY could not be set");
    }
    let (incoming, outgoing) = socket.into_split();
    let (answers, queue) = mpsc::channel(MAX_PIPELINED);
    let reader = FrameReader::new(incoming, BODY_DEADLINE);
    let mut connection = Connection {
        broker: Arc::clone(&broker),
        reader,
        answers,
        client_host,
        refused_at: None,
        stop,
        reading: watch::Sender::new(()),
    };
    let reading = async move { connection.run().await };
    let writing = writer::run(outgoing, queue, WRITE_STALL_LIMIT);
    tokio::pin!(reading, writing);
    let ended = tokio::select! {
        biased;
        ended = &mut reading => {
            // The client may have closed only its sending side: what it asked for is still answered.
            match ended {
                Ok(()) => writing.await.map(drop).map_err(ConnectionError::from),
                Err(error) => Err(error),
            }
        }
        ended = &mut writing => ended.map(drop).map_err(ConnectionError::from),
    };
    match ended {
        Ok(()) => debug!(peer, "connection ended"),
        Err(ConnectionError::Socket(error)) => debug!(peer, %error, "connection lost"),
        Err(error) => {
            broker.metrics().connection_refused_request();
            complaints.closed(&peer, &error);
        }
    }
}

struct Connection {
    broker: Arc<Broker>,
    reader: FrameReader<OwnedReadHalf>,
    answers: mpsc::Sender<PendingOutcome>,
    /// Where the client is, as Kafka writes it.
    client_host: String,
    /// When the broker last refused a produce request of this connection.
    refused_at: Option<Instant>,
    /// The node stops.
    stop: watch::Receiver<bool>,
    /// Each request looks whether this is still there; see [`Request::reading`].
    reading: watch::Sender<()>,
}

impl Connection {
    async fn run(&mut self) -> Result<(), ConnectionError> {
        let idle_limit = self.broker.config().connections_max_idle();
        let max_bytes = self.broker.config().socket_request_max_bytes;
        loop {
            let begun = tokio::select! {
                biased;
                _ = self.stop.wait_for(|stop| *stop) => return Ok(()),
                begun = tokio::time::timeout(idle_limit, self.reader.fill(LENGTH_BYTES)) => begun,
            };
            match begun {
                Err(_) | Ok(Ok(false)) => return Ok(()),
                Ok(Ok(true)) => {}
                Ok(Err(error)) => return Err(error.into()),
            }
            let mut prefix = [0; LENGTH_BYTES];
            prefix.copy_from_slice(&self.reader.buffered()[..LENGTH_BYTES]);
            self.reader.consume(LENGTH_BYTES);
            let frame_bytes = frame::frame_bytes(prefix, max_bytes)?;
            let received = Instant::now();
            let head = self.head(frame_bytes).await?;
            let Some(pending) = self.request(&head, frame_bytes, received).await? else { continue };
            if self.answers.send(pending).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn head(&mut self, frame_bytes: usize) -> Result<RequestHead, ConnectionError> {
        loop {
            if let Some(head) = frame::peek_head(self.reader.buffered(), frame_bytes)? {
                return Ok(head);
            }
            let more = self.reader.buffered().len() + 1;
            self.reader.fill_frame(more).await?;
        }
    }

    /// Reads one request and starts it.
    async fn request(
        &mut self,
        head: &RequestHead,
        frame_bytes: usize,
        received: Instant,
    ) -> Result<Option<PendingOutcome>, ConnectionError> {
        let unserved =
            || ConnectionError::Unserved { api: api_name(head.api_key), version: head.api_version };
        let served = table::served(head.api_key).ok_or_else(unserved)?;
        let body_bytes = frame_bytes - head.body_at;
        if !(served.min..=served.max).contains(&head.api_version) {
            if served.key != ApiKey::ApiVersions {
                return Err(unserved());
            }
            // KIP-511: whatever a newer client asks in, it is told what is served.
            self.reader.discard(frame_bytes).await?;
            let outcome = api::unsupported_api_versions(head.correlation_id);
            return Ok(Some(Box::pin(std::future::ready(outcome))));
        }
        let produce = served.key == ApiKey::Produce;
        if !produce && frame_bytes > MAX_OTHER_REQUEST_BYTES {
            return Err(ConnectionError::TooLarge { api: head.api_key, bytes: frame_bytes });
        }
        let (permits, hold_until) = if produce {
            let hold_until = self.hold_until(head, body_bytes).await?;
            match self.admit_produce(frame_bytes, hold_until).await {
                Some(permits) => (permits, hold_until),
                None => return self.refuse_produce(head, body_bytes).await,
            }
        } else {
            let permit = self.broker.budgets().other_requests.acquire(frame_bytes).await;
            (vec![permit], Instant::now())
        };
        let client = (served.key == ApiKey::JoinGroup).then(|| self.client(head));
        self.reader.consume_head(head.body_at).await?;
        let body = self.reader.take(body_bytes).await?;
        let request = Request {
            client,
            api_key: served.key,
            version: head.api_version,
            correlation_id: head.correlation_id,
            body,
            permits,
            after_rejection: self.refused_at.is_some_and(|at| at.elapsed() < REJECTION_MEMORY),
            hold_until,
            reading: self.reading.subscribe(),
        };
        self.broker.metrics().request_received(served.key, frame_bytes);
        let (api, version) = (served.key, head.api_version);
        let pending = api::start(&self.broker, request).await.map_err(|source| ConnectionError::Request {
            api,
            version,
            source,
        })?;
        Ok(Some(measured(&self.broker, api, received, pending)))
    }

    /// Who asks; the header is buffered.
    fn client(&self, head: &RequestHead) -> ClientInfo {
        let bytes = head.client_id.clone().and_then(|range| self.reader.buffered().get(range));
        let id = bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        ClientInfo { id: id.unwrap_or_default(), host: self.client_host.clone() }
    }

    /// Until when a produce request may be held: half of what its client waits, and never so long that the client's heartbeats
    /// on the same connection come too late.
    async fn hold_until(
        &mut self,
        head: &RequestHead,
        body_bytes: usize,
    ) -> Result<Instant, ConnectionError> {
        self.reader.fill_frame(head.body_at + body_bytes.min(PRODUCE_PEEK_BYTES)).await?;
        let peeked = frame::peek_produce(head, &self.reader.buffered()[head.body_at..]);
        let timeout_ms = peeked.map_or(DEFAULT_TIMEOUT_MS, |p| p.timeout_ms).max(0);
        let hold = (Duration::from_millis(timeout_ms as u64) / 2).min(MAX_HOLD);
        Ok(Instant::now() + hold)
    }

    /// Waits for room in the produce budgets. `None`: there was none in time.
    async fn admit_produce(&self, bytes: usize, until: Instant) -> Option<Vec<Permit>> {
        let budgets = self.broker.budgets();
        if let (Some(bytes), Some(request)) =
            (budgets.produce_bytes.try_acquire(bytes), budgets.produce_requests.try_acquire(1))
        {
            return Some(vec![bytes, request]);
        }
        self.broker.metrics().produce_held();
        let both = async {
            let bytes = budgets.produce_bytes.acquire(bytes).await;
            vec![bytes, budgets.produce_requests.acquire(1).await]
        };
        tokio::time::timeout_at(until, both).await.ok()
    }

    /// Reads past a produce request that there is no memory for, and refuses it whole.
    async fn refuse_produce(
        &mut self,
        head: &RequestHead,
        body_bytes: usize,
    ) -> Result<Option<PendingOutcome>, ConnectionError> {
        self.broker.metrics().produce_refused();
        self.refused_at = Some(Instant::now());
        let peeked = frame::peek_produce(head, &self.reader.buffered()[head.body_at..]);
        self.reader.consume_head(head.body_at).await?;
        let topics = skeleton::read(&mut self.reader, body_bytes, head.api_version).await?;
        let outcome = if peeked.is_some_and(|p| p.acks == 0) {
            // Nobody waits for an answer; closing is how such a client learns that something was lost.
            api::Outcome::Close
        } else {
            api::refused_produce(head.correlation_id, head.api_version, topics)
        };
        Ok(Some(Box::pin(std::future::ready(outcome))))
    }
}

/// An answer that reports how long it took when it is ready.
fn measured(broker: &Arc<Broker>, api: ApiKey, received: Instant, pending: PendingOutcome) -> PendingOutcome {
    let metrics = Arc::clone(broker.metrics());
    Box::pin(async move {
        let outcome = pending.await;
        let bytes = match &outcome {
            api::Outcome::Response(response) => response.chunks.iter().map(bytes::Bytes::len).sum(),
            api::Outcome::Silent | api::Outcome::Close => 0,
        };
        metrics.request_answered(api, bytes, received.elapsed());
        outcome
    })
}

fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|_| format!("API {key}"), |api| format!("{api:?}"))
}
