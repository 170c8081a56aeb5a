//! `/etc/o2bridge/o2bridge.toml`. Every key may be missing; a key that is not known is refused with
//! a hint, because a misspelt fencing option must not pass for a missing one.
//!
//! A value out of its range is refused where it is parsed, so that the error names its line. What
//! spans several keys is checked afterwards, by key.

mod fencing;
mod kernel;
mod load;
mod value;

use std::path::PathBuf;

use o2bridge_core::Tunables;
use serde::Deserialize;

pub use fencing::{Agent, FencingSection, FencingTask, Level, Options, Policy, Power};
pub use kernel::{
    Carrier, ControlSection, HeartbeatMode, KeeperSection, O2cbSection, StorageLoss,
    UserHeartbeatSection, Volumes, VolumesWord,
};
pub use load::{ConfigError, DEFAULT_PATH, load, parse};
pub use value::{Bounded, LogTarget};

use crate::status::LogLevel;

/// `fencing.inquorate_reset_ms` of a node with a kernel behind its shim.
const INQUORATE_RESET_MS: u64 = 45_000;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long things may take.
    pub timing: Timing,
    /// Who makes sure that a dead node is dead.
    pub fencing: FencingSection,
    /// Who tells the kernel.
    pub shim: ShimSection,
    /// The kernel's cluster.
    pub o2cb: O2cbSection,
    /// The shim that speaks to it.
    pub user_heartbeat: UserHeartbeatSection,
    /// The shim for user stacks that tells the kernel.
    pub control: ControlSection,
    /// The process that beats for the daemon.
    pub keeper: KeeperSection,
    /// The file of the record shim.
    pub record: RecordSection,
    /// What is logged, and where.
    pub log: LogSection,
    /// What is expected of corosync.
    pub corosync: CorosyncSection,
    /// The daemon as a process.
    pub process: ProcessSection,
    /// Where things are.
    pub paths: PathsSection,
}

/// `[timing]`, in milliseconds. Reread on SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// How long a peer's daemon may be away while its node is in the ring.
    pub grace_ms: Bounded<100, 600_000>,
    /// How long a begin may wait to become ready.
    pub begin_timeout_ms: Bounded<100, 3_600_000>,
    /// How long a tool may take to mount when its connection does not stand for it.
    pub complete_timeout_ms: Bounded<100, 3_600_000>,
    /// How long a leave may wait before it is answered while it goes on.
    pub leave_timeout_ms: Bounded<100, 3_600_000>,
    /// The pause before a failed verb, save, join or kill is tried again.
    pub retry_ms: Bounded<10, 60_000>,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            grace_ms: Bounded(30_000),
            begin_timeout_ms: Bounded(60_000),
            complete_timeout_ms: Bounded(300_000),
            leave_timeout_ms: Bounded(30_000),
            retry_ms: Bounded(1_000),
        }
    }
}

/// `[shim]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShimSection {
    /// `auto` or the name of a shim.
    pub kind: String,
}

impl Default for ShimSection {
    fn default() -> Self {
        Self { kind: "auto".into() }
    }
}

/// `[record]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordSection {
    /// The file; without it `record.jsonl` in the run directory.
    pub path: Option<PathBuf>,
    /// Whether a verb returns only after its line is on the disk.
    pub fsync: bool,
}

/// `[log]`. The level is reread on SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// The least important level that is written.
    pub level: LogLevel,
    /// Where to.
    pub target: LogTarget,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: LogLevel::Info, target: LogTarget::Auto }
    }
}

/// `[corosync]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorosyncSection {
    /// Number of groups above which their shared memory (3 MiB each) is worth a warning.
    pub groups_warn: Bounded<1, 4096>,
}

impl Default for CorosyncSection {
    fn default() -> Self {
        Self { groups_warn: Bounded(64) }
    }
}

/// `[process]`. Each of these is tried, and a refusal of the system is a warning.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSection {
    /// Keep all memory out of swap and never reclaimed: the daemon must live while its disk hangs.
    pub lock_memory: bool,
    /// The `SCHED_RR` priority; 0 leaves the scheduling as it is. Corosync itself runs with 99.
    pub realtime_priority: Bounded<0, 50>,
    /// Not to be chosen by the kernel's out-of-memory killer.
    pub protect_from_oom: bool,
}

impl Default for ProcessSection {
    fn default() -> Self {
        Self { lock_memory: true, realtime_priority: Bounded(1), protect_from_oom: true }
    }
}

/// `[paths]`. Only tests and containers have a reason to change these.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathsSection {
    /// Sockets, pid file and state. Must be lost at a reboot, and must not be on a disk.
    pub run_dir: PathBuf,
    /// The kernel's name for its boot.
    pub boot_id: PathBuf,
    /// The mount table.
    pub mountinfo: PathBuf,
    /// The name of the kernel's cluster stack, if OCFS2 is loaded.
    pub cluster_stack: PathBuf,
    /// The abstract socket of the old door, without the leading NUL; libo2cb knows one name only.
    pub old_door: String,
}

impl Default for PathsSection {
    fn default() -> Self {
        Self {
            run_dir: "/run/o2bridge".into(),
            boot_id: "/proc/sys/kernel/random/boot_id".into(),
            mountinfo: "/proc/self/mountinfo".into(),
            cluster_stack: "/sys/fs/ocfs2/cluster_stack".into(),
            old_door: "ocfs2_controld_sock".into(),
        }
    }
}

impl Settings {
    /// What the core is told of them.
    ///
    /// Outside quorum a node with a kernel behind its shim resets itself after a while, if nothing else
    /// is said; one that only keeps a record has no reason to.
    #[must_use]
    pub fn tunables(&self, has_kernel: bool) -> Tunables {
        let inquorate_reset_ms = match &self.fencing.inquorate_reset_ms {
            Some(limit_ms) => limit_ms.get(),
            None if has_kernel => INQUORATE_RESET_MS,
            None => 0,
        };
        Tunables {
            grace_ms: self.timing.grace_ms.get(),
            begin_timeout_ms: self.timing.begin_timeout_ms.get(),
            complete_timeout_ms: self.timing.complete_timeout_ms.get(),
            leave_timeout_ms: self.timing.leave_timeout_ms.get(),
            retry_ms: self.timing.retry_ms.get(),
            inquorate_reset_ms,
            fencing: self.fencing.policy(),
        }
    }

    /// The record shim's file.
    #[must_use]
    pub fn record_path(&self) -> PathBuf {
        self.record.path.clone().unwrap_or_else(|| self.paths.run_dir.join("record.jsonl"))
    }

    /// The sections that differ but are not reread: they wait for a restart.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let differs = [
            ("shim", self.shim != new.shim),
            ("o2cb", self.o2cb != new.o2cb),
            ("user_heartbeat", self.user_heartbeat != new.user_heartbeat),
            ("control", self.control != new.control),
            ("keeper", self.keeper != new.keeper),
            ("record", self.record != new.record),
            ("log.target", self.log.target != new.log.target),
            ("corosync", self.corosync != new.corosync),
            ("process", self.process != new.process),
            ("paths", self.paths != new.paths),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}
