//! What daemons say of themselves, and of nodes that cannot speak: taken in and given out.

use alloc::vec::Vec;

use crate::action::{Action, Actions};
use crate::effects::Effects;
use crate::fence::Lost;
use crate::handle::{Core, Link};
use crate::lost::is_turn;
use crate::node::{Daemon, Nodes, Peer, has_room};
use crate::proto::{self, Body, Fate, Hello, Testimony, Uses};
use crate::types::{BootId, Channel, GroupId, Incarnation, Member, NodeId, RingId};

/// What a Hello means for the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// The use ended cleanly.
    Ended(NodeId, GroupId, Incarnation),
    /// The node was seen in this boot: what it used in any other died, and writes no more.
    Seen(NodeId, BootId),
    /// The others buried our use of this group.
    Expelled(GroupId, Incarnation),
}

impl Nodes {
    /// Takes a Hello. What it means for our groups is appended to `consequences`.
    pub(crate) fn handle_hello(
        &mut self,
        (from, highest): (Member, u16),
        hello: &Hello,
        consequences: &mut Vec<Consequence>,
        fx: &mut Effects<'_>,
    ) {
        let node = from.node;
        let mut peer = self.peers.remove(&node).unwrap_or(Peer::UNKNOWN);
        self.meet_other_boot(node, hello.boot, fx);
        let same_boot = peer.boot.is_none_or(|boot| boot == hello.boot);
        // Corosync may deliver what was said in an earlier ring, or before quorum went, and much may have
        // happened since.
        let is_of_ring =
            hello.ring.is_some() && hello.ring == self.ring.as_ref().map(|ring| ring.id);
        let is_of_now = is_of_ring && self.quorum.as_ref().is_some_and(|quorum| quorum.quorate);
        // Once more in this ring: quorum may have come to it after we spoke, and then our word did not count.
        let asks = !hello.witness && is_of_ring && peer.heard_in == hello.ring;
        self.stale_hello |= asks && self.witness && Some(node) != self.me;
        let mut uses = hello.uses.clone();
        let mut forgot = false;
        for (group, old) in peer.uses.iter().filter(|_| same_boot) {
            if hello.uses.get(group) == Some(old) {
                continue;
            }
            if *old >= hello.memory_from {
                consequences.push(Consequence::Ended(node, *group, *old));
            } else {
                // That daemon lost its memory, and the kernel may still have the volume mounted.
                forgot = true;
                if has_room(&uses, group) {
                    uses.insert(*group, *old);
                }
            }
        }
        peer = Peer {
            daemon: Daemon::Speaking(from.pid),
            boot: Some(hello.boot),
            uses,
            is_heard: true,
            heard_in: hello.ring,
            forgot,
            complete: true,
            memory_from: hello.memory_from,
            witness: hello.witness && is_of_now,
            highest,
            foreign_use: false,
            locking: hello.locking,
        };
        self.peers.insert(node, peer);
        consequences.push(Consequence::Seen(node, hello.boot));
        if Some(node) == self.me {
            if is_of_ring {
                self.handle_echo(fx);
            }
        } else {
            self.refused_by.remove(&node);
            self.buried_by.remove(&node);
            for testimony in &hello.testimony {
                self.handle_testimony((node, is_of_now), testimony, consequences, fx);
            }
        }
    }

    fn handle_testimony(
        &mut self,
        (from, is_of_now): (NodeId, bool),
        testimony: &Testimony,
        consequences: &mut Vec<Consequence>,
        fx: &mut Effects<'_>,
    ) {
        let node = testimony.node;
        if Some(node) == self.me {
            self.hear_of_ourselves(from, testimony, consequences);
            return;
        }
        if self.is_one_too_many(node) {
            return;
        }
        if self.is_outdated(from, testimony) {
            self.meet_other_boot(node, testimony.boot, fx);
            consequences.push(Consequence::Seen(node, testimony.boot));
        }
        let is_of_ring = self.has_spoken(from);
        match testimony.fate {
            Fate::Missing => self.hear_missing(from, testimony, consequences),
            Fate::Condemned { .. } | Fate::Fenced if self.is_lost_in_another_boot(testimony) => {
                self.hear_of_another_boot((from, is_of_now), testimony);
            }
            Fate::Condemned { turn } => {
                let Some(lost) = self.bury(testimony) else { return };
                let (is_raised, is_proven) = (lost.turn < turn, lost.is_proven());
                if is_raised {
                    lost.pass_turn(turn);
                }
                if is_of_ring && lost.turn == turn {
                    lost.known_to.insert(from);
                }
                // If it is ours now, the others must know that we know.
                self.stale_hello |= is_raised;
                if is_proven && is_of_now {
                    self.remind(from, testimony);
                }
            }
            // Who has a proof says it again in this ring; an old word may be about a boot that is over.
            Fate::Fenced if !is_of_ring => {}
            Fate::Fenced => {
                let is_news =
                    self.bury(testimony).is_some_and(|lost| lost.believe(node, is_of_now, fx));
                self.stale_hello |= is_news;
            }
        }
    }

