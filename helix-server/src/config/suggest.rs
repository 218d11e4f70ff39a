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
    ("log.roll.hours", "leave it out, or use log.roll.ms: retention does not wait for a file to end"),
    (
        "log.roll.jitter.hours",
        "leave it out, or use log.roll.jitter.ms: retention does not wait for a file to end",
    ),
    ("node.id", "use --node-id"),
    ("process.roles", "every node of Helix is broker and controller; leave it out"),
    ("zookeeper.connect", "Helix needs no ZooKeeper; use --peers"),
];

pub(super) fn kafka_advice(name: &str) -> Option<&'static str> {
    KAFKA_NAMES.iter().find(|(known, _)| *known == name).map(|(_, advice)| *advice)
}

/// Characters of a mistyped name that are compared. A client can send millions, and no known name is as long as this.
const MAX_COMPARED: usize = 100;

/// The most similar of `names`, of which there must be at least one.
pub(super) fn nearest(name: &str, names: impl Iterator<Item = &'static str>) -> &'static str {
    let name: String = name.trim_start_matches('-').chars().take(MAX_COMPARED).collect();
    let normal = name.replace('_', ".").to_ascii_lowercase();
    names
        .map(|candidate| (strsim::jaro_winkler(&normal, candidate), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
        .expect("the tables of names are not empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_by_how_a_long_one_begins() {
        let names = || ["retention.ms", "segment.ms"].into_iter();
        assert_eq!(nearest("--retention_mss", names()), "retention.ms");
        // Compared whole this would take minutes.
        let long = format!("segment.mss{}", "s".repeat(100_000_000));
        assert_eq!(nearest(&long, names()), "segment.ms");
    }
}
