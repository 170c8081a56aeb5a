//! What the configuration says of this shim.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::region::DiskSettings;
use super::slots::Slots;
use super::symlink;
use super::{BeatError, Beats, Gates};

/// The carriers, as the configuration names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarrierKind {
    /// Links where the kernel takes them, else the region.
    Auto,
    /// A heartbeat region in memory.
    Region,
    /// Links in configfs.
    Symlink,
}

impl fmt::Display for CarrierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Region => "region",
            Self::Symlink => "symlink",
        })
    }
}

/// Where the kernel is. Only tests have a reason to change these.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Where configfs is mounted.
    pub configfs: PathBuf,
    /// Where debugfs is mounted; it may be absent.
    pub debugfs: PathBuf,
    /// What o2cb says of itself: `/sys/fs/o2cb`, on the oldest kernels `/sys/o2cb`.
    pub sys_o2cb: PathBuf,
    /// What OCFS2 says of its stacks: `/sys/fs/ocfs2`.
    pub sys_ocfs2: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
    /// `/sys/dev/block`.
    pub sys_dev_block: PathBuf,
    /// Our run directory, on a tmpfs.
    pub run_dir: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        let old = Path::new("/sys/o2cb");
        Self {
            configfs: "/sys/kernel/config".into(),
            debugfs: "/sys/kernel/debug".into(),
            sys_o2cb: if old.exists() { old } else { Path::new("/sys/fs/o2cb") }.into(),
            sys_ocfs2: "/sys/fs/ocfs2".into(),
            dev: "/dev".into(),
            sys_dev_block: "/sys/dev/block".into(),
            run_dir: "/run/o2bridge".into(),
        }
    }
}

/// Starts the keeper, or takes over the one that runs, for this device and block size in bytes.
pub type StartKeeper = Arc<dyn Fn(&Path, u32) -> Result<Arc<dyn Beats>, BeatError> + Send + Sync>;

/// What the shim needs.
#[derive(Clone)]
pub struct Settings {
    /// Which carrier.
    pub carrier: CarrierKind,
    /// Where the kernel is.
    pub paths: Paths,
    /// The RAM disk to use; without it one is found or made.
    pub device: Option<PathBuf>,
    /// The node table.
    pub slots: Slots,
    /// The volumes that nobody may mount yet.
    pub gates: Gates,
    /// The keeper; called only if the carrier needs one.
    pub keeper: StartKeeper,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("carrier", &self.carrier)
            .field("paths", &self.paths)
            .field("device", &self.device)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// Where a RAM disk is found or made.
    pub(super) fn disk(&self) -> DiskSettings {
        let paths = &self.paths;
        DiskSettings {
            device: self.device.clone(),
            dev: paths.dev.clone(),
            sys_dev_block: paths.sys_dev_block.clone(),
            run_dir: paths.run_dir.clone(),
            modprobe: "/sbin/modprobe".into(),
            losetup: "/sbin/losetup".into(),
        }
    }
}

impl From<&Paths> for symlink::Places {
    fn from(paths: &Paths) -> Self {
        Self {
            configfs: paths.configfs.clone(),
            sys_o2cb: paths.sys_o2cb.clone(),
            debugfs: paths.debugfs.clone(),
        }
    }
}
