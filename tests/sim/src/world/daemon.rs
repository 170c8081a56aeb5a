//! Events into a core, actions out of it.

use o2bridge_core::{Action, Channel, Event, GroupId, Member, NodeId, Note, Now};

use super::{Job, World, effects};
use crate::check::Violation;
use crate::coverage::Seen;
use crate::protocol;
use crate::time::Micros;

/// When what corosync was too busy for is offered to it again.
pub(super) const PUMP_US: u64 = 5_000;
/// What its nodes may say in a run, each on an average: 16 messages are usual, and 300 are seen once in 60000 runs,
/// when rings start over again and again. No answer may beget another for ever.
const MESSAGES_EACH_MAX: u64 = 1_000;
/// How long a message may be, in bytes: its head, a node's, and a use's.
const MESSAGE_BYTES: [usize; 3] = [64, 32, 24];
/// The effects that a daemon may have begun and not ended, for each node and each volume: 2 are never seen, but a fence
/// agent that nobody waits for any more goes on.
const EFFECTS_EACH_MAX: usize = 3;
/// What one event may lead to: far above what any needs, far below what would be a flood.
const ACTIONS_MAX: usize = 4_000;

impl World {
    /// Gives an event to a daemon, if it is still the one that it was meant for.
    pub(crate) fn tell(&mut self, node: NodeId, life: u64, event: Event) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&node).filter(|it| it.life == life) else {
            return;
        };
        let Some(daemon) = machine.daemon.as_mut() else { return };
        if daemon.hangs {
            return self.hold(node, Job::Tell(node, life, Box::new(event)));
        }
        if let Event::Quorum { quorate: true, nodes, .. } = &event {
            self.note_ring(nodes);
        }
        let daemon = self.machines.get_mut(&node).and_then(|it| it.daemon.as_mut());
        let Some(daemon) = daemon else { return };
        let (mut cause, mut stale) = (None, false);
        match &event {
            Event::Quorum { quorate, ring, nodes, .. } => {
                daemon.quorum = Some((*quorate, *ring, nodes.clone()));
            }
            Event::Confchg { channel, members, joined, .. } => {
                if *channel == Channel::Control {
                    daemon.control.clone_from(members);
                }
                let is_us = |member: &Member| member.node == node && member.pid == daemon.pid;
                if joined.iter().any(|(member, _)| is_us(member)) {
                    daemon.totems.remove(channel);
                }
            }
            Event::Totem { channel, ring, .. } => {
                daemon.totems.insert(*channel, *ring);
            }
            Event::Disconnected => {
                daemon.totems.clear();
                daemon.connected = false;
                daemon.quorum = None;
                daemon.control.clear();
                daemon.outbox.clear();
                daemon.severed.extend(daemon.effects.values().filter_map(effects::asks_corosync));
            }
            Event::Timer { timer, generation } => {
                stale = daemon.armed.get(timer) != Some(generation);
            }
            Event::Done { op, .. } | Event::Looked { op, .. } => {
                // Who lost its corosync does not wait any more for what it asked that one.
                cause = daemon.effects.remove(op).filter(|_| !daemon.severed.contains(op));
                daemon.severed.remove(op);
            }
            _ => {}
        }
        daemon.look(node, &event, now);
        // A timer's old setting is an event in no table.
        let is_watched = self.coverage.wants() && !stale;
        let before = is_watched.then(|| daemon.core.snapshot());
        let mut actions = Vec::new();
        daemon.core.handle(Now(now.0 / 1_000), event.clone(), &mut actions);
        let broken = daemon.core.check().err();
        let after = is_watched.then(|| daemon.core.snapshot());
        self.counts.events += 1;
        if event == Event::Stop {
            daemon.hurried |= daemon.stopping;
            let refused = |it: &Action| matches!(it, Action::Note(Note::StopRefused(_)));
            daemon.stopping |= !actions.iter().any(refused);
        }
        if self.trace.is_on() && !matches!(event, Event::Message { .. }) {
            self.trace.say(now, || format!("n{node} <- {event:?}"));
        }
        if let Some(broken) = broken {
            self.violate("invariant", || format!("n{node}: {broken} after {event:?}"));
        }
        if let (Some(before), Some(after)) = (before, after) {
            let seen = Seen {
                before: &before,
                event: &event,
                cause: cause.as_ref(),
                after: &after,
                actions: &actions,
            };
            if let Err(text) = self.coverage.see(&seen) {
                self.violate("table", || format!("n{node}: {text} at {event:?}"));
            }
        }
        if stale && !actions.is_empty() {
            self.violate("timer", || {
                format!("n{node}: {event:?} was set anew, and does {actions:?}")
            });
        }
        if actions.len() > ACTIONS_MAX {
            self.violate("growth", || format!("n{node}: {} actions at {event:?}", actions.len()));
        }
        let given_up = self.give_up_depart(node, &actions);
        for action in actions {
            let is_lost =
                matches!(&action, Action::Mcast { channel, .. } if Some(*channel) == given_up);
            if !is_lost {
                self.take(node, life, action);
            }
        }
        let daemon = self.machines[&node].daemon.as_ref();
        let effects = daemon.map_or(0, |daemon| daemon.effects.len());
        if effects > EFFECTS_EACH_MAX * (self.machines.len() + self.volumes.len()) {
            self.violate("growth", || format!("n{node} has begun {effects} effects"));
        }
    }

    /// A message names each node once for what it was lost in and once for what it misses it in, and with it each volume
    /// once.
    pub(crate) fn check_length(&mut self, node: NodeId, length: usize) {
        let [head, each_node, each_use] = MESSAGE_BYTES;
        let most = head + 2 * self.machines.len() * (each_node + self.volumes.len() * each_use);
        if length > most {
            self.violate("growth", || format!("n{node} says {length} bytes at once"));
        }
    }

    /// A message waits behind those of its channel that corosync was too busy for, and for nothing else.
    fn queue(&mut self, node: NodeId, life: u64, channel: Channel, bytes: Vec<u8>) {
        let is_busy = self.is_flaky(24);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let (from, Some(daemon)) = (machine.member(), machine.daemon.as_mut()) else { return };
        let waits = daemon.outbox.contains_key(&channel);
        if waits || is_busy {
            daemon.outbox.entry(channel).or_default().push_back(bytes);
        } else if let Some(from) = from {
            self.corosync.mcast(from, channel, bytes, self.now);
        }
        if is_busy && !waits {
            self.after_us(PUMP_US, Job::Pump(node, life, channel));
        }
    }

    pub(super) fn pump(&mut self, node: NodeId, life: u64, channel: Channel) {
        if self.is_flaky(2) {
            return self.after_us(PUMP_US, Job::Pump(node, life, channel));
        }
        let Some(machine) = self.machines.get_mut(&node).filter(|it| it.life == life) else {
            return;
        };
        let (Some(from), Some(daemon)) = (machine.member(), machine.daemon.as_mut()) else {
            return;
        };
        for bytes in daemon.outbox.remove(&channel).into_iter().flatten() {
            self.corosync.mcast(from, channel, bytes, self.now);
        }
    }

    /// Corosync may be too busy for so long that a leave is given up, with what was said before it.
    fn give_up_depart(&mut self, node: NodeId, actions: &[Action]) -> Option<Channel> {
        let depart = |action: &Action| match action {
            Action::Depart { op, channel } => Some((*op, *channel)),
            _ => None,
        };
        let (op, channel) = actions.iter().find_map(depart)?;
        if !self.is_flaky(12) {
            return None;
        }
        let daemon = self.machines.get_mut(&node).and_then(|it| it.daemon.as_mut())?;
        daemon.given_up.insert(op);
        Some(channel)
    }

    /// Lets a daemon's loop look at what corosync has for it, in the order that the adapter promises:
    /// it reads the mountgroups, then the control group, then quorum, and hands them over the other way
    /// round. So a mountgroup may lag behind, and never run ahead.
    pub(super) fn wake(&mut self, node: NodeId, life: u64) {
        let lag_us = self.options.lag_us;
        let Some(machine) = self.machines.get_mut(&node).filter(|it| it.life == life) else {
            return;
        };
        let Some(daemon) = machine.daemon.as_mut() else { return };
        let mut taken: [Vec<Event>; 3] = Default::default();
        let mut kept: Vec<(Micros, Event)> = Vec::new();
        // How far each channel is read in this round; an event that stays keeps its followers back.
        let mut stuck: Vec<Channel> = Vec::new();
        for (at, event) in std::mem::take(&mut daemon.inbox) {
            let (rank, channel) = rank(&event);
            let reads_late = rank == 2 && self.dice.one_in(8);
            let waits = at > self.now
                || reads_late
                || channel.is_some_and(|channel| stuck.contains(&channel));
            if waits {
                stuck.extend(channel.filter(|_| rank == 2 || at > self.now));
                kept.push((at, event));
            } else {
                taken[rank].push(event);
            }
        }
        let next = kept.first().map(|(at, _)| (*at).max(self.now));
        daemon.inbox = kept;
        if let Some(next) = next {
            let us = self.dice.skewed(lag_us).max(1);
            self.at(next.plus_us(us), Job::Wake(node, life));
        }
        for event in taken.into_iter().flatten() {
            let event = protocol::translate(
                event,
                |it| self.machines.get(&it).is_some_and(|m| m.foreign),
                node,
            );
            self.tell(node, life, event);
        }
    }

    /// Carries out one action, or lets it begin.
    fn take(&mut self, node: NodeId, life: u64, action: Action) {
        if self.trace.is_on() && !matches!(action, Action::Arm { .. } | Action::Mcast { .. }) {
            self.trace.say(self.now, || format!("n{node} -> {action:?}"));
        }
        match action {
            Action::Mcast { channel, bytes } => {
                self.counts.messages += 1;
                self.check_length(node, bytes.len());
                let most = MESSAGES_EACH_MAX * u64::from(self.options.nodes);
                if self.counts.messages > most {
                    self.violate("growth", || format!("{most} messages, and n{node} says more"));
                }
                match channel {
                    Channel::Group(group) => self.spoke_in(node, group),
                    Channel::Control => self.spoke(node),
                }
                if channel == Channel::Control {
                    let daemon = self.machines.get_mut(&node).and_then(|it| it.daemon.as_mut());
                    daemon.into_iter().for_each(|it| it.words.say(&bytes));
                }
                self.queue(node, life, channel, bytes);
            }
            Action::Arm { timer, generation, at } => {
                let daemon = self.machines.get_mut(&node).and_then(|it| it.daemon.as_mut());
                daemon.map(|daemon| daemon.armed.insert(timer.clone(), generation));
                let at = Micros::of_ms(at.0).max(self.now);
                self.at(at, Job::Timer(node, life, Box::new(timer), generation));
            }
            Action::Reply { request, reply } => self.reply(node, request, &reply),
            Action::FenceSelf { .. } => {
                self.check_fence_self(node);
                self.counts.expulsions += 1;
                let boot = self.machines[&node].boot;
                let us = 50_000 + self.dice.skewed(2_000_000);
                self.after_us(us, Job::Reset(node, boot));
            }
            Action::RunLocking(protocol) => {
                let daemon = self.machines.get_mut(&node).and_then(|it| it.daemon.as_mut());
                daemon.into_iter().for_each(|it| it.locking = Some(protocol));
            }
            Action::Exit => self.exit(node, life),
            Action::Note(note) => self.note(&note),
            Action::Verb { op, group, verb } => {
                self.counts.verbs += 1;
                self.spoke_in(node, group);
                self.check_said(node, group, &verb);
                self.begin_effect(node, life, op, Action::Verb { op, group, verb });
            }
            Action::KillNode { op, node: victim } => {
                self.check_kill(node, victim);
                self.begin_effect(node, life, op, action);
            }
            Action::Fence { op, node: victim, .. } => {
                self.check_fence(node, victim);
                self.begin_effect(node, life, op, action);
            }
            Action::Join { op, .. }
            | Action::Depart { op, .. }
            | Action::Save { op, .. }
            | Action::Look { op, .. } => self.begin_effect(node, life, op, action),
        }
    }

    /// What is left behind may go on talking.
    fn spoke(&mut self, node: NodeId) {
        if !self.machines[&node].given_up {
            self.last_word_at = self.now;
        }
    }

    fn spoke_in(&mut self, node: NodeId, group: GroupId) {
        if !self.is_held_up(group) {
            self.spoke(node);
        }
    }

    fn note(&mut self, note: &Note) {
        match note {
            Note::Condemned(..) => self.counts.deaths += 1,
            Note::UserLeft(..) => self.counts.leaves += 1,
            Note::Ghost(..) => self.counts.ghosts += 1,
            Note::Garbage(..) => self.counts.garbage += 1,
            Note::DebtOverdue(_) => self.counts.kills += 1,
            Note::StopRefused(_) => self.counts.refusals += 1,
            _ => {}
        }
    }

    /// The first thing that is wrong is what counts.
    pub(crate) fn violate(&mut self, checker: &'static str, text: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let text = text();
            self.trace.say(self.now, || format!("*** {checker}: {text}"));
            self.violation = Some(Violation { checker, at: self.now, text });
        }
    }
}

/// Which of the three an event's source is, and its channel.
pub(super) const fn rank(event: &Event) -> (usize, Option<Channel>) {
    match event {
        Event::Confchg { channel, .. }
        | Event::Totem { channel, .. }
        | Event::Message { channel, .. } => match channel {
            Channel::Control => (1, Some(*channel)),
            Channel::Group(_) => (2, Some(*channel)),
        },
        _ => (0, None),
    }
}
