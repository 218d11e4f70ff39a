//! The clients of a simulation: producers, readers and whoever creates and deletes topics. Their requests enter where those of a
//! connection do once their frames are read.

pub(crate) mod admin;
pub(crate) mod call;
pub(crate) mod ledger;
pub(crate) mod message;
pub(crate) mod producer;
pub(crate) mod reader;
