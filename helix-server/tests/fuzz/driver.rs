//! libFuzzer's way in: `scripts/fuzz` builds and runs it. See `docs/fuzzing.md`.
#![cfg(fuzzing)]
#![no_main]
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

#[path = "../../../helix-wal/tests/fuzz/libfuzzer.rs"]
mod libfuzzer;
#[macro_use]
#[path = "../support/mod.rs"]
mod support;
#[path = "../../../helix-wal/tests/fuzz/target.rs"]
mod target;
mod targets;

use std::sync::LazyLock;

static TARGET: LazyLock<target::Target> = LazyLock::new(|| {
    libfuzzer::chosen(&[
        targets::client_frames::TARGET,
        targets::record_batches::TARGET,
        targets::peer_frames::TARGET,
        targets::node_files::TARGET,
    ])
});

libfuzzer_sys::fuzz_target!(
    init: {
        LazyLock::force(&TARGET);
    },
    |input: &[u8]| (TARGET.run)(input)
);
