//! What must hold when a daemon wants a node to end: whoever is ended is off, and everything that is said of it
//! comes true by that.

use std::collections::BTreeMap;

use o2bridge_core::proto::{self, Body};
use o2bridge_core::{Channel, Event, Member, NodeId, Pid, RingId};

use crate::machine::{Daemon, Machine, Power};
use crate::time::Micros;
use crate::world::World;

/// Whoever was away for less is missed by nobody: the shortest grace of a run.
const MISSED_MS: u64 = 1_300;

/// When a node's daemon was there, in this boot.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presence {
    /// Which, and since when, if it is.
    since: Option<(u64, Micros)>,
    /// When one was last seen.
    seen_at: Option<Micros>,
    /// When one was last seen after it had been missed.
    back_at: Option<Micros>,
}

impl Presence {
    fn look(&mut self, life: u64, is_well: bool, now: Micros) {
        self.since = self.since.filter(|(it, _)| is_well && *it == life);
        if is_well {
            if self.seen_at.is_none_or(|at| now.ms_since(at) >= MISSED_MS) {
                self.back_at = Some(now);
            }
            self.since.get_or_insert((life, now));
            self.seen_at = Some(now);
        }
    }

    /// It stands still, and nobody looks until it goes on.
    pub(crate) const fn stop(&mut self) {
        self.since = None;
    }
}

/// Since when a daemon may have counted how long others are silent.
#[derive(Debug, Clone)]
pub struct Patience {
    /// The shortest grace that it was configured with.
    grace_ms: u64,
    /// The quorate ring that it decides in, and since when.
    ring: Option<(RingId, Micros)>,
    /// When each node was last heard to have seen that ring, from which process; or when that process went.
    heard: BTreeMap<NodeId, (Option<Pid>, Micros)>,
}

impl Patience {
    /// Of a daemon that has just started.
    #[must_use]
    pub const fn of(grace_ms: u64) -> Self {
        Self { grace_ms, ring: None, heard: BTreeMap::new() }
    }

