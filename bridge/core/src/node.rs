//! The nodes of the cluster and their daemons: who is in the ring, who speaks, who is lost.
//!
//! One record per node; its daemon:
//!
//! | daemon \ event | in control group, no word | Hello we understand | Hello we do not | left the control group | grace over |
//! |---|---|---|---|---|---|
//! | Absent       | Silent | -        | -            | -      | killed if in use, else forgotten |
//! | Silent       | -      | Speaking | Incompatible | Absent | killed if in use, else Ignored |
//! | Speaking     | -      | Speaking | Incompatible | Absent | killed if in use, else Ignored |
//! | Incompatible | -      | Speaking | Incompatible | Absent | - |
//! | Ignored      | -      | Speaking | Incompatible | Absent | - |
//!
//! A node in use that a quorate ring goes on without becomes [`Lost`]. Nothing but a new boot of the
//! node, or the end of all uses that it was buried in, undoes that.
//!
//! A daemon is a *witness* when it knows all users there are. One that has just started, or comes out
//! of an inquorate ring, does not: a node that it has never seen may have a volume mounted. It
//! becomes one when another witness in the ring has spoken, or when every configured node was seen
//! or, after the grace period, fenced. Nothing is attached before that.
//!
//! "Agreed" is the gate before the kernel: quorate, the control group has seen the same ring as the
//! quorum service, and every daemon in that ring has said that it has seen it too. A node that was
//! cut off hears NODEDOWN of everyone before it hears that it is inquorate, and one that returns must
//! hear that it was buried before it may act: both are what the gate keeps out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::action::Note;
use crate::config::Fencing;
use crate::effects::Effects;
use crate::fence::{Lost, Proof};
use crate::proto::{self, Envelope, Fate, Hello, Testimony, Uses};
use crate::timer::Timer;
use crate::types::{BootId, GroupId, Incarnation, Member, NodeId, Pid, RingId};

/// One ring and its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) id: RingId,
    pub(crate) nodes: BTreeSet<NodeId>,
}

/// The last word of the quorum service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quorum {
    pub(crate) quorate: bool,
    pub(crate) ring: Ring,
}

/// Who speaks for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Daemon {
    Absent,
    Silent,
    Speaking(Pid),
    Incompatible(Pid, Envelope),
    Ignored,
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) daemon: Daemon,
    pub(crate) boot: Option<BootId>,
    pub(crate) uses: Uses,
    /// The ring that its last Hello was said in.
    heard_in: Option<RingId>,
    /// Whether some of its uses are older than its daemon's memory: they may still be mounted.
    forgot: bool,
    /// Whether these are all its uses: it said so itself, or a witness did.
    complete: bool,
    witness: bool,
    highest: u16,
}

impl Peer {
    const UNKNOWN: Self = Self {
        daemon: Daemon::Absent,
        boot: None,
        uses: Uses::new(),
        heard_in: None,
        forgot: false,
        complete: false,
        witness: false,
        highest: 0,
    };
}

/// What a Hello means for the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// The use ended cleanly.
    Ended(NodeId, GroupId, Incarnation),
    /// The node was seen in another boot than this one: what it used then died.
    Rebooted(NodeId, BootId),
    /// The node lives on and has ended what it was buried in: that use died, and writes no more.
    Released(NodeId, GroupId, Incarnation),
    /// The others buried our use of this group.
    Expelled(GroupId, Incarnation),
}

/// All nodes.
#[derive(Debug, Clone)]
pub(crate) struct Nodes {
    pub(crate) me: Option<NodeId>,
    pub(crate) boot: BootId,
    pub(crate) quorum: Option<Quorum>,
    /// The ring of the control group; `None` while we are not in it.
    pub(crate) ring: Option<Ring>,
    members: BTreeSet<Member>,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) lost: BTreeMap<NodeId, Lost>,
    /// Who holds this boot of ours for dead.
    buried_by: BTreeSet<NodeId>,
    /// Daemons that refused us, with what they speak.
    refused_by: BTreeMap<NodeId, (u16, u16)>,
    /// The nodelist of corosync.conf.
    pub(crate) configured: BTreeSet<NodeId>,
    /// Whether we know all users there are.
    pub(crate) witness: bool,
    /// Whether our Hello no longer says what we know.
    pub(crate) stale_hello: bool,
}

