//! The daemon as a process: one per node, in memory, not starved, not killed for memory.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use o2bridge_core::BootId;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use crate::config::ProcessSection;

/// Out of the killer's reach altogether.
const OOM_NEVER: &str = "-1000";

/// The daemon cannot be the daemon of this node.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Another one runs.
    #[error("o2bridged runs already on this node, with process id {pid} (it holds {})", path.display())]
    SecondInstance {
        /// Its process id, as it wrote it.
        pid: String,
        /// The file that it holds locked.
        path: PathBuf,
    },
    /// A file that it needs is not to be had.
    #[error("cannot {step} {}: {source}", path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel's boot id is no boot id.
    #[error("{} holds no boot id, but \"{text}\"", path.display())]
    BootId {
        /// The file.
        path: PathBuf,
        /// Its content.
        text: String,
    },
}

fn file_error(step: &'static str, path: &Path, source: impl Into<io::Error>) -> ProcessError {
    ProcessError::File { step, path: path.into(), source: source.into() }
}

/// Whoever may read the pid file may lock it, and keep the next daemon out.
const PID_MODE: u32 = 0o600;

/// The proof that this is the only daemon of the run directory, as long as it lives.
#[derive(Debug)]
pub struct OnlyInstance {
    _lock: Flock<File>,
}

impl OnlyInstance {
    /// Makes the run directory, and locks and writes the pid file in it. The lock goes with the
    /// process, however it ends; the file stays.
    ///
    /// # Errors
    /// Another daemon holds it, or it cannot be made.
    pub fn claim(run_dir: &Path) -> Result<Self, ProcessError> {
        std::fs::create_dir_all(run_dir).map_err(|error| file_error("make", run_dir, error))?;
        let path = run_dir.join("o2bridged.pid");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(PID_MODE);
        let mut file = options.open(&path).map_err(|error| file_error("open", &path, error))?;
        // An earlier version's may be readable for all.
        file.set_permissions(Permissions::from_mode(PID_MODE))
            .map_err(|error| file_error("protect", &path, error))?;
        let mut pid = String::new();
        file.read_to_string(&mut pid).map_err(|error| file_error("read", &path, error))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(ProcessError::SecondInstance { pid: pid.trim().into(), path });
            }
            Err((_, errno)) => return Err(file_error("lock", &path, errno)),
        };
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(&*lock, "{}", std::process::id()))
            .map_err(|error| file_error("write", &path, error))?;
        Ok(Self { _lock: lock })
    }
}

/// Reads the kernel's name for its boot.
///
/// # Errors
/// The file cannot be read, or holds something else: all zeros name no boot.
pub fn boot_id(path: &Path) -> Result<BootId, ProcessError> {
    let text = std::fs::read_to_string(path).map_err(|error| file_error("read", path, error))?;
    let text = text.trim();
    let digits: String = text.chars().filter(|digit| *digit != '-').collect();
    match u128::from_str_radix(&digits, 16) {
        Ok(id) if digits.len() == 32 && BootId(id) != BootId::UNSEEN => Ok(BootId(id)),
        Ok(_) | Err(_) => Err(ProcessError::BootId { path: path.into(), text: text.into() }),
    }
}

/// What the system granted.
#[derive(Debug, Default)]
pub struct Protection {
    /// Whether all memory is locked.
    pub memory_locked: bool,
    /// What was wanted and refused, as sentences.
    pub refused: Vec<String>,
}

/// Asks the system for everything that the daemon should have. To be called before any thread is
/// made: threads inherit.
#[must_use]
pub fn protect(wanted: &ProcessSection) -> Protection {
    let mut refused = Vec::new();
    let mut ask = |wanted: bool, what: &str, answer: &dyn Fn() -> Result<(), String>| {
        let answer = if wanted { answer() } else { return false };
        if let Err(error) = &answer {
            refused.push(format!("{what}: {error}"));
        }
        answer.is_ok()
    };
    ask(true, "cannot raise the limit of open files", &|| raise(Resource::RLIMIT_NOFILE));
    ask(wanted.protect_from_oom, "the kernel may end this daemon when memory is short", &|| {
        std::fs::write("/proc/self/oom_score_adj", OOM_NEVER).map_err(|error| error.to_string())
    });
    let priority = wanted.realtime_priority.get();
    ask(priority > 0, "no realtime priority, a busy machine may delay deaths", &|| {
        realtime(priority)
    });
    let memory_locked = ask(
        wanted.lock_memory,
        "memory is not locked, a hanging disk under swap or programs may stop this daemon",
        &|| lock_memory().map_err(|errno| errno.to_string()),
    );
    Protection { memory_locked, refused }
}

/// Raises a soft limit to its hard one.
fn raise(resource: Resource) -> Result<(), String> {
    let raised = getrlimit(resource).and_then(|(_, hard)| setrlimit(resource, hard, hard));
    raised.map_err(|errno| errno.to_string())
}

/// Under a finite limit locked memory is worse than none: the first allocation beyond it fails.
fn lock_memory() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
}

fn realtime(priority: u64) -> Result<(), String> {
    let number = u8::try_from(priority).map_err(|error| error.to_string())?;
    let value = ThreadPriorityValue::try_from(number)?;
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    let priority = ThreadPriority::Crossplatform(value);
    set_thread_priority_and_policy(thread_native_id(), priority, policy)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_refused_with_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let first = OnlyInstance::claim(&run_dir).unwrap();
        let message = OnlyInstance::claim(&run_dir).unwrap_err().to_string();
        let pid = format!("process id {} ", std::process::id());
        assert!(message.contains(&pid), "{message}");
        drop(first);
        // Whoever may open it may keep us out.
        let path = run_dir.join("o2bridged.pid");
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let _second = OnlyInstance::claim(&run_dir).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn boot_ids() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot_id");
        std::fs::write(&path, "00000000-0000-0000-0000-0000000000ff\n").unwrap();
        assert_eq!(boot_id(&path).unwrap(), BootId(0xff));
        for bad in ["", "ff\n", "0000000000000000000000000000000g", &"0".repeat(32)] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(boot_id(&path), Err(ProcessError::BootId { .. })), "{bad}");
        }
        assert!(boot_id(Path::new("/proc/sys/kernel/random/boot_id")).unwrap().0 != 0);
    }
}