    /// It was told something, and decides in this ring since.
    fn look(&mut self, event: &Event, ring: Option<RingId>, now: Micros) {
        if self.ring.map(|(id, _)| id) != ring {
            self.ring = ring.map(|id| (id, now));
            self.heard.clear();
        }
        match event {
            Event::Reconfigure(tunables) => self.grace_ms = self.grace_ms.min(tunables.grace_ms),
            Event::Message { channel: Channel::Control, from, bytes } => {
                let Ok((_, Body::Hello(hello))) = proto::decode(bytes) else { return };
                if ring.is_some() && hello.ring == ring {
                    self.heard.insert(from.node, (Some(from.pid), now));
                }
            }
            Event::Confchg { channel: Channel::Control, left, .. } => {
                for (member, _) in left {
                    if let Some(heard) = self.heard.get_mut(&member.node) {
                        if heard.0 == Some(member.pid) {
                            *heard = (None, now);
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// Since when it can have missed a node's daemon.
    fn since(&self, node: NodeId) -> Option<Micros> {
        let (_, at) = self.ring?;
        Some(self.heard.get(&node).map_or(at, |(_, heard)| at.max(*heard)))
    }
}

impl Daemon {
    /// The quorate ring that the quorum service told it of, and the control group too, unless it is the one that it
    /// came in.
    fn decides_in(&self, node: NodeId) -> Option<RingId> {
        let is_us = |member: &Member| member.node == node && member.pid == self.pid;
        let (_, ring, _) = self.quorum.as_ref().filter(|(quorate, ..)| *quorate)?;
        let is_seen = self.totems.get(&Channel::Control).is_none_or(|seen| seen == ring);
        Some(*ring).filter(|_| is_seen && self.control.iter().any(is_us))
    }

    /// It was told something.
    pub(crate) fn look(&mut self, node: NodeId, event: &Event, now: Micros) {
        let ring = self.decides_in(node);
        self.patience.look(event, ring, now);
    }
}

impl World {
    /// Looks whether a node's daemon is there and does all that is asked of it.
    pub(crate) fn look_after(&mut self, node: NodeId) {
        let answers = self.corosync.answers(node);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let is_up = |daemon: &Daemon| !daemon.hangs && daemon.connected;
        let is_well =
            machine.power == Power::On && answers && machine.daemon.as_ref().is_some_and(is_up);
        machine.presence.look(machine.life, is_well, self.now);
    }

    /// Somebody is told of a quorate ring. Users that are not in it may be lost there, as long as they run.
    pub(crate) fn note_ring(&mut self, nodes: &[NodeId]) {
        let is_user = |machine: &Machine| {
            let says_so = machine.daemon.as_ref().is_some_and(|daemon| daemon.words.is_user());
            says_so || !machine.kernel.regions.is_empty() || !machine.saved.groups.is_empty()
        };
        for machine in self.machines.values_mut() {
            machine.parted |= !nodes.contains(&machine.id) && is_user(machine);
        }
    }

    /// Nobody is fenced who is in the ring and was there in this boot whenever it used something, unless its daemon
    /// has been away for a grace.
    pub(crate) fn check_fence(&mut self, node: NodeId, victim: NodeId) {
        let machine = &self.machines[&node];
        let quorum = machine.daemon.as_ref().and_then(|daemon| daemon.quorum.as_ref());
        // Who was reset since we were told of the ring is in another one.
        let ring = self.corosync.ring(victim).map(|(ring, ..)| ring);
        let is_in_ring =
            quorum.is_some_and(|(_, id, nodes)| nodes.contains(&victim) && ring == Some(*id));
        let is_quorate = quorum.is_some_and(|(quorate, ..)| *quorate);
        if !is_quorate {
            self.violate("violence", || format!("n{node} fences n{victim} outside quorum"));
            return;
        }
        let it = &self.machines[&victim];
        let grace_ms = machine.tunables.grace_ms;
        // Who has just come back has yet to be heard.
        let lately = |at: Micros| self.now.ms_since(at) < grace_ms;
        let Presence { seen_at, back_at, .. } = it.presence;
        let is_missed = !seen_at.is_some_and(lately) || back_at.is_some_and(lately);
        let is_understood = it.foreign == machine.foreign;
        if is_in_ring && is_understood && !it.parted && !is_missed && self.is_safe() {
            self.violate("violence", || format!("n{node} fences n{victim}, which is here"));
        }
    }

    /// Nobody is killed before a whole grace of one quorate ring since it was last heard there, or went. Nor is anybody
    /// whose daemon was there all the time, unless corosync takes our words and not its. Where somebody chooses what
    /// comes next, anybody may sleep over that.
    pub(crate) fn check_kill(&mut self, node: NodeId, victim: NodeId) {
        self.look_after(victim);
        let (machine, it) = (&self.machines[&node], &self.machines[&victim]);
        let grace_ms = machine.tunables.grace_ms;
        let is_well = it.presence.since.is_some_and(|(_, at)| self.now.ms_since(at) >= grace_ms);
        let echo_at = machine.daemon.as_ref().and_then(|daemon| daemon.echo_at);
        let is_echoed = echo_at.is_some_and(|at| self.now.ms_since(at) < grace_ms);
        let is_excused = is_echoed && self.corosync.keeps_words_of(victim) || self.dice.is_still();
        if is_well && it.foreign == machine.foreign && !is_excused {
            self.violate("violence", || format!("n{node} kills n{victim}, which is well"));
            return;
        }
        let patience = machine.daemon.as_ref().map(|daemon| &daemon.patience);
        let Some(patience) = patience.filter(|_| !self.dice.is_still()) else { return };
        let waited_ms = patience.since(victim).map(|at| self.now.ms_since(at));
        if waited_ms.is_none_or(|waited_ms| waited_ms < patience.grace_ms) {
            self.violate("violence", || {
                format!("n{node} kills n{victim}, and has missed it for {waited_ms:?} ms")
            });
        }
    }

    /// Nobody resets itself who is quorate with the others, and was in every ring while it used something.
    pub(crate) fn check_fence_self(&mut self, node: NodeId) {
        let machine = &self.machines[&node];
        let decides = machine.daemon.as_ref().is_some_and(|it| it.decides_in(node).is_some());
        if decides && !machine.parted {
            self.violate("violence", || format!("n{node} resets itself, and nobody buried it"));
        }
    }
}
