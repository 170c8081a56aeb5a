//! One mountgroup on this node: its process group, its users, its dead.
//!
//! The process group of the mountgroup:
//!
//! | presence \ event | wanted, announced | join ok | join failed | we are in the confchg | closing or expelled | depart done | corosync lost |
//! |---|---|---|---|---|---|---|---|
//! | Out       | → Joining | - | - | - | - | - | - |
//! | Joining   | - | → Entering | → Pausing | → In | wait | - | → Out |
//! | Entering  | - | - | - | → In | → Departing | - | → Out |
//! | In        | - | - | - | - | → Departing, once the shim let go | - | → Out |
//! | Departing | - | - | - | - | - | → Out | → Out |
//! | Pausing   | timer: → Out | - | - | - | → Out | - | → Out |
//!
//! A group that closes is still wanted from when its kernel refuses to let go until it does.
//!
//! A user of the group, seen from here:
//!
//! | user \ event | State | LEAVE, or a Hello without the use | PROCDOWN, NODEDOWN | node lost (condemned) | its node in another boot |
//! |---|---|---|---|---|---|
//! | none | user | - | - | - | - |
//! | user | refreshed | left: out of the next resume | stays a user: its daemon may return | dead | dead, proven |
//! | dead | a later use waits as user | left, if all that its node was buried in ended unfenced | - | - | proven |
//!
//! Out of quorum a user whose node is known to be condemned stays one, and its LEAVE is not taken for an end.
//!
//! The dead leave the list when the shim has been told, and nobody is resumed before that: a node
//! that returns gets in only after its death was delivered.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::action::{Action, Note};
use crate::effects::Effects;
use crate::event::OpError;
use crate::lane::{Ended, Lane, Want};
use crate::node::{Nodes, Ring};
use crate::proto::State;
use crate::saved::{SavedGroup, SavedService, User, Users};
use crate::service::Service;
use crate::timer::Timer;
use crate::types::{
    Channel, DeviceId, GroupId, Incarnation, Member, NodeId, OpId, Pid, Reason, ServiceName,
};

/// Where we stand in the group's CPG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Presence {
    Out,
    Joining(OpId),
    Entering,
    In,
    Departing(OpId),
    Pausing,
}

impl Presence {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Joining(_) => "joining",
            Self::Entering => "entering",
            Self::In => "in",
            Self::Departing(_) => "departing",
            Self::Pausing => "pausing",
        }
    }
}

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
    /// Whether its node was seen in another boot, or has ended all that it was buried in.
    proven: bool,
}

/// One group.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) incarnation: Incarnation,
    pub(crate) device: Option<DeviceId>,
    pub(crate) services: BTreeMap<ServiceName, Service>,
    pub(crate) presence: Presence,
    pub(crate) members: BTreeSet<Member>,
    pub(crate) ring: Option<Ring>,
    pub(crate) users: BTreeMap<NodeId, Using>,
    pub(crate) dead: BTreeMap<NodeId, Death>,
    pub(crate) lane: Lane,
    pub(crate) expelled: bool,
    /// Our last State; `None` when someone may not have heard it.
    said: Option<State>,
    noted_ready: bool,
}

impl Group {
    pub(crate) fn new(id: GroupId, incarnation: Incarnation, device: Option<DeviceId>) -> Self {
        Self {
            id,
            incarnation,
            device,
            services: BTreeMap::new(),
            presence: Presence::Out,
            members: BTreeSet::new(),
            ring: None,
            users: BTreeMap::new(),
            dead: BTreeMap::new(),
            lane: Lane::new(id),
            expelled: false,
            said: None,
            noted_ready: false,
        }
    }

    /// Takes over from a predecessor. The services whose tools had not finished come back by name.
    pub(crate) fn restore(id: GroupId, image: SavedGroup) -> (Self, Vec<ServiceName>) {
        let mut group = Self::new(id, image.incarnation, image.device);
        let using = |user: &User| Using { user: *user, pid: None, told: Users::new() };
        group.users = image.told.iter().map(|(node, user)| (*node, using(user))).collect();
        let mut unsettled = Vec::new();
        for service in &image.services {
            group.services.insert(service.name.clone(), Service::Live);
            if !service.live {
                unsettled.push(service.name.clone());
            }
        }
        group.lane = Lane::restore(id, image);
        (group, unsettled)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.services.values().all(Service::is_leaving)
    }

