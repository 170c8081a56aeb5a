//! The nodes that a quorate ring went on without while they used something: who is lost, whose turn it is to
//! fence, and who is lost no more. Nothing but a new boot of the node, or the end of all uses that it was buried
//! in, undoes a loss.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::action::Note;
use crate::effects::Effects;
use crate::fence::{Lost, Proof};
use crate::node::{Daemon, Nodes, Peer};
use crate::proto::Uses;
use crate::saved::User;
use crate::timer::Timer;
use crate::types::{BootId, GroupId, NodeId};

impl Nodes {
    /// Condemns every user that the quorate ring goes on without, and forgets who used nothing.
    pub(crate) fn condemn(&mut self, fx: &mut Effects<'_>) {
        let Some(ring) = self.ring.as_ref().filter(|_| self.is_in_force()) else { return };
        // Whoever is seen can speak for itself.
        self.lost.retain(|node, lost| lost.boot != BootId::UNSEEN || !ring.nodes.contains(node));
        let gone: Vec<NodeId> =
            self.peers.keys().copied().filter(|node| !ring.nodes.contains(node)).collect();
        let absentees = if self.witness { Vec::new() } else { self.absentees() };
        for node in gone.into_iter().filter(|node| !absentees.contains(node)) {
            fx.cancel(&Timer::Grace(node));
            self.condemn_node(node, fx);
        }
    }

    /// A node that the ring goes on without is lost if it used anything, and forgotten if not.
    pub(crate) fn condemn_node(&mut self, node: NodeId, fx: &mut Effects<'_>) {
        let Some(peer) = self.peers.remove(&node) else { return };
        if peer.foreign_use && Some(node) != self.me {
            self.miss(node, fx);
        }
        // Our own boot under another node id is ourselves, renumbered, and not dead.
        let is_other = |boot: &BootId| *boot != self.boot && !peer.uses.is_empty();
        let Some(boot) = peer.boot.filter(is_other) else { return };
        let lost = self.lost.entry(node).or_insert_with(|| Lost::new(boot, Uses::new()));
        if lost.boot != boot {
            *lost = lost.in_boot(boot);
        }
        lost.running = peer.locking.running.or(lost.running);
        if lost.add(&peer.uses) {
            self.stale_hello = true;
            lost.complete = self.witness;
            fx.note(Note::FenceNeeded(node, boot));
        }
    }

    /// Moves every fencing on.
    pub(crate) fn advance_fencing(&mut self, fx: &mut Effects<'_>) {
        if !self.is_in_force() {
            return;
        }
        let fencers = self.fencers();
        let due: BTreeSet<NodeId> =
            self.lost.keys().copied().filter(|node| self.may_be_fenced(*node)).collect();
        for (node, lost) in &mut self.lost {
            let ours = due.contains(node) && is_turn(&fencers, lost.turn, self.me);
            lost.advance(*node, ours, fx);
            lost.await_turn(*node, (&fencers, self.me), fx);
        }
    }

    /// Whether an agent may begin. What we held for lost before we were out of quorum may be over by now: then all
    /// in the ring have to speak first. One that is in the ring itself may be there in another boot, and is awaited
    /// until it says so; one that has ended what it was buried in is about to be released.
    pub(crate) fn may_be_fenced(&self, node: NodeId) -> bool {
        let Some(lost) = self.lost.get(&node) else { return false };
        let is_awaited = self.is_in_ring(node)
            && self.peers.get(&node).zip(self.ring.as_ref()).is_some_and(|(peer, ring)| {
                matches!(peer.daemon, Daemon::Absent | Daemon::Silent) && peer.owes(&ring.id)
            });
        let is_known = lost.complete || self.is_agreed();
        is_known && !is_awaited && !self.has_ended(node, lost.boot, &lost.uses)
    }

    /// Whose turn it is to fence this node hangs, or does not hold it for lost: the turn passes.
    pub(crate) fn handle_turn_timer(&mut self, node: NodeId) {
        let in_force = self.is_in_force();
        let Some(lost) = self.lost.get_mut(&node) else { return };
        if lost.awaited.take().is_some() && in_force {
            lost.pass_turn(lost.turn.saturating_add(1));
            self.stale_hello = true;
        }
    }

    /// Whether it is our turn to fence this node.
    pub(crate) fn is_our_turn(&self, node: NodeId) -> bool {
        let turn = self.lost.get(&node).map_or(0, |lost| lost.turn);
        self.is_in_force() && is_turn(&self.fencers(), turn, self.me)
    }

    pub(crate) fn fencers(&self) -> Vec<NodeId> {
        let speaks = |peer: &Peer| matches!(peer.daemon, Daemon::Speaking(_));
        self.peers
            .iter()
            .filter(|(node, peer)| speaks(peer) && !self.lost.contains_key(node))
            .map(|(node, _)| *node)
            .collect()
    }

