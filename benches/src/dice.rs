//! Choices that come out alike for the same seed (SplitMix64).

/// A sequence of numbers that a seed fixes.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least `from`, below `to`; `from` where there is nothing between them.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        let span = to.saturating_sub(from).max(1);
        from.saturating_add(self.roll() % span)
    }

    /// Yes so many times in a hundred.
    pub fn percent(&mut self, chance: u32) -> bool {
        self.within(0, 100) < u64::from(chance)
    }

    /// One of them; `None` of none.
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(all.len()).unwrap_or(u64::MAX);
        let place = usize::try_from(self.within(0, count)).unwrap_or_default();
        all.get(place)
    }

    /// 16 bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        ((u128::from(self.roll()) << 64) | u128::from(self.roll())).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_choices() {
        let choices = |seed| {
            let mut dice = Dice::new(seed);
            (0..8).map(|_| dice.within(3, 9)).collect::<Vec<_>>()
        };
        assert_eq!(choices(7), choices(7));
        assert_ne!(choices(7), choices(8));
        assert!(choices(7).iter().all(|choice| (3..9).contains(choice)));
        assert_eq!(Dice::new(1).pick::<u8>(&[]), None);
        assert_eq!(Dice::new(1).within(5, 5), 5);
    }
}
