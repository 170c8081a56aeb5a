//! One mountgroup on this node: its process group, and what moves it on. Who uses it: see [`crate::users`].
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
    Channel, DeviceId, GroupId, Incarnation, Member, NodeId, OpId, Reason, ServiceName,
};
use crate::users::{Death, Using};

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
    /// The last States of members that have not named that use in a Hello: one may be on its way.
    pub(crate) early: BTreeMap<Member, State>,
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
            early: BTreeMap::new(),
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
        self.leave_members();
        self.said = None;
        fx.cancel(&Timer::Channel(self.channel()));
    }

    fn leave_members(&mut self) {
        self.presence = Presence::Out;
        self.members.clear();
        self.early.clear();
        self.ring = None;
    }

    pub(crate) fn handle_confchg(
        &mut self,
        nodes: &Nodes,
        members: &[Member],
        joined: &[(Member, Reason)],
    ) {
        self.members = members.iter().copied().collect();
        self.early.retain(|member, _| self.members.contains(member));
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
                self.leave_members();
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
