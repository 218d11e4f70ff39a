//! Fetch (key 1): committed batches, with a long poll until there are enough of them.
//!
//! Fetch sessions (KIP-227) are declined by answering session id 0: clients then send every partition each time.

use std::sync::Arc;
use std::time::Duration;

use helix_raft::planted;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::{ApiKey, FetchRequest};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

use super::fetch_encode::{FetchReply, FetchedPartition, FetchedTopic};
use crate::broker::budget::Permit;
use crate::broker::{Broker, fetch};
use crate::env::watch;
use crate::partition::slices::Slice;
use crate::partition::view::{PartitionView, WatchGuard};

/// A response never takes more of the fetch budget than this part of it, so that a few slow readers do not starve the rest.
const BUDGET_SHARE: usize = 8;

/// One partition that the client asks for.
struct Wanted {
    topic: usize,
    asked: FetchPartition,
    view: Result<Arc<PartitionView>, ResponseError>,
}

/// Waits at most as long as the client allows, and not beyond the end of `reading`.
pub(super) async fn handle(
    broker: &Broker,
    request: FetchRequest,
    version: i16,
    mut reading: watch::Receiver<()>,
) -> FetchReply {
    if request.session_id != 0 {
        return FetchReply::failed(ResponseError::FetchSessionIdNotFound.code());
    }
    let read_committed = request.isolation_level == 1;
    let max_wait = Duration::from_millis(request.max_wait_ms.max(0) as u64);
    let deadline = Instant::now() + max_wait;
    let min_bytes = request.min_bytes.max(0) as usize;
    let limit = (request.max_bytes.max(0) as usize).min(broker.config().fetch_max_bytes);

    let (mut topics, wanted) = resolve(broker, request, version);
    let notify = Arc::new(Notify::new());
    let _watches: Vec<WatchGuard> =
        wanted.iter().filter_map(|w| w.view.as_ref().ok()).map(|view| view.watch(&notify)).collect();
    let permit =
        broker.budgets().fetch.acquire(limit.min(broker.budgets().fetch.limit() / BUDGET_SHARE)).await;
    let limit = limit.min(permit.amount());
    // Waiting for more than may be answered would be in vain.
    let min_bytes = min_bytes.min(limit);
    let mut held: Option<Permit> = Some(permit);
    let mut waited = max_wait.is_zero();
    loop {
        if held.is_none() {
            held = Some(broker.budgets().fetch.acquire(limit).await);
        }
        let round = read_all(broker, &wanted, limit, read_committed).await;
        if round.bytes >= min_bytes || round.failed || waited {
            for (wanted, partition) in wanted.iter().zip(round.partitions) {
                topics[wanted.topic].partitions.push(partition);
            }
            let endpoints = super::leader_endpoints(
                broker,
                topics.iter().flat_map(|t| &t.partitions).map(|p| p.current_leader),
            );
            return FetchReply { error_code: 0, topics, endpoints, permit: held };
        }
        // While waiting nothing is held: what was read is read again.
        drop(round);
        held = None;
        waited = tokio::select! {
            biased;
            () = notify.notified() => Instant::now() >= deadline,
            () = tokio::time::sleep_until(deadline) => true,
            _ = reading.changed() => true, // nothing is ever sent: the sender is gone
        };
    }
}

fn resolve(broker: &Broker, request: FetchRequest, version: i16) -> (Vec<FetchedTopic>, Vec<Wanted>) {
    let image = broker.image();
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut wanted = Vec::new();
    for (number, topic) in request.topics.into_iter().enumerate() {
        let by_id = version >= 13;
        let found = if by_id { image.topic(topic.topic_id) } else { image.topic_named(&topic.topic) };
        let missing =
            if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
        for asked in topic.partitions {
            let view = found
                .ok_or(missing)
                .and_then(|t| broker.leading_view_of(t, asked.partition, asked.current_leader_epoch));
            wanted.push(Wanted { topic: number, asked, view });
        }
        let topic_id = if by_id { topic.topic_id } else { Uuid::nil() };
        topics.push(FetchedTopic { name: topic.topic, topic_id, partitions: Vec::new() });
    }
    (topics, wanted)
}

/// What one pass over all partitions gave.
struct Round {
    partitions: Vec<FetchedPartition>,
    bytes: usize,
    failed: bool,
}

async fn read_all(broker: &Broker, wanted: &[Wanted], limit: usize, read_committed: bool) -> Round {
    let mut round = Round { partitions: Vec::with_capacity(wanted.len()), bytes: 0, failed: false };
    for one in wanted {
        let mut partition = FetchedPartition::new(one.asked.partition, read_committed);
        let outcome = match &one.view {
            Err(error) => Err(*error),
            Ok(view) => {
                read_one(broker, view, &one.asked, limit - round.bytes.min(limit), round.bytes == 0).await
            }
        };
        if let Ok(view) = &one.view {
            partition.high_watermark = view.high_watermark();
            partition.log_start_offset = view.log_start();
        }
        match outcome {
            Ok(slice) => {
                round.bytes += slice.bytes;
                partition.records = slice;
            }
            Err(error) => {
                round.failed = true;
                broker.metrics().request_error(ApiKey::Fetch, error.code());
                partition.error_code = error.code();
                if matches!(error, ResponseError::NotLeaderOrFollower | ResponseError::FencedLeaderEpoch) {
                    // Without a view there is no group to ask about; the error is answered all the same.
                    let view = one.view.as_ref().ok();
                    partition.current_leader = view.and_then(|v| broker.current_leader(v.group));
                }
                partition.high_watermark = -1;
                partition.log_start_offset = -1;
            }
        }
        round.partitions.push(partition);
    }
    round
}

async fn read_one(
    broker: &Broker,
    view: &Arc<PartitionView>,
    asked: &FetchPartition,
    remaining: usize,
    first: bool,
) -> Result<Slice, ResponseError> {
    // Leadership may have gone while this request waited.
    if !view.leadership().serving {
        return Err(ResponseError::NotLeaderOrFollower);
    }
    let offset = asked.fetch_offset;
    if offset < view.log_start() || offset > view.log_end() {
        return out_of_range(view);
    }
    let max_bytes = remaining.min(asked.partition_max_bytes.max(0) as usize);
    let slice = fetch::read(broker, view, offset, max_bytes, first).await.map_err(|error| {
        warn!(group = view.group.0, offset, %error, "fetch failed");
        ResponseError::KafkaStorageError
    })?;
    // Retention may have removed meanwhile what was asked for; what follows it must not be taken for it.
    if offset < view.log_start() && !planted("removed-while-read") { out_of_range(view) } else { Ok(slice) }
}

/// A deposed leader that does not know it must not make consumers start over: without the contact of a majority it only says that there
/// is nothing new.
fn out_of_range(view: &PartitionView) -> Result<Slice, ResponseError> {
    if view.quorum_contact() { Err(ResponseError::OffsetOutOfRange) } else { Ok(Slice::default()) }
}
