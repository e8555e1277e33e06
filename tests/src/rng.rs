//! A small deterministic generator of jitter: the same seed gives the same job on every machine and in every version.

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, good enough to spread durations.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts a sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `low..=high`; `low` where the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        match high.checked_sub(low) {
            Some(width) if width < u64::MAX => low + self.bits() % (width + 1),
            _ => low,
        }
    }

    /// `mean` give or take `percent` of it.
    pub fn around(&mut self, mean: u64, percent: u64) -> u64 {
        let spread = mean * percent / 100;
        self.between(mean - spread.min(mean), mean + spread)
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn the_sequence_is_pinned_because_fixtures_depend_on_it() {
        let mut rng = Rng::new(1);
        assert_eq!([rng.bits(), rng.bits()], [0x910a_2dec_8902_5cc1, 0xbeeb_8da1_658e_ec67]);
    }

    #[test]
    fn numbers_stay_in_their_range() {
        let mut rng = Rng::new(7);
        for _ in 0..1000 {
            assert!((3..=9).contains(&rng.between(3, 9)));
            assert!((90..=110).contains(&rng.around(100, 10)));
        }
        assert_eq!(rng.between(5, 4), 5);
    }
}
