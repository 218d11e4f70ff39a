//! What a coordinator says about a group to somebody who is no member of it.

use std::collections::BTreeMap;
use std::io;

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    ApiKey, DescribeGroupsRequest, DescribeGroupsResponse, GroupId, OffsetFetchRequest, OffsetFetchResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::call::{ANSWER, Connection, find_coordinator};
use super::member::assigned;
use crate::wire::topic_name;

const OFFSET_FETCH_VERSION: i16 = 7;
const DESCRIBE_VERSION: i16 = 5;

/// A group at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Described {
    /// In Kafka's words, `Stable` for one.
    pub(crate) state: String,
    /// Each with its partitions; they are of one generation if the group is stable.
    pub(crate) members: Vec<(String, Vec<i32>)>,
}

impl Described {
    /// Whether it is stable.
    pub(crate) fn is_stable(&self) -> bool {
        self.state == "Stable"
    }
}

/// Asks about one group over and over.
pub(crate) struct Outside {
    bootstrap: Vec<String>,
    group: String,
    topic: String,
    partitions: i32,
    coordinator: Option<Connection>,
    turn: usize,
}

impl Outside {
    /// About a group that reads a topic of so many partitions.
    pub(crate) fn new(bootstrap: &[String], group: &str, topic: &str, partitions: i32) -> Self {
        Self {
            bootstrap: bootstrap.to_vec(),
            group: group.to_owned(),
            topic: topic.to_owned(),
            partitions,
            coordinator: None,
            turn: 0,
        }
    }

    /// Committed offsets by partition; -1 where nothing is committed.
    pub(crate) async fn committed(&mut self) -> io::Result<BTreeMap<i32, i64>> {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic_name(&self.topic))
            .with_partition_indexes((0..self.partitions).collect());
        let request =
            OffsetFetchRequest::default().with_group_id(self.group_id()).with_topics(Some(vec![topic]));
        let mut connection = self.connection().await?;
        let answer: OffsetFetchResponse =
            connection.ask(ApiKey::OffsetFetch, OFFSET_FETCH_VERSION, &request, ANSWER).await?;
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let codes = std::iter::once(answer.error_code).chain(partitions.clone().map(|one| one.error_code));
        refuse_errors("OffsetFetch", codes)?;
        self.coordinator = Some(connection);
        Ok(partitions.map(|one| (one.partition_index, one.committed_offset)).collect())
    }

    /// The group as it is now.
    pub(crate) async fn describe(&mut self) -> io::Result<Described> {
        let request = DescribeGroupsRequest::default().with_groups(vec![self.group_id()]);
        let mut connection = self.connection().await?;
        let answer: DescribeGroupsResponse =
            connection.ask(ApiKey::DescribeGroups, DESCRIBE_VERSION, &request, ANSWER).await?;
        let group = answer.groups.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
        refuse_errors("DescribeGroups", [group.error_code])?;
        self.coordinator = Some(connection);
        let members = group.members.into_iter().map(|member| {
            let partitions = assigned(member.member_assignment, &self.topic)?;
            Ok((member.member_id.to_string(), partitions))
        });
        Ok(Described { state: group.group_state.to_string(), members: members.collect::<io::Result<_>>()? })
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.group.clone()))
    }

    async fn connection(&mut self) -> io::Result<Connection> {
        if let Some(connection) = self.coordinator.take() {
            return Ok(connection);
        }
        let bootstrap = &self.bootstrap[self.turn % self.bootstrap.len()];
        self.turn = self.turn.wrapping_add(1);
        Connection::open(&find_coordinator(bootstrap, &self.group).await?.address).await
    }
}

fn refuse_errors(api: &str, codes: impl IntoIterator<Item = i16>) -> io::Result<()> {
    match codes.into_iter().find(|code| *code != 0) {
        None => Ok(()),
        Some(code) => Err(io::Error::other(format!("{api} is answered with error {code}"))),
    }
}
