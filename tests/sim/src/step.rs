//! What happens to a cluster from outside, one step a line. A seed makes a list of these; a failing
//! list is cut down and printed; a scenario is one that a person wrote.
//!
//! ```text
//! 1200 n1 mount A held
//! 1900 n3 power off
//! 2000 split n1
//! ```
//! The number is when, in milliseconds. Nodes are `n1`, `n2`, ...; volumes `A`, `B`, ...

use std::fmt;
use std::str::FromStr;

use o2bridge_core::{GroupId, NodeId};

use crate::time::Micros;

/// How a volume comes to be mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// By a tool whose begin is tied to its connection: the old door's whole conversation.
    Held,
    /// By one that says begin and complete on connections of their own: the new door.
    Free,
    /// By one that says nothing at all, under a region that stands ahead.
    Plain,
    /// By a tool of the old door that says begin, and nothing after it.
    Mute,
    /// As the service `ocfs2`, which may be begun while it lives.
    Again,
}

/// How well something works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mood {
    /// As it should.
    Good,
    /// It refuses.
    Fails,
    /// It takes long.
    Slow,
    /// It says that it did it, and did not.
    Lies,
}

/// What becomes of a corosync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Turn {
    /// It is started.
    Start,
    /// SIGKILL.
    Kill,
    /// SIGTERM.
    Stop,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// It is restarted, and its return fails in the middle: a ghost.
    Haunt,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Somebody mounts a volume.
    Mount(NodeId, GroupId, How),
    /// Somebody unmounts it.
    Umount(NodeId, GroupId),
    /// An administrator says that a service of it is over.
    Leave(NodeId, GroupId),
    /// Somebody says how a service went whose tool it is not.
    Complete(NodeId, GroupId),
    /// fsck looks at it.
    Fsck(NodeId, GroupId),
    /// A file system writes: takes the volume's lock for a moment.
    Write(NodeId, GroupId),
    /// One of the node's tools dies where it stands.
    ToolDies(NodeId),
    /// SIGKILL of o2bridged.
    KillDaemon(NodeId),
    /// SIGSTOP of o2bridged: whatever it is to hear or to do waits, and corosync still lists it.
    HangDaemon(NodeId),
    /// SIGCONT.
    WakeDaemon(NodeId),
    /// SIGKILL of the keeper.
    KillKeeper(NodeId),
    /// SIGTERM of o2bridged.
    StopDaemon(NodeId),
    /// SIGHUP of o2bridged.
    Reload(NodeId),
    /// Its power goes.
    PowerOff(NodeId),
    /// It stands still.
    Freeze(NodeId),
    /// It goes on.
    Thaw(NodeId),
    /// Its corosync.
    Corosync(NodeId, Turn),
    /// These nodes are cut off from the others.
    Split(Vec<NodeId>),
    /// Each node is cut off from all others.
    Shatter,
    /// These two hear each other in one direction only.
    OneWay(NodeId, NodeId),
    /// All cables are good.
    Heal,
    /// The fence devices.
    Fences(Mood),
    /// A node's kernel, towards the shim.
    Kernel(NodeId, Mood),
    /// Whether a node's state file can be written.
    Disk(NodeId, Mood),
    /// A stranger on this node talks in our channels.
    Garbage(NodeId),
}

/// When, and what.
pub type Timed = (Micros, Step);

/// The volume with this number, from 0.
#[must_use]
pub fn volume(number: u32) -> GroupId {
    GroupId(0xA000_0000_0000_0000_0000_0000_0000_0000 + u128::from(number))
}

fn volume_name(group: GroupId) -> char {
    let number = u8::try_from(group.0 & 0xFF).unwrap_or(u8::MAX).min(25);
    char::from(b'A' + number)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |group: &GroupId| volume_name(*group);
        match self {
            Self::Mount(node, group, how) => {
                write!(f, "n{node} mount {} {}", name(group), word(HOWS, how))
            }
            Self::Umount(node, group) => write!(f, "n{node} umount {}", name(group)),
            Self::Leave(node, group) => write!(f, "n{node} leave {}", name(group)),
            Self::Complete(node, group) => write!(f, "n{node} complete {}", name(group)),
            Self::Fsck(node, group) => write!(f, "n{node} fsck {}", name(group)),
            Self::Write(node, group) => write!(f, "n{node} write {}", name(group)),
            Self::ToolDies(node) => write!(f, "n{node} tool dies"),
            Self::KillDaemon(node) => write!(f, "n{node} kill daemon"),
            Self::HangDaemon(node) => write!(f, "n{node} hang daemon"),
            Self::WakeDaemon(node) => write!(f, "n{node} wake daemon"),
            Self::KillKeeper(node) => write!(f, "n{node} kill keeper"),
            Self::StopDaemon(node) => write!(f, "n{node} stop daemon"),
            Self::Reload(node) => write!(f, "n{node} reload"),
            Self::PowerOff(node) => write!(f, "n{node} power off"),
            Self::Freeze(node) => write!(f, "n{node} freeze"),
            Self::Thaw(node) => write!(f, "n{node} thaw"),
            Self::Corosync(node, turn) => write!(f, "n{node} corosync {}", word(TURNS, turn)),
            Self::Split(nodes) => {
                f.write_str("split")?;
                nodes.iter().try_for_each(|node| write!(f, " n{node}"))
            }
            Self::Shatter => f.write_str("shatter"),
            Self::OneWay(a, b) => write!(f, "oneway n{a} n{b}"),
            Self::Heal => f.write_str("heal"),
            Self::Fences(mood) => write!(f, "fences {}", word(MOODS, mood)),
            Self::Kernel(node, mood) => write!(f, "n{node} kernel {}", word(MOODS, mood)),
            Self::Disk(node, mood) => write!(f, "n{node} disk {}", word(MOODS, mood)),
            Self::Garbage(node) => write!(f, "n{node} garbage"),
        }
    }
}

