//! The production node in a simulated world: many nodes in one thread, their network, disks and clocks made by a seed, with faults
//! of every kind, and every promise checked at every step.
//!
//! `HELIX_SEED=N` runs one schedule, with its log on standard error (`RUST_LOG` says how much). `HELIX_SEEDS=A..B` runs those,
//! `HELIX_STEPS` sets how long each is.

mod clients;
mod explore;
mod faults;
mod machine;
mod network;
mod plan;
mod shadow;
mod witness;
mod world;

use std::ops::Range;

/// How much happens in a schedule unless told otherwise.
const STEPS: u64 = 10_000;

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a valid value")))
}

fn seeds(default: Range<u64>) -> Range<u64> {
    let Some(text) = variable::<String>("HELIX_SEEDS") else { return default };
    let range = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or_else(|| panic!("HELIX_SEEDS={text} is no range such as 100..200"))
}

fn steps() -> u64 {
    variable("HELIX_STEPS").unwrap_or(STEPS)
}

#[test]
fn schedules_break_no_promise() {
    if let Some(seed) = variable::<u64>("HELIX_SEED") {
        return replay(seed);
    }
    let summary = explore::run_all(seeds(0..8), steps(), None, |seed, outcome| {
        if let Some(verdict) = &outcome.verdict {
            eprintln!("seed {seed}: {verdict}");
        }
    });
    eprintln!("{summary}");
    assert!(summary.broken.is_empty(), "{:#?}", summary.broken);
}

fn replay(seed: u64) {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_timer(explore::SimulatedTime)
        .init();
    let outcome = explore::run(seed, steps());
    eprintln!("{outcome:#?}");
    assert_eq!(outcome.verdict, None);
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    for seed in 0..3 {
        let [first, second] = [explore::run(seed, steps()), explore::run(seed, steps())];
        assert_eq!(first.fingerprint, second.fingerprint, "seed {seed}: {first:#?} and {second:#?}");
        assert_eq!(first.steps, second.steps);
    }
}
