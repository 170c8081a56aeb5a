//! What status shows, as the JSON that `o2bridge status --format json` prints and the new door
//! sends: one set of words for the daemon, the command and every other program.

use std::fmt;
use std::str::FromStr;

use o2bridge_core::snapshot::{GroupStatus, NodeStatus};
use o2bridge_core::{DeviceId, Snapshot, Waiting};
use o2bridge_shim::user_heartbeat::View;
use serde::{Deserialize, Serialize};

use crate::views::Views;
use crate::volumes::VolumeView;

/// How much the daemon logs: this level and everything graver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// The operator must act.
    Error,
    /// A cluster event: a death, a partition, a refused peer.
    Warning,
    /// A transition of a node or a group.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    /// All levels, gravest first.
    pub const ALL: [Self; 4] = [Self::Error, Self::Warning, Self::Info, Self::Debug];

    /// The level's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no log level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log level is error, warning, info or debug")]
pub struct BadLogLevel;

impl FromStr for LogLevel {
    type Err = BadLogLevel;

    fn from_str(text: &str) -> Result<Self, BadLogLevel> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or(BadLogLevel)
    }
}

/// What the daemon knows beyond its core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The daemon's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// How much it logs.
    pub log_level: LogLevel,
    /// The shim's name.
    pub shim: String,
    /// Why this shim.
    pub shim_reason: String,
    /// Whether its memory is locked, so that it lives while its own disk hangs.
    pub memory_locked: bool,
    /// What our groups take from `/dev/shm`, in bytes: about 3 MiB each.
    pub shm_bytes: u64,
    /// What an operator should know before it hurts, one sentence each.
    pub warnings: Vec<String>,
    /// What the shim has in the kernel.
    pub kernel: Option<Kernel>,
    /// The OCFS2 volumes that were found.
    pub volumes: Vec<VolumeView>,
    /// The views of volumes of a user stack.
    pub views: Vec<Views>,
}

/// Everything that status shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// How much it logs.
    pub log_level: LogLevel,
    /// Who tells the kernel.
    pub shim: Shim,
    /// Whether the daemon's memory is locked.
    pub memory_locked: bool,
    /// What our groups take from `/dev/shm`, in bytes: about 3 MiB each.
    pub shm_bytes: u64,
    /// What an operator should know before it hurts, one sentence each.
    pub warnings: Vec<String>,
    /// This node's id, once corosync told.
    pub node: Option<u32>,
    /// `totem.cluster_name`; empty while unknown.
    pub cluster: String,
    /// Whether corosync answers.
    pub connected: bool,
    /// Whether this partition is quorate.
    pub quorate: bool,
    /// The ring of the last quorum notification, as corosync's tools print it.
    pub ring: Option<String>,
    /// Whether every daemon in the ring has seen it, so that deaths may be told.
    pub settled: bool,
    /// The protocol version in use among the daemons.
    pub protocol: u16,
    /// The fencing policy: `none`, `ack` or `agent`.
    pub fencing: String,
    /// The nodes that the daemon knows of, this one included.
    pub nodes: Vec<Node>,
    /// The groups in use on this node.
    pub groups: Vec<Group>,
    /// What the shim has in the kernel; `None` if it has none.
    pub kernel: Option<Kernel>,
    /// The OCFS2 volumes that were found, ours or not.
    pub volumes: Vec<VolumeView>,
    /// Who uses each volume of a user stack, in the views of daemons, fs/dlm and corosync; empty with
    /// other shims.
    pub views: Vec<Views>,
    /// Peer messages dropped because they are not of our protocol.
    pub garbage_messages: u64,
}

/// Who tells the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shim {
    /// Its name, as in the configuration.
    pub name: String,
    /// Why this one.
    pub reason: String,
}

/// What the shim has in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// `region`, `symlink`, or, of the shim `control`, `line`.
    pub carrier: String,
    /// The RAM disk.
    pub device: Option<String>,
    /// The keeper's process id; `None` while there is none, or none is needed.
    pub keeper: Option<u32>,
    /// Our heartbeat regions.
    pub regions: Vec<Region>,
    /// Regions that beat on a disk, which we leave alone.
    pub disk_heartbeats: Vec<String>,
    /// The line to the kernel that the keeper holds, in words.
    pub line: Option<String>,
}

/// One heartbeat region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its name in configfs.
    pub name: String,
    /// The slots of the peers that we hold up.
    pub up: Vec<u8>,
    /// The slots that the kernel sees as live, our own included; `None` if it does not say.
    pub live: Option<Vec<u8>>,
}

impl Kernel {
    /// Puts together what the shim and the keeper say.
    #[must_use]
    pub fn new(view: &View, keeper: Option<u32>) -> Self {
        let regions = view.regions.iter().map(|region| Region {
            name: region.name.clone(),
            up: region.up.keys().copied().collect(),
            live: region.live.as_ref().map(|live| live.iter().copied().collect()),
        });
        Self {
            carrier: view.carrier.into(),
            device: view.device.as_ref().map(|device| device.display().to_string()),
            keeper,
            regions: regions.collect(),
            disk_heartbeats: view.disk_heartbeats.keys().cloned().collect(),
            line: None,
        }
    }

