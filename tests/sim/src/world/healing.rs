//! The second half of a run: no more faults, and everything has to come to rest.

use o2bridge_core::{GroupId, NodeId, Snapshot};
use std::collections::{BTreeMap, BTreeSet};

use super::{Job, World};
use crate::check::Violation;
use crate::machine::{Machine, Power};
use crate::options::ShimKind;
use crate::step::{How, Mood, Turn};
use crate::time::Micros;

/// How long the cluster may take to come to rest, in graces and on top of that; and how long it must
/// then be silent.
const GRACES: u64 = 6;
/// How many graces more, if a daemon hangs for good while it fences somebody: so long the others leave it to that. And
/// to one that waits in vain to know all users, because of somebody whom it understands no more.
const TURN_GRACES: u64 = 20;
const REST_MS: u64 = 50_000;
/// How long a mount takes that nothing holds up, and how long one may take beside a grace.
const MOUNT_MS: u64 = 3_000;
const MOUNTS_MS: u64 = 20_000;
const SILENCE_MS: u64 = 10_000;

impl World {
    /// Ends all faults, but for the nodes that stay as they are, and runs until everything must have
    /// come to rest.
    ///
    /// # Errors
    /// It did not, or something else is wrong.
    pub fn settle(&mut self) -> Result<(), Violation> {
        self.healed = true;
        let ids: Vec<NodeId> = self.machines.keys().copied().collect();
        ids.into_iter().for_each(|node| self.hang(node, false));
        let fates: BTreeMap<NodeId, u8> = self.give_up().into_iter().map(|it| (it, 2)).collect();
        self.corosync.wire(fates, self.now);
        self.fences = Mood::Good;
        self.options.restarts = true;
        let grace_ms = self.machines.values().map(|it| it.tunables.grace_ms).max().unwrap_or(0);
        let is_held_up = self.is_fencing_held_up() || self.options.upgrades;
        let graces = GRACES + if is_held_up { TURN_GRACES } else { 0 };
        let end = self.now.plus_ms(grace_ms * graces + REST_MS);
        self.heal_until(end)?;
        self.at_rest = Some(self.counts);
        // Mounts that meet may fail: a kernel lets nobody in while it is suspended for another one.
        for wait_ms in [MOUNT_MS, MOUNT_MS, grace_ms + MOUNTS_MS] {
            self.ask_for_all();
            self.heal_until(self.now.plus_ms(wait_ms))?;
        }
        let refused = self.must_be_served();
        self.check_served(&refused);
        let quiet_from = self.now;
        self.run_until(self.now.plus_ms(SILENCE_MS))?;
        if self.last_word_at > quiet_from {
            self.violate("rest", || "the cluster talks on although nothing happens".to_owned());
        }
        self.check_rest();
        self.violation.clone().map_or(Ok(()), Err)
    }

    fn heal_until(&mut self, end: Micros) -> Result<(), Violation> {
        while self.now < end {
            self.mend();
            self.run_until(self.now.plus_ms(1_000))?;
        }
        Ok(())
    }

    /// Every node that is healed and quorate mounts whatever it has not: a cluster that refuses everybody is at rest,
    /// too.
    fn ask_for_all(&mut self) {
        self.options.faults.tools = false;
        for (node, group) in self.must_be_served() {
            if self.machines[&node].tools.values().all(|tool| tool.group != group) {
                self.mount(node, group, How::Free);
            }
        }
    }

    /// Who has not mounted what, and would be let in by any cluster that works.
    fn must_be_served(&self) -> Vec<(NodeId, GroupId)> {
        let is_one_kind = |it: &World| it.machines.values().all(|it| !it.foreign);
        if !self.is_safe() || !is_one_kind(self) {
            return Vec::new();
        }
        let is_quorate = |node: &NodeId| self.corosync.ring(*node).is_some_and(|(.., it)| it);
        // Whose kernel cannot run what the others do.
        let running =
            |it: &Machine| [it.kernel.locking, it.daemon.as_ref().and_then(|it| it.locking)];
        let running: Vec<_> = self.machines.values().flat_map(running).flatten().collect();
        let is_too_old = |it: &Machine| {
            it.locking.is_some_and(|highest| running.iter().any(|other| !highest.knows(*other)))
        };
        let is_here = |it: &&Machine| !it.given_up && is_quorate(&it.id) && !is_too_old(it);
        let here = self.machines.values().filter(is_here);
        let groups = |it: &Machine| {
            let missing: Vec<GroupId> = self
                .volumes
                .keys()
                .copied()
                .filter(|group| !it.kernel.is_mounted(*group))
                .collect();
            missing.into_iter().map(|group| (it.id, group)).collect::<Vec<_>>()
        };
        here.flat_map(groups).collect()
    }

