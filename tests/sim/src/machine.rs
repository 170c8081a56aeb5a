//! One machine: power, its daemon, its keeper, its tools.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};

use o2bridge_core::proto::{self, Body};
use o2bridge_core::timer::Timer;
use o2bridge_core::{
    Action, Channel, ClientId, Core, Event, GroupId, Incarnation, LockingProtocol, Member, NodeId,
    OpId, Pid, RequestId, RingId, Saved, ServiceName, Tunables,
};

use crate::check::{Patience, Presence};
use crate::doors::Door;
use crate::kernel::Kernel;
use crate::options::ShimKind;
use crate::step::{How, Mood};
use crate::time::Micros;

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Power {
    /// It does.
    On,
    /// It stands still: whatever it was about to do, it will do later.
    Frozen,
    /// It does not.
    Off,
}

/// A running o2bridged.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// The code under test.
    pub core: Core,
    /// Its process.
    pub pid: Pid,
    /// Whether it stands still.
    pub hangs: bool,
    /// Whether it is connected to corosync.
    pub connected: bool,
    /// What corosync has for it, in the order in which it was written.
    pub inbox: Vec<(Micros, Event)>,
    /// The leaves under way, by channel.
    pub departing: BTreeMap<Channel, OpId>,
    /// What the quorum service told it last.
    pub quorum: Option<(bool, RingId, Vec<NodeId>)>,
    /// The ring that each channel told it of, since it is in it.
    pub totems: BTreeMap<Channel, RingId>,
    /// Who is in the control group, as it was told last.
    pub control: Vec<Member>,
    /// The latest setting of each of its timers.
    pub armed: BTreeMap<Timer, u64>,
    /// The locking protocol that its shim was told to run.
    pub locking: Option<LockingProtocol>,
    /// Requests that it has to answer, and whose they are.
    pub requests: BTreeMap<RequestId, u64>,
    /// The effects that have begun and not ended.
    pub effects: BTreeMap<OpId, Action>,
    /// Those of them that ask a corosync that is gone.
    pub severed: BTreeSet<OpId>,
    /// The leaves that corosync does not take, nor what was said before them.
    pub given_up: BTreeSet<OpId>,
    /// What corosync was too busy for.
    pub outbox: BTreeMap<Channel, VecDeque<Vec<u8>>>,
    /// What it said of itself.
    pub words: Words,
    /// When corosync last had a word of its own for it.
    pub echo_at: Option<Micros>,
    /// How long it may have missed others.
    pub patience: Patience,
    /// Whether it was asked to end, and will.
    pub stopping: bool,
    /// Whether it was asked once more.
    pub hurried: bool,
}

/// What a daemon says of itself in the control group, until it comes back.
#[derive(Debug, Clone, Default, Hash)]
pub struct Words {
    /// Whether the last word that came back, of this daemon or of one before it, named a use.
    is_user: bool,
    unheard: Vec<(bool, Vec<u8>)>,
}

impl Words {
    /// A daemon that takes over what this names.
    #[must_use]
    pub fn after(saved: &Saved) -> Self {
        Self { is_user: !saved.groups.is_empty(), unheard: Vec::new() }
    }

    /// It says something.
    pub fn say(&mut self, bytes: &[u8]) {
        if let Ok((envelope, Body::Hello(_))) = proto::decode(bytes) {
            self.unheard.push((envelope.in_use, bytes.to_vec()));
        }
    }

    /// It is told what it said.
    pub fn hear(&mut self, bytes: &[u8]) {
        if let Some(index) = self.unheard.iter().position(|(_, it)| it == bytes) {
            let heard = self.unheard.drain(..=index).next_back();
            self.is_user = heard.is_some_and(|(is_user, _)| is_user);
        }
    }

    /// What it said and has not been told by now it never will be; others may have been.
    pub fn lose(&mut self) {
        self.is_user = self.is_user();
        self.unheard.clear();
    }

    /// Whether others may take it for a user of something.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.is_user || self.unheard.iter().any(|(is_user, _)| *is_user)
    }
}

/// The keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keeper {
    /// Whether there is one.
    pub alive: bool,
    /// When a daemon was last there.
    pub seen: Micros,
    /// When somebody last beat.
    pub beat: Micros,
}

/// What a tool is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doing {
    /// It has said begin, and waits.
    Asking,
    /// It was told to go ahead, and is in the kernel.
    Mounting,
    /// It was told that its result was taken, and checks the volume.
    Checking,
    /// It has unmounted, and has yet to say so.
    Unmounted,
    /// It has said how that ended, and waits.
    Reporting {
        /// Its result.
        code: i32,
    },
    /// It has said leave, and waits.
    Leaving {
        /// How often it was sent away before.
        tries: u64,
    },
}

/// A tool that runs.
#[derive(Debug, Clone, Hash)]
pub struct Tool {
    /// Its connection.
    pub client: ClientId,
    /// What it speaks.
    pub door: Door,
    /// For whoever begins, how; `None` for who only says that something ended.
    pub how: Option<How>,
    /// The volume.
    pub group: GroupId,
    /// The service.
    pub service: ServiceName,
    /// Where it stands.
    pub doing: Doing,
}

