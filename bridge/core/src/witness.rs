//! A daemon is a *witness* when it knows all users there are. One that has just started, or comes out
//! of an inquorate ring, does not: a node that it has never seen may have a volume mounted. Nor does one
//! that comes into a ring without enough of those who were with it before: they may have been quorate
//! without it. Nor does one that goes on in a quorate ring of no more than half of the nodes when a node goes
//! whose daemon ran: that one may be quorate, too. It becomes one when another witness in the ring has spoken, or
//! when every configured node was seen or, after the grace period, fenced. Nothing is attached before that, and
//! users that were out of the ring when quorum came have the same grace before they are lost. While a daemon whose
//! words we do not understand uses something, nobody is a witness, and nobody is fenced for not being seen. With
//! the policy `none` nodes that were never seen are not awaited.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::mem::take;

use crate::action::{Note, Waiting};
use crate::config::Fencing;
use crate::effects::Effects;
use crate::fence::Lost;
use crate::node::{Daemon, Nodes, Peer};
use crate::proto::Uses;
use crate::timer::Timer;
use crate::types::{BootId, NodeId};

impl Nodes {
    /// Whether we know all users there are by now.
    pub(crate) fn review_witness(&mut self, fx: &Effects<'_>) {
        if !self.is_agreed() {
            return;
        }
        // Who has been met since quorum came and goes again needs no second grace.
        self.met.extend(self.ring.iter().flat_map(|ring| &ring.nodes));
        if self.witness {
            return;
        }
        let heard = self
            .peers
            .values()
            .any(|peer| peer.witness && matches!(peer.daemon, Daemon::Speaking(_)));
        let fenced = self.unseen().is_empty() || fx.tunables.fencing == Fencing::None;
        let met = self.unheard().is_none() && self.absentees().is_empty();
        if self.foreign_user().is_none() && (heard || (fenced && met)) {
            self.witness = true;
            self.doubts = false;
            self.stale_hello = true;
            self.lost.retain(|_, lost| lost.boot != BootId::UNSEEN);
            self.lost.values_mut().for_each(|lost| lost.complete = true);
        }
    }

    /// We were out of quorum, or may have been: others may have let nodes in and out since.
    pub(crate) fn handle_absence(&mut self) {
        self.lost.values_mut().for_each(Lost::handle_absence);
        self.doubt_losses();
        self.forget_witness();
    }

    /// Who is lost may have been let in elsewhere since.
    fn doubt_losses(&mut self) {
        self.lost.values_mut().for_each(|lost| lost.complete = false);
    }

    /// What we know of the users may not be all.
    pub(crate) fn forget_witness(&mut self) {
        self.witness = false;
        self.doubts = false;
        self.met.clear();
        for peer in self.peers.values_mut() {
            peer.complete = false;
            peer.witness = false;
        }
    }

    /// A ring in force follows another: with too few of that one to be sure that they were quorate all the
    /// time, others may have been, and corosync does not tell us of a ring that was not ours.
    pub(crate) fn review_base(&mut self) {
        if !self.is_in_force() {
            return;
        }
        let Some(ring) = &self.ring else { return };
        let stays = |node: &&NodeId| ring.nodes.contains(node) && !self.parted.contains(node);
        let stayed = self.base.iter().filter(stays).count();
        // Whoever is quorate without newcomers was so before they came.
        let has_newcomers = stayed < ring.nodes.len();
        let others = stayed < self.base.len() && stayed * 2 <= self.configured.len();
        let is_most = ring.nodes.len() * 2 > self.configured.len();
        let has_rivals = !is_most && !self.rivals.is_subset(&ring.nodes);
        self.base.clone_from(&ring.nodes);
        self.parted.clear();
        self.rivals.clear();
        if has_newcomers && others {
            self.handle_absence();
        } else if has_rivals && self.witness {
            self.handle_rivals();
        }
    }

    /// Quorum came without most of the nodes (`two_node: 1`, a quorum device), and a daemon that went may have it,
    /// too: of a node that used nothing nobody knows what it uses by now. Whom we have met is still lost at once.
    fn handle_rivals(&mut self) {
        let met = take(&mut self.met);
        self.doubt_losses();
        self.forget_witness();
        self.met = met;
        self.doubts = true;
        self.stale_hello = true;
    }

