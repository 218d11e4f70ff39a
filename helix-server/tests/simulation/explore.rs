//! Runs schedules, one seed after the other, on all cores.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::plan::Plan;
use crate::witness::Seen;
use crate::world::{self, Outcome};

/// How much happens in a schedule unless told otherwise.
pub(crate) const STEPS: u64 = 10_000;

/// Reads a range of seeds such as `100..200`.
pub(crate) fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let range = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.ok_or_else(|| format!("{text} is no range such as 100..200"))
}

/// What many schedules came to.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) schedules: u64,
    pub(crate) steps: u64,
    pub(crate) acknowledged: u64,
    pub(crate) simulated: Duration,
    pub(crate) took: Duration,
    pub(crate) seen: Seen,
    /// Seeds in which a promise was broken, and which.
    pub(crate) broken: Vec<(u64, String)>,
}

impl Summary {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.schedules += 1;
        self.steps += outcome.steps;
        self.acknowledged += outcome.acknowledged;
        self.simulated += outcome.simulated;
        self.seen += outcome.seen;
        self.broken.extend(outcome.verdict.map(|verdict| (seed, verdict)));
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took.as_secs_f64().max(0.001);
        writeln!(
            f,
            "{} schedules, {} steps, {} messages acknowledged; {:.0} s of simulated time in {seconds:.0} s: {:.0} times as fast, \
             {:.0} schedules a minute",
            self.schedules,
            self.steps,
            self.acknowledged,
            self.simulated.as_secs_f64(),
            self.simulated.as_secs_f64() / seconds,
            self.schedules as f64 * 60.0 / seconds,
        )?;
        write!(f, "{:?}", self.seen)
    }
}

thread_local! {
    /// The first panic on this thread since somebody looked.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// When the schedule that runs on this thread began, by its own clock.
    pub(crate) static BEGUN: Cell<Option<tokio::time::Instant>> = const { Cell::new(None) };
}

/// Panics end a task and nobody hears of it: here each counts as a broken promise.
fn watch_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANIC.with_borrow_mut(|panic| {
                panic.get_or_insert_with(|| format!("a panic: {info}"));
            });
            usual(info);
        }));
    });
}

/// Runs the schedule of one seed.
pub(crate) fn run(seed: u64, steps: u64) -> Outcome {
    run_plan(Plan::new(seed, steps))
}

/// Runs one schedule.
pub(crate) fn run_plan(plan: Plan) -> Outcome {
    watch_panics();
    PANIC.take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without IO needs nothing from the system");
    let ran = panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            BEGUN.set(Some(tokio::time::Instant::now()));
            world::run(plan).await
        })
    }));
    BEGUN.set(None);
    drop(runtime);
    let panicked = PANIC.take();
    let mut outcome = ran.unwrap_or_else(|_| Outcome {
        verdict: None,
        steps: 0,
        acknowledged: 0,
        simulated: Duration::ZERO,
        seen: Seen::default(),
        fingerprint: 0,
    });
    outcome.verdict = outcome.verdict.or(panicked);
    outcome
}

/// Runs the schedules of all seeds until `until`, telling of each as it ends.
pub(crate) fn run_all(
    seeds: Range<u64>,
    steps: u64,
    until: Option<Instant>,
    ended: impl Fn(u64, &Outcome) + Sync,
) -> Summary {
    run_plans(seeds, |seed| Plan::new(seed, steps), until, ended)
}

/// The same with other plans.
pub(crate) fn run_plans(
    seeds: Range<u64>,
    plan: impl Fn(u64) -> Plan + Sync,
    until: Option<Instant>,
    ended: impl Fn(u64, &Outcome) + Sync,
) -> Summary {
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary::default());
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while until.is_none_or(|until| Instant::now() < until) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = run_plan(plan(seed));
                    ended(seed, &outcome);
                    summary.lock().add(seed, outcome);
                }
            });
        }
    });
    let mut summary = summary.into_inner();
    summary.took = begun.elapsed();
    summary.broken.sort();
    summary
}