    /// Words about more nodes than there can be are not kept.
    fn is_one_too_many(&self, node: NodeId) -> bool {
        let is_known = self.peers.contains_key(&node) || self.lost.contains_key(&node);
        !is_known && self.peers.len() + self.lost.len() >= proto::NODES_MAX
    }

    fn hear_of_ourselves(
        &mut self,
        from: NodeId,
        testimony: &Testimony,
        consequences: &mut Vec<Consequence>,
    ) {
        match testimony.fate {
            Fate::Missing => {}
            Fate::Condemned { .. } | Fate::Fenced => {
                if testimony.boot == self.boot {
                    self.buried_by.insert(from);
                    let uses = testimony.uses.iter();
                    consequences
                        .extend(uses.map(|(group, old)| Consequence::Expelled(*group, *old)));
                }
            }
        }
    }

    /// A daemon that is away while its node is in the ring, and that we have not heard ourselves.
    fn hear_missing(
        &mut self,
        from: NodeId,
        testimony: &Testimony,
        consequences: &mut Vec<Consequence>,
    ) {
        let witness = self.peers.get(&from).is_some_and(|peer| peer.witness);
        let buried = self.lost.contains_key(&testimony.node);
        let peer = self.peers.entry(testimony.node).or_insert(Peer::UNKNOWN);
        let absent = matches!(peer.daemon, Daemon::Absent | Daemon::Ignored);
        if !absent || peer.complete || buried {
            return;
        }
        match peer.boot {
            Some(old) if old != testimony.boot && !witness => return,
            Some(old) if old != testimony.boot => {
                consequences.push(Consequence::Seen(testimony.node, testimony.boot));
                peer.uses.clear();
                peer.is_heard = false;
            }
            Some(_) | None => {}
        }
        peer.boot = Some(testimony.boot);
        for (group, use_) in &testimony.uses {
            if !has_room(&peer.uses, group) {
                break;
            }
            // They may remember less than we do: of one group, the latest use counts.
            let latest = peer.uses.entry(*group).or_insert(*use_);
            *latest = (*latest).max(*use_);
        }
        peer.complete = witness;
    }

    /// Whether we hold a node for fenced in a boot that is long over: others, who know all users, have let it in
    /// again while we were not with them. Of one that is not fenced it is not certain which boot is over.
    fn is_outdated(&self, from: NodeId, testimony: &Testimony) -> bool {
        let node = testimony.node;
        !self.witness
            && self.peers.get(&from).is_some_and(|peer| peer.witness)
            && testimony.boot != BootId::UNSEEN
            && self.named_boot(node).is_none()
            && self.is_lost_in_another_boot(testimony)
            && self.lost.get(&node).is_some_and(|lost| lost.is_fenced() && !lost.complete)
    }

    fn is_lost_in_another_boot(&self, testimony: &Testimony) -> bool {
        let is_other = |lost: &Lost| lost.boot != testimony.boot && lost.boot != BootId::UNSEEN;
        self.lost.get(&testimony.node).is_some_and(is_other)
    }

    /// Of two boots that nobody can order, each daemon keeps what it saw; a third boot ends both. Whoever
    /// has fenced the one does nothing about the other, and says so: the turn is another's.
    fn hear_of_another_boot(&mut self, (from, is_of_now): (NodeId, bool), testimony: &Testimony) {
        let fencers = self.fencers();
        let Some(lost) = self.lost.get_mut(&testimony.node) else { return };
        match testimony.fate {
            Fate::Missing => {}
            Fate::Condemned { .. } => {
                if !lost.is_fenced() {
                    lost.add_elsewhere(&testimony.uses);
                }
                if lost.is_proven() && is_of_now {
                    self.remind(from, testimony);
                }
            }
            Fate::Fenced => {
                if !lost.is_fenced() && is_turn(&fencers, lost.turn, Some(from)) {
                    lost.pass_turn(lost.turn.saturating_add(1));
                    self.stale_hello = true;
                }
            }
        }
    }

    /// Somebody waits for a proof that we have said, perhaps when another boot counted there: it is said once
    /// more. Once, because who cannot take it says the same again with each word that it says, and may wait
    /// in vain for one node while we do for another: each would answer the other for ever.
    fn remind(&mut self, from: NodeId, testimony: &Testimony) {
        let last = self.reminded.insert((from, testimony.node), testimony.clone());
        self.stale_hello |= last.as_ref() != Some(testimony);
    }

