//! Times of day in the logs of guests, whose clocks are the host's to some milliseconds.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::Result;
use crate::guest::Guest;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A time of day, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment(Duration);

impl Moment {
    pub(super) fn of(instant: Instant) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::in_day(now.saturating_sub(instant.elapsed()))
    }

    pub(super) fn in_day(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs() % DAY.as_secs();
        Self(Duration::new(seconds, since_epoch.subsec_nanos()))
    }

    /// Of a line of o2bridged (`Nov 21 09:45:12.917 ...`) or of [`watch_kernel`] (seconds since 1970).
    fn of_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        if let Ok(seconds) = line.split(' ').next()?.parse::<f64>() {
            return Duration::try_from_secs_f64(seconds).ok().map(Self::in_day);
        }
        let mut clock = words.nth(2)?.splitn(3, ':');
        let hours: u32 = clock.next()?.parse().ok()?;
        let minutes: u32 = clock.next()?.parse().ok()?;
        let seconds: f64 = clock.next()?.parse().ok()?;
        let seconds = f64::from(hours * 3600 + minutes * 60) + seconds;
        Duration::try_from_secs_f64(seconds).ok().map(Self)
    }

    /// How long after an earlier one, within half a day; nothing if it is not later.
    pub(super) fn since(self, earlier: Self) -> Option<Duration> {
        let difference = (self.0 + DAY).checked_sub(earlier.0)?;
        let difference = difference.checked_sub(DAY).unwrap_or(difference);
        (difference < DAY / 2).then_some(difference)
    }
}

/// When a log says for the first time a line with all these words.
pub(super) fn said(log: &str, words: &[&str]) -> Option<Moment> {
    let line = log.lines().find(|line| words.iter().all(|word| line.contains(word)))?;
    Moment::of_line(line)
}

/// Has a guest write down what its kernel says from now on, with times that can be compared; to
/// `kernel.log`. The kernel's own times may run at another speed in emulation.
pub(super) fn watch_kernel(guest: &Guest) -> Result<()> {
    guest.daemon(
        "kernel",
        "bash -c 'stdbuf -oL dmesg -W | while read -r line; do echo \"$EPOCHREALTIME $line\"; done'",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_logs_can_be_compared() {
        let ours = said("x\nNov  1 00:00:01.250 INFO here it is", &["here", "is"]);
        let kernels = said("1793491201.500000 [ 1.2] and here", &["and", "here"]);
        assert_eq!(ours, Some(Moment(Duration::from_millis(1250))));
        let (ours, kernels) = (ours.unwrap(), kernels.unwrap());
        assert_eq!(kernels.since(ours), Some(Duration::from_millis(250)));
        assert_eq!(ours.since(kernels), None, "the other way round");
    }

    #[test]
    fn midnight_is_between() {
        let before = said("Nov  1 23:59:59.500 INFO x", &["x"]).unwrap();
        let after = said("Nov  2 00:00:00.500 INFO x", &["x"]).unwrap();
        assert_eq!(after.since(before), Some(Duration::from_secs(1)));
        assert_eq!(before.since(after), None);
    }
}
