//! What is asked: for each API one function that yields its steps for one version of it.
//!
//! An API is added by writing that function and naming it in [`APIS`]. Steps of one version work on topics and groups of their own,
//! named after it; what all share is made by [`before_all`].

mod alterations;
mod cluster;
mod configs;
mod groups;
mod log;
mod membership;
mod offsets;
mod partitions;
mod produce;
mod records;
mod topics;

use std::collections::BTreeMap;
use std::ops::Range;

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, CreateTopicsRequest, FindCoordinatorRequest, GroupId,
    ListOffsetsRequest, MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::case::{Case, ask};
use super::value::Value;

/// An API of the script.
#[derive(Debug)]
pub(super) struct Api {
    key: ApiKey,
    /// First version that is asked: a broker may claim versions that it refuses.
    pub(super) first: i16,
    /// The steps for one version.
    pub(super) cases: fn(i16, &Times) -> Vec<Case>,
}

impl Api {
    pub(super) fn name(&self) -> String {
        name(self.key)
    }
}

const fn api(key: ApiKey, cases: fn(i16, &Times) -> Vec<Case>) -> Api {
    Api { key, first: 0, cases }
}

/// All that is asked, in this order.
pub(super) const APIS: &[Api] = &[
    api(ApiKey::ApiVersions, cluster::api_versions),
    api(ApiKey::Metadata, cluster::metadata),
    api(ApiKey::DescribeCluster, cluster::describe_cluster),
    api(ApiKey::DescribeQuorum, cluster::describe_quorum),
    // Before topics are made of which one broker takes more than the other.
    api(ApiKey::ListConfigResources, configs::list_config_resources),
    api(ApiKey::DescribeTopicPartitions, partitions::describe_topic_partitions),
    api(ApiKey::ElectLeaders, partitions::elect_leaders),
    api(ApiKey::DescribeLogDirs, partitions::describe_log_dirs),
    api(ApiKey::CreateTopics, topics::create_topics),
    api(ApiKey::DeleteTopics, topics::delete_topics),
    api(ApiKey::CreatePartitions, topics::create_partitions),
    api(ApiKey::ListOffsets, log::list_offsets),
    api(ApiKey::OffsetForLeaderEpoch, log::offset_for_leader_epoch),
    api(ApiKey::Fetch, log::fetch),
    api(ApiKey::InitProducerId, produce::init_producer_id),
    Api { key: ApiKey::Produce, first: 3, cases: produce::produce },
    api(ApiKey::DescribeProducers, partitions::describe_producers),
    api(ApiKey::DeleteRecords, partitions::delete_records),
    api(ApiKey::DescribeConfigs, configs::describe_configs),
    api(ApiKey::AlterConfigs, alterations::alter_configs),
    api(ApiKey::IncrementalAlterConfigs, alterations::incremental_alter_configs),
    api(ApiKey::JoinGroup, membership::join_group),
    api(ApiKey::SyncGroup, membership::sync_group),
    api(ApiKey::Heartbeat, membership::heartbeat),
    api(ApiKey::LeaveGroup, membership::leave_group),
    api(ApiKey::OffsetCommit, offsets::offset_commit),
    api(ApiKey::OffsetFetch, offsets::offset_fetch),
    api(ApiKey::OffsetDelete, offsets::offset_delete),
    api(ApiKey::DescribeGroups, groups::describe_groups),
    api(ApiKey::ListGroups, groups::list_groups),
    api(ApiKey::DeleteGroups, groups::delete_groups),
    // Last: looking for coordinators of transactions makes a topic in Apache Kafka.
    api(ApiKey::FindCoordinator, groups::find_coordinator),
];

/// The times that records of the script are given.
#[derive(Debug, Clone)]
pub(super) struct Times {
    first_ms: i64,
}

/// Records are as old as that: old enough not to be taken for "now", and young enough to be taken.
const AGE_MS: i64 = 3_600_000;

impl Times {
    pub(super) fn beginning(now_ms: i64) -> Self {
        Self { first_ms: now_ms - AGE_MS }
    }

    pub(super) fn range(&self) -> Range<i64> {
        self.first_ms..self.first_ms + AGE_MS / 2
    }

    fn at(&self, ms: i64) -> i64 {
        self.first_ms + ms
    }
}

/// What an API is called.
pub(super) fn name(key: ApiKey) -> String {
    format!("{key:?}")
}

/// Asks for the versions that are served.
pub(super) fn what_is_served() -> Case {
    ask("what is served", 0, ApiVersionsRequest::default())
}

