//! The cluster: machines, corosync, disks, and one queue of what happens next.
//!
//! ```text
//!   schedule of steps ──┐
//!   corosync ───────────┤                       ┌─▶ corosync: join, leave, mcast, kill
//!   effects that end ───┼─▶ one job at a time ──┼─▶ kernel, disk, fence device, after a while
//!   timers ─────────────┤   Core::handle        ├─▶ tools
//!   tools, keepers ─────┘   checkers            └─▶ timers
//! ```
//! Chance decides how long everything takes; nothing else is decided by chance.

mod daemon;
mod digest;
mod effects;
mod explore;
mod healing;
mod nodes;
mod steps;
mod tools;

pub use explore::{Choice, Reach};

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use effects::LIBRARY;

use o2bridge_core::timer::Timer;
use o2bridge_core::{
    Action, Channel, Event, GroupId, LockingProtocol, Member, NodeId, OpId, Tunables,
};

use crate::check::Violation;
use crate::corosync::{Corosync, Heard, Word};
use crate::counts::Counts;
use crate::coverage::Coverage;
use crate::dice::Dice;
use crate::machine::{Machine, Power};
use crate::options::{Options, ShimKind};
use crate::step::{Mood, Step, Timed, volume};
use crate::time::Micros;
use crate::trace::Trace;
use crate::volume::Volumes;

/// What a run may take, for each node: far above what any did. One that goes on for ever must end with its seed.
pub(crate) const JOBS_EACH_MAX: u64 = 200_000;

/// What is to happen. Jobs of a machine carry the boot or the life of the daemon that they are for.
#[derive(Debug, Clone, Hash)]
pub(crate) enum Job {
    Step(Step),
    Wake(NodeId, u64),
    /// A channel's queue is sent, if corosync takes it.
    Pump(NodeId, u64, Channel),
    /// An effect reaches the world.
    Do(NodeId, u64, Box<Action>),
    /// Something reaches the core.
    Tell(NodeId, u64, Box<Event>),
    Timer(NodeId, u64, Box<Timer>, u64),
    /// A tool takes its next step.
    Tool(NodeId, u128, u64),
    /// A service manager starts a daemon.
    StartDaemon(NodeId, u128),
    StartCorosync(NodeId, u128),
    Boot(NodeId),
    Thaw(NodeId),
    /// The keeper looks.
    Keeper(NodeId, u128),
    /// The daemon looks at the mount table.
    Watch(NodeId, u128),
    Reset(NodeId, u128),
    /// A lock that was held long enough is let go.
    Unlock(NodeId, u128, GroupId),
    /// The fence device has done what it can for the daemon that asked.
    Fenced {
        by: (NodeId, u64),
        op: OpId,
        victim: NodeId,
    },
    /// The administrator looks around.
    Admin,
}

/// A whole cluster.
#[derive(Debug, Clone)]
pub struct World {
    pub(crate) options: Options,
    pub(crate) now: Micros,
    pub(crate) dice: Dice,
    queue: BTreeMap<(Micros, u64), Job>,
    serial: u64,
    /// What waits for a machine that stands still, and since when.
    held: BTreeMap<NodeId, (Micros, Vec<Job>)>,
    pub(crate) corosync: Corosync,
    pub(crate) machines: BTreeMap<NodeId, Machine>,
    pub(crate) volumes: Volumes,
    pub(crate) fences: Mood,
    /// Boots that a fence device lied about.
    pub(crate) spared: BTreeSet<(NodeId, u128)>,
    /// Whether faults are over.
    pub(crate) healed: bool,
    pub(crate) last_word_at: Micros,
    /// How many jobs were done.
    pub(crate) jobs: u64,
    /// What it did.
    pub counts: Counts,
    /// What it had done when it came to rest, before everybody asked.
    pub at_rest: Option<Counts>,
    /// Which cells of the core's tables were visited.
    pub coverage: Coverage,
    /// What it said.
    pub trace: Trace,
    pub(crate) violation: Option<Violation>,
}

impl World {
    /// A cluster whose nodes have just been switched on.
    #[must_use]
    pub fn new(options: Options, schedule: &[Timed], trace: bool) -> Self {
        let corosync = corosync(&options);
        let dice = Dice::new(options.seed, 2);
        Self::with((corosync, dice), options, schedule, trace)
    }

    /// One in which nothing is left to chance: everything takes the least time, and nothing happens
    /// that happens once in a while. For who chooses what comes first.
    #[must_use]
    pub fn without_chance(options: Options, schedule: &[Timed], trace: bool) -> Self {
        let mut corosync = corosync(&options);
        corosync.be_still();
        Self::with((corosync, Dice::still()), options, schedule, trace)
    }

