//! Power, corosync, daemons and keepers come and go.

use o2bridge_core::{BootId, Config, Core, Event, Incarnation, Locking, NodeId, Verb};

use super::{Job, World};
use crate::check::Patience;
use crate::machine::{Daemon, Power, Words};
use crate::options::{Policy, ShimKind};
use crate::volume::Fate;

/// A keeper that is there looks this often, in milliseconds.
const LOOKS_MS: u64 = 400;
/// From the death of a keeper to the next one, if a daemon is there to see to it.
const KEEPER_BACK_MS: u64 = 200;
/// The kernel's patience with a silent heartbeat: o2cb's default threshold.
const DEAD_MS: u64 = 60_000;

impl World {
    /// A machine is switched on.
    pub(super) fn boot(&mut self, node: NodeId) {
        let now = self.now;
        let is_other = self.options.upgrades && !self.healed && self.dice.one_in(2);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        if machine.power != Power::Off || (self.healed && machine.given_up) {
            return;
        }
        machine.foreign ^= is_other;
        machine.power = Power::On;
        machine.boot += 1;
        let boot = machine.boot;
        machine.keeper.seen = now;
        self.trace.say(now, || format!("n{node} boots"));
        self.soon(800_000, Job::StartCorosync(node, boot));
        self.soon(1_500_000, Job::StartDaemon(node, boot));
        self.after_us(LOOKS_MS * 1_000, Job::Keeper(node, boot));
        self.soon(2_000_000, Job::Watch(node, boot));
    }

    /// It is switched off, or resets itself.
    pub(super) fn power_off(&mut self, node: NodeId) {
        let shim = self.options.shim;
        let Some(machine) = self.machines.get_mut(&node).filter(|it| it.power != Power::Off) else {
            return;
        };
        let boot = machine.boot;
        machine.lose_power(shim);
        self.held.remove(&node);
        self.counts.crashes += 1;
        self.trace.say(self.now, || format!("n{node} loses power"));
        for volume in self.volumes.values_mut() {
            for (owner, fate) in &mut volume.fates {
                if owner.node == node && owner.boot == boot && *fate == Fate::Active {
                    *fate = Fate::Died;
                }
            }
            volume.waiting.retain(|owner| owner.node != node);
        }
        self.corosync.kill(node, self.now);
        if !self.dice.one_in(5) {
            let us = 500_000 + self.dice.skewed(15_000_000);
            self.after_us(us, Job::Boot(node));
        }
    }

    /// A reset that the node wants itself.
    pub(super) fn reset(&mut self, node: NodeId, boot: u128) {
        if self.machines[&node].boot == boot {
            self.counts.resets += 1;
            self.power_off(node);
        }
    }

    /// A machine stands still.
    pub(super) fn freeze(&mut self, node: NodeId) {
        let Some(machine) = self.machines.get_mut(&node).filter(|it| it.power == Power::On) else {
            return;
        };
        machine.power = Power::Frozen;
        machine.presence.stop();
        self.corosync.pause(node, self.now);
    }

    /// It goes on.
    pub(super) fn thaw(&mut self, node: NodeId) {
        let Some(machine) = self.machines.get_mut(&node).filter(|it| it.power == Power::Frozen)
        else {
            return;
        };
        machine.power = Power::On;
        self.corosync.resume(node, self.now);
        self.go_on(node);
        let groups: Vec<_> = self.volumes.keys().copied().collect();
        groups.into_iter().for_each(|group| self.grant_lock(group));
    }

    /// A daemon stands still, or goes on.
    pub(super) fn hang(&mut self, node: NodeId, hangs: bool) {
        let daemon = self.machines.get_mut(&node).and_then(|it| it.daemon.as_mut());
        daemon.into_iter().for_each(|daemon| daemon.hangs = hangs);
        self.look_after(node);
        if !hangs {
            self.go_on(node);
        }
    }

    pub(super) fn start_corosync(&mut self, node: NodeId, boot: u128) {
        let machine = &self.machines[&node];
        if machine.power != Power::On || machine.boot != boot || self.corosync.is_up(node) {
            return;
        }
        self.trace.say(self.now, || format!("n{node} corosync starts"));
        self.corosync.start(node, self.now);
        // A daemon that runs tries again and again, and may come only when the ring has others in it.
        if !self.dice.one_in(2) {
            self.connect(node);
        }
    }

    /// Ends a node's corosync. It comes back some time, or when everything is healed.
    pub(super) fn stop_engine(&mut self, node: NodeId, clean: bool) {
        if !self.corosync.is_up(node) {
            return;
        }
        self.trace.say(self.now, || {
            format!("n{node} corosync {}", if clean { "stops" } else { "is killed" })
        });
        if clean {
            self.corosync.stop(node, self.now);
        } else {
            self.corosync.kill(node, self.now);
        }
        self.corosync_comes_back(node);
    }

