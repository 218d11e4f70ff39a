//! Keeps what strangers can cause as often as they like from filling the log. Metrics count every single case.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// One message of each kind in this time.
const PERIOD: Duration = Duration::from_secs(10);

/// Decides whether a message of one kind is logged.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    logged_at: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// `None`: leave the message out. Otherwise log it, and say how many were left out since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.logged_at.is_some_and(|at| now.duration_since(at) < PERIOD) {
            state.suppressed += 1;
            return None;
        }
        state.logged_at = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_of_each_period_is_logged_with_the_number_of_those_left_out() {
        let limit = LogLimit::default();
        assert_eq!(limit.admit(), Some(0));
        assert!((0..100_000).all(|_| limit.admit().is_none()));
        tokio::time::advance(PERIOD).await;
        assert_eq!(limit.admit(), Some(100_000));
        assert_eq!(limit.admit(), None);
        tokio::time::advance(2 * PERIOD).await;
        assert_eq!(limit.admit(), Some(1));
    }
}
