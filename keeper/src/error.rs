//! Why the keeper did not do it, and whether that is known.

use std::fmt;
use std::path::PathBuf;

use crate::record::Status;
use crate::{Area, Slot};

/// A call to the keeper failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeeperError {
    /// Known: nothing changed. The keeper refused.
    Refused(Status),
    /// Known: nothing changed. There is no such area or slot.
    OutOfRange(Area, Slot),
    /// Known: nothing changed. No keeper could be started.
    NotStarted(String),
    /// Known: nothing changed. The keeper serves another daemon, which is alive.
    Busy,
    /// Known: nothing changed. The running keeper beats slots of another device than this daemon would use.
    OtherDevice {
        /// Its process id.
        pid: u32,
        /// What it beats.
        running: PathBuf,
        /// Ours.
        wanted: PathBuf,
    },
    /// Known: nothing changed. This client's keeper was stopped.
    Stopped,
    /// Not known: no answer in time. What was asked may have happened. A `down` or a `clear` is
    /// repeated until the keeper has done it; a `beat` is not. All calls can be repeated.
    Unanswered,
    /// Known: the device may hold half of it. The keeper could not write; a `down` slot is beaten no
    /// more, but the kernel was not told. To be repeated.
    Device,
    /// Known: the node was not reset.
    ResetFailed(String),
}

impl KeeperError {
    /// Whether nothing changed, for certain.
    #[must_use]
    pub fn is_nothing_changed(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::OutOfRange(..)
            | Self::NotStarted(_)
            | Self::Busy
            | Self::OtherDevice { .. }
            | Self::Stopped
            | Self::ResetFailed(_) => true,
            Self::Unanswered | Self::Device => false,
        }
    }
}

impl fmt::Display for KeeperError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "the keeper refused: {status}"),
            Self::OutOfRange(area, slot) => write!(f, "there is no {slot} in {area}"),
            Self::NotStarted(error) => write!(f, "no keeper could be started: {error}"),
            Self::Busy => write!(f, "the keeper serves another daemon, which is alive"),
            Self::OtherDevice { pid, running, wanted } => {
                let (running, wanted) = (running.display(), wanted.display());
                write!(
                    f,
                    "keeper {pid} beats slots on {running}, and this daemon found {wanted} instead: "
                )?;
                write!(
                    f,
                    "to take it over would show the kernel living peers as dead; see what keeps {running} "
                )?;
                write!(
                    f,
                    "from being read, and start o2bridged again before the keeper resets this node"
                )
            }
            Self::Stopped => write!(f, "the keeper was stopped"),
            Self::Unanswered => {
                write!(f, "no answer from the keeper in time; it may or may not have done it")
            }
            Self::Device => write!(f, "the keeper could not write to its device"),
            Self::ResetFailed(error) => write!(f, "the node was not reset: {error}"),
        }
    }
}

impl std::error::Error for KeeperError {}
