//! The nodes of the cluster and their daemons: who is in the ring, who speaks, who is lost.
//!
//! One record per node; its daemon:
//!
//! | daemon \ event | came into the control group | Hello we understand | Hello we do not | left it | we left it, or lost corosync | grace over, node in the ring |
//! |---|---|---|---|---|---|---|
//! | Absent       | Silent | -        | -            | -      | -      | killed if in use, else Ignored |
//! | Silent       | Silent | Speaking | Incompatible | Absent | Absent | killed if in use, else Ignored |
//! | Speaking     | -      | Speaking | Incompatible | Absent | Absent | killed if in use, else Ignored |
//! | Incompatible | -      | Speaking | Incompatible | Absent | Absent | - |
//! | Ignored      | Silent | Speaking | Incompatible | Ignored | Absent | killed if in use, else - |
//!
//! "Killed": corosync is asked to end the node, so that the ring can decide; until it does, the daemon may still
//! come back. "Killed" and "Ignored" only once a word of ours has come back after the grace: a ring that does not turn
//! is silent, too, and what is wished in it would come true when it turns. A node that leaves a ring in force is
//! forgotten, or lost if it used anything (of a ring that has just become quorate: after a grace, see
//! [`crate::witness`]).
//!
//! What a daemon of a version that we do not understand uses is not known, only whether, and in which boot:
//! while it may, nobody here knows all users (see [`crate::witness`]), and its loss is that of any user.
//!
//! A node in use that a quorate ring goes on without becomes [`Lost`]: see [`crate::lost`].
//!
//! "Agreed" is the gate before the kernel: quorate, the control group has seen the same ring as the
//! quorum service, and every daemon in that ring has said that it has seen it too. A node that was
//! cut off hears NODEDOWN of everyone before it hears that it is inquorate, and one that returns must
//! hear that it was buried before it may act: both are what the gate keeps out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::action::Note;
use crate::effects::Effects;
use crate::fence::Lost;
use crate::locking::Locking;
use crate::proto::{self, Envelope, Testimony, Uses};
use crate::saved::User;
use crate::timer::Timer;
use crate::types::{BootId, GroupId, Incarnation, Member, NodeId, Pid, RingId};

/// One ring and its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ring {
    pub(crate) id: RingId,
    pub(crate) nodes: BTreeSet<NodeId>,
}

/// The last word of the quorum service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Quorum {
    pub(crate) quorate: bool,
    pub(crate) ring: Ring,
}

/// Who speaks for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Daemon {
    Absent,
    Silent,
    Speaking(Pid),
    /// And its boot, once it has named that.
    Incompatible(Pid, Envelope, Option<BootId>),
    Ignored,
}

/// What is known of one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) daemon: Daemon,
    pub(crate) boot: Option<BootId>,
    pub(crate) uses: Uses,
    /// Whether its uses are what a daemon of this boot said.
    pub(crate) is_heard: bool,
    /// The ring that its last Hello was said in.
    pub(crate) heard_in: Option<RingId>,
    /// Whether some of its uses are older than its daemon's memory: they may still be mounted.
    pub(crate) forgot: bool,
    /// Whether these are all its uses: it said so itself, or a witness did.
    pub(crate) complete: bool,
    /// Where its daemon's memory of its own uses begins.
    pub(crate) memory_from: Incarnation,
    pub(crate) witness: bool,
    pub(crate) highest: u16,
    /// A daemon of a version that we do not understand said that it uses groups.
    pub(crate) foreign_use: bool,
    /// What its kernel knows and runs.
    pub(crate) locking: Locking,
}

impl Peer {
    pub(crate) const UNKNOWN: Self = Self {
        daemon: Daemon::Absent,
        boot: None,
        uses: Uses::new(),
        is_heard: false,
        heard_in: None,
        forgot: false,
        complete: false,
        memory_from: Incarnation(0),
        witness: false,
        highest: 0,
        foreign_use: false,
        locking: Locking { highest: None, running: None, choice: 0 },
    };

