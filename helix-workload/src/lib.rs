//! Load, faults and checks for Kafka-compatible clusters.
//!
//! The way through the crate, in the order in which a benchmark uses it:
//!
//! * [`profile`] says how much load, [`message`] what is in it;
//! * [`engine`] runs the producers (one thread each, [`producer`]) and notes every acknowledgement in a [`history`];
//! * [`verify`] reads everything back ([`reader`]) and holds it against the history by the rules of [`check`];
//! * [`floor`] measures the least that the same work can cost on this machine, in the same run;
//! * [`mod@bench`] puts these together and [`report`] prints the outcome;
//! * [`flood`] measures the brokers alone, with prebuilt requests over plain connections;
//! * `groups` has members of consumer groups that speak for themselves, a few of them or thousands;
//! * [`compare`] measures a table of workloads on Helix and on Apache Kafka in turn, and makes a page of it;
//! * [`differential`] sends both the same requests and compares the answers field by field.
//!
//! [`cluster`] starts, kills and restarts real `helix-server` processes for the tests under `tests/` and for [`chaos`], which
//! makes them suffer while [`two_loads`] run.
//! `message`, `history` and `check` are pure: no IO, no clock.

pub mod bench;
pub mod chaos;
pub mod check;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod differential;
pub mod engine;
pub mod flood;
pub mod floor;
mod groups;
pub mod history;
pub mod kafka;
pub mod message;
pub mod metrics;
pub mod preload;
pub mod process;
pub mod producer;
pub mod profile;
pub mod progress;
pub mod reader;
pub mod report;
pub mod server_binary;
pub mod two_loads;
pub mod verify;
pub mod wait;
mod wire;
