//! A node whose kernel runs OCFS2: the shim `user-heartbeat` with what it stands on.
//!
//! ```text
//!   drivers (kmod-ctl) -> RAM disk (shim) -> keeper, started or adopted -> regions of an earlier daemon
//!   corosync answers -> node table (a thread) -> slots -> attach
//! ```
//!
//! At the end the other way round: the groups were left, so the keeper beats nothing and ends, and the
//! node table goes. While it guards something all the same there is no end: see `guard`.

mod guard;
mod timing;
mod user_stack;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use o2bridge_core::{Event, GroupId, Locking, LockingProtocol, NodeId, Now, Saved};
use o2bridge_keeper::{Keeper, Notice, SignOfLife, TimingError};
use o2bridge_kmod_ctl::{O2cb, Paths};
use o2bridge_shim::control::{self, Told};
use o2bridge_shim::probe::Down;
use o2bridge_shim::user_heartbeat::{self, BeatError, Beats, CarrierKind, Gates, Slots};
use o2bridge_shim::{ChooseError, Shim, ShimError};
use slog::{Logger, error, info, warn};

use crate::adapter::nodetable::{Cluster, NodeTable};
use crate::adapter::timers::now;
use crate::config::{Bounded, Carrier, O2cbSection, Settings};
use crate::status;
use guard::{Guard, Guarded};
pub use timing::{check_timing, check_timing_of, check_user_stack_timing};
use user_stack::{PAUSE, Tender};

/// Where the letter "b" resets the node.
const SYSRQ: &str = "/proc/sysrq-trigger";

/// How often the keeper beats each slot.
const BEAT_MS: u64 = 1_000;

/// How often the loop says that it turns; the keeper's client misses it after 5 s.
const ALIVE_MS: u64 = 1_000;

/// How long a start takes away what is left over, and no longer than a part of `keeper.daemon_back_ms`: within that,
/// which runs, the loop must turn.
const LEFT_OVER_MS: u64 = if cfg!(test) { 500 } else { 5_000 };

/// A keeper silent until this long before the kernel buries the peers must not beat on.
const SILENCE_MARGIN_MS: u64 = 10_000;

/// One round of the kernel's heartbeat.
const ROUND_MS: u64 = 2_000;

