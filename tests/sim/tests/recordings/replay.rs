//! A script done to the model, and what it tells held against what was recorded.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use o2bridge_core::{Channel, Event, Member, NodeId, Reason, RingId};
use o2bridge_sim::corosync::{Corosync, Heard, Pace, Word};
use o2bridge_sim::dice::Dice;
use o2bridge_sim::recording::{Line, Source, Told, client_name};
use o2bridge_sim::time::Micros;

use crate::script::Client;

/// Nothing in a script takes longer than that.
const PIECE_MS_MAX: u64 = 60_000;

/// The model, its clients, and which of its rings is which of the recording.
#[derive(Clone)]
pub(crate) struct Replay {
    pub(crate) corosync: Corosync,
    pub(crate) clients: BTreeMap<Member, Client>,
    pub(crate) dice: Dice,
    pub(crate) now: Micros,
    rings: BTreeMap<RingId, RingId>,
}

/// Where a replay left the recording.
pub(crate) struct Mismatch {
    /// So much was told alike before.
    pub(crate) matched: usize,
    client: Member,
    told: Option<Event>,
    recorded: Option<Event>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { matched, client, told, recorded } = self;
        let client = client_name(*client);
        write!(f, "after {matched} alike, {client} is told {told:?}; recorded was {recorded:?}")
    }
}

/// What is still to be told.
#[derive(Default)]
pub(crate) struct Expected<'a> {
    left: BTreeMap<(Member, Source), VecDeque<&'a Told>>,
    matched: usize,
}

impl Replay {
    pub(crate) fn new(nodes: u32) -> Self {
        Self {
            corosync: Corosync::new(nodes as usize, Pace::default(), 0),
            clients: BTreeMap::new(),
            dice: Dice::new(0, 0),
            now: Micros::default(),
            rings: BTreeMap::new(),
        }
    }

    /// Does the steps until all is quiet; stops where what is told is not what was recorded.
    pub(crate) fn play(
        &mut self,
        steps: &[Line],
        told: &[Told],
        seed: u64,
    ) -> Result<(), Box<Mismatch>> {
        self.corosync.reseed(seed);
        self.dice = Dice::new(seed, 0x5C21);
        let mut expected = Expected::default();
        for told in told {
            expected.left.entry((told.client, told.source)).or_default().push_back(told);
        }
        for line in steps {
            match line {
                Line::Step(step) => self.step(step, &mut expected)?,
                Line::Wait { ms } => self.run_until(self.now.plus_ms(*ms), &mut expected)?,
                Line::Quiet | Line::Told(_) | Line::Done { .. } => {}
            }
        }
        self.run_until(self.now.plus_ms(PIECE_MS_MAX), &mut expected)?;
        match expected.left.into_values().find_map(|mut left| left.pop_front()) {
            None => Ok(()),
            Some(missing) => Err(Box::new(Mismatch {
                matched: expected.matched,
                client: missing.client,
                told: None,
                recorded: Some(missing.event.clone()),
            })),
        }
    }

    /// Lets happen what happens until then, or until nothing does.
    pub(crate) fn run_until(
        &mut self,
        end: Micros,
        expected: &mut Expected<'_>,
    ) -> Result<(), Box<Mismatch>> {
        loop {
            let clients = self.clients.iter().filter_map(|(who, it)| it.due(*who, &self.corosync));
            let next = clients.chain(self.corosync.next_due()).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.corosync.run(self.now);
            self.hear();
            self.read(expected)?;
            self.act(expected)?;
        }
        if end.ms_since(self.now) < PIECE_MS_MAX / 2 {
            self.now = end;
        }
        Ok(())
    }

    /// Takes what corosync has for the clients.
    pub(crate) fn hear(&mut self) {
        for Heard { node, pid, at, word } in self.corosync.take_told() {
            let Some(client) = self.clients.get_mut(&Member { node, pid }) else { continue };
            let is_end = word == Word::Event(Event::Disconnected);
            if is_end {
                client.unread.retain(|(ready, _)| *ready <= at);
                client.lose();
                client.connects_at = at.plus_us(self.dice.skewed(200_000));
            }
            client.unread.push_back((at, word));
        }
    }