    fn with(
        (corosync, mut dice): (Corosync, Dice),
        options: Options,
        schedule: &[Timed],
        trace: bool,
    ) -> Self {
        let mut machines = BTreeMap::new();
        for number in 1..=options.nodes {
            let id = NodeId(number);
            let mut machine = Machine::new(id, options.shim, tunables(&options, &mut dice));
            machine.foreign = number > options.nodes - options.foreign;
            let minor = if options.mixed { (number % 3) as u8 } else { 0 };
            let tells = options.shim == ShimKind::Control;
            machine.locking = tells.then_some(LockingProtocol { major: 1, minor });
            machines.insert(id, machine);
        }
        let volumes = (0..options.groups).map(|it| (volume(it), Default::default())).collect();
        let mut world = Self {
            corosync,
            now: Micros::of_ms(1_000),
            dice,
            queue: BTreeMap::new(),
            serial: 0,
            held: BTreeMap::new(),
            machines,
            volumes,
            fences: Mood::Good,
            spared: BTreeSet::new(),
            healed: false,
            last_word_at: Micros(0),
            jobs: 0,
            counts: Counts::default(),
            at_rest: None,
            coverage: Coverage::new(options.seed),
            trace: Trace::new(trace),
            violation: None,
            options,
        };
        let ids: Vec<NodeId> = world.machines.keys().copied().collect();
        for node in ids {
            let us = world.dice.below(400_000);
            world.at(world.now.plus_us(us), Job::Boot(node));
        }
        world.at(world.now.plus_ms(3_000), Job::Admin);
        for (at, step) in schedule {
            world.at(*at, Job::Step(step.clone()));
        }
        world
    }

