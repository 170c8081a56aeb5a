//! What every part of the core needs to make effects: the time, ids, timers and the list.

use crate::action::{Action, Actions, Note, Reply};
use crate::config::Tunables;
use crate::timer::{Timer, Timers};
use crate::types::{Now, OpId, RequestId};

/// Made anew for each event.
#[derive(Debug)]
pub(crate) struct Effects<'a> {
    pub(crate) now: Now,
    pub(crate) tunables: &'a Tunables,
    pub(crate) timers: &'a mut Timers,
    pub(crate) next_op: &'a mut u64,
    pub(crate) out: &'a mut Actions,
}

impl Effects<'_> {
    /// A fresh id for an effect.
    pub(crate) fn op(&mut self) -> OpId {
        *self.next_op += 1;
        OpId(*self.next_op)
    }

    pub(crate) fn push(&mut self, action: Action) {
        self.out.push(action);
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.out.push(Action::Note(note));
    }

    pub(crate) fn reply(&mut self, request: RequestId, reply: Reply) {
        self.out.push(Action::Reply { request, reply });
    }

    pub(crate) fn arm(&mut self, timer: Timer, in_ms: u64) {
        self.timers.arm(timer, self.now.after(in_ms), self.out);
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        self.timers.cancel(timer);
    }
}
