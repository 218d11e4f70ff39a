//! Configurations of topics and brokers: what is altered is in force, and is told.

use super::*;

#[tokio::test]
async fn what_is_altered_on_a_topic_is_in_force_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    client.set("t", "max.message.bytes", "200").await;
    until("a limit on batches", async || {
        is(MESSAGE_TOO_LARGE, client.produce("t", batch(500, None)).await.error_code)
    })
    .await;
    assert_eq!(client.produce_small("t").await, NONE);
    assert_eq!(client.alter((TOPIC, "t"), &[("max.message.bytes", DELETE, None)]).await.0, NONE);
    until("no limit", async || is(NONE, client.produce("t", batch(500, None)).await.error_code)).await;

    client.set("t", "max.message.bytes", "3000000").await;
    client.set("t", "segment.bytes", "1048576").await;
    until("a limit on what fits into a segment", async || {
        is(RECORD_LIST_TOO_LARGE, client.produce("t", batch(1_100_000, None)).await.error_code)
    })
    .await;

    client.set("t", "min.insync.replicas", "2").await;
    until("a refusal", async || is(NOT_ENOUGH_REPLICAS, client.produce_small("t").await)).await;
    client.set("t", "min.insync.replicas", "1").await;
    until("no refusal", async || is(NONE, client.produce_small("t").await)).await;

    client.set("t", "message.timestamp.type", "LogAppendTime").await;
    until("the broker's time", async || {
        (client.produce("t", batch(10, None)).await.log_append_time_ms > 1000).then_some(())
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn records_are_deleted_of_topics_alone_whose_records_are_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(1);
    let topic =
        DeleteRecordsTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    for (policy, code) in [("compact", POLICY_VIOLATION), ("compact,delete", NONE)] {
        client.set("t", "cleanup.policy", policy).await;
        until(policy, async || {
            let told: DeleteRecordsResponse =
                call(&mut client.connection, ApiKey::DeleteRecords, 2, &request).await;
            let told = &told.topics[0].partitions[0];
            let low_watermark = if code == NONE { 1 } else { -1 };
            ((told.error_code, told.low_watermark) == (code, low_watermark)).then_some(())
        })
        .await;
    }
    node.end().await;
}

/// The attributes of the batch at this offset.
async fn attributes(client: &mut Client, topic: &str, offset: i64) -> i16 {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![partition]);
    let request =
        FetchRequest::default().with_max_wait_ms(0).with_max_bytes(1 << 20).with_topics(vec![topic]);
    let response: FetchResponse = call(&mut client.connection, ApiKey::Fetch, 11, &request).await;
    let records = response.responses[0].partitions[0].records.clone().unwrap();
    i16::from_be_bytes([records[21], records[22]])
}

#[tokio::test]
async fn records_are_compressed_as_their_topic_wants_it() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    for (name, code) in [("gzip", 1), ("snappy", 2), ("lz4", 3), ("zstd", 4), ("uncompressed", 0)] {
        client.set("t", "compression.type", name).await;
        until(name, async || {
            let produced = client.produce("t", batch(1000, None)).await;
            (attributes(&mut client, "t", produced.base_offset).await & 7 == code).then_some(())
        })
        .await;
    }
    node.end().await;
}

