//! How rings form, and how a ring change is told.

use std::collections::{BTreeMap, BTreeSet};

use o2bridge_core::{Channel, Event, Member, NodeId, Reason, RingId};

use super::{Corosync, Engine};
use crate::time::Micros;

/// What one node learns of a ring change.
struct Change {
    ring: RingId,
    nodes: Vec<NodeId>,
    /// Nodes that came with it from its old ring, itself included.
    stayed: BTreeSet<NodeId>,
    /// Everybody's processes on the nodes that came, as they say themselves.
    came: BTreeMap<Channel, BTreeSet<Member>>,
}

impl Corosync {
    /// Forms the rings that can form by now.
    pub(super) fn reform(&mut self, now: Micros) {
        let running: Vec<NodeId> =
            self.engines.keys().copied().filter(|it| self.answers(*it)).collect();
        let is_alone = |node: &NodeId| self.engines[node].alone_until > now;
        let (alone, rest): (Vec<NodeId>, Vec<NodeId>) = running.into_iter().partition(is_alone);
        let mut parts = self.parts(rest);
        parts.extend(alone.into_iter().map(|node| vec![node]));
        for mut part in parts {
            self.some_come_later(&mut part, now);
            let wanted: BTreeMap<NodeId, u64> =
                part.iter().map(|node| (*node, self.engines[node].birth)).collect();
            let turns = |node: &NodeId| {
                let engine = &self.engines[node];
                engine.nodes == wanted && engine.lost_at.is_none()
            };
            if part.iter().all(turns) {
                self.flush(part, now);
                continue;
            }
            let settles_at = part.iter().map(|node| self.engines[node].settles_at).max();
            match settles_at {
                Some(at) if at > now => {
                    self.deadlines.insert(at);
                }
                Some(_) | None => self.form(&wanted, now),
            }
        }
    }

    /// Rings that meet become one at once, or step by step: what is left of a broken ring may first
    /// form one of its own, and a whole one may have to start over when it is disturbed.
    fn some_come_later(&mut self, part: &mut Vec<NodeId>, now: Micros) {
        let rings: BTreeSet<RingId> = part.iter().map(|node| self.engines[node].ring).collect();
        let is_broken = part.iter().any(|node| self.engines[node].lost_at.is_some());
        let odds = if rings.len() > 2 || is_broken { 2 } else { 6 };
        if rings.len() < 2 || !self.dice.one_in(odds) {
            return;
        }
        let is_pair = rings.len() == 2;
        let rings: Vec<RingId> = rings.into_iter().collect();
        let late = self.dice.pick(&rings).copied();
        part.retain(|node| Some(self.engines[node].ring) != late);
        let ms = self.dice.skewed(self.pace.merge_ms);
        self.deadlines.insert(now.plus_ms(ms.max(1)));
        if is_pair && self.dice.one_in(2) {
            self.start_over(part, now);
        }
    }

    fn form(&mut self, wanted: &BTreeMap<NodeId, u64>, now: Micros) {
        self.leave_rings(wanted, now);
        let haunts = |node: &NodeId| self.engines[node].haunts && wanted.len() > 1;
        let haunting = wanted.keys().copied().find(haunts);
        // It ends before the others have its ring, or right after that.
        let is_ghost = haunting.is_some() && self.dice.one_in(2);
        let before: BTreeMap<NodeId, Engine> =
            wanted.keys().map(|node| (*node, self.engines[node].clone())).collect();
        let mut wanted = wanted.clone();
        if let Some(node) = haunting.filter(|_| is_ghost) {
            wanted.remove(&node);
        }
        self.rings_formed += 1;
        let nodes: Vec<NodeId> = wanted.keys().copied().collect();
        let ring = self.next_ring(&nodes);
        for (node, engine) in &before {
            if wanted.contains_key(node) && haunting != Some(*node) {
                let change = change_of(engine, ring, &wanted, &before);
                self.change(*node, &wanted, change, now);
            }
        }
        self.forget_rings();
        if let Some(node) = haunting {
            self.kill(node, now);
            if !is_ghost {
                self.hasten(node, now, now.plus_ms(1));
            }
        }
        self.flush(nodes, now.plus_ms(3));
    }

    /// What the old rings of a new one still had is delivered first.
    fn leave_rings(&mut self, wanted: &BTreeMap<NodeId, u64>, now: Micros) {
        let old: BTreeSet<RingId> = wanted.keys().map(|node| self.engines[node].ring).collect();
        for ring in old {
            self.stall(ring);
            let together: Vec<NodeId> =
                self.members_of(ring).into_iter().filter(|it| wanted.contains_key(it)).collect();
            // It turns no more: what is said from here on waits for the next one.
            for node in &together {
                self.with(*node, |engine| engine.lost_at = Some(now));
            }
            self.recover(ring, &together, now);
        }
    }

