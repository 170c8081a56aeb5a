//! What `control` is started with.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use o2bridge_core::{GroupId, NodeId};

use super::{ControlError, Lifeline, lock};
use crate::probe::Down;

/// Where the kernel is.
#[derive(Debug, Clone)]
pub struct Paths {
    /// OCFS2's control device.
    pub device: PathBuf,
    /// The highest locking protocol that it speaks.
    pub protocol: PathBuf,
    /// The lockspaces of fs/dlm.
    pub lockspaces: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            device: "/dev/ocfs2_control".into(),
            protocol: "/sys/fs/ocfs2/max_locking_protocol".into(),
            lockspaces: "/sys/kernel/dlm".into(),
        }
    }
}

/// Which node this is, once corosync told.
#[derive(Debug, Clone, Default)]
pub struct Me(Arc<Mutex<Option<NodeId>>>);

impl Me {
    /// Corosync told.
    pub fn set(&self, node: NodeId) {
        *lock(&self.0) = Some(node);
    }

    pub(super) fn get(&self) -> Result<NodeId, ControlError> {
        lock(&self.0).ok_or(ControlError::NoNode)
    }
}

/// What the shim needs.
#[derive(Clone)]
pub struct Settings {
    /// Where the kernel is.
    pub paths: Paths,
    /// Which node this is.
    pub me: Me,
    /// The keeper.
    pub keeper: Arc<dyn Lifeline>,
    /// The groups that an earlier daemon left attached.
    pub groups: BTreeSet<GroupId>,
    /// What `DOWN` does to this kernel.
    pub down: Down,
    /// Whether a kernel of which that is not known may be written to.
    pub risk_kernel_bug: bool,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("paths", &self.paths)
            .field("me", &self.me)
            .field("groups", &self.groups)
            .field("down", &self.down)
            .field("risk_kernel_bug", &self.risk_kernel_bug)
            .finish_non_exhaustive()
    }
}
