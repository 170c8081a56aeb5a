//! Who uses a mountgroup, and who of them has died.
//!
//! | user \ event | State | Hello without the use | LEAVE, PROCDOWN, NODEDOWN | node lost (condemned) | its node in another boot, or fenced in one |
//! |---|---|---|---|---|---|
//! | none | user | - | - | - | - |
//! | user | refreshed | left: out of the next resume | stays a user | dead | dead, proven |
//! | dead | a later use waits as user | left, if all that its node was buried in ended unfenced | - | - | proven |
//!
//! No reason to be gone from the process group ends a use: a daemon may return, and one that hears that it was
//! buried leaves with its kernel attached. Only a Hello says that a use has ended, as only a Hello brings one:
//! a State of a use that its node does not name there is a late one, or an early one: corosync keeps no order between
//! two groups. So the last one of each member is held against each Hello of its node.
//!
//! The dead leave the list when the shim has been told, and nobody is resumed before that: a node
//! that returns gets in only after its death was delivered.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::action::Note;
use crate::effects::Effects;
use crate::group::Group;
use crate::node::Nodes;
use crate::proto::State;
use crate::saved::{User, Users};
use crate::types::{Incarnation, Member, NodeId, Pid};

/// A user of the group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Using {
    pub(crate) user: User,
    /// The process that said so; `None` until a restarted daemon of ours has heard it.
    pub(crate) pid: Option<Pid>,
    /// Whom its shim knows.
    pub(crate) told: Users,
}

/// A user whose death is decided, and that our shim has not been told of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Death {
    pub(crate) user: User,
    /// Whether its node was seen in another boot, or fenced in one, or has ended all that it was buried in.
    pub(crate) proven: bool,
}

impl Group {
    /// A use ended cleanly: no death.
    pub(crate) fn handle_ended(&mut self, node: NodeId, use_: Incarnation, fx: &mut Effects<'_>) {
        if self.users.get(&node).is_some_and(|using| using.user.incarnation == use_) {
            self.users.remove(&node);
            fx.note(Note::UserLeft(self.id, node, use_));
        }
    }

    /// A user says who it is, and whom its shim knows.
    pub(crate) fn handle_state(
        &mut self,
        nodes: &Nodes,
        from: Member,
        state: State,
        fx: &mut Effects<'_>,
    ) {
        let node = from.node;
        let user = User { incarnation: state.incarnation, boot: state.boot };
        let buried = nodes.is_condemned(node, user, self.id)
            || self.dead.get(&node).is_some_and(|death| death.user == user);
        self.early.remove(&from);
        if !self.is_counted(from) {
            return;
        }
        if nodes.speaker(node) != Some(from.pid) || !nodes.is_said(node, user, self.id) {
            self.early.insert(from, state);
            return;
        }
        let ours = Some(node) == nodes.me;
        // The earlier use neither ended nor died: the grace runs, and the node has to prove by a reset that it is over.
        let known = self.users.get(&node).map(|using| using.user);
        let second = known.is_some_and(|known| known != user);
        let foreign = ours && (user.incarnation != self.incarnation || user.boot != nodes.boot);
        if buried || second || foreign {
            return;
        }
        if !self.users.contains_key(&node) {
            fx.note(Note::UserJoined(self.id, node, user.incarnation));
        }
        let using = Using { user, pid: Some(from.pid), told: state.told };
        self.users.insert(node, using);
    }

    /// A node's daemon has said what it uses.
    pub(crate) fn review_early(&mut self, nodes: &Nodes, node: NodeId, fx: &mut Effects<'_>) {
        let of_node = |member: &&Member| member.node == node;
        let members: Vec<Member> = self.early.keys().filter(of_node).copied().collect();
        for from in members {
            if let Some(state) = self.early.remove(&from) {
                self.handle_state(nodes, from, state, fx);
            }
        }
    }

    /// A node's use died; `proven`: and it surely writes no more.
    pub(crate) fn handle_death(
        &mut self,
        node: NodeId,
        which: impl Fn(User) -> bool,
        proven: bool,
        fx: &mut Effects<'_>,
    ) {
        if let Some(using) = self.users.get(&node).filter(|using| which(using.user)).cloned() {
            self.users.remove(&node);
            if let Some(ring) = self.ring.as_ref().map(|ring| ring.id) {
                fx.note(Note::Condemned(self.id, node, using.user.incarnation, ring));
            }
            // Of two deaths that the shim does not know of, only the one that it knew counts.
            let unknown = self.dead.get(&node).is_none_or(|death| !self.is_told(node, death.user));
            if unknown {
                self.dead.insert(node, Death { user: using.user, proven });
            }
        }
        if let Some(death) = self.dead.get_mut(&node).filter(|death| which(death.user)) {
            death.proven |= proven;
        }
    }

    /// A condemned node says itself that it has ended this use, and nobody has fenced it: it left, and
    /// there is no death to tell.
    pub(crate) fn handle_pardon(&mut self, node: NodeId, last: User, fx: &mut Effects<'_>) {
        let is_over = |user: User| user.boot == last.boot && user.incarnation <= last.incarnation;
        if let Some(using) = self.users.get(&node).filter(|using| is_over(using.user)) {
            self.handle_ended(node, using.user.incarnation, fx);
        }
        if let Some(death) = self.dead.get(&node).filter(|it| !it.proven && is_over(it.user)) {
            fx.note(Note::UserLeft(self.id, node, death.user.incarnation));
            self.dead.remove(&node);
        }
    }

    fn is_told(&self, node: NodeId, user: User) -> bool {
        self.lane.told.get(&node) == Some(&user)
    }

    /// Moves the users of condemned nodes to the dead, and forgets deaths that the shim never knew.
    pub(crate) fn bury(&mut self, nodes: &Nodes, fx: &mut Effects<'_>) {
        if self.expelled || !nodes.is_in_force() {
            return;
        }
        let condemned = |node: NodeId, user: User| nodes.is_condemned(node, user, self.id);
        let is_over = |node: NodeId, user: User| nodes.is_fenced_in_another_boot(node, user.boot);
        let users = self.users.iter().map(|(node, using)| (*node, using.user));
        let buried: Vec<_> =
            users.filter(|(node, user)| condemned(*node, *user) || is_over(*node, *user)).collect();
        for (node, user) in buried {
            self.handle_death(node, |dead| dead == user, is_over(node, user), fx);
        }
        for (node, death) in &mut self.dead {
            death.proven |= is_over(*node, death.user);
        }
        if self.lane.busy_with().is_none() {
            let told = &self.lane.told;
            self.dead.retain(|node, death| told.get(node) == Some(&death.user));
        }
    }

    /// The deaths for the lane; true for those that the kernel may hear of.
    pub(crate) fn deaths(&self, nodes: &Nodes) -> BTreeMap<NodeId, (Incarnation, bool)> {
        let settled = |node: NodeId, death: &Death| {
            let lost = nodes.lost.get(&node).filter(|lost| lost.boot == death.user.boot);
            // A node that came back and has not heard yet that it was buried is still a member.
            let is_here = self.members.iter().any(|member| {
                member.node == node && self.is_counted(*member) && nodes.is_control_member(*member)
            });
            death.proven || (lost.is_some_and(crate::fence::Lost::is_fenced) && !is_here)
        };
        let dead = self.dead.iter();
        dead.map(|(node, death)| (*node, (death.user.incarnation, settled(*node, death)))).collect()
    }
}
