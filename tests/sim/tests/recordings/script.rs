//! The clients of a replay: processes that do as the script says, each at its own speed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use o2bridge_core::{Channel, Event, Member, NodeId};
use o2bridge_sim::corosync::{Corosync, Word};
use o2bridge_sim::recording::{Call, Deed, Step};
use o2bridge_sim::time::Micros;

use crate::replay::{Expected, Mismatch, Replay};

/// What a client is to do in a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    Join,
    Leave,
    Mcast(Vec<u8>),
}

/// Not before then.
type Todo = (Micros, Wish);

/// A process. What it does in one channel has an order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Client {
    pub(crate) unread: VecDeque<(Micros, Word)>,
    pub(crate) connects_at: Micros,
    pub(crate) joined: BTreeSet<Channel>,
    is_connected: bool,
    leaving: BTreeSet<Channel>,
    todo: BTreeMap<Channel, VecDeque<Todo>>,
    kills: VecDeque<(Micros, NodeId)>,
}

impl Client {
    /// Its next word, if that can be read by now.
    pub(crate) fn next(&mut self, now: Micros) -> Option<Word> {
        let is_there = self.unread.front().is_some_and(|(at, _)| *at <= now);
        if is_there { self.unread.pop_front().map(|(_, word)| word) } else { None }
    }

    /// When it reads or does something next.
    pub(crate) fn due(&self, own: Member, corosync: &Corosync) -> Option<Micros> {
        let reads = self.unread.front().map(|(at, _)| *at);
        if !corosync.answers(own.node) {
            return reads;
        }
        let connects = (!self.is_connected).then_some(self.connects_at);
        let acts = self.channels().filter_map(|channel| self.ready(channel)).map(|(at, _)| *at);
        let kills = self.kills.front().filter(|_| self.is_connected).map(|(at, _)| *at);
        acts.chain(reads).chain(connects).chain(kills).min()
    }

    fn channels(&self) -> impl Iterator<Item = Channel> + '_ {
        self.todo.keys().copied()
    }

    /// What it can do next in a channel.
    fn ready(&self, channel: Channel) -> Option<&Todo> {
        let todo = self.todo.get(&channel)?.front()?;
        let may = match todo.1 {
            Wish::Join => true,
            Wish::Leave | Wish::Mcast(_) => self.joined.contains(&channel),
        };
        (self.is_connected && may && !self.leaving.contains(&channel)).then_some(todo)
    }

    fn kill_by(&mut self, now: Micros) -> Option<NodeId> {
        let is_due = self.is_connected && self.kills.front().is_some_and(|(at, _)| *at <= now);
        if is_due { self.kills.pop_front().map(|(_, node)| node) } else { None }
    }

    /// Corosync is gone, and with it what was asked of it.
    pub(crate) fn lose(&mut self) {
        if self.is_connected {
            self.todo.clear();
            self.kills.clear();
        }
        self.is_connected = false;
        self.joined.clear();
        self.leaving.clear();
    }

    pub(crate) fn departed(&mut self, channel: Channel, then: Micros) {
        self.joined.remove(&channel);
        self.leaving.remove(&channel);
        if let Some(todo) = self.todo.get_mut(&channel) {
            // What is said after a leave is lost.
            while todo.front().is_some_and(|(_, wish)| *wish != Wish::Join) {
                todo.pop_front();
            }
        }
        self.delay(channel, then);
    }

    fn delay(&mut self, channel: Channel, until: Micros) {
        for (at, _) in self.todo.get_mut(&channel).into_iter().flatten() {
            *at = until.max(*at);
        }
    }

    fn wish(&mut self, channel: Channel, wish: Wish, at: Micros) {
        let todo = self.todo.entry(channel).or_default();
        let last = todo.back().map(|(at, _)| *at).unwrap_or_default();
        todo.push_back((at.max(last), wish));
    }
}

