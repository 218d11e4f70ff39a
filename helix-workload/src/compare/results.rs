//! Every figure that was measured, and what they come to.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::CompareOptions;
use super::row::{Basis, Row, Target};
use super::subjects::Contender;

/// The figures of one measurement, by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures(BTreeMap<&'static str, f64>);

impl Figures {
    /// With one more figure.
    #[must_use]
    pub(super) fn with(mut self, name: &'static str, value: f64) -> Self {
        self.0.insert(name, value);
        self
    }

    /// With one more figure, if it is known.
    #[must_use]
    pub(super) fn with_known(self, name: &'static str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// The figure of that name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().map(|(name, value)| (*name, *value))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.iter().map(|(name, value)| format!("{name} {}", short(value))).collect();
        f.write_str(&all.join(", "))
    }
}

/// With as many digits as say something.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One round of a row.
pub(super) type Round = BTreeMap<Contender, Figures>;

/// All rounds of a row.
#[derive(Debug, Serialize)]
pub struct RowResults {
    /// Which row.
    #[serde(serialize_with = "name_of")]
    pub row: &'static Row,
    /// In the order of time.
    pub rounds: Vec<BTreeMap<Contender, Figures>>,
    /// What went wrong; then the figures count for nothing.
    pub faults: Vec<String>,
}

fn name_of<S: serde::Serializer>(row: &&'static Row, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(row.name)
}

/// Everything that a run measured.
#[derive(Debug, Serialize)]
pub struct Results {
    /// About machine, date and build.
    pub about: Vec<String>,
    /// In the order in which they were measured.
    pub rows: Vec<RowResults>,
}

/// The middle of several values, and how far they spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, least, most })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, least, most } = self;
        write!(f, "{}", short(*median))?;
        if least < most { write!(f, " ({} to {})", short(*least), short(*most)) } else { Ok(()) }
    }
}

impl RowResults {
    /// A figure of one contender over all rounds.
    pub fn figure(&self, contender: Contender, name: &str) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.get(&contender)?.get(name)))
    }

    /// What a target's figure came to, round by round: quotients are taken of figures of the same round.
    pub fn reached(&self, target: &Target) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| {
            let helix = round.get(&Contender::Helix)?;
            let basis = match target.basis {
                Basis::One => Some(1.0),
                Basis::Kafka => round.get(&Contender::Kafka)?.get(target.figure),
                Basis::Own(name) => helix.get(name),
            };
            Some(helix.get(target.figure)? / basis?)
        }))
    }
}

impl Results {
    pub(super) fn new(options: &CompareOptions) -> Self {
        Self { about: options.about.clone(), rows: Vec::new() }
    }

    pub(super) fn add(&mut self, row: &'static Row, rounds: Vec<Round>, faults: Vec<String>) {
        self.rows.push(RowResults { row, rounds, faults });
    }

    /// Everything that went wrong.
    pub fn faults(&self) -> Vec<String> {
        let of_row = |row: &RowResults| {
            row.faults.iter().map(|fault| format!("{}: {fault}", row.row.name)).collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(of_row).collect()
    }

    /// Keeps every figure, as JSON.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, serde_json::to_vec_pretty(self)?)
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for results in &self.rows {
            writeln!(f, "{}", results.row.name)?;
            for target in results.row.targets {
                let reached = results.reached(target).map_or("not measured".into(), |reached| {
                    let verdict = if target.bound.holds(reached.median) { "met" } else { "NOT met" };
                    format!("{reached}; {verdict}")
                });
                writeln!(f, "  {target}: {reached}")?;
            }
            for fault in &results.faults {
                writeln!(f, "  WRONG: {fault}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Bound;
    use super::super::rows::ROWS;
    use super::*;

    fn round(helix: f64, floor: f64, kafka: Option<f64>) -> Round {
        let mut round = Round::new();
        round.insert(Contender::Helix, Figures::default().with("MB/s", helix).with("floor", floor));
        if let Some(kafka) = kafka {
            round.insert(Contender::Kafka, Figures::default().with("MB/s", kafka));
        }
        round
    }

    #[test]
    fn quotients_are_taken_within_a_round() {
        let rounds = vec![
            round(100.0, 200.0, Some(50.0)),
            round(300.0, 400.0, Some(100.0)),
            round(80.0, 80.0, Some(80.0)),
            round(70.0, 70.0, None),
        ];
        let row = RowResults { row: &ROWS[0], rounds, faults: Vec::new() };
        let reached = |basis| {
            let target = Target { figure: "MB/s", basis, bound: Bound::AtLeast(2.0) };
            row.reached(&target).unwrap()
        };
        assert_eq!(reached(Basis::Kafka), Spread { median: 2.0, least: 1.0, most: 3.0 });
        assert_eq!(reached(Basis::Own("floor")), Spread { median: 0.875, least: 0.5, most: 1.0 });
        assert_eq!(reached(Basis::One), Spread { median: 90.0, least: 70.0, most: 300.0 });
        assert_eq!(row.figure(Contender::Kafka, "MB/s").unwrap().median, 80.0);
        assert_eq!(row.figure(Contender::Kafka, "floor"), None);
    }

    #[test]
    fn a_spread_shows_its_ends_if_it_has_two() {
        assert_eq!(Spread::of([2.0, 1.0, 30.0]).unwrap().to_string(), "2.00 (1.00 to 30.0)");
        assert_eq!(Spread::of([123.4]).unwrap().to_string(), "123");
        assert_eq!(Spread::of([]), None);
    }
}
