//! A model of corosync: agreed order inside a ring, rings that form and break, what each client is
//! told and in which order. What it may do was measured: `tests/recordings` has it tell whatever real
//! corosync told in each of `recordings/`.
//!
//! | a node's corosync \ event | start | killed, power off, killed by another's wish | clean stop | paused | resumed | cables cut | cables healed |
//! |---|---|---|---|---|---|---|---|
//! | down | alone, then merges | - | - | - | - | - | - |
//! | in a ring that turns | - | down; the ring is broken | its processes go as PROCDOWN, then it is down | paused; the ring is broken | - | the ring is broken | merges |
//! | in a broken ring | - | down | down; its processes go with it as NODEDOWN | paused | - | still broken | turns on if nobody missed the token yet; else forms anew |
//! | paused | - | down | - | - | as healed; if the others went on without it: alone, then merges, or merges at once | - | - |
//!
//! A broken ring forms anew after the detection time: one ring for all who hear each other then, even if
//! those are the same nodes. At once, if it misses nobody but one that ended cleanly or started again.
//! Where cables lose one direction only, each side has its own time for that, and rings come and go.
//!
//! Rings that merge become one at once or step by step. To each node those who came with it from its
//! last ring stayed; whoever else was in that is buried, and whoever else is in the new one is new:
//! both can be the same process. This is told in corosync's order: NODEDOWN of all channels, NODEUP,
//! PROCDOWN of ghosts, one TOTEM on each handle, and the quorum service, unless the next ring comes before
//! it spoke.
//!
//! Inside a ring everything (joins, leaves, ends of processes, messages, wishes that a node be killed) is
//! one sequence that all members deliver alike, after the quorum service spoke. When a ring breaks or
//! merges, a part of what was sent is on its wire: those who leave it together deliver all of that which
//! is their own, and of the rest the same first part. What was not on the wire goes out in the next ring,
//! or is gone with its sender.

mod cables;
mod choose;
mod client;
mod ring;
mod sequence;
mod votes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use o2bridge_core::{Channel, Member, NodeId, Pid, RingId};

use crate::dice::Dice;
use crate::time::Micros;

pub use client::{Heard, Word};
pub use votes::Votes;

/// How fast things go, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From the loss of a node to the ring without it (token + consensus).
    pub detect_ms: u64,
    /// From a clean stop's last word to the ring without it.
    pub stop_ms: u64,
    /// From a start to the first ring with others.
    pub start_ms: u64,
    /// From healed cables, or a resume that came too late, to the common ring.
    pub merge_ms: u64,
}

impl Default for Pace {
    /// As measured with a token of 1 s and without coefficient.
    fn default() -> Self {
        Self { detect_ms: 2_100, stop_ms: 5, start_ms: 40, merge_ms: 600 }
    }
}

/// One message of the totem sequence.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Entry {
    Join(Channel, Member),
    Leave(Channel, Member),
    Gone(Channel, Member),
    Message(Channel, Member, Vec<u8>),
    /// The wish that a node's corosync end.
    Kill(NodeId),
}

/// An entry on its way through a ring.
#[derive(Debug, Clone)]
struct Flight {
    at: Micros,
    ring: RingId,
    sender: (NodeId, u64),
    entry: Entry,
    /// Who delivered it when the ring was already broken.
    heard: BTreeSet<NodeId>,
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
    /// Whether it has been in a ring of all nodes.
    seen_all: bool,
    /// Just started or resumed: not yet seen by others.
    alone_until: Micros,
    /// When it misses the token of a ring that lost somebody: from then on only a new ring helps.
    lost_at: Option<Micros>,
    /// When the token of a ring that lost somebody came by for the last time.
    visited_at: Option<Micros>,
    /// A ring that lost somebody cannot form anew before.
    settles_at: Micros,
    /// When the quorum service speaks of the ring; if that is gone by then, it does not.
    speaks_at: Option<Micros>,
    /// The nodes of the ring that it spoke of last, and who of them did not come with us into this one.
    spoken: BTreeSet<NodeId>,
    left: Vec<NodeId>,
    /// It was told to end, and does so then.
    ends_at: Option<Micros>,
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
    votes: Votes,
    /// The ring that the quorum device has given its vote to, and when it looks around.
    chosen: Option<RingId>,
    decides_at: Option<Micros>,
    pace: Pace,
    dice: Dice,
    /// In which order the handles of a process end that is gone.
    ends: Dice,
    births: u64,
    /// The highest number of a ring that each node was in; a file keeps it.
    ring_seqs: BTreeMap<NodeId, u64>,
    engines: BTreeMap<NodeId, Engine>,
    /// Which cable segment a node is on.
    segments: BTreeMap<NodeId, u8>,
    /// Pairs with one direction cut: rings with both of them come and go. True: cut at the moment.
    flaky: BTreeMap<(NodeId, NodeId), bool>,
    /// Whose ring takes in whoever is heard there first, among all who hear each other in part.
    first: usize,
    /// When chance decides about them again.
    wavers_at: Option<Micros>,
    flights: Vec<Flight>,
    /// On the wire when their ring broke.
    stalled: Vec<Flight>,
    deadlines: BTreeSet<Micros>,
    told: Vec<Heard>,
    ended: Vec<NodeId>,
    /// What it did, for the report.
    pub rings_formed: u64,
}

