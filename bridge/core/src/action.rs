//! What the core wants done.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::locking::LockingProtocol;
use crate::saved::SavedGroup;
use crate::timer::Timer;
use crate::types::{
    Channel, DeviceId, GroupId, Incarnation, Member, NodeId, Now, OpId, Peers, RequestId, RingId,
    ServiceName,
};

/// The list that one call of [`crate::Core::handle`] fills. The driver carries it out in order.
pub type Actions = Vec<Action>;

/// One effect. Those that can fail carry an id and come back as [`crate::Event::Done`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Action {
    /// Join a channel. The confchg that shows us in it is the real answer.
    Join {
        /// Comes back.
        op: OpId,
        /// Which.
        channel: Channel,
    },
    /// Leave a channel and forget its handle.
    Depart {
        /// Comes back.
        op: OpId,
        /// Which.
        channel: Channel,
    },
    /// Send to a channel. It comes back as our own message or the channel is lost, so it has no id.
    Mcast {
        /// Which.
        channel: Channel,
        /// See [`crate::proto`].
        bytes: Vec<u8>,
    },
    /// Tell the kernel. At most one verb of a group is under way; groups run in parallel.
    Verb {
        /// Comes back.
        op: OpId,
        /// The group.
        group: GroupId,
        /// What.
        verb: Verb,
    },
    /// Keep this image of a group so that it survives the daemon, or with `None` forget the group.
    Save {
        /// Comes back.
        op: OpId,
        /// The group.
        group: GroupId,
        /// What to keep.
        image: Option<SavedGroup>,
    },
    /// Ask corosync to end a node's corosync (`corosync_cfg_kill_node`).
    KillNode {
        /// Comes back.
        op: OpId,
        /// Which.
        node: NodeId,
    },
    /// Run the fence agent of one level.
    Fence {
        /// Comes back.
        op: OpId,
        /// The node to fence.
        node: NodeId,
        /// Index into the configured levels.
        level: u8,
    },
    /// Look into the mount table for a service whose tool died.
    Look {
        /// Comes back as [`crate::Event::Looked`].
        op: OpId,
        /// The group.
        group: GroupId,
        /// The service; a path names a mountpoint.
        service: ServiceName,
        /// The volume, if the tool said which.
        device: Option<DeviceId>,
    },
    /// Answer a tool.
    Reply {
        /// Whom.
        request: RequestId,
        /// What.
        reply: Reply,
    },
    /// Set a timer. An earlier setting of the same timer is void.
    Arm {
        /// Which.
        timer: Timer,
        /// Comes back with it.
        generation: u64,
        /// When.
        at: Now,
    },
    /// Reset this node: the cluster goes on without it while it may have volumes mounted.
    FenceSelf {
        /// The group that the others buried us in.
        group: GroupId,
        /// Our use of it that they buried.
        incarnation: Incarnation,
    },
    /// The locking protocol that the kernel is to run from now on, while anything is attached.
    RunLocking(LockingProtocol),
    /// End the process: nothing is in use, every channel was left.
    Exit,
    /// Tell the log.
    Note(Note),
}

/// The five verbs of a shim.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verb {
    /// The group is about to be used here, together with these nodes (ourselves included).
    Attach(Peers),
    /// The membership is about to change: stop granting.
    Suspend,
    /// This node died in this incarnation, is fenced, and all survivors know.
    NodeDown(NodeId, Incarnation),
    /// The membership is this now. Who is in the last list, is not in this one and had no
    /// [`Verb::NodeDown`] in between left cleanly.
    Resume(Peers),
    /// The group is used here no more.
    Detach,
}

impl Verb {
    /// The verb's name, as in design, logs and record files.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Attach(_) => "attach",
            Self::Suspend => "suspend",
            Self::NodeDown(..) => "node_down",
            Self::Resume(_) => "resume",
            Self::Detach => "detach",
        }
    }
}

/// The answer to a tool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reply {
    /// To begin: go ahead and mount. To the others: done.
    Done,
    /// To begin: the service lives already; go ahead (`EALREADY` on the old door).
    Already,
    /// No.
    Refused(Refusal),
}

