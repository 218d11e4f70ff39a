//! Fuzz targets as ordinary tests: over their seeds, over the inputs kept in `corpus`, and over damaged copies of both, the
//! same ones each time.

use std::fs;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::target::Target;

/// Damaged copies made of each input.
const DAMAGED_COPIES: usize = 10;

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
