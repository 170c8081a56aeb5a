//! The checkers: what must hold whatever happens, judged by the truth of the model and not by the
//! code under test.
//!
//! | checker | says |
//! |---|---|
//! | invariant | `Core::check` after every event |
//! | gate | nothing is told to a kernel outside quorum, before all daemons of the ring have seen it, or before suspend; no `node_down` of ourselves or of a node that runs |
//! | memory | who dies after a verb leaves a state file that tells its successor what the kernel may know |
//! | timer | a timer that was set anew does nothing at its old time |
//! | buried alive | nobody is recovered who could still write |
//! | told twice | a death is told to a kernel once |
//! | view | a use that a kernel knew and knows no more never comes back, while its daemon lives |
//! | violence | nobody is fenced, killed or reset who is here and was never missed, nor killed before a grace is over |
//! | lost death | who died is not taken for one who left |
//! | stranger | two nodes that write know each other |
//! | lock | nobody gets a lock that a node died with before the journal of that node is replayed |
//! | reply | no answer before the effect that it reports; one answer to each request |
//! | locking | all kernels that reach each other run one locking protocol, which each of them knows |
//! | silence | no kernel buries peers by itself; it can, in a scenario without a watchdog |
//! | exit | a daemon ends only when nothing is in use, and its last word that came back says so |
//! | record, door | what was written is read as the same |
//! | growth | no event leads to a flood; messages, effects under way and runs come to an end |
//! | table | no move that the core's tables do not have, and none without the action that it is there for |
//! | rest | healed, everything comes to rest: requests answered, whoever asks is served, views equal, journals clean, locks free, nobody talks |
//!
//! With the policy `none`, or a fence device that lies, who is buried may go on writing: then what
//! depends on that is not asked.

mod said;
#[cfg(test)]
mod tests;
mod violence;

pub use violence::{Patience, Presence};

use std::collections::BTreeMap;

use o2bridge_core::{GroupId, Incarnation, NodeId, Peers, RequestId, ServiceName, Verb};

use crate::machine::Power;
use crate::options::Policy;
use crate::time::Micros;
use crate::volume::{Fate, Journal, Owner};
use crate::world::World;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which checker says so.
    pub checker: &'static str,
    /// When.
    pub at: Micros,
    /// What it saw.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}: {}", self.checker, self.at, self.text)
    }
}

impl World {
    /// A node's present use of a group, if its kernel has it attached.
    pub(crate) fn owner(&self, node: NodeId, group: GroupId) -> Option<Owner> {
        let machine = &self.machines[&node];
        let incarnation = machine.kernel.own(group, node)?;
        Some(Owner { node, boot: machine.boot, incarnation })
    }

    /// Whether all who were buried were really switched off: then nothing unsafe may happen at all.
    pub(crate) fn is_safe(&self) -> bool {
        self.options.policy != Policy::None && self.spared.is_empty()
    }

    fn can_write(&self, group: GroupId, owner: Owner) -> bool {
        let machine = &self.machines[&owner.node];
        machine.boot == owner.boot
            && machine.can_write(group)
            && machine.kernel.knows(group, owner.node, owner.incarnation)
    }

    /// A verb leaves the core.
    pub(crate) fn check_said(&mut self, node: NodeId, group: GroupId, verb: &Verb) {
        if *verb == Verb::Detach {
            return;
        }
        let daemon = self.machines[&node].daemon.as_ref();
        let quorum = daemon.and_then(|daemon| daemon.quorum.clone());
        let Some((true, ring, nodes)) = quorum else {
            return self.violate("gate", || format!("n{node} says {verb:?} outside quorum"));
        };
        self.check_ring(node, (group, verb), ring);
        self.check_agreed(node, verb, (ring, &nodes));
        self.check_saved(node, group, verb);
        if matches!(verb, Verb::Attach(_) | Verb::Resume(_)) {
            self.check_locking(node);
        }
        self.check_asked(node, group, verb);
        let Verb::NodeDown(dead, incarnation) = verb else { return };
        let (dead, incarnation) = (*dead, *incarnation);
        self.counts.node_downs += 1;
        if dead == node {
            self.violate("gate", || format!("n{node} buries itself"));
        }
        let use_ = self.volumes.get(&group).and_then(|it| it.find(dead, incarnation));
        let owner = use_.map(|(owner, _)| owner);
        let runs = owner.is_some_and(|owner| self.runs(owner));
        // Who has it attached, and was in every quorate ring, is buried by nobody, whatever is made sure of.
        let is_missed = self.machines[&dead].parted || self.owner(dead, group) != owner;
        if runs && (self.is_safe() || !is_missed) {
            self.violate("gate", || format!("n{node} buries n{dead}, which runs"));
        }
        let machine = self.machines.get_mut(&node);
        let first = machine.is_some_and(|it| it.told_down.insert((group, dead, incarnation)));
        if !first {
            self.violate("told twice", || format!("n{node}: n{dead} of {group}, {incarnation}"));
        }
    }

