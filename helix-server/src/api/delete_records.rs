//! DeleteRecords (key 21, KIP-107): moves the start of partitions' logs, for all replicas.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{ApiKey, DeleteRecordsRequest, DeleteRecordsResponse, TopicName};
use tokio::time::Instant;

use super::errors;
use crate::broker::Broker;
use crate::broker::delete_records::{DeleteRecordsError, LogStartMove};
use crate::controller::internal_topics;

/// What is answered for the log start of a partition that was not touched.
const NO_LOW_WATERMARK: i64 = -1;

/// What is asked of the partitions of one topic, each of them once.
struct AskedTopic {
    name: TopicName,
    partitions: Vec<(i32, i64)>,
}

pub(super) async fn handle(broker: &Broker, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms.max(0) as u64);
    let asked = merged(request);
    // All of them are on their way before the first one is waited for.
    let moves = asked.iter().flat_map(|topic| {
        topic.partitions.iter().map(|(partition, offset)| start(broker, &topic.name, *partition, *offset))
    });
    let moves: Vec<Result<LogStartMove, DeleteRecordsError>> = moves.collect();
    let outcomes = join_all(moves.into_iter().map(async |started| match started {
        Ok(started) => started.wait(deadline).await,
        Err(error) => Err(error),
    }))
    .await;
    let mut outcomes = outcomes.into_iter();
    let topics = asked.into_iter().map(|topic| {
        let partitions = topic
            .partitions
            .iter()
            .zip(&mut outcomes)
            .map(|((partition, _), outcome)| result(broker, *partition, &outcome))
            .collect();
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// Of a partition that is named more than once the last offset counts, as in Kafka.
fn merged(request: DeleteRecordsRequest) -> Vec<AskedTopic> {
    let mut topics: Vec<AskedTopic> = Vec::new();
    let mut topic_places: HashMap<TopicName, usize> = HashMap::new();
    let mut places: HashMap<(usize, i32), usize> = HashMap::new();
    for topic in request.topics {
        let number = *topic_places.entry(topic.name.clone()).or_insert_with(|| {
            topics.push(AskedTopic { name: topic.name, partitions: Vec::new() });
            topics.len() - 1
        });
        let partitions = &mut topics[number].partitions;
        for asked in topic.partitions {
            let one = (asked.partition_index, asked.offset);
            match places.get(&(number, asked.partition_index)) {
                Some(&place) => partitions[place] = one,
                None => {
                    places.insert((number, asked.partition_index), partitions.len());
                    partitions.push(one);
                }
            }
        }
    }
    topics
}

fn start(
    broker: &Broker,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<LogStartMove, DeleteRecordsError> {
    if internal_topics::is_internal(topic) {
        return Err(DeleteRecordsError::InternalTopic);
    }
    let view = broker.leading_view(topic, partition, -1).map_err(|error| match error {
        ResponseError::UnknownTopicOrPartition => DeleteRecordsError::UnknownPartition,
        _ => DeleteRecordsError::NotLeader,
    })?;
    if !view.config().deletes {
        return Err(DeleteRecordsError::Policy);
    }
    Ok(broker.delete_records(&view, offset))
}

fn result(
    broker: &Broker,
    partition: i32,
    outcome: &Result<i64, DeleteRecordsError>,
) -> DeleteRecordsPartitionResult {
    let out = DeleteRecordsPartitionResult::default().with_partition_index(partition);
    match outcome {
        Ok(log_start) => out.with_low_watermark(*log_start).with_error_code(errors::NONE),
        Err(error) => {
            let code = ResponseError::from(error).code();
            broker.metrics().request_error(ApiKey::DeleteRecords, code);
            out.with_low_watermark(error.log_start().unwrap_or(NO_LOW_WATERMARK)).with_error_code(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
    use kafka_protocol::protocol::StrBytes;

    #[test]
    fn the_last_offset_of_a_partition_counts() {
        let topic = |name: &'static str, partitions: &[(i32, i64)]| {
            let one = |(partition, offset): &(i32, i64)| {
                DeleteRecordsPartition::default().with_partition_index(*partition).with_offset(*offset)
            };
            DeleteRecordsTopic::default()
                .with_name(TopicName(StrBytes::from_static_str(name)))
                .with_partitions(partitions.iter().map(one).collect())
        };
        let request = DeleteRecordsRequest::default().with_topics(vec![
            topic("a", &[(0, 1), (1, 2), (0, 3)]),
            topic("b", &[(0, 4)]),
            topic("a", &[(1, 5), (2, 6)]),
        ]);
        let merged: Vec<_> =
            merged(request).into_iter().map(|t| (t.name.to_string(), t.partitions)).collect();
        let expected = [("a".to_owned(), vec![(0, 3), (1, 5), (2, 6)]), ("b".to_owned(), vec![(0, 4)])];
        assert_eq!(merged, expected);
    }
}
