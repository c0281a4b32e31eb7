//! Numbers that a seed brings back (splitmix64).

/// A source of such numbers.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of the numbers from nought up to `limit`, without it; nought, if there is none.
    pub fn below(&mut self, limit: usize) -> usize {
        self.roll().checked_rem(limit as u64).unwrap_or_default() as usize
    }

    /// True once in so many times.
    pub fn one_in(&mut self, chances: u64) -> bool {
        self.roll().is_multiple_of(chances)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_brings_them_back_and_they_spread() {
        let (mut one, mut same, mut other) = (Dice::new(1), Dice::new(1), Dice::new(2));
        let rolled = |dice: &mut Dice| -> Vec<usize> { (0..100).map(|_| dice.below(10)).collect() };
        let first = rolled(&mut one);
        assert_eq!(first, rolled(&mut same));
        assert_ne!(first, rolled(&mut other));
        assert!((0..10).all(|number| first.contains(&number)));
        assert_eq!(one.below(0), 0);
    }
}