    /// A verb reaches the kernel.
    pub(crate) fn check_told(&mut self, node: NodeId, group: GroupId, verb: &Verb) {
        match verb {
            Verb::Attach(peers) | Verb::Resume(peers) => self.check_view(node, group, peers),
            Verb::NodeDown(dead, incarnation) => self.recover(node, group, *dead, *incarnation),
            Verb::Suspend => {}
            Verb::Detach => {
                if self.machines[&node].kernel.is_mounted(group) {
                    return;
                }
                if let Some(owner) = self.owner(node, group) {
                    self.volumes.entry(group).or_default().fates.insert(owner, Fate::Ended);
                }
            }
        }
    }

    /// A new view: who is missing in it without a `node_down` has left.
    fn check_view(&mut self, node: NodeId, group: GroupId, peers: &Peers) {
        let known = self.machines[&node].kernel.regions.get(&group).map(|it| it.known.clone());
        for (peer, incarnation) in known.unwrap_or_default() {
            let stays = peers.get(&peer) == Some(&incarnation);
            if let Some(machine) = self.machines.get_mut(&node).filter(|_| !stays) {
                machine.past.insert((group, peer, incarnation));
            }
            let fate = self.volumes.get(&group).and_then(|it| it.find(peer, incarnation));
            match fate {
                Some((_, Fate::Died)) if !stays => self.violate("lost death", || {
                    format!("n{node} takes the death of n{peer} in {group} for a leave")
                }),
                Some((_, Fate::Active)) if !stays && self.is_safe() => {
                    self.violate("lost death", || {
                        format!("n{node} drops n{peer} from {group}, and it has it attached")
                    });
                }
                Some(_) | None => {}
            }
        }
        self.check_return(node, group, peers);
        let past = &self.machines[&node].past;
        let again = peers.iter().find(|(peer, it)| past.contains(&(group, **peer, **it)));
        if let Some((peer, incarnation)) = again.filter(|_| self.is_safe()) {
            self.violate("view", || {
                format!("n{node} knows n{peer} in {group} again, whose use {incarnation} was over")
            });
        }
        let Some(own) = peers.get(&node).copied() else {
            return self.violate("gate", || format!("n{node} is no peer of its own in {group}"));
        };
        let boot = self.machines[&node].boot;
        let owner = Owner { node, boot, incarnation: own };
        self.volumes.entry(group).or_default().fates.insert(owner, Fate::Active);
    }

    /// Who was buried must not be let in again in that use.
    fn check_return(&mut self, node: NodeId, group: GroupId, peers: &Peers) {
        let machine = &self.machines[&node];
        let is_buried = |(peer, incarnation): &(&NodeId, &Incarnation)| {
            machine.told_down.contains(&(group, **peer, **incarnation))
        };
        let back: Vec<_> = peers.iter().filter(is_buried).map(|(peer, it)| (*peer, *it)).collect();
        for (peer, incarnation) in back {
            self.check_one_return(node, group, (peer, incarnation));
        }
    }

