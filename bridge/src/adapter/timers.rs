//! The core's timers. Which of them are still wanted is the core's business (it knows by the
//! generation), so one that is no longer wanted is fired all the same.

use std::collections::{BTreeMap, BTreeSet};

use nix::time::{ClockId, clock_gettime};
use o2bridge_core::timer::Timer;
use o2bridge_core::{Event, NodeId, Now};

/// The time on the core's clock, `CLOCK_BOOTTIME`.
#[must_use]
pub fn now() -> Now {
    // The clock exists on every kernel since 2.6.39, and reading it has no other error.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap_or_else(|_| std::process::abort());
    let ms = time.tv_sec().saturating_mul(1_000).saturating_add(time.tv_nsec() / 1_000_000);
    Now(u64::try_from(ms).unwrap_or(0))
}

/// The same clock in microseconds, for measurements.
#[must_use]
pub fn boot_us() -> u64 {
    let us = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map(|time| time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_nsec() / 1_000));
    us.ok().and_then(|us| u64::try_from(us).ok()).unwrap_or(0)
}

/// All timers that are set, by what they are and by when they are due. A timer that is set again is
/// only due at its new time, so this grows with the number of timers, not of settings.
#[derive(Debug, Default)]
pub struct Timers {
    set: BTreeMap<Timer, (Now, u64)>,
    due: BTreeSet<(Now, u64, Timer)>,
}

impl Timers {
    /// Takes an [`o2bridge_core::Action::Arm`].
    pub fn arm(&mut self, timer: Timer, generation: u64, at: Now) {
        if let Some((at, generation)) = self.set.insert(timer.clone(), (at, generation)) {
            self.due.remove(&(at, generation, timer.clone()));
        }
        self.due.insert((at, generation, timer));
    }

    /// When the next one is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Now> {
        self.due.first().map(|(at, ..)| *at)
    }

    /// Whether a silence is being measured; one that is over may still count for a while.
    #[must_use]
    pub fn measures_silence(&self) -> bool {
        let has = |of: fn(NodeId) -> Timer| {
            self.set.range(of(NodeId(0))..=of(NodeId(u32::MAX))).next().is_some()
        };
        has(Timer::Grace) || has(Timer::Turn)
    }

    /// Takes the next firing that is due.
    pub fn fire(&mut self, now: Now) -> Option<Event> {
        if self.next_at()? > now {
            return None;
        }
        let (_, generation, timer) = self.due.pop_first()?;
        self.set.remove(&timer);
        Some(Event::Timer { timer, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_fire_when_due_in_the_order_of_time() {
        let mut timers = Timers::default();
        timers.arm(Timer::Grace(NodeId(1)), 1, Now(30));
        timers.arm(Timer::Grace(NodeId(2)), 2, Now(10));
        timers.arm(Timer::Fence(NodeId(1)), 3, Now(20));
        assert!(timers.measures_silence());
        timers.arm(Timer::Grace(NodeId(3)), 4, Now(40));
        assert_eq!(timers.next_at(), Some(Now(10)));
        assert_eq!(timers.fire(Now(9)), None);
        let fired: Vec<_> = std::iter::from_fn(|| timers.fire(Now(30))).collect();
        let event = |timer, generation| Event::Timer { timer, generation };
        assert_eq!(
            fired,
            [
                event(Timer::Grace(NodeId(2)), 2),
                event(Timer::Fence(NodeId(1)), 3),
                event(Timer::Grace(NodeId(1)), 1)
            ]
        );
        assert_eq!(timers.next_at(), Some(Now(40)));
        assert!(timers.fire(Now(40)).is_some() && !timers.measures_silence());
        timers.arm(Timer::Turn(NodeId(1)), 7, Now(45));
        assert!(timers.measures_silence() && timers.fire(Now(45)).is_some());
        timers.arm(Timer::Fence(NodeId(1)), 5, Now(50));
        timers.arm(Timer::Outvoted, 6, Now(50));
        assert!(!timers.measures_silence());
    }

    #[test]
    fn a_timer_that_is_set_again_fires_once_at_its_new_time() {
        let mut timers = Timers::default();
        for generation in 1..1_000 {
            timers.arm(Timer::Grace(NodeId(1)), generation, Now(10));
        }
        timers.arm(Timer::Grace(NodeId(1)), 1_000, Now(50));
        assert_eq!(timers.fire(Now(49)), None);
        let timer = Timer::Grace(NodeId(1));
        assert_eq!(timers.fire(Now(50)), Some(Event::Timer { timer, generation: 1_000 }));
        assert_eq!((timers.fire(Now(99)), timers.next_at()), (None, None));
        assert!(timers.set.is_empty() && timers.due.is_empty());
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = now();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(now() >= before.after(20));
    }
}
