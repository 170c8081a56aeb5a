//! What corosync says: connection, quorum, membership, messages.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::action::{Action, Actions, Note};
use crate::handle::{Core, Link, Parts, Scope};
use crate::hello::Consequence;
use crate::node::{Quorum, Ring};
use crate::proto::{self, Body, Envelope, Hello};
use crate::saved::User;
use crate::timer::Timer;
use crate::types::{BootId, Channel, Member, NodeId, Reason, RingId};

/// One entry of a joined or left list.
type Change = (Member, Reason);

impl Core {
    pub(crate) fn handle_connected(
        &mut self,
        node: NodeId,
        cluster: String,
        out: &mut Actions,
    ) -> Scope {
        self.nodes.me = Some(node);
        self.cluster = cluster;
        let (mut fx, parts) = self.effects(out);
        parts.nodes.handle_own_number(node, &mut fx);
        for group in parts.groups.values_mut() {
            group.handle_own_number(parts.nodes, node, &mut fx);
        }
        self.join_control(out);
        Scope::All
    }

    pub(crate) fn join_control(&mut self, out: &mut Actions) {
        let (mut fx, _) = self.effects(out);
        let op = fx.op();
        fx.push(Action::Join { op, channel: Channel::Control });
        self.link = Link::Joining(op);
    }

    pub(crate) fn handle_disconnected(&mut self, out: &mut Actions) -> Scope {
        let leaving = matches!(self.link, Link::Leaving(_));
        self.link = Link::Down;
        self.farewell.handle_lost();
        let (mut fx, parts) = self.effects(out);
        fx.cancel(&Timer::Channel(Channel::Control));
        parts.kills.clear();
        parts.nodes.handle_disconnected(&mut fx);
        for group in parts.groups.values_mut() {
            group.handle_disconnected(&mut fx);
        }
        if leaving {
            self.end(out);
        }
        Scope::All
    }

    pub(crate) fn handle_quorum(
        &mut self,
        quorate: bool,
        ring: RingId,
        nodes: Vec<NodeId>,
    ) -> Scope {
        let ring = Ring { id: ring, nodes: nodes.into_iter().collect() };
        if self.link == Link::Up && self.nodes.ring.is_none() {
            // We joined before the quorum service spoke.
            self.nodes.handle_ring(ring.clone());
        }
        self.nodes.handle_quorum(Quorum { quorate, ring });
        Scope::All
    }

