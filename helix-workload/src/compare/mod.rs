//! The table of measurements: each row measured on Helix and on Apache Kafka in turn, in one run, and held against its target.
//!
//! * `row` says what a row is, `rows` lists them all, and `rows_*` measure them;
//! * `subjects` runs the clusters that are measured;
//! * `full_memory` sees to it that nobody is measured on memory that was never used before;
//! * `results` keeps every figure, and takes ratios of figures of the same round;
//! * `page` and `plot` make the page of it.
//!
//! A row whose outcome is wrong (a message that failed, contents that differ) has no figures but a fault, and the run fails. A
//! missed target is a finding, not a failure: the machine may be busy.

mod full_memory;
mod page;
mod plot;
mod probe;
mod results;
mod row;
mod rows;
mod rows_groups;
mod rows_latency;
mod rows_load;
mod rows_partitions;
mod rows_read;
mod rows_retention;
mod rows_start;
mod subjects;

use std::path::PathBuf;
use std::time::Duration;

pub use page::write as write_page;
pub use results::Results;
pub use row::Row;
pub use rows::ROWS;
pub use subjects::{CompareError, Contender};

use crate::progress::Progress;
use results::Round;
use subjects::Subjects;

/// What to measure, and how much of it.
#[derive(Debug, Clone)]
pub struct CompareOptions {
    /// The `helix-server` to run.
    pub binary: PathBuf,
    /// Apache Kafka's jar files; without them only Helix is measured.
    pub kafka_libs: Option<PathBuf>,
    /// Load that Apache Kafka is given before it is measured: it is slow until the JVM has compiled it.
    pub kafka_warmup: Duration,
    /// Before each measurement, fill the machine's memory with page cache, as it is on a machine that has run for a while, and wait for
    /// what others have written.
    pub settle: bool,
    /// Clusters keep their data here; emptied first, removed at the end.
    pub directory: PathBuf,
    /// Which rows.
    pub rows: Vec<&'static Row>,
    /// How often each.
    pub rounds: u32,
    /// How large the loads are.
    pub scale: Scale,
    /// What the page says about machine, date and build.
    pub about: Vec<String>,
}

/// How large the loads are.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Measured load of rows that do not say otherwise.
    pub measured: Duration,
    /// Measured load of the row that is about standing it for long.
    pub stress: Duration,
    /// Partitions of the rows that are about many.
    pub partitions: u32,
    /// What is read back, in bytes.
    pub fetch_bytes: u64,
    /// What is stored when a node starts, in bytes.
    pub stored_bytes: u64,
    /// Consumer groups, and members of each.
    pub groups: u32,
    /// As above.
    pub group_members: u32,
    /// What is written through a topic that keeps only the newest of it, in bytes.
    pub retention_written_bytes: u64,
    /// What it keeps of each partition, in bytes.
    pub retention_bytes: u64,
}

impl Scale {
    /// Load before measuring begins.
    fn warm_up(&self) -> Duration {
        self.measured.min(Duration::from_secs(3))
    }

    /// What the floor moves beside a load: for seconds, where it is fast.
    fn floor_bytes(&self) -> u64 {
        self.measured.as_secs().clamp(1, 20) * 100_000_000
    }
}

/// Measures all rows. Rows that went wrong are in the results with their faults.
pub fn run(options: &CompareOptions, progress: Progress) -> Results {
    // Brokers inherit it. If it can't be had, whatever needs it says so.
    let _ = crate::process::allow_open_files();
    let mut results = Results::new(options);
    let mut subjects = Subjects::new(options, progress);
    for row in &options.rows {
        let mut rounds = Vec::new();
        let mut faults = Vec::new();
        for number in 1..=options.rounds {
            let mut round = Round::default();
            for contender in subjects.contenders(row) {
                progress.note(&format!("{} (round {number} of {}): {contender}", row.name, options.rounds));
                let settled = subjects.settle();
                match settled.and_then(|()| (row.measure)(&mut subjects, contender)) {
                    Ok(figures) => {
                        progress.note(&format!("    {figures}"));
                        round.insert(contender, figures);
                    }
                    Err(error) => {
                        progress.note(&format!("    WRONG: {error}"));
                        faults.push(format!("round {number}, {contender}: {error}"));
                    }
                }
            }
            rounds.push(round);
        }
        results.add(row, rounds, faults);
    }
    results
}
