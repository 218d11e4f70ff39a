//! The requests of [`super::requests`] about consumer groups.

use bytes::Bytes;
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
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiKey, DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::requests::{encoded, name};

/// The body of a request; `None` if it is about something else.
pub(crate) fn sample(key: ApiKey, version: i16) -> Option<Bytes> {
    Some(match key {
        ApiKey::OffsetCommit => encoded(&offset_commit(version), version),
        ApiKey::OffsetFetch => encoded(&offset_fetch(version), version),
        ApiKey::FindCoordinator => encoded(&find_coordinator(version), version),
        ApiKey::JoinGroup => encoded(&join_group(version), version),
        ApiKey::Heartbeat => encoded(&heartbeat(version), version),
        ApiKey::LeaveGroup => encoded(&leave_group(version), version),
        ApiKey::SyncGroup => encoded(&sync_group(version), version),
        ApiKey::DescribeGroups => encoded(&describe_groups(version), version),
        ApiKey::ListGroups => encoded(&list_groups(version), version),
        ApiKey::DeleteGroups => encoded(&delete_groups(version), version),
        ApiKey::OffsetDelete => encoded(&offset_delete(), version),
        _ => return None,
    })
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn group(id: &'static str) -> GroupId {
    GroupId(text(id))
}

fn offset_commit(version: i16) -> OffsetCommitRequest {
    let flexible = version >= 8;
    let mut partition = OffsetCommitRequestPartition::default()
        .with_partition_index(3)
        .with_committed_offset(5)
        .with_committed_metadata(Some(text("metadata")));
    if version >= 6 {
        partition.committed_leader_epoch = 2;
    }
    let partition = tags!(partition, flexible);
    let partitions = vec![partition.clone(), partition.with_committed_metadata(None)];
    let topic = tags!(
        OffsetCommitRequestTopic::default().with_name(name("topic")).with_partitions(partitions),
        flexible
    );
    let mut request = OffsetCommitRequest::default()
        .with_group_id(group("group"))
        .with_generation_id_or_member_epoch(4)
        .with_member_id(text("member"))
        .with_topics(vec![topic.clone(), topic]);
    if version >= 7 {
        request.group_instance_id = Some(text("instance"));
    }
    if version <= 4 {
        request.retention_time_ms = 9;
    }
    tags!(request, flexible)
}

fn offset_fetch(version: i16) -> OffsetFetchRequest {
    let flexible = version >= 6;
    let mut request = OffsetFetchRequest::default();
    if version >= 7 {
        request.require_stable = true;
    }
    if version >= 8 {
        let topic = tags!(
            OffsetFetchRequestTopics::default().with_name(name("topic")).with_partition_indexes(vec![1, 2]),
            flexible
        );
        let mut one = OffsetFetchRequestGroup::default()
            .with_group_id(group("group"))
            .with_topics(Some(vec![topic.clone(), topic]));
        if version >= 9 {
            one.member_id = Some(text("member"));
            one.member_epoch = 2;
        }
        let one = tags!(one, flexible);
        request.groups = vec![one.clone(), one.with_topics(None)];
    } else {
        let topic = tags!(
            OffsetFetchRequestTopic::default().with_name(name("topic")).with_partition_indexes(vec![1, 2]),
            flexible
        );
        request.group_id = group("group");
        request.topics = Some(vec![topic.clone(), topic]);
    }
    tags!(request, flexible)
}

fn find_coordinator(version: i16) -> FindCoordinatorRequest {
    let mut request = FindCoordinatorRequest::default();
    if version >= 1 {
        request.key_type = 1;
    }
    if version >= 4 {
        request.coordinator_keys = vec![text("one"), text("two")];
    } else {
        request.key = text("group");
    }
    tags!(request, version >= 3)
}

fn join_group(version: i16) -> JoinGroupRequest {
    let flexible = version >= 6;
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"subscription"));
    let protocol = tags!(protocol, flexible);
    let mut request = JoinGroupRequest::default()
        .with_group_id(group("group"))
        .with_session_timeout_ms(10_000)
        .with_member_id(text("member"))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol.clone(), protocol]);
    if version >= 1 {
        request.rebalance_timeout_ms = 20_000;
    }
    if version >= 5 {
        request.group_instance_id = Some(text("instance"));
    }
    if version >= 8 {
        request.reason = Some(text("because"));
    }
    tags!(request, flexible)
}

fn sync_group(version: i16) -> SyncGroupRequest {
    let flexible = version >= 4;
    let assigned = SyncGroupRequestAssignment::default()
        .with_member_id(text("member"))
        .with_assignment(Bytes::from_static(b"assignment"));
    let assigned = tags!(assigned, flexible);
    let mut request = SyncGroupRequest::default()
        .with_group_id(group("group"))
        .with_generation_id(4)
        .with_member_id(text("member"))
        .with_assignments(vec![assigned.clone(), assigned]);
    if version >= 3 {
        request.group_instance_id = Some(text("instance"));
    }
    if version >= 5 {
        request.protocol_type = Some(text("consumer"));
        request.protocol_name = Some(text("range"));
    }
    tags!(request, flexible)
}

fn heartbeat(version: i16) -> HeartbeatRequest {
    let mut request = HeartbeatRequest::default()
        .with_group_id(group("group"))
        .with_generation_id(4)
        .with_member_id(text("member"));
    if version >= 3 {
        request.group_instance_id = Some(text("instance"));
    }
    tags!(request, version >= 4)
}

fn leave_group(version: i16) -> LeaveGroupRequest {
    let flexible = version >= 4;
    let mut request = LeaveGroupRequest::default().with_group_id(group("group"));
    if version >= 3 {
        let mut member = MemberIdentity::default()
            .with_member_id(text("member"))
            .with_group_instance_id(Some(text("instance")));
        if version >= 5 {
            member.reason = Some(text("because"));
        }
        let member = tags!(member, flexible);
        request.members = vec![member.clone(), member.with_group_instance_id(None)];
    } else {
        request.member_id = text("member");
    }
    tags!(request, flexible)
}

fn describe_groups(version: i16) -> DescribeGroupsRequest {
    let mut request = DescribeGroupsRequest::default().with_groups(vec![group("one"), group("two")]);
    if version >= 3 {
        request.include_authorized_operations = true;
    }
    tags!(request, version >= 5)
}

fn list_groups(version: i16) -> ListGroupsRequest {
    let mut request = ListGroupsRequest::default();
    if version >= 4 {
        request.states_filter = vec![text("Stable"), text("Empty")];
    }
    if version >= 5 {
        request.types_filter = vec![text("classic"), text("consumer")];
    }
    tags!(request, version >= 3)
}

fn delete_groups(version: i16) -> DeleteGroupsRequest {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![group("one"), group("two")]);
    tags!(request, version >= 2)
}

fn offset_delete() -> OffsetDeleteRequest {
    let partition = |number| OffsetDeleteRequestPartition::default().with_partition_index(number);
    let topic = OffsetDeleteRequestTopic::default()
        .with_name(name("topic"))
        .with_partitions(vec![partition(0), partition(1)]);
    OffsetDeleteRequest::default().with_group_id(group("group")).with_topics(vec![topic.clone(), topic])
}
