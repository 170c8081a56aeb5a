//! Watches the core's state machines move, and holds each move against its table.

use std::collections::BTreeMap;

use o2bridge_core::timer::Timer;
use o2bridge_core::{
    Action, Channel, Event, Finding, GroupId, Note, OpError, Refusal, Reply, ServiceName, Snapshot,
};

use crate::tables::{MOVES, Move, RARE};
use crate::world::LIBRARY;

/// How often each move was made.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    wanted: bool,
    /// By move.
    pub seen: BTreeMap<Move, u64>,
}

/// One event, and what became of it.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Before.
    pub before: &'a Snapshot,
    /// The event.
    pub event: &'a Event,
    /// The effect whose end it is, if it is one.
    pub cause: Option<&'a Action>,
    /// After.
    pub after: &'a Snapshot,
    /// What came of it.
    pub actions: &'a [Action],
}

/// Every so many seeds are watched: watching costs as much as the run itself.
const WATCHED_IN: u64 = 8;

impl Coverage {
    /// For a run of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { wanted: seed % WATCHED_IN == 0, seen: BTreeMap::new() }
    }

    /// Whether this run is watched.
    #[must_use]
    pub const fn wants(&self) -> bool {
        self.wanted
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (move_, count) in &other.seen {
            *self.seen.entry(*move_).or_default() += count;
        }
    }

    /// The moves that a long run has to make and that nobody made.
    #[must_use]
    pub fn missing(&self) -> Vec<Move> {
        all(MOVES).filter(|move_| !self.seen.contains_key(move_)).collect()
    }

    /// How many of the moves that a long run has to make were made, and how many there are.
    #[must_use]
    pub fn share(&self) -> (usize, usize) {
        let all = all(MOVES).count();
        (all - self.missing().len(), all)
    }

    /// Looks at one event.
    ///
    /// # Errors
    /// A move that its table does not have.
    pub fn see(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        let mut watch = Watch { seen, moves: Vec::new() };
        watch.link();
        watch.clock();
        watch.locking();
        watch.groups();
        watch.nodes();
        for move_ in watch.moves {
            if let Some(wanted) = unmet(move_, seen.actions) {
                let Move { table, from, on, to } = move_;
                return Err(format!("{table}: {from} -> {to} on \"{on}\" without a {wanted}"));
            }
            // What a table does not name changes nothing; what it names does not stay undone.
            let mut rows = all(MOVES)
                .chain(all(RARE))
                .filter(|it| (it.table, it.from, it.on) == (move_.table, move_.from, move_.on));
            let first = rows.next();
            if first.into_iter().chain(rows).any(|it| it.to == move_.to) {
                *self.seen.entry(move_).or_default() += 1;
            } else if move_.from != move_.to || first.is_some() {
                let Move { table, from, on, to } = move_;
                return Err(format!("{table}: {from} -> {to} on \"{on}\" is in no table"));
            }
        }
        Ok(())
    }
}

pub(crate) fn all(
    tables: &'static [(&'static str, &'static [[&'static str; 3]])],
) -> impl Iterator<Item = Move> {
    let of = |(table, moves): &'static (&'static str, &'static [[&'static str; 3]])| {
        moves.iter().map(|[from, on, to]| Move { table, from, on, to })
    };
    tables.iter().flat_map(of)
}