/// Why the kernel's side cannot be had. Nothing is in use yet.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The timing rules do not hold.
    #[error("the keeper could be too late: {0}")]
    Timing(#[from] TimingError),
    /// Like it, for the node's own reset outside quorum.
    #[error("{0}")]
    Outvoted(String),
    /// Drivers or mounts.
    #[error("the kernel cannot be prepared: {0}")]
    Prepare(#[from] o2bridge_kmod_ctl::Error),
    /// It must not be told of deaths, or there is no keeper.
    #[error("{0}")]
    Shim(#[from] ShimError),
}

/// What has to be told and stopped beside the shim's verbs.
pub struct Kernel {
    /// The keeper, if the carrier needs one.
    keeper: Arc<OnceLock<Arc<Keeper>>>,
    backing: Backing,
    guard: Guard,
    /// When the keeper must be told again that the loop turns.
    alive_at: Now,
    log: Logger,
}

/// What else there is, by the stack.
#[derive(Debug)]
enum Backing {
    O2cb { table: NodeTable, gates: Gates },
    User { told: Told, tender: Tender },
}

/// The kernel made ready, for the shim to stand on.
pub struct Ground {
    keeper: Arc<OnceLock<Arc<Keeper>>>,
    base: Base,
}

/// What that is made of.
enum Base {
    O2cb { o2cb: Box<O2cb>, section: O2cbSection, slots: Slots, gates: Gates },
    User { told: Told, highest: LockingProtocol },
}

impl Ground {
    /// The same for the shim `control`, which begins with these groups attached.
    ///
    /// # Errors
    /// The kernel must not be told of deaths, or the node cannot be served safely.
    pub fn prepare_user_stack(
        settings: &Settings,
        given: (Down, BTreeSet<GroupId>),
        log: &Logger,
    ) -> Result<(Self, control::Settings), KernelError> {
        let told = Told::default();
        let (keeper, wanted) = user_stack::prepare(settings, given, &told, log)?;
        let highest = control::highest_protocol(&wanted.paths.protocol)?;
        let base = Base::User { told, highest };
        Ok((Self { keeper: user_stack::cell(keeper), base }, wanted))
    }

    /// What the core has to know of the kernel's locking protocol. The shim goes on with what an earlier daemon's line runs.
    #[must_use]
    pub fn locking(&self) -> Locking {
        let Base::User { told, highest } = &self.base else { return Locking::default() };
        let line = self.keeper.get().and_then(|keeper| keeper.line());
        let running = line.map(|line| LockingProtocol { major: line.major, minor: line.minor });
        running.into_iter().for_each(|running| told.set_locking(running));
        Locking { highest: Some(*highest), running, choice: 0 }
    }

    /// Checks the times, loads the drivers, and says what the shim needs.
    ///
    /// # Errors
    /// The node cannot be served safely.
    pub fn prepare(
        settings: &Settings,
        log: &Logger,
    ) -> Result<(Self, user_heartbeat::Settings), KernelError> {
        check_timing(settings)?;
        let o2cb = O2cb::new(Paths::default());
        let prepared = o2cb.prepare()?;
        for sentence in &prepared.done {
            info!(log, "kernel: {sentence}");
        }
        for sentence in &prepared.heads_up {
            warn!(log, "kernel: {sentence}");
        }
        let (keeper, slots) = (Arc::new(OnceLock::new()), Slots::default());
        let run_dir = settings.paths.run_dir.clone();
        let paths = user_heartbeat::Paths { run_dir, ..user_heartbeat::Paths::default() };
        let settings = &with_threshold_in_force(settings, &paths.configfs, log);
        check_timing(settings)?;
        let gates = Gates::new(&paths.configfs);
        let wanted = user_heartbeat::Settings {
            carrier: carrier(settings.user_heartbeat.carrier),
            paths,
            device: None,
            slots: slots.clone(),
            gates: gates.clone(),
            keeper: starter(settings, log, &keeper),
        };
        let (o2cb, section) = (Box::new(o2cb), settings.o2cb.clone());
        Ok((Self { keeper, base: Base::O2cb { o2cb, section, slots, gates } }, wanted))
    }

    /// The shim could not start. If the kernel has buried nodes that may be alive, this one must not
    /// write any more.
    pub fn give_up(&self, error: &ChooseError, log: &Logger) {
        let ChooseError::Start(ShimError::Buried { .. }) = error else { return };
        error!(log, "{error}");
        press(&self.keeper, &error.to_string(), log);
    }
}

/// What an earlier daemon of this boot left in the kernel for groups that nobody remembers. Each takes the kernel up
/// to two seconds, after a second for a tool that holds it up; what is not reached in time waits for the next start.
pub fn detach_forgotten(shim: &dyn Shim, saved: &Saved, daemon_back_ms: u64, log: &Logger) {
    let groups = shim.view().map(|view| view.groups).unwrap_or_default();
    let end = now().after(LEFT_OVER_MS.min(daemon_back_ms / 4));
    for group in groups.into_iter().filter(|group| !saved.groups.contains_key(group)) {
        if now() >= end {
            warn!(log, "left over in the kernel until the next start"; "group" => %group);
            continue;
        }
        match shim.detach(group) {
            Ok(()) => info!(log, "left over in the kernel and taken away"; "group" => %group),
            Err(error) => warn!(log, "left over in the kernel: {error}"; "group" => %group),
        }
    }
}

/// While regions stand the kernel keeps the threshold that it has, whatever the configuration says by
/// now, and the keeper must keep to the kernel's.
fn with_threshold_in_force(settings: &Settings, configfs: &Path, log: &Logger) -> Settings {
    let mut settings = settings.clone();
    let wanted = settings.o2cb.dead_threshold;
    match threshold_in_force(configfs).and_then(Bounded::new) {
        Some(found) if found != wanted => {
            warn!(log, "o2cb.dead_threshold is {} in the kernel while regions stand, and stays so \
                until none does", found.get(); "configured" => wanted.get());
            settings.o2cb.dead_threshold = found;
        }
        Some(_) | None => {}
    }
    settings
}

/// The threshold of a cluster that has regions.
fn threshold_in_force(configfs: &Path) -> Option<u64> {
    let clusters = std::fs::read_dir(configfs.join("cluster")).ok()?;
    let heartbeats = clusters.flatten().map(|cluster| cluster.path().join("heartbeat"));
    let has_region = |heartbeat: &PathBuf| {
        let entries = std::fs::read_dir(heartbeat).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| entry.path().is_dir())
    };
    let heartbeat = heartbeats.into_iter().find(has_region)?;
    std::fs::read_to_string(heartbeat.join("dead_threshold")).ok()?.trim().parse().ok()
}

/// Resets this node.
fn press(keeper: &OnceLock<Arc<Keeper>>, why: &str, log: &Logger) {
    match keeper.get().map(|keeper| keeper.reset_node(why)) {
        Some(Ok(())) => error!(log, "the keeper resets this node: {why}"),
        Some(Err(error)) => error!(log, "the keeper cannot reset this node: {error}"),
        None => match std::fs::write(SYSRQ, "b") {
            Ok(()) => error!(log, "this node is reset: {why}"),
            Err(error) => {
                error!(log, "reset this node by hand, now: {SYSRQ}: {error}"; "why" => why)
            }
        },
    }
}

impl Kernel {
    /// Starts what works beside the shim.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(ground: Ground, shim: Arc<dyn Shim>, log: &Logger) -> std::io::Result<Self> {
        let Ground { keeper, base } = ground;
        let guards = Arc::clone(&keeper);
        let look = move || guards.get().and_then(|keeper| Guarded::of(keeper));
        let guard = Guard::new(look, Arc::clone(&shim), log.clone());
        let backing = match base {
            Base::O2cb { o2cb, section, slots, gates } => {
                let table = NodeTable::start(*o2cb, section, (shim, slots), log.clone())?;
                Backing::O2cb { table, gates }
            }
            Base::User { told, .. } => {
                Backing::User { told, tender: Tender::start(shim, PAUSE, log.clone())? }
            }
        };
        Ok(Self { keeper, backing, guard, alive_at: now(), log: log.clone() })
    }

    /// Corosync told which node this is.
    pub fn set_node(&self, node: NodeId) {
        match &self.backing {
            Backing::User { told, .. } => told.set_node(node),
            Backing::O2cb { .. } => {}
        }
    }

    /// The daemons chose what all kernels of the cluster run.
    pub fn set_locking(&self, protocol: LockingProtocol) {
        match &self.backing {
            Backing::User { told, .. } => told.set_locking(protocol),
            Backing::O2cb { .. } => {}
        }
    }

    /// Corosync answers.
    pub fn connected(&mut self, cluster: Cluster) {
        match &mut self.backing {
            Backing::O2cb { table, .. } => table.connected(cluster),
            Backing::User { .. } => {}
        }
    }

    /// The volumes that nobody may mount yet.
    #[must_use]
    pub fn gates(&self) -> Option<Gates> {
        match &self.backing {
            Backing::O2cb { gates, .. } => Some(gates.clone()),
            Backing::User { .. } => None,
        }
    }

    /// The nodelist was changed.
    pub fn nodelist(&mut self, nodes: &[o2bridge_cpg::NodeEntry]) {
        match &mut self.backing {
            Backing::O2cb { table, .. } => table.nodelist(nodes),
            Backing::User { .. } => {}
        }
    }

    /// Tells the keeper that the loop turns: one that hangs counts as absent.
    pub fn alive(&mut self, now: Now) {
        if now >= self.alive_at {
            self.alive_at = now.after(ALIVE_MS);
            if let Some(keeper) = self.keeper.get() {
                keeper.alive();
            }
        }
    }

    /// When [`Self::alive`] is due.
    #[must_use]
    pub fn deadline(&self) -> Now {
        self.alive_at
    }

    /// What there is in the kernel, as the node table's thread last saw it; `None` before that.
    #[must_use]
    pub fn status(&self) -> Option<status::Kernel> {
        let keeper = self.keeper.get();
        let pid = keeper.and_then(|keeper| keeper.pid());
        match &self.backing {
            Backing::O2cb { table, .. } => table.view().map(|view| status::Kernel::new(&view, pid)),
            Backing::User { .. } => {
                let line = keeper.and_then(|keeper| keeper.line());
                Some(status::Kernel::line(line.map(|line| line.to_string()), pid))
            }
        }
    }

    /// Whether the kernel has its cluster. Before, a mount fails; from then on it waits for its region.
    #[must_use]
    pub fn is_online(&self) -> bool {
        match &self.backing {
            Backing::O2cb { table, .. } => table.is_online(),
            Backing::User { .. } => true,
        }
    }

    /// What keeps the kernel's node table from being as corosync has it.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        match &self.backing {
            Backing::O2cb { table, .. } => {
                table.complaint().map(|why| format!("the kernel's node table: {why}"))
            }
            Backing::User { tender, .. } => tender.complaint(),
        }
    }

    /// A hand on the reset button, for a thread. Without a keeper there is none.
    pub fn reset_button(&self) -> impl Fn(&str) + Send + 'static {
        let (keeper, log) = (Arc::clone(&self.keeper), self.log.clone());
        move |why| press(&keeper, why, &log)
    }

    /// What a stop has to wait for, with no group left: a job for a thread, which says once more to stop if that can be.
    /// `None`: nothing is guarded.
    pub fn before_stop(&self) -> Option<impl FnOnce() -> Option<Event> + Send + 'static> {
        let guard = self.guard.clone();
        (!guard.is_free()).then_some(move || guard.settle())
    }

    /// Nothing is in use any more.
    pub fn stop(&mut self) {
        match self.keeper.get().map(|keeper| keeper.stop()) {
            Some(Err(error)) if !self.guard.is_free() => {
                error!(
                    self.log,
                    "the keeper goes on, and resets this node after keeper.daemon_back_ms unless o2bridged \
                    is started again: {error}"
                );
            }
            Some(Err(error)) => warn!(self.log, "the keeper goes on: {error}"),
            Some(Ok(())) | None => {}
        }
        match &mut self.backing {
            Backing::O2cb { table, gates } => {
                // A mount that waits at a gate fails without the cluster; with it, it would begin a heartbeat on the
                // disk. So the gates go last.
                table.stop();
                gates.open_all();
            }
            Backing::User { tender, .. } => tender.stop(),
        }
    }
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("backing", &self.backing).finish_non_exhaustive()
    }
}

