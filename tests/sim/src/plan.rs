//! A schedule under a seed.

use o2bridge_core::{GroupId, NodeId};

use crate::dice::Dice;
use crate::options::Options;
use crate::step::{How, Mood, Step, Timed, Turn, volume};
use crate::time::Micros;

/// The first step comes while the cluster forms, or after.
const BEGINS_MS: u64 = 1_100;

/// What happens to this cluster.
#[must_use]
pub fn schedule(options: &Options) -> Vec<Timed> {
    let mut dice = Dice::new(options.seed, 3);
    let mut at = Micros::of_ms(BEGINS_MS + dice.below(2_500));
    let mut steps = Vec::new();
    // Most runs begin with mounts, or there would be little to lose.
    for number in 1..=options.nodes.min(4) {
        if !dice.one_in(5) {
            let group = volume(u32::try_from(dice.below(u64::from(options.groups))).unwrap_or(0));
            let how = how(&mut dice, options);
            steps.push((at, Step::Mount(NodeId(number), group, how)));
            at = at.plus_us(dice.skewed(options.gap_ms * 1_000));
        }
    }
    let kinds = kinds(options);
    for _ in 0..options.steps {
        let us = if dice.one_in(6) {
            dice.below(8_000_000)
        } else {
            dice.skewed(options.gap_ms * 1_000)
        };
        at = at.plus_us(us);
        let kind = dice.pick(&kinds).copied().unwrap_or(Kind::Mount);
        kind.steps(&mut at, options, &mut dice, &mut steps);
    }
    steps
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Mount,
    Umount,
    Leave,
    Rivals,
    Fsck,
    Write,
    Tool,
    Daemon,
    Hang,
    Keeper,
    Both,
    Power,
    Freeze,
    Corosync,
    Ghost,
    Split,
    Pieces,
    OneWay,
    Heal,
    Kernel,
    Hesitate,
    Disk,
    Fences,
    Garbage,
    Stop,
    Retire,
    Reload,
}

/// The kinds of steps that this run knows; what is listed twice comes twice as often.
fn kinds(options: &Options) -> Vec<Kind> {
    use Kind::{
        Both, Corosync, Daemon, Disk, Fences, Freeze, Fsck, Garbage, Ghost, Hang, Heal, Hesitate,
        Keeper, Kernel, Leave, Mount, OneWay, Pieces, Power, Reload, Retire, Rivals, Split, Stop,
        Tool, Umount, Write,
    };
    let mut kinds = vec![Mount, Mount, Mount, Umount, Umount, Write, Write, Fsck];
    let faults = &options.faults;
    let mut add = |on: bool, more: &[Kind]| {
        if on {
            kinds.extend_from_slice(more);
        }
    };
    add(faults.power, &[Power, Power]);
    add(faults.freeze, &[Freeze]);
    add(faults.corosync, &[Corosync, Corosync]);
    add(faults.ghosts, &[Ghost]);
    add(faults.split, &[Split, Split, Heal]);
    add(faults.split && faults.power && options.nodes > 4, &[Pieces, Pieces]);
    add(faults.tools && faults.kernel, &[Hesitate]);
    add(faults.one_way, &[OneWay, Heal]);
    add(faults.daemon, &[Daemon, Daemon, Hang, Stop, Retire, Reload]);
    add(faults.keeper, &[Keeper, Both]);
    add(faults.tools, &[Tool, Tool, Leave, Rivals, Rivals]);
    add(faults.kernel, &[Kernel]);
    add(faults.disk, &[Disk]);
    add(faults.fences || faults.lies, &[Fences]);
    add(faults.garbage, &[Garbage]);
    kinds
}

fn how(dice: &mut Dice, options: &Options) -> How {
    let plain = options.shim == crate::options::ShimKind::UserHeartbeat;
    match dice.below(6) {
        0 | 1 => How::Held,
        2 => How::Free,
        3 => How::Again,
        4 if plain => How::Plain,
        _ => How::Mute,
    }
}

