//! A daemon is a *witness* when it knows all users there are. One that has just started, or comes out
//! of an inquorate ring, does not: a node that it has never seen may have a volume mounted. It
//! becomes one when another witness in the ring has spoken, or when every configured node was seen
//! or, after the grace period, fenced. Nothing is attached before that.

use alloc::vec::Vec;

use crate::action::Note;
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
        if self.witness || !self.is_agreed() {
            return;
        }
        let heard = self
            .peers
            .values()
            .any(|peer| peer.witness && matches!(peer.daemon, Daemon::Speaking(_)));
        let fenced = self.unseen().is_empty() || fx.tunables.fencing == Fencing::None;
        if heard || (fenced && self.unheard().is_none()) {
            self.witness = true;
            self.stale_hello = true;
            self.lost.retain(|_, lost| lost.boot != BootId::UNSEEN);
            self.lost.values_mut().for_each(|lost| lost.complete = true);
        }
    }

    /// Others may have let nodes in and out since: what we know of the lost is not all any more.
    pub(crate) fn forget_witness(&mut self) {
        self.witness = false;
        self.lost.values_mut().for_each(|lost| lost.complete = false);
        self.peers.values_mut().for_each(|peer| peer.complete = false);
    }

    /// Configured nodes that are not in the ring, and that may be doing more than we know.
    pub(crate) fn unseen(&self) -> Vec<NodeId> {
        let Some(ring) = &self.ring else { return Vec::new() };
        let known = |node: &NodeId| self.lost.get(node).is_some_and(|lost| lost.complete);
        let unseen = self.configured.iter().filter(|node| !ring.nodes.contains(node));
        unseen.filter(|node| !known(node)).copied().collect()
    }

    /// A node of the ring without a daemon, of which not all is known: it is awaited for a grace.
    pub(crate) fn unheard(&self) -> Option<NodeId> {
        let unheard = |peer: &Peer| !peer.complete && matches!(peer.daemon, Daemon::Absent);
        self.peers.iter().find(|(_, peer)| unheard(peer)).map(|(node, _)| *node)
    }

    /// A node that may be a user for all that we know.
    pub(crate) fn unwitnessed(&self) -> Option<NodeId> {
        if self.witness {
            return None;
        }
        self.unseen().first().copied().or(self.me)
    }

    /// Configured nodes that nobody here has seen have a grace period to show up.
    pub(crate) fn await_unseen(&self, fx: &mut Effects<'_>) {
        let wanted = !self.witness && self.is_agreed();
        for node in self.unseen() {
            let timer = Timer::Grace(node);
            let awaited = wanted && self.lost.get(&node).is_none_or(Lost::is_fenced);
            if awaited && !fx.timers.is_armed(&timer) {
                fx.arm(timer, fx.tunables.grace_ms);
            } else if !awaited {
                fx.cancel(&timer);
            }
        }
    }

    /// A configured node did not show up: it may have a volume mounted, so it is fenced.
    pub(crate) fn miss_unseen(&mut self, node: NodeId, fx: &mut Effects<'_>) {
        if self.witness || !self.is_agreed() || !self.unseen().contains(&node) {
            return;
        }
        self.stale_hello = true;
        match self.lost.get_mut(&node) {
            Some(lost) => lost.doubt(node, fx),
            None => {
                self.lost.insert(node, Lost::new(BootId::UNSEEN, Uses::new()));
                fx.note(Note::FenceNeeded(node, BootId::UNSEEN));
            }
        }
    }
}