/// Why a tool is refused. Unless the variant says otherwise, nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The volume belongs to another cluster than this node.
    WrongCluster {
        /// The volume's.
        volume: String,
        /// Ours.
        ours: String,
    },
    /// The group is in use here with another device of the same UUID.
    DeviceMismatch,
    /// Another begin, complete or leave of this service or group is under way.
    Busy,
    /// The service lives already, and only `ocfs2` may be begun twice.
    InUse,
    /// Nobody uses the group here.
    NoGroup,
    /// The group is in use here, but not by this service.
    NoService,
    /// Complete came without a begin of this client, of another group, or of another service.
    NotBegun,
    /// Corosync is not there. An earlier begin was undone.
    NoCluster,
    /// Not ready in time, for this reason. The begin was undone; a leave goes on in the background.
    TimedOut(Waiting),
    /// The cluster buried this node while it used the group; it must be reset, or at least end all
    /// its uses of the group, before it may use the group again.
    Expelled,
    /// A node that uses OCFS2 already speaks another version of our protocol.
    Incompatible {
        /// Which node.
        node: NodeId,
        /// The versions it speaks, lowest and highest.
        theirs: (u16, u16),
        /// The versions we speak.
        ours: (u16, u16),
    },
    /// The kernels of the cluster run a locking protocol that ours does not know, or know none that ours does.
    LockingMismatch {
        /// Whose kernel.
        node: NodeId,
        /// The version that it runs, or goes up to.
        theirs: LockingProtocol,
        /// The newest that ours knows.
        ours: LockingProtocol,
    },
    /// The shim or the state file failed. The begin was undone.
    Failed {
        /// `attach`, or `save`.
        what: &'static str,
        /// Why.
        error: crate::event::OpError,
    },
    /// More groups, services or requests than the named limit.
    TooMany {
        /// The limit's name.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The node needs no acknowledgement: it is unknown, alive, or fenced already.
    NothingToAck(NodeId),
    /// The daemon is ending.
    Stopping,
}

/// What a group that is not settled waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// Corosync.
    Cluster,
    /// Quorum in the current ring.
    Quorum,
    /// The fencing of a node.
    Fencing(NodeId),
    /// A node's daemon that is in the ring but has not spoken, or uses something and speaks another
    /// version.
    Peer(NodeId),
    /// A verb of the shim or the state file.
    Shim(&'static str),
    /// Nothing but its own next step.
    Nothing,
}

/// What the log should hear beyond events and actions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Note {
    /// A node came to use a group.
    UserJoined(GroupId, NodeId, Incarnation),
    /// A node ended its use of a group cleanly. No death.
    UserLeft(GroupId, NodeId, Incarnation),
    /// A user of a group is gone from the ring; nothing is decided yet.
    UserLost(GroupId, NodeId, Incarnation),
    /// A lost user came back before its death was decided.
    UserBack(GroupId, NodeId, Incarnation),
    /// The death of a user is decided in this quorate ring. It cannot be taken back.
    Condemned(GroupId, NodeId, Incarnation, RingId),
    /// The death was handed to the shim.
    Buried(GroupId, NodeId, Incarnation),
    /// A group is ready for its tools.
    GroupReady(GroupId),
    /// A group is no longer used here.
    GroupGone(GroupId),
    /// A user's daemon is gone while its node is in the ring: it has until then to come back.
    Debt(NodeId, Now),
    /// It came back in time.
    DebtPaid(NodeId),
    /// It did not: corosync is asked to end the node.
    DebtOverdue(NodeId),
    /// A CPG member whose node is not in the ring is not counted.
    Ghost(Channel, Member),
    /// A message that is not of our protocol was dropped; so many so far.
    Garbage(Channel, Member, u64),
    /// A node must be fenced before anything goes on that depends on it.
    FenceNeeded(NodeId, BootId),
    /// A fence attempt failed; the next one comes.
    FenceFailed(NodeId, crate::event::OpError),
    /// A node is fenced.
    Fenced(NodeId, BootId, crate::fence::Proof),
    /// A daemon that speaks another version was refused.
    Incompatible(NodeId, (u16, u16)),
    /// A verb or a save failed and is tried again.
    OpFailed(GroupId, &'static str, crate::event::OpError),
    /// We used volumes outside a quorate ring for so many milliseconds, and reset this node.
    Outvoted(u64),
    /// The others buried us in a group that we use.
    Expelled(GroupId),
    /// A stop was refused because these groups are in use.
    StopRefused(Vec<(GroupId, Vec<ServiceName>)>),
    /// A stop waits until corosync has carried our word that nothing is in use any more.
    StopWaits,
}