    pub(crate) fn is_user(&self) -> bool {
        self.foreign_use || !self.uses.is_empty()
    }
}

/// The most uses of one node that are kept: those that its daemon may name, and as many that an earlier
/// one did and this one has forgotten.
pub(crate) const USES_MAX: usize = 2 * proto::GROUPS_MAX;

/// How often within a grace it is looked whether our own word has come back, before silence is judged.
const ECHO_PER_GRACE: u64 = 8;

/// Whether one more use of a node is kept.
pub(crate) fn has_room(uses: &Uses, group: &GroupId) -> bool {
    uses.len() < USES_MAX || uses.contains_key(group)
}

/// All nodes.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Nodes {
    pub(crate) me: Option<NodeId>,
    pub(crate) boot: BootId,
    pub(crate) quorum: Option<Quorum>,
    /// The ring of the control group; `None` while we are not in it.
    pub(crate) ring: Option<Ring>,
    pub(crate) members: BTreeSet<Member>,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) lost: BTreeMap<NodeId, Lost>,
    /// Who holds this boot of ours for dead.
    pub(crate) buried_by: BTreeSet<NodeId>,
    /// Daemons that refused us, with what they speak.
    pub(crate) refused_by: BTreeMap<NodeId, (u16, u16)>,
    /// The nodelist of corosync.conf.
    pub(crate) configured: BTreeSet<NodeId>,
    /// Whether we know all users there are.
    pub(crate) witness: bool,
    /// Whether we knew them until a daemon that we do not understand used something.
    pub(crate) doubts: bool,
    /// The nodes that were in an agreed ring since quorum came.
    pub(crate) met: BTreeSet<NodeId>,
    /// The last ring in force, and who parted from us since, to come back or not.
    pub(crate) base: BTreeSet<NodeId>,
    pub(crate) parted: BTreeSet<NodeId>,
    /// Who of them had a daemon that went with it.
    pub(crate) rivals: BTreeSet<NodeId>,
    /// What our kernel knows and runs.
    pub(crate) locking: Locking,
    /// Whether our word of what it runs has ever come back, or a predecessor's: only then may it run that.
    pub(crate) locking_heard: bool,
    /// Whose silence is to be judged, and whether a word of ours has come back since: a ring that broke and does
    /// not form anew is quorate, and silent, for as long as that takes, and nobody is told.
    pub(crate) asked: BTreeMap<NodeId, bool>,
    /// Who was told once more of a proof, about whom, and what it had said.
    pub(crate) reminded: BTreeMap<(NodeId, NodeId), Testimony>,
    /// Whether our Hello no longer says what we know.
    pub(crate) stale_hello: bool,
}

