//! ElectLeaders (key 43): hands partitions back to their preferred leaders (KIP-460).

use std::time::Duration;

use futures_util::future::join_all;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::errors::ApiError;
use crate::broker::Broker;
use crate::controller::image::{ClusterImage, PartitionImage};

/// Kafka's number for an election among replicas in sync; the other one takes whoever is there.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) async fn handle(
    broker: &Broker,
    request: ElectLeadersRequest,
    version: i16,
) -> ElectLeadersResponse {
    if ![PREFERRED, UNCLEAN].contains(&request.election_type) {
        return unknown_election(&request);
    }
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms.max(0) as u64);
    let image = broker.image();
    let all = request.topic_partitions.is_none();
    let kind = request.election_type;
    let topics = asked(&image, &request).into_iter().map(async |(topic, numbers)| {
        let elections = numbers
            .into_iter()
            .map(async |number| (number, elect(broker, &image, &topic, number, kind, deadline).await));
        let mut outcomes = join_all(elections).await;
        if all {
            // Who asks for all partitions is told of those alone that there was something to do for.
            outcomes.retain(|(_, outcome)| !is_needless(outcome));
        }
        result(&topic, outcomes)
    });
    let response = ElectLeadersResponse::default().with_replica_election_results(join_all(topics).await);
    if version >= 1 { response.with_error_code(super::errors::NONE) } else { response }
}

/// The partitions that are meant, by topic; a topic that is named twice is answered twice.
fn asked(image: &ClusterImage, request: &ElectLeadersRequest) -> Vec<(String, Vec<i32>)> {
    match &request.topic_partitions {
        Some(topics) => {
            topics.iter().map(|topic| (topic.topic.to_string(), topic.partitions.clone())).collect()
        }
        None => image
            .topics()
            .map(|topic| (topic.name.clone(), (0..topic.partitions.len() as i32).collect()))
            .collect(),
    }
}

fn is_needless(outcome: &Result<(), ApiError>) -> bool {
    matches!(outcome, Err(error) if error.code == ResponseError::ElectionNotNeeded.code())
}

/// The answer to an election that nobody knows: every partition is told so.
fn unknown_election(request: &ElectLeadersRequest) -> ElectLeadersResponse {
    let unknown = ApiError::new(
        ResponseError::InvalidRequest,
        format!("Unknown election type {}: 0 is a preferred one, 1 an unclean one", request.election_type),
    );
    let topics = request.topic_partitions.iter().flatten().map(|topic| {
        let outcomes = topic.partitions.iter().map(|number| (*number, Err(unknown.clone())));
        result(&topic.topic, outcomes.collect())
    });
    ElectLeadersResponse::default()
        .with_error_code(unknown.code)
        .with_replica_election_results(topics.collect())
}

fn result(topic: &str, outcomes: Vec<(i32, Result<(), ApiError>)>) -> ReplicaElectionResult {
    ReplicaElectionResult::default()
        .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_result(outcomes.into_iter().map(|(number, outcome)| shape(number, outcome)).collect())
}

fn shape(number: i32, outcome: Result<(), ApiError>) -> PartitionResult {
    let result = PartitionResult::default().with_partition_id(number);
    match outcome {
        Ok(()) => result,
        Err(error) => result.with_error_code(error.code).with_error_message(error.text()),
    }
}

async fn elect(
    broker: &Broker,
    image: &ClusterImage,
    topic: &str,
    number: i32,
    election_type: i8,
    deadline: Instant,
) -> Result<(), ApiError> {
    let unknown = |message: String| ApiError::new(ResponseError::UnknownTopicOrPartition, message);
    let found = image.topic_named(topic).ok_or_else(|| unknown(format!("No such topic as {topic}")))?;
    let partition = usize::try_from(number)
        .ok()
        .and_then(|at| found.partitions.get(at))
        .ok_or_else(|| unknown(format!("No such partition as {topic}-{number}")))?;
    if election_type == UNCLEAN {
        return unclean(broker, partition);
    }
    prefer(broker, partition, deadline).await
}

fn not_needed() -> ApiError {
    ApiError::new(ResponseError::ElectionNotNeeded, "Leader election not needed for topic partition.")
}

fn unclean(broker: &Broker, partition: &PartitionImage) -> Result<(), ApiError> {
    if broker.live_leader(partition.group).is_some() {
        return Err(not_needed());
    }
    Err(ApiError::new(
        ResponseError::EligibleLeadersNotAvailable,
        "Eligible topic partition leaders are not available. What only missing replicas hold is given up by an operator \
         alone: helix-server recover --force",
    ))
}

async fn prefer(broker: &Broker, partition: &PartitionImage, deadline: Instant) -> Result<(), ApiError> {
    let unavailable = |why: &str| {
        let message = format!("The preferred leader was not available: {why}");
        ApiError::new(ResponseError::PreferredLeaderNotAvailable, message)
    };
    let preferred = partition.replicas.first().ok_or_else(|| unavailable("there is none"))?;
    let Some(leader) = broker.live_leader(partition.group) else {
        return Err(unavailable("the partition has no leader that could hand over"));
    };
    if leader == preferred.node {
        return Err(not_needed());
    }
    if !broker.is_alive(preferred.node) {
        return Err(unavailable("its node cannot be reached"));
    }
    broker.hand_leadership(leader, partition.group, preferred.replica, deadline).await.map_err(|refused| {
        match refused {
            crate::broker::questions::HandOverError::Timeout => ApiError::new(
                ResponseError::RequestTimedOut,
                "leadership was not handed over in time; it may still be",
            ),
            crate::broker::questions::HandOverError::Refused(reason) => unavailable(&reason),
        }
    })
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::elect_leaders_request::TopicPartitions;

    use super::*;

    fn request(topics: &[(&'static str, &[i32])]) -> ElectLeadersRequest {
        let one = |(name, partitions): &(&'static str, &[i32])| {
            TopicPartitions::default()
                .with_topic(TopicName(StrBytes::from_static_str(name)))
                .with_partitions(partitions.to_vec())
        };
        ElectLeadersRequest::default().with_topic_partitions(Some(topics.iter().map(one).collect()))
    }

    #[test]
    fn a_topic_that_is_named_twice_is_asked_about_twice() {
        let request = request(&[("a", &[0, 0]), ("b", &[]), ("a", &[1])]);
        let expected = [("a", vec![0, 0]), ("b", vec![]), ("a", vec![1])];
        let asked = asked(&ClusterImage::default(), &request);
        assert_eq!(asked, expected.map(|(name, partitions)| (name.to_owned(), partitions)));
    }

    #[test]
    fn an_unknown_election_is_refused_for_each_partition() {
        let refused = unknown_election(&request(&[("a", &[0, 1])]).with_election_type(2));
        let code = ResponseError::InvalidRequest.code();
        let partitions = &refused.replica_election_results[0].partition_result;
        let told: Vec<_> = partitions.iter().map(|one| (one.partition_id, one.error_code)).collect();
        assert_eq!((refused.error_code, told), (code, vec![(0, code), (1, code)]));
        let of_all = unknown_election(&ElectLeadersRequest::default().with_topic_partitions(None));
        assert!(of_all.replica_election_results.is_empty());
    }
}
