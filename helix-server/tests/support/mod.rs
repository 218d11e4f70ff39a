//! What several test programs share.
#![allow(dead_code, reason = "each of them uses a part of it")]

#[path = "../../../helix-wal/tests/fuzz/allocations.rs"]
pub(crate) mod allocations;
pub(crate) mod node;
#[macro_use]
pub(crate) mod requests;
pub(crate) mod group_requests;
