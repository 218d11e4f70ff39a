//! What operators see and do: metrics, health, and the way out when the node must stop.

pub mod fatal;
pub mod http;
pub(crate) mod log_limit;
pub mod metrics;
pub mod recovery;
