//! Requests about consumer groups and their offsets.

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::DescribedGroup;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::OffsetFetchResponsePartitions;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{ApiKey, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::schema::{Api, Kind, Schema, answered_array, array, blob, boolean, int8, int32, int64, text};

/// No version of the API has compact lengths.
const NEVER_FLEXIBLE: i16 = i16::MAX;

pub(super) const OFFSET_COMMIT: Api = Api {
    key: ApiKey::OffsetCommit,
    min: 2,
    max: 9,
    flexible_from: 8,
    request: &Schema::new(
        "OffsetCommitRequest",
        &[
            text("group_id"),
            int32("generation_id_or_member_epoch"),
            text("member_id"),
            text("group_instance_id").nullable().since(7),
            int64("retention_time_ms").until(4),
            array::<OffsetCommitRequestTopic>("topics", &Kind::Struct(&COMMIT_TOPIC)),
        ],
    ),
};

const COMMIT_TOPIC: Schema = Schema::new(
    "OffsetCommitRequestTopic",
    &[text("name"), array::<OffsetCommitRequestPartition>("partitions", &Kind::Struct(&COMMIT_PARTITION))],
);

const COMMIT_PARTITION: Schema = Schema::new(
    "OffsetCommitRequestPartition",
    &[
        int32("partition_index"),
        int64("committed_offset"),
        int32("committed_leader_epoch").since(6),
        text("committed_metadata").nullable(),
    ],
);

pub(super) const OFFSET_FETCH: Api = Api {
    key: ApiKey::OffsetFetch,
    min: 1,
    max: 9,
    flexible_from: 6,
    request: &Schema::new(
        "OffsetFetchRequest",
        &[
            text("group_id").until(7),
            array::<OffsetFetchRequestTopic>("topics", &Kind::Struct(&FETCH_TOPIC)).nullable().until(7),
            array::<OffsetFetchRequestGroup>("groups", &Kind::Struct(&FETCH_GROUP)).since(8),
            boolean("require_stable").since(7),
        ],
    ),
};

const FETCH_TOPIC: Schema = Schema::new(
    "OffsetFetchRequestTopic",
    &[
        text("name"),
        answered_array::<i32, OffsetFetchResponsePartitions>("partition_indexes", &Kind::Fixed(4)),
    ],
);

const FETCH_GROUP: Schema = Schema::new(
    "OffsetFetchRequestGroup",
    &[
        text("group_id"),
        text("member_id").nullable().since(9),
        int32("member_epoch").since(9),
        array::<OffsetFetchRequestTopics>("topics", &Kind::Struct(&FETCH_TOPIC)).nullable(),
    ],
);

pub(super) const FIND_COORDINATOR: Api = Api {
    key: ApiKey::FindCoordinator,
    min: 0,
    max: 6,
    flexible_from: 3,
    request: &Schema::new(
        "FindCoordinatorRequest",
        &[
            text("key").until(3),
            int8("key_type").since(1),
            answered_array::<StrBytes, Coordinator>("coordinator_keys", &Kind::Text).since(4),
        ],
    ),
};

pub(super) const JOIN_GROUP: Api = Api {
    key: ApiKey::JoinGroup,
    min: 0,
    max: 9,
    flexible_from: 6,
    request: &Schema::new(
        "JoinGroupRequest",
        &[
            text("group_id"),
            int32("session_timeout_ms"),
            int32("rebalance_timeout_ms").since(1),
            text("member_id"),
            text("group_instance_id").nullable().since(5),
            text("protocol_type"),
            array::<JoinGroupRequestProtocol>("protocols", &Kind::Struct(&JOIN_PROTOCOL)),
            text("reason").nullable().since(8),
        ],
    ),
};

const JOIN_PROTOCOL: Schema = Schema::new("JoinGroupRequestProtocol", &[text("name"), blob("metadata")]);

pub(super) const SYNC_GROUP: Api = Api {
    key: ApiKey::SyncGroup,
    min: 0,
    max: 5,
    flexible_from: 4,
    request: &Schema::new(
        "SyncGroupRequest",
        &[
            text("group_id"),
            int32("generation_id"),
            text("member_id"),
            text("group_instance_id").nullable().since(3),
            text("protocol_type").nullable().since(5),
            text("protocol_name").nullable().since(5),
            array::<SyncGroupRequestAssignment>("assignments", &Kind::Struct(&SYNC_ASSIGNMENT)),
        ],
    ),
};

const SYNC_ASSIGNMENT: Schema =
    Schema::new("SyncGroupRequestAssignment", &[text("member_id"), blob("assignment")]);

pub(super) const HEARTBEAT: Api = Api {
    key: ApiKey::Heartbeat,
    min: 0,
    max: 4,
    flexible_from: 4,
    request: &Schema::new(
        "HeartbeatRequest",
        &[
            text("group_id"),
            int32("generation_id"),
            text("member_id"),
            text("group_instance_id").nullable().since(3),
        ],
    ),
};

pub(super) const LEAVE_GROUP: Api = Api {
    key: ApiKey::LeaveGroup,
    min: 0,
    max: 5,
    flexible_from: 4,
    request: &Schema::new(
        "LeaveGroupRequest",
        &[
            text("group_id"),
            text("member_id").until(2),
            array::<MemberIdentity>("members", &Kind::Struct(&MEMBER_IDENTITY)).since(3),
        ],
    ),
};

const MEMBER_IDENTITY: Schema = Schema::new(
    "MemberIdentity",
    &[text("member_id"), text("group_instance_id").nullable(), text("reason").nullable().since(5)],
);

pub(super) const DESCRIBE_GROUPS: Api = Api {
    key: ApiKey::DescribeGroups,
    min: 0,
    max: 6,
    flexible_from: 5,
    request: &Schema::new(
        "DescribeGroupsRequest",
        &[
            answered_array::<GroupId, DescribedGroup>("groups", &Kind::Text),
            boolean("include_authorized_operations").since(3),
        ],
    ),
};

pub(super) const LIST_GROUPS: Api = Api {
    key: ApiKey::ListGroups,
    min: 0,
    max: 5,
    flexible_from: 3,
    request: &Schema::new(
        "ListGroupsRequest",
        &[
            array::<StrBytes>("states_filter", &Kind::Text).since(4),
            array::<StrBytes>("types_filter", &Kind::Text).since(5),
        ],
    ),
};

pub(super) const DELETE_GROUPS: Api = Api {
    key: ApiKey::DeleteGroups,
    min: 0,
    max: 2,
    flexible_from: 2,
    request: &Schema::new(
        "DeleteGroupsRequest",
        &[answered_array::<GroupId, DeletableGroupResult>("groups_names", &Kind::Text)],
    ),
};

pub(super) const OFFSET_DELETE: Api = Api {
    key: ApiKey::OffsetDelete,
    min: 0,
    max: 0,
    flexible_from: NEVER_FLEXIBLE,
    request: &Schema::new(
        "OffsetDeleteRequest",
        &[text("group_id"), array::<OffsetDeleteRequestTopic>("topics", &Kind::Struct(&OFFSET_DELETE_TOPIC))],
    ),
};

const OFFSET_DELETE_TOPIC: Schema = Schema::new(
    "OffsetDeleteRequestTopic",
    &[
        text("name"),
        array::<OffsetDeleteRequestPartition>("partitions", &Kind::Struct(&OFFSET_DELETE_PARTITION)),
    ],
);

const OFFSET_DELETE_PARTITION: Schema =
    Schema::new("OffsetDeleteRequestPartition", &[int32("partition_index")]);
