//! Bugs that are planted on purpose, to see whether the tests catch them. In production, and in every other build without
//! `--cfg helix_planted`, there are none.

/// Whether this bug was chosen, with the environment variable `HELIX_PLANTED`.
#[cfg(helix_planted)]
pub(crate) fn planted(bug: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("HELIX_PLANTED").ok()).as_deref() == Some(bug)
}

/// Never.
#[cfg(not(helix_planted))]
#[inline(always)]
pub(crate) const fn planted(_bug: &str) -> bool {
    false
}
