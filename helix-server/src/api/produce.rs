//! Produce (key 0): validates every batch, hands each to the owner of its partition, answers when all are decided.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use helix_raft::GroupId;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ApiKey, BrokerId, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::errors::{self, ApiError};
use super::leader_endpoints;
use crate::broker::Broker;
use crate::broker::batch::{BatchError, ProduceRules, ValidBatch, validate_produce};
use crate::broker::budget::Permit;
use crate::broker::leaders::CurrentLeader;
use crate::broker::produce::{Acks, AppendError, AppendRequest, AppendResult, expect_answers};
use crate::controller::internal_topics;
use crate::partition::view::PartitionView;

/// No partition takes more than this part of the produce budget.
const PARTITION_SHARE: usize = 4;

/// What a request is admitted with.
pub(super) struct Admission {
    /// Its share of the budgets.
    pub(super) permits: Vec<Permit>,
    /// The broker refused an earlier produce request of this connection.
    pub(super) after_rejection: bool,
    /// Until when the connection may be held.
    pub(super) hold_until: Instant,
}

/// Places of the answers, to be filled in as results come.
struct Shape {
    topics: Vec<ShapedTopic>,
}

/// A topic's name or id, and the place of each of its partitions.
type ShapedTopic = (TopicName, Uuid, Vec<(i32, Place)>);

/// Where a partition's answer comes from.
enum Place {
    Decided(AppendError, Option<GroupId>),
    Slot(usize, GroupId),
}

/// A batch that passed validation, on its way to its owner.
struct Ready {
    view: Arc<PartitionView>,
    batch: ValidBatch,
}

/// Starts the appends, in order, before it returns; the future that it returns only waits for them. `None` from that
/// future: the connection is to be closed, which is how `acks=0` learns of errors.
pub(super) async fn start(
    broker: Arc<Broker>,
    request: ProduceRequest,
    version: i16,
    admission: Admission,
) -> impl Future<Output = Answer> + Send + 'static {
    let timeout =
        Duration::from_millis(request.timeout_ms.max(0) as u64).min(broker.config().commit_timeout());
    let acks = match request.acks {
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        -1 => Ok(Acks::All),
        _ => Err(AppendError::InvalidRequiredAcks),
    };
    let whole = match (&acks, &request.transactional_id) {
        (Err(error), _) => Some(error.clone()),
        (_, Some(_)) => Some(AppendError::TransactionsUnsupported),
        _ => None,
    };
    let mut admission = admission;
    let (mut shape, ready) = validate(&broker, request, version, whole.as_ref(), &mut admission).await;
    let acks = acks.unwrap_or(Acks::All);
    let full = !wait_for_shares(&broker, &ready, admission.hold_until).await;
    let (replies, outcome) = expect_answers(if full { 0 } else { ready.len() }, admission.permits);
    if full {
        let now = Instant::now();
        ready.iter().for_each(|ready| ready.view.note_refusal(now));
        shape.refuse_all(&AppendError::Overloaded);
    } else {
        for (ready, reply) in ready.into_iter().zip(replies) {
            let bytes = ready.batch.total_bytes();
            let pending = ready.view.add_pending(bytes);
            broker.append(AppendRequest {
                group: ready.view.group,
                batch: ready.batch,
                acks,
                leader_epoch: None,
                after_rejection: admission.after_rejection,
                reply,
                pending,
            });
        }
    }
    async move {
        let results = outcome.wait(timeout).await;
        if acks == Acks::None {
            // What is undecided has not failed, and nobody has asked to be told.
            let refused = |result: &AppendResult| !matches!(result, Ok(_) | Err(AppendError::Timeout));
            let failed = shape.failed() || results.iter().any(refused);
            return if failed { Answer::Close } else { Answer::Silent };
        }
        Answer::Response(shape.respond(&broker, results, version))
    }
}

/// What leaves for the client.
pub(super) enum Answer {
    Response(ProduceResponse),
    Silent,
    Close,
}

