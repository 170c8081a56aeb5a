//! What a seed decides before anything happens: the cluster, its configuration, and which faults this
//! run knows at all. Runs differ in kind (swarm testing): one with every fault at once would hide what
//! only a few of them together can do.

use o2bridge_core::Fencing;

use crate::corosync::{Pace, Votes};
use crate::dice::Dice;

/// Which shim a cluster's nodes have: what their kernels do and refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShimKind {
    /// No kernel: nothing is refused.
    Record,
    /// o2dlm: the region may not go while it is mounted; regions stand ahead of mounts; silence is
    /// death to the kernel.
    UserHeartbeat,
    /// fs/dlm beside dlm_controld: verbs are often not accepted at once; the last close of the control
    /// descriptor resets the node.
    Control,
    /// fs/dlm alone.
    FsDlm,
}

/// Who fences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nobody.
    None,
    /// An administrator, who switches the node off and then says so.
    Ack,
    /// Fence agents.
    Agent,
}

/// What may go wrong in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Nodes lose power and boot again.
    pub power: bool,
    /// Nodes stand still for a while with all that is on them.
    pub freeze: bool,
    /// Corosync is killed, stopped, paused, started.
    pub corosync: bool,
    /// Members that are not in the ring.
    pub ghosts: bool,
    /// The network falls apart.
    pub split: bool,
    /// One direction of a cable is cut.
    pub one_way: bool,
    /// Daemons are killed, stopped, told to reread.
    pub daemon: bool,
    /// Keepers are killed, alone and with their daemons.
    pub keeper: bool,
    /// Tools die.
    pub tools: bool,
    /// Kernels refuse, or take long.
    pub kernel: bool,
    /// The state file cannot be written.
    pub disk: bool,
    /// Fence devices fail, or take long.
    pub fences: bool,
    /// Fence devices say that they did it and did not. Nothing can be safe then; the rest must hold.
    pub lies: bool,
    /// Strangers talk in our channels.
    pub garbage: bool,
}

/// Everything that is decided at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// For whatever is drawn on the way.
    pub seed: u64,
    /// How many nodes.
    pub nodes: u32,
    /// How many volumes.
    pub groups: u32,
    /// Who fences.
    pub policy: Policy,
    /// The kernels.
    pub shim: ShimKind,
    /// The core's, of most nodes.
    pub grace_ms: u64,
    /// The core's; 0: never.
    pub inquorate_reset_ms: u64,
    /// The keeper's.
    pub daemon_back_ms: u64,
    /// From the loss of a node to the ring without it.
    pub detect_ms: u64,
    /// The longest time between two looks of a daemon's loop, in microseconds.
    pub lag_us: u64,
    /// How many faults and requests.
    pub steps: usize,
    /// The longest time from one of them to the next.
    pub gap_ms: u64,
    /// Whether daemons that end are started again.
    pub restarts: bool,
    /// Nodes that stay dead or cut off when the rest is healed.
    pub lasting: u32,
    /// Nodes whose daemon speaks a protocol of its own.
    pub foreign: u32,
    /// Whether a node may come back with a daemon that speaks the other one.
    pub upgrades: bool,
    /// Whether a node resets itself whose daemon and keeper are both gone. Else its kernel acts on the silence.
    pub watchdog: bool,
    /// Whether nodes are configured differently.
    pub mixed: bool,
    /// Who is quorate.
    pub votes: Votes,
    /// What may go wrong.
    pub faults: Faults,
}

impl Options {
    /// A quiet cluster, for scenarios.
    #[must_use]
    pub fn quiet(nodes: u32, groups: u32, policy: Policy, shim: ShimKind) -> Self {
        Self {
            seed: 0,
            nodes,
            groups,
            policy,
            shim,
            grace_ms: 5_000,
            inquorate_reset_ms: 0,
            daemon_back_ms: 3_300,
            detect_ms: 2_100,
            lag_us: 500,
            steps: 0,
            gap_ms: 0,
            restarts: true,
            lasting: 0,
            foreign: 0,
            upgrades: false,
            watchdog: true,
            mixed: false,
            votes: Votes::Most,
            faults: Faults::default(),
        }
    }

