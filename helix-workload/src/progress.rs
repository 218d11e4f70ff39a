//! Progress: a bar on a terminal, a plain line every few seconds otherwise.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Written directly, so that the test harness does not hold it back until a test has failed. Nobody is served by a
/// failure because stderr is closed.
pub fn line(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// Where progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A bar that is redrawn.
    Bar,
    /// Lines on stderr.
    Lines,
    /// Nowhere.
    Silent,
}

impl Progress {
    /// A bar if stderr is a terminal, lines otherwise.
    pub fn detect() -> Self {
        if stderr().is_terminal() { Self::Bar } else { Self::Lines }
    }

    /// Says something once.
    pub fn note(&self, text: &str) {
        if *self != Self::Silent {
            line(text);
        }
    }

    /// Begins a stage that counts up to `total`, or just counts.
    pub fn stage(&self, name: &str, total: Option<u64>) -> Stage {
        let bar = (*self == Self::Bar).then(|| {
            let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
            let template = match total {
                Some(_) => "{msg:<14} [{bar:40}] {human_pos}/{human_len}  {per_sec}  eta {eta}",
                None => "{msg:<14} {spinner} {human_pos}  {per_sec}  {elapsed}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_message(name.to_owned());
            bar
        });
        let now = Instant::now();
        Stage {
            name: name.to_owned(),
            total,
            bar,
            lines: *self == Self::Lines,
            begun: now,
            last: Mutex::new((now, 0)),
        }
    }
}

impl Progress {
    /// Begins a stage whose end is a matter of time; what goes on is said in words.
    pub fn clock(&self, name: &str, total: Duration) -> Clock {
        let bar = (*self == Self::Bar).then(|| {
            let bar = ProgressBar::new(total.as_secs());
            if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} s  {msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(name.to_owned());
            bar
        });
        let last = Mutex::new(Instant::now());
        Clock { name: name.to_owned(), progress: *self, bar, begun: Instant::now(), total, last }
    }
}

/// A running stage that ends at a certain time.
#[derive(Debug)]
pub struct Clock {
    name: String,
    progress: Progress,
    bar: Option<ProgressBar>,
    begun: Instant,
    total: Duration,
    last: Mutex<Instant>,
}

impl Clock {
    /// What goes on.
    pub fn show(&self, what: &str) {
        let elapsed = self.begun.elapsed().as_secs();
        if let Some(bar) = &self.bar {
            bar.set_position(elapsed);
            bar.set_message(what.to_owned());
        }
        let mut last = self.last.lock();
        if self.progress == Progress::Lines && last.elapsed() >= PLAIN_INTERVAL {
            line(&format!("{}: {elapsed} of {} s: {what}", self.name, self.total.as_secs()));
            *last = Instant::now();
        }
    }

    /// Says something once, above the bar.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => self.progress.note(text),
        }
    }

    /// Ends the stage and takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A running stage.
#[derive(Debug)]
pub struct Stage {
    name: String,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    lines: bool,
    begun: Instant,
    last: Mutex<(Instant, u64)>,
}

impl Stage {
    /// How far the stage is.
    pub fn set(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
        let mut last = self.last.lock();
        if self.lines && last.0.elapsed() >= PLAIN_INTERVAL {
            let rate = (position - last.1.min(position)) as f64 / last.0.elapsed().as_secs_f64();
            let of = self.total.map_or(String::new(), |total| format!(" of {total}"));
            let elapsed = self.begun.elapsed().as_secs();
            line(&format!("{}: {position}{of} after {elapsed} s ({rate:.0}/s)", self.name));
            *last = (Instant::now(), position);
        }
    }

    /// Ends the stage and takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
