//! What `control` is started with.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use o2bridge_core::{GroupId, LockingProtocol, NodeId};
use o2bridge_keeper::Line;

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

/// What the kernel has to be told of this node and its cluster, once that is known.
#[derive(Debug, Clone, Default)]
pub struct Told(Arc<Mutex<(Option<NodeId>, Option<LockingProtocol>)>>);

impl Told {
    /// Corosync told which node this is.
    pub fn set_node(&self, node: NodeId) {
        lock(&self.0).0 = Some(node);
    }

    /// The daemons chose the locking protocol.
    pub fn set_locking(&self, protocol: LockingProtocol) {
        lock(&self.0).1 = Some(protocol);
    }

    pub(super) fn node(&self) -> Result<NodeId, ControlError> {
        lock(&self.0).0.ok_or(ControlError::NoNode)
    }

    pub(super) fn line(&self) -> Result<Line, ControlError> {
        let protocol = lock(&self.0).1.ok_or(ControlError::NoProtocol)?;
        Ok(Line { node: self.node()?.0, major: protocol.major, minor: protocol.minor })
    }
}

/// What the shim needs.
#[derive(Clone)]
pub struct Settings {
    /// Where the kernel is.
    pub paths: Paths,
    /// Which node this is, and what its kernel is to run.
    pub told: Told,
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
            .field("told", &self.told)
            .field("groups", &self.groups)
            .field("down", &self.down)
            .field("risk_kernel_bug", &self.risk_kernel_bug)
            .finish_non_exhaustive()
    }
}
