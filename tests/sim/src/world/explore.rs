//! A world in which somebody chooses what happens next.
//!
//! Whatever is chosen before its turn means that all the rest was slow: time goes on to the moment
//! when it is due, and never back. A lane keeps its order, whoever chooses: the verbs and saves of one
//! group on one node, its joins and leaves of channels, the messages of one ring, the steps. All else
//! comes in any order.

use std::collections::BTreeSet;
use std::mem::take;

use o2bridge_core::{Action, Event, GroupId, NodeId, OpId, RingId};

use super::{Job, World};
use crate::check::Violation;
use crate::machine::Power;
use crate::protocol;
use crate::time::Micros;

/// One way to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Rings form that can form next.
    Form,
    /// The next message of a ring is delivered.
    Land(RingId),
    /// A daemon's loop looks at what corosync has for it.
    Read(NodeId, Reach),
    /// A job.
    Job((Micros, u64)),
}

/// How much a daemon finds when it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All there is, in the order that the adapter promises.
    All,
    /// All there is of quorum and of the control group. The mountgroups are read late.
    Ahead,
    /// What corosync said first. The rest came just after the look.
    First,
}

/// What keeps its order: of which machine, what kind, and which of that kind.
pub(super) type Lane = (u32, u8, u64);

impl World {
    /// All that can happen next, what is due first coming first.
    #[must_use]
    pub fn choices(&self) -> Vec<Choice> {
        let mut choices: Vec<(Micros, Choice)> = Vec::new();
        let mut seen = BTreeSet::new();
        for (key, job) in &self.queue {
            let idle = self.is_void(job)
                || job.stands_still_with().is_some_and(|node| self.is_frozen(node));
            if job.lane().is_some_and(|lane| !idle && seen.insert(lane)) {
                choices.push((key.0, Choice::Job(*key)));
            }
        }
        for (at, ring) in self.corosync.turning() {
            choices.push((at, Choice::Land(ring)));
        }
        choices.extend(self.corosync.next_forming().map(|at| (at, Choice::Form)));
        for machine in self.machines.values().filter(|it| it.power == Power::On) {
            let Some(daemon) = &machine.daemon else { continue };
            let Some((at, _)) = daemon.inbox.first() else { continue };
            let mut reads = |reach| choices.push((*at, Choice::Read(machine.id, reach)));
            let late = daemon.inbox.iter().filter(|(_, event)| rank(event) == 2).count();
            if daemon.inbox.len() > 1 {
                reads(Reach::All);
            }
            if late > 0 && late < daemon.inbox.len() {
                reads(Reach::Ahead);
            }
            reads(Reach::First);
        }
        choices.sort_by_key(|(at, _)| (*at).max(self.now));
        choices.into_iter().map(|(_, choice)| choice).collect()
    }

    fn is_frozen(&self, node: NodeId) -> bool {
        self.machines[&node].power == Power::Frozen
    }

