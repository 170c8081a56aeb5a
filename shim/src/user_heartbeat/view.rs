//! What status shows of this shim.

use std::collections::BTreeMap;
use std::path::PathBuf;

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
    /// Regions that are left alone because they beat on a device of somebody else's, by name: the
    /// classic disk heartbeat. A node is dead to the kernel once it is down in all regions, so
    /// while it beats in one of these, a death that we tell waits for the disk's timeout.
    pub disk_heartbeats: BTreeMap<String, String>,
}

impl View {
    pub(super) fn new(carrier: &'static str, look: Look) -> Self {
        let Look { device, regions, disk } = look;
        Self { carrier, device, regions, disk_heartbeats: disk }
    }
}
