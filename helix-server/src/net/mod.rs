//! Sockets: what comes in is bounded and checked before anything is decoded.

mod complaints;
pub(crate) mod connection;
pub mod direct;
pub mod frame;
pub mod guard;
pub(crate) mod listener;
pub mod reader;
pub mod skeleton;
mod writer;
