//! What every fuzz target is: a function that must take any bytes, and examples to begin with.

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Panics if something is wrong.
    pub(crate) run: fn(&[u8]),
    /// Meaningful inputs: what the fuzzer starts from.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}
