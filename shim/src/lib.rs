//! The kernel-facing side of a group: five verbs, and one backend for each way to speak them.

pub mod record;

use o2bridge_core::{GroupId, Incarnation, NodeId, Peers};

/// Why a verb failed.
#[derive(Debug)]
pub struct ShimError;

/// The five verbs. (Contract to be written.)
pub trait Shim: Send + Sync {
    /// The backend's name, as in the configuration.
    fn name(&self) -> &'static str;
    /// The group is about to be used here, together with these nodes, ourselves included.
    fn attach(&self, group: GroupId, peers: &Peers) -> Result<(), ShimError>;
    /// The membership is about to change: stop granting.
    fn suspend(&self, group: GroupId) -> Result<(), ShimError>;
    /// This node died.
    fn node_down(
        &self,
        group: GroupId,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), ShimError>;
    /// The membership is this now.
    fn resume(&self, group: GroupId, peers: &Peers) -> Result<(), ShimError>;
    /// The group is used here no more.
    fn detach(&self, group: GroupId) -> Result<(), ShimError>;
}
