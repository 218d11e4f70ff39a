//! What is logged about connections that misbehave: the first of each kind in a while, and how many were left out.

use tracing::warn;

use super::connection::ConnectionError;
use crate::ops::log_limit::LogLimit;

/// One limit for each thing that a client can do as often as it likes. Shared by all connections.
#[derive(Debug, Default)]
pub(crate) struct Complaints {
    framing: LogLimit,
    unserved: LogLimit,
    too_large: LogLimit,
    malformed: LogLimit,
    too_many: LogLimit,
    not_accepted: LogLimit,
}

impl Complaints {
    /// A connection was closed because of what the client sent.
    pub(super) fn closed(&self, peer: &str, error: &ConnectionError) {
        let limit = match error {
            ConnectionError::Socket(_) => return,
            ConnectionError::Frame(_) => &self.framing,
            ConnectionError::Unserved { .. } => &self.unserved,
            ConnectionError::TooLarge { .. } => &self.too_large,
            ConnectionError::Request { .. } => &self.malformed,
        };
        if let Some(suppressed) = limit.admit() {
            warn!(peer, %error, suppressed, "connection closed because of what the client sent");
        }
    }

    /// A connection was closed at once because as many as are allowed are open.
    pub(super) fn too_many(&self, peer: &std::net::SocketAddr, max_connections: usize) {
        if let Some(suppressed) = self.too_many.admit() {
            warn!(%peer, max_connections, suppressed, "connection refused: max.connections are open");
        }
    }

    /// The system did not hand over a connection.
    pub(super) fn not_accepted(&self, error: &std::io::Error) {
        if let Some(suppressed) = self.not_accepted.admit() {
            warn!(%error, suppressed, "a connection could not be accepted");
        }
    }
}