/// The action that a move has to come with, if it is not there.
fn unmet(move_: Move, actions: &[Action]) -> Option<&'static str> {
    type Is = fn(&Action) -> bool;
    let (wanted, is): (&'static str, Is) = match (move_.table, move_.from, move_.to) {
        ("handle", "down" | "pausing", "joining") | ("group", "out", "joining") => {
            ("join", |it| matches!(it, Action::Join { .. }))
        }
        ("handle", "up" | "joining", "leaving") | ("group", _, "departing")
            if move_.from != "departing" =>
        {
            ("depart", |it| matches!(it, Action::Depart { .. }))
        }
        ("handle", "joining", "pausing") | ("group", "joining" | "entering", "pausing") => {
            ("timer", |it| matches!(it, Action::Arm { .. }))
        }
        ("fence", "needed" | "none" | "retrying", "running") => {
            ("fence agent", |it| matches!(it, Action::Fence { .. }))
        }
        ("fence", "running", "retrying") => ("timer", |it| matches!(it, Action::Arm { .. })),
        ("service", "beginning", "granted") | ("service", "completing", "live") => {
            ("reply", |it| matches!(it, Action::Reply { .. }))
        }
        ("service", from, to)
            if from == to
                && matches!(move_.on, "begin" | "leave" | "complete 0" | "complete not 0") =>
        {
            ("reply", |it| matches!(it, Action::Reply { .. }))
        }
        ("lane", _, "pausing") => ("timer", |it| matches!(it, Action::Arm { .. })),
        ("service", "granted" | "live", "looking") => {
            ("look", |it| matches!(it, Action::Look { .. }))
        }
        ("outvoted", "running", "running") if move_.on == "overdue" => {
            ("reset of ourselves", |it| matches!(it, Action::FenceSelf { .. }))
        }
        ("outvoted", "stopped", "running") => ("timer", |it| matches!(it, Action::Arm { .. })),
        _ => return None,
    };
    (!actions.iter().any(is)).then_some(wanted)
}

struct Watch<'a> {
    seen: &'a Seen<'a>,
    moves: Vec<Move>,
}

