//! The clock of the keeper and of its client: CLOCK_BOOTTIME in milliseconds.
//!
//! Not CLOCK_MONOTONIC, which stands still while the machine sleeps: every limit here is measured
//! against peers, whose time goes on. A node that slept longer than they wait for it has been
//! recovered by them; it must be reset when it wakes, not beat on as if nothing had been.

use nix::time::{ClockId, clock_gettime};

/// A point in time, in milliseconds since the node's boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// Time passed since `earlier`; 0 if that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The point `ms` milliseconds later.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// The time now. A clock that cannot be read stands at 0; Linux has had this one since 2.6.39.
#[must_use]
pub fn now() -> Millis {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or((0, 0), |t| (t.tv_sec(), t.tv_nsec()));
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Millis(part(time.0).saturating_mul(1000).saturating_add(part(time.1) / 1_000_000))
}
