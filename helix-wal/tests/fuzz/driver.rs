//! libFuzzer's way in: `scripts/fuzz` builds and runs it. See `docs/fuzzing.md`.
#![cfg(fuzzing)]
#![no_main]
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod allocations;
mod checksums;
mod libfuzzer;
mod recovery;
mod target;

use std::sync::LazyLock;

static TARGET: LazyLock<target::Target> = LazyLock::new(|| libfuzzer::chosen(&[recovery::TARGET]));

libfuzzer_sys::fuzz_target!(
    init: {
        LazyLock::force(&TARGET);
    },
    |input: &[u8]| (TARGET.run)(input)
);