    /// Some nodes are not healed: dead, cut off, ghosts, without a daemon or with one that hangs. The
    /// others must manage. Says who is cut off.
    fn give_up(&mut self) -> BTreeSet<NodeId> {
        let mut cut_off = BTreeSet::new();
        let mut left = self.options.lasting.min((self.options.nodes - 1) / 2);
        let ids: Vec<NodeId> = self.machines.keys().copied().collect();
        while left > 0 {
            left -= 1;
            let Some(node) = self.dice.pick(&ids).copied() else { break };
            let Some(machine) = self.machines.get_mut(&node) else { continue };
            machine.given_up = true;
            match self.dice.below(5) {
                0 => self.power_off(node),
                1 if self.is_missed(node) => self.kill_daemon(node),
                // The others list it, and it is in no ring with them.
                3 => self.turn(node, Turn::Haunt),
                2 if self.options.shim != ShimKind::Record => self.hang(node, true),
                _ => {
                    cut_off.insert(node);
                }
            }
        }
        // Somebody dies once more, so that the others need the word of those.
        let rest: Vec<NodeId> =
            self.machines.values().filter(|it| !it.given_up).map(|it| it.id).collect();
        if rest.len() < self.machines.len() && self.dice.one_in(2) {
            self.dice.pick(&rest).copied().into_iter().for_each(|node| self.power_off(node));
        }
        cut_off
    }

    /// Whether somebody ends this node, should its daemon stay away: its keeper, or, where there is none,
    /// all who stay, because each of them has heard what it uses and one may die.
    fn is_missed(&self, node: NodeId) -> bool {
        let mut others = self.machines.values().filter(|it| it.id != node && !it.given_up);
        self.options.shim != ShimKind::Record
            || others.all(|it| {
                // One that is about to end forgets it.
                let stays = it.daemon.as_ref().filter(|daemon| !daemon.stopping);
                let nodes = stays.map(|daemon| daemon.core.snapshot().nodes);
                let hears = |it: &o2bridge_core::snapshot::NodeStatus| {
                    it.node == node && it.daemon == "speaking"
                };
                nodes.is_some_and(|nodes| nodes.iter().any(hears))
            })
    }

    /// Whether whoever must have a group may have to try on and on, as nobody is told to go ahead: a
    /// daemon that hangs for good is in the middle of using it and does not say that its kernel knows
    /// them, or nobody knows all users.
    pub(crate) fn is_held_up(&self, group: GroupId) -> bool {
        self.hanging().flat_map(|it| it.groups).any(|it| it.group == group)
            || self.is_disputed(group)
    }

    /// Whether a daemon that hangs for good was fencing somebody.
    fn is_fencing_held_up(&self) -> bool {
        let is_at_it =
            |fencing: &str| matches!(fencing, "running" | "retrying" | "waiting for ack");
        self.hanging().flat_map(|it| it.nodes).any(|it| is_at_it(it.fencing))
    }

    /// The daemons that hang for good.
    fn hanging(&self) -> impl Iterator<Item = Snapshot> {
        let given_up = self.machines.values().filter(|it| self.healed && it.given_up);
        let daemons = given_up.filter_map(|it| it.daemon.as_ref()).filter(|it| it.hangs);
        daemons.map(|it| it.core.snapshot())
    }

    /// Whether a user of a group has a node beside it that uses something too and that it does not
    /// understand. Fencing keeps the second of them out until the first has ended.
    fn is_disputed(&self, group: GroupId) -> bool {
        let users = self.machines.values().filter(|it| !it.kernel.regions.is_empty());
        let is_other = |user: &Machine| users.clone().any(|it| it.foreign != user.foreign);
        !self.is_safe()
            && users.clone().any(|it| it.kernel.regions.contains_key(&group) && is_other(it))
    }

    /// Brings back whatever is not there.
    fn mend(&mut self) {
        let ids: Vec<NodeId> = self.machines.keys().copied().collect();
        for node in ids {
            let Some(machine) = self.machines.get_mut(&node) else { continue };
            machine.kernel_mood = Mood::Good;
            machine.disk_mood = Mood::Good;
            if machine.given_up {
                continue;
            }
            let boot = machine.boot;
            match machine.power {
                Power::Off => self.soon(3_000_000, Job::Boot(node)),
                Power::Frozen => self.soon(500_000, Job::Thaw(node)),
                Power::On => {
                    let daemonless = machine.daemon.is_none();
                    self.corosync.resume(node, self.now);
                    if !self.corosync.is_up(node) {
                        self.soon(900_000, Job::StartCorosync(node, boot));
                    }
                    if daemonless {
                        self.soon(900_000, Job::StartDaemon(node, boot));
                    }
                }
            }
        }
    }

    /// When a run's faults are over.
    #[must_use]
    pub fn last_step_at(schedule: &[crate::step::Timed]) -> Micros {
        schedule.iter().map(|(at, _)| *at).max().unwrap_or(Micros::of_ms(1_000))
    }
}
