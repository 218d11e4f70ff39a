//! Fetch (key 1): committed batches, with a long poll until there are enough of them, in sessions (KIP-227).

use std::sync::Arc;
use std::time::Duration;

use helix_raft::planted;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, FetchRequest, TopicName};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::fetch_encode::{FetchReply, FetchedPartition, FetchedTopic};
use super::fetch_plan::{self, SessionPart, Wanted};
use crate::broker::budget::Permit;
use crate::broker::fetch_sessions::{Answered, Asked, TopicKey};
use crate::broker::leaders::CurrentLeader;
use crate::broker::{Broker, fetch};
use crate::config::BrokerConfig;
use crate::env::watch;
use crate::ids::NodeId;
use crate::partition::slices::Slice;
use crate::partition::view::{PartitionView, WatchGuard};

/// A response never takes more of the fetch budget than this part of it, so that a few slow readers do not starve the rest.
const BUDGET_SHARE: usize = 8;
/// First version whose answers say who leads (KIP-951).
const LEADER_HINT_VERSION: i16 = 16;

/// How the client wants to read.
struct Terms {
    read_committed: bool,
    /// Where the client says it is; followers serve nobody else.
    rack: Option<String>,
    leader_hints: bool,
    max_wait: Duration,
    min_bytes: usize,
    max_bytes: usize,
}

impl Terms {
    fn of(request: &FetchRequest, version: i16, config: &BrokerConfig) -> Self {
        Self {
            read_committed: request.isolation_level == 1,
            rack: (!request.rack_id.is_empty()).then(|| request.rack_id.to_string()),
            leader_hints: version >= LEADER_HINT_VERSION,
            max_wait: Duration::from_millis(request.max_wait_ms.max(0) as u64),
            min_bytes: request.min_bytes.max(0) as usize,
            max_bytes: (request.max_bytes.max(0) as usize).min(config.fetch_max_bytes),
        }
    }
}

/// Waits at most as long as the client allows, and not beyond the end of `reading`.
pub(super) async fn handle(
    broker: &Broker,
    request: FetchRequest,
    version: i16,
    reading: watch::Receiver<()>,
) -> FetchReply {
    let terms = Terms::of(&request, version, &broker.config());
    let SessionPart { claim, asked, forgotten } = SessionPart::of(request, version);
    let sessions = broker.fetch_sessions();
    let name_of = |topic_id| fetch_plan::name_of(broker, topic_id);
    let context = match sessions.begin(claim, asked, &forgotten, &name_of, Instant::now()) {
        Ok(context) => context,
        Err(error) => return FetchReply::failed(error.code(), 0),
    };
    let wanted = fetch_plan::resolve(broker, &context.partitions);
    let (partitions, permit) = wait_and_read(broker, &wanted, &terms, reading).await;
    let answered: Vec<Answered> = partitions.iter().map(FetchedPartition::answered).collect();
    let random = || broker.env().random_u64();
    let answer = match sessions.finish(context, &answered, &name_of, random, Instant::now()) {
        Ok(answer) => answer,
        Err(error) => return FetchReply::failed(error.code(), claim.session_id),
    };
    let included = wanted
        .into_iter()
        .map(|wanted| wanted.asked)
        .zip(partitions)
        .zip(answer.included)
        .filter_map(|(answered, included)| included.then_some(answered));
    let topics = by_topic(included);
    let leaders = topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.current_leader);
    let endpoints = super::leader_endpoints(broker, leaders);
    FetchReply { error_code: 0, session_id: answer.session_id, topics, endpoints, permit: Some(permit) }
}

/// Partitions of the same topic that follow each other are answered together.
fn by_topic(partitions: impl Iterator<Item = (Asked, FetchedPartition)>) -> Vec<FetchedTopic> {
    let mut topics: Vec<FetchedTopic> = Vec::new();
    let mut last: Option<TopicKey> = None;
    for (asked, partition) in partitions {
        let topic = asked.key.topic;
        if last.as_ref() != Some(&topic) {
            let (name, topic_id) = match &topic {
                TopicKey::Name(name) => (name.clone(), Uuid::nil()),
                TopicKey::Id(topic_id) => (TopicName::default(), *topic_id),
            };
            topics.push(FetchedTopic { name, topic_id, partitions: Vec::new() });
            last = Some(topic);
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(partition);
        }
    }
    topics
}

