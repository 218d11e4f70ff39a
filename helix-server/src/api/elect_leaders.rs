//! ElectLeaders (key 43): hands partitions back to their preferred leaders (KIP-460).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use helix_raft::GroupId;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use tokio::time::Instant;

use super::answer_room::{AnswerRoom, part_bytes};
use super::errors::ApiError;
use super::names;
use crate::broker::Broker;
use crate::controller::image::{ClusterImage, PartitionImage, TopicImage};

/// Kafka's number for an election among replicas in sync; the other one takes whoever is there.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;
/// Elections of one request that go on at the same time. Each is a message to another node.
const MAX_ELECTIONS: usize = 256;

/// What came of elections, by the partitions' groups.
type Outcomes = HashMap<GroupId, Result<(), ApiError>>;

/// Partitions of a topic that a client asks for; as in Kafka each mention is answered, in its order.
struct Asked {
    name: TopicName,
    /// `None` if there is no such topic.
    topic: Option<Arc<TopicImage>>,
    numbers: Vec<i32>,
}

impl Asked {
    fn all(topic: &Arc<TopicImage>) -> Self {
        Self {
            name: TopicName(StrBytes::from_string(topic.name.clone())),
            topic: Some(Arc::clone(topic)),
            numbers: (0..topic.partitions.len() as i32).collect(),
        }
    }

    fn these(image: &ClusterImage, asked: TopicPartitions) -> Self {
        let topic = image.topic_named(&asked.topic).cloned();
        Self { name: asked.topic, topic, numbers: asked.partitions }
    }

    fn partition(&self, number: i32) -> Option<&PartitionImage> {
        self.topic.as_ref()?.partitions.get(usize::try_from(number).ok()?)
    }

    fn outcome(&self, number: i32, outcomes: &Result<Outcomes, ApiError>) -> Result<(), ApiError> {
        let outcomes = outcomes.as_ref().map_err(Clone::clone)?;
        let found = self.partition(number).and_then(|partition| outcomes.get(&partition.group));
        found.cloned().unwrap_or_else(|| Err(self.unknown(number)))
    }

    fn unknown(&self, number: i32) -> ApiError {
        // A name that no topic can have may be of any length.
        let name = if names::check(&self.name).is_ok() { self.name.as_str() } else { "that" };
        let message = match self.topic {
            None => format!("No such topic as {name}"),
            Some(_) => format!("No such partition as {name}-{number}"),
        };
        ApiError::new(ResponseError::UnknownTopicOrPartition, message)
    }
}

pub(super) async fn handle(
    broker: &Broker,
    request: ElectLeadersRequest,
    version: i16,
    room: &mut AnswerRoom,
) -> ElectLeadersResponse {
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms.max(0) as u64);
    let (image, kind) = (broker.image(), request.election_type);
    let known_kind = [PREFERRED, UNCLEAN].contains(&kind);
    let all = request.topic_partitions.is_none();
    let asked: Vec<Asked> = match request.topic_partitions {
        Some(topics) => topics.into_iter().map(|topic| Asked::these(&image, topic)).collect(),
        None if known_kind => image.topics().map(Asked::all).collect(),
        None => Vec::new(),
    };
    let outcomes = if known_kind {
        Ok(elect_each_once(broker, &asked, kind, deadline).await)
    } else {
        Err(unknown_election(kind))
    };
    let mut results = Vec::with_capacity(asked.len());
    for topic in asked {
        let partitions = topic_results(&topic, &outcomes, all, version, room).await;
        results
            .push(ReplicaElectionResult::default().with_topic(topic.name).with_partition_result(partitions));
    }
    let response = ElectLeadersResponse::default().with_replica_election_results(results);
    let code = outcomes.map_or_else(|error| error.code, |_| super::errors::NONE);
    if version >= 1 { response.with_error_code(code) } else { response }
}

async fn topic_results(
    topic: &Asked,
    outcomes: &Result<Outcomes, ApiError>,
    all: bool,
    version: i16,
    room: &mut AnswerRoom,
) -> Vec<PartitionResult> {
    let mut results = Vec::new();
    for number in &topic.numbers {
        let outcome = topic.outcome(*number, outcomes);
        // Who asks for all partitions is told of those alone that there was something to do for.
        if !(all && outcome.as_ref().is_err_and(is_needless)) {
            results.push(result(*number, outcome, version, room).await);
        }
    }
    results
}

