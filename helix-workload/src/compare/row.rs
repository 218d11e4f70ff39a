//! What a row of the table is.

use std::fmt;

use super::results::{Figures, short};
use super::subjects::{CompareError, Contender, Subjects};

/// One row: a workload, and what is expected of it.
#[derive(Debug)]
pub struct Row {
    /// What it is called on the command line and in files.
    pub name: &'static str,
    /// What it measures, in words.
    pub title: &'static str,
    /// How, as far as the title does not say.
    pub method: &'static str,
    /// Whether Apache Kafka is measured as well.
    pub against_kafka: bool,
    /// The figure that the plot shows.
    pub plotted: &'static str,
    /// What is expected.
    pub targets: &'static [Target],
    /// Measures it once.
    pub(super) measure: fn(&mut Subjects<'_>, Contender) -> Result<Figures, CompareError>,
}

/// What is expected of one figure.
#[derive(Debug)]
pub struct Target {
    /// The figure.
    pub figure: &'static str,
    /// What it is divided by.
    pub basis: Basis,
    /// What the quotient is to be.
    pub bound: Bound,
}

/// What a figure is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Nothing.
    One,
    /// The same figure of Apache Kafka in the same round.
    Kafka,
    /// Another figure of Helix in the same round.
    Own(&'static str),
}

/// What a quotient is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Bound {
    /// Whether the value fits.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {}", short(*least)),
            Self::AtMost(most) => write!(f, "at most {}", short(*most)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { figure, basis, bound } = self;
        match basis {
            Basis::One => write!(f, "{figure} {bound}"),
            Basis::Kafka => write!(f, "{figure} / Apache Kafka's {bound}"),
            Basis::Own(other) => write!(f, "{figure} / {other} {bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_include_their_value() {
        assert!(Bound::AtLeast(2.0).holds(2.0) && !Bound::AtLeast(2.0).holds(1.9));
        assert!(Bound::AtMost(2.0).holds(2.0) && !Bound::AtMost(2.0).holds(2.1));
    }
}
