use std::io::Write;

use super::*;
use crate::ids::NodeId;

fn given(source: Source, name: &str, value: &str) -> Given {
    Given { source, name: name.to_owned(), value: value.to_owned() }
}

fn resolved(values: &[(Source, &str, &str)]) -> Result<ServerConfig, ConfigError> {
    resolve(values.iter().map(|(source, name, value)| given(*source, name, value)).collect())
}

fn refusal(values: &[(Source, &str, &str)]) -> String {
    resolved(values).expect_err("refused").to_string()
}

#[test]
fn nothing_given_is_a_single_node() {
    let config = resolve(Vec::new()).expect("the defaults are valid");
    assert_eq!(config.node_id, NodeId(1));
    assert_eq!(config.listen.to_string(), "127.0.0.1:9092");
    assert_eq!(config.advertise, config.listen);
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:9644");
    assert_eq!((config.peer_listen, config.peers.len()), (None, 0));
    assert_eq!(config.write_durability, WriteDurability::ReplicationOnly);
    assert_eq!(config.broker, BrokerConfig::default());
}

#[test]
fn defaults_lie_within_their_ranges() {
    let defaults = BrokerConfig::default();
    for property in PROPERTIES {
        let shown = property.show(&defaults);
        if shown != "not set" {
            let mut config = BrokerConfig::default();
            property.set(&mut config, &shown).unwrap_or_else(|error| panic!("{}: {error}", property.name));
            assert_eq!(config, defaults, "{}", property.name);
        }
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = PROPERTIES
        .iter()
        .map(|property| property.name)
        .chain(SETTINGS.iter().map(|setting| setting.name))
        .collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn flags_win_over_set_and_set_over_the_file() {
    use Source::{File, Flag, Set};
    let config = resolved(&[
        (Flag, "node-id", "3"),
        (Set, "node-id", "2"),
        (File, "node-id", "1"),
        (Set, "num.partitions", "7"),
        (File, "num.partitions", "6"),
        (Set, "helix.shards", "1"),
        (Set, "helix.shards", "2"),
    ])
    .expect("valid");
    assert_eq!(config.node_id, NodeId(3));
    assert_eq!(config.broker.num_partitions, 7);
    assert_eq!(config.broker.shards, 2, "the last one of a source counts");
}

#[test]
fn errors_name_the_nearest_name_and_the_range() {
    assert_eq!(
        refusal(&[(Source::Set, "num.partition", "3")]),
        "--set num.partition: there is no such setting; the nearest one is num.partitions"
    );
    assert_eq!(
        refusal(&[(Source::File, "data_dir", "x")]),
        "data_dir in the configuration file: there is no such setting; the nearest one is data-dir"
    );
    assert_eq!(
        refusal(&[(Source::Set, "num.partitions", "0")]),
        "--set num.partitions: \"0\" does not fit: it must be a whole number from 1 to 100000"
    );
    assert_eq!(
        refusal(&[(Source::Set, "auto.create.topics.enable", "treu")]),
        "--set auto.create.topics.enable: \"treu\" does not fit: it must be true or false; the nearest is true"
    );
    assert_eq!(
        refusal(&[(Source::Flag, "write-durability", "fsnyc")]),
        "--write-durability: \"fsnyc\" does not fit: it must be replication-only or fsync; the nearest is fsync"
    );
    assert_eq!(refusal(&[(Source::Set, "broker.id", "1")]), "--set broker.id: use --node-id");
}

#[test]
fn defaults_for_topics_are_given_by_kafkas_names() {
    use Source::Set;
    resolved(&[(Set, "log.cleanup.policy", "compact"), (Set, "log.preallocate", "true")]).expect("valid");
    resolved(&[(Set, "unclean.leader.election.enable", "false")]).expect("what Helix does");
    assert_eq!(
        refusal(&[(Set, "log.segment.bytes", "1")]),
        "--set log.segment.bytes: \"1\" does not fit: Value must be at least 1048576"
    );
    assert_eq!(
        refusal(&[(Set, "log.flush.interval.ms", "1")]),
        "--set log.flush.interval.ms: use helix.wal.background.sync.ms, or --write-durability fsync"
    );
    assert!(refusal(&[(Set, "log.cleaner.max.compaction.lag.ms", "1")]).contains("does not compact"));
}

#[test]
fn retention_is_set_in_the_smallest_unit_given() {
    let retention = |values: &[(Source, &str, &str)]| resolved(values).expect("valid").broker.retention_ms();
    use Source::Set;
    assert_eq!(retention(&[]), 168 * 3_600_000);
    assert_eq!(retention(&[(Set, "log.retention.hours", "-1")]), -1);
    assert_eq!(retention(&[(Set, "log.retention.hours", "1"), (Set, "log.retention.minutes", "2")]), 120_000);
    assert_eq!(retention(&[(Set, "log.retention.ms", "5"), (Set, "log.retention.minutes", "2")]), 5);
}

#[test]
fn contradictions_are_found() {
    use Source::{Flag, Set};
    assert!(refusal(&[(Set, "helix.heartbeat.interval.ms", "500")]).contains("three times"));
    assert!(refusal(&[(Set, "message.max.bytes", "200000000")]).contains("socket.request.max.bytes"));
    assert!(refusal(&[(Flag, "listen", "0.0.0.0:9092")]).contains("--advertise"));
    assert!(refusal(&[(Flag, "peers", "2@b:1,3@c:1")]).contains("does not list this node"));
}

#[test]
fn the_peer_address_comes_from_the_list() {
    let config = resolved(&[
        (Source::Flag, "node-id", "2"),
        (Source::Flag, "peers", "1@a:19091,2@b:19092"),
        (Source::Flag, "listen", "[::]:9092"),
        (Source::Flag, "advertise", "b.example:9092"),
    ])
    .expect("valid");
    assert_eq!(config.peer_listen, Some(HostPort::new("b", 19092)));
    assert_eq!(config.advertise.to_string(), "b.example:9092");
}

fn file_with(text: &str) -> Result<Vec<Given>, ConfigError> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("writing it");
    read_file(file.path())
}

#[test]
fn files_may_quote_names_or_nest_them() {
    let read = file_with(
        "node-id = 4\n\"num.partitions\" = 3\nauto.create.topics.enable = false\n[log.retention]\nms = 5\n",
    );
    let config = resolve(read.expect("valid TOML")).expect("valid");
    assert_eq!(config.node_id, NodeId(4));
    assert_eq!(config.broker.num_partitions, 3);
    assert!(!config.broker.auto_create_topics_enable);
    assert_eq!(config.broker.retention_ms(), 5);
}

#[test]
fn bad_files_are_explained() {
    let error = |text| file_with(text).expect_err("refused").to_string();
    assert!(error("num.partitions = ").contains("not valid TOML"));
    assert!(error("peers = [\"1@a:1\"]").contains("peers in the configuration file must be text"));
    let missing = read_file(std::path::Path::new("/nonexistent/helix.toml")).expect_err("missing");
    assert!(missing.to_string().contains("/nonexistent/helix.toml"));
}