async fn validate(
    broker: &Broker,
    request: ProduceRequest,
    version: i16,
    whole: Option<&AppendError>,
    admission: &mut Admission,
) -> (Shape, Vec<Ready>) {
    let image = broker.image();
    let now_ms = broker.env().unix_ms();
    let mut ready = Vec::new();
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let by_id = version >= 13;
        let found = if by_id { image.topic(topic.topic_id) } else { image.topic_named(&topic.name) };
        let missing = if by_id { AppendError::UnknownTopicId } else { AppendError::UnknownPartition };
        let mut places = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let checked = match (whole, found) {
                (Some(error), _) => Err(error.clone()),
                (None, None) => Err(missing.clone()),
                (None, Some(topic)) => check_one(broker, topic, &data, now_ms, version, admission).await,
            };
            let place = match checked {
                Err(error) => {
                    let group = found.and_then(|t| t.partitions.get(usize::try_from(data.index).ok()?));
                    Place::Decided(error, group.map(|p| p.group))
                }
                Ok(one) => {
                    let place = Place::Slot(ready.len(), one.view.group);
                    ready.push(one);
                    place
                }
            };
            places.push((data.index, place));
        }
        topics.push((topic.name, topic.topic_id, places));
    }
    (Shape { topics }, ready)
}

async fn check_one(
    broker: &Broker,
    topic: &crate::controller::image::TopicImage,
    data: &PartitionProduceData,
    now_ms: i64,
    version: i16,
    admission: &mut Admission,
) -> Result<Ready, AppendError> {
    if internal_topics::is_internal(&topic.name) {
        return Err(AppendError::InternalTopic);
    }
    let view = broker.leading_view_of(topic, data.index, -1).map_err(|error| match error {
        ResponseError::UnknownTopicOrPartition => AppendError::UnknownPartition,
        _ => AppendError::NotLeader,
    })?;
    let records = data.records.as_ref().ok_or(AppendError::Batch(BatchError::Empty))?;
    let config = view.config();
    let rules = ProduceRules {
        max_batch_bytes: config.max_message_bytes,
        segment_bytes: config.segment_bytes,
        timestamps: config.timestamps,
        compression: config.compression,
        keyed: config.compacts,
        now_ms,
        produce_version: version,
    };
    let batch = if rules.take_time(records) {
        looked_into(broker, records.clone(), rules, admission).await.inspect_err(|error| {
            if *error == AppendError::Overloaded {
                view.note_refusal(Instant::now());
            }
        })?
    } else {
        validate_produce(records, &rules)?
    };
    if batch.header().is_transactional() {
        return Err(AppendError::TransactionsUnsupported);
    }
    Ok(Ready { view, batch })
}

/// Decompressing and compressing take long, so that they have a thread of their own, of which there are as many as may search by
/// timestamp. By what that makes larger the request is admitted anew, before the next batch of it is looked at.
async fn looked_into(
    broker: &Broker,
    records: Bytes,
    rules: ProduceRules,
    admission: &mut Admission,
) -> Result<ValidBatch, AppendError> {
    let (received, hold_until) = (records.len(), admission.hold_until);
    let thread = tokio::time::timeout_at(hold_until, broker.budgets().searches.acquire(1));
    let permit = thread.await.map_err(|_| AppendError::Overloaded)?;
    let look = move || {
        let _permit = permit;
        validate_produce(&records, &rules)
    };
    // The thread ends without an answer only when the node stops.
    let batch = broker.env().spawn_blocking(look).await.map_err(|_| AppendError::NotLeader)??;
    let growth = batch.total_bytes().saturating_sub(received);
    if growth > 0 {
        let room = tokio::time::timeout_at(hold_until, broker.budgets().produce_bytes.acquire(growth));
        admission.permits.push(room.await.map_err(|_| AppendError::Overloaded)?);
    }
    Ok(batch)
}

/// Waits until no partition of the request holds more than its share. Returns whether that came true in time.
async fn wait_for_shares(broker: &Broker, ready: &[Ready], until: Instant) -> bool {
    let share = broker.budgets().produce_bytes.limit() / PARTITION_SHARE;
    for one in ready {
        let fits = || {
            let pending = one.view.pending_bytes();
            pending == 0 || pending + one.batch.total_bytes() <= share
        };
        if fits() {
            continue;
        }
        let notify = Arc::new(tokio::sync::Notify::new());
        let _watch = one.view.watch_room(&notify);
        while !fits() {
            if tokio::time::timeout_at(until, notify.notified()).await.is_err() {
                return false;
            }
        }
    }
    true
}

