//! Timers with generations: one that was set again or is no longer wanted fires into nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::action::{Action, Actions};
use crate::types::{Channel, GroupId, NodeId, Now, ServiceName};

/// What a timer is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// A begin has waited long enough.
    Begin(GroupId, ServiceName),
    /// A tool has had time to mount.
    Complete(GroupId, ServiceName),
    /// A leave has waited long enough for its answer.
    Leave(GroupId, ServiceName),
    /// A failed verb or save is due again.
    Lane(GroupId),
    /// A failed join or leave of a channel is due again.
    Channel(Channel),
    /// A peer's daemon has been away for the grace period; also: the kill is due again.
    Grace(NodeId),
    /// A fence attempt is due.
    Fence(NodeId),
    /// Whose turn it is to fence this node has not said in time that it knows of it, or come to an end.
    Turn(NodeId),
    /// We use volumes outside a quorate ring for too long.
    Outvoted,
}

/// The settings that are alive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Timers {
    alive: BTreeMap<Timer, u64>,
    generation: u64,
}

impl Timers {
    /// Sets a timer; an earlier setting of it is void.
    pub fn arm(&mut self, timer: Timer, at: Now, out: &mut Actions) {
        self.generation = self.generation.wrapping_add(1);
        self.alive.insert(timer.clone(), self.generation);
        out.push(Action::Arm { timer, generation: self.generation, at });
    }

    /// Voids a timer.
    pub fn cancel(&mut self, timer: &Timer) {
        self.alive.remove(timer);
    }

    /// Whether a timer is set.
    #[must_use]
    pub fn is_armed(&self, timer: &Timer) -> bool {
        self.alive.contains_key(timer)
    }

    /// Whether this is a timer's latest setting, and not voided.
    #[must_use]
    pub fn is_latest(&self, timer: &Timer, generation: u64) -> bool {
        self.alive.get(timer) == Some(&generation)
    }

    /// The nodes whose grace runs.
    #[must_use]
    pub fn graces(&self) -> Vec<NodeId> {
        let node = |timer: &Timer| match timer {
            Timer::Grace(node) => Some(*node),
            Timer::Begin(..)
            | Timer::Complete(..)
            | Timer::Leave(..)
            | Timer::Lane(_)
            | Timer::Channel(_)
            | Timer::Fence(_)
            | Timer::Turn(_)
            | Timer::Outvoted => None,
        };
        self.alive.keys().filter_map(node).collect()
    }

    /// Takes a firing: true once for the latest setting, false for everything older.
    pub fn fire(&mut self, timer: &Timer, generation: u64) -> bool {
        let is_latest = self.is_latest(timer, generation);
        if is_latest {
            self.alive.remove(timer);
        }
        is_latest
    }
}

#[cfg(test)]
mod tests;
