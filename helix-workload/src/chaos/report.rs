//! What came of a run, readable and as JSON. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::fault::Fault;
use super::groups::GroupsReport;
use super::replicas::Comparison;
use super::timeline::{Episode, Second};
use crate::check::Findings;

/// What is promised when a leader is killed.
pub const PROMISED_INTERRUPTION: Duration = Duration::from_secs(2);

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How many nodes.
    pub nodes: u32,
    /// `--write-durability`.
    pub write_durability: String,
    /// Of the schedule.
    pub seed: u64,
    /// How long the load ran.
    pub seconds: f64,
    /// What was to be sent.
    pub messages_per_second: u32,
    /// Bytes of each message.
    pub message_size: usize,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages failed, or never heard of again.
    pub failed: u64,
    /// Messages transmitted more than once.
    pub repeated: u64,
    /// Records that consumers were shown meanwhile.
    pub read: u64,
    /// What members of consumer groups and others were told of them.
    pub groups: GroupsReport,
    /// What reading everything back showed, of the plain and of the idempotent load; `None` if it could not be read.
    pub findings: Option<[Findings; 2]>,
    /// What comparing the replicas' logs showed.
    pub replicas: Comparison,
    /// Faults that could not be injected, and why.
    pub skipped: Vec<(Fault, String)>,
    /// What must not have happened. Empty if all is well.
    pub violations: Vec<String>,
    /// Every fault.
    pub episodes: Vec<Episode>,
    /// Every second.
    #[serde(skip)]
    pub samples: Vec<Second>,
}

/// All faults of one kind, the worst of each measure.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Acknowledged per second while it lasted, of what it was before; the least.
    pub progress: Option<f64>,
    /// The longest silence of a partition led by a victim.
    pub interruption_led_ms: Option<f64>,
    /// The longest silence of any other partition.
    pub interruption_others_ms: Option<f64>,
    /// The longest time from healing until all partitions served.
    pub serving_after_ms: Option<f64>,
    /// The longest time from healing until everything was as before.
    pub whole_after_ms: Option<f64>,
}

fn most(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.into_iter().chain(other).reduce(f64::max)
}

impl Report {
    /// By kind of fault.
    pub fn summaries(&self) -> BTreeMap<Fault, Summary> {
        let mut summaries: BTreeMap<Fault, Summary> = BTreeMap::new();
        for one in &self.episodes {
            let sum = summaries.entry(one.fault).or_default();
            let progress = (one.before_per_s > 0.0).then(|| one.during_per_s / one.before_per_s);
            sum.count += 1;
            sum.progress = sum.progress.into_iter().chain(progress).reduce(f64::min);
            sum.interruption_led_ms = most(sum.interruption_led_ms, one.interruption_led_ms);
            sum.interruption_others_ms = most(sum.interruption_others_ms, one.interruption_others_ms);
            sum.serving_after_ms = most(sum.serving_after_ms, one.serving_after_ms);
            sum.whole_after_ms = most(sum.whole_after_ms, one.whole_after_ms);
        }
        summaries
    }

    /// The table of faults, a row of cells each, its heading first.
    pub fn table(&self) -> Vec<[String; 7]> {
        let heading = [
            "fault",
            "count",
            "progress",
            "led by a victim",
            "led by others",
            "all serve again",
            "whole again",
        ];
        let ms = |value: Option<f64>| value.map_or_else(|| "-".into(), |ms| format!("{:.2} s", ms / 1e3));
        let mut rows = vec![heading.map(str::to_owned)];
        for (fault, sum) in self.summaries() {
            rows.push([
                fault.to_string(),
                sum.count.to_string(),
                sum.progress.map_or_else(|| "-".into(), |progress| format!("{:.0} %", progress * 100.0)),
                ms(sum.interruption_led_ms),
                ms(sum.interruption_others_ms),
                ms(sum.serving_after_ms),
                ms(sum.whole_after_ms),
            ]);
        }
        rows
    }

    /// What the columns of the table are.
    pub const LEGEND: &'static str = "progress: acknowledged per second while the fault lasted, of what it was before; \
        led by a victim, led by others: the longest that such a partition acknowledged nothing; all serve again, whole again: after healing. \
        The worst of all faults of the kind.";

    /// The longest silence of a partition in the calm before any fault: what is below it is no interruption.
    pub fn longest_calm_silence_ms(&self) -> f64 {
        self.episodes.iter().map(|one| one.silence_before_ms).fold(0.0, f64::max)
    }

    /// What was checked and found, a row each.
    pub fn verdicts(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        let mut row = |name, text: String| rows.push((name, text));
        match &self.findings {
            Some([plain, idempotent]) => {
                let both = |of: fn(&Findings) -> u64| (of(plain) + of(idempotent)).to_string();
                row("acknowledged and lost", both(|found| found.lost));
                row("twice, of idempotent producers", idempotent.duplicated.to_string());
                row("out of order, of idempotent producers", idempotent.reordered.to_string());
                row("other contents than sent", both(|found| found.damaged + found.invented));
                row("elsewhere than acknowledged", both(|found| found.misplaced));
                row("gaps in the offsets", both(|found| found.gaps));
                row("read past the high watermark", both(|found| found.withdrawn));
                let plainly = format!("{} twice, {} out of order", plain.duplicated, plain.reordered);
                row("of plain producers, as Kafka allows", plainly);
            }
            None => row("read back", "FAILED".into()),
        }
        let replicas = &self.replicas;
        row(
            "different on two replicas",
            format!("{} of {} entries in {} groups", replicas.different, replicas.entries, replicas.groups),
        );
        row("aborted records seen", "not checked: there are no transactions yet".into());
        row("failed messages", self.failed.to_string());
        rows.extend(self.groups.verdicts());
        rows
    }

