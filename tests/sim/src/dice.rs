//! Chance under a seed (SplitMix64).

/// A reproducible source of choices.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
    still: bool,
}

impl Dice {
    /// A source of its own for each pair of seed and purpose, so that what one part of the world
    /// draws does not shift what another one gets.
    #[must_use]
    pub fn new(seed: u64, purpose: u64) -> Self {
        let state = seed ^ purpose.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let mut dice = Self { state, still: false };
        dice.next();
        dice
    }

    /// No chance at all: nothing that happens once in n times, the first of several, the least time.
    #[must_use]
    pub const fn still() -> Self {
        Self { state: 0, still: true }
    }

    /// Whether nothing is left to chance.
    #[must_use]
    pub const fn is_still(&self) -> bool {
        self.still
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// One of `0..n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if self.still { 0 } else { self.next().checked_rem(n).unwrap_or(0) }
    }

    /// One of `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True once in `n` times; never if `n` is 0.
    pub fn one_in(&mut self, n: u64) -> bool {
        n != 0 && !self.still && self.below(n) == 0
    }

    /// An element; `None` of nothing.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let index = usize::try_from(self.below(of.len() as u64)).ok()?;
        of.get(index)
    }

    /// Mostly short, sometimes long: the shape of what a busy machine does. At most `max`.
    pub fn skewed(&mut self, max: u64) -> u64 {
        let bits = self.below(8);
        self.below((max >> bits).max(1))
    }
}