impl Kind {
    fn steps(self, at: &mut Micros, options: &Options, dice: &mut Dice, out: &mut Vec<Timed>) {
        let node = NodeId(1 + small(dice, options.nodes));
        let group: GroupId = volume(small(dice, options.groups));
        let mut say = |step: Step| out.push((*at, step));
        match self {
            Self::Mount => say(Step::Mount(node, group, how(dice, options))),
            Self::Umount => say(Step::Umount(node, group)),
            Self::Leave => say(Step::Leave(node, group)),
            Self::Rivals => rivals(*at, (node, group), how(dice, options), dice, out),
            Self::Fsck => say(Step::Fsck(node, group)),
            Self::Write => say(Step::Write(node, group)),
            Self::Tool => say(Step::ToolDies(node)),
            Self::Daemon => say(Step::KillDaemon(node)),
            Self::Keeper => say(Step::KillKeeper(node)),
            Self::Both => {
                say(Step::KillDaemon(node));
                say(Step::KillKeeper(node));
            }
            Self::Power => say(Step::PowerOff(node)),
            Self::Freeze => {
                say(Step::Freeze(node));
                let thaws = at.plus_us(dice.skewed(12_000_000));
                out.push((thaws, Step::Thaw(node)));
            }
            Self::Hang => {
                say(Step::HangDaemon(node));
                let wakes = at.plus_us(dice.skewed(12_000_000));
                out.push((wakes, Step::WakeDaemon(node)));
            }
            Self::Corosync => {
                let turn = turn(dice);
                say(Step::Corosync(node, turn));
                if turn == Turn::Pause && dice.one_in(3) {
                    // Calls that hang in it end with it.
                    let ends = at.plus_us(dice.skewed(3_000_000));
                    out.push((ends, Step::Corosync(node, Turn::Kill)));
                }
            }
            Self::Ghost => say(Step::Corosync(node, Turn::Haunt)),
            Self::Split if dice.one_in(4) => say(Step::Shatter),
            Self::Split => {
                let ids = (1..=options.nodes).map(NodeId);
                say(Step::Split(ids.filter(|_| dice.one_in(2)).collect()));
            }
            Self::Pieces => pieces(*at, (node, group), options, dice, out),
            Self::Hesitate => hesitate(*at, (node, group), options, dice, out),
            Self::OneWay => {
                let other = NodeId(1 + small(dice, options.nodes));
                if other != node {
                    say(Step::OneWay(node, other));
                }
            }
            Self::Heal => say(Step::Heal),
            Self::Kernel => say(Step::Kernel(node, mood(dice, false))),
            Self::Disk => {
                let mood =
                    *dice.pick(&[Mood::Good, Mood::Fails, Mood::Lies]).unwrap_or(&Mood::Good);
                say(Step::Disk(node, mood));
            }
            Self::Fences => say(Step::Fences(mood(dice, options.faults.lies))),
            Self::Garbage => say(Step::Garbage(node)),
            Self::Stop => say(Step::StopDaemon(node)),
            Self::Retire => retire(*at, node, options, dice, out),
            Self::Reload => say(Step::Reload(node)),
        }
    }
}

/// A node is taken out of service: everything is unmounted, and its daemon asked to end.
fn retire(at: Micros, node: NodeId, options: &Options, dice: &mut Dice, out: &mut Vec<Timed>) {
    let umounts = (0..options.groups).map(|number| Step::Umount(node, volume(number)));
    out.extend(umounts.map(|step| (at, step)));
    let stops = at.plus_us(dice.skewed(3_000_000));
    if options.faults.corosync && dice.one_in(2) {
        let falls = at.plus_us(dice.skewed(3_000_000));
        out.push((falls, Step::Corosync(node, turn(dice))));
    }
    out.push((stops, Step::StopDaemon(node)));
}

/// Several who want the same service at once, some of whom do not live to have it.
fn rivals(
    at: Micros,
    (node, group): (NodeId, GroupId),
    how: How,
    dice: &mut Dice,
    out: &mut Vec<Timed>,
) {
    let how = if dice.one_in(2) { How::Again } else { how };
    for _ in 0..dice.between(2, 5) {
        let step = match dice.below(6) {
            0..=2 => Step::Mount(node, group, how),
            3 => Step::Leave(node, group),
            4 => Step::Complete(node, group),
            _ => Step::ToolDies(node),
        };
        out.push((at.plus_us(dice.skewed(150_000)), step));
    }
}

/// The last node, idle, knows that another was fenced, is cut off, and does not see it come back. Then
/// all are cut off, and meet again before that one is there. It takes five for the rest to stay quorate.
fn pieces(
    at: Micros,
    (node, group): (NodeId, GroupId),
    options: &Options,
    dice: &mut Dice,
    out: &mut Vec<Timed>,
) {
    let idle = NodeId(options.nodes);
    let lost_ms = 800 + options.detect_ms + 800;
    let steps = [
        (0, Step::Mount(node, group, How::Held)),
        (800, Step::PowerOff(node)),
        (lost_ms, Step::Split(vec![idle])),
        (lost_ms + 5_000, Step::Mount(node, group, How::Held)),
        (lost_ms + 7_000, Step::Shatter),
        (lost_ms + 10_000, Step::Split(vec![node])),
    ];
    for (ms, step) in steps {
        out.push((at.plus_ms(ms).plus_us(dice.skewed(300_000)), step));
    }
}

/// All kernels take long, and a tool dies before its group is attached.
fn hesitate(
    at: Micros,
    (node, group): (NodeId, GroupId),
    options: &Options,
    dice: &mut Dice,
    out: &mut Vec<Timed>,
) {
    for number in 1..=options.nodes.min(4) {
        out.push((at, Step::Kernel(NodeId(number), Mood::Slow)));
    }
    out.push((at, Step::Mount(node, group, how(dice, options))));
    out.push((at.plus_us(50_000 + dice.skewed(8_000_000)), Step::ToolDies(node)));
    for number in 1..=options.nodes.min(4) {
        let good = at.plus_us(dice.skewed(20_000_000));
        out.push((good, Step::Kernel(NodeId(number), Mood::Good)));
    }
}

fn mood(dice: &mut Dice, lies: bool) -> Mood {
    let moods = [Mood::Good, Mood::Fails, Mood::Slow, Mood::Lies];
    let count = if lies { 4 } else { 3 };
    *dice.pick(&moods[..count]).unwrap_or(&Mood::Good)
}

fn turn(dice: &mut Dice) -> Turn {
    let turns = [Turn::Start, Turn::Kill, Turn::Kill, Turn::Stop, Turn::Pause, Turn::Resume];
    *dice.pick(&turns).unwrap_or(&Turn::Kill)
}

fn small(dice: &mut Dice, n: u32) -> u32 {
    u32::try_from(dice.below(u64::from(n))).unwrap_or(0)
}