    /// Lets the clients read what is there for them.
    pub(crate) fn read(&mut self, expected: &mut Expected<'_>) -> Result<(), Box<Mismatch>> {
        let members: Vec<Member> = self.clients.keys().copied().collect();
        for member in members {
            while let Some(word) = self.clients.get_mut(&member).and_then(|it| it.next(self.now)) {
                let pause = self.dice.skewed(5_000);
                let client = self.clients.get_mut(&member).expect("it reads");
                match word {
                    Word::Departed(channel) => client.departed(channel, self.now.plus_us(pause)),
                    Word::Event(event) => {
                        if let Some(channel) = own_join(member, &event) {
                            client.joined.insert(channel);
                        }
                        self.compare(member, event, expected)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Holds one word against the recording.
    pub(crate) fn compare(
        &mut self,
        client: Member,
        event: Event,
        expected: &mut Expected<'_>,
    ) -> Result<(), Box<Mismatch>> {
        let source = source(&event);
        let next = expected.left.get_mut(&(client, source)).and_then(VecDeque::pop_front);
        if next.is_some_and(|next| self.is_same(&event, &next.event)) {
            expected.matched += 1;
            return Ok(());
        }
        let recorded = next.map(|next| next.event.clone());
        let matched = expected.matched;
        Err(Box::new(Mismatch { matched, client, told: Some(event), recorded }))
    }

    fn is_same(&mut self, told: &Event, recorded: &Event) -> bool {
        match (told, recorded) {
            (Event::Connected { .. }, Event::Connected { .. }) => true,
            (
                Event::Quorum { quorate, ring, nodes, left },
                Event::Quorum {
                    quorate: quorate_then,
                    ring: ring_then,
                    nodes: nodes_then,
                    left: left_then,
                },
            ) => {
                (quorate, nodes, left) == (quorate_then, nodes_then, left_then)
                    && self.is_ring(*ring, *ring_then)
            }
            (
                Event::Totem { ring, nodes, .. },
                Event::Totem { ring: ring_then, nodes: nodes_then, .. },
            ) => nodes == nodes_then && self.is_ring(*ring, *ring_then),
            (
                Event::Confchg { members, left, joined, .. },
                Event::Confchg {
                    members: members_then, left: left_then, joined: joined_then, ..
                },
            ) => {
                members == members_then
                    && sorted(left) == sorted(left_then)
                    && sorted(joined) == sorted(joined_then)
            }
            (told, recorded) => told == recorded,
        }
    }

    /// Numbers differ; which ring is which must not.
    fn is_ring(&mut self, told: RingId, recorded: RingId) -> bool {
        let known = self.rings.get(&told).copied();
        let is_taken = self.rings.values().any(|it| *it == recorded);
        match known {
            Some(known) => known == recorded,
            None if is_taken || told.node != recorded.node => false,
            None => {
                self.rings.insert(told, recorded);
                true
            }
        }
    }
}

fn own_join(client: Member, event: &Event) -> Option<Channel> {
    match event {
        Event::Confchg { channel, joined, .. } if joined.contains(&(client, Reason::Join)) => {
            Some(*channel)
        }
        _ => None,
    }
}

fn sorted(list: &[(Member, Reason)]) -> Vec<(NodeId, u32, Reason)> {
    let mut list: Vec<_> = list.iter().map(|(it, why)| (it.node, it.pid.0, *why)).collect();
    list.sort_by_key(|(node, pid, _)| (*node, *pid));
    list
}

fn source(event: &Event) -> Source {
    match event {
        Event::Quorum { .. } => Source::Quorum,
        Event::Confchg { channel, .. }
        | Event::Totem { channel, .. }
        | Event::Message { channel, .. } => Source::Channel(*channel),
        _ => Source::Connection,
    }
}