    /// Runs until then, or until something is wrong.
    ///
    /// # Errors
    /// What is wrong.
    pub fn run_until(&mut self, end: Micros) -> Result<(), Violation> {
        while self.violation.is_none() {
            let job = self.queue.first_key_value().map(|((at, _), _)| *at);
            let ring = self.corosync.next_due();
            let Some(at) = job.into_iter().chain(ring).min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if ring == Some(at) {
                self.corosync.run(self.now);
            } else if let Some((_, job)) = self.queue.pop_first() {
                self.run(job);
            }
            self.hear();
            self.jobs += 1;
            if self.jobs > JOBS_EACH_MAX * u64::from(self.options.nodes) {
                self.violate("growth", || "the run does not come to an end".to_owned());
            }
        }
        self.now = self.now.max(end);
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// The time.
    #[must_use]
    pub const fn now(&self) -> Micros {
        self.now
    }

    pub(crate) fn at(&mut self, at: Micros, job: Job) {
        self.serial += 1;
        self.queue.insert((at, self.serial), job);
    }

    pub(crate) fn after_us(&mut self, us: u64, job: Job) {
        self.at(self.now.plus_us(us), job);
    }

    /// Some time up to `max`, mostly less.
    pub(crate) fn soon(&mut self, max_us: u64, job: Job) {
        let us = self.dice.skewed(max_us);
        self.after_us(us, job);
    }

    fn run(&mut self, job: Job) {
        if let Some(node) = self.stands_still(&job) {
            // It will be done, but not before the machine goes on.
            return self.hold(node, job);
        }
        match job {
            Job::Step(step) => self.take_step(&step),
            Job::Wake(node, life) => self.wake(node, life),
            Job::Pump(node, life, channel) => self.pump(node, life, channel),
            Job::Do(node, life, action) => self.effect(node, life, *action),
            Job::Tell(node, life, event) => self.tell(node, life, *event),
            Job::Timer(node, life, timer, generation) => {
                self.tell(node, life, Event::Timer { timer: *timer, generation });
            }
            Job::Tool(node, boot, tool) => self.tool(node, boot, tool),
            Job::StartDaemon(node, boot) => self.start_daemon(node, boot),
            Job::StartCorosync(node, boot) => self.start_corosync(node, boot),
            Job::Boot(node) => self.boot(node),
            Job::Thaw(node) => self.thaw(node),
            Job::Keeper(node, boot) => self.keeper(node, boot),
            Job::Watch(node, boot) => self.watch(node, boot),
            Job::Reset(node, boot) => self.reset(node, boot),
            Job::Unlock(node, boot, group) => self.unlock(node, boot, group),
            Job::Fenced { by, op, victim } => self.fenced(by, op, victim),
            Job::Admin => self.admin(),
        }
    }

    /// The machine that is frozen, or whose daemon hangs, if the job is for it.
    fn stands_still(&self, job: &Job) -> Option<NodeId> {
        let node = job.stands_still_with()?;
        let machine = &self.machines[&node];
        let is_for_daemon = matches!(
            job,
            Job::Wake(..) | Job::Pump(..) | Job::Do(..) | Job::Tell(..) | Job::Timer(..)
        );
        let hangs = is_for_daemon && machine.daemon.as_ref().is_some_and(|it| it.hangs);
        (hangs || machine.power == Power::Frozen).then_some(node)
    }

    pub(crate) fn hold(&mut self, node: NodeId, job: Job) {
        self.held.entry(node).or_insert((self.now, Vec::new())).1.push(job);
    }

    /// A machine or its daemon goes on with whatever it has missed. The daemon's loop looks at its clock first,
    /// then at what corosync has for it, then at its timers.
    pub(crate) fn go_on(&mut self, node: NodeId) {
        let Some((since, jobs)) = self.held.remove(&node) else { return };
        let machine = &self.machines[&node];
        let life = machine.life;
        if self.now.ms_since(since) > machine.tunables.grace_ms / 4 {
            self.at(self.now, Job::Tell(node, life, Box::new(Event::Stalled)));
        }
        self.at(self.now, Job::Wake(node, life));
        for job in jobs {
            self.at(self.now, job);
        }
    }

    /// Carries what corosync says to the daemons that it is for.
    fn hear(&mut self) {
        for node in self.corosync.take_ended() {
            self.trace.say(self.now, || format!("n{node} corosync is killed by a node's wish"));
            self.corosync_comes_back(node);
        }
        for Heard { node, pid, at, word } in self.corosync.take_told() {
            let lag_us = self.options.lag_us;
            let Some(machine) = self.machines.get_mut(&node) else { continue };
            let life = machine.life;
            let Some(daemon) = machine.daemon.as_mut().filter(|it| it.pid == pid) else { continue };
            match word {
                Word::Departed(channel) => {
                    if let Some(op) = daemon.departing.remove(&channel) {
                        // Its handle is closed: nothing more comes from it.
                        daemon.inbox.retain(|(_, event)| daemon::rank(event).1 != Some(channel));
                        let event = Event::Done { op, result: Ok(()) };
                        self.at(at, Job::Tell(node, life, Box::new(event)));
                    }
                }
                Word::Event(Event::Disconnected) => {
                    // Whatever was queued is lost with it.
                    daemon.inbox.clear();
                    daemon.departing.clear();
                    daemon.words.lose();
                    self.at(at, Job::Tell(node, life, Box::new(Event::Disconnected)));
                }
                Word::Event(event) => {
                    if let Event::Message { channel: Channel::Control, from, bytes } = &event {
                        if *from == (Member { node, pid }) {
                            daemon.words.hear(bytes);
                            daemon.echo_at = Some(at);
                        }
                    }
                    let sleeps = daemon.inbox.is_empty();
                    let index = daemon.inbox.partition_point(|(ready, _)| *ready <= at);
                    daemon.inbox.insert(index, (at, event));
                    if sleeps {
                        let us = self.dice.skewed(lag_us);
                        self.at(at.plus_us(us), Job::Wake(node, life));
                    }
                }
            }
        }
    }
}

impl Job {
    /// Whose it is, if it cannot happen while that machine stands still.
    fn stands_still_with(&self) -> Option<NodeId> {
        match self {
            Self::Wake(node, _)
            | Self::Pump(node, ..)
            | Self::Do(node, ..)
            | Self::Tell(node, ..)
            | Self::Timer(node, ..)
            | Self::Tool(node, ..)
            | Self::StartDaemon(node, _)
            | Self::StartCorosync(node, _)
            | Self::Keeper(node, _)
            | Self::Watch(node, _)
            | Self::Reset(node, _)
            | Self::Unlock(node, ..) => Some(*node),
            Self::Step(_) | Self::Boot(_) | Self::Thaw(_) | Self::Fenced { .. } | Self::Admin => {
                None
            }
        }
    }
}

fn corosync(options: &Options) -> Corosync {
    Corosync::new(options.nodes as usize, options.pace(), options.seed).with_votes(options.votes)
}

fn tunables(options: &Options, dice: &mut Dice) -> Tunables {
    let mut vary = |ms: u64| if options.mixed { dice.between(ms * 2 / 3, ms * 3 / 2) } else { ms };
    Tunables {
        // A daemon must be back before any peer's patience ends, so no node has less of it.
        grace_ms: vary(options.grace_ms).max(options.grace_ms),
        begin_timeout_ms: vary(20_000),
        complete_timeout_ms: vary(10_000),
        leave_timeout_ms: vary(10_000),
        retry_ms: vary(500),
        inquorate_reset_ms: vary(options.inquorate_reset_ms),
        fencing: options.fencing(dice),
    }
}
