//! libFuzzer's way in: `scripts/fuzz` builds and runs it. See `docs/fuzzing.md`.
#![cfg(fuzzing)]
#![no_main]
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod allocations;
mod checksums;
mod harness;
mod recovery;

use std::sync::LazyLock;

static TARGET: LazyLock<harness::Target> = LazyLock::new(|| harness::chosen(&[recovery::TARGET]));

libfuzzer_sys::fuzz_target!(
    init: {
        LazyLock::force(&TARGET);
    },
    |input: &[u8]| (TARGET.run)(input)
);
