//! How long the storage of a mounted volume may be lost.
//!
//! | state \ event | Good | Failing, Silent | not guarded | time over | time over, not watched |
//! |---|---|---|---|---|---|
//! | good | - | → bad, since its first question | - | - | - |
//! | bad  | → good | stays bad since then | → good | → lost, said | watched from now on |
//! | lost | → good | - | → good | said again after a pause | watched from now on |
//!
//! This process may have been stopped, with a question under way that the disk answered meanwhile: then the time is
//! over before anybody could hear the answer. So a loss is believed only when the storage stayed bad while it was
//! watched ([`WATCHED_MS`]); it is not watched where no word of it came for [`UNHEARD_MS`].

use o2bridge_core::Now;
use o2bridge_shim::volume::Health;

/// The pause before a loss is said again: the reset may have been ordered from something that hangs
/// too.
pub(super) const AGAIN_MS: u64 = 5_000;

/// How long it must have been watched while it is bad. Of a question that was answered the watch hears within half
/// of this.
pub(super) const WATCHED_MS: u64 = 2_000;

/// While a storage is bad there is a word of it every two or three seconds.
const UNHEARD_MS: u64 = 5_000;

/// The storage of one volume.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Storage {
    health: Option<Health>,
    bad: Option<Bad>,
    said_at: Option<Now>,
}

/// One without a good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bad {
    /// Since its first question.
    since: Now,
    watched_since: Now,
    noted_at: Now,
}

impl Bad {
    /// Takes note of the time. What went by without a word was not watched.
    fn watch(&mut self, now: Now) {
        if self.noted_at.after(UNHEARD_MS) < now {
            self.watched_since = now;
        }
        self.noted_at = now;
    }
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
                let first = Bad { since, watched_since: now, noted_at: now };
                let bad = self.bad.get_or_insert(first);
                bad.since = bad.since.min(since);
                bad.watch(now);
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
        let bad = self.bad?;
        let over_at = self.said_at.map_or(bad.since.after(loss_ms), |at| at.after(AGAIN_MS));
        Some(over_at.max(bad.watched_since.after(WATCHED_MS)))
    }

    /// Whether its loss has to be said now; it counts as said then.
    pub(super) fn take_loss(&mut self, loss_ms: u64, now: Now) -> bool {
        self.bad.iter_mut().for_each(|bad| bad.watch(now));
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

    /// Words of a storage that is bad since 9,000, from one moment to another.
    fn words(storage: &mut Storage, from: u64, to: u64) {
        for at in (from..=to).step_by(3_000) {
            storage.handle(Health::Silent { for_ms: at - 9_000 }, Now(at));
        }
    }

    fn lost() -> Storage {
        let mut storage = bad();
        words(&mut storage, 13_000, 28_000);
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

    /// Whatever runs first when this process goes on after a pause: its threads have yet to hear the answer.
    #[test]
    fn time_over_that_was_not_watched() {
        let mut storage = Storage::default();
        storage.handle(Health::Silent { for_ms: LOSS_MS + 1 }, Now(50_000));
        assert!(!storage.take_loss(LOSS_MS, Now(50_000)), "the first word that is bad");
        assert_eq!(storage.lost_at(LOSS_MS), Some(Now(52_000)));
        assert!(!storage.take_loss(LOSS_MS, Now(51_999)));
        storage.handle(Health::Silent { for_ms: LOSS_MS + 2_001 }, Now(52_000));
        assert!(storage.take_loss(LOSS_MS, Now(52_000)));

        let mut storage = bad();
        storage.handle(failing(61_000), Now(70_000));
        assert!(!storage.take_loss(LOSS_MS, Now(70_000)), "the first word after a pause");
        assert_eq!(storage.lost_at(LOSS_MS), Some(Now(72_000)));

        let mut storage = bad();
        assert!(!storage.take_loss(LOSS_MS, Now(70_000)), "no word since before it");
        storage.handle(Health::Good, Now(70_500));
        assert_eq!(storage.lost_at(LOSS_MS), None);

        let mut storage = lost();
        assert!(!storage.take_loss(LOSS_MS, Now(70_000)), "nor is it said again");
        assert_eq!(storage.lost_at(LOSS_MS), Some(Now(72_000)));
    }

    #[test]
    fn words_that_stay_out_delay_a_loss_and_no_more() {
        let mut storage = bad();
        assert!(!storage.take_loss(LOSS_MS, Now(29_000)));
        assert!(storage.take_loss(LOSS_MS, Now(31_000)));
    }

    #[test]
    fn longer_than_the_clock() {
        let mut storage = Storage::default();
        storage.handle(failing(u64::MAX), Now(5));
        assert_eq!(storage.lost_at(LOSS_MS), Some(Now(20_000)));
    }
}
