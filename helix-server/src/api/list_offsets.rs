//! ListOffsets (key 2): earliest, latest, by timestamp, and the record with the largest timestamp.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use tracing::warn;

use crate::broker::batch::TimestampedOffset;
use crate::broker::fetch::FetchError;
use crate::broker::{Broker, lookup};
use crate::partition::view::PartitionView;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
/// Earliest offset on local disk: all of it is local.
const EARLIEST_LOCAL: i64 = -4;
/// Latest offset in tiered storage: there is none.
const LATEST_TIERED: i64 = -5;

const UNKNOWN: TimestampedOffset = TimestampedOffset { offset: -1, timestamp_ms: -1 };

pub(super) async fn handle(
    broker: &Broker,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            partitions.push(one_partition(broker, &topic.name, asked, version).await);
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn one_partition(
    broker: &Broker,
    topic: &str,
    asked: &ListOffsetsPartition,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let out = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    let found = match broker.leading_view(topic, asked.partition_index, asked.current_leader_epoch) {
        Err(error) => Err(error),
        Ok(view) => match find(broker, &view, asked.timestamp, version).await {
            Ok(found) => Ok((found, view)),
            Err(error) => Err(error),
        },
    };
    match found {
        Err(error) => out.with_error_code(error.code()).with_offset(UNKNOWN.offset),
        Ok((found, view)) => {
            let out = out.with_offset(found.offset).with_timestamp(found.timestamp_ms);
            let epoch = if found.offset < 0 { None } else { view.epochs().epoch_at(found.offset) };
            if version >= 4 { out.with_leader_epoch(epoch.unwrap_or(-1)) } else { out }
        }
    }
}

async fn find(
    broker: &Broker,
    view: &Arc<PartitionView>,
    timestamp: i64,
    version: i16,
) -> Result<TimestampedOffset, ResponseError> {
    let at = |offset| TimestampedOffset { offset, timestamp_ms: -1 };
    let searched = |found: Result<Option<TimestampedOffset>, FetchError>| {
        found.map(|f| f.unwrap_or(UNKNOWN)).map_err(|error| {
            warn!(group = view.group.0, timestamp, %error, "offset lookup failed");
            ResponseError::KafkaStorageError
        })
    };
    match timestamp {
        LATEST => Ok(at(view.high_watermark())),
        EARLIEST => Ok(at(view.log_start())),
        EARLIEST_LOCAL if version >= 8 => Ok(at(view.log_start())),
        LATEST_TIERED if version >= 9 => Ok(UNKNOWN),
        MAX_TIMESTAMP if version >= 7 => searched(lookup::of_max_timestamp(broker, view).await),
        0.. => searched(lookup::first_at_or_after(broker, view, timestamp).await),
        _ => Err(ResponseError::UnsupportedVersion),
    }
}
