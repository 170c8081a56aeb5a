//! What must survive the daemon: enough to resume a group without losing or inventing a death.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::types::{BootId, DeviceId, Incarnation, NodeId, ServiceName};

/// One user of a group as the shim knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct User {
    /// Which use.
    pub incarnation: Incarnation,
    /// In which boot of its node. A node found in another boot has died in this one.
    pub boot: BootId,
}

/// The users of a group.
pub type Users = BTreeMap<NodeId, User>;

/// One group as a restarted daemon finds it. The format on disk is the adapter's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SavedGroup {
    /// Our use of the group; resumed, so that the peers know us again.
    pub incarnation: Incarnation,
    /// The services that began, in the order of their names.
    pub services: Vec<SavedService>,
    /// The volume's device, if known.
    pub device: Option<DeviceId>,
    /// Whom the shim may know, ourselves included. One of them that is found neither alive nor to
    /// have left died while we were away.
    pub told: Users,
    /// Whether the shim may not have been told all of the above yet: it is told again.
    pub unfinished: bool,
}

/// One service of a saved group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SavedService {
    /// Which.
    pub name: ServiceName,
    /// Whether its tool said that it is mounted. If not, the mount table decides.
    pub live: bool,
}

/// Everything that an earlier daemon of this boot left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Saved {
    /// The first incarnation that the remembering daemons gave out; with `None` nothing is
    /// remembered, and [`crate::Config::first_incarnation`] is where memory begins.
    pub memory_from: Option<Incarnation>,
    /// The groups in use.
    pub groups: BTreeMap<crate::types::GroupId, SavedGroup>,
}
