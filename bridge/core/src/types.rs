//! The words of the core: ids, names and views. Everything here is plain data, and every name that
//! comes from outside is checked where it is made.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// A corosync node id (`nodelist.node.N.nodeid`). 0 never names a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

/// A process id as CPG reports it, in the pid namespace of the process's own node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pid(pub u32);

/// One process in a CPG.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The node that the process runs on.
    pub node: NodeId,
    /// The process.
    pub pid: Pid,
}

/// Names one membership of the totem ring. Two nodes with the same ring id have the same ring members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingId {
    /// Grows with every membership change.
    pub seq: u64,
    /// The representative of the ring.
    pub node: NodeId,
}

/// One use of one group by one node, from its join to its leave or its death. A daemon that comes
/// back after a crash resumes its incarnation; a rebooted node has a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// One boot of a node's kernel (`/proc/sys/kernel/random/boot_id`). A node seen with a new boot id
/// has been reset: whatever it had mounted before, it writes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootId(pub u128);

impl BootId {
    /// Stands for whatever boot a node may be in that has not been seen since we began to look.
    pub const UNSEEN: Self = Self(0);
}

/// Names one effect. The event that reports its end carries the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// Names one request of a tool or an administrator. Answered exactly once, unless its client goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names one connection to a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// Milliseconds on a clock that never goes back and goes on during suspend (`CLOCK_BOOTTIME`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Now(pub u64);

impl Now {
    /// This moment and `ms` milliseconds more.
    #[must_use]
    pub const fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// A block device number (`st_rdev`), to tell one volume's device from another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u64);

/// A mountgroup: the UUID of an OCFS2 volume, written as 32 upper-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u128);

/// A text that is not a volume's UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadGroupId;

impl fmt::Display for BadGroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mountgroup is named by its volume's UUID: 32 hex digits, no dashes")
    }
}

impl core::error::Error for BadGroupId {}

impl FromStr for GroupId {
    type Err = BadGroupId;

    /// Takes exactly 32 hex digits, in either case.
    fn from_str(text: &str) -> Result<Self, BadGroupId> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(BadGroupId);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| BadGroupId)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032X}", self.0)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupId({self})")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for RingId {
    /// As corosync's own tools print it: representative, dot, sequence in hex.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.node.0, self.seq)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Who uses a group on this node: `ocfs2` (the kernel's mounts, as mount.ocfs2 says it), a
/// mountpoint, or a tool's name such as `fsck.ocfs2`. 1 to [`ServiceName::BYTES_MAX`] bytes without
/// control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// A text that cannot name a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadServiceName;

impl fmt::Display for BadServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a service is named by 1 to {} bytes without control characters",
            ServiceName::BYTES_MAX
        )
    }
}

impl core::error::Error for BadServiceName {}

impl ServiceName {
    /// The longest name that fits into the old door's 256-byte messages beside a UUID.
    pub const BYTES_MAX: usize = 190;

    /// The one service that may be begun again while it lives: the kernel counts its mounts itself.
    pub const OCFS2: &'static str = "ocfs2";

    /// Checks and takes a name.
    ///
    /// # Errors
    /// The text is empty, too long, or holds control characters.
    pub fn new(text: &str) -> Result<Self, BadServiceName> {
        if text.is_empty() || text.len() > Self::BYTES_MAX || text.chars().any(char::is_control) {
            return Err(BadServiceName);
        }
        Ok(Self(text.into()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the mount table can tell of it: `ocfs2`, or a mountpoint.
    #[must_use]
    pub fn is_mount(&self) -> bool {
        self.is_ocfs2() || self.0.starts_with('/')
    }

    /// Whether this is the kernel's own service, which may be begun several times.
    #[must_use]
    pub fn is_ocfs2(&self) -> bool {
        self.0 == Self::OCFS2
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A closed process group of corosync that this daemon is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// The group of all o2bridge daemons: versions, boot ids, fencing.
    Control,
    /// One mountgroup.
    Group(GroupId),
}

impl fmt::Display for Channel {
    /// The CPG's name on the wire.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control => f.write_str("o2bridge:control"),
            Self::Group(group) => write!(f, "o2bridge:{group}"),
        }
    }
}

/// Why a process is in the joined or left list of a confchg (corosync/cpg.h, `cpg_reason_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It joined.
    Join,
    /// It left.
    Leave,
    /// Its node went.
    NodeDown,
    /// Its node came, with the process already in the group.
    NodeUp,
    /// It ended, or its corosync was stopped cleanly, without leaving.
    ProcDown,
    /// Any other number.
    Undefined,
}

/// Which nodes of a group its users on this node must know: the argument of attach and resume.
pub type Peers = alloc::collections::BTreeMap<NodeId, Incarnation>;
