//! Accepts client connections, as many as are allowed.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{error, warn};

use super::connection;
use crate::broker::Broker;

/// Pause after accepting failed, for instance because all file descriptors are in use.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts until `stop` says so; then ends the connections that are left.
pub(crate) async fn run(listener: TcpListener, broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let mut connections: JoinSet<()> = JoinSet::new();
    let max_connections = broker.config().max_connections;
    loop {
        tokio::select! {
            () = async { drop(stop.wait_for(|stop| *stop).await) } => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    broker.metrics().panic_caught();
                    error!(%error, "a connection ended by a panic, which is a bug; other connections go on");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    if connections.len() >= max_connections {
                        broker.metrics().connection_rejected();
                        warn!(%peer, max_connections, "connection refused: max.connections are open");
                        continue;
                    }
                    let broker = Arc::clone(&broker);
                    connections.spawn(async move {
                        let _open = broker.metrics().connection_opened();
                        connection::serve(socket, Arc::clone(&broker)).await;
                    });
                }
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
    connections.shutdown().await;
}