impl Watch<'_> {
    fn add(&mut self, table: &'static str, from: &'static str, on: &'static str, to: &'static str) {
        self.moves.push(Move { table, from, on, to });
    }

    /// The end of a join or leave of this channel, in words; `None` if the event is no such end.
    fn channel_end(&self, channel: Channel) -> Option<&'static str> {
        let Event::Done { result, .. } = self.seen.event else { return None };
        // Of a connection that is gone, nobody waits for any end.
        if *result == Err(OpError::Corosync(LIBRARY)) {
            return None;
        }
        match self.seen.cause? {
            Action::Join { channel: it, .. } if *it == channel => {
                Some(if result.is_ok() { "join ok" } else { "join failed" })
            }
            Action::Depart { channel: it, .. } if *it == channel => {
                let is_lost = channel == Channel::Control && result.is_err();
                Some(if is_lost { "depart failed" } else { "depart done" })
            }
            _ => None,
        }
    }

    fn is_confchg_with_us(&self, channel: Channel) -> bool {
        let me = self.seen.before.node;
        matches!(self.seen.event, Event::Confchg { channel: it, joined, .. }
            if *it == channel && joined.iter().any(|(member, _)| Some(member.node) == me))
    }

    fn link(&mut self) {
        let (from, to) = (self.seen.before.link, self.seen.after.link);
        let exits = self.seen.actions.contains(&Action::Exit);
        let waits = self.seen.actions.contains(&Action::Note(Note::StopWaits));
        let on = match self.seen.event {
            Event::Connected { .. } => Some("connected"),
            Event::Disconnected => Some("disconnected"),
            Event::Stop if exits || waits || to == "leaving" => Some("stop"),
            Event::Timer { timer: Timer::Channel(Channel::Control), .. } if from != to => {
                Some("timer")
            }
            _ if self.is_confchg_with_us(Channel::Control) => Some("in the confchg"),
            _ => self.channel_end(Channel::Control),
        };
        match on {
            Some(on) => self.add("handle", from, on, if exits { "exit" } else { to }),
            None => self.add("handle", from, "anything else", to),
        }
    }

    fn clock(&mut self) {
        let name = |runs: bool| if runs { "running" } else { "stopped" };
        let (from, to) = (name(self.seen.before.outvoted), name(self.seen.after.outvoted));
        // An old setting fires into nothing; the present one is set again.
        let set = |it: &Action| matches!(it, Action::Arm { timer: Timer::Outvoted, .. });
        let overdue = matches!(self.seen.event, Event::Timer { timer: Timer::Outvoted, .. })
            && self.seen.actions.iter().any(set);
        let on = match (overdue, from, to) {
            (true, "running", "running") => "overdue",
            (_, "stopped", "running") => "not in force, something attached",
            (_, "running", "stopped") => "in force, or nothing attached",
            _ => return,
        };
        self.add("outvoted", from, on, to);
    }

    fn locking(&mut self) {
        let (from, to) = (self.seen.before.locking, self.seen.after.locking);
        let chooses = self.seen.actions.iter().any(|it| matches!(it, Action::RunLocking(_)));
        let on = match (chooses, from, to) {
            (true, "none", _) => "to be used",
            (true, ..) => "another one",
            (false, "chosen", "heard") => "our word came back",
            (false, _, "none") if from != to => "not in use, or not all have spoken",
            _ if from == to => return,
            _ => "anything else",
        };
        self.add("locking", from, on, to);
    }

    fn groups(&mut self) {
        let seen = self.seen;
        let ids = seen.before.groups.iter().chain(&seen.after.groups).map(|it| it.group);
        let mut ids: Vec<GroupId> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            self.presence(id);
            self.lane(id);
            self.services(id);
            self.users(id);
        }
    }

    fn presence(&mut self, id: GroupId) {
        let of = |snapshot: &Snapshot| {
            snapshot.groups.iter().find(|it| it.group == id).map(|it| (it.presence, it.state))
        };
        let from = of(self.seen.before).map_or("out", |(presence, _)| presence);
        let to = of(self.seen.after).map_or("out", |(presence, _)| presence);
        let channel = Channel::Group(id);
        let timer = matches!(self.seen.event, Event::Timer { timer: Timer::Channel(it), .. }
            if *it == channel);
        let on = match self.seen.event {
            Event::Disconnected if from != "out" => "disconnected",
            _ if timer && from == "pausing" => "timer",
            _ if self.is_confchg_with_us(channel) => "in the confchg",
            _ => match self.channel_end(channel) {
                Some(end) => end,
                None if from == to => return,
                None if from == "out" => "wanted, announced",
                None => "closing or expelled",
            },
        };
        self.add("group", from, on, to);
    }

    /// Which step goes out, and from which grip.
    fn lane(&mut self, id: GroupId) {
        let of = |snapshot: &Snapshot| {
            snapshot.groups.iter().find(|it| it.group == id).map_or("detached", |it| it.grip)
        };
        // What ended in this event counts as ended; the step that follows starts from there.
        let from = of(self.seen.after);
        let steps = self.seen.actions.iter().filter_map(|action| match action {
            Action::Save { group, image, .. } if *group == id => Some(match image {
                None => "forget",
                Some(image) if image.unfinished => "save ahead",
                Some(_) => "save",
            }),
            Action::Verb { group, verb, .. } if *group == id => Some(verb.name()),
            _ => None,
        });
        let steps: Vec<&'static str> = steps.collect();
        if let (Event::Done { result: Err(_), .. }, Some(step)) =
            (self.seen.event, self.step_of(id))
        {
            self.add("lane", step, "failed", "pausing");
        }
        for on in steps {
            let is_marked = matches!(from, "unresumed" | "unfinished");
            let on = if is_marked && on == "save ahead" { "save" } else { on };
            self.add("lane", from, on, "busy");
        }
    }

    /// The step of this group that the event is the end of.
    fn step_of(&self, id: GroupId) -> Option<&'static str> {
        match self.seen.cause? {
            Action::Save { group, .. } if *group == id => Some("save"),
            Action::Verb { group, verb, .. } if *group == id => Some(verb.name()),
            _ => None,
        }
    }

    fn services(&mut self, id: GroupId) {
        let of = |snapshot: &Snapshot| -> BTreeMap<ServiceName, &'static str> {
            let group = snapshot.groups.iter().find(|it| it.group == id);
            let services = group.map(|it| it.services.as_slice()).unwrap_or_default();
            services.iter().map(|it| (it.service.clone(), it.state)).collect()
        };
        let (before, after) = (of(self.seen.before), of(self.seen.after));
        let mut names: Vec<&ServiceName> = before.keys().chain(after.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let from = before.get(name).copied().unwrap_or("none");
            let to = after.get(name).copied().unwrap_or("none");
            if let Some(on) = self.service_event(id, name, (from, to)) {
                self.add("service", from, on, to);
            }
        }
    }

    fn service_event(
        &self,
        id: GroupId,
        name: &ServiceName,
        (from, to): (&str, &str),
    ) -> Option<&'static str> {
        let is_ours = |group: &GroupId, service: &ServiceName| *group == id && service == name;
        let moved = from != to;
        match self.seen.event {
            Event::Begin(begin) if is_ours(&begin.group, &begin.service) => Some("begin"),
            Event::Complete { group, service, code, .. } if is_ours(group, service) => {
                let refused = |it: &Action| {
                    matches!(it, Action::Reply { reply: Reply::Refused(Refusal::NotBegun), .. })
                };
                // Of another client than the begin's, it is not meant.
                let is_anothers = !moved
                    && matches!(from, "granted" | "additional")
                    && self.seen.actions.iter().any(refused);
                (!is_anothers && from != "none").then_some(if *code == 0 {
                    "complete 0"
                } else {
                    "complete not 0"
                })
            }
            Event::Leave { group, service, .. } if is_ours(group, service) => Some("leave"),
            Event::ClientGone { .. } if moved => Some("client gone"),
            Event::Timer {
                timer:
                    Timer::Begin(group, service)
                    | Timer::Complete(group, service)
                    | Timer::Leave(group, service),
                ..
            } if is_ours(group, service) && moved => Some("timer"),
            Event::Looked { finding, .. } if from == "looking" && moved => Some(match finding {
                Finding::Mounted | Finding::Unknown => "looked: mounted",
                Finding::NotMounted => "looked: not mounted",
            }),
            _ if !moved => None,
            _ => Some(match (from, to) {
                ("beginning", "granted") => "ready, saved",
                ("live", "granted") => "inherited",
                ("beginning", _) => "refused",
                ("completing" | "leaving", _) => "saved",
                _ => "anything else",
            }),
        }
    }

    fn users(&mut self, id: GroupId) {
        let seen = self.seen;
        let of = |snapshot: &Snapshot| {
            let group = snapshot.groups.iter().find(|it| it.group == id);
            let members = group.map(|it| it.members.clone()).unwrap_or_default();
            let mut users = BTreeMap::new();
            for member in members {
                let state = if member.state == "dead" { "dead" } else { "user" };
                // Of a node that is dead and has a later use, the death comes first.
                let entry = users.entry(member.node).or_insert((state, member.incarnation));
                if state == "dead" {
                    *entry = (state, member.incarnation);
                }
            }
            users
        };
        if !seen.after.groups.iter().any(|it| it.group == id) {
            return;
        }
        let (before, after) = (of(seen.before), of(seen.after));
        let went = matches!(seen.event, Event::Confchg { channel, left, .. }
            if *channel == Channel::Group(id) && !left.is_empty());
        for node in before.keys().chain(after.keys().filter(|it| !before.contains_key(it))) {
            let (from, old) = before.get(node).map_or(("none", None), |it| (it.0, Some(it.1)));
            let (to, new) = after.get(node).map_or(("none", None), |it| (it.0, Some(it.1)));
            let condemned = seen.actions.iter().any(|action| {
                matches!(action, Action::Note(Note::Condemned(group, it, ..))
                    if *group == id && it == node)
            });
            let on = match (from, to) {
                ("none", "user") => "state",
                ("user", "dead") => "condemned",
                ("user", _) if condemned => "condemned",
                ("user", "none") => "a hello without the use",
                ("user", "user") if went => "its process or node went",
                ("dead", "none" | "user") => "told, or never known",
                (a, b) if a == b && old != new => "another use",
                (a, b) if a == b => continue,
                _ => "anything else",
            };
            self.add("group: user", from, on, to);
        }
    }

    fn nodes(&mut self) {
        let seen = self.seen;
        let of = |snapshot: &Snapshot| -> BTreeMap<_, _> {
            let nodes = snapshot.nodes.iter();
            nodes.map(|it| (it.node, (it.daemon, it.fencing, it.in_ring))).collect()
        };
        let (before, after) = (of(seen.before), of(seen.after));
        let mut ids: Vec<_> = before.keys().chain(after.keys()).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        for node in ids {
            let (from, fate, _) = before.get(&node).copied().unwrap_or(("absent", "none", false));
            let (to, then, _) = after.get(&node).copied().unwrap_or(("absent", "none", false));
            self.stage(node, stage(fate), stage(then));
            self.daemon(node, from, to);
        }
    }

    fn stage(&mut self, node: o2bridge_core::NodeId, from: &'static str, to: &'static str) {
        let end = match (self.seen.event, self.seen.cause) {
            (Event::Done { result, .. }, Some(Action::Fence { node: it, .. })) if *it == node => {
                Some(result)
            }
            _ => None,
        };
        let pause = matches!(self.seen.event, Event::Timer { timer: Timer::Fence(it), .. }
            if *it == node);
        let runs = self
            .seen
            .actions
            .iter()
            .any(|action| matches!(action, Action::Fence { node: it, .. } if *it == node));
        // Under another policy the same stage has another name.
        let is_renamed = matches!(self.seen.event, Event::Reconfigure(_)) && !runs;
        let on = match (from, to) {
            ("none", "none") => return,
            ("needed" | "running" | "retrying", "needed" | "running" | "retrying")
                if is_renamed =>
            {
                return;
            }
            ("none", _) => "lost",
            (_, "none") => "another boot, or all ended",
            ("running", "fenced") if matches!(end, Some(Ok(()))) => "agent ok",
            ("running", "needed" | "running") if matches!(end, Some(Ok(()))) => {
                "agent ok, out of date"
            }
            ("running", "retrying") if matches!(end, Some(Err(_))) => "agent failed",
            ("retrying", _) if pause => "pause over",
            ("needed", "running") => "our turn",
            ("needed" | "running" | "retrying", "fenced") => "proof",
            ("fenced", "needed" | "running") => "out of date, or used more",
            ("running", "running") if runs => "used more",
            ("running" | "retrying", "needed" | "running") if from != to => "used more",
            _ if from == to => return,
            _ => "anything else",
        };
        self.add("fence", from, on, to);
    }

    fn daemon(&mut self, node: o2bridge_core::NodeId, from: &'static str, to: &'static str) {
        let on = match self.seen.event {
            Event::Message { channel: Channel::Control, from: it, .. } if it.node == node => {
                match to {
                    "speaking" => "hello",
                    "incompatible" => "foreign hello",
                    _ => return,
                }
            }
            Event::Timer { timer: Timer::Grace(it), .. } if *it == node => "grace over",
            Event::Confchg { channel: Channel::Control, joined, .. }
                if joined.iter().any(|(member, _)| member.node == node) && to == "silent" =>
            {
                "came"
            }
            _ if from == to => return,
            _ if to == "absent" || from == "speaking" || from == "incompatible" => "left",
            _ if to == "silent" => "came",
            _ => "anything else",
        };
        if on == "grace over" && from == to && !self.asks_to_kill(node) {
            return;
        }
        self.add("node", from, on, to);
    }

    fn asks_to_kill(&self, node: o2bridge_core::NodeId) -> bool {
        let kills =
            |action: &Action| matches!(action, Action::KillNode { node: it, .. } if *it == node);
        self.seen.actions.iter().any(kills)
    }
}

fn stage(fencing: &'static str) -> &'static str {
    if fencing == "waiting for ack" { "needed" } else { fencing }
}
