//! What happens to a node, as the core is told it.

use alloc::string::String;
use alloc::vec::Vec;

use crate::types::{
    Channel, ClientId, DeviceId, GroupId, Member, NodeId, OpId, Reason, RequestId, RingId,
    ServiceName,
};

/// One thing that happened. The adapters make these; [`crate::Core::handle`] takes them one by one.
///
/// Order: events of one [`Channel`] come in corosync's order. When several sources are readable at
/// once, the adapter reads the mountgroups, then the control group, then quorum, and hands them over
/// in the order quorum, control, mountgroups: so that whoever is judged by a group's event is judged
/// with knowledge of the ring and of the daemons that is at least as new. All that corosync has is handed
/// over before any timer fires: nobody is to be judged by a silence that only we did not hear the end of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// Corosync answers. The quorum state follows as [`Event::Quorum`].
    Connected {
        /// This node.
        node: NodeId,
        /// `totem.cluster_name`; empty if corosync.conf does not name the cluster.
        cluster: String,
        /// The nodes of corosync.conf's nodelist, up or not. Empty if there is no nodelist: then a
        /// node that was never seen cannot be missed.
        nodelist: Vec<NodeId>,
    },
    /// The nodelist of corosync.conf was changed and reloaded.
    Nodelist(Vec<NodeId>),
    /// Corosync is gone, and with it every channel and every event it had queued.
    Disconnected,
    /// A notification of the quorum service.
    Quorum {
        /// Whether this partition may act.
        quorate: bool,
        /// The ring that it speaks of.
        ring: RingId,
        /// That ring's nodes.
        nodes: Vec<NodeId>,
        /// Which nodes of earlier rings did not come into it together with this one; they may be in it all
        /// the same. Of a ring that the service never spoke of nobody may be named.
        left: Vec<NodeId>,
    },
    /// The membership of a channel changed.
    Confchg {
        /// Which.
        channel: Channel,
        /// Everyone in it now.
        members: Vec<Member>,
        /// Who went, and how.
        left: Vec<(Member, Reason)>,
        /// Who came, and how.
        joined: Vec<(Member, Reason)>,
    },
    /// A channel's confchgs for this ring are complete.
    Totem {
        /// Which.
        channel: Channel,
        /// The new ring.
        ring: RingId,
        /// Its nodes.
        nodes: Vec<NodeId>,
    },
    /// A message in a channel, our own ones included.
    Message {
        /// Which.
        channel: Channel,
        /// Who sent it.
        from: Member,
        /// What; see [`crate::proto`].
        bytes: Vec<u8>,
    },
    /// The effect with this id ended.
    Done {
        /// The id that its action carried.
        op: OpId,
        /// How.
        result: Result<(), OpError>,
    },
    /// An [`crate::Action::Look`] ended.
    Looked {
        /// The id that the action carried.
        op: OpId,
        /// What the mount table says.
        finding: Finding,
    },
    /// A tool is about to use a group.
    Begin(Begin),
    /// A tool says how its mount ended.
    Complete {
        /// To be answered.
        request: RequestId,
        /// Whose.
        client: ClientId,
        /// The group.
        group: GroupId,
        /// The service.
        service: ServiceName,
        /// 0: it is mounted. Anything else: it is not.
        code: i32,
    },
    /// A service ends its use of a group.
    Leave {
        /// To be answered.
        request: RequestId,
        /// Whose.
        client: ClientId,
        /// The group.
        group: GroupId,
        /// The service.
        service: ServiceName,
    },
    /// A connection to a door ended. Its requests need no answer any more.
    ClientGone {
        /// Whose.
        client: ClientId,
    },
    /// The administrator states that a node has been reset or is off.
    FenceAck {
        /// To be answered.
        request: RequestId,
        /// Whose.
        client: ClientId,
        /// The node.
        node: NodeId,
    },
    /// This daemon stood still, or its whole machine did: what the others said meanwhile may not be here yet.
    Stalled,
    /// A timer that [`crate::Action::Arm`] set fired.
    Timer {
        /// Which.
        timer: crate::timer::Timer,
        /// Which setting of it; an older one is dropped.
        generation: u64,
    },
    /// The service manager asks the daemon to end (SIGTERM).
    Stop,
    /// The configuration was read again.
    Reconfigure(crate::config::Tunables),
}

/// The words of a begin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Begin {
    /// To be answered.
    pub request: RequestId,
    /// Whose.
    pub client: ClientId,
    /// The group.
    pub group: GroupId,
    /// The service.
    pub service: ServiceName,
    /// The cluster that the volume belongs to, if the tool knows.
    pub cluster: Option<String>,
    /// The volume's device number, if the tool knows.
    pub device: Option<DeviceId>,
    /// Whether the connection stands for the tool: its end before complete means that the tool died.
    pub held: bool,
}

/// Why an effect failed. Nothing that the effect was to change is known to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpError {
    /// The operating system refused; an errno.
    Errno(i32),
    /// Corosync refused; a `cs_error_t`.
    Corosync(u32),
    /// A fence agent ended with this exit code.
    Agent(i32),
    /// It did not end in its time.
    TimedOut,
    /// There is nothing configured that could do it.
    Unconfigured,
}

/// What the mount table says of a service whose tool died between begin and complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finding {
    /// The volume is mounted.
    Mounted,
    /// It is not.
    NotMounted,
    /// The mount table could not be read: taken as mounted, because a group that is left under a
    /// mount costs a filesystem, and one that is kept for nothing costs a command.
    Unknown,
}
