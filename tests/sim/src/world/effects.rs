//! What the core wants done, done: each effect begins, reaches the world after a while, and comes back
//! after another while. Its daemon may die at any point of that.

use o2bridge_core::{
    Action, Channel, Event, Finding, GroupId, NodeId, OpError, OpId, SavedGroup, Verb,
};

use o2bridge_wire::record::Line;

use super::daemon::{PUMP_US, rank};
use super::{Job, World};
use crate::machine::Power;
use crate::options::ShimKind;
use crate::step::{Mood, Step};

const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOSPC: i32 = 28;
/// `CS_ERR_LIBRARY`.
pub(crate) const LIBRARY: u32 = 2;
/// `CS_ERR_TRY_AGAIN`.
const TRY_AGAIN: u32 = 6;

/// The operation, if the action is a call that waits for corosync's answer.
pub(super) const fn call(action: &Action) -> Option<OpId> {
    if let Action::Join { op, .. } | Action::KillNode { op, .. } = action {
        Some(*op)
    } else {
        None
    }
}

/// The operation, if the action ends with its connection to corosync.
pub(super) const fn asks_corosync(action: &Action) -> Option<OpId> {
    if let Action::Depart { op, .. } = action { Some(*op) } else { call(action) }
}

impl World {
    /// An effect begins. How long it takes depends on what it is.
    pub(super) fn begin_effect(&mut self, node: NodeId, life: u64, op: OpId, action: Action) {
        let mood = self.machines[&node].kernel_mood;
        let max_us = match &action {
            Action::Verb { .. } if mood == Mood::Slow => 8_000_000,
            Action::Verb { .. } => 20_000,
            Action::Save { .. } => 1_000,
            Action::Join { .. } | Action::Depart { .. } => 4_000,
            Action::KillNode { .. } => 30_000,
            Action::Fence { .. } if self.fences == Mood::Slow => 20_000_000,
            Action::Fence { .. } => 400_000,
            _ => 3_000,
        };
        if let Some(daemon) = self.machines.get_mut(&node).and_then(|it| it.daemon.as_mut()) {
            daemon.effects.insert(op, action.clone());
        }
        self.soon(max_us, Job::Do(node, life, Box::new(action)));
    }

    fn done(&mut self, node: NodeId, life: u64, op: OpId, result: Result<(), OpError>) {
        self.soon(500, Job::Tell(node, life, Box::new(Event::Done { op, result })));
    }

    /// An effect reaches the world.
    pub(super) fn effect(&mut self, node: NodeId, life: u64, action: Action) {
        if self.machines[&node].life != life {
            return;
        }
        if let Some(op) = asks_corosync(&action) {
            let daemon = self.machines.get_mut(&node).and_then(|it| it.daemon.as_mut());
            if daemon.is_some_and(|it| it.severed.contains(&op)) {
                return self.done(node, life, op, Err(OpError::Corosync(LIBRARY)));
            }
        }
        if call(&action).is_some() && self.corosync.is_up(node) && !self.corosync.answers(node) {
            // The call blocks until corosync goes on.
            return self.after_us(100_000, Job::Do(node, life, Box::new(action)));
        }
        match action {
            Action::Join { op, channel } => self.join(node, life, op, channel),
            Action::Depart { op, channel } => self.leave_channel(node, life, op, channel),
            Action::Save { op, group, image } => {
                let result = self.save(node, group, image);
                self.done(node, life, op, result);
            }
            Action::Verb { op, group, verb } => {
                let result = self.verb(node, group, &verb);
                self.done(node, life, op, result);
            }
            Action::KillNode { op, node: victim } => {
                if self.is_flaky(6) {
                    return self.done(node, life, op, Err(OpError::Corosync(TRY_AGAIN)));
                }
                self.corosync.kill_node(node, victim, self.now);
                self.done(node, life, op, Ok(()));
            }
            Action::Fence { op, node: victim, .. } => {
                self.soon(300_000, Job::Fenced { by: (node, life), op, victim });
            }
            Action::Look { op, group, ref service, .. } => {
                let mounts = self.machines[&node].kernel.mounts.get(&group);
                let mounted = match mounts {
                    Some(mounts) if service.is_ocfs2() => !mounts.is_empty(),
                    Some(mounts) => mounts.contains(service),
                    None => false,
                };
                let finding = match (mounted, self.machines[&node].disk_mood) {
                    (_, Mood::Lies) => Finding::Unknown,
                    (true, _) => Finding::Mounted,
                    (false, _) => Finding::NotMounted,
                };
                self.soon(500, Job::Tell(node, life, Box::new(Event::Looked { op, finding })));
            }
            Action::Mcast { .. }
            | Action::Reply { .. }
            | Action::Arm { .. }
            | Action::FenceSelf { .. }
            | Action::RunLocking(_)
            | Action::Exit
            | Action::Note(_) => {}
        }
    }

    /// Whether corosync is too busy just now, once in so many times.
    pub(super) fn is_flaky(&mut self, one_in: u64) -> bool {
        !self.healed && self.options.faults.corosync && self.dice.one_in(one_in)
    }

    fn join(&mut self, node: NodeId, life: u64, op: OpId, channel: Channel) {
        let flaky = self.is_flaky(12);
        let pid = self.machines[&node].daemon.as_ref().map(|daemon| daemon.pid);
        let joined =
            !flaky && pid.is_some_and(|pid| self.corosync.join(node, pid, channel, self.now));
        let result = if joined { Ok(()) } else { Err(OpError::Corosync(TRY_AGAIN)) };
        self.done(node, life, op, result);
    }

