//! DescribeLogDirs (key 35): how much of this node's disk its replicas take.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::broker::Broker;
use crate::controller::image::{PartitionImage, TopicImage};

pub(super) fn handle(
    broker: &Broker,
    request: &DescribeLogDirsRequest,
    version: i16,
) -> DescribeLogDirsResponse {
    let image = broker.image();
    let asked = request.topics.as_deref().map(asked_partitions);
    let topics = image.topics().filter_map(|topic| {
        let asked = match &asked {
            Some(asked) => Some(asked.get(topic.name.as_str())?),
            None => None,
        };
        let partitions = hosted(broker, topic, asked);
        (!partitions.is_empty()).then(|| {
            DescribeLogDirsTopic::default()
                .with_name(TopicName(StrBytes::from_string(topic.name.clone())))
                .with_partitions(partitions)
        })
    });
    let mut result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(absolute(&broker.live_config().started().data_dir)))
        .with_topics(topics.collect());
    match broker.wal().disk_space() {
        Ok(space) if version >= 4 => {
            result.total_bytes = i64::try_from(space.total_bytes).unwrap_or(i64::MAX);
            result.usable_bytes = i64::try_from(space.free_bytes).unwrap_or(i64::MAX);
        }
        Ok(_) => {}
        Err(error) => {
            tracing::warn!(%error, "the file system of the data directory does not tell its size");
            result.error_code = ResponseError::KafkaStorageError.code();
        }
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Which partitions are asked for, by topic.
fn asked_partitions(topics: &[DescribableLogDirTopic]) -> HashMap<&str, HashSet<i32>> {
    let mut asked: HashMap<&str, HashSet<i32>> = HashMap::new();
    for topic in topics {
        asked.entry(topic.topic.as_str()).or_default().extend(&topic.partitions);
    }
    asked
}

/// Those of the asked partitions, or of all, that this node has a replica of.
fn hosted(
    broker: &Broker,
    topic: &TopicImage,
    asked: Option<&HashSet<i32>>,
) -> Vec<DescribeLogDirsPartition> {
    let numbered = topic.partitions.iter().zip(0i32..);
    let wanted = numbered.filter(|(_, number)| asked.is_none_or(|asked| asked.contains(number)));
    wanted.filter_map(|(partition, number)| describe(broker, partition, number)).collect()
}

fn describe(broker: &Broker, partition: &PartitionImage, number: i32) -> Option<DescribeLogDirsPartition> {
    let view = broker.partition(partition.group)?;
    let bytes = broker.wal().bounds(helix_wal::GroupId(partition.group.0)).map_or(0, |bounds| bounds.bytes);
    Some(
        DescribeLogDirsPartition::default()
            .with_partition_index(number)
            .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX))
            .with_offset_lag((view.high_watermark() - view.log_end()).max(0)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_a_topic_may_come_in_parts() {
        let topic = |name: &'static str, partitions: &[i32]| {
            DescribableLogDirTopic::default()
                .with_topic(TopicName(StrBytes::from_static_str(name)))
                .with_partitions(partitions.to_vec())
        };
        let topics = [topic("a", &[0, 1, 0]), topic("b", &[]), topic("a", &[2])];
        let expected = [("a", HashSet::from([0, 1, 2])), ("b", HashSet::new())];
        assert_eq!(asked_partitions(&topics), expected.into());
    }
}