impl Nodes {
    pub(crate) fn new(boot: BootId, locking: Locking) -> Self {
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
            doubts: false,
            met: BTreeSet::new(),
            base: BTreeSet::new(),
            parted: BTreeSet::new(),
            rivals: BTreeSet::new(),
            locking_heard: locking.running.is_some(),
            locking,
            asked: BTreeMap::new(),
            reminded: BTreeMap::new(),
            stale_hello: true,
        }
    }

    /// What a predecessor knew: these nodes used this group when it last looked. Of two boots, which it knew
    /// from two groups, that of the later use counts; the other ends when the node is heard.
    pub(crate) fn remember(
        &mut self,
        node: NodeId,
        boot: BootId,
        group: GroupId,
        use_: Incarnation,
    ) {
        let peer = self.peers.get(&node).filter(|peer| peer.boot != Some(boot));
        if !peer.is_some_and(|peer| peer.uses.values().any(|last| *last > use_)) {
            self.recall(node, boot, group, use_);
        }
    }

    /// The node used this group in this boot, whatever was known of another.
    pub(crate) fn recall(&mut self, node: NodeId, boot: BootId, group: GroupId, use_: Incarnation) {
        let peer = self.peers.entry(node).or_insert(Peer::UNKNOWN);
        if peer.boot.is_some_and(|known| known != boot) {
            peer.uses.clear();
        }
        peer.boot = Some(boot);
        peer.uses.insert(group, use_);
    }

    /// We are no longer in the control group: nothing that is said there reaches us.
    pub(crate) fn handle_left(&mut self, fx: &mut Effects<'_>) {
        self.handle_absence();
        self.ring = None;
        self.members.clear();
        self.stale_hello = true;
        for peer in self.peers.values_mut() {
            peer.daemon = Daemon::Absent;
            peer.heard_in = None;
        }
        for node in fx.timers.graces() {
            fx.cancel(&Timer::Grace(node));
        }
    }

    /// Corosync is gone: nothing that it said counts any more, what the nodes used does.
    pub(crate) fn handle_disconnected(&mut self, fx: &mut Effects<'_>) {
        self.quorum = None;
        self.handle_left(fx);
        self.base.clear();
        self.parted.clear();
        self.rivals.clear();
        self.refused_by.clear();
        self.buried_by.clear();
    }

    /// Out of quorum, others may decide things that we do not hear of.
    pub(crate) fn handle_quorum(&mut self, quorum: Quorum) {
        let is_same = |old: &Quorum| !old.quorate && old.ring.id == quorum.ring.id;
        if !quorum.quorate {
            self.stale_hello |= self.witness;
            self.handle_absence();
        } else if self.quorum.as_ref().is_some_and(is_same) {
            // Whatever a witness said in this ring did not count: it has to say it again.
            self.stale_hello = true;
        }
        self.quorum = Some(quorum);
        self.review_base();
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

    /// Whether a daemon's last word was said in the ring that is.
    pub(crate) fn has_spoken(&self, node: NodeId) -> bool {
        let ring = self.ring.as_ref().map(|ring| ring.id);
        ring.is_some() && self.peers.get(&node).is_some_and(|peer| peer.heard_in == ring)
    }

    pub(crate) fn is_in_ring(&self, node: NodeId) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.nodes.contains(&node))
    }

    /// The control group changed. Those who came do not know us yet, and must say who they are.
    pub(crate) fn handle_confchg(&mut self, members: &[Member], came: &[NodeId]) {
        self.members = members.iter().copied().collect();
        self.stale_hello |= !came.is_empty();
        for node in came {
            self.reminded.retain(|(from, _), _| from != node);
            self.lost.values_mut().for_each(|lost| lost.known_to.retain(|it| it != node));
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
        let old = self.ring.iter().flat_map(|old| &old.nodes);
        self.parted.extend(old.filter(|node| !ring.nodes.contains(node)));
        self.ring = Some(ring);
        self.asked.clear();
        self.reminded.clear();
        for lost in self.lost.values_mut() {
            lost.known_to.clear();
            lost.awaited = None;
        }
        self.stale_hello = true;
        self.review_base();
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
            let spoke = matches!(peer.daemon, Daemon::Speaking(_));
            peer.daemon = match peer.daemon {
                Daemon::Speaking(pid) | Daemon::Incompatible(pid, ..) if speaks(pid) => peer.daemon,
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
            // From now on others must speak for it: newcomers may not have heard it.
            let fell_silent = spoke && peer.daemon == Daemon::Absent && !peer.uses.is_empty();
            self.stale_hello |= fell_silent;
        }
        let is_there = |node: &NodeId| {
            self.peers.get(node).is_some_and(|peer| match peer.daemon {
                Daemon::Silent | Daemon::Speaking(_) | Daemon::Incompatible(..) => true,
                Daemon::Absent | Daemon::Ignored => false,
            })
        };
        self.refused_by.retain(|node, _| is_there(node));
    }

    /// Who has a debt: a use without its daemon, or a daemon without its word, in a quorate ring.
    pub(crate) fn review_debts(&mut self, fx: &mut Effects<'_>) {
        let in_force = self.is_in_force();
        let Some(ring) = &self.ring else { return };
        let awaited = self.await_unseen(fx);
        for (node, peer) in self.peers.iter().filter(|(node, _)| !awaited.contains(node)) {
            let timer = Timer::Grace(*node);
            let owes = in_force
                && Some(*node) != self.me
                && ring.nodes.contains(node)
                && peer.owes(&ring.id);
            if owes && !fx.timers.is_armed(&timer) {
                let grace_ms = fx.tunables.grace_ms;
                self.asked.remove(node);
                fx.arm(timer, grace_ms);
                if matches!(peer.daemon, Daemon::Absent) && peer.is_user() {
                    fx.note(Note::Debt(*node, fx.now.after(grace_ms)));
                }
            } else if !owes && fx.timers.is_armed(&timer) {
                self.asked.remove(node);
                fx.cancel(&timer);
                let speaks = matches!(peer.daemon, Daemon::Speaking(_));
                if in_force && ring.nodes.contains(node) && speaks {
                    fx.note(Note::DebtPaid(*node));
                }
            }
        }
    }

    /// The grace of a node is over. True: corosync must end the node.
    pub(crate) fn handle_grace(&mut self, node: NodeId, fx: &mut Effects<'_>) -> bool {
        self.miss_unseen(node, fx);
        if !self.is_in_ring(node) {
            return false;
        }
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        if self.asked.get(&node) != Some(&true) {
            self.stale_hello |= !self.asked.contains_key(&node);
            self.asked.entry(node).or_insert(false);
            fx.arm(Timer::Grace(node), fx.tunables.grace_ms / ECHO_PER_GRACE);
            return false;
        }
        self.asked.remove(&node);
        if peer.is_user() {
            return true;
        }
        peer.daemon = match peer.daemon {
            Daemon::Absent | Daemon::Silent | Daemon::Speaking(_) => Daemon::Ignored,
            Daemon::Incompatible(..) | Daemon::Ignored => peer.daemon,
        };
        false
    }

    /// A word of ours has come back. It may be the last one of a ring of whose end we are about to hear, so the silent
    /// have a moment more.
    pub(crate) fn handle_echo(&mut self, fx: &mut Effects<'_>) {
        for (node, proven) in self.asked.iter_mut().filter(|(_, proven)| !**proven) {
            *proven = true;
            fx.arm(Timer::Grace(*node), fx.tunables.grace_ms / ECHO_PER_GRACE);
        }
    }

    /// The process that speaks for a node.
    pub(crate) fn speaker(&self, node: NodeId) -> Option<Pid> {
        match self.peers.get(&node)?.daemon {
            Daemon::Speaking(pid) => Some(pid),
            Daemon::Absent | Daemon::Silent | Daemon::Incompatible(..) | Daemon::Ignored => None,
        }
    }

    /// The boot that a node's present daemon has named.
    pub(crate) fn named_boot(&self, node: NodeId) -> Option<BootId> {
        let peer = self.peers.get(&node)?;
        match peer.daemon {
            Daemon::Speaking(_) => peer.boot,
            Daemon::Incompatible(.., boot) => boot,
            Daemon::Absent | Daemon::Silent | Daemon::Ignored => None,
        }
    }

    /// Whether this is the use of the group that we hold its node to: the last one that it named, unless it has
    /// forgotten an earlier one.
    pub(crate) fn is_said(&self, node: NodeId, user: User, group: GroupId) -> bool {
        self.peers.get(&node).is_some_and(|peer| {
            peer.boot == Some(user.boot) && peer.uses.get(&group) == Some(&user.incarnation)
        })
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

    /// Whether others hold this boot of ours for dead. A daemon that is gone does not: its successor says so anew.
    pub(crate) fn is_buried(&self) -> bool {
        self.buried_by.iter().any(|node| self.speaker(*node).is_some())
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
    pub(crate) fn owes(&self, ring: &RingId) -> bool {
        match self.daemon {
            Daemon::Absent => self.is_user() || !self.complete,
            Daemon::Ignored => self.is_user(),
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