    fn leave_channel(&mut self, node: NodeId, life: u64, op: OpId, channel: Channel) {
        let Some(daemon) = self.machines.get_mut(&node).and_then(|it| it.daemon.as_mut()) else {
            return;
        };
        if !self.corosync.is_client(node, daemon.pid) {
            // It ends with the connection, unanswered.
            daemon.effects.remove(&op);
        } else if daemon.given_up.remove(&op) {
            daemon.outbox.remove(&channel);
            if channel == Channel::Control {
                daemon.words.lose();
            }
            self.corosync.close(node, daemon.pid, channel, self.now);
            daemon.inbox.retain(|(_, event)| rank(event).1 != Some(channel));
            self.done(node, life, op, Err(OpError::TimedOut));
        } else if daemon.outbox.contains_key(&channel) {
            // It leaves when everything is said.
            let action = Box::new(Action::Depart { op, channel });
            self.after_us(PUMP_US, Job::Do(node, life, action));
        } else if self.corosync.leave(node, daemon.pid, channel, self.now) {
            daemon.departing.insert(channel, op);
        } else {
            self.done(node, life, op, Ok(()));
        }
    }

    pub(crate) fn save(
        &mut self,
        node: NodeId,
        group: GroupId,
        image: Option<SavedGroup>,
    ) -> Result<(), OpError> {
        let users = image.as_ref().map_or(0, |image| image.told.len());
        if users > self.options.nodes as usize {
            self.violate("growth", || format!("n{node} saves {users} users of {group}"));
        }
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        if machine.disk_mood == Mood::Fails {
            self.counts.errors += 1;
            return Err(OpError::Errno(ENOSPC));
        }
        match image {
            Some(image) => machine.saved.groups.insert(group, image),
            None => machine.saved.groups.remove(&group),
        };
        Ok(())
    }

    /// Tells a kernel. What it makes of it is checked against the truth.
    pub(super) fn verb(
        &mut self,
        node: NodeId,
        group: GroupId,
        verb: &Verb,
    ) -> Result<(), OpError> {
        let mood = self.machines[&node].kernel_mood;
        let reluctant = self.options.shim == ShimKind::Control && !self.healed;
        let refuses = match mood {
            Mood::Fails => !self.dice.one_in(2),
            Mood::Good | Mood::Slow | Mood::Lies => reluctant && self.dice.one_in(4),
        };
        if !refuses {
            return self.tell_kernel(node, group, verb);
        }
        self.counts.errors += 1;
        // A device that fails late has done it all the same.
        if mood == Mood::Fails && self.dice.one_in(3) {
            self.tell_kernel(node, group, verb)?;
        }
        if let Some(machine) = self.machines.get_mut(&node) {
            if let Verb::NodeDown(dead, incarnation) = verb {
                machine.told_down.remove(&(group, *dead, *incarnation));
            }
        }
        Err(OpError::Errno(if reluctant { EAGAIN } else { EIO }))
    }

    fn tell_kernel(&mut self, node: NodeId, group: GroupId, verb: &Verb) -> Result<(), OpError> {
        let written;
        let verb = if self.options.shim == ShimKind::Record {
            written = self.recorded(group, verb);
            &written
        } else {
            verb
        };
        self.check_told(node, group, verb);
        let Some(machine) = self.machines.get_mut(&node) else { return Ok(()) };
        machine.kernel.apply(group, verb).map_err(OpError::Errno)?;
        self.check_running(node);
        self.check_known(group);
        self.grant_lock(group);
        Ok(())
    }

    /// The record shim writes a line; whoever reads it must find the verb in it.
    fn recorded(&mut self, group: GroupId, verb: &Verb) -> Verb {
        let us = i64::try_from(self.now.0).unwrap_or(i64::MAX);
        let line = Line { at_us: us, boot_us: us, verb: verb.clone(), group };
        match line.to_string().parse::<Line>() {
            Ok(read) if read == line => read.verb,
            Ok(_) | Err(_) => {
                self.violate("record", || format!("'{line}' is read as something else"));
                line.verb
            }
        }
    }

    /// The fence device has done what it could.
    pub(super) fn fenced(&mut self, (by, life): (NodeId, u64), op: OpId, victim: NodeId) {
        let works = match self.fences {
            Mood::Good | Mood::Slow => true,
            Mood::Fails => false,
            Mood::Lies => self.dice.one_in(2),
        };
        // A device that was told to switch off does so, even if who told it is gone by now.
        let result = match (works, self.fences) {
            (true, _) => {
                self.counts.fences += 1;
                self.power_off(victim);
                Ok(())
            }
            (false, Mood::Lies) => {
                self.counts.lies += 1;
                let machine = &self.machines[&victim];
                if machine.power != Power::Off {
                    self.spared.insert((victim, machine.boot));
                }
                Ok(())
            }
            (false, _) => {
                self.counts.errors += 1;
                // One that fails late has done it all the same, or does it much later.
                if self.dice.one_in(8) {
                    self.soon(10_000_000, Job::Step(Step::PowerOff(victim)));
                }
                let errors = if self.dice.one_in(4) {
                    self.power_off(victim);
                    &[OpError::Agent(1), OpError::TimedOut][..]
                } else {
                    &[OpError::Agent(1), OpError::TimedOut, OpError::Unconfigured]
                };
                Err(*self.dice.pick(errors).unwrap_or(&OpError::TimedOut))
            }
        };
        let machine = &self.machines[&by];
        if machine.life == life && machine.power != Power::Off {
            // An agent may wait until the node is up again, and say only then that it was off.
            let is_late = self.fences == Mood::Slow && self.dice.one_in(2);
            let us = if is_late { self.dice.below(20_000_000) } else { 0 };
            self.after_us(us, Job::Tell(by, life, Box::new(Event::Done { op, result })));
        }
    }
}
