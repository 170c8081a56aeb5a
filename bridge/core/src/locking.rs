//! The locking protocol of OCFS2: what the kernels of a user stack say to each other under their locks. All
//! kernels of a cluster must run the same version, and none runs a newer one than it knows; so the daemons
//! agree before any of them tells its kernel.
//!
//! | we run | others here run | next |
//! |---|---|---|
//! | one that our word has come back of, a group is attached | | it stays |
//! | one, nothing is in use, or not all here have spoken | | none |
//! | one, our word of it has not come back | another one | that one |
//! | none, something is to be used, all here have spoken | none | the oldest that any daemon here goes up to |
//! | none, the same | one | that one |
//! | none, the same | two | wait: one of them gives way |
//! | none, the same | nobody says, and we do not know all users, a user's daemon is away, or a lost node is not fenced | wait: its kernel may run one |
//!
//! If our kernel does not know the one to run, nothing is attached here. Nothing is before our own word of it
//! has come back, so all see the choices in one order, and the first stands.

use core::fmt;

use crate::action::{Action, Waiting};
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
    /// Which choice of its daemon that is, so that an old word of the same version is not taken for the new.
    pub choice: u16,
}

impl Nodes {
    /// Chooses as soon as somebody here is to use something. `is_attached`: a kernel may run the choice already.
    pub(crate) fn review_locking(
        &mut self,
        is_used: bool,
        is_attached: bool,
        fx: &mut Effects<'_>,
    ) {
        let may_choose = is_used && self.is_agreed();
        self.locking_heard |= self.is_locking_heard();
        let stands = (is_attached || (may_choose && self.is_locking_heard())) && self.locking_heard;
        if self.locking.running.is_some() && stands {
            return;
        }
        let chosen = if may_choose { self.choose_locking().ok().flatten() } else { None };
        if chosen != self.locking.running {
            self.locking.running = chosen;
            self.locking.choice = self.locking.choice.wrapping_add(1);
            self.locking_heard = false;
            self.stale_hello = true;
            chosen.into_iter().for_each(|chosen| fx.push(Action::RunLocking(chosen)));
        }
    }

    /// Whether our word of what we run has come back.
    fn is_locking_heard(&self) -> bool {
        let own = self.me.and_then(|me| self.peers.get(&me));
        own.is_some_and(|own| own.locking == self.locking)
    }

    /// The node whose kernel ours cannot work with, with its version and ours.
    pub(crate) fn locking_mismatch(&self) -> Option<(NodeId, LockingProtocol, LockingProtocol)> {
        let ours = self.locking.highest.filter(|_| self.locking.running.is_none())?;
        let (node, theirs) = self.choose_locking().err().filter(|_| self.is_agreed())?;
        Some((node, theirs, ours))
    }

    /// Whether the kernel may be told of groups.
    pub(crate) fn is_locking_chosen(&self) -> bool {
        let Some(ours) = self.locking.running else { return self.locking.highest.is_none() };
        self.is_locking_heard() && self.locking_of_others().all(|(theirs, _)| theirs == ours)
    }

    /// Whom a group that is not attached waits for, because it is not known what the kernels run.
    pub(crate) fn locking_waits_for(&self) -> Option<Waiting> {
        if self.is_locking_chosen() {
            return None;
        }
        let Some(ours) = self.locking.running else {
            let lost = self.lost.iter().find(|(_, lost)| !lost.is_fenced());
            let lost = lost.map(|(node, _)| Waiting::Fencing(*node));
            return lost.or(self.hidden_user().or(self.me).map(Waiting::Peer));
        };
        let other = self.locking_of_others().find(|(theirs, _)| *theirs != ours);
        other.map(|(_, node)| node).or(self.me).map(Waiting::Peer)
    }

    /// What the kernels of the others run, those of daemons that are away and of the lost included.
    fn locking_of_others(&self) -> impl Iterator<Item = (LockingProtocol, NodeId)> {
        let others = self.peers.iter().filter(|(node, _)| Some(**node) != self.me);
        let users = others.filter(|(_, peer)| peer.is_user());
        let users = users.map(|(node, peer)| (peer.locking.running, node));
        let lost = self.lost.iter().filter(|(_, lost)| !lost.is_fenced());
        let all = users.chain(lost.map(|(node, lost)| (lost.running, node)));
        all.filter_map(|(running, node)| Some((running?, *node)))
    }

    /// A user that cannot say what its kernel runs.
    fn hidden_user(&self) -> Option<NodeId> {
        let is_quiet = |peer: &Peer| !matches!(peer.daemon, Daemon::Speaking(_));
        let is_hidden = |peer: &Peer| peer.is_user() && is_quiet(peer);
        let mut others = self.peers.iter().filter(|(node, _)| Some(**node) != self.me);
        others.find(|(_, peer)| is_hidden(peer)).map(|(node, _)| *node)
    }

    fn choose_locking(&self) -> Result<Option<LockingProtocol>, (NodeId, LockingProtocol)> {
        let Some(ours) = self.locking.highest else { return Ok(None) };
        let running = self.locking_of_others().next();
        if self.locking_of_others().any(|(theirs, _)| Some(theirs) != running.map(|it| it.0)) {
            return Ok(None);
        }
        let is_lost = self.lost.values().any(|lost| !lost.is_fenced());
        if running.is_none() && (!self.witness || is_lost || self.hidden_user().is_some()) {
            return Ok(None);
        }
        let others = self.peers.iter().filter(|(node, _)| Some(**node) != self.me);
        let speak = others.filter(|(_, peer)| matches!(peer.daemon, Daemon::Speaking(_)));
        let oldest = speak.filter_map(|(node, peer)| Some((peer.locking.highest?, *node))).min();
        match running.or(oldest.filter(|(theirs, _)| *theirs < ours)) {
            Some((theirs, node)) if !ours.knows(theirs) => Err((node, theirs)),
            Some((theirs, _)) => Ok(Some(theirs)),
            None => Ok(Some(ours)),
        }
    }
}
