//! What [`crate::Bus`] reports.

use std::fmt;
use std::time::Duration;

use o2bridge_core::event::OpError;
use o2bridge_core::types::{Channel, Member, NodeId, OpId, Reason, RingId};

/// One thing that corosync said, or that became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// Corosync answers. [`BusEvent::Quorum`] follows.
    Connected(Connected),
    /// This corosync cannot be used as it is configured. The bus asks again slowly, and says so
    /// once.
    Refused(Unsuitable),
    /// Corosync is gone, with every channel and every event it had queued. Each operation that was
    /// under way ends as failed after this. Nothing more comes until [`crate::Bus::connect`].
    Lost(LostCause),
    /// Corosync's node list is another than the one last told, here or with
    /// [`BusEvent::Connected`]: an administrator had the configuration read again. All of it, some
    /// tenths of a second after the change.
    Nodelist(Vec<NodeEntry>),
    /// A notification of the quorum service.
    Quorum {
        /// Whether this partition may act.
        quorate: bool,
        /// The ring that it speaks of.
        ring: RingId,
        /// That ring's nodes.
        nodes: Vec<NodeId>,
        /// Which nodes did not come into it together with this one, of those of earlier rings. Some may be
        /// in it all the same: they, or this node, were away for a while.
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
        /// What.
        bytes: Vec<u8>,
    },
    /// A join, depart or kill ended.
    Done {
        /// The id that it was asked with.
        op: OpId,
        /// How.
        result: Result<(), OpError>,
    },
    /// For the log only.
    Notice(Notice),
}

/// What is known of corosync when it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// This node.
    pub node: NodeId,
    /// `totem.cluster_name`; empty if corosync.conf does not name the cluster.
    pub cluster: String,
    /// `nodelist` of corosync.conf; empty if it has none.
    pub nodelist: Vec<NodeEntry>,
    /// `system.qb_ipc_type`; `native` if it is not set.
    pub ipc_type: String,
}

/// One node of corosync.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its id.
    pub id: NodeId,
    /// Its name; empty if it has none.
    pub name: String,
    /// The addresses of its links, in their order.
    pub addresses: Vec<String>,
}

/// Why a corosync that answers cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsuitable {
    /// With `system.qb_ipc_type: socket` no descriptor tells when corosync dies.
    SocketIpc,
    /// Without a quorum provider nobody knows which side of a partition may act.
    NoQuorum,
    /// A key of its map cannot be read. Without all of them nobody knows which nodes there are.
    TornMap,
    /// libcpg has room for 128 in a ring, and does not look.
    TooManyNodes,
}

impl fmt::Display for Unsuitable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SocketIpc => {
                "corosync.conf has 'qb_ipc_type: socket': a client is not told when corosync dies; \
                 remove the line and restart corosync"
            }
            Self::NoQuorum => {
                "corosync.conf has no quorum provider: set 'quorum { provider: \
                 corosync_votequorum }' and restart corosync"
            }
            Self::TornMap => {
                "corosync's map holds a value that is not UTF-8, perhaps a node's name: mend \
                 corosync.conf on all nodes and run 'corosync-cfgtool -R'"
            }
            Self::TooManyNodes => {
                "corosync.conf lists more than 128 nodes, and libcpg breaks in a ring of so many: \
                 use fewer"
            }
        })
    }
}

/// How corosync was lost. In all cases every handle is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostCause {
    /// A call on a live handle failed with this `cs_error_t`; 2 when corosync is dead.
    Corosync(u32),
    /// The operating system could not watch a handle; an errno.
    Errno(i32),
    /// Corosync took the end of an older handle of this process for that of the channel's: nobody hears us there.
    Outside {
        /// The channel.
        channel: Channel,
    },
    /// A message could not be sent, and leaving it out would break the order that all rely on.
    SendLimit {
        /// The channel.
        channel: Channel,
        /// The limit's name.
        what: &'static str,
    },
}

impl fmt::Display for LostCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corosync(2) => f.write_str("corosync ended or was killed"),
            Self::Corosync(code) => write!(f, "corosync error {code}"),
            Self::Errno(errno) => write!(f, "cannot watch corosync's descriptor: errno {errno}"),
            Self::Outside { channel } => {
                write!(f, "{channel}: corosync holds us for gone, after an older handle's end")
            }
            Self::SendLimit { channel, what } => write!(f, "{channel}: over the limit {what}"),
        }
    }
}

/// Something that the log should hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Corosync does not answer yet: a `cs_error_t`. Said once for each code, then it is tried on.
    NotRunning(u32),
    /// A call did not end in its time. Its thread is left to itself; other work goes on.
    SlowCall {
        /// Which call.
        what: &'static str,
        /// The time it had.
        limit: Duration,
    },
    /// A call was not made: as many as may be hang, or the system had no thread for it.
    NotMade {
        /// Which call.
        what: &'static str,
    },
    /// A call that had been given up ended after all; what it made was undone.
    LateCall {
        /// Which call.
        what: &'static str,
    },
    /// The node list was changed, and cannot be read: a `cs_error_t`. The old one counts until it can. Said once.
    NodelistUnread(u32),
    /// More groups than the configured number share `/dev/shm` and corosync's memory.
    ManyGroups {
        /// How many channels there are.
        channels: usize,
        /// What they take from `/dev/shm`, in bytes. Corosync takes a third more for itself.
        shm_bytes: u64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(code) => {
                write!(f, "corosync does not answer (error {code}); still trying")
            }
            Self::SlowCall { what, limit } => write!(
                f,
                "corosync did not answer '{what}' within {limit:?}; is it stopped or starved?"
            ),
            Self::NotMade { what } => write!(
                f,
                "corosync was not asked for '{what}': too many calls hang already, or there is no \
                 thread for it"
            ),
            Self::LateCall { what } => write!(f, "corosync answered '{what}' too late; undone"),
            Self::NodelistUnread(code) => write!(
                f,
                "corosync's node list cannot be read (error {code}), the old one counts; is a name in \
                 corosync.conf not UTF-8?"
            ),
            Self::ManyGroups { channels, shm_bytes } => write!(
                f,
                "{channels} groups take {} MiB of /dev/shm, and corosync needs one descriptor each: \
                 check the size of /dev/shm and LimitNOFILE of corosync.service",
                shm_bytes >> 20
            ),
        }
    }
}
