//! A model of corosync: agreed order inside a ring, rings that form and break, what each client is
//! told and in which order. What it may do was measured (see `recordings/`, and the test that the model
//! can produce each of them).
//!
//! | a node's corosync \ event | start | killed, power off | clean stop | paused | resumed | cables cut or healed |
//! |---|---|---|---|---|---|---|
//! | down | alone, then merges | - | - | - | - | - |
//! | in a ring | - | down; the others form a ring after the detection time | its processes go as PROCDOWN, then it is down | the others go on without it after the detection time | - | rings form anew |
//! | paused | - | down | - | - | back if nobody missed it; else alone, then merges | - |
//!
//! Inside a ring everything (joins, leaves, ends of processes, messages) is one sequence that all
//! members deliver alike. When a ring breaks, those who stay together have delivered the same part of
//! that sequence; what a survivor had sent and nobody has seen goes out again in the next ring, what
//! a lost node had sent may be gone.
//!
//! A ring change is told in the order that corosync keeps: NODEDOWN of all channels, NODEUP, PROCDOWN
//! of ghosts, one TOTEM on each channel, and after that the quorum service.

mod choose;
mod client;
mod ring;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use o2bridge_core::{Channel, Event, Member, NodeId, Pid, Reason, RingId};

use crate::dice::Dice;
use crate::time::Micros;

pub use client::{Heard, Word};

/// How fast things go, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From the loss of a node to the ring without it (token + consensus).
    pub detect_ms: u64,
    /// From a clean stop to the ring without it.
    pub stop_ms: u64,
    /// From a start to the first ring with others.
    pub start_ms: u64,
    /// From healed cables, or a resume that came too late, to the common ring.
    pub merge_ms: u64,
}

impl Default for Pace {
    /// As measured with a token of 1 s and without coefficient.
    fn default() -> Self {
        Self { detect_ms: 2_100, stop_ms: 150, start_ms: 40, merge_ms: 600 }
    }
}

/// One message of the totem sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Entry {
    Join(Channel, Member),
    Leave(Channel, Member),
    Gone(Channel, Member),
    Message(Channel, Member, Vec<u8>),
}

/// An entry on its way through a ring.
#[derive(Debug, Clone)]
struct Flight {
    at: Micros,
    ring: RingId,
    sender: (NodeId, u64),
    entry: Entry,
}

/// Where a client stands in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    Joining,
    In,
    Leaving,
}

/// A running corosync.
#[derive(Debug, Clone)]
struct Engine {
    /// Tells one start from another.
    birth: u64,
    ring: RingId,
    /// The ring's nodes, each with the start that takes part.
    nodes: BTreeMap<NodeId, u64>,
    paused: bool,
    /// Just started or resumed: not yet seen by others.
    alone_until: Micros,
    /// A ring that lost somebody cannot form anew before.
    settles_at: Micros,
    /// What it knows of everybody's processes.
    lists: BTreeMap<Channel, BTreeSet<Member>>,
    clients: BTreeMap<Pid, BTreeMap<Channel, Stage>>,
    /// Sent while the ring does not turn.
    outbox: VecDeque<Entry>,
    /// Nothing is told before what was told earlier.
    clock: Micros,
    /// Its next merge ends in the middle (corosync pull request 828).
    haunts: bool,
}

/// The corosyncs of a cluster and the network between them.
#[derive(Debug, Clone)]
pub struct Corosync {
    configured: usize,
    pace: Pace,
    dice: Dice,
    births: u64,
    ring_seq: u64,
    engines: BTreeMap<NodeId, Engine>,
    /// Which cable segment a node is on.
    segments: BTreeMap<NodeId, u8>,
    /// Pairs with one direction cut: rings with both of them come and go. True: cut at the moment.
    flaky: BTreeMap<(NodeId, NodeId), bool>,
    /// When chance decides about them again.
    wavers_at: Option<Micros>,
    flights: Vec<Flight>,
    deadlines: BTreeSet<Micros>,
    told: Vec<Heard>,
    /// What it did, for the report.
    pub rings_formed: u64,
}

impl Corosync {
    /// A cluster of `configured` nodes, none of them started.
    #[must_use]
    pub fn new(configured: usize, pace: Pace, seed: u64) -> Self {
        Self {
            configured,
            pace,
            dice: Dice::new(seed, 0xC020),
            births: 0,
            ring_seq: 0,
            engines: BTreeMap::new(),
            segments: BTreeMap::new(),
            flaky: BTreeMap::new(),
            wavers_at: None,
            flights: Vec::new(),
            deadlines: BTreeSet::new(),
            told: Vec::new(),
            rings_formed: 0,
        }
    }