    /// What this seed stands for.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let dice = &mut dice;
        let nodes = match dice.below(100) {
            0..=29 => 2,
            30..=64 => 3,
            65..=84 => 4,
            85..=96 => 5,
            97..=98 => 6 + below(dice, 4),
            _ => 10 + below(dice, 23),
        };
        let policy = match dice.below(8) {
            0 | 1 => Policy::None,
            2 => Policy::Ack,
            _ => Policy::Agent,
        };
        let shim = match dice.below(8) {
            0 | 1 => ShimKind::Record,
            2..=4 => ShimKind::UserHeartbeat,
            5 => ShimKind::Control,
            _ => ShimKind::FsDlm,
        };
        let grace_ms = dice.between(2_000, 8_000);
        let faults = faults(dice);
        let mut options = Self {
            seed,
            nodes,
            groups: 1 + below(dice, 3),
            policy,
            shim,
            grace_ms,
            inquorate_reset_ms: if dice.one_in(2) { 0 } else { dice.between(1_000, 6_000) },
            daemon_back_ms: grace_ms * 2 / 3,
            detect_ms: if dice.one_in(4) { 300 } else { 2_100 },
            lag_us: if dice.one_in(8) { 60_000 } else { 800 },
            steps: if nodes > 5 { 8 } else { 4 + below(dice, 28) as usize },
            gap_ms: *dice.pick(&[20, 300, 1_500, 6_000]).unwrap_or(&300),
            restarts: !dice.one_in(4),
            lasting: if dice.one_in(3) { below(dice, nodes.div_ceil(2)) } else { 0 },
            foreign: if dice.one_in(24) { 1 } else { 0 },
            upgrades: false,
            watchdog: true,
            mixed: dice.one_in(6),
            votes: votes(dice, nodes),
            faults,
        };
        options.upgrades = options.foreign > 0 && dice.one_in(2);
        options
    }

    /// The policy of one node's core. Where nodes differ, some have agents, and some an administrator.
    #[must_use]
    pub fn fencing(&self, dice: &mut Dice) -> Fencing {
        let is_acked = match self.policy {
            Policy::None => return Fencing::None,
            Policy::Ack | Policy::Agent if self.mixed => dice.one_in(3),
            Policy::Ack => true,
            Policy::Agent => false,
        };
        if is_acked {
            return Fencing::Ack;
        }
        Fencing::Agent { levels: 2, attempts: 2, pause_ms: 200 }
    }

    /// Corosync's pace.
    #[must_use]
    pub fn pace(&self) -> Pace {
        Pace { detect_ms: self.detect_ms, ..Pace::default() }
    }
}

fn below(dice: &mut Dice, n: u32) -> u32 {
    u32::try_from(dice.below(u64::from(n))).unwrap_or(0)
}

fn votes(dice: &mut Dice, nodes: u32) -> Votes {
    match dice.below(8) {
        0 | 1 if nodes == 2 => Votes::TwoNode,
        2 if nodes == 2 => Votes::EachOfTwo,
        3 if nodes % 2 == 0 => Votes::Device,
        _ => Votes::Most,
    }
}

fn faults(dice: &mut Dice) -> Faults {
    let mut on = || dice.one_in(2);
    Faults {
        power: on(),
        freeze: on() && on(),
        corosync: on(),
        ghosts: on() && on(),
        split: on(),
        one_way: on() && on(),
        daemon: on(),
        keeper: on() && on(),
        tools: on(),
        kernel: on(),
        disk: on() && on(),
        fences: on(),
        lies: on() && on() && on() && on(),
        garbage: on() && on(),
    }
}