impl Shape {
    /// A request is refused whole: whoever had a place gets the error, what was decided before stays.
    fn refuse_all(&mut self, error: &AppendError) {
        for (_, place) in self.topics.iter_mut().flat_map(|(_, _, places)| places) {
            if let Place::Slot(_, group) = place {
                *place = Place::Decided(error.clone(), Some(*group));
            }
        }
    }

    fn failed(&self) -> bool {
        self.topics.iter().flat_map(|(_, _, places)| places).any(|(_, p)| matches!(p, Place::Decided(..)))
    }

    fn respond(self, broker: &Broker, mut results: Vec<AppendResult>, version: i16) -> ProduceResponse {
        let mut leaders: Vec<Option<CurrentLeader>> = Vec::new();
        let responses = self
            .topics
            .into_iter()
            .map(|(name, topic_id, places)| {
                let partitions = places
                    .into_iter()
                    .map(|(index, place)| {
                        let (result, group) = match place {
                            Place::Decided(error, group) => (Err(error), group),
                            Place::Slot(slot, group) => (
                                results.get_mut(slot).map_or(Err(AppendError::NotLeader), |r| {
                                    std::mem::replace(r, Err(AppendError::NotLeader))
                                }),
                                Some(group),
                            ),
                        };
                        if let Err(error) = &result {
                            broker.metrics().request_error(ApiKey::Produce, ApiError::from(error).code);
                        }
                        let moved = matches!(result, Err(AppendError::NotLeader));
                        let leader = group.filter(|_| moved).and_then(|g| broker.current_leader(g));
                        leaders.push(leader);
                        partition_response(index, result, leader, version)
                    })
                    .collect();
                let out = TopicProduceResponse::default().with_partition_responses(partitions);
                if version >= 13 { out.with_topic_id(topic_id) } else { out.with_name(name) }
            })
            .collect();
        let out = ProduceResponse::default().with_responses(responses);
        if version < 10 {
            return out;
        }
        out.with_node_endpoints(
            leader_endpoints(broker, leaders.into_iter())
                .into_iter()
                .map(|e| {
                    NodeEndpoint::default()
                        .with_node_id(BrokerId(e.node.0))
                        .with_host(StrBytes::from_string(e.host))
                        .with_port(i32::from(e.port))
                        .with_rack(e.rack.map(StrBytes::from_string))
                })
                .collect(),
        )
    }
}

fn partition_response(
    index: i32,
    result: AppendResult,
    leader: Option<CurrentLeader>,
    version: i16,
) -> PartitionProduceResponse {
    let out = PartitionProduceResponse::default().with_index(index);
    match result {
        Ok(appended) => {
            let out = out
                .with_error_code(errors::NONE)
                .with_base_offset(appended.base_offset)
                .with_log_append_time_ms(appended.log_append_time_ms);
            if version >= 5 { out.with_log_start_offset(appended.log_start_offset) } else { out }
        }
        Err(error) => {
            let error = ApiError::from(&error);
            let mut out = out.with_error_code(error.code).with_base_offset(-1).with_log_append_time_ms(-1);
            if version >= 8 {
                out.error_message = error.text();
            }
            if let (Some(leader), true) = (leader, version >= 10) {
                out.current_leader = LeaderIdAndEpoch::default()
                    .with_leader_id(BrokerId(leader.node.0))
                    .with_leader_epoch(leader.epoch);
            }
            out
        }
    }
}

/// The answer to a request of which only the skeleton was read: nothing was appended, retry.
pub(super) fn refused(topics: Vec<(TopicName, Uuid, Vec<i32>)>, version: i16) -> ProduceResponse {
    let responses = topics
        .into_iter()
        .map(|(name, topic_id, partitions)| {
            let partitions = partitions
                .into_iter()
                .map(|index| partition_response(index, Err(AppendError::Overloaded), None, version))
                .collect();
            let out = TopicProduceResponse::default().with_partition_responses(partitions);
            if version >= 13 { out.with_topic_id(topic_id) } else { out.with_name(name) }
        })
        .collect();
    ProduceResponse::default().with_responses(responses)
}
