//! Which fault comes when, to whom and how: all of it from a seed. Pure.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::fault::{Fault, Victims};
use super::network::Weather;

/// What a schedule is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The only source of chance.
    pub seed: u64,
    /// How many nodes, numbered from 1.
    pub nodes: u32,
    /// What may happen; each kind once in a round, in any order.
    pub faults: Vec<Fault>,
    /// Faults last half to one and a half of it.
    pub fault: Duration,
}

/// A fault that is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// What.
    pub fault: Fault,
    /// How long.
    pub lasts: Duration,
    /// How many nodes at once; always a minority, except for faults of all nodes.
    pub victims: u32,
    /// The nodes in the order in which they are struck or come back, wherever the fault does not say itself whom it strikes.
    pub order: Vec<u32>,
    /// Of one-way cuts: whether the victims are not heard, or else hear nothing.
    pub outward: bool,
    /// Of slow links.
    pub slowness: Weather,
    /// Of flapping links: how long cut, healed, cut ..., in turn.
    pub flaps: Vec<Duration>,
}

/// Strikes without end.
#[derive(Debug, Clone)]
pub struct Schedule {
    plan: Plan,
    random: SmallRng,
    round: Vec<Fault>,
}

const SLOW_DELAY_MS: std::ops::RangeInclusive<u64> = 5..=100;
const SLOW_BYTES_PER_SECOND: std::ops::RangeInclusive<u64> = 300_000..=3_000_000;
const FLAP_MS: std::ops::RangeInclusive<u64> = 50..=1500;

impl Schedule {
    /// The schedule of a plan. Without any fault it is empty.
    pub fn new(plan: Plan) -> Self {
        let random = SmallRng::seed_from_u64(plan.seed);
        Self { plan, random, round: Vec::new() }
    }

    fn next_fault(&mut self) -> Option<Fault> {
        if self.round.is_empty() {
            self.round.clone_from(&self.plan.faults);
            self.round.shuffle(&mut self.random);
        }
        self.round.pop()
    }

    fn flaps(&mut self, lasts: Duration) -> Vec<Duration> {
        let mut flaps = Vec::new();
        let mut left = lasts;
        while left > Duration::ZERO {
            let flap = Duration::from_millis(self.random.random_range(FLAP_MS)).min(left);
            flaps.push(flap);
            left -= flap;
        }
        flaps
    }
}

impl Iterator for Schedule {
    type Item = Strike;

    fn next(&mut self) -> Option<Strike> {
        let fault = self.next_fault()?;
        let lasts = self.plan.fault.mul_f64(self.random.random_range(0.5..1.5));
        let minority = (self.plan.nodes - 1) / 2;
        let victims = match fault.victims() {
            Victims::All => self.plan.nodes,
            Victims::SmallDisk => 1,
            Victims::Leaders | Victims::Followers | Victims::Any => {
                self.random.random_range(1..=minority.max(1))
            }
        };
        let mut order: Vec<u32> = (1..=self.plan.nodes).collect();
        order.shuffle(&mut self.random);
        let outward = self.random.random();
        let slowness = Weather {
            cut: false,
            delay: Duration::from_millis(self.random.random_range(SLOW_DELAY_MS)),
            bytes_per_second: Some(self.random.random_range(SLOW_BYTES_PER_SECOND)),
        };
        let flaps = self.flaps(lasts);
        Some(Strike { fault, lasts, victims, order, outward, slowness, flaps })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(seed: u64, nodes: u32) -> Plan {
        Plan { seed, nodes, faults: Fault::ALL.to_vec(), fault: Duration::from_secs(10) }
    }

    fn strikes(seed: u64, nodes: u32) -> Vec<Strike> {
        Schedule::new(plan(seed, nodes)).take(60).collect()
    }

    #[test]
    fn a_seed_gives_one_schedule_and_another_seed_another() {
        assert_eq!(strikes(7, 3), strikes(7, 3));
        assert_ne!(strikes(7, 3), strikes(8, 3));
    }

    #[test]
    fn every_round_has_every_fault_once() {
        for round in strikes(1, 3).chunks_exact(Fault::ALL.len()) {
            let kinds: BTreeSet<Fault> = round.iter().map(|strike| strike.fault).collect();
            assert_eq!(kinds.len(), Fault::ALL.len());
        }
    }

    #[test]
    fn victims_are_a_minority_unless_the_fault_is_one_of_all_nodes() {
        for nodes in [3, 5] {
            let struck: BTreeSet<u32> = strikes(3, nodes)
                .into_iter()
                .filter(|strike| strike.fault.victims() != Victims::All)
                .map(|strike| strike.victims)
                .collect();
            assert_eq!(struck, (1..=nodes / 2).collect());
        }
    }

    #[test]
    fn times_are_as_long_as_planned_and_flaps_fill_them() {
        for strike in strikes(5, 3) {
            assert!((5.0..15.0).contains(&strike.lasts.as_secs_f64()), "{strike:?}");
            assert_eq!(strike.flaps.iter().sum::<Duration>(), strike.lasts);
            let order: BTreeSet<u32> = strike.order.iter().copied().collect();
            assert_eq!(order, BTreeSet::from([1, 2, 3]));
        }
    }

    #[test]
    fn without_faults_nothing_happens() {
        let nothing = Plan { faults: Vec::new(), ..plan(1, 3) };
        assert_eq!(Schedule::new(nothing).next(), None);
    }
}