    /// Lets that happen next, whatever was due before it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn choose(&mut self, choice: Choice) -> Result<(), Violation> {
        match choice {
            Choice::Form => self.now = self.corosync.form_next(self.now),
            Choice::Land(ring) => self.corosync.land_next(ring, self.now),
            Choice::Read(node, reach) => self.read(node, reach),
            Choice::Job(key) => {
                if let Some(job) = self.queue.remove(&key) {
                    self.now = self.now.max(key.0);
                    self.run(job);
                }
            }
        }
        self.after_choice()
    }

    /// Gives an event to a daemon that no part of the world has made, as a broken adapter would.
    ///
    /// # Errors
    /// What is wrong.
    pub fn intrude(&mut self, node: NodeId, event: Event) -> Result<(), Violation> {
        let life = self.machines[&node].life;
        self.tell(node, life, event);
        self.after_choice()
    }

    fn after_choice(&mut self) -> Result<(), Violation> {
        self.hear();
        self.drop_void();
        self.look_in_time();
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// The effects that daemons have begun and not seen the end of.
    pub fn under_way(&self) -> impl Iterator<Item = (NodeId, OpId, &Action)> {
        let daemons = self.machines.values().filter_map(|it| Some((it.id, it.daemon.as_ref()?)));
        daemons.flat_map(|(node, daemon)| {
            daemon.effects.iter().map(move |(op, action)| (node, *op, action))
        })
    }

    /// What a choice is, in a line.
    #[must_use]
    pub fn describe(&self, choice: Choice) -> String {
        const LINE_MAX: usize = 150;
        let text = match choice {
            Choice::Form => "rings form".to_owned(),
            Choice::Land(ring) => format!("ring {ring} delivers"),
            Choice::Read(node, reach) => {
                let daemon = self.machines[&node].daemon.as_ref();
                let (_, event) = daemon.and_then(|it| it.inbox.first()).expect("a choice of now");
                format!("n{node} reads {reach:?} of {event:?}")
            }
            Choice::Job(key) => format!("{:?}", self.queue[&key]),
        };
        text.chars().take(LINE_MAX).collect()
    }

    fn read(&mut self, node: NodeId, reach: Reach) {
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let life = machine.life;
        let Some(daemon) = machine.daemon.as_mut() else { return };
        let (mut taken, mut late) = (take(&mut daemon.inbox), Vec::new());
        match reach {
            Reach::All => {}
            Reach::Ahead => (late, taken) = taken.into_iter().partition(|(_, it)| rank(it) == 2),
            Reach::First => late = taken.split_off(taken.len().min(1)),
        }
        daemon.inbox = late;
        taken.sort_by_key(|(_, event)| rank(event));
        for (_, event) in taken {
            let is_foreign = |it| self.machines.get(&it).is_some_and(|m| m.foreign);
            let event = protocol::translate(event, is_foreign, node);
            self.tell(node, life, event);
        }
    }

    /// Takes out what would change nothing, now or ever.
    fn drop_void(&mut self) {
        let mut queue = take(&mut self.queue);
        queue.retain(|_, job| !self.is_void(job));
        self.queue = queue;
    }

    fn is_void(&self, job: &Job) -> bool {
        let is_past = |node: &NodeId, life: u64| self.machines[node].life != life;
        let is_off = |node: &NodeId, boot: u128| {
            let machine = &self.machines[node];
            machine.boot != boot || machine.power == Power::Off
        };
        let daemon = |node: &NodeId| self.machines[node].daemon.as_ref();
        match job {
            Job::Wake(node, life) => {
                is_past(node, *life) || daemon(node).is_none_or(|it| it.inbox.is_empty())
            }
            Job::Do(node, life, _) | Job::Tell(node, life, _) | Job::Pump(node, life, _) => {
                is_past(node, *life)
            }
            Job::Timer(node, life, timer, generation) => {
                let awaits = daemon(node).is_some_and(|it| it.core.awaits(timer, *generation));
                is_past(node, *life) || !awaits
            }
            Job::Tool(node, boot, _)
            | Job::StartDaemon(node, boot)
            | Job::StartCorosync(node, boot)
            | Job::Keeper(node, boot)
            | Job::Watch(node, boot)
            | Job::Reset(node, boot)
            | Job::Unlock(node, boot, _) => is_off(node, *boot),
            Job::Step(_) | Job::Boot(_) | Job::Thaw(_) | Job::Fenced { .. } | Job::Admin => false,
        }
    }

    /// Keepers look every moment, however long the choices made it: only a daemon that is away counts.
    fn look_in_time(&mut self) {
        let now = self.now;
        for machine in self.machines.values_mut() {
            if machine.keeper.alive {
                machine.keeper.beat = now;
            }
            if machine.daemon.is_some() {
                machine.keeper.seen = now;
            }
        }
    }
}

/// Quorum, control group, mountgroups.
fn rank(event: &Event) -> usize {
    super::daemon::rank(event).0
}

impl Job {
    /// Jobs of one lane come in their order. `None`: nobody chooses it; it is looked for in another
    /// way, or is the housekeeping that goes on whatever happens.
    pub(super) fn lane(&self) -> Option<Lane> {
        let lane = match self {
            Self::Step(_) => (0, 0, 0),
            Self::Boot(node) | Self::Thaw(node) => (node.0, 0, 0),
            Self::Do(node, _, action) => (node.0, 2, lane_of(action)),
            Self::Tell(node, _, event) => (node.0, 3, told_lane_of(event)),
            Self::Timer(node, _, _, generation) => (node.0, 4, *generation),
            Self::Tool(node, _, tool) => (node.0, 5, *tool),
            Self::StartDaemon(node, _) => (node.0, 6, 0),
            Self::StartCorosync(node, _) => (node.0, 7, 0),
            Self::Reset(node, _) => (node.0, 8, 0),
            Self::Unlock(node, _, group) => (node.0, 9, number_of(group)),
            Self::Fenced { victim, .. } => (victim.0, 10, 0),
            Self::Wake(..) | Self::Pump(..) | Self::Keeper(..) | Self::Watch(..) | Self::Admin => {
                return None;
            }
        };
        Some(lane)
    }
}

/// What is done in order: of one group, of channels, of the end of one node.
fn lane_of(action: &Action) -> u64 {
    match action {
        Action::Verb { group, .. } | Action::Save { group, .. } => 1 + number_of(group),
        Action::Look { op, .. } => 1 << 32 | op.0,
        Action::KillNode { node, .. } => 2 << 32 | u64::from(node.0),
        Action::Fence { node, .. } => 3 << 32 | u64::from(node.0),
        _ => 0,
    }
}

/// A daemon hears of the ends of different things in any order.
fn told_lane_of(event: &Event) -> u64 {
    match event {
        Event::Done { op, .. } | Event::Looked { op, .. } => op.0,
        Event::ClientGone { client } => client.0,
        _ => 0,
    }
}

fn number_of(group: &GroupId) -> u64 {
    u64::try_from(group.0 & 0xFF).unwrap_or(0)
}
