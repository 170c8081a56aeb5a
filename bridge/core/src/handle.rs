//! The one entry: which event goes to which part, and what is looked at again after it.
//!
//! The connection to corosync:
//!
//! | link \ event | Connected | Disconnected | join of the control group ok | failed | we are in its confchg | Stop, nothing in use |
//! |---|---|---|---|---|---|---|
//! | Down     | → Joining | - | - | - | - | Exit, or wait |
//! | Joining  | - | → Down | → Joining | → Pausing | → Up, if waiting → Leaving | Exit, or wait |
//! | Pausing  | - | → Down | timer: → Joining | - | - | Exit, or wait |
//! | Up       | - | → Down | - | - | - | → Leaving |
//! | Leaving  | - | Exit, or wait → Down | depart done: Exit; failed: Exit, or wait → Pausing | - | - | - |
//!
//! "Or wait": while we owe the last word, see [`crate::stop`].

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use crate::action::{Action, Actions, Note, Refusal, Reply};
use crate::config::Config;
use crate::effects::Effects;
use crate::event::{Begin, Event, OpError};
use crate::fence::Proof;
use crate::group::Group;
use crate::node::Nodes;
use crate::proto;
use crate::saved::Saved;
use crate::stop::Farewell;
use crate::timer::{Timer, Timers};
use crate::types::{
    Channel, ClientId, GroupId, Incarnation, NodeId, Now, OpId, RequestId, ServiceName,
};

/// Where we stand with corosync and the control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Link {
    Down,
    Joining(OpId),
    Pausing,
    Up,
    Leaving(OpId),
}

impl Link {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Joining(_) => "joining",
            Self::Pausing => "pausing",
            Self::Up => "up",
            Self::Leaving(_) => "leaving",
        }
    }
}

/// The whole state of one node's daemon.
#[derive(Debug, Clone)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) memory_from: Incarnation,
    next_incarnation: u64,
    pub(crate) cluster: String,
    pub(crate) link: Link,
    pub(crate) stopping: bool,
    pub(crate) farewell: Farewell,
    pub(crate) nodes: Nodes,
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) timers: Timers,
    next_op: u64,
    pub(crate) garbage_messages: u64,
    /// The kills under way, so that their end is not taken for something else's.
    kills: BTreeMap<OpId, NodeId>,
    unsettled: Vec<(GroupId, ServiceName)>,
    pub(crate) now: Now,
}

/// Two cores of one hash answer alike to whatever comes next, but for the times that they name.
impl Hash for Core {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            config,
            memory_from,
            next_incarnation,
            cluster,
            link,
            stopping,
            farewell,
            nodes,
            groups,
            timers,
            next_op,
            garbage_messages,
            kills,
            unsettled,
            now: _,
        } = self;
        (config, memory_from, next_incarnation, cluster, link, stopping).hash(state);
        (farewell, nodes, groups, timers, next_op, garbage_messages, kills, unsettled).hash(state);
    }
}

/// What one event made worth looking at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Nothing,
    Group(GroupId),
    All,
}

impl Core {
    /// A daemon that has just started, with what its predecessor in this boot left behind.
    #[must_use]
    pub fn new(config: Config, saved: Saved) -> Self {
        let mut nodes = Nodes::new(config.boot, config.locking);
        let mut groups = BTreeMap::new();
        let mut unsettled = Vec::new();
        for (id, image) in saved.groups {
            for (node, user) in &image.told {
                nodes.remember(*node, user.boot, id, user.incarnation);
            }
            let (group, services) = Group::restore(id, image);
            unsettled.extend(services.into_iter().map(|service| (id, service)));
            groups.insert(id, group);
        }
        Self {
            memory_from: saved.memory_from.unwrap_or(config.first_incarnation),
            next_incarnation: config.first_incarnation.0,
            config,
            cluster: String::new(),
            link: Link::Down,
            stopping: false,
            farewell: Farewell::new(!groups.is_empty()),
            nodes,
            groups,
            timers: Timers::default(),
            next_op: 0,
            garbage_messages: 0,
            kills: BTreeMap::new(),
            unsettled,
            now: Now(0),
        }
    }