impl Corosync {
    /// A cluster of `configured` nodes, none of them started.
    #[must_use]
    pub fn new(configured: usize, pace: Pace, seed: u64) -> Self {
        Self {
            configured,
            votes: Votes::Most,
            chosen: None,
            decides_at: None,
            pace,
            dice: Dice::new(seed, 0xC020),
            ends: Dice::new(seed, 0xC021),
            births: 0,
            ring_seqs: BTreeMap::new(),
            engines: BTreeMap::new(),
            segments: BTreeMap::new(),
            flaky: BTreeMap::new(),
            first: 0,
            wavers_at: None,
            flights: Vec::new(),
            stalled: Vec::new(),
            deadlines: BTreeSet::new(),
            told: Vec::new(),
            ended: Vec::new(),
            rings_formed: 0,
        }
    }

    /// The same cluster, whose votes are counted in this way.
    #[must_use]
    pub fn with_votes(mut self, votes: Votes) -> Self {
        self.votes = votes;
        self
    }

    /// Leaves nothing to chance from now on.
    pub(crate) fn be_still(&mut self) {
        (self.dice, self.ends) = (Dice::still(), Dice::still());
    }

    /// From here on chance is another one.
    pub fn reseed(&mut self, seed: u64) {
        (self.dice, self.ends) = (Dice::new(seed, 0xC020), Dice::new(seed, 0xC021));
    }

    /// What clients were told since the last call.
    pub fn take_told(&mut self) -> Vec<Heard> {
        std::mem::take(&mut self.told)
    }