/// The answer to an election that nobody knows: every partition is told so.
fn unknown_election(kind: i8) -> ApiError {
    let message = format!("Unknown election type {kind}: 0 is a preferred one, 1 an unclean one");
    ApiError::new(ResponseError::InvalidRequest, message)
}

/// Elects leaders of the partitions that there are, of each once however often it is asked for.
async fn elect_each_once(broker: &Broker, asked: &[Asked], election_type: i8, deadline: Instant) -> Outcomes {
    let mut elections = Vec::new();
    for (group, partition) in distinct(asked) {
        elections.push(async move {
            match election_type {
                UNCLEAN => (group, unclean(broker, partition)),
                _ => (group, prefer(broker, partition, deadline).await),
            }
        });
    }
    stream::iter(elections).buffer_unordered(MAX_ELECTIONS).collect().await
}

fn distinct(asked: &[Asked]) -> BTreeMap<GroupId, &PartitionImage> {
    let named = asked.iter().flat_map(|topic| topic.numbers.iter().map(|number| topic.partition(*number)));
    named.flatten().map(|partition| (partition.group, partition)).collect()
}

fn is_needless(error: &ApiError) -> bool {
    error.code == ResponseError::ElectionNotNeeded.code()
}

/// The answer for a partition: without a message where there is no room for it.
async fn result(
    number: i32,
    outcome: Result<(), ApiError>,
    version: i16,
    room: &mut AnswerRoom,
) -> PartitionResult {
    let result = PartitionResult::default().with_partition_id(number).with_error_message(None);
    let Err(error) = outcome else { return result };
    let result = result.with_error_code(error.code);
    let whole = async { result.clone().with_error_message(error.text()) };
    room.hold(whole, |whole| part_bytes::<_, ()>(whole, 0, version)).await.unwrap_or(result)
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
    use super::*;
    use uuid::Uuid;

    fn topic(partitions: u64) -> Arc<TopicImage> {
        let partition = |number| PartitionImage {
            group: GroupId(number + 1),
            replicas: Vec::new(),
            founders: Vec::new(),
        };
        let partitions = (0..partitions).map(partition).collect();
        Arc::new(TopicImage { name: "t".into(), topic_id: Uuid::nil(), partitions, configs: BTreeMap::new() })
    }

    fn asked(name: &str, topic: Option<&Arc<TopicImage>>, numbers: Vec<i32>) -> Asked {
        Asked { name: TopicName(StrBytes::from_string(name.to_owned())), topic: topic.cloned(), numbers }
    }

    #[test]
    fn a_partition_that_is_asked_for_many_times_is_elected_once() {
        let topic = topic(3);
        let many = [
            asked("t", Some(&topic), vec![2; 10_000]),
            asked("t", Some(&topic), vec![0, 2, 3, -1]),
            asked("u", None, vec![0; 10_000]),
        ];
        let groups: Vec<GroupId> = distinct(&many).into_keys().collect();
        assert_eq!(groups, [GroupId(1), GroupId(3)]);
    }

    #[test]
    fn what_is_not_there_is_named_unless_the_name_is_none() {
        let message = |asked: &Asked| asked.unknown(7).message.expect("a message");
        assert_eq!(message(&asked("t", Some(&topic(1)), vec![])), "No such partition as t-7");
        assert_eq!(message(&asked("u", None, vec![])), "No such topic as u");
        assert_eq!(message(&asked(&"u".repeat(1 << 20), None, vec![])), "No such topic as that");
    }

    #[tokio::test]
    async fn messages_give_way_when_there_is_no_room() {
        let budget = crate::broker::budget::Budget::new(250);
        let mut room = AnswerRoom::of(&budget);
        let error = || Err(ApiError::new(ResponseError::UnknownTopicOrPartition, "No such topic as u"));
        let first = result(1, error(), 2, &mut room).await;
        let mut last = first.clone();
        for _ in 0..10 {
            last = result(1, error(), 2, &mut room).await;
        }
        assert!(first.error_message.is_some() && last.error_message.is_none());
        assert_eq!(first.error_code, last.error_code);
    }
}