/// The versions in the answer to [`what_is_served`], by the names of the APIs.
pub(super) fn served_in(answer: &Value) -> BTreeMap<String, (i16, i16)> {
    let Some(Value::List(keys)) = answer.at("api_keys") else { return BTreeMap::new() };
    let number = |of: &Value, field: &str| of.at(field).and_then(Value::number)?.try_into().ok();
    let read = |one: &Value| {
        let key = ApiKey::try_from(number(one, "api_key")?).ok()?;
        Some((name(key), (number(one, "min_version")?, number(one, "max_version")?)))
    };
    keys.iter().filter_map(read).collect()
}

/// Topics with records, and the topic of the groups.
pub(super) fn before_all(times: &Times) -> Vec<Case> {
    let mut cases = vec![alterations::before_all()];
    cases.extend(made_topic("orders", 3, &[]));
    cases.extend(made_topic("empty", 1, &[]));
    cases.extend(made_topic("log-append", 1, &[("message.timestamp.type", "LogAppendTime")]));
    cases.extend(produce::before_all(times));
    cases.push(
        ask("until there is a coordinator", 2, FindCoordinatorRequest::default().with_key(text("any")))
            .until("error_code", "0"),
    );
    cases.push(until_led("__consumer_offsets", 1));
    cases
}

/// Makes a topic and waits until it is led; its id is known as `<id of NAME>` from then on, the epoch of its first partition as
/// `epoch of NAME`.
fn made_topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> Vec<Case> {
    let new =
        new_topic(name, partitions).with_configs(configs.iter().map(|(k, v)| config(k, Some(v))).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(30_000);
    let last = |number| ListOffsetsPartition::default().with_partition_index(number).with_timestamp(-1);
    let all = ListOffsetsTopic::default()
        .with_name(topic(name))
        .with_partitions((0..partitions).map(last).collect());
    let latest = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![all]);
    // A broker may know of partitions that it does not lead yet.
    let asked = ask(&format!("until {name} can be asked"), 1, latest);
    let asked = (0..partitions).fold(asked, |asked, number| {
        asked.until(&format!("topics[{name}].partitions[{number}].error_code"), "0")
    });
    vec![ask(&format!("create {name}"), 4, request), until_led(name, partitions), asked]
}

/// Waits until a topic's partitions are led.
fn until_led(name: &str, partitions: i32) -> Case {
    ask(&format!("until {name} is led"), 12, metadata_of(name))
        .until(&format!("topics[{name}].error_code"), "0")
        .until(&format!("topics[{name}].partitions[{}].error_code", partitions - 1), "0")
        .until(&format!("topics[{name}].partitions[0].error_code"), "0")
        .keep(&format!("id of {name}"), &format!("topics[{name}].topic_id"))
        .keep(&format!("epoch of {name}"), &format!("topics[{name}].partitions[0].leader_epoch"))
}

fn metadata_of(name: &str) -> MetadataRequest {
    MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic(name)))]))
        .with_allow_auto_topic_creation(false)
}

fn new_topic(name: &str, partitions: i32) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(topic(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
}

fn config(name: &str, value: Option<&str>) -> CreatableTopicConfig {
    CreatableTopicConfig::default().with_name(text(name)).with_value(value.map(text))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

/// An id that no topic has: none that is drawn.
fn nobodys_id() -> Uuid {
    Uuid::from_u128(0x1234_5678_9abc_1def_8123_4567_89ab_cdef)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_api_has_steps_whose_names_tell_them_apart() {
        let times = Times::beginning(2 * AGE_MS);
        for api in APIS {
            let versions = api.key.valid_versions();
            for version in versions.min.max(api.first)..=versions.max {
                let names: Vec<String> = (api.cases)(version, &times)
                    .iter()
                    .filter(|case| case.api == api.key)
                    .map(|case| case.name.clone())
                    .collect();
                let mut unique = names.clone();
                unique.sort();
                unique.dedup();
                assert!(!names.is_empty(), "{} v{version}", api.name());
                assert_eq!(names.len(), unique.len(), "{} v{version}: {names:?}", api.name());
            }
        }
    }

    #[test]
    fn what_is_served_is_read_from_the_answer() {
        let answer =
            Value::from_debug("{api_keys: [{api_key: 3, min_version: 0, max_version: 13}]}").unwrap();
        assert_eq!(served_in(&answer), BTreeMap::from([("Metadata".to_owned(), (0, 13))]));
    }
}