impl Nodes {
    pub(crate) fn new(boot: BootId) -> Self {
        Self {
            me: None,
            boot,
            quorum: None,
            ring: None,
            members: BTreeSet::new(),
            peers: BTreeMap::new(),
            lost: BTreeMap::new(),
            buried_by: BTreeSet::new(),
            refused_by: BTreeMap::new(),
            configured: BTreeSet::new(),
            witness: false,
            stale_hello: true,
        }
    }

    /// What a predecessor knew: these nodes used this group when it last looked.
    pub(crate) fn remember(
        &mut self,
        node: NodeId,
        boot: BootId,
        group: GroupId,
        use_: Incarnation,
    ) {
        let peer = self.peers.entry(node).or_insert(Peer::UNKNOWN);
        peer.boot = Some(boot);
        peer.uses.insert(group, use_);
    }

    /// A use that ended cleanly.
    pub(crate) fn forget(&mut self, node: NodeId, group: GroupId, use_: Incarnation) {
        if let Some(peer) = self.peers.get_mut(&node) {
            if peer.uses.get(&group) == Some(&use_) {
                peer.uses.remove(&group);
            }
        }
    }

    /// Corosync is gone: nothing that it said counts any more, what the nodes used does.
    pub(crate) fn handle_disconnected(&mut self, fx: &mut Effects<'_>) {
        self.quorum = None;
        self.forget_witness();
        self.ring = None;
        self.members.clear();
        self.refused_by.clear();
        self.buried_by.clear();
        self.stale_hello = true;
        for (node, peer) in &mut self.peers {
            peer.daemon = Daemon::Absent;
            peer.heard_in = None;
            fx.cancel(&Timer::Grace(*node));
        }
    }

    /// Out of quorum, others may decide things that we do not hear of.
    pub(crate) fn handle_quorum(&mut self, quorum: Quorum) {
        if !quorum.quorate {
            self.stale_hello |= self.witness;
            self.forget_witness();
        }
        self.quorum = Some(quorum);
    }

    /// Whether the quorum service and the control group speak of the same ring.
    fn is_consistent(&self) -> bool {
        match (&self.quorum, &self.ring) {
            (Some(quorum), Some(ring)) => quorum.ring.id == ring.id,
            (Some(_) | None, None) | (None, Some(_)) => false,
        }
    }

    /// Whether decisions may be made here: quorate, in the ring that the control group has seen.
    pub(crate) fn is_in_force(&self) -> bool {
        self.is_consistent() && self.quorum.as_ref().is_some_and(|quorum| quorum.quorate)
    }

    /// Whether the kernel may be told what was decided.
    pub(crate) fn is_agreed(&self) -> bool {
        self.is_in_force() && self.first_owing().is_none()
    }

    /// A daemon in the ring that has not said yet that it has seen the ring.
    pub(crate) fn first_owing(&self) -> Option<NodeId> {
        let ring = self.ring.as_ref()?;
        let owes = |node: &NodeId| match self.peers.get(node) {
            Some(peer) => match peer.daemon {
                Daemon::Silent => true,
                Daemon::Speaking(_) => peer.heard_in != Some(ring.id),
                Daemon::Absent | Daemon::Incompatible(..) | Daemon::Ignored => false,
            },
            None => false,
        };
        ring.nodes.iter().find(|node| owes(node)).copied()
    }

