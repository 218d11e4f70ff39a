//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use helix_workload::chaos::fault::Fault;
use helix_workload::client::TopicSpec;
use helix_workload::compare::{ROWS, Row};
use helix_workload::flood::Stream;
use helix_workload::profile::{Profile, ProfileError};

/// Load and checks for any Kafka-compatible cluster.
#[derive(Debug, Parser)]
#[command(name = "helix-workload", version, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write messages that can be verified later
    Produce(Produce),
    /// Read a topic from its first record to its last and say how fast that went
    Consume(Consume),
    /// Write, measure, read everything back, check it, and report
    Bench(Bench),
    /// Send prebuilt requests over plain connections, so that nearly all that is spent is the brokers'
    Flood(Flood),
    /// Read everything back and hold it against the history of an earlier `produce`
    Verify(Verify),
    /// Measure a table of workloads on Helix and on Apache Kafka in turn, and make a page of it
    Compare(Compare),
    /// Send the same requests to Helix and to Apache Kafka, valid ones and others, and compare the answers field by field
    Differential(Differential),
    /// Run a cluster of real processes, let faults strike it under load, and check what is left
    Chaos(Chaos),
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Kafka addresses, HOST:PORT,...
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap: String,
    /// The topic
    #[arg(long, default_value = "helix-workload")]
    pub(crate) topic: String,
}

#[derive(Debug, Args)]
pub(crate) struct TopicShape {
    /// Partitions, if the topic has to be created
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) partitions: u32,
    /// Copies of each partition, if the topic has to be created [default: the cluster's]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replication_factor: Option<u32>,
    /// Delete the topic at the end
    #[arg(long)]
    pub(crate) delete_topic: bool,
}

impl TopicShape {
    pub(crate) fn named(&self, name: &str) -> TopicSpec {
        TopicSpec::new(name, self.partitions, self.replication_factor)
    }
}

/// The load: a profile, and flags that override it.
#[derive(Debug, Args)]
pub(crate) struct LoadShape {
    /// baseline, throughput, latency, stress, sustained, or the path of a TOML file
    #[arg(long, default_value = "baseline")]
    profile: String,
    /// Producers, one thread each
    #[arg(long)]
    threads: Option<u32>,
    /// Messages that each producer keeps in flight
    #[arg(long)]
    inflight: Option<u32>,
    /// Bytes of each message
    #[arg(long)]
    message_size: Option<usize>,
    /// Milliseconds that a batch may wait for more messages
    #[arg(long)]
    linger_ms: Option<u32>,
    /// Seconds of load before measuring begins
    #[arg(long)]
    warmup_secs: Option<u64>,
    /// Seconds of measured load
    #[arg(long)]
    duration_secs: Option<u64>,
    /// Use idempotent producers
    #[arg(long)]
    pub(crate) idempotent: bool,
    /// A further setting of librdkafka (repeatable)
    #[arg(short = 'X', long = "client-setting", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) client_settings: Vec<(String, String)>,
}

