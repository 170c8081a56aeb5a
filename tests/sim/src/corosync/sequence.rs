//! The one sequence of a ring: what is sent, what is on its wire when it breaks, and what each node delivers.

use std::collections::BTreeSet;

use o2bridge_core::{Channel, Event, Member, NodeId, Reason, RingId};

use super::{Corosync, Entry, Flight};
use crate::time::Micros;

impl Corosync {
    pub(super) fn send(&mut self, node: NodeId, entry: Entry, now: Micros) {
        let turns = self.turns(node);
        // A ring that meets another one holds back what comes too late for it, whoever says it.
        let waits =
            turns && (self.holds_back(node) || self.meets_others(node) && self.dice.one_in(2));
        // The token may still come by a node whose ring is broken, once: it does not get around any more.
        let is_lucky = !turns && self.dice.one_in(2);
        let Some(engine) = self.engines.get_mut(&node) else { return };
        let is_late = engine.lost_at.is_some_and(|at| at <= now);
        let is_over = engine.visited_at.is_some_and(|at| at != now);
        if !engine.outbox.is_empty() || waits || !turns && (is_late || is_over || !is_lucky) {
            engine.outbox.push_back(entry);
            return;
        }
        engine.visited_at = (!turns).then_some(now);
        let (ring, sender) = (engine.ring, (node, engine.birth));
        let queue = if turns { &mut self.flights } else { &mut self.stalled };
        let last = queue.iter().filter(|flight| flight.ring == ring).map(|it| it.at).max();
        let us = 100 + self.dice.skewed(2_000);
        let at = now.plus_us(us).max(last.unwrap_or_default());
        queue.push(Flight { at, ring, sender, entry, heard: BTreeSet::new() });
        if !turns && self.dice.one_in(2) {
            // At once, even.
            let near = self.members_of(ring).into_iter().filter(|it| self.hear(node, *it));
            let near: Vec<NodeId> = near.collect();
            self.recover(ring, &near, now);
        }
    }

    /// Whether somebody in a node's ring has something that has not gone out.
    fn holds_back(&self, node: NodeId) -> bool {
        let ring = self.engines[&node].ring;
        self.engines.values().any(|engine| engine.ring == ring && !engine.outbox.is_empty())
    }

    /// All members deliver it.
    pub(super) fn land(&mut self, flight: Flight, now: Micros) {
        for node in self.members_of(flight.ring) {
            if !flight.heard.contains(&node) {
                self.deliver(node, &flight.entry, now);
            }
        }
    }

    pub(super) fn land_all(&mut self, ring: RingId, now: Micros) {
        let (due, rest) = self.flights.drain(..).partition(|flight| flight.ring == ring);
        self.flights = rest;
        let due: Vec<Flight> = due;
        due.into_iter().for_each(|flight| self.land(flight, now));
    }

    /// A ring ends: of what was to be sent a part is on the wire, the rest is with its senders.
    pub(super) fn stall(&mut self, ring: RingId) {
        let (broken, rest) = self.flights.drain(..).partition(|flight| flight.ring == ring);
        self.flights = rest;
        let mut broken: Vec<Flight> = broken;
        let sent = usize::try_from(self.dice.below(broken.len() as u64 + 1)).unwrap_or(0);
        for flight in broken.split_off(sent).into_iter().rev() {
            let (node, birth) = flight.sender;
            self.with(node, |engine| {
                if engine.birth == birth {
                    engine.outbox.push_front(flight.entry);
                }
            });
        }
        self.stalled.extend(broken);
    }

    /// Those who leave a broken ring together deliver what they have of it: all that they sent
    /// themselves or that one of them has delivered, and what they happened to get from others.
    pub(super) fn recover(&mut self, ring: RingId, nodes: &[NodeId], now: Micros) {
        let mut stalled = std::mem::take(&mut self.stalled);
        let mut gets_more = true;
        for flight in stalled.iter_mut().filter(|flight| flight.ring == ring) {
            let (node, birth) = flight.sender;
            let is_here = self.engines.get(&node).is_some_and(|engine| engine.birth == birth);
            let is_own = is_here && nodes.contains(&node)
                || nodes.iter().any(|node| flight.heard.contains(node));
            gets_more = gets_more && (is_own || self.dice.one_in(2));
            if !is_own && !gets_more {
                continue;
            }
            for node in nodes {
                if flight.heard.insert(*node) {
                    self.deliver(*node, &flight.entry, now);
                }
            }
        }
        self.stalled = stalled;
    }

