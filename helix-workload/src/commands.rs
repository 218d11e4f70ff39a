//! What each subcommand does.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use helix_workload::bench::{self, BenchOptions};
use helix_workload::chaos::fault::Fault;
use helix_workload::chaos::{self, ChaosOptions, page};
use helix_workload::client::ClusterClient;
use helix_workload::compare::{self, CompareOptions, ROWS, Scale};
use helix_workload::differential::{self, DifferentialOptions};
use helix_workload::engine::{Load, LoadOptions};
use helix_workload::flood::{self, FloodOptions};
use helix_workload::history::History;
use helix_workload::profile::Profile;
use helix_workload::progress::Progress;
use helix_workload::reader::{self, ReadCounters};
use helix_workload::report::Verification;
use helix_workload::server_binary::server_binary;
use helix_workload::verify;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

use crate::arguments::{
    Bench, Chaos, Command, Compare, Consume, Differential, Flood, LoadShape, Produce, Target, TopicShape,
    Verify,
};

type Outcome = Result<(), Box<dyn Error>>;

const TOPIC_DEADLINE: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(330);
const LOOK: Duration = Duration::from_millis(20);

pub(crate) fn run(command: Command) -> Outcome {
    match command {
        Command::Produce(produce) => run_produce(&produce),
        Command::Consume(consume) => run_consume(&consume),
        Command::Bench(bench) => run_bench(&bench),
        Command::Flood(flood) => run_flood(&flood),
        Command::Verify(verify) => run_verify(&verify),
        Command::Compare(compare) => run_compare(&compare),
        Command::Differential(differential) => run_differential(differential),
        Command::Chaos(chaos) => run_chaos(chaos),
    }
}

fn bench_options(target: &Target, shape: &TopicShape, load: &LoadShape, profile: &Profile) -> BenchOptions {
    BenchOptions {
        bootstrap: target.bootstrap.clone(),
        topic: shape.named(&target.topic),
        profile: profile.clone(),
        idempotent: load.idempotent,
        messages_per_second: 0,
        client_settings: load.client_settings.clone(),
        broker_pids: Vec::new(),
        metrics: Vec::new(),
        floor_directory: None,
        verify: false,
    }
}

fn run_produce(produce: &Produce) -> Outcome {
    let progress = Progress::detect();
    let profile = produce.load.profile()?;
    let options = bench_options(&produce.target, &produce.shape, &produce.load, &profile);
    let client = ClusterClient::new(&options.bootstrap)?;
    let view = client.ensure_topic(&options.topic, TOPIC_DEADLINE)?;
    let mut load = Load::start(LoadOptions {
        bootstrap: options.bootstrap.clone(),
        topic: options.topic.name.clone(),
        partitions: view.partitions.len() as u32,
        profile: profile.clone(),
        idempotent: options.idempotent,
        messages_per_producer: produce.messages,
        messages_per_second: 0,
        timeline: false,
        client_settings: options.client_settings.clone(),
    })?;
    load.begin_measuring();
    let total = produce.messages.map(|each| each * u64::from(profile.producer.threads));
    let bar = progress.stage("producing", total);
    let outcome = if produce.messages.is_some() {
        load.finish()
    } else {
        let until = Instant::now() + profile.load_duration();
        while Instant::now() < until && !load.is_finished() {
            std::thread::sleep(LOOK);
            bar.set(load.progress().acknowledged);
        }
        load.stop(DRAIN)
    };
    bar.finish();
    if let Some(path) = &produce.history {
        outcome.history.save(path)?;
    }
    let report = bench::summarise(&options, &outcome);
    print!("{report}");
    save_json(produce.output.json.as_deref(), &report)?;
    if produce.shape.delete_topic {
        client.delete_topic(&options.topic.name)?;
    }
    report.fault().map_or(Ok(()), |fault| Err(fault.into()))
}

fn run_bench(bench: &Bench) -> Outcome {
    let profile = bench.load.profile()?;
    let options = BenchOptions {
        broker_pids: bench.broker_pids.clone(),
        metrics: bench.metrics.clone(),
        floor_directory: bench.floor_dir.clone(),
        verify: !bench.no_verify,
        ..bench_options(&bench.target, &bench.shape, &bench.load, &profile)
    };
    let report = bench::run(&options, &Progress::detect())?;
    print!("{report}");
    save_json(bench.output.json.as_deref(), &report)?;
    if bench.shape.delete_topic {
        ClusterClient::new(&options.bootstrap)?.delete_topic(&options.topic.name)?;
    }
    report.fault().map_or(Ok(()), |fault| Err(fault.into()))
}

fn run_flood(command: &Flood) -> Outcome {
    let options = FloodOptions {
        bootstrap: command.target.bootstrap.clone(),
        topic: command.shape.named(&command.target.topic),
        streams: command.streams.clone(),
        warmup: Duration::from_secs(command.warmup_secs),
        duration: Duration::from_secs(command.duration_secs),
        broker_pids: command.broker_pids.clone(),
        floor_directory: command.floor_dir.clone(),
    };
    let report = flood::run(&options, &Progress::detect())?;
    print!("{report}");
    save_json(command.output.json.as_deref(), &report)?;
    if command.shape.delete_topic {
        ClusterClient::new(&options.bootstrap)?.delete_topic(&options.topic.name)?;
    }
    report.fault().map_or(Ok(()), |fault| Err(fault.into()))
}

#[derive(Debug, Serialize)]
struct Consumed {
    records: u64,
    bytes: u64,
    seconds: f64,
    mb_per_s: f64,
}

