//! The clients of one corosync: who is connected, in which channels, and what they are told.

use o2bridge_core::{Channel, Event, Member, NodeId, Pid};

use super::{Corosync, Entry, Stage};
use crate::time::Micros;

/// One thing that a client process hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// On which node.
    pub node: NodeId,
    /// Which process.
    pub pid: Pid,
    /// When it can be read.
    pub at: Micros,
    /// What.
    pub word: Word,
}

/// What a client hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// An event of a channel or of the quorum service, or the end of the connection.
    Event(Event),
    /// The end of a leave: the channel's handle may be closed.
    Departed(Channel),
}

impl Heard {
    pub(super) fn lost(node: NodeId, pid: Pid, at: Micros) -> Self {
        Self { node, pid, at, word: Word::Event(Event::Disconnected) }
    }
}

impl Corosync {
    /// A process connects. It hears the state of the quorum at once; false if nobody answers.
    pub fn connect(&mut self, node: NodeId, pid: Pid, now: Micros) -> bool {
        if !self.answers(node) {
            return false;
        }
        self.with(node, |engine| {
            engine.clients.entry(pid).or_default();
        });
        if self.engines.get(&node).is_some_and(|engine| engine.speaks_at.is_none()) {
            self.tell_quorum(node, Some(pid), Vec::new(), now);
        }
        true
    }

    /// Whether a process is connected; it hears later that it is not.
    #[must_use]
    pub fn is_client(&self, node: NodeId, pid: Pid) -> bool {
        self.engines.get(&node).is_some_and(|engine| engine.clients.contains_key(&pid))
    }

    /// A node asks that another one's corosync end: of the ring in which that is delivered.
    pub fn kill_node(&mut self, by: NodeId, victim: NodeId, now: Micros) {
        self.send(by, Entry::Kill(victim), now);
    }

    /// A process opens a channel. False: it has a handle already. While the end of an older one is
    /// still to be delivered, the join waits for that.
    pub fn join(&mut self, node: NodeId, pid: Pid, channel: Channel, now: Micros) -> bool {
        let Some(engine) = self.engines.get_mut(&node) else { return false };
        let Some(channels) = engine.clients.get_mut(&pid) else { return false };
        let member = Member { node, pid };
        let is_listed = engine.lists.get(&channel).is_some_and(|list| list.contains(&member));
        if channels.contains_key(&channel) {
            return false;
        }
        channels.insert(channel, Stage::Joining);
        if !is_listed {
            self.send(node, Entry::Join(channel, member), now);
        }
        true
    }

    /// A process leaves a channel. [`Word::Departed`] follows when the ring has heard it.
    pub fn leave(&mut self, node: NodeId, pid: Pid, channel: Channel, now: Micros) -> bool {
        let channels = self.engines.get_mut(&node).and_then(|it| it.clients.get_mut(&pid));
        let Some(stage) = channels.and_then(|channels| channels.get_mut(&channel)) else {
            return false;
        };
        if *stage == Stage::Leaving {
            return false;
        }
        *stage = Stage::Leaving;
        self.send(node, Entry::Leave(channel, Member { node, pid }), now);
        true
    }

    /// A process closes a channel's handle without leaving: to the others it went.
    pub fn close(&mut self, node: NodeId, pid: Pid, channel: Channel, now: Micros) {
        let channels = self.engines.get_mut(&node).and_then(|it| it.clients.get_mut(&pid));
        if channels.and_then(|channels| channels.remove(&channel)).is_some() {
            self.send(node, Entry::Gone(channel, Member { node, pid }), now);
        }
    }

    /// A process ends, with all its handles.
    pub fn part(&mut self, node: NodeId, pid: Pid, now: Micros) {
        let Some(engine) = self.engines.get_mut(&node) else { return };
        let handles = engine.clients.remove(&pid).unwrap_or_default();
        let mut channels: Vec<Channel> = handles.into_keys().collect();
        while !channels.is_empty() {
            let next = self.ends.below(channels.len() as u64);
            let channel = channels.remove(usize::try_from(next).unwrap_or(0));
            self.send(node, Entry::Gone(channel, Member { node, pid }), now);
        }
    }

