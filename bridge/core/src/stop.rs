//! The end of the daemon, and the last word before it: that nothing is in use here any more. Who holds us for a user
//! would miss us, and have this node fenced. The states of the connection through which it goes: see [`crate::handle`].
//!
//! | last word \ event | a Hello with a use goes out | one with a use comes back | one without comes back | corosync lost, or left in vain | asked to stop once more |
//! |---|---|---|---|---|---|
//! | not owed | owed | owed | - | - | - |
//! | owed     | owed | owed | not owed, if no Hello with a use is on its way | owed | not owed |
//!
//! That it came back says that whoever was in the ring has it, and no more: a daemon that was away has not.

use crate::action::{Action, Actions, Note};
use crate::group::Group;
use crate::handle::{Core, Link, Scope};
use crate::timer::Timer;
use crate::types::Channel;

/// Whether we owe the others a last word.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Farewell {
    /// The last Hello that came back, of ours or a predecessor's, named a use.
    is_user: bool,
    /// How many that name one are on their way.
    on_their_way: u32,
}

impl Farewell {
    /// `is_user`: a predecessor used something.
    pub(crate) const fn new(is_user: bool) -> Self {
        Self { is_user, on_their_way: 0 }
    }

    pub(crate) const fn is_owed(&self) -> bool {
        self.is_user || self.on_their_way > 0
    }

    pub(crate) fn handle_said(&mut self, in_use: bool) {
        self.on_their_way = self.on_their_way.saturating_add(u32::from(in_use));
    }

    pub(crate) fn handle_heard(&mut self, in_use: bool) {
        self.is_user = in_use;
        self.on_their_way = self.on_their_way.saturating_sub(u32::from(in_use));
    }

    /// Others may have heard what we shall not.
    pub(crate) fn handle_lost(&mut self) {
        *self = Self::new(self.is_owed());
    }
}

impl Core {
    pub(crate) fn handle_stop(&mut self, out: &mut Actions) -> Scope {
        if !self.groups.is_empty() {
            let users = |group: &Group| group.services.keys().cloned().collect();
            let in_use = self.groups.values().map(|group| (group.id, users(group))).collect();
            out.push(Action::Note(Note::StopRefused(in_use)));
            return Scope::Nothing;
        }
        if core::mem::replace(&mut self.stopping, true) {
            self.farewell = Farewell::default();
        }
        match self.link {
            Link::Up => self.depart(out),
            Link::Down | Link::Joining(_) | Link::Pausing => self.end(out),
            Link::Leaving(_) => {}
        }
        Scope::Nothing
    }

    /// Says our last word and leaves the control group.
    pub(crate) fn depart(&mut self, out: &mut Actions) {
        self.say_farewell(out);
        let (mut fx, _) = self.effects(out);
        let op = fx.op();
        fx.push(Action::Depart { op, channel: Channel::Control });
        self.link = Link::Leaving(op);
    }

    /// The control group is left. If corosync did not take the leave it may not have taken our last word either.
    pub(crate) fn handle_departed(&mut self, is_left: bool, out: &mut Actions) {
        if is_left || !self.farewell.is_owed() {
            return out.push(Action::Exit);
        }
        self.farewell.handle_lost();
        self.link = Link::Pausing;
        let (mut fx, parts) = self.effects(out);
        parts.nodes.handle_left(&mut fx);
        fx.arm(Timer::Channel(Channel::Control), fx.tunables.retry_ms);
        self.end(out);
    }

    /// Ends, unless we owe the last word.
    pub(crate) fn end(&mut self, out: &mut Actions) {
        let is_owed = self.farewell.is_owed();
        out.push(if is_owed { Action::Note(Note::StopWaits) } else { Action::Exit });
    }
}
