//! How `scripts/fuzz` tells libFuzzer's process what to do.

use std::fs;
use std::path::Path;

use crate::target::Target;

/// The target named by `HELIX_FUZZ_TARGET`. Its seeds are written to `HELIX_FUZZ_SEEDS` first.
pub(crate) fn chosen(targets: &[Target]) -> Target {
    let name = std::env::var("HELIX_FUZZ_TARGET").unwrap_or_default();
    let target = *targets
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("HELIX_FUZZ_TARGET={name} is no target; use scripts/fuzz"));
    if let Some(directory) = std::env::var_os("HELIX_FUZZ_SEEDS") {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(Path::new(&directory).join(format!("seed-{number:03}")), seed).unwrap();
        }
    }
    target
}
