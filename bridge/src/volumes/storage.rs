//! How long the storage of a mounted volume may be lost.
//!
//! | state \ event | Good | Failing, Silent | not guarded | time over |
//! |---|---|---|---|---|
//! | good | - | → bad, since its first question | - | - |
//! | bad  | → good | stays bad since then | → good | → lost, said |
//! | lost | → good | - | → good | said again after a pause |

use o2bridge_core::Now;
use o2bridge_shim::volume::Health;

/// The pause before a loss is said again: the reset may have been ordered from something that hangs
/// too.
pub(super) const AGAIN_MS: u64 = 5_000;

/// The storage of one volume.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage {
    health: Option<Health>,
    bad_since: Option<Now>,
    said_at: Option<Now>,
}

impl Storage {
    pub(super) fn handle(&mut self, health: Health, now: Now) {
        let bad_ms = match health {
            Health::Good => None,
            Health::Failing { for_ms, .. } | Health::Silent { for_ms } => Some(for_ms),
        };
        match bad_ms {
            None => *self = Self::default(),
            Some(for_ms) => {
                let since = Now(now.0.saturating_sub(for_ms));
                self.bad_since = Some(self.bad_since.map_or(since, |before| before.min(since)));
            }
        }
        self.health = Some(health);
    }

    /// What was heard of it.
    pub(super) fn health(&self) -> Option<Health> {
        self.health
    }

    /// When its loss has to be said.
    pub(super) fn lost_at(&self, loss_ms: u64) -> Option<Now> {
        let lost_at = self.bad_since?.after(loss_ms);
        Some(self.said_at.map_or(lost_at, |at| at.after(AGAIN_MS)))
    }

    /// Whether its loss has to be said now; it counts as said then.
    pub(super) fn take_loss(&mut self, loss_ms: u64, now: Now) -> bool {
        let is_due = self.lost_at(loss_ms).is_some_and(|at| at <= now);
        if is_due {
            self.said_at = Some(now);
        }
        is_due
    }

    /// Whether the loss was said before.
    pub(super) fn was_said(&self) -> bool {
        self.said_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOSS_MS: u64 = 20_000;

    fn failing(for_ms: u64) -> Health {
        Health::Failing { errno: 5, for_ms }
    }

    fn bad() -> Storage {
        let mut storage = Storage::default();
        storage.handle(failing(1_000), Now(10_000));
        storage
    }

    fn lost() -> Storage {
        let mut storage = bad();
        assert!(!storage.take_loss(LOSS_MS, Now(28_999)));
        assert!(storage.take_loss(LOSS_MS, Now(29_000)));
        storage
    }

    #[test]
    fn good() {
        let mut storage = Storage::default();
        assert_eq!(storage.health(), None);
        storage.handle(Health::Good, Now(5));
        assert_eq!(storage.health(), Some(Health::Good));
        assert_eq!(storage.lost_at(LOSS_MS), None);
        assert!(!storage.take_loss(LOSS_MS, Now(u64::MAX)));
    }

    #[test]
    fn bad_since_its_first_question() {
        let mut storage = bad();
        assert_eq!(storage.lost_at(LOSS_MS), Some(Now(29_000)));
        storage.handle(Health::Silent { for_ms: 3_000 }, Now(12_000));
        assert_eq!(storage.lost_at(LOSS_MS), Some(Now(29_000)));
        storage.handle(failing(10), Now(13_000));
        assert_eq!(storage.lost_at(LOSS_MS), Some(Now(29_000)), "a stretch does not begin anew");
        storage.handle(Health::Good, Now(14_000));
        assert_eq!(storage.lost_at(LOSS_MS), None);
    }

    #[test]
    fn lost_is_said_again_after_a_pause() {
        let mut storage = lost();
        assert!(storage.was_said());
        assert!(!storage.take_loss(LOSS_MS, Now(33_999)));
        storage.handle(failing(30_000), Now(33_999));
        assert!(storage.take_loss(LOSS_MS, Now(34_000)));
        storage.handle(Health::Good, Now(35_000));
        assert!(!storage.was_said());
        assert!(!storage.take_loss(LOSS_MS, Now(u64::MAX)));
    }

    #[test]
    fn longer_than_the_clock() {
        let mut storage = Storage::default();
        storage.handle(failing(u64::MAX), Now(5));
        assert!(storage.take_loss(LOSS_MS, Now(20_000)));
    }
}
