//! All rows, and the names of figures.

use super::row::Basis::{self, Kafka, One, Own};
use super::row::Bound::{self, AtLeast, AtMost};
use super::row::{Row, Target};
use super::{rows_groups, rows_latency, rows_load, rows_partitions, rows_read, rows_retention, rows_start};

/// Payload per second.
pub(super) const MB_PER_S: &str = "MB/s";
/// CPU of all brokers per payload.
pub(super) const CPU_PER_GB: &str = "broker CPU s/GB";
/// CPU of the load generator per payload.
pub(super) const CLIENT_CPU_PER_GB: &str = "client CPU s/GB";
/// CPU of all brokers per request.
pub(super) const CPU_PER_REQUEST: &str = "broker CPU us/request";
/// What the floor moved in the same minutes.
pub(super) const FLOOR: &str = "floor MB/s";
/// Most memory that one broker had.
pub(super) const PEAK_MB: &str = "peak memory of a node MB";
/// Requests answered.
pub(super) const REQUESTS_PER_S: &str = "requests/s";
/// Latencies.
pub(super) const P50_MS: &str = "p50 ms";
/// Latencies.
pub(super) const P99_MS: &str = "p99 ms";
/// Latencies.
pub(super) const P999_MS: &str = "p99.9 ms";
/// Requests answered when as many are sent as go.
pub(super) const MAXIMUM_REQUESTS_PER_S: &str = "requests/s at most";

/// Latencies at a share of the maximum.
pub(super) struct LoadFigures {
    /// Of the maximum.
    pub(super) share: f64,
    pub(super) p50_ms: &'static str,
    pub(super) p99_ms: &'static str,
    pub(super) p999_ms: &'static str,
}

pub(super) const LOAD_5: LoadFigures =
    LoadFigures { share: 0.05, p50_ms: "p50 ms at 5 %", p99_ms: "p99 ms at 5 %", p999_ms: "p99.9 ms at 5 %" };
pub(super) const LOAD_50: LoadFigures = LoadFigures {
    share: 0.5,
    p50_ms: "p50 ms at 50 %",
    p99_ms: "p99 ms at 50 %",
    p999_ms: "p99.9 ms at 50 %",
};
pub(super) const LOAD_80: LoadFigures = LoadFigures {
    share: 0.8,
    p50_ms: "p50 ms at 80 %",
    p99_ms: "p99 ms at 80 %",
    p999_ms: "p99.9 ms at 80 %",
};
/// Latency of small messages without large ones beside them.
pub(super) const ALONE_P99_MS: &str = "p99 ms alone";
/// Elections during the load.
pub(super) const ELECTIONS: &str = "elections";
/// Brokers' CPU while a topic is read that was just written.
pub(super) const HOT_CPU_PER_GB: &str = "broker CPU s/GB, just written";
/// Brokers' CPU while a topic is read that is no longer in memory.
pub(super) const COLD_CPU_PER_GB: &str = "broker CPU s/GB, from disk";
/// Reading.
pub(super) const HOT_MB_PER_S: &str = "MB/s, just written";
/// Reading.
pub(super) const COLD_MB_PER_S: &str = "MB/s, from disk";
/// Time to make all partitions.
pub(super) const CREATION_S: &str = "creation s";
/// CPU of one idle node.
pub(super) const IDLE_PERCENT: &str = "idle CPU of a node, % of a core";
/// Memory of a node per partition.
pub(super) const KIB_PER_PARTITION: &str = "memory KiB/partition";
/// From start of the process to ready.
pub(super) const RESTART_S: &str = "restart s";
/// From the kill to the last partition's acknowledgement.
pub(super) const WRITABLE_S: &str = "all writable after s";
/// From start of the process to the first acknowledgement.
pub(super) const FIRST_ACK_S: &str = "first acknowledgement after s";

/// From the first member's start until all groups are stable.
pub(super) const GROUPS_STABLE_S: &str = "all groups stable after s";
/// CPU of all brokers while members only send heartbeats.
pub(super) const GROUPS_CPU_PERCENT: &str = "broker CPU, % of a core";
/// The same per heartbeat.
pub(super) const CPU_PER_HEARTBEAT: &str = "broker CPU us/heartbeat";
/// Latency of heartbeats.
pub(super) const HEARTBEAT_P99_MS: &str = "heartbeat p99 ms";
/// From the kill of a coordinator until every member is answered by its successor and all groups are stable.
pub(super) const GROUPS_AGAIN_S: &str = "all groups stable again after s";
/// Members that had to join again because of that.
pub(super) const JOINED_AGAIN: &str = "members that joined again";
/// Most disk space that one node took.
pub(super) const PEAK_DISK_MB: &str = "peak disk of a node MB";
/// What it is to take at most.
pub(super) const DISK_BOUND_MB: &str = "bound of a node's disk MB";
/// Latency of small messages beside others that nobody removes.
pub(super) const KEPT_P99_MS: &str = "p99 ms, nothing removed";
/// As above.
pub(super) const KEPT_P999_MS: &str = "p99.9 ms, nothing removed";