    /// Configured nodes that are not in the ring, and that may be doing more than we know.
    pub(crate) fn unseen(&self) -> Vec<NodeId> {
        let Some(ring) = &self.ring else { return Vec::new() };
        let known = |node: &NodeId| self.lost.get(node).is_some_and(|lost| lost.complete);
        let unseen = self.configured.iter().filter(|node| !ring.nodes.contains(node));
        unseen.filter(|node| !known(node)).copied().collect()
    }

    /// Users that are not in the ring and not lost: they were out of it when quorum came.
    pub(crate) fn absentees(&self) -> Vec<NodeId> {
        let absent = |node: &NodeId, peer: &Peer| {
            let is_user = peer.foreign_use || (peer.boot.is_some() && !peer.uses.is_empty());
            is_user && !self.is_in_ring(*node) && !self.met.contains(node)
        };
        let absent = self.peers.iter().filter(|(node, peer)| absent(node, peer));
        absent.map(|(node, _)| *node).collect()
    }

    /// A node of the ring without a daemon, of which not all is known: it is awaited for a grace, in which
    /// its keeper resets it if it uses anything.
    pub(crate) fn unheard(&self) -> Option<NodeId> {
        let unheard = |peer: &Peer| !peer.complete && matches!(peer.daemon, Daemon::Absent);
        self.peers.iter().find(|(_, peer)| unheard(peer)).map(|(node, _)| *node)
    }

    /// What keeps us from knowing all users.
    pub(crate) fn unwitnessed(&self) -> Option<Waiting> {
        if self.witness {
            return None;
        }
        let unseen = self.unseen().first().copied().map(Waiting::Fencing);
        let absent = self.absentees().first().copied().map(Waiting::Peer);
        let foreign = self.foreign_user().map(Waiting::Peer);
        foreign.or(unseen).or(absent).or(Some(Waiting::Nothing))
    }

    /// Nodes that nobody here has seen since quorum came have a grace period to show up: a network
    /// that heals comes back in pieces, and the first majority must not shoot the rest.
    pub(crate) fn await_unseen(&self, fx: &mut Effects<'_>) -> BTreeSet<NodeId> {
        // A daemon that keeps restarting must not keep the others waiting: only the ring counts.
        let wanted = !self.witness && self.is_in_force();
        // What keeps us from being a witness in any case is no reason to fence whom we do not know.
        let is_vain = self.foreign_user().is_some();
        let unseen = self.unseen().into_iter();
        let mut awaited: BTreeSet<NodeId> = unseen.chain(self.absentees()).collect();
        awaited.retain(|node| {
            let timer = Timer::Grace(*node);
            let is_lost = self.lost.get(node).is_some_and(|lost| !lost.is_fenced());
            let awaited = wanted && (self.peers.contains_key(node) || !(is_vain || is_lost));
            if awaited && !fx.timers.is_armed(&timer) {
                fx.arm(timer, fx.tunables.grace_ms);
            } else if !awaited {
                fx.cancel(&timer);
            }
            awaited
        });
        awaited
    }

    /// A node did not show up: it has, or may have, a volume mounted, so it is fenced.
    pub(crate) fn miss_unseen(&mut self, node: NodeId, fx: &mut Effects<'_>) {
        if self.witness || !self.is_in_force() {
            return;
        }
        if self.absentees().contains(&node) {
            return self.condemn_node(node, fx);
        }
        if !self.unseen().contains(&node) {
            return;
        }
        self.miss(node, fx);
    }

    /// A node is gone of which we do not know what it uses, or in which boot.
    pub(crate) fn miss(&mut self, node: NodeId, fx: &mut Effects<'_>) {
        self.stale_hello = true;
        match self.lost.get_mut(&node) {
            Some(lost) => {
                // It came back since, so an agent at work, or a proof, is of an earlier boot.
                lost.handle_absence();
                lost.complete = false;
                lost.doubt(node, fx);
            }
            None => {
                self.lost.insert(node, Lost::new(BootId::UNSEEN, Uses::new()));
                fx.note(Note::FenceNeeded(node, BootId::UNSEEN));
            }
        }
    }
}
