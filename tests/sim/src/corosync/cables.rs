//! Who hears whom: cables that are cut and healed, and the rings that miss somebody.

use std::collections::BTreeMap;

use o2bridge_core::{NodeId, RingId};

use super::{Corosync, Engine, Flight};
use crate::time::Micros;

impl Corosync {
    /// Puts each node on a cable segment of its own number; nodes not named are on segment 0.
    pub fn wire(&mut self, segments: BTreeMap<NodeId, u8>, now: Micros) {
        self.segments = segments;
        self.flaky.clear();
        self.first = 0;
        self.wavers_at = None;
        self.lost_somebody(now);
        self.mended(now);
    }

    /// Cuts one direction between two nodes: rings with both of them come and go.
    pub fn cut_one_way(&mut self, a: NodeId, b: NodeId, now: Micros) {
        self.flaky.insert((a.min(b), a.max(b)), true);
        self.wavers_at = Some(now.plus_ms(self.pace.detect_ms));
        self.lost_somebody(now);
    }

    pub(super) fn waver(&mut self, now: Micros) {
        for cut in self.flaky.values_mut() {
            *cut = !self.dice.one_in(4);
        }
        self.first = usize::try_from(self.dice.below(64)).unwrap_or(0);
        let ms = self.dice.between(self.pace.detect_ms / 2, self.pace.detect_ms * 2 / 3);
        self.wavers_at = Some(now.plus_ms(ms));
        self.lost_somebody(now);
        self.mended(now);
        // Half heard by somebody else, a ring forms anew with the same nodes.
        let rings = self.rings();
        for (_, members) in rings {
            let is_half_heard = |node: &NodeId| {
                self.flaky.iter().any(|((a, b), cut)| {
                    *cut && (a == node || b == node)
                        && !(members.contains(a) && members.contains(b))
                })
            };
            if members.iter().any(is_half_heard) && self.dice.one_in(2) {
                self.start_over(&members, now);
            }
        }
    }

    /// A ring that hears something of others without reaching them forms anew as it is.
    pub(super) fn start_over(&mut self, members: &[NodeId], now: Micros) {
        for node in members {
            self.with(*node, |engine| engine.lost_at = engine.lost_at.or(Some(now)));
        }
        self.deadlines.insert(now.plus_ms(1));
    }

    pub(super) fn segment(&self, node: NodeId) -> u8 {
        self.segments.get(&node).copied().unwrap_or(0)
    }

    /// Who has a node in its ring.
    pub(super) fn holders(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let holds = move |(holder, engine): (&NodeId, &Engine)| {
            (*holder != node && engine.nodes.contains_key(&node)).then_some(*holder)
        };
        self.engines.iter().filter_map(holds)
    }

    /// Cables or nodes are back: a ring that was not missed yet turns on, others grow after a while.
    pub(super) fn mended(&mut self, now: Micros) {
        for (ring, members) in self.rings() {
            let is_missed = |node: &NodeId| self.engines[node].lost_at.is_none_or(|at| at <= now);
            if !self.is_whole(ring) || members.iter().any(is_missed) {
                continue;
            }
            for node in &members {
                self.with(*node, |engine| {
                    engine.lost_at = None;
                    engine.visited_at = None;
                    engine.settles_at = now;
                });
            }
            let (back, rest) = self.stalled.drain(..).partition(|flight| flight.ring == ring);
            self.stalled = rest;
            let back: Vec<Flight> = back;
            self.flights.extend(back.into_iter().map(|it| Flight { at: now, ..it }));
            self.flush(members, now);
        }
        let ms = self.pace.merge_ms / 60 + self.dice.skewed(self.pace.merge_ms * 3 / 2);
        self.deadlines.insert(now.plus_ms(ms));
    }