    /// Leaves nothing to chance from now on.
    pub(crate) fn be_still(&mut self) {
        self.dice = Dice::still();
    }

    /// What clients were told since the last call.
    pub fn take_told(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.told)
    }

    /// When [`Self::run`] has something to do next.
    #[must_use]
    pub fn next_due(&self) -> Option<Micros> {
        let flight = self.flights.iter().map(|flight| flight.at).min();
        let deadline = self.deadlines.first().copied();
        flight.into_iter().chain(deadline).chain(self.wavers_at).min()
    }

    /// Does what is due.
    pub fn run(&mut self, now: Micros) {
        loop {
            let due = self.flights.iter().position(|flight| flight.at <= now);
            let Some(index) = due else { break };
            let flight = self.flights.remove(index);
            self.land(flight, now);
        }
        if self.wavers_at.is_some_and(|at| at <= now) {
            self.waver(now);
        }
        let later = self.deadlines.split_off(&now.plus_us(1));
        let due = !std::mem::replace(&mut self.deadlines, later).is_empty();
        if due {
            self.reform(now);
        }
    }

    /// Whether a node's corosync runs and is not paused.
    #[must_use]
    pub fn answers(&self, node: NodeId) -> bool {
        self.engines.get(&node).is_some_and(|engine| !engine.paused)
    }

    /// Whether a node's corosync runs.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        self.engines.contains_key(&node)
    }

    /// The ring that a node is in, and whether it is quorate.
    #[must_use]
    pub fn ring(&self, node: NodeId) -> Option<(RingId, Vec<NodeId>, bool)> {
        let engine = self.engines.get(&node)?;
        let nodes: Vec<NodeId> = engine.nodes.keys().copied().collect();
        let quorate = self.is_quorate(nodes.len());
        Some((engine.ring, nodes, quorate))
    }

    fn is_quorate(&self, nodes: usize) -> bool {
        nodes * 2 > self.configured
    }

    // ---- a node's corosync ----------------------------------------------------------------------

    /// Starts a node's corosync: a ring of its own first, the others after a moment.
    pub fn start(&mut self, node: NodeId, now: Micros) {
        if self.engines.contains_key(&node) {
            return;
        }
        self.births += 1;
        self.ring_seq += 4;
        let alone_ms = self.dice.between(self.pace.start_ms / 2, self.pace.start_ms * 2);
        let engine = Engine {
            birth: self.births,
            ring: RingId { seq: self.ring_seq, node },
            nodes: BTreeMap::from([(node, self.births)]),
            paused: false,
            alone_until: now.plus_ms(alone_ms),
            settles_at: now,
            lists: BTreeMap::new(),
            clients: BTreeMap::new(),
            outbox: VecDeque::new(),
            clock: now,
            haunts: false,
        };
        self.engines.insert(node, engine);
        self.deadlines.insert(now.plus_ms(alone_ms));
        // Whoever still counts on the one before learns by this that it is gone.
        let soon = now.plus_ms(alone_ms);
        let held: Vec<NodeId> = self.holders(node).collect();
        for holder in held {
            if self.broken_only_by(holder, node) {
                self.with(holder, |engine| engine.settles_at = engine.settles_at.min(soon));
            }
        }
    }

    /// Ends a node's corosync without a word: SIGKILL, power, `corosync_cfg_kill_node`.
    pub fn kill(&mut self, node: NodeId, now: Micros) {
        let Some(engine) = self.engines.remove(&node) else { return };
        for pid in engine.clients.keys() {
            let at = now.plus_ms(7);
            self.told.push(Heard::lost(node, *pid, at));
        }
        self.lost_somebody(now);
    }

    /// Stops it in order. Its processes are seen to go, mostly one by one.
    pub fn stop(&mut self, node: NodeId, now: Micros) {
        if !self.answers(node) {
            return;
        }
        // Measured: 13 of 14 stops are told as PROCDOWN, one as NODEDOWN.
        if !self.dice.one_in(14) {
            let clients = self.engines.get(&node).map(|it| it.clients.clone()).unwrap_or_default();
            for (pid, channels) in clients {
                for channel in channels.into_keys() {
                    self.send(node, Entry::Gone(channel, Member { node, pid }), now);
                }
            }
            // What it still sends is delivered before it is gone.
            if let Some(ring) = self.engines.get(&node).map(|engine| engine.ring) {
                self.land_all(ring, now);
            }
        }
        self.kill(node, now);
        let soon = now.plus_ms(self.pace.stop_ms);
        let held: Vec<NodeId> = self.holders(node).collect();
        for holder in held {
            if self.broken_only_by(holder, node) {
                self.with(holder, |engine| engine.settles_at = engine.settles_at.min(soon));
            }
        }
        self.deadlines.insert(soon);
    }

    /// Stops it in its tracks (SIGSTOP, or its whole machine).
    pub fn pause(&mut self, node: NodeId, now: Micros) {
        if self.answers(node) {
            self.with(node, |engine| engine.paused = true);
            self.lost_somebody(now);
        }
    }

    /// Lets it go on. If the others went on without it, it first finds itself alone.
    pub fn resume(&mut self, node: NodeId, now: Micros) {
        if !self.engines.get(&node).is_some_and(|engine| engine.paused) {
            return;
        }
        let merge_ms = self.dice.between(self.pace.merge_ms, self.pace.merge_ms * 3);
        let was_missed = !self.is_whole_but_for_pause(node);
        let alone_at = now.plus_ms(self.dice.between(1, 50));
        self.with(node, |engine| {
            engine.paused = false;
            engine.clock = engine.clock.max(now);
            if was_missed {
                engine.alone_until = now.plus_ms(merge_ms);
                engine.settles_at = alone_at;
            }
        });
        self.deadlines.insert(alone_at);
        self.deadlines.insert(now.plus_ms(merge_ms));
        self.mended(now);
    }

    /// Its next merge ends in the middle: the others list its processes, and it is not in the ring.
    pub fn haunt(&mut self, node: NodeId) {
        self.with(node, |engine| engine.haunts = true);
    }

    // ---- cables ---------------------------------------------------------------------------------

    /// Puts each node on a cable segment of its own number; nodes not named are on segment 0.
    pub fn wire(&mut self, segments: BTreeMap<NodeId, u8>, now: Micros) {
        self.segments = segments;
        self.flaky.clear();
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

    fn waver(&mut self, now: Micros) {
        for cut in self.flaky.values_mut() {
            *cut = !self.dice.one_in(3);
        }
        let ms = self.dice.between(self.pace.detect_ms / 4, self.pace.detect_ms * 2);
        self.wavers_at = Some(now.plus_ms(ms));
        self.lost_somebody(now);
        self.mended(now);
    }

    fn segment(&self, node: NodeId) -> u8 {
        self.segments.get(&node).copied().unwrap_or(0)
    }

    fn with(&mut self, node: NodeId, change: impl FnOnce(&mut Engine)) {
        if let Some(engine) = self.engines.get_mut(&node) {
            change(engine);
        }
    }

    /// Who has a node in its ring.
    fn holders(&self, node: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let holds = move |(holder, engine): (&NodeId, &Engine)| {
            (*holder != node && engine.nodes.contains_key(&node)).then_some(*holder)
        };
        self.engines.iter().filter_map(holds)
    }

    /// Cables or nodes are back: rings that can grow do so after a while.
    fn mended(&mut self, now: Micros) {
        let ms = self.dice.between(self.pace.merge_ms * 2 / 3, self.pace.merge_ms * 3 / 2);
        self.deadlines.insert(now.plus_ms(ms));
    }

    /// Breaks every ring that lost somebody.
    fn lost_somebody(&mut self, now: Micros) {
        let rings: BTreeSet<RingId> = self.engines.values().map(|engine| engine.ring).collect();
        let half = self.pace.detect_ms / 16;
        for ring in rings {
            let members: Vec<NodeId> = self.members_of(ring);
            let Some(first) = members.first().copied() else { continue };
            if self.is_whole(first) {
                continue;
            }
            self.scatter(ring, now);
            let ms = self.dice.between(self.pace.detect_ms - half, self.pace.detect_ms + half);
            for node in members {
                self.with(node, |engine| {
                    if engine.settles_at <= now {
                        engine.settles_at = now.plus_ms(ms);
                    }
                });
            }
            self.deadlines.insert(now.plus_ms(ms));
        }
    }

    fn members_of(&self, ring: RingId) -> Vec<NodeId> {
        let of = |(node, engine): (&NodeId, &Engine)| (engine.ring == ring).then_some(*node);
        self.engines.iter().filter_map(of).collect()
    }

    /// Whether two nodes hear each other at this moment.
    fn hear(&self, a: NodeId, b: NodeId) -> bool {
        let running = self.answers(a) && self.answers(b);
        let cut = self.flaky.get(&(a.min(b), a.max(b))).copied().unwrap_or(false);
        running && !cut && self.segment(a) == self.segment(b)
    }

    /// Whether all of a node's ring are there and hear each other.
    fn is_whole(&self, node: NodeId) -> bool {
        self.missing(node).is_empty()
    }

    fn is_whole_but_for_pause(&self, node: NodeId) -> bool {
        let Some(engine) = self.engines.get(&node) else { return false };
        engine.nodes.iter().all(|(other, birth)| {
            self.engines.get(other).is_some_and(|it| it.birth == *birth && it.ring == engine.ring)
        })
    }

    fn broken_only_by(&self, holder: NodeId, node: NodeId) -> bool {
        self.missing(holder).iter().all(|missing| *missing == node)
    }

    /// Those of a node's ring who are gone, restarted, paused or out of reach.
    fn missing(&self, node: NodeId) -> Vec<NodeId> {
        let Some(engine) = self.engines.get(&node) else { return Vec::new() };
        let is_here = |other: &NodeId, birth: &u64| {
            self.engines.get(other).is_some_and(|it| it.birth == *birth && it.ring == engine.ring)
                && self.hear(node, *other)
        };
        let missing = engine.nodes.iter().filter(|(other, birth)| !is_here(other, birth));
        missing.map(|(other, _)| *other).collect()
    }

    // ---- the sequence of a ring -------------------------------------------------------------------

    fn send(&mut self, node: NodeId, entry: Entry, now: Micros) {
        let whole = self.is_whole(node);
        let Some(engine) = self.engines.get_mut(&node) else { return };
        if !whole || !engine.outbox.is_empty() {
            engine.outbox.push_back(entry);
            return;
        }
        let (ring, sender) = (engine.ring, (node, engine.birth));
        let last = self.flights.iter().filter(|flight| flight.ring == ring).map(|it| it.at).max();
        let us = 100 + self.dice.skewed(2_000);
        let at = now.plus_us(us).max(last.unwrap_or_default());
        self.flights.push(Flight { at, ring, sender, entry });
    }

    /// All members deliver it.
    fn land(&mut self, flight: Flight, now: Micros) {
        for node in self.members_of(flight.ring) {
            self.deliver(node, &flight.entry, now);
        }
    }

    fn land_all(&mut self, ring: RingId, now: Micros) {
        let (due, rest) =
            std::mem::take(&mut self.flights).into_iter().partition(|flight| flight.ring == ring);
        self.flights = rest;
        let due: Vec<Flight> = due;
        due.into_iter().for_each(|flight| self.land(flight, now));
    }

    /// A ring breaks: each part of it has got as far as chance would have it.
    fn scatter(&mut self, ring: RingId, now: Micros) {
        let (broken, rest): (Vec<Flight>, Vec<Flight>) =
            std::mem::take(&mut self.flights).into_iter().partition(|flight| flight.ring == ring);
        self.flights = rest;
        if broken.is_empty() {
            return;
        }
        for part in self.parts(self.members_of(ring)) {
            let seen = usize::try_from(self.dice.below(broken.len() as u64 + 1)).unwrap_or(0);
            for flight in &broken[..seen] {
                part.iter().for_each(|node| self.deliver(*node, &flight.entry, now));
            }
            for flight in broken[seen..].iter().rev() {
                let (node, birth) = flight.sender;
                let is_ours = part.contains(&node);
                self.with(node, |engine| {
                    if is_ours && engine.birth == birth {
                        engine.outbox.push_front(flight.entry.clone());
                    }
                });
            }
        }
    }

    /// Groups of nodes that hear each other.
    fn parts(&self, nodes: Vec<NodeId>) -> Vec<Vec<NodeId>> {
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

    fn deliver(&mut self, node: NodeId, entry: &Entry, now: Micros) {
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
            }
            Entry::Message(channel, from, bytes) => {
                if self.listed(node, *channel).contains(from) {
                    let event =
                        Event::Message { channel: *channel, from: *from, bytes: bytes.clone() };
                    self.tell_channel(node, *channel, &event, at);
                }
            }
        }
    }

    /// What waited for a ring that turns goes out.
    fn flush(&mut self, node: NodeId, now: Micros) {
        let engine = self.engines.get_mut(&node);
        let waiting = engine.map(|engine| std::mem::take(&mut engine.outbox)).unwrap_or_default();
        waiting.into_iter().for_each(|entry| self.send(node, entry, now));
    }

    fn listed(&mut self, node: NodeId, channel: Channel) -> &mut BTreeSet<Member> {
        // Only called for running nodes; of others nothing is kept.
        let engine = self.engines.get_mut(&node).expect("a running corosync");
        engine.lists.entry(channel).or_default()
    }

    fn announce(
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