    /// Of the shim `control`.
    #[must_use]
    pub fn line(line: Option<String>, keeper: Option<u32>) -> Self {
        let (regions, disk_heartbeats) = (Vec::new(), Vec::new());
        Self { carrier: "line".into(), device: None, keeper, regions, disk_heartbeats, line }
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub node: u32,
    /// Whether it is in the ring.
    pub in_ring: bool,
    /// A word of [`NodeStatus::daemon`].
    pub daemon: String,
    /// Its boot id, 32 hex digits.
    pub boot: Option<String>,
    /// How many groups it uses.
    pub groups: u64,
    /// A word of [`NodeStatus::fencing`].
    pub fencing: String,
    /// Whether its daemon owes a return or a word.
    pub in_debt: bool,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The volume's UUID, 32 upper-case hex digits.
    pub group: String,
    /// A word of [`GroupStatus::state`].
    pub state: String,
    /// What it waits for, if it waits for anybody.
    pub waiting: Option<String>,
    /// This node's use of it, in hex.
    pub incarnation: String,
    /// The volume's device, `major:minor`.
    pub device: Option<String>,
    /// The ring of its last totem change.
    pub ring: Option<String>,
    /// Who uses it on this node.
    pub services: Vec<Service>,
    /// Who uses it in the cluster.
    pub members: Vec<Member>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub service: String,
    /// A word of [`o2bridge_core::snapshot::ServiceStatus::state`].
    pub state: String,
}

/// One node's use of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: u32,
    /// Which use, in hex.
    pub incarnation: String,
    /// A word of [`o2bridge_core::snapshot::MemberStatus::state`].
    pub state: String,
}

/// One line of List: a group in use on this node and who uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// The volume's UUID, 32 upper-case hex digits.
    pub group: String,
    /// As [`Group::state`].
    pub state: String,
    /// Who uses it on this node.
    pub services: Vec<Service>,
}

impl Status {
    /// Puts together what the core and the daemon know.
    #[must_use]
    pub fn new(snapshot: &Snapshot, facts: Facts) -> Self {
        Self {
            version: facts.version,
            uptime_s: facts.uptime_s,
            log_level: facts.log_level,
            shim: Shim { name: facts.shim, reason: facts.shim_reason },
            memory_locked: facts.memory_locked,
            shm_bytes: facts.shm_bytes,
            warnings: facts.warnings,
            node: snapshot.node.map(|node| node.0),
            cluster: snapshot.cluster.clone(),
            connected: snapshot.connected,
            quorate: snapshot.quorate,
            ring: snapshot.ring.map(|ring| ring.to_string()),
            settled: snapshot.settled,
            protocol: snapshot.protocol,
            fencing: snapshot.fencing.to_owned(),
            nodes: snapshot.nodes.iter().map(Node::new).collect(),
            groups: snapshot.groups.iter().map(Group::new).collect(),
            kernel: facts.kernel,
            volumes: facts.volumes,
            views: facts.views,
            garbage_messages: snapshot.garbage_messages,
        }
    }

    /// The groups and their services alone.
    #[must_use]
    pub fn uses(&self) -> Vec<Use> {
        let of = |group: &Group| Use {
            group: group.group.clone(),
            state: group.state.clone(),
            services: group.services.clone(),
        };
        self.groups.iter().map(of).collect()
    }

    /// Whether nothing but the time differs.
    #[must_use]
    pub fn is_same_but_for_time(&self, other: &Self) -> bool {
        *other == Self { uptime_s: other.uptime_s, ..self.clone() }
    }
}

impl Node {
    fn new(node: &NodeStatus) -> Self {
        Self {
            node: node.node.0,
            in_ring: node.in_ring,
            daemon: node.daemon.to_owned(),
            boot: node.boot.map(|boot| boot.to_string()),
            groups: node.groups as u64,
            fencing: node.fencing.to_owned(),
            in_debt: node.in_debt,
        }
    }
}

impl Group {
    fn new(group: &GroupStatus) -> Self {
        let service = |service: &o2bridge_core::snapshot::ServiceStatus| Service {
            service: service.service.to_string(),
            state: service.state.to_owned(),
        };
        let member = |member: &o2bridge_core::snapshot::MemberStatus| Member {
            node: member.node.0,
            incarnation: member.incarnation.to_string(),
            state: member.state.to_owned(),
        };
        Self {
            group: group.group.to_string(),
            state: group.state.to_owned(),
            waiting: (group.waiting != Waiting::Nothing).then(|| group.waiting.to_string()),
            incarnation: group.incarnation.to_string(),
            device: group.device.map(device_text),
            ring: group.ring.map(|ring| ring.to_string()),
            services: group.services.iter().map(service).collect(),
            members: group.members.iter().map(member).collect(),
        }
    }
}

/// `major:minor`, as in `/proc/self/mountinfo`.
fn device_text(device: DeviceId) -> String {
    let (major, minor) = (nix::sys::stat::major(device.0), nix::sys::stat::minor(device.0));
    format!("{major}:{minor}")
}
