//! Whose a volume is, by what its superblock says. Pure.

use std::collections::BTreeSet;
use std::fmt;

use o2bridge_core::GroupId;
use o2bridge_kmod_ctl::Mode;
use o2bridge_shim::volume::{Stack, Superblock};

use super::Serves;

/// The stack whose kernel side listens to heartbeat regions.
const O2CB: &str = "o2cb";

/// Which volumes are to be served ahead of any mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those whose superblock names our cluster.
    Auto,
    /// None.
    None,
    /// These, also when they name no cluster.
    Listed(BTreeSet<GroupId>),
}

impl Which {
    /// Whether a volume is wanted that is as it should be.
    pub(super) fn wants(&self, uuid: &GroupId) -> bool {
        match self {
            Self::Auto => true,
            Self::None => false,
            Self::Listed(uuids) => uuids.contains(uuid),
        }
    }
}

/// What a volume is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Claim {
    /// Ours.
    Ours,
    /// Ours, once the tool that changes it is done.
    InRepair,
    /// Perhaps ours: corosync has not said what our cluster is called.
    Unsure,
    /// The configuration does not want it.
    Unwanted,
    /// It names no cluster, and the configuration does not name it.
    Unnamed,
    /// It is another cluster's.
    OtherCluster,
    /// It is made for another kind of heartbeat than our cluster's.
    OtherMode,
    /// It is made for another stack.
    OtherStack(String),
    /// It is made for one node.
    Local,
    /// It is no volume, but a device for the heartbeat of a cluster.
    HeartbeatDevice,
}

impl Claim {
    /// Whether a region that stands already stays: a tool at work is no reason to take it away.
    pub(super) fn keeps(&self) -> bool {
        match self {
            Self::Ours | Self::InRepair | Self::Unsure => true,
            Self::Unwanted
            | Self::Unnamed
            | Self::OtherCluster
            | Self::OtherMode
            | Self::OtherStack(_)
            | Self::Local
            | Self::HeartbeatDevice => false,
        }
    }
}

impl Claim {
    /// Whether a use of it in the kernel is ours to know. Where the kernel has to be told of deaths, nobody compares the
    /// names of clusters: a volume that names another one mounts all the same, and its lockspace runs in ours.
    pub(super) fn is_followed(&self, serves: Serves) -> bool {
        match self {
            Self::Ours | Self::InRepair | Self::Unsure | Self::Unwanted => true,
            Self::OtherCluster => serves == Serves::UserAhead,
            Self::Unnamed
            | Self::OtherMode
            | Self::OtherStack(_)
            | Self::Local
            | Self::HeartbeatDevice => false,
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ours => f.write_str("waiting: its turn"),
            Self::InRepair => f.write_str("waiting: a resize or tunefs.ocfs2 is under way"),
            Self::Unsure => f.write_str("waiting: corosync"),
            Self::Unwanted => f.write_str("left alone: not in the configuration's volumes"),
            Self::Unnamed => f.write_str(
                "left alone: it names no cluster; list its UUID in the configuration's volumes",
            ),
            Self::OtherCluster => f.write_str("another cluster"),
            Self::OtherMode => {
                f.write_str("left alone: its heartbeat mode is not that of o2cb.heartbeat_mode")
            }
            Self::OtherStack(stack) => write!(f, "left alone: it is made for the stack {stack}"),
            Self::Local => f.write_str("left alone: it is made for a single node"),
            Self::HeartbeatDevice => f.write_str("left alone: a heartbeat device"),
        }
    }
}

/// Our cluster, once corosync told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) name: String,
    pub(super) mode: Mode,
}

/// Judges a volume.
pub(super) fn judge(
    serves: Serves,
    which: &Which,
    cluster: Option<&Cluster>,
    volume: &Superblock,
) -> Claim {
    if !which.wants(&volume.uuid) {
        return Claim::Unwanted;
    }
    let is_listed = matches!(which, Which::Listed(_));
    if volume.is_heartbeat_device {
        return Claim::HeartbeatDevice;
    }
    if volume.is_local {
        return Claim::Local;
    }
    let named = match &volume.stack {
        Stack::Classic if serves.is_user() => return Claim::OtherStack(O2CB.into()),
        Stack::Classic if is_listed => None,
        Stack::Classic => return Claim::Unnamed,
        Stack::Named { stack, .. } if (stack != O2CB) != serves.is_user() => {
            return Claim::OtherStack(stack.clone());
        }
        Stack::Named { cluster, global_heartbeat, .. } => Some((cluster, *global_heartbeat)),
    };
    let Some(ours) = cluster else { return Claim::Unsure };
    let (name, is_global) = named.unwrap_or((&ours.name, false));
    if *name != ours.name {
        Claim::OtherCluster
    } else if !serves.is_user() && is_global != (ours.mode == Mode::Global) {
        Claim::OtherMode
    } else if volume.is_in_repair {
        Claim::InRepair
    } else {
        Claim::Ours
    }
}

/// Whether beats for volumes of our cluster could be on this device: with a global heartbeat they
/// are on a few devices for all.
pub(super) fn may_carry_beats(cluster: &Cluster, volume: &Superblock) -> bool {
    match &volume.stack {
        Stack::Named { stack, cluster: name, global_heartbeat } => {
            stack == O2CB && *name == cluster.name && *global_heartbeat
        }
        Stack::Classic => false,
    }
}