fn carrier(carrier: Carrier) -> CarrierKind {
    match carrier {
        Carrier::Auto => CarrierKind::Auto,
        Carrier::Region => CarrierKind::Region,
        Carrier::Symlink => CarrierKind::Symlink,
    }
}

fn starter(
    settings: &Settings,
    log: &Logger,
    cell: &Arc<OnceLock<Arc<Keeper>>>,
) -> user_heartbeat::StartKeeper {
    let (settings, log, cell) = (settings.clone(), log.clone(), Arc::clone(cell));
    Arc::new(move |device: &Path, block_bytes| {
        let notices = log.clone();
        let started = Keeper::start(
            keeper_settings(&settings, Some((device, block_bytes))),
            SignOfLife::Work,
            Box::new(move |notice| note(&notices, &notice)),
        );
        let keeper = Arc::new(started.map_err(BeatError::from)?);
        // The shim asks once.
        let _ = cell.set(Arc::clone(&keeper));
        Ok(keeper as Arc<dyn Beats>)
    })
}

fn note(log: &Logger, notice: &Notice) {
    match notice {
        Notice::Started { .. } | Notice::Adopted { .. } => info!(log, "{notice}"),
        Notice::Reset { .. } | Notice::ResetFailed { .. } | Notice::Conflict { .. } => {
            error!(log, "{notice}");
        }
        _ => warn!(log, "{notice}"),
    }
}