use crate::types::BootId;

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("corosync"),
            Self::Quorum => f.write_str("quorum"),
            Self::Fencing(node) => write!(f, "the fencing of node {node}"),
            Self::Peer(node) => write!(f, "the daemon of node {node}"),
            Self::Shim(what) => write!(f, "the shim's {what}"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl fmt::Display for crate::event::OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => write!(f, "errno {errno}"),
            Self::Corosync(code) => write!(f, "corosync error {code}"),
            Self::Agent(code) => write!(f, "fence agent exit code {code}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Unconfigured => f.write_str("nothing configured"),
        }
    }
}

impl Refusal {
    /// The errno of this refusal on the old door, as the ancestor's daemon chose them where it had
    /// a case.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::WrongCluster { .. } | Self::DeviceMismatch | Self::NotBegun => 22,
            Self::Busy | Self::InUse => 16,
            Self::NoGroup | Self::NoService | Self::NothingToAck(_) => 2,
            Self::NoCluster => 107,
            Self::TimedOut(_) => 110,
            Self::Expelled => 116,
            Self::Incompatible { .. } | Self::LockingMismatch { .. } => 71,
            Self::Failed { error, .. } => match error {
                crate::event::OpError::Errno(errno) => *errno,
                crate::event::OpError::TimedOut => 110,
                crate::event::OpError::Corosync(_)
                | crate::event::OpError::Agent(_)
                | crate::event::OpError::Unconfigured => 5,
            },
            Self::TooMany { .. } => 23,
            Self::Stopping => 108,
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::WrongCluster { .. } => "WrongCluster",
            Self::DeviceMismatch => "DeviceMismatch",
            Self::Busy => "Busy",
            Self::InUse => "InUse",
            Self::NoGroup => "NoGroup",
            Self::NoService => "NoService",
            Self::NotBegun => "NotBegun",
            Self::NoCluster => "NoCluster",
            Self::TimedOut(_) => "TimedOut",
            Self::Expelled => "Expelled",
            Self::Incompatible { .. } => "Incompatible",
            Self::LockingMismatch { .. } => "LockingMismatch",
            Self::Failed { .. } => "Failed",
            Self::TooMany { .. } => "TooMany",
            Self::NothingToAck(_) => "NothingToAck",
            Self::Stopping => "Stopping",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongCluster { volume, ours } => {
                write!(f, "the volume belongs to cluster '{volume}', this node to '{ours}'")
            }
            Self::DeviceMismatch => {
                f.write_str("another device with this UUID is in use on this node")
            }
            Self::Busy => f.write_str("another request for this service is under way; try again"),
            Self::InUse => f.write_str("this service uses the group already"),
            Self::NoGroup => f.write_str("nobody on this node uses this group"),
            Self::NoService => f.write_str("this service does not use the group"),
            Self::NotBegun => {
                f.write_str("there is no begin of this service by this client to complete")
            }
            Self::NoCluster => f.write_str(
                "corosync does not answer on this node: start it, or wait until it does",
            ),
            Self::TimedOut(waiting) => write!(f, "not ready in time: waiting for {waiting}"),
            Self::Expelled => f.write_str(
                "the cluster buried this node while it used the group: reset the node, or end all \
                 its uses of the group first",
            ),
            Self::Incompatible { node, theirs, ours } => write!(
                f,
                "node {node} speaks protocol {} to {}, this node {} to {}: upgrade the older one",
                theirs.0, theirs.1, ours.0, ours.1
            ),
            Self::LockingMismatch { node, theirs, ours } => write!(
                f,
                "node {node} has OCFS2's locking protocol {theirs}, and this node's kernel knows \
                 {ours} at most of its kind: use kernels that agree"
            ),
            Self::Failed { what, error } => write!(f, "{what} failed: {error}"),
            Self::TooMany { what, max } => write!(f, "more than {max} {what}"),
            Self::NothingToAck(node) => write!(
                f,
                "node {node} waits for no acknowledgement: it is unknown, alive or fenced already"
            ),
            Self::Stopping => f.write_str("the daemon is ending"),
        }
    }
}
