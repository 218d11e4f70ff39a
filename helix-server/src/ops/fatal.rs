//! The way out when the node must not go on: whoever finds out reports it, the node says why and stops.

use tracing::error;

use crate::env::watch;

/// Reports errors after which the node stops.
#[derive(Debug, Clone)]
pub struct Fatal {
    reason: std::sync::Arc<watch::Sender<Option<String>>>,
}

impl Fatal {
    /// Nothing reported yet.
    pub fn new() -> Self {
        Self { reason: std::sync::Arc::new(watch::Sender::new(None)) }
    }

    /// Reports an error. The first one wins; the node is about to stop because of it.
    pub fn report(&self, reason: String) {
        error!(reason, "the node cannot go on");
        self.reason.send_if_modified(|first| {
            let news = first.is_none();
            first.get_or_insert(reason);
            news
        });
    }

    /// What was reported, if anything.
    pub fn reason(&self) -> Option<String> {
        self.reason.get()
    }

    /// Waits until something is reported.
    pub async fn reported(&self) -> String {
        let mut watching = self.reason.subscribe();
        match watching.wait_for(Option::is_some).await {
            Ok(reason) => reason.unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Default for Fatal {
    fn default() -> Self {
        Self::new()
    }
}