    /// Takes one event and appends what must be done. The only way to change the core.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        self.now = now;
        self.settle_inherited(out);
        let scope = match event {
            Event::Connected { node, cluster, nodelist } => {
                self.nodes.configured = nodelist.into_iter().collect();
                self.handle_connected(node, cluster, out)
            }
            Event::Nodelist(nodes) => {
                self.nodes.configured = nodes.into_iter().collect();
                Scope::All
            }
            Event::Disconnected => self.handle_disconnected(out),
            Event::Quorum { quorate, ring, nodes, left } => {
                self.nodes.parted.extend(left);
                self.handle_quorum(quorate, ring, nodes)
            }
            Event::Confchg { channel, members, left, joined } => {
                self.handle_confchg(channel, &members, (&left, &joined), out)
            }
            Event::Totem { channel, ring, nodes } => self.handle_totem(channel, ring, nodes, out),
            Event::Message { channel, from, bytes } => {
                self.handle_message(channel, from, &bytes, out)
            }
            Event::Done { op, result } => self.handle_done(op, result, out),
            Event::Looked { op, finding } => {
                self.groups.values_mut().for_each(|group| group.looked(op, finding));
                Scope::All
            }
            Event::Begin(begin) => self.handle_begin(&begin, out),
            Event::Complete { request, client, group, service, code } => {
                self.with_group((group, request), out, Refusal::NotBegun, |group, fx| {
                    group.complete(&service, request, (client, code), fx);
                })
            }
            Event::Leave { request, client: _, group, service } => {
                self.with_group((group, request), out, Refusal::NoGroup, |group, fx| {
                    group.leave(&service, request, fx);
                })
            }
            Event::ClientGone { client } => self.handle_client_gone(client, out),
            Event::FenceAck { request, client: _, node } => {
                self.handle_fence_ack(request, node, out)
            }
            Event::Stalled => self.handle_stalled(out),
            Event::Timer { timer, generation } => self.handle_timer(timer, generation, out),
            Event::Stop => self.handle_stop(out),
            Event::Reconfigure(tunables) => {
                self.config.tunables = tunables;
                Scope::All
            }
        };
        self.reconcile(scope, out);
    }

    /// Whether a firing of this setting of a timer would be taken.
    #[must_use]
    pub fn awaits(&self, timer: &Timer, generation: u64) -> bool {
        self.timers.is_latest(timer, generation)
    }

    pub(crate) fn effects<'a>(&'a mut self, out: &'a mut Actions) -> (Effects<'a>, Parts<'a>) {
        let fx = Effects {
            now: self.now,
            tunables: &self.config.tunables,
            timers: &mut self.timers,
            next_op: &mut self.next_op,
            out,
        };
        (fx, Parts { nodes: &mut self.nodes, groups: &mut self.groups, kills: &mut self.kills })
    }

    /// A predecessor's services whose tools had not finished: they may still be at it.
    fn settle_inherited(&mut self, out: &mut Actions) {
        let unsettled = core::mem::take(&mut self.unsettled);
        let (mut fx, parts) = self.effects(out);
        for (id, service) in unsettled {
            if let Some(group) = parts.groups.get_mut(&id) {
                group.inherit(&service, &mut fx);
            }
        }
    }

    fn handle_done(&mut self, op: OpId, result: Result<(), OpError>, out: &mut Actions) -> Scope {
        match self.link {
            Link::Joining(joining) if joining == op => {
                if result.is_err() {
                    self.link = Link::Pausing;
                    let (mut fx, _) = self.effects(out);
                    fx.arm(Timer::Channel(Channel::Control), fx.tunables.retry_ms);
                }
                return Scope::Nothing;
            }
            Link::Leaving(leaving) if leaving == op => {
                self.handle_departed(result.is_ok(), out);
                return Scope::Nothing;
            }
            Link::Down | Link::Joining(_) | Link::Pausing | Link::Up | Link::Leaving(_) => {}
        }
        let (mut fx, parts) = self.effects(out);
        if parts.kills.remove(&op).is_some() {
            return Scope::All;
        }
        let mut scope = Scope::Nothing;
        let in_force = parts.nodes.is_in_force();
        for (node, lost) in &mut parts.nodes.lost {
            if lost.owns(op) {
                let ended = (result, in_force);
                parts.nodes.stale_hello |= lost.handle_done(*node, op, ended, &mut fx);
                scope = Scope::All;
            }
        }
        for group in parts.groups.values_mut() {
            if group.owns(op) {
                group.handle_done(op, result, &mut fx);
                scope = Scope::Group(group.id);
            }
        }
        scope
    }

    fn handle_begin(&mut self, begin: &Begin, out: &mut Actions) -> Scope {
        if let Some(refusal) = self.begin_refusal(begin) {
            out.push(Action::Reply { request: begin.request, reply: Reply::Refused(refusal) });
            return Scope::Nothing;
        }
        let incarnation = Incarnation(self.next_incarnation);
        if !self.groups.contains_key(&begin.group) {
            self.next_incarnation = self.next_incarnation.saturating_add(1);
            self.nodes.stale_hello = true;
        }
        let (mut fx, parts) = self.effects(out);
        let group = parts
            .groups
            .entry(begin.group)
            .or_insert_with(|| Group::new(begin.group, incarnation, begin.device));
        group.begin(begin, &mut fx);
        Scope::Group(begin.group)
    }

    fn begin_refusal(&self, begin: &Begin) -> Option<Refusal> {
        if self.stopping {
            return Some(Refusal::Stopping);
        }
        if self.link == Link::Down {
            return Some(Refusal::NoCluster);
        }
        match &begin.cluster {
            Some(volume) if !self.cluster.is_empty() && *volume != self.cluster => {
                return Some(Refusal::WrongCluster {
                    volume: volume.clone(),
                    ours: self.cluster.clone(),
                });
            }
            Some(_) | None => {}
        }
        if self.groups.contains_key(&begin.group) {
            return None;
        }
        if self.groups.len() >= proto::GROUPS_MAX {
            return Some(Refusal::TooMany { what: "mountgroups", max: proto::GROUPS_MAX });
        }
        let (node, theirs) = self.nodes.incompatible()?;
        Some(Refusal::Incompatible { node, theirs, ours: proto::SPEAKS })
    }

    fn with_group(
        &mut self,
        (id, request): (GroupId, RequestId),
        out: &mut Actions,
        absent: Refusal,
        act: impl FnOnce(&mut Group, &mut Effects<'_>),
    ) -> Scope {
        let (mut fx, parts) = self.effects(out);
        match parts.groups.get_mut(&id) {
            Some(group) => {
                act(group, &mut fx);
                Scope::Group(id)
            }
            None => {
                fx.reply(request, Reply::Refused(absent));
                Scope::Nothing
            }
        }
    }

    fn handle_client_gone(&mut self, client: ClientId, out: &mut Actions) -> Scope {
        let (mut fx, parts) = self.effects(out);
        for group in parts.groups.values_mut() {
            group.client_gone(client, &mut fx);
        }
        Scope::All
    }

    fn handle_fence_ack(&mut self, request: RequestId, node: NodeId, out: &mut Actions) -> Scope {
        if self.stopping {
            // Nobody might hear of it.
            out.push(Action::Reply { request, reply: Reply::Refused(Refusal::Stopping) });
            return Scope::Nothing;
        }
        let (mut fx, parts) = self.effects(out);
        let is_undead = parts.nodes.is_undead(node);
        let proof = (Proof::Ack, parts.nodes.is_in_force());
        let proven = !is_undead
            && parts.nodes.lost.get_mut(&node).is_some_and(|lost| lost.prove(node, proof, &mut fx));
        let refused = Reply::Refused(Refusal::NothingToAck(node));
        fx.reply(request, if proven { Reply::Done } else { refused });
        parts.nodes.stale_hello |= proven;
        Scope::All
    }

    fn handle_timer(&mut self, timer: Timer, generation: u64, out: &mut Actions) -> Scope {
        if !self.timers.fire(&timer, generation) {
            return Scope::Nothing;
        }
        let connected = self.link != Link::Down;
        let (mut fx, mut parts) = self.effects(out);
        let scope = match &timer {
            Timer::Begin(id, _)
            | Timer::Complete(id, _)
            | Timer::Leave(id, _)
            | Timer::Lane(id)
            | Timer::Channel(Channel::Group(id)) => Scope::Group(*id),
            Timer::Channel(Channel::Control)
            | Timer::Grace(_)
            | Timer::Fence(_)
            | Timer::Turn(_)
            | Timer::Outvoted => Scope::All,
        };
        let waiting = |group: &Group, nodes: &Nodes| group.waits_for(nodes, connected);
        match timer {
            Timer::Begin(id, service) => {
                if let Some(group) = parts.groups.get_mut(&id) {
                    group.begin_overdue(&service, waiting(group, parts.nodes), &mut fx);
                }
            }
            Timer::Complete(id, service) => {
                if let Some(group) = parts.groups.get_mut(&id) {
                    group.complete_overdue(&service, &mut fx);
                }
            }
            Timer::Leave(id, service) => {
                if let Some(group) = parts.groups.get_mut(&id) {
                    group.leave_overdue(&service, waiting(group, parts.nodes), &mut fx);
                }
            }
            Timer::Lane(id) => {
                if let Some(group) = parts.groups.get_mut(&id) {
                    group.lane.handle_timer();
                }
            }
            Timer::Channel(Channel::Group(id)) => {
                if let Some(group) = parts.groups.get_mut(&id) {
                    group.handle_channel_timer();
                }
            }
            Timer::Channel(Channel::Control) => self.join_control(out),
            Timer::Grace(node) => parts.handle_grace(node, &mut fx),
            Timer::Fence(node) => parts.handle_fence_timer(node, &mut fx),
            Timer::Turn(node) => parts.nodes.handle_turn_timer(node),
            Timer::Outvoted => self.handle_outvoted(out),
        }
        scope
    }

    /// Whoever we have not heard for a while may have spoken to someone who did not listen.
    fn handle_stalled(&mut self, out: &mut Actions) -> Scope {
        let (mut fx, parts) = self.effects(out);
        parts.nodes.asked.clear();
        let grace_ms = fx.tunables.grace_ms;
        for node in fx.timers.graces() {
            fx.arm(Timer::Grace(node), grace_ms);
        }
        for (node, lost) in &parts.nodes.lost {
            if fx.timers.is_armed(&Timer::Turn(*node)) {
                fx.arm(Timer::Turn(*node), lost.patience_ms(grace_ms));
            }
        }
        Scope::Nothing
    }
}

/// The parts that handlers change beside the effects.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) nodes: &'a mut Nodes,
    pub(crate) groups: &'a mut BTreeMap<GroupId, Group>,
    pub(crate) kills: &'a mut BTreeMap<OpId, NodeId>,
}

impl Parts<'_> {
    /// A node's daemon is overdue: end its corosync, so that the ring can decide. Asked again after
    /// another grace, should it not have worked, but not while a corosync that hangs owes the answer.
    fn handle_grace(&mut self, node: NodeId, fx: &mut Effects<'_>) {
        if self.nodes.handle_grace(node, fx) {
            fx.note(Note::DebtOverdue(node));
            if !self.kills.values().any(|asked| *asked == node) {
                let op = fx.op();
                self.kills.insert(op, node);
                fx.push(Action::KillNode { op, node });
            }
            fx.arm(Timer::Grace(node), fx.tunables.grace_ms);
        }
    }

    fn handle_fence_timer(&mut self, node: NodeId, fx: &mut Effects<'_>) {
        let (ours, is_due) = (self.nodes.is_our_turn(node), self.nodes.may_be_fenced(node));
        if let Some(lost) = self.nodes.lost.get_mut(&node) {
            lost.handle_timer(node, (ours, is_due), fx);
        }
    }
}