const HOWS: &[(&str, How)] = &[
    ("held", How::Held),
    ("free", How::Free),
    ("plain", How::Plain),
    ("mute", How::Mute),
    ("again", How::Again),
];
const MOODS: &[(&str, Mood)] =
    &[("good", Mood::Good), ("fails", Mood::Fails), ("slow", Mood::Slow), ("lies", Mood::Lies)];
const TURNS: &[(&str, Turn)] = &[
    ("start", Turn::Start),
    ("kill", Turn::Kill),
    ("stop", Turn::Stop),
    ("pause", Turn::Pause),
    ("resume", Turn::Resume),
    ("haunt", Turn::Haunt),
];

fn word<T: PartialEq>(of: &[(&'static str, T)], value: &T) -> &'static str {
    of.iter().find(|(_, it)| it == value).map_or("?", |(word, _)| *word)
}

fn meant<T: Copy>(of: &[(&'static str, T)], word: Option<&&str>) -> Option<T> {
    of.iter().find(|(it, _)| Some(it) == word).map(|(_, value)| *value)
}

/// A line that is no step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadStep(pub String);

impl fmt::Display for BadStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is no step; the steps are listed in tests/sim/src/step.rs", self.0)
    }
}

impl std::error::Error for BadStep {}

/// Reads `n3`.
#[must_use]
pub fn node(word: &str) -> Option<NodeId> {
    word.strip_prefix('n')?.parse().ok().map(NodeId)
}

/// Reads `A`.
#[must_use]
pub fn group(word: &str) -> Option<GroupId> {
    let &[letter] = word.as_bytes() else { return None };
    letter.is_ascii_uppercase().then(|| volume(u32::from(letter - b'A')))
}

impl FromStr for Step {
    type Err = BadStep;

    fn from_str(text: &str) -> Result<Self, BadStep> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let step = match words.as_slice() {
            ["shatter"] => Some(Self::Shatter),
            ["heal"] => Some(Self::Heal),
            ["split", nodes @ ..] => {
                nodes.iter().map(|word| node(word)).collect::<Option<_>>().map(Self::Split)
            }
            ["oneway", a, b] => node(a).zip(node(b)).map(|(a, b)| Self::OneWay(a, b)),
            ["fences", mood] => meant(MOODS, Some(mood)).map(Self::Fences),
            [first, rest @ ..] => node(first).and_then(|node| of_node(node, rest)),
            [] => None,
        };
        step.ok_or_else(|| BadStep(text.to_owned()))
    }
}

fn of_node(node: NodeId, words: &[&str]) -> Option<Step> {
    match words {
        ["mount", volume, how] => Some(Step::Mount(node, group(volume)?, meant(HOWS, Some(how))?)),
        ["umount", volume] => Some(Step::Umount(node, group(volume)?)),
        ["leave", volume] => Some(Step::Leave(node, group(volume)?)),
        ["complete", volume] => Some(Step::Complete(node, group(volume)?)),
        ["fsck", volume] => Some(Step::Fsck(node, group(volume)?)),
        ["write", volume] => Some(Step::Write(node, group(volume)?)),
        ["tool", "dies"] => Some(Step::ToolDies(node)),
        ["kill", "daemon"] => Some(Step::KillDaemon(node)),
        ["hang", "daemon"] => Some(Step::HangDaemon(node)),
        ["wake", "daemon"] => Some(Step::WakeDaemon(node)),
        ["kill", "keeper"] => Some(Step::KillKeeper(node)),
        ["stop", "daemon"] => Some(Step::StopDaemon(node)),
        ["reload"] => Some(Step::Reload(node)),
        ["power", "off"] => Some(Step::PowerOff(node)),
        ["freeze"] => Some(Step::Freeze(node)),
        ["thaw"] => Some(Step::Thaw(node)),
        ["corosync", turn] => Some(Step::Corosync(node, meant(TURNS, Some(turn))?)),
        ["kernel", mood] => Some(Step::Kernel(node, meant(MOODS, Some(mood))?)),
        ["disk", mood] => Some(Step::Disk(node, meant(MOODS, Some(mood))?)),
        ["garbage"] => Some(Step::Garbage(node)),
        _ => None,
    }
}
