//! What a group that is not settled waits for.

use crate::action::Waiting;
use crate::group::{Group, Presence};
use crate::node::Nodes;
use crate::service::Service;
use crate::types::NodeId;
use crate::users::Using;

impl Group {
    /// Whether this group's view is the one that the cluster agreed on.
    pub(crate) fn is_gate_open(&self, nodes: &Nodes) -> bool {
        self.presence == Presence::In
            && nodes.is_agreed()
            && !nodes.is_buried()
            && self.ring.as_ref().map(|ring| ring.id) == nodes.ring.as_ref().map(|ring| ring.id)
            && self.users.keys().all(|node| nodes.is_in_ring(*node))
    }

    /// What is in use goes on, whatever a daemon that came later uses against our word.
    fn may_doubt(&self, nodes: &Nodes) -> bool {
        nodes.doubts && self.lane.is_attached()
    }

    /// What keeps the first attach from naming everyone whom it must name.
    pub(crate) fn attach_waits_for(&self, nodes: &Nodes) -> Option<Waiting> {
        let me = nodes.me?;
        if self.users.get(&me).is_none_or(|own| own.user.incarnation != self.incarnation) {
            return Some(Waiting::Peer(me));
        }
        if let Some(node) = nodes.unheard() {
            return Some(Waiting::Peer(node));
        }
        if let Some(waiting) = nodes.unwitnessed().filter(|_| !self.may_doubt(nodes)) {
            return Some(waiting);
        }
        if let Some((node, _)) = nodes.lost.iter().find(|(_, lost)| lost.may_use(&self.id)) {
            return Some(Waiting::Fencing(*node));
        }
        let silent = self.members.iter().find(|member| {
            let said = self.users.get(&member.node).and_then(|using| using.pid);
            nodes.is_expected(**member) && said != Some(member.pid)
        });
        let elsewhere = nodes.peers.iter().find(|(node, peer)| {
            peer.uses.contains_key(&self.id)
                && !self.users.contains_key(node)
                && !nodes.lost.contains_key(node)
        });
        let node = silent.map(|member| member.node).or(elsewhere.map(|(node, _)| *node));
        node.map(Waiting::Peer)
    }

    /// A user whose shim does not know us yet.
    pub(crate) fn unaware(&self, me: Option<NodeId>) -> Option<NodeId> {
        let knows = |using: &Using| {
            me.and_then(|me| using.told.get(&me))
                .is_some_and(|user| user.incarnation == self.incarnation)
        };
        let mut users = self.users.iter().filter(|(node, _)| Some(**node) != me);
        users.find(|(_, using)| !knows(using)).map(|(node, _)| *node)
    }

    /// What the group waits for, in the order in which it has to be settled.
    pub(crate) fn waits_for(&self, nodes: &Nodes, connected: bool) -> Waiting {
        if !connected {
            return Waiting::Cluster;
        }
        if !nodes.is_in_force() {
            return Waiting::Quorum;
        }
        if let Some(node) = nodes.first_owing() {
            return Waiting::Peer(node);
        }
        let absent = |node: &NodeId| !nodes.is_in_ring(*node);
        if let Some(node) = self.users.keys().copied().find(absent) {
            return Waiting::Peer(node);
        }
        if nodes.is_buried() {
            return nodes.me.map_or(Waiting::Nothing, Waiting::Fencing);
        }
        if let Some(step) = self.lane.busy_with() {
            return Waiting::Shim(step);
        }
        if let Some(node) = self.dead.keys().next() {
            return Waiting::Fencing(*node);
        }
        let begins = self.services.values().any(Service::is_beginning);
        if begins || (!self.lane.is_attached() && !self.is_closing()) {
            if let Some(waiting) = self.attach_waits_for(nodes) {
                return waiting;
            }
        }
        if let Some(waiting) =
            nodes.locking_waits_for().filter(|_| self.lane.is_unsure() && !self.is_closing())
        {
            return waiting;
        }
        self.unaware(nodes.me).map_or(Waiting::Nothing, Waiting::Peer)
    }
}