impl Replay {
    /// Does one step, a moment after the one before.
    pub(crate) fn step(
        &mut self,
        step: &Step,
        expected: &mut Expected<'_>,
    ) -> Result<(), Box<Mismatch>> {
        let moment = self.now.plus_us(self.dice.skewed(10_000));
        self.run_until(moment, expected)?;
        let at = self.now.plus_us(self.dice.skewed(10_000));
        match step {
            Step::Corosync(node, deed) => self.have_corosync(*node, *deed, expected)?,
            Step::Client(who, Deed::Start) => {
                let connects_at = self.now.plus_us(self.dice.skewed(40_000));
                self.clients.insert(*who, Client { connects_at, ..Client::default() });
            }
            Step::Client(who, _) => {
                self.clients.remove(who);
                self.corosync.part(who.node, who.pid, self.now);
            }
            Step::Call(who, Call::Join(channel)) => {
                self.client(*who).wish(*channel, Wish::Join, at)
            }
            Step::Call(who, Call::Leave(channel)) => {
                self.client(*who).wish(*channel, Wish::Leave, at);
            }
            Step::Call(who, Call::KillNode(node)) => {
                self.client(*who).kills.push_back((at, *node));
            }
            Step::Mcast(who, channel, bytes) => {
                self.client(*who).wish(*channel, Wish::Mcast(bytes.clone()), at);
            }
            Step::Finalize(who) => self.finalize(*who, expected)?,
            Step::Split(parts) => self.split(parts),
            Step::Mute(from, to) => self.corosync.cut_one_way(*from, *to, self.now),
            Step::Heal => self.corosync.wire(BTreeMap::new(), self.now),
        }
        self.hear();
        Ok(())
    }

    fn client(&mut self, who: Member) -> &mut Client {
        self.clients.get_mut(&who).expect("the script has started it")
    }

    fn have_corosync(
        &mut self,
        node: NodeId,
        deed: Deed,
        expected: &mut Expected<'_>,
    ) -> Result<(), Box<Mismatch>> {
        match deed {
            Deed::Start | Deed::StartOutdated => {
                self.corosync.start(node, self.now);
                if deed == Deed::StartOutdated {
                    self.corosync.haunt(node);
                }
                for (who, client) in &mut self.clients {
                    if who.node == node {
                        client.connects_at = self.now.plus_us(self.dice.skewed(250_000));
                    }
                }
            }
            Deed::Ends => {
                for _ in 0..10_000 {
                    if !self.corosync.is_up(node) {
                        break;
                    }
                    self.run_until(self.now.plus_ms(1), expected)?;
                }
            }
            Deed::Stop => self.corosync.stop(node, self.now),
            Deed::Kill => self.corosync.kill(node, self.now),
            Deed::Pause => self.corosync.pause(node, self.now),
            Deed::Resume => self.corosync.resume(node, self.now),
        }
        Ok(())
    }

    fn split(&mut self, parts: &[Vec<NodeId>]) {
        let numbered = (0u8..).zip(parts);
        let segments = numbered.flat_map(|(it, part)| part.iter().map(move |node| (*node, it)));
        self.corosync.wire(segments.collect(), self.now);
    }

    fn finalize(&mut self, who: Member, expected: &mut Expected<'_>) -> Result<(), Box<Mismatch>> {
        self.corosync.part(who.node, who.pid, self.now);
        let connects_at = self.now.plus_us(self.dice.skewed(40_000));
        let client = self.client(who);
        client.lose();
        client.unread.clear();
        client.connects_at = connects_at;
        self.compare(who, Event::Disconnected, expected)
    }

    /// Lets the clients do what they can by now.
    pub(crate) fn act(&mut self, expected: &mut Expected<'_>) -> Result<(), Box<Mismatch>> {
        let members: Vec<Member> = self.clients.keys().copied().collect();
        for who in members {
            if !self.corosync.answers(who.node) {
                continue;
            }
            let (now, lag) = (self.now, self.now.plus_us(self.dice.skewed(10_000)));
            let client = self.client(who);
            if !client.is_connected && client.connects_at <= now {
                client.is_connected = true;
                let channels: Vec<Channel> = client.channels().collect();
                channels.into_iter().for_each(|channel| client.delay(channel, lag));
                let nodelist = Vec::new();
                let event = Event::Connected { node: who.node, cluster: String::new(), nodelist };
                self.compare(who, event, expected)?;
                self.corosync.connect(who.node, who.pid, now);
            }
            self.call(who);
        }
        self.hear();
        Ok(())
    }

    fn call(&mut self, who: Member) {
        let now = self.now;
        while let Some(node) = self.client(who).kill_by(now) {
            self.corosync.kill_node(who.node, node, now);
        }
        let channels: Vec<Channel> = self.client(who).channels().collect();
        for channel in channels {
            while let Some((_, wish)) = self.client(who).ready(channel).filter(|it| it.0 <= now) {
                match wish.clone() {
                    Wish::Join if self.corosync.join(who.node, who.pid, channel, now) => {}
                    Wish::Join => {
                        self.client(who).delay(channel, now.plus_ms(10));
                        break;
                    }
                    Wish::Leave => {
                        self.client(who).leaving.insert(channel);
                        self.corosync.leave(who.node, who.pid, channel, now);
                    }
                    Wish::Mcast(bytes) => self.corosync.mcast(who, channel, bytes, now),
                }
                if let Some(todo) = self.client(who).todo.get_mut(&channel) {
                    todo.pop_front();
                }
            }
        }
    }
}