    pub(crate) fn handle_confchg(
        &mut self,
        channel: Channel,
        members: &[Member],
        (left, joined): (&[Change], &[Change]),
        out: &mut Actions,
    ) -> Scope {
        match channel {
            Channel::Control => {
                self.handle_control_confchg(members, left, joined);
                if self.stopping && self.link == Link::Up {
                    self.depart(out);
                }
                Scope::All
            }
            Channel::Group(id) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.handle_confchg(&self.nodes, members, joined);
                }
                Scope::Group(id)
            }
        }
    }

    pub(crate) fn handle_control_confchg(
        &mut self,
        members: &[Member],
        left: &[Change],
        joined: &[Change],
    ) {
        let ours = joined.iter().any(|(member, _)| Some(member.node) == self.nodes.me);
        if matches!(self.link, Link::Joining(_)) && ours {
            self.link = Link::Up;
            // No totem change is told for the ring that one joins in; the quorum service knows it.
            if let Some(ring) = self.nodes.quorum.as_ref().map(|quorum| quorum.ring.clone()) {
                self.nodes.handle_ring(ring);
            }
        }
        // While a predecessor's process was still listed, nobody took our word for the node's.
        self.nodes.stale_hello |= left.iter().any(|(member, _)| Some(member.node) == self.nodes.me);
        for (member, _) in left.iter().filter(|(_, reason)| *reason == Reason::NodeDown) {
            self.nodes.parted.insert(member.node);
            self.nodes.rivals.insert(member.node);
        }
        let came: Vec<NodeId> = joined.iter().map(|(member, _)| member.node).collect();
        self.nodes.handle_confchg(members, &came);
    }

    pub(crate) fn handle_totem(
        &mut self,
        channel: Channel,
        ring: RingId,
        nodes: Vec<NodeId>,
        out: &mut Actions,
    ) -> Scope {
        let ring = Ring { id: ring, nodes: nodes.into_iter().collect::<BTreeSet<_>>() };
        let is_up = self.link == Link::Up;
        let (mut fx, parts) = self.effects(out);
        match channel {
            // Every handle hears of every ring; who speaks in it is known only once we are in.
            Channel::Control if !is_up => Scope::Nothing,
            Channel::Control => {
                parts.nodes.handle_ring(ring);
                for member in parts.nodes.ghosts() {
                    fx.note(Note::Ghost(channel, member));
                }
                Scope::All
            }
            Channel::Group(id) => {
                if let Some(group) = parts.groups.get_mut(&id) {
                    group.handle_totem(ring, parts.nodes, &mut fx);
                }
                Scope::Group(id)
            }
        }
    }

    pub(crate) fn handle_message(
        &mut self,
        channel: Channel,
        from: Member,
        bytes: &[u8],
        out: &mut Actions,
    ) -> Scope {
        let Ok((envelope, body)) = proto::decode(bytes) else {
            return self.drop_garbage(channel, from, out);
        };
        match (channel, body) {
            (Channel::Control, body) => self.handle_control_message(from, envelope, body, out),
            (Channel::Group(id), Body::State(state)) => {
                let (mut fx, parts) = self.effects(out);
                if let Some(group) = parts.groups.get_mut(&id) {
                    group.handle_state(parts.nodes, from, state, &mut fx);
                }
                Scope::Group(id)
            }
            (Channel::Group(_), Body::Hello(_) | Body::Refuse(_) | Body::Foreign(_)) => {
                self.drop_garbage(channel, from, out)
            }
        }
    }

    pub(crate) fn drop_garbage(
        &mut self,
        channel: Channel,
        from: Member,
        out: &mut Actions,
    ) -> Scope {
        self.garbage_messages = self.garbage_messages.saturating_add(1);
        // Said at powers of two: a flood must not become a flood of log lines.
        if self.garbage_messages.is_power_of_two() {
            out.push(Action::Note(Note::Garbage(channel, from, self.garbage_messages)));
        }
        Scope::Nothing
    }

    pub(crate) fn handle_control_message(
        &mut self,
        from: Member,
        envelope: Envelope,
        body: Body,
        out: &mut Actions,
    ) -> Scope {
        if !self.nodes.is_control_member(from) || !self.nodes.is_in_ring(from.node) {
            return Scope::Nothing;
        }
        let speaker = self.nodes.speaker(from.node);
        if speaker.is_some_and(|pid| pid != from.pid) {
            return self.drop_garbage(Channel::Control, from, out);
        }
        match body {
            // Another process of our own node that speaks our protocol is not us.
            Body::Hello(hello)
                if Some(from.node) == self.nodes.me && hello.boot != self.nodes.boot =>
            {
                self.drop_garbage(Channel::Control, from, out)
            }
            Body::Hello(hello) => self.handle_hello(from, envelope, &hello, out),
            Body::Refuse(node)
                if Some(node) == self.nodes.me && Some(from.node) != self.nodes.me =>
            {
                self.nodes.handle_refused(from.node, envelope);
                Scope::All
            }
            Body::Refuse(_) => Scope::Nothing,
            Body::Foreign(boot) => self.handle_foreign(from, (envelope, boot), out),
            Body::State(_) => self.drop_garbage(Channel::Control, from, out),
        }
    }

    pub(crate) fn handle_hello(
        &mut self,
        from: Member,
        envelope: Envelope,
        hello: &Hello,
        out: &mut Actions,
    ) -> Scope {
        let mut consequences = Vec::new();
        if Some(from.node) == self.nodes.me {
            self.farewell.handle_heard(!hello.uses.is_empty());
        }
        let (mut fx, mut parts) = self.effects(out);
        parts.recall(from.node, hello);
        let speaker = (from, envelope.speaks.1);
        parts.nodes.handle_hello(speaker, hello, &mut consequences, &mut fx);
        for consequence in consequences {
            match consequence {
                Consequence::Ended(node, id, incarnation) => {
                    if let Some(group) = parts.groups.get_mut(&id) {
                        group.handle_ended(node, incarnation, &mut fx);
                    }
                }
                Consequence::Seen(node, boot) => {
                    for group in parts.groups.values_mut() {
                        group.handle_death(node, |user| user.boot != boot, true, &mut fx);
                    }
                }
                Consequence::Expelled(id, incarnation) => {
                    if let Some(group) = parts.groups.get_mut(&id) {
                        group.handle_expelled(incarnation, &mut fx);
                    }
                }
            }
        }
        for group in parts.groups.values_mut() {
            group.review_early(parts.nodes, from.node, &mut fx);
        }
        Scope::All
    }

    pub(crate) fn handle_foreign(
        &mut self,
        from: Member,
        (envelope, boot): (Envelope, Option<BootId>),
        out: &mut Actions,
    ) -> Scope {
        let in_use = !self.groups.is_empty();
        let version = self.nodes.protocol();
        let (mut fx, parts) = self.effects(out);
        if let Some(boot) = boot.filter(|_| Some(from.node) != parts.nodes.me) {
            parts.nodes.meet_foreign_boot(from.node, boot, &mut fx);
            for group in parts.groups.values_mut() {
                group.handle_death(from.node, |user| user.boot != boot, true, &mut fx);
            }
        }
        let is_news = parts.nodes.handle_foreign(from, (envelope, boot), &mut fx);
        if in_use && is_news {
            let bytes = proto::encode(version, true, &Body::Refuse(from.node));
            fx.push(Action::Mcast { channel: Channel::Control, bytes });
        }
        Scope::All
    }
}

impl Parts<'_> {
    /// Others may have named later uses of a node while it was away. Its own word is about those that
    /// our shims know: of each group its user, which has to end, or be held against it if it is forgotten; or
    /// the dead, if that is forgotten and may not be over.
    fn recall(&mut self, node: NodeId, hello: &Hello) {
        for group in self.groups.values() {
            let of_boot = |user: &User| user.boot == hello.boot;
            let using = group.users.get(&node).map(|using| using.user).filter(of_boot);
            let dead =
                group.dead.get(&node).filter(|it| !it.proven).map(|it| it.user).filter(of_boot);
            if let Some(user) = using.or(dead.filter(|it| it.incarnation < hello.memory_from)) {
                self.nodes.recall(node, user.boot, group.id, user.incarnation);
            }
        }
    }
}
