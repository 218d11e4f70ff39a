//! Requests that name much, or the same many times, and what becomes of their answers.

use super::*;

#[tokio::test]
async fn a_kind_of_resource_that_nobody_knows_spoils_the_request() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let resource = |kind: i8, name: &str| {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    };
    for (resources, expected) in [
        (vec![resource(TOPIC, "t"), resource(99, "u")], vec![INVALID_REQUEST; 2]),
        (vec![resource(TOPIC, "t"), resource(TOPIC, "")], vec![NONE, INVALID_TOPIC]),
    ] {
        let request = DescribeConfigsRequest::default().with_resources(resources);
        let told: DescribeConfigsResponse =
            call(&mut client.connection, ApiKey::DescribeConfigs, 4, &request).await;
        let codes: Vec<i16> = told.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, expected);
    }
    node.end().await;
}

/// What a request of a few bytes could make of a node's memory, if every mention in it were answered.
#[tokio::test]
async fn answers_end_where_there_is_no_room_for_more() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;

    // Each is answered by dozens of entries: 80,000 of them would be gigabytes.
    let broker = DescribeConfigsResource::default().with_resource_type(BROKER).with_resource_name(text("1"));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![broker; 80_000])
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let told: DescribeConfigsResponse =
        call(&mut client.connection, ApiKey::DescribeConfigs, 4, &request).await;
    assert_eq!(told.results.len(), 80_000);
    let answered = told.results.iter().take_while(|result| result.error_code == NONE).count();
    assert!((100..80_000).contains(&answered), "{answered}");
    assert!(told.results[..answered].iter().all(|result| !result.configs.is_empty()));
    for refused in &told.results[answered..] {
        assert_eq!((refused.error_code, refused.configs.len()), (INVALID_REQUEST, 0));
        assert!(refused.error_message.as_ref().unwrap().contains("ask for less"));
    }
    drop(told);

    // A topic is told of its configuration even where it is only checked whether it could be made.
    let topic = |number: i32| {
        let topic = CreatableTopic::default().with_name(TopicName(text(&format!("v{number}"))));
        topic.with_num_partitions(1).with_replication_factor(1)
    };
    let request = CreateTopicsRequest::default()
        .with_topics((0..20_000).map(topic).collect())
        .with_timeout_ms(30_000)
        .with_validate_only(true);
    let told: CreateTopicsResponse = call(&mut client.connection, ApiKey::CreateTopics, 7, &request).await;
    let (first, last) = (&told.topics[0], &told.topics[19_999]);
    assert_eq!((first.error_code, first.topic_config_error_code, last.error_code), (NONE, NONE, NONE));
    assert_eq!((last.topic_config_error_code, last.configs.as_ref()), (INVALID_REQUEST, None));
    assert!(!first.configs.as_ref().unwrap().is_empty());

    assert_eq!(client.value(BROKER, "1", "node.id").await.0, "1", "the room is there again");
    until("all room is given back", async || {
        (node.metric("helix_budget_used{budget=\"answers\"}").await? == 0.0).then_some(())
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn a_group_whose_offsets_are_asked_for_many_times_is_told_while_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let partition = OffsetCommitRequestPartition::default()
        .with_committed_offset(7)
        .with_committed_metadata(Some(text(&"m".repeat(4000))));
    let topic = OffsetCommitRequestTopic::default().with_name(TopicName(text("t")));
    let commit = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(vec![topic.with_partitions(vec![partition])]);
    until("a coordinator that takes an offset", async || {
        let request = FindCoordinatorRequest::default().with_key(text("g"));
        let _: FindCoordinatorResponse =
            call(&mut client.connection, ApiKey::FindCoordinator, 3, &request).await;
        let told: OffsetCommitResponse = call(&mut client.connection, ApiKey::OffsetCommit, 8, &commit).await;
        is(NONE, told.topics[0].partitions[0].error_code)
    })
    .await;

    let group = OffsetFetchRequestGroup::default().with_group_id(GroupId(text("g"))).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group; 20_000]);
    let told: OffsetFetchResponse = call(&mut client.connection, ApiKey::OffsetFetch, 9, &request).await;
    let answered = told.groups.iter().take_while(|group| group.error_code == NONE).count();
    assert!((1000..20_000).contains(&answered), "{answered}");
    assert!(told.groups[..answered].iter().all(|group| group.topics[0].partitions[0].committed_offset == 7));
    let rest = &told.groups[answered..];
    assert_eq!(rest.len(), 20_000 - answered);
    assert!(
        rest.iter().all(|group| group.error_code == COORDINATOR_LOAD_IN_PROGRESS && group.topics.is_empty())
    );
    drop(told);

    let topic = OffsetFetchRequestTopic::default().with_name(TopicName(text("t")));
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_topics(Some(vec![topic.with_partition_indexes(vec![0; 100_000])]));
    let told: OffsetFetchResponse = call(&mut client.connection, ApiKey::OffsetFetch, 7, &request).await;
    let partitions = &told.topics[0].partitions;
    assert_eq!((told.error_code, partitions.len(), partitions[0].committed_offset), (NONE, 1, 7));
    node.end().await;
}

#[tokio::test]
async fn each_mention_of_a_partition_is_answered_in_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let asked = |topic: &str, partitions: Vec<i32>| {
        elect_leaders_request::TopicPartitions::default()
            .with_topic(TopicName(text(topic)))
            .with_partitions(partitions)
    };
    let topics = vec![asked("t", vec![0, 9, 0]), asked("missing", vec![0]), asked("t", vec![0; 100_000])];
    let request = ElectLeadersRequest::default().with_topic_partitions(Some(topics)).with_timeout_ms(30_000);
    let told: ElectLeadersResponse = call(&mut client.connection, ApiKey::ElectLeaders, 2, &request).await;
    let codes: Vec<(String, Vec<i16>)> = told
        .replica_election_results
        .iter()
        .map(|topic| {
            let codes = topic.partition_result.iter().map(|partition| partition.error_code);
            (topic.topic.to_string(), codes.collect())
        })
        .collect();
    const UNKNOWN: i16 = 3;
    let expected = [
        ("t", vec![ELECTION_NOT_NEEDED, UNKNOWN, ELECTION_NOT_NEEDED]),
        ("missing", vec![UNKNOWN]),
        ("t", vec![ELECTION_NOT_NEEDED; 100_000]),
    ];
    assert_eq!(codes, expected.map(|(topic, codes)| (topic.to_owned(), codes)));

    let request = ElectLeadersRequest::default()
        .with_election_type(7)
        .with_topic_partitions(Some(vec![asked("t", vec![0, 0])]))
        .with_timeout_ms(30_000);
    let told: ElectLeadersResponse = call(&mut client.connection, ApiKey::ElectLeaders, 2, &request).await;
    let partitions = &told.replica_election_results[0].partition_result;
    assert_eq!((told.error_code, partitions.len()), (INVALID_REQUEST, 2));
    assert!(partitions.iter().all(|partition| partition.error_code == INVALID_REQUEST));
    node.end().await;
}