impl LoadShape {
    pub(crate) fn profile(&self) -> Result<Profile, ProfileError> {
        let mut profile = Profile::load(&self.profile)?;
        let (shape, execution) = (&mut profile.producer, &mut profile.execution);
        shape.threads = self.threads.unwrap_or(shape.threads);
        shape.inflight = self.inflight.unwrap_or(shape.inflight);
        shape.message_size = self.message_size.unwrap_or(shape.message_size);
        shape.linger_ms = self.linger_ms.unwrap_or(shape.linger_ms);
        execution.warmup_secs = self.warmup_secs.unwrap_or(execution.warmup_secs);
        execution.duration_secs = self.duration_secs.unwrap_or(execution.duration_secs);
        profile.validate()?;
        Ok(profile)
    }
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Also write the outcome to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Produce {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) shape: TopicShape,
    #[command(flatten)]
    pub(crate) load: LoadShape,
    /// So many messages per producer, instead of the profile's seconds
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) messages: Option<u64>,
    /// Write what was acknowledged to this file, for `verify`
    #[arg(long, value_name = "FILE")]
    pub(crate) history: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Consume {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Readers, one thread each
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..1000))]
    pub(crate) readers: u32,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) shape: TopicShape,
    #[command(flatten)]
    pub(crate) load: LoadShape,
    /// Process ids of the brokers, for CPU per GB and memory
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pub(crate) broker_pids: Vec<u32>,
    /// HOST:PORT of each node's /metrics, for syncs and elections
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    pub(crate) metrics: Vec<String>,
    /// Measure the floor in this directory, on the brokers' disk, before and after the load
    #[arg(long, value_name = "DIR")]
    pub(crate) floor_dir: Option<PathBuf>,
    /// Do not read everything back
    #[arg(long)]
    pub(crate) no_verify: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Flood {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) shape: TopicShape,
    /// Traffic, as connections=N,in-flight=N,messages=N,bytes=N,rate=N; what is left out is 6, 5, 100, 1024, and no limit. Several run
    /// at the same time, with figures of their own
    #[arg(long = "stream", value_name = "NAME=N,...", default_value = "connections=6")]
    pub(crate) streams: Vec<Stream>,
    /// Seconds of load before measuring begins
    #[arg(long, default_value_t = 3)]
    pub(crate) warmup_secs: u64,
    /// Seconds of measured load
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) duration_secs: u64,
    /// Process ids of the brokers, for CPU per GB and memory
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pub(crate) broker_pids: Vec<u32>,
    /// Measure the floor in this directory, on the brokers' disk, before and after the load
    #[arg(long, value_name = "DIR")]
    pub(crate) floor_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Kafka addresses, HOST:PORT,...
    #[arg(long, default_value = "127.0.0.1:9092")]
    pub(crate) bootstrap: String,
    /// The file that `produce --history` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) history: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Chaos {
    /// No new fault begins after so many minutes
    #[arg(long, default_value_t = 5.0)]
    pub(crate) minutes: f64,
    /// Nor after every kind of fault struck so often
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// How many nodes: 3 or 5
    #[arg(long, default_value_t = 3, value_parser = nodes)]
    pub(crate) nodes: u32,
    /// replication-only or fsync
    #[arg(long, default_value = "replication-only", value_parser = ["replication-only", "fsync"])]
    pub(crate) write_durability: String,
    /// Repeats the schedule of an earlier run [default: another one each time]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Which faults may strike [default: all, each kind once in a round]
    #[arg(long, value_name = "FAULT,...", value_delimiter = ',')]
    pub(crate) faults: Vec<Fault>,
    /// Faults last half to one and a half of so many seconds
    #[arg(long, default_value_t = 8.0)]
    pub(crate) fault_secs: f64,
    /// Seconds between a recovery and the next fault
    #[arg(long, default_value_t = 4.0)]
    pub(crate) calm_secs: f64,
    /// Messages per second of all producers together
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(4..1_000_000))]
    pub(crate) rate: u32,
    /// Bytes of each message
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(32..900_000))]
    pub(crate) message_size: u32,
    /// Logs and data; emptied first, removed at the end unless something was found
    #[arg(long, default_value = "chaos-data")]
    pub(crate) dir: PathBuf,
    /// Write everything that happens to this file, a line of JSON each
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) history: Option<PathBuf>,
    /// Write a page with throughput, latency and faults over time to this file
    #[arg(long, value_name = "FILE.html")]
    pub(crate) page: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Which rows [default: all]
    #[arg(long, value_name = "ROW,...", value_delimiter = ',', value_parser = row)]
    pub(crate) rows: Vec<&'static Row>,
    /// How often each row is measured on each cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Apache Kafka's jar files; without them only Helix is measured
    #[arg(long, value_name = "DIR")]
    pub(crate) kafka_libs: Option<PathBuf>,
    /// Seconds of load that Apache Kafka is given first: it is slow until the JVM has compiled it
    #[arg(long, default_value_t = 240)]
    pub(crate) kafka_warmup_secs: u64,
    /// Seconds of measured load
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) secs: u64,
    /// Seconds of measured load in the row that is about standing it for long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) stress_secs: u64,
    /// Partitions in the rows that are about many
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) partitions: u32,
    /// MB that are written and read back
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) fetch_mb: u64,
    /// MB that are stored when a node starts
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) stored_mb: u64,
    /// Consumer groups in the row about many
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) groups: u32,
    /// Members of each of them; each has a connection, and takes an open file
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) group_members: u32,
    /// MB that are written through a topic which keeps only the newest
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) retention_written_mb: u64,
    /// MiB that it keeps of each of its two partitions
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) retention_mib: u64,
    /// Before each measurement, fill the machine's memory with page cache, as it is on a machine that has run for a while, and
    /// wait until everything written earlier is on disk
    #[arg(long)]
    pub(crate) settle: bool,
    /// Data of all clusters; removed at the end
    #[arg(long, default_value = "compare-data")]
    pub(crate) dir: PathBuf,
    /// What the page is to say about machine, date and build (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub(crate) about: Vec<String>,
    /// Write the page, and beside it its plots, to this file
    #[arg(long, value_name = "FILE.md")]
    pub(crate) page: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Differential {
    /// Apache Kafka's jar files
    #[arg(long, value_name = "DIR")]
    pub(crate) kafka_libs: PathBuf,
    /// Which APIs, by the names that the Kafka protocol has for them [default: all]
    #[arg(long, value_name = "API,...", value_delimiter = ',')]
    pub(crate) apis: Vec<String>,
    /// Data of both brokers; removed at the end
    #[arg(long, default_value = "differential-data")]
    pub(crate) dir: PathBuf,
    /// Write the table of differences into this file, between its markers
    #[arg(long, value_name = "FILE.md")]
    pub(crate) page: Option<PathBuf>,
}

fn row(name: &str) -> Result<&'static Row, String> {
    let names = || ROWS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    Row::named(name).ok_or_else(|| format!("there are {}", names()))
}

fn nodes(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(nodes @ (3 | 5)) => Ok(nodes),
        _ => Err("3 or 5 nodes are supported".into()),
    }
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn faults_are_chosen_by_name() {
        let chaos = |faults| Arguments::try_parse_from(["helix-workload", "chaos", "--faults", faults]);
        let Command::Chaos(chosen) = chaos("disk-full,all-killed").unwrap().command else { panic!("chaos") };
        assert_eq!(chosen.faults, [Fault::DiskFull, Fault::AllKilled]);
        assert!(chaos("disk-ful").unwrap_err().to_string().contains("there are leader-killed"));
    }

    #[test]
    fn flags_override_the_profile() {
        let arguments =
            Arguments::parse_from(["helix-workload", "bench", "--profile", "stress", "--threads", "2"]);
        let Command::Bench(bench) = arguments.command else { panic!("bench was asked for") };
        let profile = bench.load.profile().unwrap();
        assert_eq!((profile.producer.threads, profile.producer.inflight), (2, 4000));
    }
}
