//! Helps who mistyped a name.

/// Kafka's names for what Helix sets differently, or need not be told.
const KAFKA_NAMES: &[(&str, &str)] = &[
    ("advertised.listeners", "use --advertise HOST:PORT"),
    ("broker.id", "use --node-id"),
    ("broker.rack", "use --rack"),
    ("controller.quorum.bootstrap.servers", "use --peers"),
    ("controller.quorum.voters", "use --peers"),
    ("listeners", "use --listen HOST:PORT"),
    ("log.dir", "use --data-dir"),
    ("log.dirs", "use --data-dir"),
    ("log.flush.interval.messages", "use --write-durability fsync, which syncs before it acknowledges"),
    ("log.flush.interval.ms", "use helix.wal.background.sync.ms, or --write-durability fsync"),
    ("log.segment.bytes", "use helix.wal.segment.bytes: the partitions of a node share one log"),
    ("node.id", "use --node-id"),
    ("process.roles", "every node of Helix is broker and controller; leave it out"),
    ("unclean.leader.election.enable", "no election here gives up committed records by choice; leave it out"),
    ("zookeeper.connect", "Helix needs no ZooKeeper; use --peers"),
];

pub(super) fn kafka_advice(name: &str) -> Option<&'static str> {
    KAFKA_NAMES.iter().find(|(known, _)| *known == name).map(|(_, advice)| *advice)
}

/// The most similar of `names`, of which there must be at least one.
pub(super) fn nearest(name: &str, names: impl Iterator<Item = &'static str>) -> &'static str {
    let normal = name.trim_start_matches('-').replace('_', ".").to_ascii_lowercase();
    names
        .map(|candidate| (strsim::jaro_winkler(&normal, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
        .expect("the tables of names are not empty")
}
