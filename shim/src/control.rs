//! `control`: for volumes of a user stack, beside a dlm_controld that runs with `enable_fscontrol=1`.
//!
//! dlm_controld runs fs/dlm's lockspaces; OCFS2 hears of deaths from us, through its control device; and
//! dlm_controld starts a lockspace again only when we say that OCFS2 has heard.
//!
//! ```text
//!   attach     line held (by us and the keeper) ── registered with dlm_controld ── Ok: mount
//!   a death    dlm_controld: confchg, lockspace stopped ─────┐ waits for us
//!   node_down  seen that it is, for this node ── DOWN ── notified, until it is taken
//!              dlm_controld: lockspace started ── fs/dlm recovers, OCFS2 replays the journal
//! ```
//!
//! The order within `node_down` is what makes it right. `DOWN` before the lockspace is stopped could let
//! OCFS2 replay a journal under locks that the dead node still holds; dlm_controld's start before `DOWN`
//! could grant those locks to somebody who reads what was not replayed. All of it is one verb, because a
//! successor that repeats it must begin with `DOWN` again: both are right when they are said twice.
//!
//! | dlm_controld | attach, resume | node_down | detach |
//! |---|---|---|---|
//! | knows the lockspace, node awaited, stopped | | DOWN, notified | |
//! | node awaited, not stopped; or still a member | | waited for, then refused: again | |
//! | node not awaited, no member | | DOWN alone: it left before, or was settled | |
//! | knows no lockspace, nor does the kernel | registered | nothing is mounted: done | unregistered |
//! | knows no lockspace, the kernel does | registered | refused: reset the node | refused: in use |
//! | does not answer | refused: again | refused: again | refused: again |
//! | is gone | refused | refused: reset the node | nothing to unregister |
//! | does not ask filesystems | refused | | |
//! | any, and the kernel has the lockspace of a volume that is no group's | | | of the last group refused: in use |
//!
//! The line stays for as long as any volume of a user stack is mounted, ours or not: the kernel resets the node when it
//! ends. And the keeper, which holds it, resets the node when there is no daemon. So the last group stays, too, and the
//! daemon with it.
//!
//! `suspend` does nothing: whether a lockspace has to be stopped is dlm_controld's to see, in the same
//! change of the same corosync, and `node_down` does not go on before it has.

mod daemon;
pub mod dlmc;
mod error;
mod lifeline;
mod settings;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::libc;
use o2bridge_core::{GroupId, Incarnation, LockingProtocol, NodeId, Peers};
use o2bridge_keeper::{Line, line};

use daemon::{Dlm, DlmControld};
pub use error::ControlError;
pub use lifeline::Lifeline;
pub use settings::{Paths, Settings, Told};

use crate::probe::Down;
use crate::{Shim, ShimError};

/// The backend's name, as in the configuration.
pub const NAME: &str = "control";

/// How long dlm_controld may lag behind in hearing what we heard from the same corosync, and in taking
/// our word. More is up to the caller, who says the verb again.
const LAG_MS: u64 = 500;
const POLL: Duration = Duration::from_millis(5);

/// The backend.
pub struct Control {
    paths: Paths,
    told: Told,
    keeper: Arc<dyn Lifeline>,
    dlm: Box<dyn Dlm>,
    /// Our own end of the line, while there is one.
    held: Mutex<Option<Arc<File>>>,
    groups: Mutex<BTreeSet<GroupId>>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// No lock here is held over anything that could panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the kernel may be written to.
///
/// # Errors
/// `DOWN` is a BUG in it, or that is not known and nobody takes the risk.
pub fn check_kernel(down: &Down, risk_kernel_bug: bool) -> Result<(), ShimError> {
    let why = match down {
        Down::Safe(_) => return Ok(()),
        Down::Unknown(_) if risk_kernel_bug => return Ok(()),
        Down::Bug(why) => why.clone(),
        Down::Unknown(why) => {
            format!("{why}; control.risk_kernel_bug = true takes the risk that this kernel crashes")
        }
    };
    Err(ShimError::Unusable(format!(
        "this kernel must not be told of deaths through its control device: {why}"
    )))
}

impl Control {
    /// Checks the kernel. Before a group is attached nothing is opened but the line of an earlier daemon.
    ///
    /// # Errors
    /// The kernel must not be written to, or that line cannot be held or let go.
    pub fn start(settings: &Settings) -> Result<Self, ShimError> {
        Self::with(settings, Box::new(DlmControld::default()))
    }

