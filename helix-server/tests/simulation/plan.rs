//! What a seed makes of a simulation.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::clients::producer::Habits;
use crate::faults::{FAULTS, Fault};
use crate::network::Weather;
use crate::witness::Promises;

/// Of all numbers one with which the seeds of `FOUND` have no groups: they found what they found without.
const CONSUMER_GROUPS: u64 = 557;
/// The same of elections.
const ELECTIONS: u64 = 36;

/// Everything that is drawn before the simulation begins.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) synced: bool,
    /// Machines lose their power whatever that costs.
    pub(crate) harsh: bool,
    /// What it costs may be more than is promised.
    pub(crate) may_lose: bool,
    /// What may strike, and how often.
    pub(crate) faults: &'static [(Fault, u32)],
    pub(crate) partitions: i32,
    pub(crate) producers: Vec<Habits>,
    pub(crate) weather: Weather,
    /// Mean pause between two faults, in ms.
    pub(crate) pause_ms: u64,
    pub(crate) topics_come_and_go: bool,
    /// So many members of each of so many consumer groups.
    pub(crate) consumer_groups: Vec<usize>,
    /// So long after an election of preferred leaders the next one is asked for.
    pub(crate) elections_pause_ms: Option<u64>,
    /// Partitions keep about so many bytes.
    pub(crate) retention_bytes: Option<u64>,
    /// The schedule goes on until so much has happened.
    pub(crate) steps: u64,
    pub(crate) random: SmallRng,
}

impl Plan {
    pub(crate) fn new(seed: u64, steps: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let synced = random.random_bool(0.5);
        let harsh = random.random_bool(if synced { 0.5 } else { 0.3 });
        let producers = (0..random.random_range(1..=3)).map(|_| habits(&mut random)).collect();
        Self {
            nodes: if random.random_bool(0.25) { 5 } else { 3 },
            synced,
            harsh,
            may_lose: harsh && !synced,
            faults: FAULTS,
            partitions: random.random_range(1..=3),
            producers,
            weather: weather(&mut random),
            pause_ms: random.random_range(50..1500),
            consumer_groups: consumer_groups(seed),
            elections_pause_ms: elections_pause_ms(seed),
            topics_come_and_go: random.random_bool(0.4),
            retention_bytes: random.random_bool(0.4).then(|| random.random_range(50_000..800_000)),
            steps,
            random,
        }
    }

    pub(crate) fn promises(&self) -> Promises {
        Promises { synced: self.synced, founders: self.nodes, may_lose: self.may_lose }
    }
}

/// Not drawn from the same numbers as the rest: schedules without groups stay what they were.
fn consumer_groups(seed: u64) -> Vec<usize> {
    let mut random = SmallRng::seed_from_u64(seed ^ CONSUMER_GROUPS);
    if random.random_bool(0.6) {
        return Vec::new();
    }
    (0..random.random_range(1..=2)).map(|_| random.random_range(1..=4)).collect()
}

/// Not drawn from the same numbers either.
fn elections_pause_ms(seed: u64) -> Option<u64> {
    let mut random = SmallRng::seed_from_u64(seed ^ ELECTIONS);
    random.random_bool(0.25).then(|| random.random_range(20..2000))
}

fn habits(random: &mut SmallRng) -> Habits {
    Habits {
        idempotent: random.random_bool(0.7),
        in_flight: random.random_range(1..=5),
        pause_ms: random.random_range(5..200),
        message_bytes: [20, 200, 20_000][random.random_range(0..3)],
    }
}

pub(crate) fn weather(random: &mut SmallRng) -> Weather {
    let mut rarely = |most: u32| if random.random_bool(0.4) { random.random_range(0..=most) } else { 0 };
    let (lost, repeated, overtaken) = (rarely(500), rarely(500), rarely(500));
    Weather { delay_ms: [1, 3, 20][random.random_range(0..3)], lost, repeated, overtaken }
}
