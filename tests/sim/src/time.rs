//! Simulated time.

use o2bridge_core::Now;

/// Microseconds since the world began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// Milliseconds as a point in time.
    #[must_use]
    pub const fn of_ms(ms: u64) -> Self {
        Self(ms * 1_000)
    }

    /// That much later.
    #[must_use]
    pub const fn plus_us(self, us: u64) -> Self {
        Self(self.0 + us)
    }

    /// That much later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        self.plus_us(ms * 1_000)
    }

    /// That much earlier; not before 0.
    #[must_use]
    pub const fn minus_us(self, us: u64) -> Self {
        Self(self.0.saturating_sub(us))
    }

    /// Time passed since `earlier`; 0 if that is later.
    #[must_use]
    pub const fn us_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Time passed since `earlier`, in milliseconds; 0 if that is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.us_since(earlier) / 1_000
    }

    /// What is left of the time since `now`, in whole milliseconds.
    #[must_use]
    pub const fn ms_until(self, now: Self) -> u64 {
        (self.0.saturating_sub(now.0) + 500) / 1_000
    }

    /// What the core's clock shows.
    #[must_use]
    pub const fn now(self) -> Now {
        Now(self.0 / 1_000)
    }
}

impl std::fmt::Display for Micros {
    /// Milliseconds, as in a schedule.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}