    /// Groups of nodes that hear each other.
    pub(super) fn parts(&self, mut nodes: Vec<NodeId>) -> Vec<Vec<NodeId>> {
        let first = self.first.checked_rem(nodes.len()).unwrap_or(0);
        nodes.rotate_left(first);
        let mut parts: Vec<Vec<NodeId>> = Vec::new();
        for node in nodes {
            let home = parts.iter_mut().find(|part| part.iter().all(|it| self.hear(*it, node)));
            match home {
                Some(part) => part.push(node),
                None => parts.push(vec![node]),
            }
        }
        parts
    }

    pub(super) fn deliver(&mut self, node: NodeId, entry: &Entry, now: Micros) {
        // Nothing of a ring's sequence is told before the quorum service has spoken of the ring.
        self.speak(node);
        let at = now.plus_us(self.dice.skewed(800));
        match entry {
            Entry::Join(channel, member) => {
                self.listed(node, *channel).insert(*member);
                if member.node == node {
                    self.enter(node, member.pid, *channel);
                }
                self.announce(node, *channel, &[], &[(*member, Reason::Join)], at);
            }
            Entry::Leave(channel, member) => {
                if self.listed(node, *channel).remove(member) {
                    self.announce(node, *channel, &[(*member, Reason::Leave)], &[], at);
                }
                if member.node == node {
                    self.depart(node, member.pid, *channel, at);
                }
            }
            Entry::Gone(channel, member) => {
                if self.listed(node, *channel).remove(member) {
                    self.announce(node, *channel, &[(*member, Reason::ProcDown)], &[], at);
                }
                if member.node == node {
                    self.make_room(node, member.pid, *channel, now);
                }
            }
            Entry::Message(channel, from, bytes) => {
                if self.listed(node, *channel).contains(from) {
                    let event =
                        Event::Message { channel: *channel, from: *from, bytes: bytes.clone() };
                    self.tell_channel(node, *channel, &event, at);
                }
            }
            Entry::Kill(victim) if *victim == node => {
                let soon = now.plus_ms(self.dice.between(1, 22));
                self.with(node, |engine| engine.ends_at = Some(soon));
            }
            Entry::Kill(_) => {}
        }
    }

    /// What waited for a ring that turns goes out, from wherever the token is.
    pub(super) fn flush(&mut self, mut nodes: Vec<NodeId>, now: Micros) {
        let first = self.dice.below(nodes.len() as u64);
        nodes.rotate_left(usize::try_from(first).unwrap_or(0));
        let mut take = |node: &NodeId| {
            let outbox = &mut self.engines.get_mut(node)?.outbox;
            Some(std::mem::take(outbox))
        };
        let outboxes: Vec<_> = nodes.iter().map(|node| (*node, take(node))).collect();
        for (node, outbox) in outboxes {
            outbox.into_iter().flatten().for_each(|entry| self.send(node, entry, now));
        }
    }

    pub(super) fn listed(&mut self, node: NodeId, channel: Channel) -> &mut BTreeSet<Member> {
        // Only called for running nodes; of others nothing is kept.
        let engine = self.engines.get_mut(&node).expect("a running corosync");
        engine.lists.entry(channel).or_default()
    }

    pub(super) fn announce(
        &mut self,
        node: NodeId,
        channel: Channel,
        left: &[(Member, Reason)],
        joined: &[(Member, Reason)],
        at: Micros,
    ) {
        let members = self.listed(node, channel).iter().copied().collect();
        let event =
            Event::Confchg { channel, members, left: left.to_vec(), joined: joined.to_vec() };
        self.tell_channel(node, channel, &event, at);
    }
}