    /// Whose corosync ended since the last call without that its node wanted it.
    pub fn take_ended(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.ended)
    }

    /// When [`Self::run`] has something to do next.
    #[must_use]
    pub fn next_due(&self) -> Option<Micros> {
        let flight = self.flights.iter().map(|flight| flight.at).min();
        flight.into_iter().chain(self.next_change()).min()
    }

    /// When something other than the delivery of what is on its way is due.
    fn next_change(&self) -> Option<Micros> {
        let deadline = self.deadlines.first().copied();
        let awake = self.engines.values().filter(|engine| !engine.paused);
        let own = awake.flat_map(|engine| [engine.speaks_at, engine.ends_at]);
        let shared = [deadline, self.wavers_at, self.decides_at];
        shared.into_iter().chain(own).flatten().min()
    }

    /// Does what is due.
    pub fn run(&mut self, now: Micros) {
        loop {
            let due = self.flights.iter().position(|flight| flight.at <= now);
            let Some(index) = due else { break };
            let flight = self.flights.remove(index);
            self.land(flight, now);
        }
        self.change_what_is_due(now);
    }

    /// Does what is due of everything but deliveries.
    fn change_what_is_due(&mut self, now: Micros) {
        if self.wavers_at.is_some_and(|at| at <= now) {
            self.waver(now);
        }
        let later = self.deadlines.split_off(&now.plus_us(1));
        let due = !std::mem::replace(&mut self.deadlines, later).is_empty();
        if due {
            self.reform(now);
        }
        self.decide(now);
        self.ask_device(now);
        for node in self.due(now, |engine| engine.speaks_at) {
            self.speak(node);
        }
        for node in self.due(now, |engine| engine.ends_at) {
            self.kill(node, now);
            self.ended.push(node);
        }
    }

    fn due(&self, now: Micros, when: impl Fn(&Engine) -> Option<Micros>) -> Vec<NodeId> {
        let is_due = |(node, engine): (&NodeId, &Engine)| {
            when(engine).is_some_and(|at| at <= now && !engine.paused).then_some(*node)
        };
        self.engines.iter().filter_map(is_due).collect()
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

    /// Whether something that a node said has yet to be delivered.
    #[must_use]
    pub fn keeps_words_of(&self, node: NodeId) -> bool {
        let mut on_the_way = self.flights.iter().chain(&self.stalled);
        self.engines.get(&node).is_some_and(|engine| !engine.outbox.is_empty())
            || on_the_way.any(|flight| flight.sender.0 == node)
    }

    /// The ring that a node is in, and whether it is quorate.
    #[must_use]
    pub fn ring(&self, node: NodeId) -> Option<(RingId, Vec<NodeId>, bool)> {
        let engine = self.engines.get(&node)?;
        let nodes: Vec<NodeId> = engine.nodes.keys().copied().collect();
        Some((engine.ring, nodes, self.is_quorate(engine)))
    }

    // ---- a node's corosync ----------------------------------------------------------------------

    /// Starts a node's corosync: a ring of its own first, the others after a moment.
    pub fn start(&mut self, node: NodeId, now: Micros) {
        if self.engines.contains_key(&node) {
            return;
        }
        self.births += 1;
        let ring = self.next_ring(&[node]);
        let alone_ms = self.dice.between(self.pace.start_ms / 2, self.pace.start_ms * 2);
        let engine = Engine {
            birth: self.births,
            ring,
            nodes: BTreeMap::from([(node, self.births)]),
            paused: false,
            seen_all: false,
            alone_until: now.plus_ms(alone_ms),
            lost_at: None,
            visited_at: None,
            settles_at: now,
            speaks_at: None,
            spoken: BTreeSet::from([node]),
            left: Vec::new(),
            ends_at: None,
            lists: BTreeMap::new(),
            clients: BTreeMap::new(),
            outbox: VecDeque::new(),
            clock: now,
            haunts: false,
        };
        self.engines.insert(node, engine);
        self.deadlines.insert(now.plus_ms(alone_ms));
        // Whoever still counts on the one before learns by this that it is gone.
        self.hasten(node, now, now.plus_ms(alone_ms));
    }

    /// Whoever misses nobody but this node need not wait for the token any more.
    fn hasten(&mut self, node: NodeId, now: Micros, soon: Micros) {
        let held: Vec<NodeId> = self.holders(node).collect();
        for holder in held {
            if self.broken_only_by(holder, node) {
                self.with(holder, |engine| {
                    engine.lost_at = Some(now);
                    engine.settles_at = engine.settles_at.min(soon);
                });
            }
        }
        self.deadlines.insert(soon);
    }

    fn next_ring(&mut self, nodes: &[NodeId]) -> RingId {
        let seen = nodes.iter().filter_map(|node| self.ring_seqs.get(node)).max();
        let seq = seen.copied().unwrap_or_default() + 4;
        self.ring_seqs.extend(nodes.iter().map(|node| (*node, seq)));
        RingId { seq, node: nodes.iter().min().copied().unwrap_or(NodeId(0)) }
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

    /// Stops it in order. Its processes are seen to go one by one, if the ring turns; if it does not,
    /// nobody hears of them, and they go with their node.
    pub fn stop(&mut self, node: NodeId, now: Micros) {
        if !self.answers(node) {
            return;
        }
        if let Some(engine) = self.engines.get_mut(&node) {
            let (ring, clients) = (engine.ring, std::mem::take(&mut engine.clients));
            self.told.extend(clients.keys().map(|pid| Heard::lost(node, *pid, now.plus_ms(7))));
            if self.turns(node) {
                for (pid, channels) in clients {
                    for channel in channels.into_keys() {
                        self.send(node, Entry::Gone(channel, Member { node, pid }), now);
                    }
                }
                // What it still sends is delivered before it is gone.
                self.land_all(ring, now);
            }
        }
        self.kill(node, now);
        self.hasten(node, now, now.plus_ms(self.pace.stop_ms));
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
        let was_missed = !self.is_whole_but_for_pause(node);
        let alone_at = now.plus_ms(self.dice.between(1, 50));
        // Sometimes the others are there at once, and it buries and greets them in one change.
        let merges_at = if self.dice.one_in(3) {
            alone_at
        } else {
            now.plus_ms(self.dice.between(self.pace.merge_ms / 10, self.pace.merge_ms * 3))
        };
        self.with(node, |engine| {
            engine.paused = false;
            engine.clock = engine.clock.max(now);
            if was_missed {
                engine.alone_until = merges_at;
                engine.lost_at = Some(alone_at);
                engine.settles_at = alone_at;
            }
        });
        self.deadlines.insert(alone_at);
        self.deadlines.insert(merges_at);
        self.mended(now);
    }

    /// Its next merge ends in the middle: the others list its processes, and it is not in the ring.
    pub fn haunt(&mut self, node: NodeId) {
        self.with(node, |engine| engine.haunts = true);
    }

    fn with(&mut self, node: NodeId, change: impl FnOnce(&mut Engine)) {
        if let Some(engine) = self.engines.get_mut(&node) {
            change(engine);
        }
    }
}
