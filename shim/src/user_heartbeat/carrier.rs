//! A carrier brings "this node is up" and "this node is down" into the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use o2bridge_core::{GroupId, Incarnation};

use crate::ShimError;

/// What a region knows of its slots: who is up, and in which incarnation if the carrier can say.
pub(super) type Standing = BTreeMap<u8, Option<Incarnation>>;

/// Peers by slot, each in its incarnation.
pub(super) type Lives = BTreeMap<u8, Incarnation>;

/// The two of them differ in how; when and in which order is [`super::UserHeartbeat`]'s business.
/// Calls for one region never overlap, and all of them can be repeated.
pub(super) trait Carrier: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &'static str;

    /// The region that serves this group.
    fn region(&self, group: GroupId) -> Result<Region, ShimError>;

    /// The region stands, and we are up in it. If it did not stand before, these peers are up in it
    /// before anyone can mount: a mount that misses a peer would lock against nobody. Up to 40 s.
    fn open(&self, region: &Region, own_slot: u8, peers: &Lives) -> Result<(), ShimError>;

    /// The peers that are up; empty if the region does not stand.
    fn standing(&self, region: &Region) -> Result<Standing, ShimError>;

    /// A peer that was down is up.
    fn up(&self, region: &Region, slot: u8, incarnation: Incarnation) -> Result<(), ShimError>;

    /// A peer is down. The kernel is told when this returns, and acts within two seconds. Fails where the region is
    /// another's by now.
    fn down(&self, region: &Region, slot: u8) -> Result<(), ShimError>;

    /// No lock domain of the kernel serves this group. A kernel that uses a region refuses to let it
    /// go; of one that serves other groups, too, it cannot tell that a group is over.
    fn unused(&self, group: GroupId) -> Result<(), ShimError>;

    /// The region is gone. Nobody else may use it, else it stands as it was.
    fn close(&self, region: &Region) -> Result<(), ShimError>;

    /// Nobody is kept up in regions that are gone: what the keeper goes on beating it also guards.
    fn sweep(&self) -> Result<(), ShimError>;

    /// Waits until the kernel sees these slots as live; `new` if one of them was raised just now.
    fn await_live(&self, region: &Region, slots: &BTreeSet<u8>, new: bool)
    -> Result<(), ShimError>;

    /// What there is, for status. Best effort.
    fn look(&self) -> Look;
}

/// A region's name: a group's UUID, or in global mode the same name for all groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Region {
    /// Serves one group.
    Own(String),
    /// Serves all groups of the cluster.
    Shared(String),
}

impl Region {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Own(name) | Self::Shared(name) => name,
        }
    }

    pub(super) const fn is_shared(&self) -> bool {
        matches!(self, Self::Shared(_))
    }
}

/// What a carrier sees.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// The RAM disk.
    pub(super) device: Option<PathBuf>,
    /// Our regions.
    pub(super) regions: Vec<RegionView>,
    /// The one of them that serves all groups.
    pub(super) shared: Option<String>,
    /// Regions that beat on other devices, by name.
    pub(super) disk: BTreeMap<String, String>,
    /// Something could not be read: there may be more.
    pub(super) is_partial: bool,
}

/// One region of ours, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionView {
    /// Its name in configfs.
    pub name: String,
    /// Its part of the RAM disk; `None` with symlinks.
    pub area: Option<u16>,
    /// The peers that are up, by slot; the incarnation is that of the first group that raised it.
    pub up: BTreeMap<u8, Option<Incarnation>>,
    /// The slots that the kernel sees as live, ourselves included; `None` if debugfs does not say.
    pub live: Option<BTreeSet<u8>>,
}
