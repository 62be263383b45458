//! Random numbers that come again with their seed.

/// A generator of numbers (SplitMix64), fit for choosing what to break and for nothing else.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The numbers of the `number`th case of a seed.
    pub fn of_case(seed: u64, number: u64) -> Self {
        let mut dice = Self::new(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        dice.draw();
        dice
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        self.draw().checked_rem(end).unwrap_or(0)
    }

    /// Whether something happens that happens so many times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_come_again_and_differ() {
        let first = |seed, number| Dice::of_case(seed, number).draw();
        assert_eq!(first(1, 7), first(1, 7));
        let all: std::collections::BTreeSet<_> = (0..100).flat_map(|n| [first(1, n), first(2, n)]).collect();
        assert_eq!(all.len(), 200);
        assert_eq!(Dice::new(3).below(0), 0);
        assert!((0..100).all(|n| Dice::of_case(4, n).below(10) < 10));
    }
}
