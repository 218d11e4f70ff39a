//! The Kafka APIs: one file each. A request comes in as bytes, passes the guard and the decoder, and its answer leaves
//! as chunks. Handlers are thin: they validate, call the broker, and shape what it says.

pub(crate) mod errors;
pub(crate) mod names;
pub mod table;

mod alter_configs;
mod answer_room;
mod api_versions;
mod configs;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_topic_partitions;
mod elect_leaders;
mod fetch;
mod fetch_encode;
mod fetch_plan;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_config_resources;
mod list_groups;
mod list_offsets;
mod mentions;
mod metadata;
mod offset_commit;
mod offset_delete;
mod offset_fetch;
mod offset_for_leader_epoch;
mod operations;
mod partition_standing;
mod produce;
mod sync_group;

use std::sync::Arc;

use answer_room::AnswerRoom;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use thiserror::Error;
use uuid::Uuid;

use crate::broker::Broker;
use crate::broker::budget::Permit;
use crate::broker::leaders::CurrentLeader;
use crate::env::watch;
use crate::ids::NodeId;
use crate::net::guard;

/// What decoding one request may allocate besides the request's own bytes.
pub const DECODE_LIMITS: guard::GuardLimits = guard::GuardLimits { max_decoded_bytes: 32 << 20 };

/// Who asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientInfo {
    /// As it calls itself.
    pub(crate) id: String,
    /// Where it is, as Kafka writes addresses: with a slash in front.
    pub(crate) host: String,
}

/// A text of a request that is kept longer than the request.
fn owned(text: Option<&StrBytes>) -> Option<String> {
    text.map(ToString::to_string)
}

/// A request as it came from a connection: header read, body not yet.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) api_key: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// Who asks, where that matters: of members of groups it is kept.
    pub(crate) client: Option<ClientInfo>,
    pub(crate) body: Bytes,
    /// Shares of the budgets that the request's bytes take.
    pub(crate) permits: Vec<Permit>,
    /// The broker refused an earlier produce request of this connection.
    pub(crate) after_rejection: bool,
    /// Until when a produce request may still be held back.
    pub(crate) hold_until: tokio::time::Instant,
    /// Its sender is dropped when no more requests are read from the connection, because the client is gone or the node stops:
    /// what can be answered early should be.
    pub(crate) reading: watch::Receiver<()>,
}

/// What leaves for the client: chunks that follow each other behind a length prefix, and what is held until they are gone.
#[derive(Debug)]
pub struct Response {
    /// The answer, header first.
    pub chunks: Vec<Bytes>,
    /// Its share of the budget of fetch responses, or of that of other large answers.
    pub permit: Option<Permit>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// This leaves for the client.
    Response(Response),
    /// Nothing is answered (`acks=0`).
    Silent,
    /// The connection is closed.
    Close,
}

impl Outcome {
    /// The same, with something that is held until it has left.
    fn holding(self, permit: Option<Permit>) -> Self {
        match self {
            Self::Response(response) => Self::Response(Response { permit, ..response }),
            other => other,
        }
    }
}

/// An answer that is on its way.
pub(crate) type PendingOutcome = BoxFuture<'static, Outcome>;

/// Why a request cannot be answered at all; the connection is closed, as Kafka does.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    #[error("refused before decoding: {0}")]
    Guard(#[from] guard::GuardError),
    #[error("cannot be decoded: {0}")]
    Decode(String),
}

/// Where a leader listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderEndpoint {
    pub(crate) node: NodeId,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rack: Option<String>,
}

/// The distinct endpoints of the given leaders.
pub(crate) fn leader_endpoints(
    broker: &Broker,
    leaders: impl Iterator<Item = Option<CurrentLeader>>,
) -> Vec<LeaderEndpoint> {
    let mut nodes: Vec<NodeId> = leaders.flatten().map(|leader| leader.node).collect();
    if nodes.is_empty() {
        return Vec::new();
    }
    nodes.sort_unstable();
    nodes.dedup();
    let image = broker.image();
    nodes
        .into_iter()
        .filter_map(|node| image.broker(node))
        .map(|b| LeaderEndpoint { node: b.node, host: b.host.clone(), port: b.port, rack: b.rack.clone() })
        .collect()
}

/// Starts a request. What must happen in the order of arrival (appends) has happened when this returns; the rest happens
/// when the answer's turn comes.
///
/// # Errors
/// When the request is no request. Nothing was done then.
pub(crate) async fn start(broker: &Arc<Broker>, request: Request) -> Result<PendingOutcome, RequestError> {
    match request.api_key {
        ApiKey::Produce => start_produce(broker, request).await,
        ApiKey::Fetch => start_fetch(broker, request),
        _ => start_later(broker, request),
    }
}

