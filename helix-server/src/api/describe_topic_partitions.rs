//! DescribeTopicPartitions (key 75): topics and their partitions, a page at a time (KIP-966).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{names, operations, partition_standing};
use crate::broker::Broker;
use crate::controller::image::{ClusterImage, TopicImage};
use crate::controller::internal_topics;

/// Most partitions of one page (Kafka's `max.request.partition.size.limit`).
const MAX_PARTITIONS: i32 = 2000;

pub(super) async fn handle(
    broker: &Broker,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let image = broker.image();
    let all = request.topics.is_empty();
    let mut asked: Vec<&str> = if all {
        image.topics().map(|topic| topic.name.as_str()).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.as_str()).collect()
    };
    asked.sort_unstable();
    asked.dedup();
    if !all {
        let named: Vec<Arc<TopicImage>> =
            asked.iter().filter_map(|name| image.topic_named(name)).cloned().collect();
        broker.wait_for_first_leaders(&named).await;
    }
    let cursor = request.cursor.as_ref().map(|cursor| (cursor.topic_name.as_str(), cursor.partition_index));
    if cursor.is_some_and(|(name, partition)| partition < 0 || !(all || asked.contains(&name))) {
        let refused = |topic: &TopicRequest| {
            refused(&topic.name, ResponseError::InvalidRequest)
                .with_topic_authorized_operations(operations::NOT_ASKED)
        };
        let topics = request.topics.iter().map(refused).collect();
        return DescribeTopicPartitionsResponse::default().with_topics(topics);
    }
    let limit = request.response_partition_limit.clamp(1, MAX_PARTITIONS) as usize;
    let page =
        Page::of(asked, cursor, limit, |name| image.topic_named(name).map(|topic| topic.partitions.len()));
    let topics = page.topics.iter().map(|part| match image.topic_named(part.name) {
        Some(topic) => describe(broker, &image, topic, part),
        None if names::check(part.name).is_err() => refused(part.name, ResponseError::InvalidTopicException),
        None => refused(part.name, ResponseError::UnknownTopicOrPartition),
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect()).with_next_cursor(page.next.map(
        |(name, partition)| {
            Cursor::default().with_topic_name(topic_name(name)).with_partition_index(partition)
        },
    ))
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn refused(name: &str, error: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(topic_name(name)))
        .with_topic_authorized_operations(operations::on_topic(true))
}

fn describe(
    broker: &Broker,
    image: &ClusterImage,
    topic: &TopicImage,
    part: &Part<'_>,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = part.partitions.clone().filter_map(|number| {
        let standing = partition_standing::of(broker, image, topic.partitions.get(number)?);
        let none = || Some(Vec::new());
        Some(
            DescribeTopicPartitionsResponsePartition::default()
                .with_error_code(standing.error_code)
                .with_partition_index(number as i32)
                .with_leader_id(standing.leader)
                .with_leader_epoch(standing.leader_epoch)
                .with_replica_nodes(standing.replicas)
                .with_isr_nodes(standing.in_sync)
                .with_eligible_leader_replicas(none())
                .with_last_known_elr(none())
                .with_offline_replicas(standing.offline),
        )
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name(&topic.name)))
        .with_is_internal(internal_topics::is_internal(&topic.name))
        .with_topic_id(topic.topic_id)
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(operations::on_topic(true))
}

/// A part of a topic's partitions. Empty for a topic that does not exist.
#[derive(Debug, PartialEq, Eq)]
struct Part<'a> {
    name: &'a str,
    partitions: std::ops::Range<usize>,
}

/// What is told at one time, and where to go on.
#[derive(Debug, PartialEq, Eq)]
struct Page<'a> {
    topics: Vec<Part<'a>>,
    next: Option<(&'a str, i32)>,
}

impl<'a> Page<'a> {
    /// At most `limit` partitions of the sorted topics, from the cursor on.
    fn of(
        sorted: Vec<&'a str>,
        cursor: Option<(&str, i32)>,
        limit: usize,
        partitions: impl Fn(&str) -> Option<usize>,
    ) -> Self {
        let mut page = Self { topics: Vec::new(), next: None };
        let mut left = limit;
        for name in sorted.into_iter().filter(|name| cursor.is_none_or(|(first, _)| *name >= first)) {
            if left == 0 {
                page.next = Some((name, 0));
                break;
            }
            let count = partitions(name).unwrap_or(0);
            let begin =
                cursor.filter(|(first, _)| *first == name).map_or(0, |(_, at)| at as usize).min(count);
            let end = count.min(begin + left);
            page.topics.push(Part { name, partitions: begin..end });
            if end < count {
                page.next = Some((name, end as i32));
                break;
            }
            left -= end - begin;
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str) -> Option<usize> {
        match name {
            "a" => Some(3),
            "b" => Some(2),
            "d" => Some(1),
            _ => None,
        }
    }

    #[test]
    fn pages_follow_each_other_without_gap() {
        for limit in 1..8 {
            let mut told: Vec<(String, usize)> = Vec::new();
            let mut cursor: Option<(String, i32)> = None;
            loop {
                let at = cursor.as_ref().map(|(name, partition)| (name.as_str(), *partition));
                let page = Page::of(vec!["a", "b", "d"], at, limit, count);
                let parts =
                    page.topics.iter().flat_map(|p| p.partitions.clone().map(|n| (p.name.to_owned(), n)));
                let before = told.len();
                told.extend(parts);
                assert!(told.len() - before <= limit);
                match page.next {
                    Some((name, partition)) => cursor = Some((name.to_owned(), partition)),
                    None => break,
                }
            }
            let all = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1), ("d", 0)];
            assert_eq!(told, all.map(|(name, n)| (name.to_owned(), n)), "{limit}");
        }
    }

    #[test]
    fn a_missing_topic_takes_no_room() {
        let page = Page::of(vec!["b", "c", "d"], None, 3, count);
        let part = |name, partitions| Part { name, partitions };
        let topics = vec![part("b", 0..2), part("c", 0..0), part("d", 0..1)];
        assert_eq!(page, Page { topics, next: None });
    }

    #[test]
    fn a_cursor_behind_the_end_tells_nothing_of_its_topic() {
        let page = Page::of(vec!["a", "b"], Some(("a", 9)), 10, count);
        assert_eq!(page.topics[0].partitions, 3..3);
        assert_eq!((page.topics[1].partitions.clone(), page.next), (0..2, None));
    }
}