    pub(crate) fn channel(&self) -> Channel {
        Channel::Group(self.id)
    }

    pub(crate) fn handle_disconnected(&mut self, fx: &mut Effects<'_>) {
        self.presence = Presence::Out;
        self.members.clear();
        self.ring = None;
        self.said = None;
        fx.cancel(&Timer::Channel(self.channel()));
    }

    pub(crate) fn handle_confchg(
        &mut self,
        nodes: &mut Nodes,
        members: &[Member],
        left: &[(Member, Reason)],
        joined: &[(Member, Reason)],
        fx: &mut Effects<'_>,
    ) {
        self.members = members.iter().copied().collect();
        let entering = match self.presence {
            Presence::Joining(_) | Presence::Entering => true,
            Presence::Out | Presence::In | Presence::Departing(_) | Presence::Pausing => false,
        };
        if entering && joined.iter().any(|(member, _)| Some(member.node) == nodes.me) {
            self.presence = Presence::In;
            // No totem change is told for the ring that one joins in; the quorum service knows it.
            self.ring = nodes.quorum.as_ref().map(|quorum| quorum.ring.clone());
        }
        if !joined.is_empty() {
            self.said = None;
        }
        for (member, reason) in left {
            match reason {
                Reason::Leave => self.handle_leaver(nodes, *member, fx),
                // The ring decides between a daemon that went and a node that died.
                Reason::ProcDown | Reason::NodeDown => {}
                Reason::Join | Reason::NodeUp | Reason::Undefined => {}
            }
        }
    }

    fn handle_leaver(&mut self, nodes: &mut Nodes, member: Member, fx: &mut Effects<'_>) {
        let using = self.users.get(&member.node).filter(|using| using.pid == Some(member.pid));
        let Some(user) = using.map(|using| using.user) else { return };
        // Whoever hears that it was buried goes with its kernel still attached: only its Hello can say that
        // the use has ended.
        if !nodes.is_condemned(member.node, user, self.id) {
            nodes.forget(member.node, self.id, user.incarnation);
            self.handle_ended(member.node, user.incarnation, fx);
        }
    }

    /// A use ended cleanly: no death.
    pub(crate) fn handle_ended(&mut self, node: NodeId, use_: Incarnation, fx: &mut Effects<'_>) {
        if self.users.get(&node).is_some_and(|using| using.user.incarnation == use_) {
            self.users.remove(&node);
            fx.note(Note::UserLeft(self.id, node, use_));
        }
    }

    pub(crate) fn handle_totem(&mut self, ring: Ring, nodes: &Nodes, fx: &mut Effects<'_>) {
        let was = |node: &NodeId| match &self.ring {
            Some(old) => old.nodes.contains(node),
            None => true,
        };
        for (node, using) in &self.users {
            let incarnation = using.user.incarnation;
            if !ring.nodes.contains(node) && was(node) {
                fx.note(Note::UserLost(self.id, *node, incarnation));
            } else if ring.nodes.contains(node) && !was(node) && !nodes.lost.contains_key(node) {
                fx.note(Note::UserBack(self.id, *node, incarnation));
            }
        }
        for member in self.members.iter().filter(|member| !ring.nodes.contains(&member.node)) {
            fx.note(Note::Ghost(self.channel(), *member));
        }
        if ring.nodes.iter().any(|node| !was(node)) {
            self.said = None;
        }
        self.ring = Some(ring);
    }

    /// Whether it is a member whose node is in the ring: corosync may list the dead.
    pub(crate) fn is_counted(&self, member: Member) -> bool {
        self.members.contains(&member)
            && self.ring.as_ref().is_some_and(|ring| ring.nodes.contains(&member.node))
    }

