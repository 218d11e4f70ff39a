//! One schedule again, with its log.

use std::time::Duration;

use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::explore::{self, BEGUN};
use crate::world::Outcome;

/// Logs show the time within the schedule.
struct SimulatedTime;

impl FormatTime for SimulatedTime {
    fn format_time(&self, out: &mut Writer<'_>) -> std::fmt::Result {
        let begun = BEGUN.get();
        let now = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        write!(out, "{:>9.3}", now.as_secs_f64())
    }
}

/// Runs the schedule of one seed with its log on standard error.
pub(crate) fn replay(seed: u64, steps: u64) -> Outcome {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_timer(SimulatedTime)
        .init();
    let outcome = explore::run(seed, steps);
    eprintln!("{outcome:#?}\nfingerprint {:016x}", outcome.fingerprint);
    outcome
}
