//! One file per target.

pub(crate) mod batches;
pub(crate) mod client_frames;
pub(crate) mod node_files;
pub(crate) mod peer_frames;
pub(crate) mod record_batches;
