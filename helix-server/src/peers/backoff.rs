//! How long to wait before the next attempt to connect. Pure but for the dice.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);

/// Doubles from 50 ms to 1 s, with jitter, so that nodes that start together do not knock together.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The connection stood: the next attempt is made at once.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after this failure; `random` is between 0 and 1.
    pub(super) fn failed(&mut self, random: f64) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(0.75 + random.clamp(0.0, 1.0) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_second_and_start_over() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..7).map(|_| backoff.failed(1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        backoff.succeeded();
        assert_eq!(backoff.failed(0.0).as_micros(), 37_500);
    }
}