fn run_consume(consume: &Consume) -> Outcome {
    let Target { bootstrap, topic } = &consume.target;
    let client = ClusterClient::new(bootstrap)?;
    let ranges = reader::whole_topic(&client, topic)?;
    let total = ranges.iter().map(|range| range.end - range.start).sum();
    let bar = Progress::detect().stage("reading", Some(total));
    let counters = ReadCounters::default();
    let begun = Instant::now();
    reader::read_in_parallel(bootstrap, topic, &ranges, consume.readers as usize, &counters, || {
        bar.set(counters.records.load(Ordering::Relaxed));
    })?;
    bar.finish();
    let seconds = begun.elapsed().as_secs_f64();
    let bytes = counters.bytes.into_inner();
    let mb_per_s = bytes as f64 / 1e6 / seconds;
    let consumed = Consumed { records: counters.records.into_inner(), bytes, seconds, mb_per_s };
    println!("  {:<15} {} records, {bytes} bytes in {seconds:.1} s", "read", consumed.records);
    println!("  {:<15} {mb_per_s:.1} MB/s", "throughput");
    save_json(consume.output.json.as_deref(), &consumed)
}

fn run_verify(command: &Verify) -> Outcome {
    let history = History::load(&command.history)?;
    let client = ClusterClient::new(&command.bootstrap)?;
    let verified = verify::verify(&client, &history, &Progress::detect())?;
    let findings = &verified.findings;
    let rows = [
        ("acknowledged", history.acknowledged()),
        ("read", verified.records),
        ("of this run", findings.stored),
        ("uncertain", findings.uncertain),
        ("lost", findings.lost),
        ("twice", findings.duplicated),
        ("reordered", findings.reordered),
        ("damaged", findings.damaged),
        ("misplaced", findings.misplaced),
        ("gaps", findings.gaps),
        ("invented", findings.invented),
        ("withdrawn", findings.withdrawn),
    ];
    for (name, count) in rows {
        println!("  {name:<15} {count}");
    }
    for example in &findings.examples {
        println!("  {:<15} {example}", "example");
    }
    let verification = Verification {
        records: verified.records,
        mb_per_s: verified.bytes as f64 / 1e6 / verified.took.as_secs_f64(),
        findings: findings.clone(),
    };
    save_json(command.output.json.as_deref(), &verification)?;
    if findings.is_clean() { Ok(()) } else { Err("what was read differs from what was acknowledged".into()) }
}

fn run_compare(command: &Compare) -> Outcome {
    let options = CompareOptions {
        binary: server_binary()?,
        kafka_libs: command.kafka_libs.clone(),
        kafka_warmup: Duration::from_secs(command.kafka_warmup_secs),
        settle: command.settle,
        directory: command.dir.clone(),
        rows: if command.rows.is_empty() { ROWS.iter().collect() } else { command.rows.clone() },
        rounds: command.rounds,
        scale: Scale {
            measured: Duration::from_secs(command.secs),
            stress: Duration::from_secs(command.stress_secs),
            partitions: command.partitions,
            fetch_bytes: command.fetch_mb * 1_000_000,
            stored_bytes: command.stored_mb * 1_000_000,
        },
        about: command.about.clone(),
    };
    let results = compare::run(&options, Progress::detect());
    print!("{results}");
    if let Some(path) = &command.output.json {
        results.save(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &command.page {
        compare::write_page(&results, path)?;
    }
    match results.faults().as_slice() {
        [] => Ok(()),
        faults => Err(format!("measurements went wrong:\n{}", faults.join("\n")).into()),
    }
}

fn run_chaos(command: Chaos) -> Outcome {
    let progress = Progress::detect();
    let seconds = |name: &str, value: f64| {
        Duration::try_from_secs_f64(value).map_err(|error| format!("{name} {value}: {error}"))
    };
    let options = ChaosOptions {
        binary: server_binary()?,
        directory: command.dir,
        nodes: command.nodes,
        write_durability: command.write_durability,
        duration: seconds("--minutes", command.minutes * 60.0)?,
        rounds: command.rounds,
        seed: command.seed.unwrap_or_else(|| SmallRng::from_os_rng().random()),
        faults: if command.faults.is_empty() { Fault::ALL.to_vec() } else { command.faults },
        fault: seconds("--fault-secs", command.fault_secs)?,
        calm: seconds("--calm-secs", command.calm_secs)?,
        messages_per_second: command.rate,
        message_size: command.message_size as usize,
        history: command.history,
    };
    progress.note(&format!(
        "{} nodes of {} in {}, {}, seed {}",
        options.nodes,
        options.binary.display(),
        options.directory.display(),
        options.write_durability,
        options.seed
    ));
    let report = chaos::run(&options, progress)?;
    print!("{report}");
    if let Some(path) = &command.page {
        std::fs::write(path, page::render(&report)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    save_json(command.output.json.as_deref(), &report)?;
    match report.violations.len() {
        0 => Ok(()),
        count => Err(format!("{count} violations; they stand above").into()),
    }
}

fn run_differential(command: Differential) -> Outcome {
    let options = DifferentialOptions {
        binary: server_binary()?,
        kafka_libs: command.kafka_libs,
        directory: command.dir,
        apis: command.apis,
    };
    let report = differential::run(&options, Progress::detect())?;
    print!("{report}");
    if let Some(path) = &command.page {
        report.write_into(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    match report.unexplained() {
        0 => Ok(()),
        count => Err(format!("{count} differences have no explanation; they stand above").into()),
    }
}

fn save_json(path: Option<&Path>, outcome: &impl Serialize) -> Outcome {
    if let Some(path) = path {
        let path: PathBuf = path.to_owned();
        std::fs::write(&path, serde_json::to_vec_pretty(outcome)?)
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
