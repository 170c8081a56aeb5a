//! A model of one node's kernel: what the shim told it, what is mounted, what it refuses.
//!
//! | verb | Record | UserHeartbeat | Control, FsDlm |
//! |---|---|---|---|
//! | attach | known, granting | known, granting | known, granting |
//! | suspend | suspended | nothing: o2dlm stops itself | suspended |
//! | node_down | recovered | recovered; twice is once | recovered |
//! | resume | granting | granting | granting |
//! | detach | gone | EBUSY while mounted | EBUSY while mounted |
//!
//! A mount needs a region or lockspace that stands, and peers that know us: their lock managers
//! refuse a stranger.

use std::collections::{BTreeMap, BTreeSet};

use o2bridge_core::{GroupId, Incarnation, LockingProtocol, NodeId, Peers, ServiceName, Verb};

use crate::options::ShimKind;

/// What a kernel answers when it cannot.
pub const EBUSY: i32 = 16;

/// One volume in one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Region {
    /// Whom the kernel takes for alive, ourselves included.
    pub known: Peers,
    /// Whether it grants no locks.
    pub suspended: bool,
    /// Whether it was asked not to, whatever it makes of that.
    pub asked: bool,
}

/// One node's kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    kind: ShimKind,
    /// What the shim told it.
    pub regions: BTreeMap<GroupId, Region>,
    /// The locking protocol that its daemon last meant it to run.
    pub meant: Option<LockingProtocol>,
    /// The one that it runs, as long as it has a lockspace.
    pub locking: Option<LockingProtocol>,
    /// Where volumes are mounted.
    pub mounts: BTreeMap<GroupId, BTreeSet<ServiceName>>,
}

impl Kernel {
    /// A kernel that has just booted.
    #[must_use]
    pub fn new(kind: ShimKind) -> Self {
        Self { kind, regions: BTreeMap::new(), meant: None, locking: None, mounts: BTreeMap::new() }
    }

    /// Whether a volume is mounted here.
    #[must_use]
    pub fn is_mounted(&self, group: GroupId) -> bool {
        self.mounts.get(&group).is_some_and(|mounts| !mounts.is_empty())
    }

    /// This node's use of a volume, as its kernel knows it.
    #[must_use]
    pub fn own(&self, group: GroupId, node: NodeId) -> Option<Incarnation> {
        self.regions.get(&group)?.known.get(&node).copied()
    }

    /// Whether it takes a node for alive in this use.
    #[must_use]
    pub fn knows(&self, group: GroupId, node: NodeId, incarnation: Incarnation) -> bool {
        self.own(group, node) == Some(incarnation)
    }

    /// Takes a verb.
    ///
    /// # Errors
    /// The errno; nothing changed.
    pub fn apply(&mut self, group: GroupId, verb: &Verb) -> Result<(), i32> {
        match verb {
            Verb::Attach(peers) | Verb::Resume(peers) => {
                let region = Region { known: peers.clone(), suspended: false, asked: false };
                self.regions.insert(group, region);
                self.locking = self.meant;
            }
            Verb::Suspend => {
                let region = self.regions.entry(group).or_default();
                region.suspended = self.kind != ShimKind::UserHeartbeat;
                region.asked = true;
            }
            Verb::NodeDown(node, _) => {
                self.regions.entry(group).or_default().known.remove(node);
            }
            Verb::Detach if self.kind != ShimKind::Record && self.is_mounted(group) => {
                return Err(EBUSY);
            }
            Verb::Detach => {
                self.regions.remove(&group);
                self.locking = self.locking.filter(|_| !self.regions.is_empty());
            }
        }
        Ok(())
    }
}
