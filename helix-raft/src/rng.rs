//! A small seeded generator (SplitMix64): the only source of chance in this crate.

/// One step of SplitMix64's output function: spreads the bits of `value`.
pub(crate) const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        let value = mix(self.0);
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        value
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high - low) + 1;
        low + u32::try_from(self.next() % span).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published test vector of SplitMix64 for the seed 0.
    #[test]
    fn it_is_splitmix64() {
        let mut rng = Rng::new(0);
        let expected = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        assert_eq!(expected.map(|_| rng.next()), expected);
    }

    #[test]
    fn every_number_of_a_range_comes_up_and_no_other() {
        let mut rng = Rng::new(1);
        let mut seen = [0; 3];
        for _ in 0..100 {
            seen[rng.between(10, 12) as usize - 10] += 1;
        }
        assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
        assert_eq!(rng.between(7, 7), 7);
    }
}
