//! The clients of a simulation: producers, readers and whoever creates and deletes topics. Their requests enter where those of a
//! connection do once their frames are read.
//!
//! Where they sleep, simulated time passes: the pauses of a real client between two tries, and the time that something takes on its way.

pub(crate) mod admin;
pub(crate) mod call;
pub(crate) mod ledger;
pub(crate) mod member;
pub(crate) mod message;
pub(crate) mod offsets;
pub(crate) mod producer;
pub(crate) mod reader;