    /// What was on the wire of a ring is gone when nobody is in it any more.
    fn forget_rings(&mut self) {
        let rings: BTreeSet<RingId> = self.engines.values().map(|engine| engine.ring).collect();
        self.stalled.retain(|flight| rings.contains(&flight.ring));
    }

    /// Tells one node's processes of a ring change, in corosync's order.
    fn change(
        &mut self,
        node: NodeId,
        wanted: &BTreeMap<NodeId, u64>,
        change: Change,
        now: Micros,
    ) {
        let mut at = now.plus_us(self.dice.skewed(5_000));
        let Some(engine) = self.engines.get_mut(&node) else { return };
        let old_nodes = std::mem::replace(&mut engine.nodes, wanted.clone());
        engine.ring = change.ring;
        engine.seen_all |= wanted.len() == self.configured;
        engine.settles_at = now;
        engine.lost_at = None;
        engine.visited_at = None;
        let channels: BTreeSet<Channel> =
            engine.lists.keys().chain(change.came.keys()).copied().collect();
        let mut ghosts = Vec::new();
        for channel in &channels {
            let list = self.listed(node, *channel);
            let is_down = |it: &&Member| {
                !change.stayed.contains(&it.node) && old_nodes.contains_key(&it.node)
            };
            let down: Vec<(Member, Reason)> =
                list.iter().filter(is_down).map(|it| (*it, Reason::NodeDown)).collect();
            down.iter().for_each(|(member, _)| {
                list.remove(member);
            });
            if !down.is_empty() {
                self.announce(node, *channel, &down, &[], at);
                at = at.plus_us(12);
            }
        }
        for channel in &channels {
            let came = change.came.get(channel).cloned().unwrap_or_default();
            let list = self.listed(node, *channel);
            let mut up: Vec<(Member, Reason)> = came
                .iter()
                .filter(|it| !list.contains(it))
                .map(|it| (*it, Reason::NodeUp))
                .collect();
            // Nodes downwards, but the ring's highest comes last.
            let highest = wanted.keys().next_back();
            up.sort_by_key(|(it, _)| (Some(&it.node) == highest, std::cmp::Reverse(it.node)));
            list.extend(up.iter().map(|(member, _)| *member));
            if !up.is_empty() {
                self.announce(node, *channel, &[], &up, at);
                at = at.plus_us(12);
            }
            let is_ghost = |it: &&Member| {
                !old_nodes.contains_key(&it.node) && !came.contains(it) && it.node != node
            };
            let list = self.listed(node, *channel);
            ghosts.extend(list.iter().filter(is_ghost).map(|it| (*channel, *it)));
        }
        for (channel, ghost) in ghosts {
            self.listed(node, channel).remove(&ghost);
            self.announce(node, channel, &[(ghost, Reason::ProcDown)], &[], at);
        }
        at = at.plus_us(15);
        let handles: BTreeSet<Channel> =
            self.engines[&node].clients.values().flat_map(|it| it.keys()).copied().collect();
        for channel in handles {
            let nodes = change.nodes.clone();
            let event = Event::Totem { channel, ring: change.ring, nodes };
            self.tell_handles(node, channel, &event, at);
        }
        let speaks_at = at.plus_us(200 + self.dice.skewed(2_500));
        self.with(node, |engine| {
            engine.speaks_at = Some(speaks_at);
            let left = engine.spoken.iter().filter(|it| !change.stayed.contains(it));
            engine.left = left.copied().collect();
        });
    }
}

fn change_of(
    engine: &Engine,
    ring: RingId,
    wanted: &BTreeMap<NodeId, u64>,
    before: &BTreeMap<NodeId, Engine>,
) -> Change {
    let stays = |(other, then): (&NodeId, &Engine)| {
        let is_same = then.ring == engine.ring && engine.nodes.get(other) == Some(&then.birth);
        (is_same && wanted.contains_key(other)).then_some(*other)
    };
    let stayed: BTreeSet<NodeId> = before.iter().filter_map(stays).collect();
    let mut came: BTreeMap<Channel, BTreeSet<Member>> = BTreeMap::new();
    for (other, then) in before.iter().filter(|(other, _)| !stayed.contains(other)) {
        for (channel, list) in &then.lists {
            let own = list.iter().filter(|member| member.node == *other);
            came.entry(*channel).or_default().extend(own);
        }
    }
    Change { ring, nodes: wanted.keys().copied().collect(), stayed, came }
}