async fn start_produce(broker: &Arc<Broker>, request: Request) -> Result<PendingOutcome, RequestError> {
    let (decoded, reply, version) = (decode(&request)?, Reply::to(&request), request.version);
    let admission = produce::Admission {
        permits: request.permits,
        after_rejection: request.after_rejection,
        hold_until: request.hold_until,
    };
    let answer = produce::start(Arc::clone(broker), decoded, version, admission).await;
    Ok(Box::pin(async move {
        match answer.await {
            produce::Answer::Response(response) => reply.whole(&response),
            produce::Answer::Silent => Outcome::Silent,
            produce::Answer::Close => Outcome::Close,
        }
    }))
}

fn start_fetch(broker: &Arc<Broker>, request: Request) -> Result<PendingOutcome, RequestError> {
    let (decoded, reply, version) = (decode(&request)?, Reply::to(&request), request.version);
    let (broker, reading) = (Arc::clone(broker), request.reading);
    Ok(Box::pin(async move {
        let (chunks, permit) = fetch::handle(&broker, decoded, version, reading).await.encode(version);
        reply.chunks(chunks, permit)
    }))
}

/// Decodes now, so that bad bytes end the connection at once, and answers later.
macro_rules! later {
    ($broker:expr, $request:expr, |$b:ident, $decoded:ident| $answer:expr) => {{
        let ($decoded, reply) = (decode(&$request)?, Reply::to(&$request));
        let (broker, permits) = (Arc::clone($broker), $request.permits);
        Box::pin(async move {
            let response = {
                let $b = &*broker;
                $answer
            };
            drop(permits);
            reply.whole(&response)
        })
    }};
}

/// As [`later`], for what waits until other members of a group have sent theirs: the handler gives the request's memory back before
/// it waits, or those others could not be read. It ends with its connection.
macro_rules! with_others {
    ($broker:expr, $request:expr, |$b:ident, $decoded:ident, $permits:ident| $answer:expr) => {{
        let ($decoded, reply) = (decode(&$request)?, Reply::to(&$request));
        let (broker, $permits, mut reading) = (Arc::clone($broker), $request.permits, $request.reading);
        Box::pin(async move {
            let $b = &*broker;
            tokio::select! {
                biased;
                // Nothing is ever sent: the sender is gone. What has not begun by then must not: its client may have asked again elsewhere, and
                // would lose to itself.
                _ = reading.changed() => Outcome::Close,
                response = $answer => reply.whole(&response),
            }
        })
    }};
}

/// The same for answers that can be much larger than their requests: they are put together in a room.
macro_rules! roomy {
    ($broker:expr, $request:expr, |$b:ident, $decoded:ident, $room:ident| $answer:expr) => {{
        let ($decoded, reply) = (decode(&$request)?, Reply::to(&$request));
        let (broker, permits) = (Arc::clone($broker), $request.permits);
        Box::pin(async move {
            let mut room = AnswerRoom::of(&broker.budgets().answers);
            let response = {
                let ($b, $room) = (&*broker, &mut room);
                $answer
            };
            drop(permits);
            reply.whole(&response).holding(room.into_permit())
        })
    }};
}

fn start_later(broker: &Arc<Broker>, request: Request) -> Result<PendingOutcome, RequestError> {
    let version = request.version;
    Ok(match request.api_key {
        ApiKey::ListOffsets => later!(broker, request, |b, r| list_offsets::handle(b, r, version).await),
        ApiKey::Metadata => later!(broker, request, |b, r| metadata::handle(b, r, version).await),
        ApiKey::ApiVersions => later!(broker, request, |_b, r| api_versions::handle(&r, version)),
        ApiKey::CreateTopics => {
            roomy!(broker, request, |b, r, room| create_topics::handle(b, r, version, room).await)
        }
        ApiKey::DeleteTopics => later!(broker, request, |b, r| delete_topics::handle(b, r, version).await),
        ApiKey::DeleteRecords => later!(broker, request, |b, r| delete_records::handle(b, r).await),
        ApiKey::InitProducerId => later!(broker, request, |b, r| init_producer_id::handle(b, &r).await),
        ApiKey::OffsetForLeaderEpoch => later!(broker, request, |b, r| offset_for_leader_epoch::handle(b, r)),
        ApiKey::CreatePartitions => later!(broker, request, |b, r| create_partitions::handle(b, r).await),
        ApiKey::FindCoordinator
        | ApiKey::JoinGroup
        | ApiKey::SyncGroup
        | ApiKey::Heartbeat
        | ApiKey::LeaveGroup
        | ApiKey::OffsetCommit
        | ApiKey::OffsetFetch
        | ApiKey::OffsetDelete
        | ApiKey::DescribeGroups
        | ApiKey::ListGroups
        | ApiKey::DeleteGroups => return start_of_group(broker, request),
        _ => return start_of_admin(broker, request),
    })
}