/// Every boot counts its processes anew.
const FIRST_PID: u32 = 100;

/// One machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Which.
    pub id: NodeId,
    /// Whether it runs.
    pub power: Power,
    /// Which boot, 1 and up.
    pub boot: u128,
    /// Counts its daemons, so that what was meant for one does not reach the next.
    pub life: u64,
    /// Its o2bridged, if one runs.
    pub daemon: Option<Daemon>,
    /// Its state file.
    pub saved: Saved,
    /// Its kernel.
    pub kernel: Kernel,
    /// Its keeper.
    pub keeper: Keeper,
    /// Its tools.
    pub tools: BTreeMap<u64, Tool>,
    /// The configuration of its daemon.
    pub tunables: Tunables,
    /// The newest locking protocol that its kernel knows, if it is to run one.
    pub locking: Option<LockingProtocol>,
    /// Whether its daemon speaks a protocol of its own.
    pub foreign: bool,
    /// How its kernel answers the shim.
    pub kernel_mood: Mood,
    /// How its state file takes writes.
    pub disk_mood: Mood,
    /// Deaths that its kernel was told of in this boot.
    pub told_down: BTreeSet<(GroupId, NodeId, Incarnation)>,
    /// Whom its kernel was told to forget by this daemon: one that starts may remember less.
    pub past: BTreeSet<(GroupId, NodeId, Incarnation)>,
    /// When its daemon was there.
    pub presence: Presence,
    /// Whether there was a quorate ring without it in this boot while it used something.
    pub parted: bool,
    /// Whether it stays as it is when all others are healed.
    pub given_up: bool,
    next_pid: u32,
    numbers: u64,
}

impl Machine {
    /// A machine that is off.
    #[must_use]
    pub fn new(id: NodeId, shim: ShimKind, tunables: Tunables) -> Self {
        Self {
            id,
            power: Power::Off,
            boot: u128::from(id.0) << 64,
            life: 0,
            daemon: None,
            saved: Saved::default(),
            kernel: Kernel::new(shim),
            keeper: Keeper { alive: false, seen: Micros(0), beat: Micros(0) },
            tools: BTreeMap::new(),
            tunables,
            locking: None,
            foreign: false,
            kernel_mood: Mood::Good,
            disk_mood: Mood::Good,
            told_down: BTreeSet::new(),
            past: BTreeSet::new(),
            presence: Presence::default(),
            parted: false,
            given_up: false,
            next_pid: FIRST_PID,
            numbers: 0,
        }
    }

    /// A process id that this boot has not seen.
    pub fn fresh_pid(&mut self) -> Pid {
        self.next_pid += 1;
        Pid(self.next_pid)
    }

    /// A number that no other request, tool or connection of the cluster has.
    pub fn fresh_number(&mut self) -> u64 {
        self.numbers += 1;
        u64::from(self.id.0) << 32 | self.numbers
    }

    /// Whether it could write to its volumes, now or when it goes on.
    #[must_use]
    pub fn can_write(&self, group: GroupId) -> bool {
        self.power != Power::Off && self.kernel.is_mounted(group)
    }

    /// Our process as corosync names it.
    #[must_use]
    pub fn member(&self) -> Option<Member> {
        self.daemon.as_ref().map(|daemon| Member { node: self.id, pid: daemon.pid })
    }

    /// Whatever decides what becomes of it next. Of times nothing, and not what the keeper saw when.
    pub(crate) fn digest(&self, state: &mut impl Hasher) {
        let Self { id, power, boot, life, daemon, saved, kernel, keeper, tools, .. } = self;
        let Self { tunables: _, locking: _, foreign: _, kernel_mood, disk_mood, told_down, .. } =
            self;
        let Self { past, parted, given_up, next_pid, numbers, .. } = self;
        (id, power, boot, life, saved, keeper.alive, tools).hash(state);
        (&kernel.regions, &kernel.meant, &kernel.locking, &kernel.mounts).hash(state);
        (kernel_mood, disk_mood, told_down, past).hash(state);
        (parted, given_up, next_pid, numbers).hash(state);
        if let Some(daemon) = daemon {
            let Daemon { core, pid, connected, inbox, departing, .. } = daemon;
            let Daemon { quorum, locking, requests, effects, severed, given_up, .. } = daemon;
            let Daemon { hangs, outbox, words, stopping, hurried, .. } = daemon;
            (core, pid, connected, departing, quorum, locking).hash(state);
            (requests, effects, severed, given_up, words, stopping, hurried).hash(state);
            (hangs, outbox, inbox.len()).hash(state);
            inbox.iter().for_each(|(_, event)| event.hash(state));
        }
    }

    /// Power goes, and everything that lived in memory with it.
    pub fn lose_power(&mut self, shim: ShimKind) {
        self.power = Power::Off;
        self.life += 1;
        self.daemon = None;
        self.saved = Saved::default();
        self.kernel = Kernel::new(shim);
        self.keeper.alive = false;
        self.tools.clear();
        self.told_down.clear();
        self.past.clear();
        self.next_pid = FIRST_PID;
        (self.presence, self.parted) = (Presence::default(), false);
    }
}
