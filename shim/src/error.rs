//! Why a verb failed.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::libc;
use o2bridge_core::NodeId;

use crate::control::ControlError;

/// A verb failed: the kernel is not known to have been told. The caller repeats the verb.
#[derive(Debug)]
pub enum ShimError {
    /// The operating system refused a step on this file.
    File {
        /// What was tried: `open`, `write`, `sync` ...
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The same, where it is known what the refusal means.
    Refused {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
        /// Ours.
        why: &'static str,
    },
    /// A file of the kernel took what was written and holds something else.
    Lied {
        /// The attribute.
        path: PathBuf,
        /// What was written.
        wrote: String,
        /// What it reads as now.
        reads: String,
    },
    /// configfs has no o2cb cluster yet. Nothing was changed.
    NoCluster {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// The o2cb node table does not know this node; `None`: it does not say who we are.
    NoSlot(Option<NodeId>),
    /// A heartbeat region of this name runs on a device that is not ours: the classic disk
    /// heartbeat. It is left alone.
    DiskHeartbeat {
        /// The region.
        region: String,
        /// The kernel's name of its device.
        device: String,
    },
    /// Something on this node still uses the region: a mount, or a tool. It stands as it was.
    InUse {
        /// The region.
        region: String,
        /// What was seen.
        by: String,
    },
    /// The kernel does not see these slots as live. A mount now could miss a node.
    NotLive {
        /// The region.
        region: String,
        /// The slots.
        slots: BTreeSet<u8>,
    },
    /// Nobody beat these slots for so long that the kernel buried nodes that may be alive, and has
    /// given or will give their locks away. This node must be reset before it writes.
    Buried {
        /// The region.
        region: String,
        /// The slots.
        slots: BTreeSet<u8>,
    },
    /// The RAM disk has no room for another region. Nothing was changed.
    NoArea {
        /// How many it holds.
        areas: u16,
    },
    /// System V semaphores, by which the OCFS2 tools count who uses a region, failed.
    Semaphore {
        /// What was tried.
        step: &'static str,
        /// The region.
        region: String,
        /// Why not.
        source: io::Error,
    },
    /// The keeper could not be told.
    Keeper {
        /// What it should have done.
        step: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// dlm_controld, or what stands between it and us.
    Control(ControlError),
    /// There is no way to serve this kernel safely. Nothing was changed.
    Unusable(String),
}

impl ShimError {
    pub(crate) fn file(step: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { step, path: path.into(), source }
    }

    /// The errno behind the error; `EIO` (5) if there is none.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::File { source, .. }
            | Self::Refused { source, .. }
            | Self::Semaphore { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            Self::Lied { .. } => libc::EINVAL,
            Self::NoCluster { .. } | Self::Unusable(_) => libc::ENODEV,
            Self::NoSlot(_) => libc::ENXIO,
            Self::DiskHeartbeat { .. } => libc::EEXIST,
            Self::InUse { .. } => libc::EBUSY,
            Self::NotLive { .. } => libc::ETIMEDOUT,
            Self::Buried { .. } => libc::EHOSTDOWN,
            Self::NoArea { .. } => libc::ENOSPC,
            Self::Keeper { .. } => libc::EIO,
            Self::Control(error) => error.errno(),
        }
    }
}

impl fmt::Display for ShimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { step, path, source } => {
                write!(f, "cannot {step} {}: {source}", path.display())
            }
            Self::Refused { step, path, source, why } => {
                write!(f, "cannot {step} {}: {why} ({source})", path.display())
            }
            Self::Lied { path, wrote, reads } => {
                write!(f, "{} took \"{wrote}\" and reads \"{reads}\"", path.display())
            }
            Self::NoCluster { path } => {
                write!(f, "there is no o2cb cluster in {}", path.display())
            }
            Self::NoSlot(Some(node)) => write!(f, "node {node} is not in the o2cb node table"),
            Self::NoSlot(None) => write!(f, "this node is not in the o2cb node table"),
            Self::DiskHeartbeat { region, device } => write!(
                f,
                "region {region} beats on {device}: the classic disk heartbeat runs, and is left \
                 alone; unmount the volume here to change over"
            ),
            Self::InUse { region, by } => write!(f, "region {region} is in use: {by}"),
            Self::NotLive { region, slots } => {
                write!(f, "the kernel does not see as live, in region {region}: slots {slots:?}")
            }
            Self::Buried { region, slots } => write!(
                f,
                "daemon and keeper were both away for too long: in region {region} the kernel has \
                 buried slots {slots:?}, whose nodes may be alive; this node must be reset"
            ),
            Self::NoArea { areas } => {
                write!(f, "the RAM disk has room for {areas} regions, and all are taken")
            }
            Self::Semaphore { step, region, source } => {
                write!(f, "cannot {step} the semaphores of region {region}: {source}")
            }
            Self::Keeper { step, source } => write!(f, "the keeper could not {step}: {source}"),
            Self::Control(error) => error.fmt(f),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl From<ControlError> for ShimError {
    fn from(error: ControlError) -> Self {
        Self::Control(error)
    }
}

impl std::error::Error for ShimError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { source, .. }
            | Self::Refused { source, .. }
            | Self::Semaphore { source, .. } => Some(source),
            Self::Keeper { source, .. } => Some(&**source),
            Self::Control(error) => Some(error),
            Self::Lied { .. }
            | Self::NoCluster { .. }
            | Self::NoSlot(_)
            | Self::DiskHeartbeat { .. }
            | Self::InUse { .. }
            | Self::NotLive { .. }
            | Self::Buried { .. }
            | Self::NoArea { .. }
            | Self::Unusable(_) => None,
        }
    }
}