const LOADS_METHOD: &str = "`flood`: 6 connections, requests of 10 messages of 1 KiB, up to 16 in flight on each; the maximum of each broker \
                           is measured first; latency from when a request was due";

const fn target(figure: &'static str, basis: Basis, bound: Bound) -> Target {
    Target { figure, basis, bound }
}

/// Every row, in the order in which they are measured.
pub static ROWS: &[Row] = &[
    Row {
        name: "one-producer",
        title: "1 librdkafka producer, 12 partitions",
        method: "throughput profile: 2000 messages of 1 KiB in flight, linger 5 ms; everything that Helix acknowledged is read back",
        against_kafka: true,
        plotted: MB_PER_S,
        targets: &[target(MB_PER_S, Kafka, AtLeast(2.0)), target(CPU_PER_GB, Kafka, AtMost(0.4))],
        measure: rows_load::one_producer,
    },
    Row {
        name: "six-producers",
        title: "6 librdkafka producers, 12 partitions",
        method: "as above, six of them in one process",
        against_kafka: true,
        plotted: MB_PER_S,
        targets: &[target(MB_PER_S, Kafka, AtLeast(2.0)), target(CPU_PER_GB, Kafka, AtMost(0.4))],
        measure: rows_load::six_producers,
    },
    Row {
        name: "own-load",
        title: "own load generator, 12 partitions",
        method: "`flood`: 6 connections, 5 requests of 100 messages of 1 KiB in flight on each; the floor before and after",
        against_kafka: true,
        plotted: MB_PER_S,
        targets: &[target(MB_PER_S, Own(FLOOR), AtLeast(0.6))],
        measure: rows_load::own_load,
    },
    Row {
        name: "stress",
        title: "stress profile: 12 librdkafka producers, 4000 messages in flight each",
        method: "peak memory is that of the process since the row began",
        against_kafka: true,
        plotted: PEAK_MB,
        targets: &[target(PEAK_MB, Kafka, AtMost(0.2)), target(ELECTIONS, One, AtMost(0.0))],
        measure: rows_load::stress,
    },
    Row {
        name: "latency",
        title: "5,000 messages/s, linger 0",
        method: "4 librdkafka producers; from handing a message to the client to its acknowledgement",
        against_kafka: true,
        plotted: P99_MS,
        targets: &[target(P99_MS, Kafka, AtMost(1.0 / 3.0)), target(P999_MS, Kafka, AtMost(1.0 / 3.0))],
        measure: rows_latency::latency,
    },
    Row {
        name: "fsync",
        title: "fsync mode, 6 librdkafka producers",
        method: "Helix with `--write-durability fsync`, Apache Kafka with `flush.messages=1`; the floor here waits for fdatasync of \
                 all that has arrived, over and over, on each of three replicas",
        against_kafka: true,
        plotted: MB_PER_S,
        targets: &[target(MB_PER_S, Kafka, AtLeast(5.0)), target(MB_PER_S, Own(FLOOR), AtLeast(0.6))],
        measure: rows_load::fsync,
    },
    Row {
        name: "loads",
        title: "latency at 5 %, 50 % and 80 % of the maximum load",
        method: LOADS_METHOD,
        against_kafka: true,
        plotted: LOAD_50.p99_ms,
        targets: &[],
        measure: rows_latency::loads,
    },
    Row {
        name: "loads-fsync",
        title: "the same in fsync mode",
        method: LOADS_METHOD,
        against_kafka: true,
        plotted: LOAD_50.p99_ms,
        targets: &[],
        measure: rows_latency::loads_fsync,
    },
    Row {
        name: "small",
        title: "100-byte messages, 200 connections, linger 0",
        method: "`flood`: one message in a request, one request in flight on each connection",
        against_kafka: true,
        plotted: REQUESTS_PER_S,
        targets: &[target(REQUESTS_PER_S, Kafka, AtLeast(2.0))],
        measure: rows_load::small,
    },
    Row {
        name: "mixed",
        title: "8 MiB messages beside 1 KiB messages",
        method: "`flood`: 200 requests/s of one message of 1 KiB on 4 connections, first alone, then beside 6 requests/s of 8 MiB on \
                 2 connections; latency from when a request was due",
        against_kafka: true,
        plotted: P99_MS,
        targets: &[target(P99_MS, Own(ALONE_P99_MS), AtMost(3.0))],
        measure: rows_load::mixed,
    },
    Row {
        name: "fetch",
        title: "reading back what was written, 2 librdkafka readers",
        method: "once from what was just written, once after all of it was taken out of the page cache",
        against_kafka: true,
        plotted: HOT_CPU_PER_GB,
        targets: &[target(HOT_CPU_PER_GB, Kafka, AtMost(1.0)), target(COLD_CPU_PER_GB, Kafka, AtMost(1.0))],
        measure: rows_read::fetch,
    },
    Row {
        name: "catching-up",
        title: "catching up from disk while others write",
        method: "200 requests/s of one message of 1 KiB on 4 connections, first alone, then beside 2 librdkafka readers that read a topic \
                 over and over, each time after it was taken out of the page cache",
        against_kafka: true,
        plotted: P99_MS,
        targets: &[],
        measure: rows_read::catching_up,
    },
    Row {
        name: "consumers",
        title: "50 consumers on one topic",
        method: "50 librdkafka clients at once, each of which reads all of it over and over",
        against_kafka: true,
        plotted: MB_PER_S,
        targets: &[],
        measure: rows_read::consumers,
    },
    Row {
        name: "slow-consumers",
        title: "consumers that do not read what they ask for",
        method: "15 connections, on each of them 20 fetches of everything whose answers nobody reads; 200 requests/s of one message of 1 KiB \
                 before and meanwhile, and 2 librdkafka readers that do read",
        against_kafka: true,
        plotted: P99_MS,
        targets: &[],
        measure: rows_read::slow_consumers,
    },
    Row {
        name: "idle",
        title: "10,000 partitions on each of three nodes, idle",
        method: "a restart is from the start of the process to `/health/ready`",
        against_kafka: false,
        plotted: IDLE_PERCENT,
        targets: &[
            target(IDLE_PERCENT, One, AtMost(5.0)),
            target(KIB_PER_PARTITION, One, AtMost(20.0)),
            target(RESTART_S, One, AtMost(5.0)),
        ],
        measure: rows_partitions::idle,
    },
    Row {
        name: "failover",
        title: "a leader killed with 10,000 partitions",
        method: "kill -9 of one node of three; a message to every partition, repeated until each was acknowledged",
        against_kafka: false,
        plotted: WRITABLE_S,
        targets: &[target(WRITABLE_S, One, AtMost(3.0))],
        measure: rows_partitions::failover,
    },
    Row {
        name: "cold-start",
        title: "start of a single node with 10 GB stored, to its first acknowledgement",
        method: "stopped with SIGTERM, and its files taken out of the page cache",
        against_kafka: false,
        plotted: FIRST_ACK_S,
        targets: &[target(FIRST_ACK_S, One, AtMost(1.0))],
        measure: rows_start::cold_start,
    },
    Row {
        name: "retention",
        title: "writing many times what a topic keeps",
        method: "`flood`: 80 MB/s of 1 KiB messages to a topic of two partitions with `retention.bytes`, and 5,000 requests/s of one message of \
                 1 KiB to another topic, whose latency it is, from when a request was due; the same with a quarter as much that is kept; \
                 retention and reclaiming look every second; disk space of all data directories is looked at ten times a second; the bound is \
                 that of operations.md",
        against_kafka: false,
        plotted: PEAK_DISK_MB,
        targets: &[
            target(PEAK_DISK_MB, Own(DISK_BOUND_MB), AtMost(1.0)),
            target(P99_MS, Own(KEPT_P99_MS), AtMost(2.0)),
        ],
        measure: rows_retention::retention,
    },
    // It kills a node, which is another process afterwards: nothing else is measured on the same cluster after it.
    Row {
        name: "groups",
        title: "5,000 members in 500 consumer groups",
        method: "a connection each, all of one process, with the defaults of Kafka's clients: heartbeats every 3 s, a session of 45 s; once \
                 unmeasured. Then from the first member's start until all groups are stable; a minute of heartbeats; and kill -9 of the node that \
                 coordinates most groups, until every member of these was answered by another one and all groups are stable",
        against_kafka: true,
        plotted: GROUPS_AGAIN_S,
        targets: &[
            target(GROUPS_STABLE_S, Kafka, AtMost(1.0)),
            target(GROUPS_CPU_PERCENT, Kafka, AtMost(1.0)),
            target(GROUPS_AGAIN_S, Kafka, AtMost(1.0)),
        ],
        measure: rows_groups::groups,
    },
];

impl Row {
    /// The row of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_found() {
        for row in ROWS {
            assert_eq!(ROWS.iter().filter(|other| other.name == row.name).count(), 1);
            assert!(std::ptr::eq(Row::named(row.name).unwrap(), row));
        }
        assert!(Row::named("no such row").is_none());
    }

    #[test]
    fn what_kafka_is_not_measured_for_has_no_target_relative_to_it() {
        let relative = |row: &Row| row.targets.iter().any(|target| target.basis == Kafka);
        assert!(ROWS.iter().all(|row| row.against_kafka || !relative(row)));
    }
}