/// Reads until there is enough, something went wrong, or the time is over.
async fn wait_and_read(
    broker: &Broker,
    wanted: &[Wanted],
    terms: &Terms,
    mut reading: watch::Receiver<()>,
) -> (Vec<FetchedPartition>, Permit) {
    let deadline = Instant::now() + terms.max_wait;
    let notify = Arc::new(Notify::new());
    let _watches: Vec<WatchGuard> =
        wanted.iter().filter_map(|w| w.view.as_ref().ok()).map(|view| view.watch(&notify)).collect();
    let budget = &broker.budgets().fetch;
    let permit = budget.acquire(terms.max_bytes.min(budget.limit() / BUDGET_SHARE)).await;
    let limit = terms.max_bytes.min(permit.amount());
    // Waiting for more than may be answered would be in vain.
    let min_bytes = terms.min_bytes.min(limit);
    // What does not exist is not waited for, and as in Kafka nobody is answered early for it.
    let mut waited = terms.max_wait.is_zero() || !wanted.iter().any(Wanted::exists);
    let mut held = Some(permit);
    loop {
        let permit = match held.take() {
            Some(permit) => permit,
            None => budget.acquire(limit).await,
        };
        let round = read_all(broker, wanted, limit, terms).await;
        if round.at_hand >= min_bytes || round.failed || round.redirected || waited {
            return (round.partitions, permit);
        }
        // While waiting nothing is held: what was read is read again.
        drop((round, permit));
        waited = tokio::select! {
            biased;
            () = notify.notified() => Instant::now() >= deadline,
            () = tokio::time::sleep_until(deadline) => true,
            _ = reading.changed() => true, // nothing is ever sent: the sender is gone
        };
    }
}

/// What one pass over all partitions gave.
struct Round {
    partitions: Vec<FetchedPartition>,
    bytes: usize,
    /// What would be enough for `min_bytes`: more than there are bytes where batches did not fill what a partition may give. Waiting
    /// would not add to it (Kafka counts the same).
    at_hand: usize,
    failed: bool,
    /// The client is told to ask somebody else.
    redirected: bool,
}

async fn read_all(broker: &Broker, wanted: &[Wanted], limit: usize, terms: &Terms) -> Round {
    let partitions = Vec::with_capacity(wanted.len());
    let mut round = Round { partitions, bytes: 0, at_hand: 0, failed: false, redirected: false };
    for one in wanted {
        let mut partition = FetchedPartition::new(one.asked.key.partition, terms.read_committed);
        let remaining = limit - round.bytes.min(limit);
        let max_bytes = remaining.min(one.asked.max_bytes.max(0) as usize);
        let outcome = match &one.view {
            Err(error) => Err(*error),
            Ok(view) => read_one(broker, view, &one.asked, terms, max_bytes, round.bytes == 0).await,
        };
        if let Ok(view) = &one.view {
            partition.high_watermark = view.high_watermark();
            partition.log_start_offset = view.log_start();
        }
        match outcome {
            Ok(Found::Records(slice)) => {
                round.bytes += slice.bytes;
                round.at_hand += if slice.cut { slice.bytes.max(max_bytes) } else { slice.bytes };
                partition.records = slice;
            }
            Ok(Found::Nearer(node)) => {
                round.redirected = true;
                partition.preferred_replica = Some(node);
            }
            Err(error) => {
                round.failed |= one.exists();
                broker.metrics().request_error(ApiKey::Fetch, error.code());
                partition.error_code = error.code();
                partition.current_leader = leader_hint(broker, one, error, terms);
                partition.high_watermark = -1;
                partition.log_start_offset = -1;
            }
        }
        round.partitions.push(partition);
    }
    round
}

/// Whom to ask instead, for a client that was told that this is not the leader, or not of that epoch.
fn leader_hint(broker: &Broker, one: &Wanted, error: ResponseError, terms: &Terms) -> Option<CurrentLeader> {
    let moved = matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch);
    one.group.filter(|_| terms.leader_hints && moved).and_then(|group| broker.current_leader(group))
}

/// What a partition has for the client.
enum Found {
    Records(Slice),
    /// A replica that is nearer has it.
    Nearer(NodeId),
}

async fn read_one(
    broker: &Broker,
    view: &Arc<PartitionView>,
    asked: &Asked,
    terms: &Terms,
    max_bytes: usize,
    first: bool,
) -> Result<Found, ResponseError> {
    // Leadership may have gone while this request waited.
    let leads = view.leadership().serving;
    let near = terms.rack.is_some() && view.is_following();
    if !leads && !near {
        return Err(ResponseError::NotLeaderOrFollower);
    }
    let offset = asked.fetch_offset;
    // What is beyond a follower's end its leader has looked at before it sent the client here.
    if offset < view.log_start() || (leads && offset > view.log_end()) {
        return out_of_range(view);
    }
    if leads
        && let Some(rack) = &terms.rack
        && let Some(nearer) = broker.preferred_follower(view.group, rack)
    {
        return Ok(Found::Nearer(nearer));
    }
    let slice = fetch::read(broker, view, offset, max_bytes, first).await.map_err(|error| {
        warn!(group = view.group.0, offset, %error, "fetch failed");
        ResponseError::KafkaStorageError
    })?;
    // Retention may have removed meanwhile what was asked for.
    if offset < view.log_start() && !planted("removed-while-read") {
        out_of_range(view)
    } else {
        Ok(Found::Records(slice))
    }
}

/// A deposed leader that does not know it must not make consumers start over: without the contact of a majority it only says that there
/// is nothing new. A client of a follower goes back to the leader with such an error.
fn out_of_range(view: &PartitionView) -> Result<Found, ResponseError> {
    if view.quorum_contact() || view.is_following() {
        Err(ResponseError::OffsetOutOfRange)
    } else {
        Ok(Found::Records(Slice::default()))
    }
}
