//! The fuzz targets of the server as ordinary tests: see `docs/fuzzing.md`.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

#[path = "../../../helix-wal/tests/fuzz/replay.rs"]
mod replay;
#[macro_use]
#[path = "../support/mod.rs"]
mod support;
#[path = "../../../helix-wal/tests/fuzz/target.rs"]
mod target;
mod targets;

use std::path::Path;

use target::Target;

fn replay(target: &Target) {
    target.replay(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus")));
}

#[test]
fn client_frames() {
    replay(&targets::client_frames::TARGET);
}

#[test]
fn record_batches() {
    replay(&targets::record_batches::TARGET);
}

#[test]
fn peer_frames() {
    replay(&targets::peer_frames::TARGET);
}

#[test]
fn node_files() {
    replay(&targets::node_files::TARGET);
}
