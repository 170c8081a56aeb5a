//! `observe`: for volumes of a user stack, beside a dlm_controld in its default mode.
//!
//! There fs/dlm itself tells OCFS2 of deaths, as soon as dlm_controld lets a lockspace start without the dead
//! node. So this backend tells the kernel nothing, and opens nothing: in this mode a process that shook
//! hands with OCFS2's control device would reset the node by ending. What is left to do is to know who
//! uses what, and to say when dlm_controld and we do not see the same.

use o2bridge_core::{GroupId, Incarnation, NodeId, Peers};

use crate::{Shim, ShimError};

/// The backend's name, as in the configuration.
pub const NAME: &str = "observe";

/// The backend.
#[derive(Debug, Clone, Copy)]
pub struct Observe;

impl Shim for Observe {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attach(&self, _: GroupId, _: &Peers) -> Result<(), ShimError> {
        Ok(())
    }

    fn suspend(&self, _: GroupId) -> Result<(), ShimError> {
        Ok(())
    }

    fn node_down(&self, _: GroupId, _: NodeId, _: Incarnation) -> Result<(), ShimError> {
        Ok(())
    }

    fn resume(&self, _: GroupId, _: &Peers) -> Result<(), ShimError> {
        Ok(())
    }

    fn detach(&self, _: GroupId) -> Result<(), ShimError> {
        Ok(())
    }
}
