//! The process: how it starts, and what it asks of the system.
//!
//! It is started twice. `o2bridge-keeper --start ...` leaves session and process group of whoever
//! called it, starts itself again without `--start`, and ends; what remains is nobody's child. That
//! one says `ready` on standard output, or why not, and closes it.
//!
//! Order: signals first, so that none ends a keeper that beats; foreign descriptors, because a
//! descriptor of the daemon's that stays open here is one that nobody can close; then everything that
//! can fail or allocate; then the protections; then `ready`.

mod commands;
mod device;
mod hands;
mod say;
mod server;

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdout, setsid};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use self::device::Device;
use self::hands::Hands;
use self::say::say;
use self::server::Server;
use crate::clock::now;
use crate::state::State;
use crate::{Missing, Settings};

/// First argument of the call that detaches.
pub const START: &str = "--start";
/// What a keeper that serves says on standard output.
pub const READY: &str = "ready\n";

/// How often, and how far apart, the lock is tried: a keeper that was killed just now still ends.
const LOCK_TRIES: u32 = 300;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Connections that may wait: the daemon, and whoever looks.
const BACKLOG: i32 = 8;
/// Stack that is touched before it is needed.
const STACK_BYTES: usize = 128 * 1024;

/// The whole program, and only for it: it closes descriptors that are not its own. `serving` is called once when the keeper is ready and again when it ends, so
/// that a test can look at the process in between.
#[must_use]
pub fn run(mut args: impl Iterator<Item = OsString>, mut serving: impl FnMut()) -> ExitCode {
    let program = args.next().map(PathBuf::from).unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    let result = match args.split_first() {
        Some((first, args)) if first == START => detach(&program, args),
        Some(_) | None => prepare(&args).and_then(|(settings, lock, mut server)| {
            say_ready()?;
            serving();
            server.serve();
            serving();
            let _ = std::fs::remove_file(&settings.socket);
            drop(lock);
            Ok(())
        }),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stdout(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn detach(program: &Path, args: &[OsString]) -> Result<(), String> {
    // Only a leader of its group, which a child of the daemon is not, is refused; it has its own.
    let _ = setsid();
    let mut command = Command::new(program);
    let command = command.args(args).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    command.spawn().map(|_| ()).map_err(|error| failed("start", program, error))
}

fn prepare(args: &[OsString]) -> Result<(Settings, Flock<File>, Server), String> {
    SigSet::all().thread_block().map_err(|error| format!("cannot block signals: {error}"))?;
    close_foreign().map_err(|error| format!("cannot close descriptors: {error}"))?;
    let settings = Settings::from_args(args).map_err(|error| error.to_string())?;
    chdir("/").map_err(|error| failed("change to", Path::new("/"), error))?;
    let _ = umask(Mode::from_bits_truncate(0o177));
    if let Some(log) = &settings.log {
        open_log(log).map_err(|error| failed("open", log, error))?;
    }
    let lock = lock(&settings.lock_path())?;
    let name = settings.device.clone().unwrap_or_default();
    let device = Device::open(&settings).map_err(|error| failed("open", &name, error))?;
    let hands = Hands::open(&settings)?;
    let listener = listen_on(&settings.socket)
        .map_err(|error| failed("listen on", &settings.socket, error))?;
    let state = State::new(&settings, now());
    let missing = protect(&settings);
    touch_stack();
    let fingerprint = settings.fingerprint();
    let server = Server::new(state, device, hands, listener, fingerprint, missing);
    Ok((settings, lock, server))
}

fn failed(step: &str, path: &Path, error: impl std::fmt::Display) -> String {
    format!("cannot {step} {}: {error}", path.display())
}

/// Closes what the daemon, or a library of its, forgot to mark as its own.
fn close_foreign() -> io::Result<()> {
    let names = std::fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name());
    let numbers: Vec<i32> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // The one of the listing itself is gone already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

fn open_log(path: &Path) -> io::Result<()> {
    let log = OpenOptions::new().append(true).create(true).open(path)?;
    Ok(dup2_stderr(&log)?)
}

/// One keeper for a socket. The lock goes with the process; the file stays.
fn lock(path: &Path) -> Result<Flock<File>, String> {
    for _ in 0..LOCK_TRIES {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| failed("open", path, error))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, Errno::EWOULDBLOCK)) => sleep(LOCK_PAUSE),
            Err((_, error)) => return Err(failed("lock", path, error)),
        }
    }
    Err(failed("lock", path, "another keeper holds it"))
}

/// Only who holds the lock comes here, so a socket that is there is a dead keeper's.
fn listen_on(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

/// Asks for all protections; the bits of those that the system refused.
fn protect(settings: &Settings) -> u64 {
    let mut refused = 0;
    for (missing, bit) in Missing::ALL {
        let answer = match missing {
            Missing::LockedMemory if settings.lock_memory => lock_memory(),
            Missing::Realtime if settings.realtime_priority > 0 => {
                realtime(settings.realtime_priority)
            }
            Missing::OutOfMemoryImmunity => {
                let answer = std::fs::write("/proc/self/oom_score_adj", "-1000");
                answer.map_err(|error| error.to_string())
            }
            Missing::LockedMemory | Missing::Realtime => Ok(()),
        };
        if let Err(error) = answer {
            refused |= bit;
            say(format_args!("{missing}: {error}"));
        }
    }
    refused
}

/// Under a finite limit locked memory is worse than none: growth beyond it fails.
fn lock_memory() -> Result<(), String> {
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
        .and_then(|()| mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE))
        .map_err(|error| error.to_string())
}

fn realtime(priority: u8) -> Result<(), String> {
    let priority = ThreadPriority::Crossplatform(ThreadPriorityValue::try_from(priority)?);
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    set_thread_priority_and_policy(thread_native_id(), priority, policy)
        .map_err(|error| error.to_string())
}

#[inline(never)]
fn touch_stack() {
    std::hint::black_box([1_u8; STACK_BYTES]);
}

/// Says so, and lets go of the pipe.
fn say_ready() -> Result<(), String> {
    let nowhere = OpenOptions::new().write(true).open("/dev/null");
    let mut out = io::stdout();
    out.write_all(READY.as_bytes())
        .and_then(|()| out.flush())
        .and_then(|()| Ok(dup2_stdout(nowhere?)?))
        .map_err(|error| format!("cannot say that it is ready: {error}"))
}
