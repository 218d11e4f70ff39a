//! What every fuzz target is: a function that must take any bytes, and examples to begin with.
//!
//! libFuzzer runs a target for as long as it is told to (`scripts/fuzz`). Ordinary tests run it over the same examples, over
//! the inputs kept in `corpus`, and over damaged copies of both, the same ones each time.

use std::fs;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// Damaged copies that [`Target::replay`] makes of each input.
#[cfg(not(fuzzing))]
const DAMAGED_COPIES: usize = 30;

/// One thing that is fuzzed.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Panics if something is wrong.
    pub(crate) run: fn(&[u8]),
    /// Meaningful inputs: what the fuzzer starts from.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

#[cfg(not(fuzzing))]
impl Target {
    /// Runs everything that is known to be interesting. `corpus` holds a directory for each target.
    pub(crate) fn replay(&self, corpus: &Path) {
        let mut random = SmallRng::seed_from_u64(1);
        for (number, seed) in (self.seeds)().into_iter().enumerate() {
            self.replay_one(&format!("seed {number}"), seed, &mut random);
        }
        let directory = corpus.join(self.name);
        let mut files: Vec<_> = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", directory.display());
        for file in files {
            self.replay_one(&file.display().to_string(), fs::read(&file).unwrap(), &mut random);
        }
    }

    fn replay_one(&self, name: &str, mut input: Vec<u8>, random: &mut SmallRng) {
        // Shown only if the test fails.
        println!("{name}");
        (self.run)(&input);
        for copy in 1..=DAMAGED_COPIES {
            damage(&mut input, random);
            println!("{name}, damaged {copy} time(s)");
            (self.run)(&input);
        }
    }
}

#[cfg(not(fuzzing))]
fn damage(input: &mut Vec<u8>, random: &mut SmallRng) {
    if input.is_empty() {
        return;
    }
    let at = random.random_range(0..input.len());
    match random.random_range(0..8) {
        0 => input.truncate(at),
        1 => input.insert(at, *[0, 1, 0x7f, 0x80, 0xff].choose(random).unwrap()),
        2 => drop(input.remove(at)),
        3..6 => input[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(random).unwrap(),
        _ => input[at] ^= 1 << random.random_range(0..8),
    }
}

/// For libFuzzer: the target named by `HELIX_FUZZ_TARGET`. Its seeds are written to `HELIX_FUZZ_SEEDS` first.
#[cfg(fuzzing)]
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
