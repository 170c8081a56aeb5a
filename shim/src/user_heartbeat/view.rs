//! What status shows of this shim.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use o2bridge_core::GroupId;

use super::carrier::{Look, RegionView};

/// What is in the kernel now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The carrier's name.
    pub carrier: &'static str,
    /// The RAM disk; `None` with symlinks.
    pub device: Option<PathBuf>,
    /// Our regions.
    pub regions: Vec<RegionView>,
    /// Groups of which something is there: attached, or left behind by a daemon that was killed. A
    /// detach cleans up after those that nobody uses.
    pub groups: BTreeSet<GroupId>,
    /// Regions that are left alone because they beat on a device of somebody else's, by name: the
    /// classic disk heartbeat. A node is dead to the kernel once it is down in all regions, so
    /// while it beats in one of these, a death that we tell waits for the disk's timeout.
    pub disk_heartbeats: BTreeMap<String, String>,
    /// Something could not be read: there may be more regions, with more nodes up in them.
    pub is_partial: bool,
}

impl View {
    /// Of a carrier's look, and the groups with claims.
    pub(super) fn new(carrier: &'static str, look: Look, claimed: BTreeSet<GroupId>) -> Self {
        let Look { device, regions, shared, disk, is_partial } = look;
        let own = regions.iter().filter(|region| Some(&region.name) != shared.as_ref());
        let groups = own.filter_map(|region| region.name.parse().ok()).chain(claimed).collect();
        Self { carrier, device, regions, groups, disk_heartbeats: disk, is_partial }
    }
}
