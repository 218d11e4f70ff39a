//! DescribeProducers (key 61): the idempotent producers that a partition's leader remembers (KIP-664).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use kafka_protocol::protocol::StrBytes;

use super::answer_room::{AnswerRoom, NO_ROOM, part_bytes};
use super::errors::ApiError;
use super::names;
use crate::broker::Broker;
use crate::partition::producers::ProducerBatch;

pub(super) async fn handle(
    broker: &Broker,
    request: DescribeProducersRequest,
    version: i16,
    room: &mut AnswerRoom,
) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for number in &topic.partition_indexes {
            let bytes = |response: &PartitionResponse| {
                part_bytes::<_, ProducerState>(response, response.active_producers.len(), version)
            };
            let response = room.hold(answer(broker, &topic, *number), bytes).await;
            partitions.push(response.unwrap_or_else(|| {
                PartitionResponse::default()
                    .with_partition_index(*number)
                    .with_error_code(ResponseError::InvalidRequest.code())
                    .with_error_message(Some(StrBytes::from_static_str(NO_ROOM)))
            }));
            tokio::task::consume_budget().await;
        }
        topics.push(TopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    DescribeProducersResponse::default().with_topics(topics)
}

async fn answer(broker: &Broker, topic: &TopicRequest, number: i32) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(number);
    match describe(broker, topic, number).await {
        Ok(producers) => response.with_active_producers(producers),
        Err(error) => response.with_error_code(error.code).with_error_message(error.text()),
    }
}

async fn describe(
    broker: &Broker,
    topic: &TopicRequest,
    number: i32,
) -> Result<Vec<ProducerState>, ApiError> {
    names::check(&topic.name)
        .map_err(|reason| ApiError::new(ResponseError::InvalidTopicException, reason))?;
    let refused = |error: ResponseError| {
        let message = match error {
            ResponseError::NotLeaderOrFollower => {
                "this broker does not lead the partition: refresh the metadata"
            }
            _ => "this server does not host this topic-partition",
        };
        ApiError::new(error, message)
    };
    let view = broker.leading_view(&topic.name, number, -1).map_err(refused)?;
    let producers = broker.producers(view.group).await.ok_or(refused(ResponseError::NotLeaderOrFollower))?;
    Ok(producers.iter().map(shape).collect())
}

fn shape(last: &ProducerBatch) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(last.producer_id))
        .with_producer_epoch(i32::from(last.epoch))
        .with_last_sequence(last.last_sequence)
        .with_last_timestamp(last.timestamp_ms)
        // No transaction has ever ended here, and none is open.
        .with_coordinator_epoch(-1)
        .with_current_txn_start_offset(-1)
}
