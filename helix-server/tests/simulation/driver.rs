//! Runs schedules for as long as it is told: what `scripts/simulate` starts.

mod clients;
mod explore;
mod faults;
mod machine;
mod network;
mod plan;
mod replay;
mod witness;
mod world;

use std::io::{IsTerminal, stderr};
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use rand::Rng;

use explore::Summary;
use world::Outcome;

/// Without a terminal a line says every so often how far it is.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The production node in a simulated world.
#[derive(Debug, Parser)]
#[command(name = "simulate")]
struct Arguments {
    /// Run new seeds for so long [default: 1]
    #[arg(long, conflicts_with_all = ["seeds", "seed"])]
    minutes: Option<f64>,
    /// Run these seeds: A..B, without B
    #[arg(long, value_parser = explore::parse_seeds, conflicts_with = "seed")]
    seeds: Option<Range<u64>>,
    /// Run one seed, with its log (RUST_LOG says how much)
    #[arg(long)]
    seed: Option<u64>,
    /// End with the first seed in which a promise is broken, and say only how long that took
    #[arg(long)]
    first: bool,
    /// How much happens in each schedule
    #[arg(long, default_value_t = explore::STEPS)]
    steps: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return verdict(replay::replay(seed, arguments.steps).verdict.is_none());
    }
    if let (true, Some(seeds)) = (arguments.first, &arguments.seeds) {
        return find_first(seeds.clone(), arguments.steps);
    }
    let summary = match arguments.seeds {
        Some(seeds) => {
            let count = seeds.end.saturating_sub(seeds.start);
            explore(seeds, arguments.steps, None, Some(count))
        }
        None => {
            let until = Instant::now() + Duration::from_secs_f64(arguments.minutes.unwrap_or(1.0) * 60.0);
            let first = u64::from(rand::rng().random::<u32>()) << 16;
            eprintln!("seeds from {first} on");
            explore(first..u64::MAX, arguments.steps, Some(until), None)
        }
    };
    println!("{summary}");
    for (seed, broken) in &summary.broken {
        println!("seed {seed}: {broken}\n    scripts/simulate --seed {seed} --steps {}", arguments.steps);
    }
    verdict(summary.broken.is_empty())
}

/// What `scripts/planted` reads: how many schedules and seconds it takes until something is found, and what.
fn find_first(seeds: Range<u64>, steps: u64) -> ExitCode {
    let begun = Instant::now();
    for seed in seeds.clone() {
        if let Some(broken) = explore::run(seed, steps).verdict {
            let (schedules, seconds) = (seed - seeds.start + 1, begun.elapsed().as_secs_f64());
            println!("{schedules}\t{seconds:.1}\t{}", broken.lines().next().unwrap_or_default());
            return ExitCode::SUCCESS;
        }
    }
    println!("nothing found in {} schedules", seeds.end - seeds.start);
    ExitCode::FAILURE
}

fn verdict(kept: bool) -> ExitCode {
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn explore(seeds: Range<u64>, steps: u64, until: Option<Instant>, count: Option<u64>) -> Summary {
    let progress = Progress::new(count);
    let summary = explore::run_all(seeds, steps, until, |seed, outcome| progress.ended(seed, outcome));
    progress.bar.finish_and_clear();
    summary
}

/// A bar on a terminal, lines otherwise.
struct Progress {
    bar: ProgressBar,
    count: Option<u64>,
    /// When it was said last how far it is, and how far it is.
    said: Option<Mutex<(Instant, u64)>>,
}

impl Progress {
    fn new(count: Option<u64>) -> Self {
        let terminal = stderr().is_terminal();
        let bar = match (terminal, count) {
            (false, _) => ProgressBar::hidden(),
            (true, Some(count)) => ProgressBar::new(count),
            (true, None) => ProgressBar::no_length(),
        };
        let template = match count {
            Some(_) => "schedules [{bar:40}] {human_pos}/{human_len}  {per_sec}  eta {eta}  {msg}",
            None => "schedules {spinner} {human_pos}  {per_sec}  {elapsed}  {msg}",
        };
        bar.set_style(
            ProgressStyle::with_template(template).expect("the template is one").progress_chars("=> "),
        );
        Self { bar, count, said: (!terminal).then(|| Mutex::new((Instant::now(), 0))) }
    }

    fn ended(&self, seed: u64, outcome: &Outcome) {
        self.bar.inc(1);
        if let Some(broken) = &outcome.verdict {
            self.bar.suspend(|| eprintln!("seed {seed}: {broken}"));
        }
        let Some(said) = &self.said else { return };
        let mut said = said.lock();
        said.1 += 1;
        if said.0.elapsed() >= LINE_INTERVAL {
            said.0 = Instant::now();
            let of = self.count.map_or_else(String::new, |count| format!(" of {count}"));
            eprintln!("{}{of} schedules", said.1);
        }
    }
}
