//! What the administrator decides.

use crate::locking::Locking;
use crate::types::{BootId, Incarnation};

/// What the core is made with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Config {
    /// This boot of this node, not [`BootId::UNSEEN`]: nobody takes a word of that.
    pub boot: BootId,
    /// Incarnations that this daemon gives out are this and larger; no earlier daemon of this node
    /// gave out one as large.
    pub first_incarnation: Incarnation,
    /// What the kernel knows of the locking protocol, and what an earlier daemon had it run.
    pub locking: Locking,
    /// What may change while the daemon runs.
    pub tunables: Tunables,
}

/// What may change while the daemon runs (SIGHUP).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tunables {
    /// How long a peer's daemon may be away, or owe an answer, while its node is in the ring.
    pub grace_ms: u64,
    /// How long a begin may wait to become ready.
    pub begin_timeout_ms: u64,
    /// How long a tool whose begin is not tied to its connection may take to mount.
    pub complete_timeout_ms: u64,
    /// How long a leave may wait before it is answered while it goes on.
    pub leave_timeout_ms: u64,
    /// The pause before a failed verb, save, join or kill is tried again.
    pub retry_ms: u64,
    /// How long this node may use volumes outside a quorate ring before it resets itself; 0: for ever.
    pub inquorate_reset_ms: u64,
    /// Who makes sure that a dead node is dead.
    pub fencing: Fencing,
}

/// The gate between a death and the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fencing {
    /// Nobody: leaving a quorate ring is death. Fit for tests and for shims that protect nothing.
    None,
    /// The administrator says so (`o2bridge fence-ack N`).
    Ack,
    /// A fence agent does it; the administrator still may.
    Agent {
        /// How many levels are configured; the next one is tried when one's attempts are used up.
        levels: u8,
        /// Attempts per level and turn.
        attempts: u8,
        /// The pause between attempts.
        pause_ms: u64,
    },
}
