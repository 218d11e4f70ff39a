//! Whoever creates topics, writes a little to them, and deletes them again; and whoever wants leaders back where they are meant to be.
//! Time is the simulated one: a pause here is a step of the schedule, and takes none of the real one.

use std::sync::Arc;
use std::time::Duration;

use helix_server::env::watch;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    ElectLeadersRequest, ElectLeadersResponse,
};
use rand::Rng;

use super::call::{Nodes, topic_name};
use super::ledger::{Ledger, Partition};
use super::producer::{Habits, Lane};

const CREATE_VERSION: i16 = 6;
const DELETE_VERSION: i16 = 6;
const ELECT_VERSION: i16 = 2;

/// Creates a topic; returns once it is certain that it exists.
pub(crate) async fn create(nodes: &Nodes, ledger: &Ledger, topic: &str, partitions: i32) {
    let creatable = CreatableTopic::default()
        .with_name(topic_name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(3);
    let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(5000);
    loop {
        if let Some(connection) = nodes.connect_to_any() {
            let answer: Option<CreateTopicsResponse> =
                connection.ask(ApiKey::CreateTopics, CREATE_VERSION, &request).await;
            let code = answer.and_then(|answer| Some(answer.topics.first()?.error_code));
            tracing::debug!(topic, ?code, "created");
            if let Some(None | Some(ResponseError::TopicAlreadyExists)) =
                code.map(ResponseError::try_from_code)
            {
                return tell_groups(nodes, ledger, topic).await;
            }
        }
        // As a client waits before it tries again.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The ledger has to know which group is behind which partition.
pub(crate) async fn tell_groups(nodes: &Nodes, ledger: &Ledger, topic: &str) {
    loop {
        let found = nodes.brokers().into_iter().find_map(|broker| broker.image().topic_named(topic).cloned());
        if let Some(found) = found {
            for (number, partition) in (0..).zip(&found.partitions) {
                ledger.is_group(&Partition { topic: topic.to_owned(), number }, partition.group);
            }
            return;
        }
        // Any node may be the first to know, and none may run just now: there is nothing to wait for but time.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn delete(nodes: &Nodes, topic: &str) {
    let state = DeleteTopicState::default().with_name(Some(topic_name(topic)));
    let request = DeleteTopicsRequest::default().with_topics(vec![state]).with_timeout_ms(5000);
    loop {
        if let Some(connection) = nodes.connect_to_any() {
            let answer: Option<DeleteTopicsResponse> =
                connection.ask(ApiKey::DeleteTopics, DELETE_VERSION, &request).await;
            let code = answer.and_then(|answer| Some(answer.responses.first()?.error_code));
            tracing::debug!(topic, ?code, "deleted");
            if let Some(None | Some(ResponseError::UnknownTopicOrPartition)) =
                code.map(ResponseError::try_from_code)
            {
                return;
            }
        }
        // As a client waits before it tries again.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Lets topics come and go until told to stop.
pub(crate) async fn come_and_go(
    nodes: Nodes,
    ledger: Arc<Ledger>,
    first_lane: u32,
    stop: watch::Receiver<bool>,
) {
    let mut round = 0;
    while !stop.get() {
        let topic = format!("passing-{round}");
        let (partitions, pause_ms) =
            nodes.random(|random| (random.random_range(1..=2), random.random_range(0..3000)));
        create(&nodes, &ledger, &topic, partitions).await;
        let habits = Habits { idempotent: true, in_flight: 2, pause_ms: 50, message_bytes: 200 };
        let lane = Lane::new(
            nodes.clone(),
            Arc::clone(&ledger),
            Partition { topic: topic.clone(), number: partitions - 1 },
            habits,
            first_lane + round,
        );
        let (enough, told) = watch::channel(false);
        let writing = lane.run(told);
        let ending = async {
            // So long the topic is written to.
            tokio::time::sleep(Duration::from_millis(500)).await;
            enough.send_replace(true);
        };
        futures_util::future::join(writing, ending).await;
        ledger.forget(&topic);
        delete(&nodes, &topic).await;
        round += 1;
        // So long there is none.
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

/// Has leaders hand over to those that are preferred, again and again until told to stop, whether these are up to it or not.
pub(crate) async fn elect(nodes: Nodes, pause_ms: u64, stop: watch::Receiver<bool>) {
    let request = ElectLeadersRequest::default().with_topic_partitions(None).with_timeout_ms(2000);
    while !stop.get() {
        if let Some(connection) = nodes.connect_to_any() {
            let answer: Option<ElectLeadersResponse> =
                connection.ask(ApiKey::ElectLeaders, ELECT_VERSION, &request).await;
            tracing::debug!(?answer, "elected");
        }
        // So long leaders stay where they are.
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}