    /// A node seen in another boot than it was lost in has been reset.
    pub(crate) fn meet_other_boot(&mut self, node: NodeId, boot: BootId, fx: &mut Effects<'_>) {
        if self.lost.get(&node).is_some_and(|lost| lost.boot == BootId::UNSEEN) {
            self.lost.remove(&node);
            self.stale_hello = true;
            fx.cancel(&Timer::Fence(node));
        } else if self.lost.get(&node).is_some_and(|lost| lost.boot != boot) {
            if let Some(mut lost) = self.lost.remove(&node) {
                lost.prove(node, (Proof::Reboot, true), fx);
                self.stale_hello = true;
            }
        }
    }

    /// Corosync gives us the number of a node that was lost under it: nobody can fence that one by its
    /// number any more, and to tell of it would be to tell of us.
    pub(crate) fn handle_own_number(&mut self, me: NodeId, fx: &mut Effects<'_>) {
        if self.lost.remove(&me).is_some() {
            fx.cancel(&Timer::Fence(me));
        }
    }

    /// Buried nodes that have ended all the uses that they were buried in may start anew. If they were
    /// fenced these uses died, and write no more; if not, they left them as anybody does.
    pub(crate) fn release(&mut self, fx: &mut Effects<'_>) -> Vec<(NodeId, Lost)> {
        // The others must have our proof before we forget what it was for.
        if self.stale_hello {
            return Vec::new();
        }
        let is_released = |node: &NodeId, lost: &Lost| self.has_ended(*node, lost.boot, &lost.uses);
        let released = self.lost.iter().filter(|(node, lost)| is_released(node, lost));
        let released: Vec<(NodeId, Lost)> =
            released.map(|(node, lost)| (*node, lost.clone())).collect();
        for (node, _) in &released {
            self.lost.remove(node);
            self.stale_hello = true;
            fx.cancel(&Timer::Fence(*node));
        }
        released
    }

    /// Whether a lost node is here, and still uses what it was buried in, or anything, if we do not understand its
    /// daemon: not even the administrator's word makes it dead.
    pub(crate) fn is_undead(&self, node: NodeId) -> bool {
        self.lost.get(&node).is_some_and(|lost| {
            let is_here = self.named_boot(node) == Some(lost.boot);
            is_here && !self.is_idle_foreign(node) && !self.has_ended(node, lost.boot, &lost.uses)
        })
    }

    /// Whether a node says itself, in this boot, that it has ended these uses; or has said so, and is without its
    /// daemon since: then it begins nothing.
    pub(crate) fn has_ended(&self, node: NodeId, boot: BootId, uses: &Uses) -> bool {
        let in_force = self.is_in_force();
        self.peers.get(&node).is_some_and(|peer| {
            let is_said = match peer.daemon {
                Daemon::Speaking(_) => true,
                Daemon::Absent | Daemon::Ignored => in_force && peer.complete && peer.is_heard,
                Daemon::Silent | Daemon::Incompatible(..) => false,
            };
            is_said
                && peer.boot == Some(boot)
                && uses.iter().all(|(group, old)| peer.uses.get(group).is_none_or(|it| it > old))
                && uses.values().all(|old| *old >= peer.memory_from)
        })
    }

    /// Whether this use is one that its node was buried in, or an earlier one of the same group. Of two
    /// boots nobody can say which was first, so the end of one says nothing about the other.
    pub(crate) fn is_condemned(&self, node: NodeId, user: User, group: GroupId) -> bool {
        self.lost.get(&node).is_some_and(|lost| {
            lost.boot == user.boot
                && lost.uses.get(&group).is_some_and(|last| *last >= user.incarnation)
        })
    }

    /// Whether a node that is neither here nor awaited was fenced, in another boot than this: whichever was first,
    /// both are over.
    pub(crate) fn is_fenced_in_another_boot(&self, node: NodeId, boot: BootId) -> bool {
        let is_over = |lost: &Lost| lost.boot != boot && lost.is_fenced() && lost.complete;
        // Our own boot under another node id is ourselves, renumbered.
        let is_gone = !self.peers.contains_key(&node) && boot != self.boot;
        is_gone && self.lost.get(&node).is_some_and(is_over)
    }
}

pub(crate) fn is_turn(fencers: &[NodeId], turn: u32, me: Option<NodeId>) -> bool {
    me.is_some() && whose_turn(fencers, turn) == me
}

pub(crate) fn whose_turn(fencers: &[NodeId], turn: u32) -> Option<NodeId> {
    let turn = usize::try_from(turn).unwrap_or(usize::MAX);
    let index = turn.checked_rem(fencers.len())?;
    fencers.get(index).copied()
}