    /// The entry of a node that others condemned; `None` if we know the node in a later boot.
    fn bury(&mut self, testimony: &Testimony) -> Option<&mut Lost> {
        let node = testimony.node;
        if testimony.boot == BootId::UNSEEN && (self.witness || self.is_in_ring(node)) {
            // We know what they do not, or the node can say it: a word that crossed ours must not fence it once more.
            return None;
        }
        let peer = self.peers.get(&node);
        let known = peer.and_then(|peer| peer.boot);
        let is_lost = self.lost.contains_key(&node);
        // Nor is an old word taken for one about a node that is here without its daemon and was heard, or is known to
        // who knows all users, unless it was so before.
        let is_known = self.witness || peer.is_some_and(|peer| peer.complete);
        let is_here = is_known && !is_lost && known.is_some() && self.is_in_ring(node);
        let is_other = self.named_boot(node).is_some_and(|boot| boot != testimony.boot);
        if is_other || (is_here && known != Some(testimony.boot)) {
            return None;
        }
        // A word that crossed the release: what is over is not buried again.
        if !is_lost && self.has_ended(node, testimony.boot, &testimony.uses) {
            return None;
        }
        // Who names the boot knows more than we do.
        self.lost.retain(|it, lost| *it != node || lost.boot == testimony.boot);
        let new = Lost::new(testimony.boot, testimony.uses.clone());
        let lost = self.lost.entry(node).or_insert_with(|| {
            self.stale_hello = true;
            new
        });
        self.stale_hello |= lost.add(&testimony.uses);
        lost.complete |= self.witness;
        Some(lost)
    }

    /// What we say of nodes that cannot speak for themselves, as far as a message holds it: one that
    /// corosync does not take would cost us the cluster.
    pub(crate) fn testimony(&self) -> Vec<Testimony> {
        let lost = self.lost.iter().map(|(node, lost)| Testimony {
            node: *node,
            boot: lost.boot,
            uses: capped(&lost.uses),
            fate: if lost.is_proven() { Fate::Fenced } else { Fate::Condemned { turn: lost.turn } },
        });
        let missing = self.peers.iter().filter_map(|(node, peer)| {
            let absent = matches!(peer.daemon, Daemon::Absent) && self.is_in_ring(*node);
            // What a witness says is taken for all: one that has yet to hear the rest itself says nothing.
            let is_said = absent && (peer.complete || !self.witness);
            let boot = peer.boot.filter(|_| is_said && !peer.uses.is_empty())?;
            let uses = capped(&peer.uses);
            Some(Testimony { node: *node, boot, uses, fate: Fate::Missing })
        });
        let mut uses_left = proto::TESTIMONY_USES_MAX;
        let fits = |testimony: &Testimony| {
            let left = uses_left.checked_sub(testimony.uses.len());
            uses_left = left.unwrap_or(uses_left);
            left.is_some()
        };
        lost.chain(missing).filter(fits).take(proto::NODES_MAX).collect()
    }
}

impl Core {
    /// Says what we know, when it changed or someone new listens, in a ring that we understand.
    pub(crate) fn say_hello(&mut self, out: &mut Actions) -> bool {
        let ring = self.nodes.concluded_ring();
        let is_due = self.link == Link::Up && self.nodes.stale_hello && ring.is_some();
        if is_due {
            self.say_hello_in(ring, out);
        }
        is_due
    }

    /// The last word before we leave. That what we used has ended must be heard, whichever ring this is.
    pub(crate) fn say_farewell(&mut self, out: &mut Actions) {
        if self.nodes.stale_hello {
            self.say_hello_in(self.nodes.concluded_ring(), out);
        }
    }

    fn say_hello_in(&mut self, ring: Option<RingId>, out: &mut Actions) {
        self.nodes.stale_hello = false;
        let uses: Uses = self.groups.iter().map(|(id, group)| (*id, group.incarnation)).collect();
        let hello = Hello {
            boot: self.nodes.boot,
            memory_from: self.memory_from,
            witness: self.nodes.witness,
            ring,
            uses,
            locking: self.nodes.locking,
            testimony: self.nodes.testimony(),
        };
        let in_use = !self.groups.is_empty();
        self.farewell.handle_said(in_use);
        // In the lowest version: whoever it introduces us to may speak no other.
        let bytes = proto::encode(proto::SPEAKS.0, in_use, &Body::Hello(hello));
        out.push(Action::Mcast { channel: Channel::Control, bytes });
    }
}

/// A node's uses may be more than a message may name, if its daemon forgot some.
fn capped(uses: &Uses) -> Uses {
    uses.iter().take(proto::GROUPS_MAX).map(|(group, use_)| (*group, *use_)).collect()
}