    /// Breaks every ring that lost somebody: what is on the wire waits there, and who hear each other
    /// form a new ring if it does not turn on in time.
    pub(super) fn lost_somebody(&mut self, now: Micros) {
        for (ring, members) in self.rings() {
            if self.is_whole(ring) {
                continue;
            }
            self.stall(ring);
            let limps = self.limps(&members);
            let lost_at = now.plus_ms(self.pace.detect_ms * 10 / 22);
            let half = self.pace.detect_ms / 16;
            let (asleep, awake) = members.into_iter().partition(|it| !self.answers(*it));
            let asleep: Vec<NodeId> = asleep;
            for part in self.parts(awake).into_iter().chain([asleep]) {
                let latest =
                    if limps { self.pace.detect_ms * 4 } else { self.pace.detect_ms + half };
                let ms = self.dice.between(self.pace.detect_ms - half, latest);
                for node in part {
                    self.with(node, |engine| {
                        if engine.lost_at.is_none() {
                            engine.lost_at = Some(lost_at);
                            engine.settles_at = now.plus_ms(ms);
                        }
                    });
                }
                self.deadlines.insert(now.plus_ms(ms));
            }
        }
    }

    pub(super) fn rings(&self) -> BTreeMap<RingId, Vec<NodeId>> {
        let mut rings: BTreeMap<RingId, Vec<NodeId>> = BTreeMap::new();
        for (node, engine) in &self.engines {
            rings.entry(engine.ring).or_default().push(*node);
        }
        rings
    }

    pub(super) fn members_of(&self, ring: RingId) -> Vec<NodeId> {
        let of = |(node, engine): (&NodeId, &Engine)| (engine.ring == ring).then_some(*node);
        self.engines.iter().filter_map(of).collect()
    }

    /// Whether two nodes hear each other at this moment.
    pub(super) fn hear(&self, a: NodeId, b: NodeId) -> bool {
        let running = self.answers(a) && self.answers(b);
        let cut = self.flaky.get(&(a.min(b), a.max(b))).copied().unwrap_or(false);
        running && !cut && self.segment(a) == self.segment(b)
    }

    /// Whether all of a ring are there and hear each other.
    pub(super) fn is_whole(&self, ring: RingId) -> bool {
        self.members_of(ring).into_iter().all(|node| self.missing(node).is_empty())
    }

    /// Whether a node's ring delivers what is sent.
    pub(super) fn turns(&self, node: NodeId) -> bool {
        let Some(engine) = self.engines.get(&node) else { return false };
        engine.lost_at.is_none() && self.is_whole(engine.ring)
    }

    /// Whether a node hears one that is not in its ring.
    pub(super) fn meets_others(&self, node: NodeId) -> bool {
        let ring = self.engines[&node].ring;
        self.engines.iter().any(|(other, engine)| engine.ring != ring && self.hear(node, *other))
    }

    /// Whether one of these hears another that does not hear it.
    pub(super) fn limps(&self, nodes: &[NodeId]) -> bool {
        let both = |(a, b): &(NodeId, NodeId)| nodes.contains(a) && nodes.contains(b);
        self.flaky.iter().any(|(pair, cut)| *cut && both(pair))
    }

    pub(super) fn is_whole_but_for_pause(&self, node: NodeId) -> bool {
        let Some(engine) = self.engines.get(&node) else { return false };
        engine.nodes.iter().all(|(other, birth)| {
            self.engines.get(other).is_some_and(|it| it.birth == *birth && it.ring == engine.ring)
        })
    }

    pub(super) fn broken_only_by(&self, holder: NodeId, node: NodeId) -> bool {
        self.missing(holder).iter().all(|missing| *missing == node)
    }

    /// Those of a node's ring who are gone, restarted, paused or out of reach.
    pub(super) fn missing(&self, node: NodeId) -> Vec<NodeId> {
        let Some(engine) = self.engines.get(&node) else { return Vec::new() };
        let is_here = |other: &NodeId, birth: &u64| {
            self.engines.get(other).is_some_and(|it| it.birth == *birth && it.ring == engine.ring)
                && self.hear(node, *other)
        };
        let missing = engine.nodes.iter().filter(|(other, birth)| !is_here(other, birth));
        missing.map(|(other, _)| *other).collect()
    }
}