    pub(super) fn corosync_comes_back(&mut self, node: NodeId) {
        // Of those that stay behind it would come back, and be ended, each grace.
        let stays_away = self.healed && self.machines[&node].given_up;
        if !self.dice.one_in(3) && !stays_away {
            let boot = self.machines[&node].boot;
            self.soon(6_000_000, Job::StartCorosync(node, boot));
        }
    }

    pub(super) fn start_daemon(&mut self, node: NodeId, boot: u128) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let stays_dead = self.healed && machine.given_up;
        if machine.power != Power::On
            || machine.boot != boot
            || machine.daemon.is_some()
            || stays_dead
        {
            return;
        }
        machine.life += 1;
        let pid = machine.fresh_pid();
        // Larger than anything that an earlier daemon of this node can have given out, in any boot.
        let first = Incarnation(machine.life << 32 | u64::from(node.0));
        let mut saved = machine.saved.clone();
        saved.memory_from = Some(*machine.saved.memory_from.get_or_insert(first));
        let config = Config {
            boot: BootId(boot),
            first_incarnation: first,
            locking: Locking {
                highest: machine.locking,
                running: machine.kernel.locking,
                choice: 0,
            },
            tunables: machine.tunables.clone(),
        };
        machine.keeper.alive = true;
        machine.past.clear();
        let words = Words::after(&saved);
        machine.daemon = Some(Daemon {
            core: Core::new(config, saved),
            pid,
            hangs: false,
            connected: false,
            inbox: Vec::new(),
            departing: Default::default(),
            quorum: None,
            totems: Default::default(),
            control: Vec::new(),
            armed: Default::default(),
            locking: machine.kernel.locking,
            requests: Default::default(),
            effects: Default::default(),
            severed: Default::default(),
            given_up: Default::default(),
            words,
            echo_at: None,
            patience: Patience::of(machine.tunables.grace_ms),
            outbox: Default::default(),
            stopping: false,
            hurried: false,
        });
        self.trace.say(now, || format!("n{node} daemon starts as {}", pid.0));
        let life = self.machines[&node].life;
        self.tell(node, life, Event::Disconnected);
        self.connect(node);
    }

    /// Connects a daemon to a corosync, if both are there; else they try again.
    pub(super) fn connect(&mut self, node: NodeId) {
        let nodelist = self.machines.keys().copied().collect();
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let life = machine.life;
        let Some(daemon) = machine.daemon.as_mut().filter(|it| !it.connected) else { return };
        if self.corosync.answers(node) {
            daemon.connected = true;
            let pid = daemon.pid;
            let event = Event::Connected { node, cluster: crate::doors::CLUSTER.into(), nodelist };
            self.tell(node, life, event);
            self.corosync.connect(node, pid, self.now);
        }
    }

    /// SIGKILL. Calls that are in the kernel end there, in one way or the other.
    pub(super) fn kill_daemon(&mut self, node: NodeId) {
        let Some(daemon) = self.drop_daemon(node) else { return };
        self.counts.daemon_kills += 1;
        self.trace.say(self.now, || format!("n{node} daemon is killed"));
        for action in daemon.effects.into_values() {
            if self.dice.one_in(2) {
                self.finish(node, action);
            }
        }
        self.forget_untold(node);
        self.bring_back(node);
        self.last_close(node);
    }

    /// The part of an unfinished effect that nothing stops.
    fn finish(&mut self, node: NodeId, action: o2bridge_core::Action) {
        use o2bridge_core::Action;
        match action {
            Action::Verb { group, verb, .. } => {
                // Done already, perhaps: then it is done twice, which it must bear.
                let twice = self.machines[&node].kernel.regions.get(&group).is_some_and(|region| {
                    matches!(&verb, Verb::NodeDown(dead, _) if !region.known.contains_key(dead))
                });
                if !twice {
                    let _ = self.verb(node, group, &verb);
                }
            }
            Action::Save { group, image, .. } => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    match image {
                        Some(image) => machine.saved.groups.insert(group, image),
                        None => machine.saved.groups.remove(&group),
                    };
                }
            }
            _ => {}
        }
    }

    /// A death told just before the end and not yet saved is told again: late is the only harm.
    fn forget_untold(&mut self, node: NodeId) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let saved = &machine.saved.groups;
        machine.told_down.retain(|(group, dead, incarnation)| {
            let told = saved.get(group).and_then(|image| image.told.get(dead));
            told.is_none_or(|user| user.incarnation != *incarnation)
        });
    }

    /// The process is gone: from corosync, and from the tools that talked to it.
    fn drop_daemon(&mut self, node: NodeId) -> Option<Daemon> {
        let machine = self.machines.get_mut(&node)?;
        let daemon = machine.daemon.take()?;
        machine.life += 1;
        machine.keeper.seen = self.now;
        self.corosync.part(node, daemon.pid, self.now);
        self.hang_up(node);
        Some(daemon)
    }

    fn bring_back(&mut self, node: NodeId) {
        if self.options.restarts {
            let boot = self.machines[&node].boot;
            let us = 50_000 + self.dice.skewed(2_000_000);
            self.after_us(us, Job::StartDaemon(node, boot));
        }
    }

    /// It ends in order: only when nothing is in use.
    pub(super) fn exit(&mut self, node: NodeId, life: u64) {
        if self.machines[&node].life != life {
            return;
        }
        let left = self.machines[&node].kernel.regions.len();
        if left > 0 || !self.machines[&node].saved.groups.is_empty() {
            self.violate("exit", || format!("n{node} ends with {left} groups in its kernel"));
        }
        let daemon = self.machines[&node].daemon.as_ref();
        if daemon.is_some_and(|it| it.words.is_user() && !it.hurried) {
            self.violate("exit", || format!("n{node} ends, and nobody knows that it uses nothing"));
        }
        self.counts.exits += 1;
        self.drop_daemon(node);
        let boot = self.machines[&node].boot;
        let us = 1_000_000 + self.dice.skewed(5_000_000);
        self.after_us(us, Job::StartDaemon(node, boot));
    }

    pub(super) fn kill_keeper(&mut self, node: NodeId) {
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.keeper.alive = false;
        }
        self.last_close(node);
    }

    /// Who held the control descriptor is gone, and with a volume mounted the kernel resets the node.
    fn last_close(&mut self, node: NodeId) {
        let machine = &self.machines[&node];
        let closed = machine.daemon.is_none() && !machine.keeper.alive;
        let mounted = machine.kernel.mounts.values().any(|mounts| !mounts.is_empty());
        if self.options.shim == ShimKind::Control && closed && mounted {
            self.reset(node, machine.boot);
        }
    }

    /// The keeper looks, and so does who would miss it.
    pub(super) fn keeper(&mut self, node: NodeId, boot: u128) {
        let now = self.now;
        self.look_after(node);
        let daemon_back_ms = self.options.daemon_back_ms;
        if self.machines[&node].boot != boot || self.machines[&node].power != Power::On {
            return;
        }
        if self.options.shim == ShimKind::Record && self.machines[&node].given_up {
            // No kernel, no keeper: of those that stay behind, the others end whose daemon is gone.
            return;
        }
        self.after_us(LOOKS_MS * 1_000, Job::Keeper(node, boot));
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let in_use = !machine.kernel.regions.is_empty();
        let keeper = &mut machine.keeper;
        let here = machine.daemon.as_ref().is_some_and(|daemon| !daemon.hangs);
        if here {
            keeper.seen = now;
            if !keeper.alive && now.ms_since(keeper.beat) >= KEEPER_BACK_MS {
                keeper.alive = true;
            }
        }
        let silent_ms = now.ms_since(keeper.beat);
        if keeper.alive {
            keeper.beat = now;
        }
        if !in_use {
            keeper.beat = now;
            return;
        }
        let absent = now.ms_since(keeper.seen) >= daemon_back_ms;
        let silent = silent_ms >= daemon_back_ms;
        if keeper.alive && (absent || silent) {
            self.reset(node, boot);
        } else if self.options.shim == ShimKind::UserHeartbeat && silent_ms >= DEAD_MS {
            self.bury_by_silence(node);
        } else if silent && self.options.watchdog {
            // Both are gone and nobody brings them back: the hardware watchdog, or in the control
            // stack the kernel, is what remains.
            self.reset(node, boot);
        }
    }

    /// A kernel whose heartbeat is silent takes all its peers for dead, and recovers what they hold.
    fn bury_by_silence(&mut self, node: NodeId) {
        let regions = self.machines[&node].kernel.regions.clone();
        for (group, region) in regions {
            for (peer, incarnation) in region.known.into_iter().filter(|(peer, _)| *peer != node) {
                self.recover(node, group, peer, incarnation);
            }
        }
        self.violate("silence", || format!("n{node}'s kernel buries its peers by itself"));
    }

    /// The administrator looks around: switches off whom the daemons wait for, and says so.
    pub(super) fn admin(&mut self) {
        self.after_us(2_000_000, Job::Admin);
        if self.options.policy != Policy::Ack && !self.options.mixed {
            return;
        }
        let mut wanted = Vec::new();
        for machine in self.machines.values() {
            let is_on = machine.power == Power::On;
            let answers = machine.daemon.iter().filter(|daemon| is_on && !daemon.hangs);
            let nodes = answers.flat_map(|daemon| daemon.core.snapshot().nodes);
            let waits = nodes.filter(|it| it.fencing == "waiting for ack");
            wanted.extend(waits.map(|it| (machine.id, machine.life, it.node)));
        }
        for (by, life, victim) in wanted {
            if !self.dice.one_in(3) {
                self.power_off(victim);
                let request = o2bridge_core::RequestId(self.fresh(by));
                let client = o2bridge_core::ClientId(0);
                self.counts.acks += 1;
                let daemon = self.machines.get_mut(&by).and_then(|it| it.daemon.as_mut());
                daemon.map(|it| it.requests.insert(request, 0));
                self.tell(by, life, Event::FenceAck { request, client, node: victim });
                self.check_acked(by, request);
            }
        }
    }
}