fn start_of_group(broker: &Arc<Broker>, request: Request) -> Result<PendingOutcome, RequestError> {
    let version = request.version;
    Ok(match request.api_key {
        ApiKey::FindCoordinator => {
            later!(broker, request, |b, r| find_coordinator::handle(b, r, version).await)
        }
        ApiKey::JoinGroup => {
            let client = request.client.clone().unwrap_or_default();
            with_others!(broker, request, |b, r, held| join_group::handle(b, r, version, client, held))
        }
        ApiKey::SyncGroup => {
            with_others!(broker, request, |b, r, held| sync_group::handle(b, r, version, held))
        }
        ApiKey::Heartbeat => later!(broker, request, |b, r| heartbeat::handle(b, r).await),
        ApiKey::LeaveGroup => later!(broker, request, |b, r| leave_group::handle(b, r, version).await),
        ApiKey::OffsetCommit => later!(broker, request, |b, r| offset_commit::handle(b, r, version).await),
        ApiKey::OffsetFetch => {
            roomy!(broker, request, |b, r, room| offset_fetch::handle(b, r, version, room).await)
        }
        ApiKey::OffsetDelete => later!(broker, request, |b, r| offset_delete::handle(b, r).await),
        ApiKey::DescribeGroups => {
            roomy!(broker, request, |b, r, room| describe_groups::handle(b, r, version, room).await)
        }
        ApiKey::ListGroups => later!(broker, request, |b, r| list_groups::handle(b, r, version).await),
        ApiKey::DeleteGroups => later!(broker, request, |b, r| delete_groups::handle(b, r).await),
        _ => unserved(),
    })
}

fn start_of_admin(broker: &Arc<Broker>, request: Request) -> Result<PendingOutcome, RequestError> {
    let version = request.version;
    Ok(match request.api_key {
        ApiKey::DescribeCluster => later!(broker, request, |b, r| describe_cluster::handle(b, &r, version)),
        ApiKey::DescribeConfigs => {
            roomy!(broker, request, |b, r, room| describe_configs::handle(b, &r, version, room).await)
        }
        ApiKey::AlterConfigs => later!(broker, request, |b, r| alter_configs::handle(b, r).await),
        ApiKey::IncrementalAlterConfigs => {
            later!(broker, request, |b, r| incremental_alter_configs::handle(b, r).await)
        }
        ApiKey::ListConfigResources => {
            later!(broker, request, |b, r| list_config_resources::handle(b, &r, version))
        }
        ApiKey::DescribeLogDirs => later!(broker, request, |b, r| describe_log_dirs::handle(b, &r, version)),
        ApiKey::ElectLeaders => {
            roomy!(broker, request, |b, r, room| elect_leaders::handle(b, r, version, room).await)
        }
        ApiKey::DescribeQuorum => {
            later!(broker, request, |b, r| describe_quorum::handle(b, r, version).await)
        }
        ApiKey::DescribeProducers => {
            roomy!(broker, request, |b, r, room| describe_producers::handle(b, r, version, room).await)
        }
        ApiKey::DescribeTopicPartitions => {
            later!(broker, request, |b, r| describe_topic_partitions::handle(b, &r).await)
        }
        _ => unserved(),
    })
}

/// The connection looks requests up in the table before they get here.
fn unserved() -> PendingOutcome {
    Box::pin(std::future::ready(Outcome::Close))
}

/// The answer to an ApiVersions request of an unknown version.
pub(crate) fn unsupported_api_versions(correlation_id: i32) -> Outcome {
    Reply { correlation_id, key: ApiKey::ApiVersions, version: 0 }.whole(&api_versions::unsupported())
}

/// The answer to a produce request whose records were not read: nothing was appended, retry.
pub fn refused_produce(
    correlation_id: i32,
    version: i16,
    topics: Vec<(TopicName, Uuid, Vec<i32>)>,
) -> Outcome {
    Reply { correlation_id, key: ApiKey::Produce, version }.whole(&produce::refused(topics, version))
}

fn decode<T: Decodable>(request: &Request) -> Result<T, RequestError> {
    guard::check(request.api_key as i16, request.version, &request.body, &DECODE_LIMITS)?;
    let mut body = request.body.clone();
    T::decode(&mut body, request.version).map_err(|error| RequestError::Decode(error.to_string()))
}

/// How an answer's header is written.
#[derive(Debug, Clone, Copy)]
struct Reply {
    correlation_id: i32,
    key: ApiKey,
    version: i16,
}

impl Reply {
    fn to(request: &Request) -> Self {
        Self { correlation_id: request.correlation_id, key: request.api_key, version: request.version }
    }

    fn header(self) -> BytesMut {
        let mut out = BytesMut::with_capacity(64);
        out.put_i32(self.correlation_id);
        if self.key.response_header_version(self.version) >= 1 {
            out.put_u8(0); // no tagged fields
        }
        out
    }

    fn whole<T: Encodable>(self, response: &T) -> Outcome {
        let mut out = self.header();
        if let Err(error) = response.encode(&mut out, self.version) {
            tracing::error!(api = ?self.key, version = self.version, %error, "an answer cannot be encoded");
            return Outcome::Close;
        }
        Outcome::Response(Response { chunks: vec![out.freeze()], permit: None })
    }

    fn chunks(self, body: Vec<Bytes>, permit: Option<Permit>) -> Outcome {
        let mut chunks = Vec::with_capacity(body.len() + 1);
        chunks.push(self.header().freeze());
        chunks.extend(body);
        Outcome::Response(Response { chunks, permit })
    }
}