#[tokio::test]
async fn what_helix_does_not_do_is_refused_with_advice() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let refused = client.alter((TOPIC, "t"), &[("max.compaction.lag.ms", SET, Some("5"))]).await;
    assert_eq!(refused.0, INVALID_CONFIG);
    assert!(refused.1.contains("does not compact"), "{}", refused.1);
    let appended = client.alter((TOPIC, "t"), &[("cleanup.policy", APPEND, Some("compact"))]).await;
    assert_eq!(appended.0, 0, "{}", appended.1);
    let (code, message) = client.alter((TOPIC, "t"), &[("flush.messages", SET, Some("1"))]).await;
    assert_eq!(code, INVALID_CONFIG);
    assert!(message.contains("helix.write.durability=fsync"), "{message}");
    let twice = [("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))];
    assert_eq!(client.alter((TOPIC, "t"), &twice).await.0, INVALID_REQUEST);
    assert_eq!(client.alter((TOPIC, "t"), &[("retention.ms", SET, None)]).await.0, INVALID_REQUEST);
    let read_only = client.alter((BROKER, "1"), &[("num.partitions", SET, Some("2"))]).await;
    assert_eq!(read_only.0, INVALID_REQUEST);
    assert!(read_only.1.contains("Set(num.partitions)"), "{}", read_only.1);
    assert_eq!(
        client.alter((BROKER, "7"), &[("message.max.bytes", SET, Some("2"))]).await.0,
        INVALID_REQUEST
    );
    assert_eq!(client.alter((32, "group"), &[("x", SET, Some("2"))]).await.0, INVALID_REQUEST);
    assert_eq!(client.value(TOPIC, "t", "retention.ms").await, ("604800000".to_owned(), 5));
    node.end().await;
}

#[tokio::test]
async fn brokers_are_altered_one_by_one_and_all_at_once_and_stay_so() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &["--set", "message.max.bytes=5000"]).await;
    assert_eq!(client.value(BROKER, "1", "message.max.bytes").await, ("5000".to_owned(), 4));
    let all = client.alter((BROKER, ""), &[("message.max.bytes", SET, Some("4000"))]).await;
    assert_eq!(all.0, NONE);
    until("the altered value", async || {
        (client.value(BROKER, "1", "message.max.bytes").await == ("4000".to_owned(), 3)).then_some(())
    })
    .await;
    let one = client.alter((BROKER, "1"), &[("message.max.bytes", SET, Some("300"))]).await;
    assert_eq!(one.0, NONE);
    until("the topic's limit", async || {
        let code = client.produce("t", batch(1000, None)).await.error_code;
        (code == MESSAGE_TOO_LARGE).then_some(())
    })
    .await;
    assert_eq!(client.value(TOPIC, "t", "max.message.bytes").await, ("300".to_owned(), 2));
    let of_all = client.describe(BROKER, "", "message.max.bytes").await;
    assert_eq!((of_all.value.as_deref(), of_all.config_source), (Some("4000"), 3));
    node.end().await;

    let node = Node::single(directory.path(), &[]);
    let mut client = Client::of(&node).await;
    until("what was altered before the restart", async || {
        let entry = client.describe(BROKER, "1", "message.max.bytes").await;
        (entry.value.as_deref() == Some("300") && entry.synonyms.len() == 3).then_some(())
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn a_compacted_topic_takes_no_records_without_keys() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    assert_eq!(client.produce_small("t").await, NONE);
    client.set("t", "cleanup.policy", "compact,delete").await;
    until("a refusal", async || is(INVALID_RECORD, client.produce_small("t").await)).await;
    node.end().await;
}

#[tokio::test]
async fn topics_follow_what_the_brokers_say_for_them() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &["--set", "log.segment.bytes=1048576"]).await;
    client.set("t", "max.message.bytes", "3000000").await;
    until("a limit from the start", async || {
        is(RECORD_LIST_TOO_LARGE, client.produce("t", batch(1_100_000, None)).await.error_code)
    })
    .await;
    assert_eq!(client.value(TOPIC, "t", "segment.bytes").await, ("1048576".to_owned(), 4));

    let larger = [("log.segment.bytes", SET, Some("2097152"))];
    assert_eq!(client.alter((BROKER, ""), &larger).await, (NONE, String::new()));
    until("a higher limit", async || is(NONE, client.produce("t", batch(1_100_000, None)).await.error_code))
        .await;
    assert_eq!(client.value(TOPIC, "t", "segment.bytes").await, ("2097152".to_owned(), 3));
    assert_eq!(client.alter((BROKER, ""), &[("log.segment.bytes", DELETE, None)]).await.0, NONE);
    until("the limit from the start", async || {
        is(RECORD_LIST_TOO_LARGE, client.produce("t", batch(1_100_000, None)).await.error_code)
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn a_topic_chooses_how_safely_it_is_written() {
    const SYNCED: &str = "helix_wal_appends_synced_total";
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let before = node.metric(SYNCED).await.unwrap();
    assert_eq!(client.produce_small("t").await, NONE);
    assert_eq!(node.metric(SYNCED).await.unwrap(), before, "the node does not sync before it acknowledges");
    client.set("t", "helix.write.durability", "fsync").await;
    until("a write that waits for a sync", async || {
        let before = node.metric(SYNCED).await.unwrap();
        assert_eq!(client.produce_small("t").await, NONE);
        (node.metric(SYNCED).await.unwrap() > before).then_some(())
    })
    .await;
    node.end().await;

    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &["--write-durability", "fsync"]).await;
    assert_eq!(client.value(TOPIC, "t", "helix.write.durability").await, ("fsync".to_owned(), 4));
    client.set("t", "helix.write.durability", "replication-only").await;
    until("a write that waits for no sync", async || {
        let before = node.metric(SYNCED).await.unwrap();
        assert_eq!(client.produce_small("t").await, NONE);
        (node.metric(SYNCED).await.unwrap() == before).then_some(())
    })
    .await;
    node.end().await;
}

#[tokio::test]
async fn a_created_topic_tells_its_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let created = client.create("u", 2, 1, &[("retention.ms", "777")]).await;
    let topic = &created.topics[0];
    assert_eq!((topic.error_code, topic.num_partitions, topic.replication_factor), (NONE, 2, 1));
    let configs = topic.configs.as_ref().unwrap();
    let retention = configs.iter().find(|config| config.name.as_str() == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("777"), 1));
    let policy = configs.iter().find(|config| config.name.as_str() == "cleanup.policy").unwrap();
    assert_eq!((policy.value.as_deref(), policy.config_source), (Some("delete"), 5));

    // The older API replaces everything.
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("retention.bytes"))
        .with_value(Some(text("5")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("u"))
        .with_configs(vec![config]);
    for (validate_only, retention) in [(true, "777"), (false, "604800000")] {
        let request = AlterConfigsRequest::default()
            .with_resources(vec![resource.clone()])
            .with_validate_only(validate_only);
        let altered: AlterConfigsResponse =
            call(&mut client.connection, ApiKey::AlterConfigs, 2, &request).await;
        assert_eq!(altered.responses[0].error_code, NONE);
        assert_eq!(client.value(TOPIC, "u", "retention.ms").await.0, retention);
    }
    let twice = AlterConfigsRequest::default().with_resources(vec![resource.clone(), resource]);
    let refused: AlterConfigsResponse = call(&mut client.connection, ApiKey::AlterConfigs, 2, &twice).await;
    assert_eq!(refused.responses.iter().map(|r| r.error_code).collect::<Vec<_>>(), [INVALID_REQUEST; 2]);
    node.end().await;
}

