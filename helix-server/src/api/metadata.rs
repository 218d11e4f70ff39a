//! Metadata (key 3): brokers, topics, partitions and their leaders.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::mentions::{Mention, mentions};
use super::{names, operations, partition_standing};
use crate::broker::Broker;
use crate::controller::SubmitError;
use crate::controller::commands::{BrokerRegistration, CommandError};
use crate::controller::image::{ClusterImage, PartitionImage, TopicImage};
use crate::controller::internal_topics;

/// First version that can ask for topics by id (KIP-516).
const BY_ID_FROM: i16 = 12;
/// First version that can ask what is allowed (KIP-430).
const OPERATIONS_FROM: i16 = 8;
/// Last version that can ask that about the cluster; there is DescribeCluster for it.
const CLUSTER_OPERATIONS_UNTIL: i16 = 10;

/// Topics that a request has created side by side.
const MAX_CREATIONS: usize = 64;

pub(super) async fn handle(broker: &Broker, mut request: MetadataRequest, version: i16) -> MetadataResponse {
    if version < BY_ID_FROM && names_ids(request.topics.as_deref()) {
        return refused(request, version);
    }
    request.topics = request.topics.map(distinct);
    let auto_create = request.allow_auto_topic_creation && broker.config().auto_create_topics_enable;
    let asked = asked_topics(broker, request.topics.as_deref(), version);
    if request.topics.as_ref().is_some_and(|topics| !topics.is_empty()) {
        broker.wait_for_first_leaders(&asked).await;
    }
    broker.wait_for_failover(&asked).await;
    let topics = match request.topics {
        // Version 0 has no null: there an empty list asks for everything.
        None => all_topics(broker, version),
        Some(asked) if version == 0 && asked.is_empty() => all_topics(broker, version),
        Some(asked) => {
            // Topics that have to be created are created side by side.
            let topics = asked.into_iter().map(|topic| one_topic(broker, topic, auto_create, version));
            stream::iter(topics).buffered(MAX_CREATIONS).collect().await
        }
    };
    let image = broker.image();
    let brokers = shown_brokers(broker, &image)
        .into_iter()
        .map(|registered| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(registered.node.0))
                .with_host(StrBytes::from_string(registered.host.clone()))
                .with_port(i32::from(registered.port))
                .with_rack(registered.rack.clone().map(StrBytes::from_string))
        })
        .collect();
    let mut topics: Vec<MetadataResponseTopic> = topics;
    if (OPERATIONS_FROM..).contains(&version) && request.include_topic_authorized_operations {
        topics.iter_mut().for_each(|topic| topic.topic_authorized_operations = operations::on_topic(true));
    }
    let out = MetadataResponse::default();
    let out = if (OPERATIONS_FROM..=CLUSTER_OPERATIONS_UNTIL).contains(&version) {
        let allowed = operations::on_cluster(request.include_cluster_authorized_operations);
        out.with_cluster_authorized_operations(allowed)
    } else {
        out
    };
    out.with_brokers(brokers)
        .with_cluster_id(Some(StrBytes::from_string(broker.cluster_id().to_string())))
        .with_controller_id(BrokerId(broker.controller_node().0))
        .with_topics(topics)
}

/// Topics by id before there was asking by id: the whole request is refused, each topic with that.
fn refused(request: MetadataRequest, version: i16) -> MetadataResponse {
    let topics = request.topics.unwrap_or_default().into_iter();
    let refused = |topic: MetadataRequestTopic| {
        failed(topic.name, topic.topic_id, ResponseError::InvalidRequest, version)
    };
    MetadataResponse::default()
        .with_controller_id(BrokerId(-1))
        .with_cluster_id(None)
        .with_topics(topics.map(refused).collect())
}

fn names_ids(asked: Option<&[MetadataRequestTopic]>) -> bool {
    asked.into_iter().flatten().any(|topic| topic.name.is_none() || !topic.topic_id.is_nil())
}

/// Each topic once; an id counts for more than a name beside it.
fn distinct(mut asked: Vec<MetadataRequestTopic>) -> Vec<MetadataRequestTopic> {
    for topic in asked.iter_mut().filter(|topic| !topic.topic_id.is_nil()) {
        topic.name = None;
    }
    let named = mentions(asked.iter().map(|topic| (topic.name.as_ref(), topic.topic_id)));
    asked
        .into_iter()
        .zip(named)
        .filter(|(_, mention)| *mention != Mention::Again)
        .map(|(topic, _)| topic)
        .collect()
}

/// The brokers that clients are told of: those that can be reached from here. A node that misses half of them or more is rather cut off itself; its
/// clients may reach the others all the same, and must be told of them to find whoever leads now.
fn shown_brokers<'a>(broker: &Broker, image: &'a ClusterImage) -> Vec<&'a BrokerRegistration> {
    let all: Vec<_> = image.brokers().collect();
    let alive: Vec<_> = all.iter().copied().filter(|registered| broker.is_alive(registered.node)).collect();
    if 2 * alive.len() > all.len() { alive } else { all }
}

