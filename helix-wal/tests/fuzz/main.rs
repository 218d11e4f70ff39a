//! The fuzz targets of the log as ordinary tests: see `docs/fuzzing.md`.
#![allow(clippy::unwrap_used)] // The helpers of tests are tests too.

mod allocations;
mod checksums;
mod recovery;
mod replay;
mod target;

#[test]
fn recovery() {
    recovery::TARGET.replay(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus")));
}
