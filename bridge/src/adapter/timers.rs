//! The core's timers: a heap of deadlines. Which of them are still wanted is the core's business (it
//! knows by the generation), so nothing is ever taken out before it is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use nix::time::{ClockId, clock_gettime};
use o2bridge_core::timer::Timer;
use o2bridge_core::{Event, Now};

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

/// All settings of timers that have not fired.
#[derive(Debug, Default)]
pub struct Timers {
    due: BinaryHeap<Reverse<(Now, u64, Timer)>>,
}

impl Timers {
    /// Takes an [`o2bridge_core::Action::Arm`].
    pub fn arm(&mut self, timer: Timer, generation: u64, at: Now) {
        self.due.push(Reverse((at, generation, timer)));
    }

    /// When the next one is due.
    #[must_use]
    pub fn next_at(&self) -> Option<Now> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next firing that is due.
    pub fn fire(&mut self, now: Now) -> Option<Event> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse((_, generation, timer)) = self.due.pop()?;
        Some(Event::Timer { timer, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use o2bridge_core::NodeId;

    #[test]
    fn they_fire_when_due_in_the_order_of_time() {
        let mut timers = Timers::default();
        timers.arm(Timer::Grace(NodeId(1)), 1, Now(30));
        timers.arm(Timer::Grace(NodeId(2)), 2, Now(10));
        timers.arm(Timer::Grace(NodeId(1)), 3, Now(20));
        assert_eq!(timers.next_at(), Some(Now(10)));
        assert_eq!(timers.fire(Now(9)), None);
        let fired: Vec<_> = std::iter::from_fn(|| timers.fire(Now(20))).collect();
        let timer =
            |node, generation| Event::Timer { timer: Timer::Grace(NodeId(node)), generation };
        assert_eq!(fired, [timer(2, 2), timer(1, 3)]);
        assert_eq!(timers.next_at(), Some(Now(30)), "the old setting fires too; the core drops it");
    }

    #[test]
    fn the_clock_goes_forward() {
        let before = now();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(now() >= before.after(20));
    }
}