#[tokio::test]
async fn no_change_of_a_list_is_lost_to_another_at_the_same_time() {
    let directory = tempfile::tempdir().unwrap();
    let (node, mut client) = node_with_topic(directory.path(), &[]).await;
    let mut other = Client::of(&node).await;
    let name = "cleanup.policy";
    let change = async |client: &mut Client, operation: i8, word: &str| {
        let outcome = client.alter((TOPIC, "t"), &[(name, operation, Some(word))]).await;
        assert_eq!(outcome, (NONE, String::new()));
    };
    for _ in 0..20 {
        client.set("t", name, "delete").await;
        tokio::join!(change(&mut client, APPEND, "compact"), change(&mut other, SUBTRACT, "delete"));
        assert_eq!(client.value(TOPIC, "t", name).await.0, "compact");
    }
    assert_eq!(client.alter((TOPIC, "t"), &[(name, DELETE, None)]).await.0, NONE);
    change(&mut client, APPEND, "compact").await;
    assert_eq!(client.value(TOPIC, "t", name).await.0, "delete,compact", "of what is inherited");
    let (code, message) = client.alter((TOPIC, "t"), &[(name, APPEND, Some("shred"))]).await;
    assert_eq!(code, INVALID_CONFIG, "{message}");
    let (code, message) = client.alter((TOPIC, "t"), &[("retention.ms", SUBTRACT, Some("1"))]).await;
    assert_eq!((code, message.contains("not LIST")), (INVALID_CONFIG, true), "{message}");

    // Of a broker's list too.
    let of_brokers = [("log.cleanup.policy", APPEND, Some("compact"))];
    assert_eq!(client.alter((BROKER, ""), &of_brokers).await, (NONE, String::new()));
    assert_eq!(client.value(BROKER, "", "log.cleanup.policy").await.0, "delete,compact");
    let shredded = [("log.cleanup.policy", APPEND, Some("shred"))];
    let (code, message) = client.alter((BROKER, "1"), &shredded).await;
    assert_eq!((code, message.contains("shred")), (INVALID_REQUEST, true), "{message}");
    node.end().await;
}