    pub(crate) fn handle_state(
        &mut self,
        nodes: &mut Nodes,
        from: Member,
        state: State,
        fx: &mut Effects<'_>,
    ) {
        let node = from.node;
        let user = User { incarnation: state.incarnation, boot: state.boot };
        let buried = nodes.is_condemned(node, user, self.id)
            || self.dead.get(&node).is_some_and(|death| death.user == user);
        // The control group is read first: a State of an earlier boot than its Hello is a late one.
        let late = nodes.boot_of(node).is_some_and(|boot| boot != user.boot);
        let ours = Some(node) == nodes.me;
        let foreign = ours && (user.incarnation != self.incarnation || user.boot != nodes.boot);
        if buried || late || foreign || !self.is_counted(from) {
            return;
        }
        if let Some(known) = self.users.get(&node).map(|using| using.user) {
            if known.boot != user.boot {
                self.handle_death(node, |dead| dead.boot == known.boot, true, fx);
            } else if known.incarnation != user.incarnation {
                // The earlier use neither ended nor died. Its daemon cannot speak for it any more:
                // the grace runs, and the node has to prove by a reset that it is over.
                return;
            }
        }
        if !self.users.contains_key(&node) {
            fx.note(Note::UserJoined(self.id, node, user.incarnation));
        }
        nodes.remember(node, user.boot, self.id, user.incarnation);
        self.users.insert(node, Using { user, pid: Some(from.pid), told: state.told });
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

    /// Corosync calls us by this number. If the shim knows another use by it, a node's or one of our own,
    /// it could never be told of that one's end, and only a reset of this node helps.
    pub(crate) fn handle_own_number(&mut self, nodes: &Nodes, me: NodeId, fx: &mut Effects<'_>) {
        let own = User { incarnation: self.incarnation, boot: nodes.boot };
        let is_other = self.users.get(&me).is_some_and(|using| using.user != own);
        if is_other || self.dead.contains_key(&me) {
            self.users.remove(&me);
            self.dead.remove(&me);
            self.handle_expelled(self.incarnation, fx);
        }
    }

    /// The others went on without us.
    pub(crate) fn handle_expelled(&mut self, use_: Incarnation, fx: &mut Effects<'_>) {
        if use_ != self.incarnation || self.expelled {
            return;
        }
        self.expelled = true;
        fx.note(Note::Expelled(self.id));
        fx.push(Action::FenceSelf { group: self.id, incarnation: self.incarnation });
    }

    /// Whether this effect is one of the group's.
    pub(crate) fn owns(&self, op: OpId) -> bool {
        let channel = match self.presence {
            Presence::Joining(own) | Presence::Departing(own) => own == op,
            Presence::Out | Presence::Entering | Presence::In | Presence::Pausing => false,
        };
        channel || self.lane.owns(op)
    }

    /// Takes the end of an effect of this group.
    pub(crate) fn handle_done(
        &mut self,
        op: OpId,
        result: Result<(), OpError>,
        fx: &mut Effects<'_>,
    ) {
        if self.lane.owns(op) {
            match self.lane.handle_done(result, fx) {
                Some(Ended::Failed(step, error)) => self.refuse_failed(step.name(), error, fx),
                Some(Ended::Ok(_)) | None => {}
            }
            return;
        }
        match self.presence {
            Presence::Joining(joining) if joining == op => match result {
                Ok(()) => self.presence = Presence::Entering,
                Err(_) => self.pause_join(fx),
            },
            Presence::Departing(departing) if departing == op => {
                self.presence = Presence::Out;
                self.members.clear();
                self.ring = None;
            }
            Presence::Out
            | Presence::Joining(_)
            | Presence::Entering
            | Presence::In
            | Presence::Departing(_)
            | Presence::Pausing => {}
        }
    }

    fn pause_join(&mut self, fx: &mut Effects<'_>) {
        self.presence = Presence::Pausing;
        fx.arm(Timer::Channel(self.channel()), fx.tunables.retry_ms);
    }

    pub(crate) fn handle_channel_timer(&mut self) {
        if self.presence == Presence::Pausing {
            self.presence = Presence::Out;
        }
    }

    /// Moves the users of condemned nodes to the dead, and forgets deaths that the shim never knew.
    pub(crate) fn bury(&mut self, nodes: &Nodes, fx: &mut Effects<'_>) {
        if self.expelled || !nodes.is_in_force() {
            return;
        }
        let condemned = |node: NodeId, user: User| nodes.is_condemned(node, user, self.id);
        let users = self.users.iter().map(|(node, using)| (*node, using.user));
        let buried: Vec<_> = users.filter(|(node, user)| condemned(*node, *user)).collect();
        for (node, user) in buried {
            self.handle_death(node, |dead| dead == user, false, fx);
        }
        if self.lane.busy_with().is_none() {
            let told = &self.lane.told;
            self.dead.retain(|node, death| told.get(node) == Some(&death.user));
        }
    }

    /// The deaths for the lane; true for those that the kernel may hear of.
    fn deaths(&self, nodes: &Nodes) -> BTreeMap<NodeId, (Incarnation, bool)> {
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

    fn image(&self) -> SavedGroup {
        let stays = self.services.iter().filter(|(_, service)| !service.is_leaving());
        SavedGroup {
            incarnation: self.incarnation,
            services: stays
                .map(|(name, service)| SavedService { name: name.clone(), live: service.is_live() })
                .collect(),
            device: self.device,
            told: Users::new(),
            unfinished: false,
        }
    }

    /// Does whatever can be done now. True: nothing of the group is left.
    pub(crate) fn reconcile(&mut self, nodes: &Nodes, fx: &mut Effects<'_>) -> bool {
        self.bury(nodes, fx);
        self.review_presence(nodes, fx);
        let users: Users = self.users.iter().map(|(node, using)| (*node, using.user)).collect();
        let dead = self.deaths(nodes);
        let gate = self.is_gate_open(nodes);
        let want = Want {
            closing: self.is_closing(),
            expelled: self.expelled,
            gate,
            locking: nodes.is_locking_chosen(),
            attach: gate
                && nodes.incompatible().is_none()
                && self.attach_waits_for(nodes).is_none(),
            users: &users,
            dead: &dead,
            image: self.image(),
        };
        self.lane.advance(&want, fx);
        let ready = gate
            && !self.expelled
            && self.lane.is_settled(&want)
            && self.unaware(nodes.me).is_none();
        let saved = self.lane.saved_services() == Some(want.image.services.as_slice());
        if ready && !self.noted_ready {
            fx.note(Note::GroupReady(self.id));
        }
        self.noted_ready = ready;
        let grant = ready && self.attach_waits_for(nodes).is_none();
        self.settle_services(grant, saved, fx);
        self.is_gone()
    }

    /// Whether nothing of the group is left.
    pub(crate) fn is_gone(&self) -> bool {
        self.is_closing() && self.lane.is_clear() && self.presence == Presence::Out
    }

    fn review_presence(&mut self, nodes: &Nodes, fx: &mut Effects<'_>) {
        // A kernel that refused to let go is to hear of deaths, although we want to leave.
        let wanted = !self.expelled && (!self.is_closing() || self.lane.is_held());
        let let_go = self.expelled || self.lane.is_let_go();
        match self.presence {
            Presence::Out if wanted && nodes.is_announced(self.id, self.incarnation) => {
                let op = fx.op();
                self.presence = Presence::Joining(op);
                fx.push(Action::Join { op, channel: self.channel() });
            }
            Presence::In | Presence::Entering if !wanted && let_go => {
                let op = fx.op();
                self.presence = Presence::Departing(op);
                fx.push(Action::Depart { op, channel: self.channel() });
            }
            Presence::Pausing if !wanted => {
                self.presence = Presence::Out;
                fx.cancel(&Timer::Channel(self.channel()));
            }
            Presence::Out
            | Presence::Joining(_)
            | Presence::Entering
            | Presence::In
            | Presence::Departing(_)
            | Presence::Pausing => {}
        }
    }

    /// Says our State when it changed or someone new listens. Not before our Hello: of a daemon that has
    /// not said who it is, a State counts for nothing, and it would not be said again.
    pub(crate) fn speak(&mut self, nodes: &Nodes, fx: &mut Effects<'_>) {
        let goes = self.is_closing() && !self.lane.is_held();
        if self.presence != Presence::In || self.expelled || goes {
            return;
        }
        let told = self.lane.known.clone();
        let state = State { incarnation: self.incarnation, boot: nodes.boot, told };
        if self.said.as_ref() != Some(&state) {
            let body = crate::proto::Body::State(state.clone());
            let bytes = crate::proto::encode(nodes.protocol(), true, &body);
            fx.push(Action::Mcast { channel: self.channel(), bytes });
            self.said = Some(state);
        }
    }
}
