//! A value that many watch.
//!
//! Like tokio's `watch`, which wakes those who wait in an order that it draws by lot; here it is the order in which they began
//! to wait, so that a simulation can be repeated. Values are handed out as copies, never as guards.

use std::sync::Arc;

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

/// All senders are gone: the value changes no more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("nobody can change the value any more")]
pub struct SendersGone;

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
    receivers_gone: Notify,
}

#[derive(Debug)]
struct State<T> {
    value: T,
    version: u64,
    senders: usize,
    receivers: usize,
}

/// Changes the value. Clones change the same one.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Sees the value, and knows which version of it was seen last.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

/// A value with one sender and one receiver.
pub fn channel<T: Clone>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T: Clone> Sender<T> {
    /// A value that nobody watches yet.
    pub fn new(value: T) -> Self {
        let state = Mutex::new(State { value, version: 0, senders: 1, receivers: 0 });
        let shared = Shared { state, changed: Notify::new(), receivers_gone: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Watches from here on: the value as it is counts as seen.
    pub fn subscribe(&self) -> Receiver<T> {
        let mut state = self.shared.state.lock();
        state.receivers += 1;
        Receiver { shared: Arc::clone(&self.shared), seen: state.version }
    }

    /// Sets the value, whether anybody watches or not.
    pub fn send_replace(&self, value: T) {
        self.send_modify(|old| *old = value);
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value; `change` says whether it did.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) {
        {
            let mut state = self.shared.state.lock();
            if !change(&mut state.value) {
                return;
            }
            state.version += 1;
        }
        self.shared.changed.notify_waiters();
    }

    /// The value.
    pub fn get(&self) -> T {
        self.shared.state.lock().value.clone()
    }

    /// Waits until nobody watches.
    pub async fn closed(&self) {
        let gone = |shared: &Shared<T>| (shared.state.lock().receivers == 0).then_some(());
        wait(&self.shared, &self.shared.receivers_gone, gone).await;
    }
}

impl<T: Clone> Receiver<T> {
    /// The value.
    pub fn get(&self) -> T {
        self.shared.state.lock().value.clone()
    }

    /// The value, which counts as seen.
    pub fn get_and_update(&mut self) -> T {
        let state = self.shared.state.lock();
        self.seen = state.version;
        state.value.clone()
    }

    /// Waits for a version that was not seen yet.
    ///
    /// # Errors
    /// When there will be none.
    pub async fn changed(&mut self) -> Result<(), SendersGone> {
        let seen = self.seen;
        let look = |shared: &Shared<T>| {
            let state = shared.state.lock();
            match state.version {
                version if version != seen => Some(Ok(version)),
                _ if state.senders == 0 => Some(Err(SendersGone)),
                _ => None,
            }
        };
        self.seen = wait(&self.shared, &self.shared.changed, look).await?;
        Ok(())
    }

    /// Waits for a value that `wanted` accepts, the present one included.
    ///
    /// # Errors
    /// When there will be none.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<T, SendersGone> {
        let look = |shared: &Shared<T>| {
            let state = shared.state.lock();
            if wanted(&state.value) {
                return Some(Ok((state.version, state.value.clone())));
            }
            (state.senders == 0).then_some(Err(SendersGone))
        };
        let (seen, value) = wait(&self.shared, &self.shared.changed, look).await?;
        self.seen = seen;
        Ok(value)
    }
}

impl<T> Receiver<T> {
    /// The value as it is counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.state.lock().version;
    }
}

/// Waits for `look` to find something; it is asked again whenever `bell` rings.
async fn wait<T, R>(shared: &Shared<T>, bell: &Notify, mut look: impl FnMut(&Shared<T>) -> Option<R>) -> R {
    loop {
        // Waiting begins before looking, so that no change falls in between.
        let rung = bell.notified();
        tokio::pin!(rung);
        rung.as_mut().enable();
        if let Some(found) = look(shared) {
            return found;
        }
        rung.await;
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.state.lock().senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.state.lock().receivers += 1;
        Self { shared: Arc::clone(&self.shared), seen: self.seen }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.shared.state.lock();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.shared.changed.notify_waiters();
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.shared.state.lock();
            state.receivers -= 1;
            state.receivers == 0
        };
        if last {
            self.shared.receivers_gone.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_seen_once_and_wanted_values_are_waited_for() {
        let (sender, mut receiver) = channel(1);
        sender.send_replace(2);
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(receiver.get(), 2);
        let mut other = receiver.clone();
        let waiting = tokio::spawn(async move { other.wait_for(|value| *value > 3).await });
        for value in 3..6 {
            sender.send_replace(value);
        }
        assert_eq!(waiting.await.unwrap(), Ok(5));
        assert_eq!(receiver.get_and_update(), 5);
        drop(sender);
        assert_eq!(receiver.changed().await, Err(SendersGone));
        assert_eq!(receiver.wait_for(|value| *value == 5).await, Ok(5));
        assert_eq!(receiver.wait_for(|value| *value == 6).await, Err(SendersGone));
    }

    #[tokio::test]
    async fn unchanged_values_wake_nobody() {
        let (sender, mut receiver) = channel(1);
        sender.send_if_modified(|_| false);
        sender.send_modify(|value| *value += 1);
        receiver.mark_unchanged();
        let changed = tokio::time::timeout(std::time::Duration::from_millis(1), receiver.changed());
        assert!(changed.await.is_err());
    }

    #[tokio::test]
    async fn the_end_of_the_receivers_is_noticed_and_waiters_wake_in_order() {
        let sender = Sender::new(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        for number in 0..20 {
            let (mut receiver, order) = (sender.subscribe(), Arc::clone(&order));
            tokio::spawn(async move {
                receiver.changed().await.unwrap();
                order.lock().push(number);
            });
        }
        tokio::task::yield_now().await;
        sender.send_replace(1);
        sender.closed().await;
        assert_eq!(*order.lock(), (0..20).collect::<Vec<_>>());
    }
}