    fn check_one_return(
        &mut self,
        node: NodeId,
        group: GroupId,
        (peer, incarnation): (NodeId, Incarnation),
    ) {
        if self.is_safe() {
            return self.violate("lost death", || {
                format!("n{node} lets n{peer} in again, which it buried in {incarnation}")
            });
        }
        // Without fencing it may come back when all who knew were restarted, or cannot say so any
        // more; then it can die anew.
        let ring = self.corosync.ring(node).map(|(_, nodes, _)| nodes).unwrap_or_default();
        let machine = &self.machines[&node];
        let listed = machine.daemon.as_ref().map(|it| it.control.clone()).unwrap_or_default();
        let heard = |it: &&NodeId| {
            self.is_heard_by(**it, node) && listed.iter().any(|member| member.node == **it)
        };
        let remembers = ring.iter().filter(heard).any(|it| {
            let nodes = self.machines[it].daemon.as_ref().map(|it| it.core.snapshot().nodes);
            nodes.into_iter().flatten().any(|dead| dead.node == peer && dead.fencing != "none")
        });
        if remembers && self.options.policy == Policy::None {
            self.violate("lost death", || {
                format!("n{node} lets n{peer} in again, and somebody remembers its death")
            });
        }
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.told_down.remove(&(group, peer, incarnation));
        }
    }

    /// A kernel recovers what a node left: if it has the volume mounted, it replays the journal.
    pub(crate) fn recover(
        &mut self,
        node: NodeId,
        group: GroupId,
        dead: NodeId,
        incarnation: Incarnation,
    ) {
        let found = self.volumes.get(&group).and_then(|it| it.find(dead, incarnation));
        let Some((owner, _)) = found else { return };
        let alive = self.can_write(group, owner) || self.can_write_hidden(group, owner);
        if alive && self.is_safe() {
            self.violate("buried alive", || {
                format!("n{node} recovers n{dead}, which can still write to {group}")
            });
        }
        if self.machines[&node].kernel.is_mounted(group) {
            let volume = self.volumes.entry(group).or_default();
            let dirty = volume.journals.get(&owner) == Some(&Journal::Dirty);
            self.counts.replays += u64::from(dirty);
            volume.recover(owner);
        }
    }

    /// Whether it can write by a mount that its region does not stand for any more.
    fn can_write_hidden(&self, group: GroupId, owner: Owner) -> bool {
        let machine = &self.machines[&owner.node];
        machine.boot == owner.boot
            && machine.can_write(group)
            && machine.kernel.own(group, owner.node) != Some(owner.incarnation)
    }

    /// All who write know each other.
    pub(crate) fn check_known(&mut self, group: GroupId) {
        if !self.is_safe() {
            return;
        }
        let writes = |machine: &&crate::machine::Machine| machine.can_write(group);
        let writers: Vec<NodeId> = self.machines.values().filter(writes).map(|it| it.id).collect();
        for (a, b) in writers.iter().flat_map(|a| writers.iter().map(move |b| (*a, *b))) {
            let own = self.machines[&b].kernel.own(group, b);
            if own.is_none() || self.machines[&a].kernel.own(group, b) != own {
                self.violate("stranger", || {
                    format!("n{a} and n{b} write to {group}, and n{a} does not know n{b}")
                });
            }
        }
    }

    /// A lock is granted: what it guards is what its last holder has written.
    pub(crate) fn check_lock(&mut self, group: GroupId, owner: Owner) {
        let volume = &self.volumes[&group];
        let is_dirty = |it: &Owner| volume.journals.get(it) == Some(&Journal::Dirty);
        let holder = volume.lock.into_iter().chain(volume.died_with_it).find(is_dirty);
        if let Some(holder) = holder.filter(|_| self.is_safe()) {
            self.violate("lock", || {
                format!("n{} gets the lock of {group} before {holder:?} is recovered", owner.node)
            });
        }
    }

    /// A mount replays the journals of those that it does not know.
    pub(crate) fn check_mount(&mut self, node: NodeId, group: GroupId) {
        let kernel = &self.machines[&node].kernel;
        let dirty: Vec<Owner> =
            self.volumes.get(&group).map(|it| it.dirty().collect()).unwrap_or_default();
        let unknown: Vec<Owner> =
            dirty.into_iter().filter(|it| !kernel.knows(group, it.node, it.incarnation)).collect();
        for owner in unknown {
            if self.can_write(group, owner) && self.is_safe() {
                self.violate("buried alive", || {
                    format!("n{node} mounts {group} and replays the journal of n{}", owner.node)
                });
            }
            self.counts.replays += 1;
            self.volumes.entry(group).or_default().recover(owner);
        }
    }

    /// A tool was told to go ahead.
    pub(crate) fn check_granted(&mut self, node: NodeId, group: GroupId, service: &ServiceName) {
        let machine = &self.machines[&node];
        let attached = machine.kernel.own(group, node).is_some();
        let saved = machine.saved.groups.get(&group);
        let is_saved = saved.is_some_and(|it| it.services.iter().any(|it| it.name == *service));
        let own = machine.kernel.own(group, node);
        if !attached || !is_saved {
            self.violate("reply", || {
                format!("n{node} grants {service}: attached {attached}, saved {is_saved}")
            });
        }
        let deaf = self.machines.values().find(|peer| {
            peer.id != node && peer.can_write(group) && peer.kernel.own(group, node) != own
        });
        if let Some(peer) = deaf.map(|peer| peer.id).filter(|_| self.is_safe()) {
            self.violate("stranger", || {
                format!("n{node} may mount {group}, and n{peer} that writes does not know it")
            });
        }
    }

    /// A tool was told that its result was taken.
    pub(crate) fn check_reported(
        &mut self,
        node: NodeId,
        group: GroupId,
        service: &ServiceName,
        code: i32,
    ) {
        let saved = self.machines[&node].saved.groups.get(&group);
        let live =
            saved.is_some_and(|it| it.services.iter().any(|it| it.name == *service && it.live));
        if code == 0 && !live {
            self.violate("reply", || format!("n{node}: {service} is said to be kept, and is not"));
        }
    }

    /// The administrator gets an answer at once.
    pub(crate) fn check_acked(&mut self, node: NodeId, request: RequestId) {
        let daemon = self.machines[&node].daemon.as_ref();
        if daemon.is_some_and(|it| it.requests.contains_key(&request)) {
            self.violate("reply", || format!("n{node} does not answer an ack"));
        }
    }

    /// A kernel of a user stack is told of a group, and by that what it is to run.
    fn check_locking(&mut self, node: NodeId) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let Some(highest) = machine.locking else { return };
        let Some(ours) = machine.daemon.as_ref().and_then(|daemon| daemon.locking) else {
            return self.violate("locking", || format!("n{node}: nothing is chosen"));
        };
        machine.kernel.meant = Some(ours);
        if !highest.knows(ours) {
            self.violate("locking", || format!("n{node} is to run {ours}, and knows {highest}"));
        }
    }

    /// All kernels that reach each other run the same.
    pub(crate) fn check_running(&mut self, node: NodeId) {
        let machine = &self.machines[&node];
        let (Some(ours), kind) = (machine.kernel.locking, machine.foreign) else { return };
        let ring = self.corosync.ring(node).map(|(_, nodes, _)| nodes).unwrap_or_default();
        let other = self.machines.values().find(|it| {
            let runs = it.kernel.locking.is_some_and(|theirs| theirs != ours);
            runs && it.foreign == kind && it.power != Power::Off && ring.contains(&it.id)
        });
        let other = other.map(|it| (it.id, it.kernel.locking));
        // Without fencing a node that was buried may run on with what the others have forgotten.
        if let Some((other, theirs)) = other.filter(|_| self.is_safe()) {
            self.violate("locking", || format!("n{node} runs {ours}, and n{other} {theirs:?}"));
        }
    }

    /// A tool was told that its leave is done.
    pub(crate) fn check_left(&mut self, node: NodeId, group: GroupId, service: &ServiceName) {
        let saved = self.machines[&node].saved.groups.get(&group);
        let kept = saved.is_some_and(|it| it.services.iter().any(|it| it.name == *service));
        let gone = saved.is_none();
        if kept {
            self.violate("reply", || format!("n{node}: {service} is said to be gone, and is kept"));
        }
        if gone && self.machines[&node].kernel.regions.contains_key(&group) {
            self.violate("reply", || format!("n{node}: {group} is said to be left, and is not"));
        }
    }

    /// Everything has come to rest.
    pub(crate) fn check_rest(&mut self) {
        let ids: Vec<NodeId> = self.machines.keys().copied().collect();
        let here: Vec<NodeId> =
            ids.into_iter().filter(|node| !self.machines[node].given_up).collect();
        for node in &here {
            self.check_node_at_rest(*node);
        }
        let groups: Vec<GroupId> = self.volumes.keys().copied().collect();
        for group in groups {
            self.check_views_at_rest(group, &here);
            if self.is_safe() {
                self.check_disk_at_rest(group);
            }
        }
    }

    /// Whoever asked in a cluster at rest has its volume mounted.
    pub(crate) fn check_served(&mut self, missing: &[(NodeId, GroupId)]) {
        let is_due = |(node, group): &&(NodeId, GroupId)| {
            self.machines[node].power == Power::On && !self.is_held_up(*group)
        };
        if let Some((node, group)) = missing.iter().find(is_due) {
            self.violate("rest", || format!("n{node} asks for {group}, and does not get it"));
        }
    }

    fn check_node_at_rest(&mut self, node: NodeId) {
        let machine = &self.machines[&node];
        let Some(daemon) = machine.daemon.as_ref().filter(|_| machine.power == Power::On) else {
            return self.violate("rest", || format!("n{node} is not there"));
        };
        // Who died needs no answer.
        let waiting = daemon.requests.values().filter_map(|tool| machine.tools.get(tool));
        if waiting.into_iter().any(|tool| !self.is_held_up(tool.group)) {
            let open = format!("n{node}: {:?} of {:?}", daemon.requests, machine.tools);
            self.violate("rest", || open);
            return;
        }
        let regions = &self.machines[&node].kernel.regions;
        let suspended = regions.iter().find(|(_, it)| it.suspended);
        if let Some((group, _)) = suspended.map(|(group, it)| (*group, it.clone())) {
            self.violate("rest", || format!("n{node}: {group} stays suspended"));
        }
    }

    fn check_views_at_rest(&mut self, group: GroupId, here: &[NodeId]) {
        for node in here {
            let ring = self.corosync.ring(*node).map(|(_, nodes, _)| nodes).unwrap_or_default();
            // A daemon that hangs and has nothing to say is a user like any other.
            let hangs = |it: &NodeId| {
                let daemon = self.machines[it].daemon.as_ref();
                ring.contains(it) && daemon.is_some_and(|daemon| daemon.hangs)
            };
            // Of those that stay behind, whoever is in the ring after all, and speaks.
            let speaks = |it: &NodeId| ring.contains(it) && self.machines[it].daemon.is_some();
            let kind = self.machines[node].foreign;
            let counted = self.machines.keys().filter(|it| {
                (here.contains(it) || speaks(it)) && !hangs(it) && self.machines[it].foreign == kind
            });
            let uses: BTreeMap<NodeId, Incarnation> = counted
                .filter_map(|it| Some((*it, self.machines[it].kernel.own(group, *it)?)))
                .collect();
            let region = self.machines[node].kernel.regions.get(&group).cloned();
            let known = region.map(|it| it.known).map(|mut known| {
                known.retain(|it, _| !hangs(it));
                known
            });
            if let Some(known) = known.filter(|known| *known != uses) {
                self.violate("rest", || {
                    format!("n{node} knows {known:?} in {group}, and there are {uses:?}")
                });
            }
        }
    }

    fn check_disk_at_rest(&mut self, group: GroupId) {
        let volume = &self.volumes[&group];
        let is_gone = |owner: &Owner| !self.can_write(group, *owner);
        let used = self.machines.values().any(|it| !it.given_up && it.can_write(group));
        let dirty = volume.dirty().find(is_gone).filter(|_| used);
        let lock = volume.lock.filter(is_gone).filter(|_| used);
        let is_here = |it: &&Owner| !self.machines[&it.node].given_up && !is_gone(it);
        let waits = volume.waiting.iter().find(is_here).copied().filter(|_| volume.lock.is_none());
        if let Some(owner) = dirty {
            self.violate("rest", || format!("nobody replayed the journal of {owner:?} in {group}"));
        }
        if let Some(owner) = lock {
            self.violate("rest", || format!("{owner:?} is gone and holds the lock of {group}"));
        }
        if let Some(owner) = waits {
            self.violate("rest", || format!("{owner:?} is not given the free lock of {group}"));
        }
    }
}