    fn with(settings: &Settings, dlm: Box<dyn Dlm>) -> Result<Self, ShimError> {
        check_kernel(&settings.down, settings.risk_kernel_bug)?;
        let control = Self {
            paths: settings.paths.clone(),
            told: settings.told.clone(),
            keeper: Arc::clone(&settings.keeper),
            dlm,
            held: Mutex::new(None),
            groups: Mutex::new(settings.groups.clone()),
        };
        control.release_if_idle()?;
        // A keeper that dies or hangs under a mount can be replaced only while somebody else holds the line; and
        // whoever takes over what is in order has no verb to say.
        if let Some(held) = control.keeper.line() {
            control.own_end(held)?;
        }
        Ok(control)
    }

    /// The line, held by us and by the keeper. Opening it waits for nobody but other openers.
    fn line(&self) -> Result<Arc<File>, ShimError> {
        let wanted = self.told.line()?;
        let file = self.own_end(wanted)?;
        if self.keeper.line() != Some(wanted) {
            let held = self.keeper.hold(wanted);
            held.map_err(|source| ShimError::Keeper { step: "hold the line", source })?;
        }
        Ok(file)
    }

    /// Our end of the line.
    fn own_end(&self, wanted: Line) -> Result<Arc<File>, ShimError> {
        let mut held = lock(&self.held);
        if let Some(file) = &*held {
            return Ok(Arc::clone(file));
        }
        let opened = line::open(&self.paths.device, wanted);
        let file = Arc::new(opened.map_err(|error| self.refused(error))?);
        *held = Some(Arc::clone(&file));
        Ok(file)
    }

    fn refused(&self, error: std::io::Error) -> ShimError {
        let path = &self.paths.device;
        if error.raw_os_error() != Some(libc::EINVAL) {
            return ShimError::file("shake hands with", path, error);
        }
        let why = "the kernel refused: another process holds it with another node id or locking \
                   protocol, or the module ocfs2 is not loaded";
        ShimError::Refused { step: "shake hands with", path: path.clone(), source: error, why }
    }

    /// The filesystem registered, the line held: a mount may begin, a death be told.
    fn ready(&self, group: GroupId) -> Result<(), ShimError> {
        // Before all: from now on no other group's end lets go of the line.
        lock(&self.groups).insert(group);
        // Where dlm_controld does not ask, the device must not even be opened.
        self.dlm.register(group)?;
        self.line()?;
        Ok(())
    }

    fn has_lockspace(&self, group: GroupId) -> bool {
        self.paths.lockspaces.join(group.to_string()).exists()
    }

    /// Whether the kernel has a lockspace of any volume, ours or not: it resets the node if the line ends.
    /// Whoever cannot be asked may have one.
    fn has_any_lockspace(&self) -> bool {
        let is_volume =
            |name: &OsStr| name.to_str().is_some_and(|it| it.parse::<GroupId>().is_ok());
        match std::fs::read_dir(&self.paths.lockspaces) {
            Ok(mut entries) => entries.any(|it| it.is_ok_and(|it| is_volume(&it.file_name()))),
            Err(error) => error.kind() != ErrorKind::NotFound,
        }
    }

    /// Lets go of the line if nobody needs it: a keeper that holds one resets the node when no daemon
    /// comes back. False: no group holds it any more, and it cannot go.
    fn release_if_idle(&self) -> Result<bool, ShimError> {
        let groups = lock(&self.groups);
        if !groups.is_empty() {
            return Ok(true);
        }
        if self.has_any_lockspace() {
            return Ok(!self.is_held());
        }
        if self.keeper.line().is_some() {
            let released = self.keeper.release();
            released.map_err(|source| ShimError::Keeper { step: "let go of the line", source })?;
        }
        *lock(&self.held) = None;
        Ok(true)
    }

    fn is_held(&self) -> bool {
        self.keeper.line().is_some() || lock(&self.held).is_some()
    }

    /// Whether this is the last group, and somebody else needs the line.
    fn is_needed(&self, group: GroupId) -> bool {
        let is_last = lock(&self.groups).iter().all(|of| *of == group);
        is_last && self.is_held() && self.has_any_lockspace()
    }

    /// Waits until dlm_controld has stopped the lockspace for this death. False: it waits for no word
    /// about this node, because it left before, or its death was settled.
    fn wait_stopped(&self, group: GroupId, node: NodeId) -> Result<bool, ControlError> {
        let end = Instant::now() + Duration::from_millis(LAG_MS);
        loop {
            // dlm_controld looks a node up in the membership that it started last, and crashes without one.
            let is_stopped = |it: dlmc::Lockspace| it.is_stopped && it.has_started;
            let stopped = self.dlm.lockspace(group)?.is_none_or(is_stopped);
            match self.dlm.node(group, node)? {
                None => return Ok(false),
                Some(seen) if !seen.is_awaited && !seen.is_member => return Ok(false),
                Some(seen) if seen.is_awaited && stopped => return Ok(true),
                Some(_) if Instant::now() >= end => return Err(ControlError::NotStopped(node)),
                Some(_) => sleep(POLL),
            }
        }
    }

