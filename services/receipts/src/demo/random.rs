//! A seeded generator of random numbers: the same seed gives the same chat on every machine. Must
//! not make secrets.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, fast, and random enough for a chat.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number of at least 0 and below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number of at least 0 and below `end`, which must be above 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "an empty range holds nothing");
        // The high half of the product has a bias of one in 2^64/end, which no chat shows.
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Returns one of the items.
    pub(crate) fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Returns the items in random order.
    pub(crate) fn shuffled<T>(&mut self, mut items: Vec<T>) -> Vec<T> {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
        items
    }

    /// Returns a reader's delay in milliseconds: half of all are within two minutes, with a long
    /// tail (log-logistic).
    pub(crate) fn reading_delay_ms(&mut self) -> u64 {
        const MEDIAN_MS: f64 = 120_000.0;
        const SHAPE: f64 = 1.2;
        let unit = self.unit();
        (MEDIAN_MS * (unit / (1.0 - unit)).powf(1.0 / SHAPE)) as u64 + 800
    }

    /// Returns the size of a group, from `least` to `most`, by a power law.
    pub(crate) fn group_size(&mut self, least: u64, most: u64) -> u64 {
        let size = least as f64 / (1.0 - self.unit()).powf(0.8);
        (size as u64).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let run = |seed| {
            let mut random = Random::new(seed);
            (random.shuffled((0..50).collect::<Vec<u32>>()), random.reading_delay_ms(), random.group_size(3, 200))
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn random_values_follow_their_distributions() {
        let mut random = Random::new(1);
        let mut delays: Vec<u64> = (0..20_001).map(|_| random.reading_delay_ms()).collect();
        delays.sort_unstable();
        assert!((110_000..130_000).contains(&delays[10_000]), "{}", delays[10_000]);
        assert!((0..10_000).all(|_| (3..=200).contains(&random.group_size(3, 200)) && random.below(5) < 5));
        let mut shuffled = random.shuffled((0..1_000).collect::<Vec<u32>>());
        shuffled.sort_unstable();
        assert_eq!(shuffled, (0..1_000).collect::<Vec<u32>>());
    }
}
