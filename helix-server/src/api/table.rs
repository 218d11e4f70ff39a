//! Which APIs and versions are served: the one table that `ApiVersions` and the dispatcher are built from.

use kafka_protocol::messages::ApiKey;

/// The versions of one API.
#[derive(Debug, Clone, Copy)]
pub struct ServedApi {
    /// Which API.
    pub key: ApiKey,
    /// Lowest version served.
    pub min: i16,
    /// Highest version served.
    pub max: i16,
    /// Lowest version that `ApiVersions` claims. Differs from `min` for Produce alone (see [`SERVED`]).
    pub advertised_min: i16,
}

const fn api(key: ApiKey, min: i16, max: i16) -> ServedApi {
    ServedApi { key, min, max, advertised_min: min }
}

/// Everything that is served, by key. An API that is not done is not here.
///
/// Produce claims version 0 although versions below 3 are refused: librdkafka before 2.8 concludes from a higher minimum
/// that the broker knows no compression (KAFKA-18659, and Apache Kafka 4 does the same).
pub const SERVED: &[ServedApi] = &[
    ServedApi { key: ApiKey::Produce, min: 3, max: 13, advertised_min: 0 },
    api(ApiKey::Fetch, 4, 17),
    api(ApiKey::ListOffsets, 1, 10),
    api(ApiKey::Metadata, 0, 13),
    api(ApiKey::OffsetCommit, 2, 9),
    api(ApiKey::OffsetFetch, 1, 9),
    api(ApiKey::FindCoordinator, 0, 6),
    api(ApiKey::JoinGroup, 0, 9),
    api(ApiKey::Heartbeat, 0, 4),
    api(ApiKey::LeaveGroup, 0, 5),
    api(ApiKey::SyncGroup, 0, 5),
    api(ApiKey::DescribeGroups, 0, 6),
    api(ApiKey::ListGroups, 0, 5),
    api(ApiKey::ApiVersions, 0, 4),
    api(ApiKey::CreateTopics, 2, 7),
    api(ApiKey::DeleteTopics, 1, 6),
    api(ApiKey::DeleteRecords, 0, 2),
    api(ApiKey::InitProducerId, 0, 5),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4),
    api(ApiKey::DescribeConfigs, 1, 4),
    api(ApiKey::AlterConfigs, 0, 2),
    api(ApiKey::DescribeLogDirs, 1, 4),
    api(ApiKey::CreatePartitions, 0, 3),
    api(ApiKey::DeleteGroups, 0, 2),
    api(ApiKey::ElectLeaders, 0, 2),
    api(ApiKey::IncrementalAlterConfigs, 0, 1),
    api(ApiKey::OffsetDelete, 0, 0),
    api(ApiKey::DescribeQuorum, 0, 2),
    api(ApiKey::DescribeCluster, 0, 2),
    api(ApiKey::DescribeProducers, 0, 0),
    api(ApiKey::ListConfigResources, 0, 1),
    api(ApiKey::DescribeTopicPartitions, 0, 0),
];

/// The entry of an API, if it is served at all.
pub fn served(api_key: i16) -> Option<&'static ServedApi> {
    SERVED.iter().find(|api| api.key as i16 == api_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn served_versions_are_ones_that_the_decoder_knows() {
        for api in SERVED {
            let known = api.key.valid_versions();
            assert!(known.min <= api.min && api.max <= known.max, "{:?}", api.key);
            assert!(api.advertised_min <= api.min);
        }
    }
}