    fn notify(&self, group: GroupId, node: NodeId) -> Result<(), ControlError> {
        let end = Instant::now() + Duration::from_millis(LAG_MS);
        while !self.dlm.notified(group, node)? {
            if Instant::now() >= end {
                return Err(ControlError::NotTaken(node));
            }
            sleep(POLL);
        }
        Ok(())
    }
}

fn needed(group: GroupId) -> ShimError {
    let by = "it is the last one, and a volume of a user stack that is no group's is mounted, or a tool is at work on \
              one: without our line to the kernel this node would be reset; unmount that one first";
    ShimError::InUse { region: group.to_string(), by: by.into() }
}

/// The word that a node is dead: 47 bytes in one write.
fn down_record(group: GroupId, node: NodeId) -> [u8; 47] {
    let mut record = *b"DOWN 00000000000000000000000000000000 00000000\n";
    let uuid = group.to_string();
    record[5..37].iter_mut().zip(uuid.bytes()).for_each(|(byte, digit)| *byte = digit);
    line::put_hex(node.0, &mut record[38..46]);
    record
}

/// The newest locking protocol that the kernel knows, from the file that says so.
///
/// # Errors
/// It cannot be read (the module ocfs2 is not loaded), or is no version.
pub fn highest_protocol(path: &Path) -> Result<LockingProtocol, ShimError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| ShimError::file("read", path, error))?;
    let version = text.trim().split_once('.').and_then(|(major, minor)| {
        Some(LockingProtocol { major: major.parse().ok()?, minor: minor.parse().ok()? })
    });
    let version = version.filter(|version| version.major > 0);
    version.ok_or_else(|| ControlError::Protocol(text.trim().into()).into())
}

impl Shim for Control {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attach(&self, group: GroupId, _: &Peers) -> Result<(), ShimError> {
        self.ready(group)
    }

    fn suspend(&self, _: GroupId) -> Result<(), ShimError> {
        Ok(())
    }

    fn node_down(&self, group: GroupId, node: NodeId, _: Incarnation) -> Result<(), ShimError> {
        if self.told.node()? == node {
            return Err(ControlError::Ourselves(node).into());
        }
        if self.dlm.lockspace(group)?.is_none() {
            // Whoever mounts from now on finds the journal of the dead by itself.
            let is_mounted = self.has_lockspace(group);
            return if is_mounted { Err(ControlError::UnknownLockspace.into()) } else { Ok(()) };
        }
        let is_awaited = self.wait_stopped(group, node)?;
        line::say(&*self.line()?, &down_record(group, node))
            .map_err(|error| ShimError::file("tell of a death", &self.paths.device, error))?;
        if is_awaited {
            self.notify(group, node)?;
        }
        Ok(())
    }

    fn resume(&self, group: GroupId, _: &Peers) -> Result<(), ShimError> {
        self.ready(group)
    }

    fn detach(&self, group: GroupId) -> Result<(), ShimError> {
        // A lockspace that nobody waits for would recover before OCFS2 has heard.
        if self.has_lockspace(group) {
            let by = "the kernel has its lockspace: it is mounted, or a tool is at work".into();
            return Err(ShimError::InUse { region: group.to_string(), by });
        }
        if self.is_needed(group) {
            return Err(needed(group));
        }
        // First, so that nobody registers it again behind us.
        lock(&self.groups).remove(&group);
        let left = match self.dlm.unregister(group) {
            Ok(()) => self.release_if_idle(),
            Err(error) => Err(error.into()),
        };
        // Whoever holds the line keeps the daemon.
        if !matches!(left, Ok(true)) {
            lock(&self.groups).insert(group);
        }
        if left? { Ok(()) } else { Err(needed(group)) }
    }

    /// A dlm_controld that was restarted remembers no registration; to register twice is nothing. A line that an earlier
    /// daemon left to a volume of others goes when that is unmounted.
    fn tend(&self) -> Option<String> {
        if let Err(error) = self.release_if_idle() {
            return Some(error.to_string());
        }
        let groups = lock(&self.groups).clone();
        let register = |group| {
            let registered = self.dlm.register(group);
            if lock(&self.groups).contains(&group) {
                return registered.err().map(|error| error.to_string());
            }
            // It was detached meanwhile; and perhaps attached again.
            let unregistered = self.dlm.unregister(group);
            let is_back = lock(&self.groups).contains(&group);
            let ended = if is_back { self.dlm.register(group) } else { unregistered };
            ended.err().map(|error| error.to_string())
        };
        groups.into_iter().find_map(register)
    }
}

#[cfg(test)]
mod tests;
