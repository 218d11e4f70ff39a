//! Accepts client connections, as many as are allowed.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tracing::{error, warn};

use super::complaints::Complaints;
use super::connection;
use crate::broker::Broker;
use crate::env::watch;
use crate::ops::metrics::Metrics;

/// Pause after accepting failed, for instance because all file descriptors are in use.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A stopping node gives its connections this long to answer what they have read.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Accepts until `stop` says so; then lets the connections answer what they have read, and ends those that take too long.
pub(crate) async fn run(listener: TcpListener, broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let mut connections: JoinSet<()> = JoinSet::new();
    let complaints = Arc::new(Complaints::default());
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(ended) = connections.join_next() => note_panic(ended, broker.metrics()),
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let max_connections = broker.config().max_connections;
                    if connections.len() >= max_connections {
                        broker.metrics().connection_rejected();
                        complaints.too_many(&peer, max_connections);
                        continue;
                    }
                    let (broker, complaints) = (Arc::clone(&broker), Arc::clone(&complaints));
                    let stop = stop.clone();
                    connections.spawn(async move {
                        let _open = broker.metrics().connection_opened();
                        connection::serve(socket, Arc::clone(&broker), &complaints, stop).await;
                    });
                }
                Err(error) => {
                    complaints.not_accepted(&error);
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
    drop(listener);
    drain(connections, broker.metrics()).await;
}

/// The connections have been told to stop by the same signal.
async fn drain(mut connections: JoinSet<()>, metrics: &Metrics) {
    let all = async {
        while let Some(ended) = connections.join_next().await {
            note_panic(ended, metrics);
        }
    };
    if tokio::time::timeout(DRAIN_LIMIT, all).await.is_err() {
        warn!(
            left = connections.len(),
            "connections are closed although not all their answers have been sent"
        );
    }
    connections.shutdown().await;
}

fn note_panic(ended: Result<(), JoinError>, metrics: &Metrics) {
    if let Err(error) = ended
        && error.is_panic()
    {
        metrics.panic_caught();
        error!(%error, "a connection ended by a panic, which is a bug; other connections go on");
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_that_answer_are_waited_for_and_others_are_not() {
        let answered = Arc::new(AtomicU32::new(0));
        let mut connections = JoinSet::new();
        for _ in 0..3 {
            let answered = Arc::clone(&answered);
            connections.spawn(async move {
                sleep(DRAIN_LIMIT / 2).await;
                answered.fetch_add(1, Ordering::Relaxed);
            });
        }
        connections.spawn(pending());
        let (begun, metrics) = (Instant::now(), Metrics::new([]));
        drain(connections, &metrics).await;
        assert_eq!(answered.load(Ordering::Relaxed), 3);
        assert_eq!(begun.elapsed(), DRAIN_LIMIT, "the clock of the test stands still");
    }
}