    /// A process says something in a channel. Without being in it, nothing happens.
    pub fn mcast(&mut self, from: Member, channel: Channel, bytes: Vec<u8>, now: Micros) {
        let engine = self.engines.get(&from.node);
        let stage = engine.and_then(|engine| engine.clients.get(&from.pid)?.get(&channel));
        if stage.is_some() {
            self.send(from.node, Entry::Message(channel, from, bytes), now);
        }
    }

    pub(super) fn enter(&mut self, node: NodeId, pid: Pid, channel: Channel) {
        self.with(node, |engine| {
            let channels = engine.clients.get_mut(&pid);
            if let Some(stage @ Stage::Joining) =
                channels.and_then(|channels| channels.get_mut(&channel))
            {
                *stage = Stage::In;
            }
        });
    }

    /// A closed handle is gone: a join that waited for that goes out.
    pub(super) fn make_room(&mut self, node: NodeId, pid: Pid, channel: Channel, now: Micros) {
        let client = self.engines.get(&node).and_then(|engine| engine.clients.get(&pid));
        if client.and_then(|channels| channels.get(&channel)) != Some(&Stage::Joining) {
            return;
        }
        let entry = Entry::Join(channel, Member { node, pid });
        if self.turns(node) {
            self.send(node, entry, now);
        } else {
            self.with(node, |engine| engine.outbox.push_back(entry));
        }
    }

    pub(super) fn depart(&mut self, node: NodeId, pid: Pid, channel: Channel, at: Micros) {
        let channels = self.engines.get_mut(&node).and_then(|it| it.clients.get_mut(&pid));
        if channels.and_then(|channels| channels.remove(&channel)).is_some() {
            self.tell(node, pid, Word::Departed(channel), at);
        }
    }

    fn tell(&mut self, node: NodeId, pid: Pid, word: Word, at: Micros) {
        let Some(engine) = self.engines.get_mut(&node) else { return };
        engine.clock = engine.clock.plus_us(1).max(at);
        self.told.push(Heard { node, pid, at: engine.clock, word });
    }

    /// Tells all of a node's processes that are in a channel.
    pub(super) fn tell_channel(
        &mut self,
        node: NodeId,
        channel: Channel,
        event: &Event,
        at: Micros,
    ) {
        for pid in self.listeners(node, channel, |stage| stage != Stage::Joining) {
            self.tell(node, pid, Word::Event(event.clone()), at);
        }
    }

    /// Tells all of a node's processes that have a handle, in the channel or not yet.
    pub(super) fn tell_handles(
        &mut self,
        node: NodeId,
        channel: Channel,
        event: &Event,
        at: Micros,
    ) {
        for pid in self.listeners(node, channel, |_| true) {
            self.tell(node, pid, Word::Event(event.clone()), at);
        }
    }

    fn listeners(&self, node: NodeId, channel: Channel, who: impl Fn(Stage) -> bool) -> Vec<Pid> {
        let clients = self.engines.get(&node).into_iter().flat_map(|engine| &engine.clients);
        let listens = |(pid, channels): (&Pid, &std::collections::BTreeMap<Channel, Stage>)| {
            channels.get(&channel).is_some_and(|stage| who(*stage)).then_some(*pid)
        };
        clients.filter_map(listens).collect()
    }

    /// Tells all processes how the quorum stands, if that is still to be told.
    pub(super) fn speak(&mut self, node: NodeId) {
        let Some(engine) = self.engines.get_mut(&node) else { return };
        if let Some(at) = engine.speaks_at.take() {
            engine.spoken = engine.nodes.keys().copied().collect();
            let left = std::mem::take(&mut engine.left);
            self.tell_quorum(node, None, left, at);
        }
    }

    /// Tells one process, or all, how the quorum stands.
    fn tell_quorum(&mut self, node: NodeId, whom: Option<Pid>, left: Vec<NodeId>, at: Micros) {
        let Some((ring, nodes, quorate)) = self.ring(node) else { return };
        let event = Event::Quorum { quorate, ring, nodes, left };
        let pids: Vec<Pid> =
            self.engines.get(&node).into_iter().flat_map(|it| it.clients.keys()).copied().collect();
        for pid in pids.into_iter().filter(|pid| whom.is_none_or(|whom| whom == *pid)) {
            self.tell(node, pid, Word::Event(event.clone()), at);
        }
    }
}