    fn promises(&self) -> Vec<(&'static str, String)> {
        let summaries = self.summaries();
        let mut rows = Vec::new();
        if let Some(ms) = summaries.get(&Fault::LeaderKilled).and_then(|sum| sum.interruption_led_ms) {
            let verdict = if ms <= PROMISED_INTERRUPTION.as_secs_f64() * 1e3 { "kept" } else { "MISSED" };
            rows.push((
                "leader killed: goes on within 2 s",
                format!("{:.2} s at the longest: {verdict}", ms / 1e3),
            ));
        }
        if let Some(ms) = summaries.get(&Fault::FollowerKilled).and_then(|sum| sum.interruption_others_ms) {
            let calm = self.longest_calm_silence_ms();
            let text =
                format!("silent for {:.2} s at the longest ({:.2} s in the calm)", ms / 1e3, calm / 1e3);
            rows.push(("follower killed: goes on at once", text));
        }
        rows
    }
}

/// One fault, when it is over.
pub fn episode_line(one: &Episode) -> String {
    let ms = |value: Option<f64>| value.map_or_else(|| "never".into(), |ms| format!("{:.2} s", ms / 1e3));
    let silence = |value: Option<f64>| value.map_or_else(|| "-".into(), |ms| format!("{:.2} s", ms / 1e3));
    format!(
        "           {:.0} messages/s before, {:.0} meanwhile; silent: led by a victim {}, by others {}; after healing all served {}, whole {}",
        one.before_per_s,
        one.during_per_s,
        silence(one.interruption_led_ms),
        silence(one.interruption_others_ms),
        ms(one.serving_after_ms),
        ms(one.whole_after_ms),
    )
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {} nodes, {}, seed {}: {:.0} s, {} faults, {} messages acknowledged, {} repeated, {} read meanwhile\n",
            self.nodes,
            self.write_durability,
            self.seed,
            self.seconds,
            self.episodes.len(),
            self.acknowledged,
            self.repeated,
            self.read,
        )?;
        for [fault, count, rest @ ..] in self.table() {
            write!(f, "  {fault:<22} {count:>5}")?;
            for cell in rest {
                write!(f, "  {cell:>15}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "\n  {}\n", Self::LEGEND)?;
        for (name, text) in self.verdicts().into_iter().chain(self.promises()) {
            writeln!(f, "  {name:<38} {text}")?;
        }
        for (fault, reason) in &self.skipped {
            writeln!(f, "  SKIPPED {fault}: {reason}")?;
        }
        for violation in &self.violations {
            writeln!(f, "  VIOLATION: {violation}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::chaos) fn episode(fault: Fault, at_s: f64) -> Episode {
        Episode {
            fault,
            nodes: vec![2],
            particulars: String::new(),
            begun_s: at_s,
            healed_s: at_s + 5.0,
            serving_after_ms: Some(10.0),
            whole_after_ms: Some(1_500.0),
            before_per_s: 1000.0,
            during_per_s: 900.0,
            silence_before_ms: 50.0,
            interruption_led_ms: Some(700.0),
            interruption_others_ms: None,
        }
    }

    pub(in crate::chaos) fn report() -> Report {
        let mut worse = episode(Fault::LeaderKilled, 30.0);
        worse.during_per_s = 100.0;
        worse.interruption_led_ms = Some(2_500.0);
        Report {
            nodes: 3,
            write_durability: "fsync".into(),
            seed: 5,
            seconds: 60.0,
            messages_per_second: 2000,
            message_size: 400,
            acknowledged: 100,
            failed: 0,
            repeated: 3,
            read: 99,
            groups: GroupsReport::default(),
            findings: Some(Default::default()),
            replicas: Comparison::default(),
            skipped: vec![(Fault::DiskFull, "no root".into())],
            violations: Vec::new(),
            episodes: vec![episode(Fault::LeaderKilled, 5.0), worse, episode(Fault::NodePaused, 45.0)],
            samples: (0..60)
                .map(|n| Second {
                    at_s: f64::from(n),
                    plain_per_s: 500.0,
                    max_ms: (n % 7 != 0).then(|| f64::from(n)),
                    ..Second::default()
                })
                .collect(),
        }
    }

    #[test]
    fn the_worst_of_each_kind_counts() {
        let summaries = report().summaries();
        let killed = &summaries[&Fault::LeaderKilled];
        assert_eq!((killed.count, killed.progress), (2, Some(0.1)));
        assert_eq!((killed.interruption_led_ms, killed.interruption_others_ms), (Some(2_500.0), None));
        assert_eq!(summaries[&Fault::NodePaused].count, 1);
    }

    #[test]
    fn missed_promises_skipped_faults_and_what_is_not_checked_are_said() {
        let text = report().to_string();
        assert!(text.contains("2.50 s at the longest: MISSED"), "{text}");
        assert!(text.contains("SKIPPED disk-full: no root"), "{text}");
        assert!(text.contains("aborted records seen") && text.contains("not checked"), "{text}");
    }
}
