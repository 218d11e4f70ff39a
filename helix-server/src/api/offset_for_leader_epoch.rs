//! OffsetForLeaderEpoch (key 23): where a leader epoch ended, so that consumers notice truncation (KIP-320).

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::broker::Broker;

/// What is answered for an epoch of which nothing is known.
const UNDEFINED: (i32, i64) = (-1, -1);

pub(super) fn handle(broker: &Broker, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let partitions = topic
                .partitions
                .iter()
                .map(|partition| end_offset(broker, &topic.topic, partition))
                .collect();
            OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
        })
        .collect();
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

fn end_offset(broker: &Broker, topic: &str, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let out = EpochEndOffset::default().with_partition(asked.partition);
    let view = match broker.leading_view(topic, asked.partition, asked.current_leader_epoch) {
        Ok(view) => view,
        Err(error) => return out.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
    };
    let (epoch, end) =
        view.epochs().end_offset_for(asked.leader_epoch, view.high_watermark()).unwrap_or(UNDEFINED);
    out.with_leader_epoch(epoch).with_end_offset(end)
}