/// Those of the topics asked for that exist.
fn asked_topics(
    broker: &Broker,
    asked: Option<&[MetadataRequestTopic]>,
    version: i16,
) -> Vec<Arc<TopicImage>> {
    let image = broker.image();
    let found = |topic: &MetadataRequestTopic| match &topic.name {
        Some(name) if topic.topic_id.is_nil() => image.topic_named(name).cloned(),
        _ => image.topic(topic.topic_id).cloned(),
    };
    match asked {
        Some(asked) if !(asked.is_empty() && version == 0) => asked.iter().filter_map(found).collect(),
        _ => image.topics().cloned().collect(),
    }
}

fn all_topics(broker: &Broker, version: i16) -> Vec<MetadataResponseTopic> {
    let image = broker.image();
    let mut topics: Vec<_> = image.topics().map(|topic| describe(broker, &image, topic, version)).collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics
}

async fn one_topic(
    broker: &Broker,
    asked: MetadataRequestTopic,
    auto_create: bool,
    version: i16,
) -> MetadataResponseTopic {
    let image = broker.image();
    let Some(name) = asked.name else {
        return match image.topic(asked.topic_id) {
            Some(topic) => describe(broker, &image, topic, version),
            None => failed(None, asked.topic_id, ResponseError::UnknownTopicId, version),
        };
    };
    if let Some(topic) = image.topic_named(&name) {
        return describe(broker, &image, topic, version);
    }
    if names::check(&name).is_err() {
        return failed(Some(name), Uuid::nil(), ResponseError::InvalidTopicException, version);
    }
    if !auto_create {
        return failed(Some(name), Uuid::nil(), ResponseError::UnknownTopicOrPartition, version);
    }
    let error = match broker.auto_create(&name).await {
        Ok(_) | Err(SubmitError::Refused(CommandError::TopicExists { .. })) => {
            let image = broker.image();
            if let Some(topic) = image.topic_named(&name) {
                return describe(broker, &image, topic, version);
            }
            ResponseError::LeaderNotAvailable
        }
        Err(SubmitError::Refused(CommandError::InvalidReplicationFactor { .. })) => {
            ResponseError::InvalidReplicationFactor
        }
        // Nobody could take the command just now; clients ask again.
        Err(_) => ResponseError::LeaderNotAvailable,
    };
    failed(Some(name), Uuid::nil(), error, version)
}

fn failed(
    name: Option<TopicName>,
    topic_id: Uuid,
    error: ResponseError,
    version: i16,
) -> MetadataResponseTopic {
    // Before version 12 the name cannot be null.
    let name = if version < 12 { Some(name.unwrap_or_default()) } else { name };
    let out = MetadataResponseTopic::default().with_error_code(error.code()).with_name(name);
    if version >= 10 { out.with_topic_id(topic_id) } else { out }
}

fn describe(
    broker: &Broker,
    image: &ClusterImage,
    topic: &TopicImage,
    version: i16,
) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .enumerate()
        .map(|(number, partition)| describe_partition(broker, image, number as i32, partition, version))
        .collect();
    let out = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_partitions(partitions)
        .with_is_internal(version >= 1 && internal_topics::is_internal(&topic.name));
    if version >= 10 { out.with_topic_id(topic.topic_id) } else { out }
}

fn describe_partition(
    broker: &Broker,
    image: &ClusterImage,
    number: i32,
    partition: &PartitionImage,
    version: i16,
) -> MetadataResponsePartition {
    let standing = partition_standing::of(broker, image, partition);
    let out = MetadataResponsePartition::default()
        .with_error_code(standing.error_code)
        .with_partition_index(number)
        .with_leader_id(standing.leader)
        .with_replica_nodes(standing.replicas)
        .with_isr_nodes(standing.in_sync);
    let out = if version >= 5 { out.with_offline_replicas(standing.offline) } else { out };
    if version >= 7 { out.with_leader_epoch(standing.leader_epoch) } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(name: Option<&str>, id: u128) -> MetadataRequestTopic {
        let name = name.map(|name| TopicName(StrBytes::from_string(name.to_owned())));
        MetadataRequestTopic::default().with_name(name).with_topic_id(Uuid::from_u128(id))
    }

    #[test]
    fn each_topic_is_told_once_and_an_id_counts_for_more_than_a_name() {
        let all = vec![asked(Some("a"), 0), asked(Some("b"), 7), asked(Some("a"), 0), asked(None, 7)];
        assert_eq!(distinct(all), [asked(Some("a"), 0), asked(None, 7)]);
    }

    #[test]
    fn ids_are_refused_before_they_could_be_asked_for() {
        assert!(names_ids(Some(&[asked(Some("a"), 0), asked(None, 7)])));
        assert!(names_ids(Some(&[asked(Some("a"), 7)])));
        assert!(!names_ids(Some(&[asked(Some("a"), 0)])) && !names_ids(None));
        let response = refused(MetadataRequest::default().with_topics(Some(vec![asked(None, 7)])), 11);
        assert_eq!(response.topics[0].error_code, ResponseError::InvalidRequest.code());
        assert!(response.brokers.is_empty());
    }
}
