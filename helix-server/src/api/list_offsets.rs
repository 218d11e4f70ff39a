//! ListOffsets (key 2): earliest, latest, by timestamp, and the record with the largest timestamp.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ApiKey, ListOffsetsRequest, ListOffsetsResponse};
use tracing::warn;

use super::mentions::{Mention, first_mentions, mentions};
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

const UNKNOWN_EPOCH: i32 = -1;
const UNKNOWN: TimestampedOffset = TimestampedOffset { offset: -1, timestamp_ms: -1 };

pub(super) async fn handle(
    broker: &Broker,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let mut named = named_partitions(&request).into_iter();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            match named.next().unwrap_or(Mention::Again) {
                Mention::Only => partitions.push(one_partition(broker, &topic.name, asked, version).await),
                Mention::FirstOfMany => partitions.push(failed(asked, ResponseError::InvalidRequest)),
                Mention::Again => {}
            }
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// How often the request names each partition. One that it names more than once is refused, once.
fn named_partitions(request: &ListOffsetsRequest) -> Vec<Mention> {
    let topics = first_mentions(request.topics.iter().map(|topic| &topic.name));
    let partitions = request.topics.iter().zip(topics).flat_map(|(topic, number)| {
        topic.partitions.iter().map(move |asked| (number, asked.partition_index))
    });
    mentions(partitions)
}

fn failed(asked: &ListOffsetsPartition, error: ResponseError) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_error_code(error.code())
        .with_offset(UNKNOWN.offset)
        .with_timestamp(UNKNOWN.timestamp_ms)
}

async fn one_partition(
    broker: &Broker,
    topic: &str,
    asked: &ListOffsetsPartition,
    version: i16,
) -> ListOffsetsPartitionResponse {
    match find(broker, topic, asked, version).await {
        Err(error) => {
            broker.metrics().request_error(ApiKey::ListOffsets, error.code());
            failed(asked, error)
        }
        Ok((found, epoch)) => {
            let out = ListOffsetsPartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_offset(found.offset)
                .with_timestamp(found.timestamp_ms);
            if version >= 4 { out.with_leader_epoch(epoch) } else { out }
        }
    }
}

/// The offset asked for, and its leader epoch.
async fn find(
    broker: &Broker,
    topic: &str,
    asked: &ListOffsetsPartition,
    version: i16,
) -> Result<(TimestampedOffset, i32), ResponseError> {
    let wanted = Wanted::of(asked.timestamp, version).ok_or(ResponseError::UnsupportedVersion)?;
    let view = broker.leading_view(topic, asked.partition_index, asked.current_leader_epoch)?;
    let found = look_up(broker, &view, wanted).await?;
    let epoch = match wanted {
        // The next record will be of this epoch.
        Wanted::Latest => view.leadership().epoch,
        _ if found.offset < 0 => UNKNOWN_EPOCH,
        _ => view.epochs().epoch_at(found.offset).unwrap_or(UNKNOWN_EPOCH),
    };
    Ok((found, epoch))
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Latest,
    Earliest,
    LatestTiered,
    MaxTimestamp,
    /// The first record that is not older.
    Since(i64),
}

impl Wanted {
    /// The meaning of a timestamp; `None` if it has none in that version.
    fn of(timestamp: i64, version: i16) -> Option<Self> {
        match timestamp {
            LATEST => Some(Self::Latest),
            EARLIEST => Some(Self::Earliest),
            MAX_TIMESTAMP if version >= 7 => Some(Self::MaxTimestamp),
            EARLIEST_LOCAL if version >= 8 => Some(Self::Earliest),
            LATEST_TIERED if version >= 9 => Some(Self::LatestTiered),
            0.. => Some(Self::Since(timestamp)),
            _ => None,
        }
    }
}

async fn look_up(
    broker: &Broker,
    view: &Arc<PartitionView>,
    wanted: Wanted,
) -> Result<TimestampedOffset, ResponseError> {
    let at = |offset| TimestampedOffset { offset, timestamp_ms: -1 };
    let searched = |found: Result<Option<TimestampedOffset>, FetchError>| {
        found.map(|f| f.unwrap_or(UNKNOWN)).map_err(|error| {
            warn!(group = view.group.0, ?wanted, %error, "offset lookup failed");
            ResponseError::KafkaStorageError
        })
    };
    match wanted {
        // Without transactions the isolation level makes no difference: the last stable offset is the high watermark.
        Wanted::Latest => Ok(at(view.high_watermark())),
        Wanted::Earliest => Ok(at(view.log_start())),
        Wanted::LatestTiered => Ok(UNKNOWN),
        Wanted::MaxTimestamp => searched(lookup::of_max_timestamp(broker, view).await),
        Wanted::Since(timestamp) => searched(lookup::first_at_or_after(broker, view, timestamp).await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::list_offsets_request::ListOffsetsTopic;
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn special_timestamps_came_one_by_one() {
        let first_version = |timestamp| (1..=10).find(|version| Wanted::of(timestamp, *version).is_some());
        let first_versions: Vec<_> = (-6..=1).map(first_version).collect();
        assert_eq!(first_versions, [None, Some(9), Some(8), Some(7), Some(1), Some(1), Some(1), Some(1)]);
        assert_eq!(Wanted::of(EARLIEST_LOCAL, 10), Some(Wanted::Earliest));
        assert_eq!(Wanted::of(LATEST_TIERED, 10), Some(Wanted::LatestTiered));
        assert_eq!(Wanted::of(i64::MIN, 10), None);
    }

    #[test]
    fn a_partition_named_twice_is_refused_once() {
        let name = |text| TopicName(StrBytes::from_static_str(text));
        let topic = |text, partitions: &[i32]| {
            let one = |partition: &i32| ListOffsetsPartition::default().with_partition_index(*partition);
            ListOffsetsTopic::default()
                .with_name(name(text))
                .with_partitions(partitions.iter().map(one).collect())
        };
        let request = ListOffsetsRequest::default().with_topics(vec![
            topic("a", &[0, 1, 0]),
            topic("b", &[0]),
            topic("a", &[0]),
        ]);
        use Mention::{Again, FirstOfMany, Only};
        assert_eq!(named_partitions(&request), [FirstOfMany, Only, Again, Only, Again]);
    }
}
