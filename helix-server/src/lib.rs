//! The Helix broker: Kafka's wire protocol in front of a multi-Raft log.
//!
//! The two flows, by file:
//!
//! * produce: `net::connection` -> `api::produce` -> `broker::batch` -> `shard::owner` -> `partition::append` -> `shard::drive`
//!   (WAL and peers) -> `partition::apply` -> answer.
//! * fetch: `net::connection` -> `api::fetch` -> `broker::fetch` -> `partition::view` (memory tail, else WAL) -> answer.
//!
//! Imports go one way: `api` -> `broker` -> `partition` -> (`helix_raft`, `helix_wal`). Nothing below `api` knows Kafka's
//! requests, nothing above `partition` knows segments.

pub mod api;
pub mod broker;
pub mod cli;
mod cluster;
pub mod config;
pub mod controller;
mod coordinator;
pub mod durable;
pub mod entry;
pub mod env;
pub mod founding;
pub mod ids;
pub mod net;
pub mod node;
pub mod ops;
pub mod partition;
pub mod peers;
mod repair;
pub mod shard;
pub mod versioned;
