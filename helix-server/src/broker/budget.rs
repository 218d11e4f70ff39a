//! Byte budgets: what bounds the broker's memory whatever clients do.
//!
//! A budget hands out permits in the order they are asked for. A request larger than the whole budget is admitted
//! alone, when nothing else is held: refusing it would make it fail for ever.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Bytes that answers hold at one time, until they have left, where they can be much larger than the requests.
pub(crate) const MAX_ANSWERS_BYTES: usize = 128 << 20;

/// A bound on bytes (or on any other countable thing) held at one time.
#[derive(Debug, Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    peak: usize,
    queue: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    amount: usize,
    granted: oneshot::Sender<Permit>,
}

/// A held part of a budget; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    amount: usize,
}

impl Budget {
    /// A budget of `limit` units.
    pub fn new(limit: usize) -> Self {
        Self { shared: Arc::new(Shared { limit, state: Mutex::default() }) }
    }

    /// Takes `amount` at once if it fits and nobody waits.
    pub fn try_acquire(&self, amount: usize) -> Option<Permit> {
        let mut state = self.shared.state.lock();
        (state.queue.is_empty() && self.shared.fits(&state, amount))
            .then(|| self.shared.grant(&mut state, amount))
    }

    /// Takes `amount`, waiting in line for it. Dropping the future gives up the place in line.
    pub async fn acquire(&self, amount: usize) -> Permit {
        let granted = {
            let mut state = self.shared.state.lock();
            if state.queue.is_empty() && self.shared.fits(&state, amount) {
                return self.shared.grant(&mut state, amount);
            }
            let (sender, receiver) = oneshot::channel();
            state.queue.push_back(Waiting { amount, granted: sender });
            receiver
        };
        granted.await.expect("a waiting place is only removed by granting it, or after its receiver is gone")
    }

    /// Units held now.
    pub fn used(&self) -> usize {
        self.shared.state.lock().used
    }

    /// The most units ever held at one time.
    pub fn peak(&self) -> usize {
        self.shared.state.lock().peak
    }

    /// The bound.
    pub fn limit(&self) -> usize {
        self.shared.limit
    }
}

impl Shared {
    fn fits(&self, state: &State, amount: usize) -> bool {
        state.used == 0 || state.used.saturating_add(amount) <= self.limit
    }

    fn grant(self: &Arc<Self>, state: &mut State, amount: usize) -> Permit {
        state.used += amount;
        state.peak = state.peak.max(state.used);
        Permit { shared: Arc::clone(self), amount }
    }

    /// Gives units back and serves the line from its head.
    fn release(self: &Arc<Self>, amount: usize) {
        let mut state = self.state.lock();
        state.used -= amount;
        while let Some(head) = state.queue.front() {
            if !head.granted.is_closed() && !self.fits(&state, head.amount) {
                break;
            }
            let Some(head) = state.queue.pop_front() else { break };
            let permit = self.grant(&mut state, head.amount);
            if let Err(mut unused) = head.granted.send(permit) {
                // Whoever waited has given up: undo the grant here, since dropping the permit would lock again.
                state.used -= std::mem::take(&mut unused.amount);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.amount > 0 {
            self.shared.release(self.amount);
        }
    }
}

impl Permit {
    /// Units held.
    pub fn amount(&self) -> usize {
        self.amount
    }

    /// Takes over what another permit of the same budget holds.
    pub fn join(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.shared, &other.shared), "permits of one budget");
        self.amount += std::mem::take(&mut other.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_are_granted_in_order_and_never_beyond_the_limit() {
        let budget = Budget::new(10);
        let first = budget.try_acquire(8).unwrap();
        assert!(budget.try_acquire(3).is_none());
        let big = tokio::spawn({
            let budget = budget.clone();
            async move { budget.acquire(9).await }
        });
        while budget.shared.state.lock().queue.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(budget.try_acquire(1).is_none(), "nobody overtakes the line");
        drop(first);
        let big = big.await.unwrap();
        assert_eq!(budget.used(), 9);
        drop(big);
        assert_eq!(budget.used(), 0);
        assert_eq!(budget.peak(), 9);
    }

    #[tokio::test]
    async fn a_request_larger_than_the_budget_is_admitted_alone() {
        let budget = Budget::new(10);
        let huge = budget.try_acquire(50).unwrap();
        assert!(budget.try_acquire(1).is_none());
        drop(huge);
        assert!(budget.try_acquire(1).is_some());
    }

    #[test]
    fn joined_permits_are_given_back_together() {
        let budget = Budget::new(10);
        let mut held = budget.try_acquire(3).unwrap();
        held.join(budget.try_acquire(4).unwrap());
        assert_eq!((held.amount(), budget.used()), (7, 7));
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn giving_up_frees_the_place_in_line() {
        let budget = Budget::new(10);
        let held = budget.try_acquire(10).unwrap();
        {
            let waiting = budget.acquire(5);
            tokio::pin!(waiting);
            assert!(futures_util::poll!(&mut waiting).is_pending());
        }
        drop(held);
        assert_eq!(budget.used(), 0);
        assert!(budget.try_acquire(10).is_some());
    }
}
