//! The locking protocol of OCFS2: what the kernels of a user stack say to each other under their locks. All
//! kernels of a cluster must run the same version, and none runs a newer one than it knows; so the daemons
//! agree before any of them tells its kernel.
//!
//! | we run | a daemon here runs | when everybody here has spoken |
//! |---|---|---|
//! | one | | stays, until nothing is in use here |
//! | none | none | the oldest that any daemon here goes up to |
//! | none | one | that one |
//!
//! If our kernel does not know that one, nothing is attached here.
//!
//! Two that choose at once have heard the same words, and choose alike; whoever comes later is heard by
//! those who have not chosen, and hears what was chosen of those who have.

use core::fmt;

use crate::action::Action;
use crate::effects::Effects;
use crate::node::{Daemon, Nodes, Peer};
use crate::types::NodeId;

/// A version of the locking protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockingProtocol {
    /// Versions that differ in it do not understand each other; never 0.
    pub major: u8,
    /// A kernel that knows a version knows all with a lower minor number.
    pub minor: u8,
}

impl fmt::Display for LockingProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl LockingProtocol {
    /// Whether a kernel that goes up to this version can run that one.
    #[must_use]
    pub const fn knows(self, other: Self) -> bool {
        self.major == other.major && self.minor >= other.minor
    }
}

/// What a node's kernel knows, and what it was told to run. Nothing, where no kernel is told any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Locking {
    /// The newest version that it knows.
    pub highest: Option<LockingProtocol>,
    /// The one that it runs.
    pub running: Option<LockingProtocol>,
}

impl Nodes {
    /// Chooses as soon as somebody here is to use something, and forgets when nobody does any more.
    pub(crate) fn review_locking(&mut self, in_use: bool, fx: &mut Effects<'_>) {
        match self.locking.running {
            Some(_) if in_use => return,
            None if !in_use || !self.is_agreed() => return,
            Some(_) => self.locking.running = None,
            None => match self.choose_locking() {
                Ok(Some(chosen)) => {
                    self.locking.running = Some(chosen);
                    fx.push(Action::RunLocking(chosen));
                }
                Ok(None) | Err(_) => return,
            },
        }
        self.stale_hello = true;
    }

    /// The node whose kernel ours cannot work with, with its version and ours.
    pub(crate) fn locking_mismatch(&self) -> Option<(NodeId, LockingProtocol, LockingProtocol)> {
        let ours = self.locking.highest.filter(|_| self.locking.running.is_none())?;
        let (node, theirs) = self.choose_locking().err().filter(|_| self.is_agreed())?;
        Some((node, theirs, ours))
    }

    /// Whether the kernel may be told of groups.
    pub(crate) fn is_locking_chosen(&self) -> bool {
        self.locking.highest.is_none() || self.locking.running.is_some()
    }

    fn choose_locking(&self) -> Result<Option<LockingProtocol>, (NodeId, LockingProtocol)> {
        let Some(ours) = self.locking.highest else { return Ok(None) };
        let others = || self.peers.iter().filter(|(node, _)| Some(**node) != self.me);
        let speaks = |peer: &Peer| matches!(peer.daemon, Daemon::Speaking(_));
        // The kernel of a daemon that is away runs on.
        let running = others().find_map(|(node, peer)| Some((peer.locking.running?, *node)));
        let highest = others().filter(|(_, peer)| speaks(peer));
        let oldest = highest.filter_map(|(node, peer)| Some((peer.locking.highest?, *node))).min();
        match running.or(oldest.filter(|(theirs, _)| *theirs < ours)) {
            Some((theirs, node)) if !ours.knows(theirs) => Err((node, theirs)),
            Some((theirs, _)) => Ok(Some(theirs)),
            None => Ok(Some(ours)),
        }
    }
}
