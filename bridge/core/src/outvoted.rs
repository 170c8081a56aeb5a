//! A node that uses volumes and is not in a quorate ring. It tells its kernel nothing, and its kernel
//! goes on: writes while it can, and would settle a lost network its own way, which is not always
//! corosync's. The others may be waiting for it to end. So after a while it resets itself.
//!
//! | clock \ event | in force, or nothing attached | not in force, something attached | overdue |
//! |---|---|---|---|
//! | stopped | - | → running | - |
//! | running | → stopped | goes on | reset; → running |
//!
//! "In force": see [`crate::node`]. The loss of corosync counts as the loss of quorum. With
//! `inquorate_reset_ms` 0 the clock never runs.

use crate::action::{Action, Actions, Note};
use crate::handle::Core;
use crate::timer::Timer;

impl Core {
    /// Starts or stops the clock.
    pub(crate) fn review_outvoted(&mut self, out: &mut Actions) {
        let attached = self.groups.values().any(|group| group.lane.is_attached());
        let at_risk = attached && !self.nodes.is_in_force();
        let (mut fx, _) = self.effects(out);
        let limit_ms = fx.tunables.inquorate_reset_ms;
        if !at_risk || limit_ms == 0 {
            fx.cancel(&Timer::Outvoted);
        } else if !fx.timers.is_armed(&Timer::Outvoted) {
            fx.arm(Timer::Outvoted, limit_ms);
        }
    }

    /// The clock ran out: reset, and if that should fail, again after as long.
    pub(crate) fn handle_outvoted(&mut self, out: &mut Actions) {
        let (mut fx, parts) = self.effects(out);
        fx.note(Note::Outvoted(fx.tunables.inquorate_reset_ms));
        for group in parts.groups.values().filter(|group| group.lane.is_attached()) {
            fx.push(Action::FenceSelf { group: group.id, incarnation: group.incarnation });
        }
    }
}
