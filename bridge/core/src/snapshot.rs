//! What status shows: a copy of the core's state in the field's words. Made on request, never on
//! the death path.

use alloc::string::String;
use alloc::vec::Vec;

use crate::action::Waiting;
use crate::types::{BootId, DeviceId, GroupId, Incarnation, NodeId, RingId, ServiceName};

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// This node, once corosync told.
    pub node: Option<NodeId>,
    /// `totem.cluster_name`.
    pub cluster: String,
    /// Whether corosync answers.
    pub connected: bool,
    /// Whether this partition is quorate, in the ring below.
    pub quorate: bool,
    /// The ring of the last quorum notification.
    pub ring: Option<RingId>,
    /// Whether every daemon in the ring has seen it, so that deaths may be told.
    pub settled: bool,
    /// The protocol version in use among the daemons.
    pub protocol: u16,
    /// The fencing policy: `none`, `ack` or `agent`.
    pub fencing: &'static str,
    /// The nodes that we know of, ourselves included.
    pub nodes: Vec<NodeStatus>,
    /// The groups in use here.
    pub groups: Vec<GroupStatus>,
    /// Peer messages dropped because they are not of our protocol.
    pub garbage_messages: u64,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// Which.
    pub node: NodeId,
    /// In the ring or not.
    pub in_ring: bool,
    /// `speaking`, `silent`, `absent`, `incompatible`.
    pub daemon: &'static str,
    /// The boot it told.
    pub boot: Option<BootId>,
    /// How many groups it uses.
    pub groups: usize,
    /// `none`, or of a dead node: `needed`, `running`, `waiting for ack`, `fenced`.
    pub fencing: &'static str,
    /// Whether its daemon owes us a return or a word, with the grace period running.
    pub in_debt: bool,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Which.
    pub group: GroupId,
    /// `joining`, `attaching`, `ready`, `suspended`, `leaving`, `expelled`.
    pub state: &'static str,
    /// What it waits for.
    pub waiting: Waiting,
    /// Our use.
    pub incarnation: Incarnation,
    /// The volume's device.
    pub device: Option<DeviceId>,
    /// The ring of its last totem change.
    pub ring: Option<RingId>,
    /// Who uses it here.
    pub services: Vec<ServiceStatus>,
    /// Who uses it in the cluster.
    pub members: Vec<MemberStatus>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// Which.
    pub service: ServiceName,
    /// `beginning`, `granted`, `live`, `additional`, `looking`, `leaving`.
    pub state: &'static str,
}

/// One user of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Which node.
    pub node: NodeId,
    /// Which use.
    pub incarnation: Incarnation,
    /// `member`, `joining`, `absent`, `lost`, `dead`.
    pub state: &'static str,
}
