//! What a fetch request asks for, and where this node has it.

use std::sync::Arc;

use helix_raft::GroupId;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use uuid::Uuid;

use crate::broker::Broker;
use crate::broker::fetch_sessions::{Asked, PartitionKey, SessionClaim, TopicKey};
use crate::controller::image::{ClusterImage, TopicImage};
use crate::partition::view::PartitionView;

/// First version that names topics by id (KIP-516).
const TOPIC_ID_VERSION: i16 = 13;
/// First version with sessions (KIP-227).
const SESSION_VERSION: i16 = 7;

/// The parts of a request that a session is about.
pub(super) struct SessionPart {
    pub(super) claim: SessionClaim,
    pub(super) asked: Vec<Asked>,
    pub(super) forgotten: Vec<PartitionKey>,
}

impl SessionPart {
    pub(super) fn of(request: FetchRequest, version: i16) -> Self {
        let by_id = version >= TOPIC_ID_VERSION;
        let key_of = |name, id| if by_id { TopicKey::Id(id) } else { TopicKey::Name(name) };
        let claim = if version >= SESSION_VERSION {
            SessionClaim { session_id: request.session_id, epoch: request.session_epoch, by_id }
        } else {
            SessionClaim::NONE
        };
        let mut asked = Vec::new();
        for topic in request.topics {
            let key = key_of(topic.topic, topic.topic_id);
            asked.extend(topic.partitions.into_iter().map(|partition| Asked {
                key: PartitionKey { topic: key.clone(), partition: partition.partition },
                known_as: None,
                current_leader_epoch: partition.current_leader_epoch,
                fetch_offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
            }));
        }
        let mut forgotten = Vec::new();
        for topic in request.forgotten_topics_data {
            let key = key_of(topic.topic, topic.topic_id);
            forgotten.extend(
                topic.partitions.into_iter().map(|partition| PartitionKey { topic: key.clone(), partition }),
            );
        }
        Self { claim, asked, forgotten }
    }
}

/// One partition that the client asks for.
pub(super) struct Wanted {
    pub(super) asked: Asked,
    /// Its group, if the partition exists.
    pub(super) group: Option<GroupId>,
    /// This node's replica, if it has one.
    pub(super) view: Result<Arc<PartitionView>, ResponseError>,
}

impl Wanted {
    /// Whether there is such a partition in the cluster, here or elsewhere.
    pub(super) fn exists(&self) -> bool {
        self.group.is_some()
    }
}

/// Looks up what is asked for.
pub(super) fn resolve(broker: &Broker, partitions: &[Asked]) -> Vec<Wanted> {
    let image = broker.image();
    partitions.iter().map(|asked| resolve_one(broker, &image, asked)).collect()
}

fn resolve_one(broker: &Broker, image: &ClusterImage, asked: &Asked) -> Wanted {
    let number = asked.key.partition;
    let (group, view) = match topic_of(image, asked) {
        Err(error) => (None, Err(error)),
        Ok(topic) => {
            let partition = usize::try_from(number).ok().and_then(|number| topic.partitions.get(number));
            let view = broker.view_of(topic, number, asked.current_leader_epoch);
            (partition.map(|partition| partition.group), view)
        }
    };
    Wanted { asked: asked.clone(), group, view }
}

/// A session remembers the name that an id had. When that name has another id by now, the client is told so, and when the topic
/// is gone, that it is.
fn topic_of<'a>(image: &'a ClusterImage, asked: &Asked) -> Result<&'a Arc<TopicImage>, ResponseError> {
    match &asked.key.topic {
        TopicKey::Name(name) => image.topic_named(name).ok_or(ResponseError::UnknownTopicOrPartition),
        TopicKey::Id(topic_id) => image.topic(*topic_id).ok_or_else(|| match &asked.known_as {
            None => ResponseError::UnknownTopicId,
            Some(name) if image.topic_named(name).is_some() => ResponseError::InconsistentTopicId,
            Some(_) => ResponseError::UnknownTopicOrPartition,
        }),
    }
}

/// The name that a topic id has now.
pub(super) fn name_of(broker: &Broker, topic_id: Uuid) -> Option<String> {
    broker.image().topic(topic_id).map(|topic| topic.name.clone())
}
