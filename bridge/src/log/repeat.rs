//! Complaints that would be made again and again: a disk that is full, a fence device that is down.
//! The first is worth a line, then one after a minute, then one an hour.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use o2bridge_core::Now;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
/// What was not heard of for so long is news when it comes again.
const FORGET_MS: u64 = 10 * MINUTE_MS;
/// Different complaints that are remembered. Above it, all are news again.
const KEYS_MAX: usize = 1_024;

/// What was complained of lately; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Repeats(Arc<Mutex<BTreeMap<String, Complaint>>>);

#[derive(Debug)]
struct Complaint {
    last: Now,
    next_line: Now,
    pause_ms: u64,
    unsaid: u64,
}

impl Repeats {
    /// Whether a complaint is worth a line now; if so, how many like it were left out since the last
    /// line. Two complaints are alike if they have the same key.
    pub fn ask(&self, now: Now, key: &str) -> Option<u64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let heard_lately = |complaint: &&mut Complaint| now < complaint.last.after(FORGET_MS);
        if let Some(complaint) = known.get_mut(key).filter(heard_lately) {
            return complaint.again(now);
        }
        if known.len() >= KEYS_MAX {
            known.clear();
        }
        let next_line = now.after(MINUTE_MS);
        known.insert(key.into(), Complaint { last: now, next_line, pause_ms: HOUR_MS, unsaid: 0 });
        Some(0)
    }
}

impl Complaint {
    fn again(&mut self, now: Now) -> Option<u64> {
        self.last = now;
        if now < self.next_line {
            self.unsaid += 1;
            return None;
        }
        self.next_line = now.after(self.pause_ms);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_then_a_minute_then_hours() {
        let repeats = Repeats::default();
        let lines: Vec<(u64, u64)> = (0..=3 * HOUR_MS / 1_000)
            .filter_map(|s| repeats.ask(Now(s * 1_000), "disk full").map(|unsaid| (s, unsaid)))
            .collect();
        assert_eq!(lines, [(0, 0), (60, 59), (3_660, 3_599), (7_260, 3_599)]);
        assert_eq!(repeats.ask(Now(3 * HOUR_MS), "another"), Some(0));
    }

    #[test]
    fn what_was_long_not_heard_of_is_news() {
        let repeats = Repeats::default();
        assert_eq!(repeats.ask(Now(0), "x"), Some(0));
        assert_eq!(repeats.ask(Now(1), "x"), None);
        assert_eq!(repeats.ask(Now(1 + FORGET_MS), "x"), Some(0));
    }

    #[test]
    fn memory_is_bounded() {
        let repeats = Repeats::default();
        for key in 0..10 * KEYS_MAX {
            assert_eq!(repeats.ask(Now(0), &key.to_string()), Some(0));
        }
        assert!(repeats.0.lock().unwrap().len() <= KEYS_MAX);
    }
}
