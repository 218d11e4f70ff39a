//! What kind of trouble a seed brings: each makes some things frequent and others rare, so that between them they go
//! where an average schedule would not.

use crate::rng::Rng;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Deliver,
    Duplicate,
    Lose,
    Tick,
    Propose,
    Confirm,
    Write,
    Report,
    Serve,
    Checkpoint,
    MoveStart,
    Transfer,
    Campaign,
    Crash,
    Start,
    Partition,
    Heal,
    Refuse,
    Change,
    Delete,
    Blackout,
    LoseDisk,
}

/// How often each thing happens on average, and the factors by which a seed may multiply it.
const WEIGHTS: [(Action, u64, [u64; 4]); 22] = [
    (Action::Deliver, 400, [1, 1, 1, 2]),
    (Action::Duplicate, 15, [0, 1, 1, 4]),
    (Action::Lose, 15, [0, 1, 1, 6]),
    (Action::Tick, 100, [1, 1, 1, 2]),
    (Action::Propose, 80, [1, 1, 1, 2]),
    (Action::Confirm, 30, [0, 1, 1, 4]),
    (Action::Write, 120, [1, 1, 2, 2]),
    (Action::Report, 100, [1, 1, 2, 2]),
    (Action::Serve, 60, [1, 1, 1, 2]),
    (Action::Checkpoint, 20, [0, 1, 1, 2]),
    (Action::MoveStart, 8, [0, 1, 1, 4]),
    (Action::Transfer, 4, [0, 1, 1, 8]),
    (Action::Campaign, 4, [0, 1, 1, 10]),
    (Action::Crash, 2, [0, 1, 2, 6]),
    (Action::Start, 14, [1, 1, 2, 4]),
    (Action::Partition, 2, [0, 1, 2, 8]),
    (Action::Heal, 6, [1, 1, 2, 3]),
    (Action::Refuse, 5, [0, 1, 4, 16]),
    (Action::Change, 12, [0, 1, 2, 6]),
    (Action::Delete, 6, [0, 1, 1, 4]),
    (Action::Blackout, 1, [0, 0, 1, 3]),
    (Action::LoseDisk, 1, [0, 0, 0, 3]),
];

/// Weights of a cluster that is mostly at peace: leaders last, members change often, and machines lose their power one by one.
const fn calm_weight(action: Action, weight: u64, factor: u64) -> u64 {
    match action {
        Action::Campaign | Action::Refuse | Action::LoseDisk => 0,
        Action::Duplicate | Action::Lose | Action::Transfer | Action::Blackout => weight * (factor % 2),
        Action::Crash | Action::Partition => 2 * weight,
        Action::Change | Action::Write | Action::Report => 3 * weight,
        Action::Tick => weight / 2,
        Action::Start => 4 * weight,
        _ => weight,
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Profile {
    weights: Vec<(Action, u64)>,
    total: u64,
    /// Per mille of the packets that are delivered about in the order in which they were sent.
    pub(crate) in_order: u64,
    /// Per mille of the crashes that are losses of power.
    pub(crate) power_losses: u64,
    /// Per mille of the refused connections that lead to a live process.
    pub(crate) false_alarms: u64,
    /// Per mille of the packets that stay on the way for long.
    pub(crate) stragglers: u64,
}

impl Profile {
    pub(crate) fn new(rng: &mut Rng) -> Profile {
        let calm = rng.chance(600);
        let mut weights = Vec::new();
        for (action, weight, factors) in WEIGHTS {
            let factor = factors[rng.below(factors.len())];
            weights.push((action, if calm { calm_weight(action, weight, factor) } else { weight * factor }));
        }
        Profile {
            total: weights.iter().map(|(_, weight)| weight).sum(),
            weights,
            in_order: [1000, 900, 700, 300][rng.below(4)],
            power_losses: if calm { 700 } else { [0, 0, 200, 1000][rng.below(4)] },
            false_alarms: [0, 0, 200, 800][rng.below(4)],
            stragglers: [0, 0, 30, 150][rng.below(4)],
        }
    }

    pub(crate) fn pick(&self, rng: &mut Rng) -> Action {
        let mut at = rng.next() % self.total;
        for (action, weight) in &self.weights {
            if at < *weight {
                return *action;
            }
            at -= weight;
        }
        Action::Deliver
    }
}
