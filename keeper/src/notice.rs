//! What the daemon's log should hear of the keeper.

use std::fmt;

/// A protection that the keeper asked the system for and did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Its memory may be swapped out.
    LockedMemory,
    /// Other processes may keep it from running.
    Realtime,
    /// The kernel may end it when memory is short.
    OutOfMemoryImmunity,
}

impl Missing {
    /// All there are, each with its bit on the wire.
    pub(crate) const ALL: [(Self, u64); 3] =
        [(Self::LockedMemory, 1), (Self::Realtime, 2), (Self::OutOfMemoryImmunity, 4)];
}

/// Something that happened to the keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A keeper was started. With a table in memory (after [`Notice::Died`]) it has it already.
    Started {
        /// Its process id.
        pid: u32,
        /// Slots that it was told to beat.
        beats: usize,
        /// Time without any keeper, as far as this client can tell, in milliseconds.
        gap_ms: u64,
    },
    /// The keeper of an earlier daemon was found beating, and taken over.
    Adopted {
        /// Its process id.
        pid: u32,
        /// Slots that it beats.
        beats: usize,
    },
    /// The system refused the keeper a protection.
    Unprotected {
        /// The keeper's process id.
        pid: u32,
        /// Which one.
        missing: Missing,
    },
    /// The adopted keeper was started with other settings; these go on until it ends.
    OtherSettings {
        /// The keeper's process id.
        pid: u32,
        /// Its command line, if it can be read.
        running: String,
    },
    /// The keeper ended while it was needed. A new one is being started.
    Died {
        /// Its process id.
        pid: u32,
    },
    /// The keeper did not answer for so long that it is being killed and replaced.
    Hung {
        /// Its process id.
        pid: u32,
        /// For how long, in milliseconds.
        silent_ms: u64,
    },
    /// The same when a daemon starts, but the keeper may hold the only line to the kernel: it is not killed.
    Spared {
        /// Its process id.
        pid: u32,
        /// For how long, in milliseconds.
        silent_ms: u64,
    },
    /// No keeper could be started; it is tried again.
    NotStarted {
        /// Why not.
        error: String,
    },
    /// The running keeper beats a slot with another generation than this client was told. It is left
    /// so: changing it would be a death.
    Conflict {
        /// Where, and both generations.
        what: String,
    },
    /// The node is being reset, now.
    Reset {
        /// Why.
        why: String,
    },
    /// The reset was refused by the system; it is tried again.
    ResetFailed {
        /// Why.
        error: String,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LockedMemory => "its memory is not locked, a hanging disk under swap may stop it",
            Self::Realtime => "it has no realtime priority, a busy machine may delay its beats",
            Self::OutOfMemoryImmunity => "the kernel may end it when memory is short",
        })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { pid, beats, gap_ms } => {
                write!(f, "keeper {pid} started, beats {beats} slots, {gap_ms} ms without one")
            }
            Self::Adopted { pid, beats } => write!(f, "keeper {pid} adopted, beats {beats} slots"),
            Self::Unprotected { pid, missing } => write!(f, "keeper {pid}: {missing}"),
            Self::OtherSettings { pid, running } => {
                write!(
                    f,
                    "keeper {pid} goes on with the settings that it was started with: {running}"
                )
            }
            Self::Died { pid } => write!(f, "keeper {pid} died"),
            Self::Hung { pid, silent_ms } => {
                write!(f, "keeper {pid} has not answered for {silent_ms} ms, it is killed")
            }
            Self::Spared { pid, silent_ms } => {
                write!(
                    f,
                    "keeper {pid} has not answered for {silent_ms} ms; it is not killed, because "
                )?;
                write!(f, "with a volume of a user stack mounted its end would reset this node")
            }
            Self::NotStarted { error } => write!(f, "no keeper: {error}"),
            Self::Conflict { what } => write!(f, "keeper and daemon disagree: {what}"),
            Self::Reset { why } => write!(f, "resetting this node: {why}"),
            Self::ResetFailed { error } => write!(f, "cannot reset this node: {error}"),
        }
    }
}
