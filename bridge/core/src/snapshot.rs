//! What status shows: a copy of the core's state in the field's words. Made on request, never on
//! the death path.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use crate::action::Waiting;
use crate::config::Fencing;
use crate::group::{Group, Presence};
use crate::handle::{Core, Link};
use crate::lane::Grip;
use crate::node::Peer;
use crate::timer::Timer;
use crate::types::{BootId, DeviceId, GroupId, Incarnation, Member, NodeId, RingId, ServiceName};

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// This node, once corosync told.
    pub node: Option<NodeId>,
    /// `totem.cluster_name`.
    pub cluster: String,
    /// Whether corosync answers.
    pub connected: bool,
    /// Where we stand with corosync and the control group: `down`, `joining`, `pausing`, `up`, `leaving`.
    pub link: &'static str,
    /// Whether this partition is quorate, in the ring below.
    pub quorate: bool,
    /// The ring of the last quorum notification.
    pub ring: Option<RingId>,
    /// Whether every daemon in the ring has seen it, so that deaths may be told.
    pub settled: bool,
    /// Whether we know all users there are.
    pub witness: bool,
    /// Whether the clock of a node that is outvoted runs.
    pub outvoted: bool,
    /// The locking protocol of the kernels: `none`, `chosen`, or `heard` once our word of it has come back.
    pub locking: &'static str,
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
    /// `speaking`, `silent`, `absent`, `incompatible`, `ignored`.
    pub daemon: &'static str,
    /// The boot it told.
    pub boot: Option<BootId>,
    /// How many groups it uses.
    pub groups: usize,
    /// `none`, or of a dead node: `needed`, `running`, `retrying`, `waiting for ack`, `fenced`.
    pub fencing: &'static str,
    /// Whether its daemon owes us a return or a word, with the grace period running.
    pub in_debt: bool,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Which.
    pub group: GroupId,
    /// `joining`, `attaching`, `settling`, `ready`, `suspended`, `apart` (attached, but not in the
    /// process group), `leaving`, `expelled`.
    pub state: &'static str,
    /// What it waits for.
    pub waiting: Waiting,
    /// Where we stand in its process group: `out`, `joining`, `entering`, `in`, `departing`, `pausing`.
    pub presence: &'static str,
    /// How the shim holds it: `detached`, `granting`, `suspended`, `unresumed`, `unfinished`.
    pub grip: &'static str,
    /// The verb or save under way, or `retry` after a failed one.
    pub step: Option<&'static str>,
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
    /// `beginning`, `granted`, `completing`, `live`, `additional`, `looking`, `leaving`.
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

impl Core {
    /// A copy of the state for status and dump.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let quorum = self.nodes.quorum.as_ref();
        Snapshot {
            node: self.nodes.me,
            cluster: self.cluster.clone(),
            connected: self.link != Link::Down,
            link: self.link.name(),
            quorate: self.nodes.is_in_force(),
            ring: quorum.map(|quorum| quorum.ring.id),
            settled: self.nodes.is_agreed(),
            witness: self.nodes.witness,
            outvoted: self.timers.is_armed(&Timer::Outvoted),
            locking: match (self.nodes.locking.running, self.nodes.locking_heard) {
                (None, _) => "none",
                (Some(_), false) => "chosen",
                (Some(_), true) => "heard",
            },
            protocol: self.nodes.protocol(),
            fencing: match self.config.tunables.fencing {
                Fencing::None => "none",
                Fencing::Ack => "ack",
                Fencing::Agent { .. } => "agent",
            },
            nodes: self.node_status(),
            groups: self.groups.values().map(|group| self.group_status(group)).collect(),
            garbage_messages: self.garbage_messages,
        }
    }

    /// The groups that other nodes use, or used when they were lost.
    #[must_use]
    pub fn used_elsewhere(&self) -> BTreeSet<GroupId> {
        let others = self.nodes.peers.iter().filter(|(node, _)| Some(**node) != self.nodes.me);
        let others = others.flat_map(|(_, peer)| peer.uses.keys());
        let lost = self.nodes.lost.values();
        let lost = lost.flat_map(|lost| lost.uses.keys().chain(&lost.elsewhere));
        others.chain(lost).copied().collect()
    }

    fn node_status(&self) -> Vec<NodeStatus> {
        let ring = self.nodes.ring.iter().flat_map(|ring| ring.nodes.iter());
        let known: BTreeSet<NodeId> =
            ring.chain(self.nodes.peers.keys()).chain(self.nodes.lost.keys()).copied().collect();
        let status = |node: NodeId| {
            let peer = self.nodes.peers.get(&node);
            let lost = self.nodes.lost.get(&node);
            NodeStatus {
                node,
                in_ring: self.nodes.is_in_ring(node),
                daemon: peer.map_or("absent", Peer::daemon_name),
                boot: peer.and_then(|peer| peer.boot).or(lost.map(|lost| lost.boot)),
                groups: peer.map_or(0, |peer| peer.uses.len()),
                fencing: match (lost, self.config.tunables.fencing) {
                    (None, _) => "none",
                    (Some(lost), Fencing::Ack) if !lost.is_fenced() => "waiting for ack",
                    (Some(lost), _) => lost.name(),
                },
                in_debt: self.timers.is_armed(&Timer::Grace(node)),
            }
        };
        known.into_iter().map(status).collect()
    }

    fn group_status(&self, group: &Group) -> GroupStatus {
        let waiting = group.waits_for(&self.nodes, self.link != Link::Down);
        let state = if group.expelled {
            "expelled"
        } else if group.is_closing() {
            "leaving"
        } else {
            match (group.presence, group.lane.grip, &waiting) {
                (Presence::In, Grip::Granting, Waiting::Nothing) => "ready",
                (Presence::In, Grip::Granting, _) => "settling",
                (_, Grip::Suspended | Grip::Unresumed | Grip::Unfinished, _) => "suspended",
                (Presence::In, Grip::Detached, _) => "attaching",
                (_, Grip::Granting, _) => "apart",
                (_, Grip::Detached, _) => "joining",
            }
        };
        let services = group.services.iter().map(|(service, state)| ServiceStatus {
            service: service.clone(),
            state: state.name(),
        });
        GroupStatus {
            group: group.id,
            state,
            waiting,
            presence: group.presence.name(),
            grip: group.lane.grip.name(),
            step: group.lane.busy_with(),
            incarnation: group.incarnation,
            device: group.device,
            ring: group.ring.as_ref().map(|ring| ring.id),
            services: services.collect(),
            members: self.member_status(group),
        }
    }

    fn member_status(&self, group: &Group) -> Vec<MemberStatus> {
        let alive = group.users.iter().map(|(node, using)| {
            let here = using.pid.is_some_and(|pid| group.is_counted(Member { node: *node, pid }));
            let state = if !self.nodes.is_in_ring(*node) {
                "lost"
            } else if !here {
                "absent"
            } else if group.lane.told.get(node) == Some(&using.user) {
                "member"
            } else {
                "joining"
            };
            MemberStatus { node: *node, incarnation: using.user.incarnation, state }
        });
        let dead = group.dead.iter().map(|(node, death)| MemberStatus {
            node: *node,
            incarnation: death.user.incarnation,
            state: "dead",
        });
        alive.chain(dead).collect()
    }
}