    pub(crate) fn is_in_ring(&self, node: NodeId) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.nodes.contains(&node))
    }

    /// The control group changed. Those who came do not know us yet, and must say who they are.
    pub(crate) fn handle_confchg(&mut self, members: &[Member], came: &[NodeId]) {
        self.members = members.iter().copied().collect();
        self.stale_hello |= !came.is_empty();
        for node in came {
            let Some(peer) = self.peers.get_mut(node) else { continue };
            match peer.daemon {
                Daemon::Ignored => peer.daemon = Daemon::Absent,
                Daemon::Absent
                | Daemon::Silent
                | Daemon::Speaking(_)
                | Daemon::Incompatible(..) => {}
            }
        }
        self.review_daemons();
    }

    pub(crate) fn handle_ring(&mut self, ring: Ring) {
        self.refused_by.retain(|node, _| ring.nodes.contains(node));
        self.buried_by.retain(|node| ring.nodes.contains(node));
        self.ring = Some(ring);
        self.stale_hello = true;
        self.review_daemons();
    }

    /// Members whose node is not in the ring are ghosts: corosync may list the dead.
    pub(crate) fn ghosts(&self) -> Vec<Member> {
        self.members.iter().copied().filter(|member| !self.is_in_ring(member.node)).collect()
    }

    /// Brings every daemon's state in line with the control group's members and ring.
    fn review_daemons(&mut self) {
        let present: BTreeSet<Member> =
            self.members.iter().copied().filter(|member| self.is_in_ring(member.node)).collect();
        for node in self.ring.iter().flat_map(|ring| &ring.nodes) {
            self.peers.entry(*node).or_insert(Peer::UNKNOWN);
        }
        for (node, peer) in &mut self.peers {
            let speaks = |pid| present.contains(&Member { node: *node, pid });
            let any = present.iter().any(|member| member.node == *node);
            peer.daemon = match peer.daemon {
                Daemon::Speaking(pid) | Daemon::Incompatible(pid, _) if speaks(pid) => peer.daemon,
                // Only coming anew, or a word of its own, brings an ignored daemon back.
                Daemon::Ignored if self.ring.is_some() => Daemon::Ignored,
                Daemon::Absent | Daemon::Silent if any => Daemon::Silent,
                // Whoever else is in the group from that node has not said what it is.
                Daemon::Speaking(_) | Daemon::Incompatible(..) if any => Daemon::Silent,
                Daemon::Absent
                | Daemon::Silent
                | Daemon::Speaking(_)
                | Daemon::Incompatible(..)
                | Daemon::Ignored => Daemon::Absent,
            };
        }
    }

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
        self.meet_other_boot(node, &peer, hello.boot, consequences, fx);
        let same_boot = peer.boot.is_none_or(|boot| boot == hello.boot);
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
                uses.insert(*group, *old);
            }
        }
        peer = Peer {
            daemon: Daemon::Speaking(from.pid),
            boot: Some(hello.boot),
            uses,
            heard_in: hello.ring,
            forgot,
            complete: true,
            witness: hello.witness,
            highest,
        };
        self.peers.insert(node, peer);
        self.release(node, hello, consequences);
        if Some(node) != self.me {
            self.refused_by.remove(&node);
            self.buried_by.remove(&node);
            for testimony in &hello.testimony {
                self.handle_testimony(node, testimony, consequences, fx);
            }
        }
    }

    /// A node seen in another boot: what it used in the earlier one died, and provably so.
    fn meet_other_boot(
        &mut self,
        node: NodeId,
        known: &Peer,
        boot: BootId,
        consequences: &mut Vec<Consequence>,
        fx: &mut Effects<'_>,
    ) {
        if let Some(old) = known.boot.filter(|old| *old != boot && !known.uses.is_empty()) {
            consequences.push(Consequence::Rebooted(node, old));
        }
        if self.lost.get(&node).is_some_and(|lost| lost.boot == BootId::UNSEEN) {
            self.lost.remove(&node);
            self.stale_hello = true;
            fx.cancel(&Timer::Fence(node));
        } else if self.lost.get(&node).is_some_and(|lost| lost.boot != boot) {
            if let Some(mut lost) = self.lost.remove(&node) {
                lost.prove(node, Proof::Reboot, fx);
                consequences.push(Consequence::Rebooted(node, lost.boot));
                self.stale_hello = true;
            }
        }
    }

    /// A buried node that has ended all the uses that it was buried in may start anew.
    fn release(&mut self, node: NodeId, hello: &Hello, consequences: &mut Vec<Consequence>) {
        let released = self.lost.get(&node).is_some_and(|lost| {
            lost.boot == hello.boot
                && lost.is_fenced()
                && lost.uses.iter().all(|(group, old)| hello.uses.get(group) != Some(old))
                && lost.uses.values().all(|old| *old >= hello.memory_from)
        });
        let lost = if released { self.lost.remove(&node) } else { None };
        if let Some(lost) = lost {
            self.stale_hello = true;
            let uses = lost.uses.iter();
            consequences.extend(uses.map(|(id, old)| Consequence::Released(node, *id, *old)));
        }
    }

    fn handle_testimony(
        &mut self,
        from: NodeId,
        testimony: &Testimony,
        consequences: &mut Vec<Consequence>,
        fx: &mut Effects<'_>,
    ) {
        let node = testimony.node;
        if Some(node) == self.me {
            self.hear_of_ourselves(from, testimony, consequences);
            return;
        }
        match testimony.fate {
            Fate::Missing => self.hear_missing(from, testimony, consequences),
            Fate::Condemned { turn } => {
                if let Some(lost) = self.bury(testimony) {
                    lost.turn = lost.turn.max(turn);
                }
            }
            Fate::Fenced => {
                let proven =
                    self.bury(testimony).is_some_and(|lost| lost.prove(node, Proof::Testimony, fx));
                self.stale_hello |= proven;
            }
        }
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
                consequences.push(Consequence::Rebooted(testimony.node, old));
                peer.uses.clear();
            }
            Some(_) | None => {}
        }
        peer.boot = Some(testimony.boot);
        peer.uses.extend(&testimony.uses);
        peer.complete = witness;
    }

    /// The entry of a node that others condemned; `None` if we know the node in a later boot.
    fn bury(&mut self, testimony: &Testimony) -> Option<&mut Lost> {
        let node = testimony.node;
        let known = self.peers.get(&node).and_then(|peer| peer.boot);
        let is_speaking =
            self.peers.get(&node).is_some_and(|peer| matches!(peer.daemon, Daemon::Speaking(_)));
        if is_speaking && known != Some(testimony.boot) {
            return None;
        }
        // Of two boots that nobody can order, each daemon keeps what it saw; a third boot ends both.
        if self.lost.get(&node).is_some_and(|lost| lost.boot != testimony.boot) {
            return None;
        }
        let new = Lost::new(testimony.boot, testimony.uses.clone());
        let lost = self.lost.entry(node).or_insert_with(|| {
            self.stale_hello = true;
            new
        });
        self.stale_hello |= lost.add(&testimony.uses);
        Some(lost)
    }

    /// Condemns every user that the quorate ring goes on without, and forgets other absentees.
    pub(crate) fn condemn(&mut self, fx: &mut Effects<'_>) {
        let Some(ring) = self.ring.clone().filter(|_| self.is_in_force()) else { return };
        // Whoever is seen can speak for itself.
        self.lost.retain(|node, lost| lost.boot != BootId::UNSEEN || !ring.nodes.contains(node));
        let gone: Vec<NodeId> =
            self.peers.keys().copied().filter(|node| !ring.nodes.contains(node)).collect();
        for node in gone {
            fx.cancel(&Timer::Grace(node));
            let Some(peer) = self.peers.remove(&node) else { continue };
            let Some(boot) = peer.boot.filter(|_| !peer.uses.is_empty()) else { continue };
            let witness = self.witness;
            let lost = self.lost.entry(node).or_insert_with(|| Lost::new(boot, Uses::new()));
            if lost.boot != boot {
                *lost = Lost::new(boot, Uses::new());
            }
            if lost.add(&peer.uses) {
                self.stale_hello = true;
                lost.complete = witness;
                fx.note(Note::FenceNeeded(node, boot));
            }
        }
    }

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
            self.peers.values_mut().for_each(|peer| peer.complete = true);
        }
    }

    /// Others may have let nodes in and out since: what we know of the lost is not all any more.
    fn forget_witness(&mut self) {
        self.witness = false;
        self.lost.values_mut().for_each(|lost| lost.complete = false);
        self.peers.values_mut().for_each(|peer| peer.complete = false);
    }

    /// Configured nodes that are not in the ring, and that may be doing more than we know.
    fn unseen(&self) -> Vec<NodeId> {
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

    /// Moves every fencing on. Says whether one was settled.
    pub(crate) fn advance_fencing(&mut self, fx: &mut Effects<'_>) {
        if !self.is_in_force() {
            return;
        }
        let fencers = self.fencers();
        for (node, lost) in &mut self.lost {
            let ours = is_turn(&fencers, lost.turn, self.me);
            lost.advance(*node, ours, fx);
        }
    }

    /// Whether it is our turn to fence this node.
    pub(crate) fn is_our_turn(&self, node: NodeId) -> bool {
        let turn = self.lost.get(&node).map_or(0, |lost| lost.turn);
        self.is_in_force() && is_turn(&self.fencers(), turn, self.me)
    }

    fn fencers(&self) -> Vec<NodeId> {
        let speaks = |peer: &Peer| matches!(peer.daemon, Daemon::Speaking(_));
        self.peers
            .iter()
            .filter(|(node, peer)| speaks(peer) && !self.lost.contains_key(node))
            .map(|(node, _)| *node)
            .collect()
    }

    /// Who has a debt: a use without its daemon, or a daemon without its word, in a quorate ring.
    pub(crate) fn review_debts(&mut self, fx: &mut Effects<'_>) {
        let in_force = self.is_in_force();
        let Some(ring) = self.ring.clone() else { return };
        self.await_unseen(fx);
        for (node, peer) in &self.peers {
            let timer = Timer::Grace(*node);
            let owes = in_force
                && Some(*node) != self.me
                && ring.nodes.contains(node)
                && peer.owes(&ring.id);
            if owes && !fx.timers.is_armed(&timer) {
                let grace_ms = fx.tunables.grace_ms;
                fx.arm(timer, grace_ms);
                if matches!(peer.daemon, Daemon::Absent) && !peer.uses.is_empty() {
                    fx.note(Note::Debt(*node, fx.now.after(grace_ms)));
                }
            } else if !owes && fx.timers.is_armed(&timer) {
                fx.cancel(&timer);
                let speaks = matches!(peer.daemon, Daemon::Speaking(_));
                if in_force && ring.nodes.contains(node) && speaks {
                    fx.note(Note::DebtPaid(*node));
                }
            }
        }
    }

    /// Configured nodes that nobody here has seen have a grace period to show up.
    fn await_unseen(&self, fx: &mut Effects<'_>) {
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
    fn miss_unseen(&mut self, node: NodeId, fx: &mut Effects<'_>) {
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

    /// The grace of a node is over. True: corosync must end the node.
    pub(crate) fn handle_grace(&mut self, node: NodeId, fx: &mut Effects<'_>) -> bool {
        self.miss_unseen(node, fx);
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        let in_use = !peer.uses.is_empty();
        if !in_use {
            peer.daemon = match peer.daemon {
                Daemon::Absent | Daemon::Silent | Daemon::Speaking(_) => Daemon::Ignored,
                Daemon::Incompatible(..) | Daemon::Ignored => peer.daemon,
            };
        }
        in_use
    }

    /// A daemon whose version we do not speak.
    pub(crate) fn handle_foreign(
        &mut self,
        from: Member,
        envelope: Envelope,
        fx: &mut Effects<'_>,
    ) {
        let peer = self.peers.entry(from.node).or_insert(Peer::UNKNOWN);
        let known = Daemon::Incompatible(from.pid, envelope);
        if peer.daemon != known {
            peer.daemon = known;
            fx.note(Note::Incompatible(from.node, envelope.speaks));
        }
    }

    /// A daemon will not work with us. What is in use here already goes on.
    pub(crate) fn handle_refused(&mut self, by: NodeId, envelope: Envelope) {
        self.refused_by.insert(by, envelope.speaks);
    }

    /// Why we must not begin to use a group: someone who speaks another version was first.
    pub(crate) fn incompatible(&self) -> Option<(NodeId, (u16, u16))> {
        let in_use = self.peers.iter().find_map(|(node, peer)| match peer.daemon {
            Daemon::Incompatible(_, envelope) if envelope.in_use => Some((*node, envelope.speaks)),
            Daemon::Incompatible(..)
            | Daemon::Absent
            | Daemon::Silent
            | Daemon::Speaking(_)
            | Daemon::Ignored => None,
        });
        in_use.or_else(|| self.refused_by.iter().next().map(|(node, speaks)| (*node, *speaks)))
    }

    /// The version that all daemons of the ring speak: the minimum of their highest.
    pub(crate) fn protocol(&self) -> u16 {
        let theirs = self.peers.values().filter(|peer| matches!(peer.daemon, Daemon::Speaking(_)));
        theirs.map(|peer| peer.highest).fold(proto::SPEAKS.1, u16::min)
    }

    /// The process that speaks for a node.
    pub(crate) fn speaker(&self, node: NodeId) -> Option<Pid> {
        match self.peers.get(&node)?.daemon {
            Daemon::Speaking(pid) => Some(pid),
            Daemon::Absent | Daemon::Silent | Daemon::Incompatible(..) | Daemon::Ignored => None,
        }
    }

    /// Whether this use is one that its node was buried in, or an earlier one of the same group.
    pub(crate) fn is_condemned(
        &self,
        node: NodeId,
        boot: BootId,
        use_: (GroupId, Incarnation),
    ) -> bool {
        self.lost
            .get(&node)
            .is_some_and(|lost| lost.boot == boot && lost.uses.get(&use_.0) >= Some(&use_.1))
    }

    pub(crate) fn boot_of(&self, node: NodeId) -> Option<BootId> {
        self.peers.get(&node)?.boot
    }

    pub(crate) fn is_control_member(&self, member: Member) -> bool {
        self.members.contains(&member)
    }

    /// Whether all daemons have heard that we use this group.
    pub(crate) fn is_announced(&self, group: GroupId, incarnation: Incarnation) -> bool {
        let own = self.me.and_then(|me| self.peers.get(&me));
        own.is_some_and(|peer| {
            matches!(peer.daemon, Daemon::Speaking(_))
                && peer.uses.get(&group) == Some(&incarnation)
        })
    }

    /// What we say of nodes that cannot speak for themselves.
    pub(crate) fn testimony(&self) -> Vec<Testimony> {
        let lost = self.lost.iter().map(|(node, lost)| Testimony {
            node: *node,
            boot: lost.boot,
            uses: lost.uses.clone(),
            fate: if lost.is_proven() { Fate::Fenced } else { Fate::Condemned { turn: lost.turn } },
        });
        let missing = self.peers.iter().filter_map(|(node, peer)| {
            let absent = matches!(peer.daemon, Daemon::Absent) && self.is_in_ring(*node);
            let boot = peer.boot.filter(|_| absent && !peer.uses.is_empty())?;
            let uses = peer.uses.clone();
            Some(Testimony { node: *node, boot, uses, fate: Fate::Missing })
        });
        lost.chain(missing).take(proto::NODES_MAX).collect()
    }

    /// Whether others hold this boot of ours for dead.
    pub(crate) fn is_buried(&self) -> bool {
        !self.buried_by.is_empty()
    }

    /// The ring to name in our Hello: one whose quorum notification we have seen.
    pub(crate) fn concluded_ring(&self) -> Option<RingId> {
        self.ring.as_ref().filter(|_| self.is_consistent()).map(|ring| ring.id)
    }

    /// Whether a member of a group is a daemon that will say what it is.
    pub(crate) fn is_expected(&self, member: Member) -> bool {
        self.is_in_ring(member.node)
            && self.is_control_member(member)
            && match self.peers.get(&member.node).map(|peer| peer.daemon) {
                Some(Daemon::Speaking(pid)) => pid == member.pid,
                Some(Daemon::Silent) => true,
                Some(Daemon::Absent | Daemon::Incompatible(..) | Daemon::Ignored) | None => false,
            }
    }
}

impl Peer {
    /// Whether it owes a return or a word about this ring.
    fn owes(&self, ring: &RingId) -> bool {
        match self.daemon {
            Daemon::Absent => !self.uses.is_empty() || !self.complete,
            Daemon::Ignored => !self.uses.is_empty(),
            Daemon::Silent => true,
            Daemon::Speaking(_) => self.forgot || self.heard_in.as_ref() != Some(ring),
            Daemon::Incompatible(..) => false,
        }
    }

    pub(crate) const fn daemon_name(&self) -> &'static str {
        match self.daemon {
            Daemon::Absent => "absent",
            Daemon::Silent => "silent",
            Daemon::Speaking(_) => "speaking",
            Daemon::Incompatible(..) => "incompatible",
            Daemon::Ignored => "ignored",
        }
    }
}

fn is_turn(fencers: &[NodeId], turn: u8, me: Option<NodeId>) -> bool {
    let index = usize::from(turn).checked_rem(fencers.len());
    me.is_some() && index.and_then(|index| fencers.get(index)).copied() == me
}
