//! What must hold when a verb leaves the core, whatever the kernel then makes of it.

use o2bridge_core::{Channel, GroupId, Incarnation, Member, NodeId, RingId, Verb};

use crate::machine::Power;
use crate::volume::Owner;
use crate::world::World;

impl World {
    /// Whether a use's node was neither switched off nor reset since.
    pub(super) fn runs(&self, owner: Owner) -> bool {
        let machine = &self.machines[&owner.node];
        machine.boot == owner.boot && machine.power != Power::Off
    }

    /// Whether a node's daemon can be heard by another's: it does not hang, and speaks the same
    /// version.
    pub(super) fn is_heard_by(&self, speaker: NodeId, listener: NodeId) -> bool {
        let machine = &self.machines[&speaker];
        machine.daemon.as_ref().is_some_and(|it| !it.hangs)
            && machine.foreign == self.machines[&listener].foreign
    }

    /// The quorum service, the control group and the mountgroup speak of one ring.
    pub(super) fn check_ring(
        &mut self,
        node: NodeId,
        (group, verb): (GroupId, &Verb),
        ring: RingId,
    ) {
        let daemon = self.machines[&node].daemon.as_ref();
        let seen = |channel: &Channel| daemon.and_then(|it| it.totems.get(channel)).copied();
        let is_elsewhere = |channel: &Channel| seen(channel).is_some_and(|it| it != ring);
        let channels = [Channel::Control, Channel::Group(group)];
        if let Some(channel) = channels.into_iter().find(is_elsewhere) {
            self.violate("gate", || format!("n{node} says {verb:?}, and {channel:?} is not there"));
        }
    }

    /// All daemons that can speak in a ring have seen it.
    pub(super) fn check_agreed(
        &mut self,
        node: NodeId,
        verb: &Verb,
        (ring, nodes): (RingId, &[NodeId]),
    ) {
        let machine = &self.machines[&node];
        let control = machine.daemon.as_ref().map(|it| it.control.clone()).unwrap_or_default();
        let has_not_seen = |member: &&Member| {
            let peer = &self.machines[&member.node];
            let daemon = peer.daemon.as_ref().filter(|it| it.pid == member.pid && it.connected);
            let seen = daemon.and_then(|daemon| daemon.quorum.as_ref()).map(|(_, seen, _)| *seen);
            let speaks = daemon.is_some() && peer.foreign == machine.foreign;
            // One whose corosync was restarted meanwhile has seen it before.
            let is_there = self.corosync.ring(member.node).is_some_and(|(id, ..)| id == ring);
            speaks
                && is_there
                && nodes.contains(&member.node)
                && seen.is_none_or(|seen| seen.seq < ring.seq)
        };
        let peers = control.iter().filter(has_not_seen).map(|member| member.node);
        // Nor is one that uses nothing, and owed its word for a whole grace.
        let nodes = |it: &crate::machine::Daemon| it.core.snapshot().nodes;
        let is_ignored = |peer: &NodeId| {
            let known = machine.daemon.as_ref().map(nodes).unwrap_or_default();
            let uses_nothing = self.machines[peer].kernel.regions.is_empty();
            uses_nothing && known.iter().any(|it| it.node == *peer && it.daemon == "ignored")
        };
        if let Some(peer) = peers.into_iter().find(|peer| !is_ignored(peer)) {
            self.violate("gate", || {
                format!("n{node} says {verb:?}, and n{peer} has not seen the ring")
            });
        }
    }

    /// What changes for a kernel comes between suspend and resume; the same resume may be said twice.
    pub(super) fn check_asked(&mut self, node: NodeId, group: GroupId, verb: &Verb) {
        let region = self.machines[&node].kernel.regions.get(&group);
        let is_due = match verb {
            Verb::NodeDown(..) => true,
            Verb::Resume(peers) => region.is_none_or(|region| region.known != *peers),
            Verb::Attach(_) | Verb::Suspend | Verb::Detach => false,
        };
        if is_due && !region.is_some_and(|region| region.asked) {
            self.violate("gate", || format!("n{node} says {verb:?} before suspend"));
        }
    }

    /// Whoever comes after a daemon that dies now knows what its kernel may know.
    pub(super) fn check_saved(&mut self, node: NodeId, group: GroupId, verb: &Verb) {
        let saved = self.machines[&node].saved.groups.get(&group);
        let holds = |peer: &NodeId, use_: &Incarnation| {
            saved.and_then(|it| it.told.get(peer)).is_some_and(|user| user.incarnation == *use_)
        };
        let is_kept = saved.is_some_and(|it| it.unfinished)
            && match verb {
                Verb::Attach(peers) | Verb::Resume(peers) => {
                    peers.iter().all(|(peer, use_)| holds(peer, use_))
                }
                Verb::NodeDown(dead, use_) => holds(dead, use_),
                Verb::Suspend | Verb::Detach => true,
            };
        if !is_kept {
            let saved = saved.cloned();
            self.violate("memory", || format!("n{node} says {verb:?}, and has saved {saved:?}"));
        }
    }
}