fn keeper_settings(settings: &Settings, device: Option<(&Path, u32)>) -> o2bridge_keeper::Settings {
    let dead_threshold = settings.o2cb.dead_threshold.get();
    let dead_ms = dead_threshold * ROUND_MS;
    o2bridge_keeper::Settings {
        program: settings.keeper.program.clone().unwrap_or_else(beside_us),
        socket: settings.paths.run_dir.join("keeper.sock"),
        device: device.map(|(path, _)| path.into()),
        control: None,
        block_bytes: device.map_or(512, |(_, block_bytes)| block_bytes),
        dead_threshold: u32::try_from(dead_threshold).unwrap_or(u32::MAX),
        beat_ms: BEAT_MS,
        daemon_back_ms: settings.keeper.daemon_back_ms.get(),
        silence_max_ms: dead_ms.saturating_sub(SILENCE_MARGIN_MS),
        sysrq: SYSRQ.into(),
        watchdog: settings.keeper.watchdog.clone(),
        lock_memory: settings.process.lock_memory,
        realtime_priority: u8::try_from(settings.process.realtime_priority.get()).unwrap_or(0),
        // Never blocks, and is read after a reset: the keeper's last line comes just before it.
        log: Some("/dev/kmsg".into()),
    }
}

/// The keeper's program beside this one.
fn beside_us() -> PathBuf {
    let name = "o2bridge-keeper";
    let us = std::env::current_exe().ok();
    us.and_then(|us| Some(us.parent()?.join(name))).unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests;
