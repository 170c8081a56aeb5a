//! Running a fence agent, in the convention of the field's agents: `key=value` lines on standard
//! input, exit code 0 for a node that is off. Blocks; belongs on a worker thread.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use o2bridge_core::{NodeId, OpError};

use super::workers::STACK_BYTES;

/// What is kept of an agent's output; its end says why it failed.
pub const OUTPUT_BYTES_MAX: usize = 2 * 1024;
/// How often a running agent is looked after.
const LOOK_MS: u64 = 50;
/// How long a killed agent may take to go. One that hangs in the kernel is left behind.
const KILL_MS: u64 = 2_000;
/// What a thread may come too late by.
const LATE_MS: u64 = 1_000;
/// The environment of an agent: ours holds the service manager's sockets.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How a program ended, and its last words.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it did what it should.
    pub result: Result<(), OpError>,
    /// The end of what it wrote to standard output and error, made printable.
    pub output: String,
}

/// A run: about whom, which program, and what it is told.
type Run = (NodeId, OsString, String);

/// The runs under way. One that hangs holds a thread, and the child that hangs with it: so the same one is not
/// started again before it has ended. Another one may be: it perhaps needs another disk.
static UNDER_WAY: Mutex<BTreeSet<Run>> = Mutex::new(BTreeSet::new());

/// A place among the runs under way; it is free again when this is dropped.
struct Place(Run);

/// Runs a program on behalf of a node to its end, or kills it and everything of its process group after
/// `timeout_ms`.
#[must_use]
pub fn run(node: NodeId, command: Command, input: String, timeout_ms: u64) -> Outcome {
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    let run = (node, command.get_program().to_owned(), input.clone());
    watched(run, timeout_ms, move || match start(command, &input, deadline) {
        Ok((mut child, pipe)) => {
            let mut output = Vec::new();
            let result = follow(&mut child, pipe, deadline, &mut output);
            let stuck = matches!(child.try_wait(), Ok(None)).then_some(child);
            (Outcome { result, output: printable(&output) }, stuck)
        }
        Err(error) => (failed(&error), None),
    })
}

/// Runs a job on a thread that may be left behind: a program whose disk hangs does not even start, and no signal
/// ends that. With its outcome comes the child that hangs in the kernel although it was killed.
fn watched(
    run: Run,
    timeout_ms: u64,
    job: impl FnOnce() -> (Outcome, Option<Child>) + Send + 'static,
) -> Outcome {
    let late = |output: &str| Outcome { result: Err(OpError::TimedOut), output: output.into() };
    let Some(place) = Place::take(run) else {
        return late("not started: the same run hangs since an earlier attempt");
    };
    let (done, outcome) = channel();
    let body = move || {
        let (outcome, stuck) = job();
        let stuck = stuck.map(|child| (child, place));
        // The place of a run that is over is free by now.
        let _ = done.send(outcome);
        // A child that hangs ends some day, and is not to stay as a zombie.
        if let Some((mut child, _place)) = stuck {
            let _ = child.wait();
        }
    };
    let thread = std::thread::Builder::new().name("agent".into()).stack_size(STACK_BYTES);
    if let Err(error) = thread.spawn(body) {
        return failed(&error);
    }
    let limit = Duration::from_millis(timeout_ms.saturating_add(KILL_MS).saturating_add(LATE_MS));
    outcome
        .recv_timeout(limit)
        .unwrap_or_else(|_| late("it could not be started: does the disk that it is on answer?"))
}

impl Place {
    /// A place, unless the same run has one.
    fn take(run: Run) -> Option<Self> {
        under_way().insert(run.clone()).then(|| Self(run))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        under_way().remove(&self.0);
    }
}

fn under_way() -> MutexGuard<'static, BTreeSet<Run>> {
    // Nothing that can panic runs under the lock.
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(error: &std::io::Error) -> Outcome {
    let errno = error.raw_os_error().unwrap_or(nix::libc::EIO);
    Outcome { result: Err(OpError::Errno(errno)), output: String::new() }
}

fn start(
    mut command: Command,
    input: &str,
    deadline: Instant,
) -> std::io::Result<(Child, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = command
        .env_clear()
        .env("PATH", PATH)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
        .stderr(Stdio::from(OwnedFd::from(theirs)))
        .spawn()?;
    // We are protected from the out-of-memory killer; an agent need not be. Best effort.
    let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0");
    // One that started too late is killed: it must not be told whom to fence.
    if let Some(mut stdin) = child.stdin.take_if(|_| Instant::now() < deadline) {
        // It fits into the pipe (the configuration bounds it), and an agent that reads nothing and
        // ends is judged by its exit code.
        let _ = stdin.write_all(input.as_bytes());
    }
    Ok((child, ours))
}

/// Reads the output until the agent ends. Not until the output ends: a child that it left behind may
/// hold that open for ever.
fn follow(
    child: &mut Child,
    mut pipe: UnixStream,
    deadline: Instant,
    output: &mut Vec<u8>,
) -> Result<(), OpError> {
    let mut open = true;
    loop {
        if open {
            open = wait_and_read(&mut pipe, output);
        } else {
            std::thread::sleep(Duration::from_millis(LOOK_MS));
        }
        match child.try_wait() {
            Ok(Some(status)) => {
                read_all(&mut pipe, output);
                return judge(status);
            }
            Ok(None) if Instant::now() < deadline => {}
            Ok(None) | Err(_) => {
                kill(child);
                read_all(&mut pipe, output);
                return Err(OpError::TimedOut);
            }
        }
    }
}

/// Exit codes as a shell shows them: a signal is 128 and its number.
fn judge(status: ExitStatus) -> Result<(), OpError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(OpError::Agent(code)),
        (None, signal) => Err(OpError::Agent(128 + signal.unwrap_or(0))),
    }
}

fn wait_and_read(pipe: &mut UnixStream, output: &mut Vec<u8>) -> bool {
    let timeout = PollTimeout::try_from(LOOK_MS).unwrap_or(PollTimeout::ZERO);
    // EINTR and the like only shorten the wait.
    let _ = poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout);
    read_all(pipe, output)
}

/// Reads what is there and keeps the end of it; false once the other side is closed.
fn read_all(pipe: &mut UnixStream, output: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    // Bounded, so that an agent that writes without end still meets its deadline.
    for _ in 0..64 {
        match pipe.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => keep_end(output, &buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

fn kill(child: &mut Child) {
    let Ok(group) = i32::try_from(child.id()) else { return };
    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    let end = Instant::now() + Duration::from_millis(KILL_MS);
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Appends what an agent wrote, and forgets the beginning of what is more than [`OUTPUT_BYTES_MAX`].
pub fn keep_end(output: &mut Vec<u8>, more: &[u8]) {
    output.extend_from_slice(more);
    let surplus = output.len().saturating_sub(OUTPUT_BYTES_MAX);
    output.drain(..surplus);
}

/// One line for the log, whatever an agent wrote.
#[must_use]
pub fn printable(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let words = text.split(|c: char| c.is_control()).filter(|part| !part.trim().is_empty());
    words.map(str::trim).collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A node of its own for each run, because tests run at the same time.
    fn somebody() -> NodeId {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        NodeId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// A shell script that stands for an agent.
    fn script(text: &str, input: &str, timeout_ms: u64) -> (Outcome, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fence_test");
        std::fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}\n", dir.path().display())).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        // Through the shell: running a file that this process just wrote can fail with ETXTBSY when
        // another test forks meanwhile.
        let mut command = Command::new("/bin/sh");
        command.arg(&path);
        let outcome = run(somebody(), command, input.to_owned(), timeout_ms);
        (outcome, dir)
    }

    #[test]
    fn success_with_its_input_and_without_our_environment() {
        let (outcome, dir) =
            script("cat > input; env > env; echo fine", "action=off\nplug=3\n", 10_000);
        assert_eq!(outcome, Outcome { result: Ok(()), output: "fine".into() });
        let read = |name| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("input"), "action=off\nplug=3\n");
        assert!(!read("env").contains("CARGO"), "{}", read("env"));
        assert!(read("env").contains(PATH));
    }

    #[test]
    fn failure_with_its_code_and_words() {
        let (outcome, _dir) = script("echo to stdout; echo 'no such plug' >&2; exit 3", "", 10_000);
        assert_eq!(outcome.result, Err(OpError::Agent(3)));
        assert_eq!(outcome.output, "to stdout | no such plug");
        let (outcome, _dir) = script("kill -TERM $$", "", 10_000);
        assert_eq!(outcome.result, Err(OpError::Agent(143)));
    }

    #[test]
    fn a_hanging_agent_is_killed_with_its_children() {
        let started = Instant::now();
        let (outcome, dir) =
            script("sleep 100 & echo $! > child; echo waiting; sleep 100", "", 300);
        assert_eq!(outcome, Outcome { result: Err(OpError::TimedOut), output: "waiting".into() });
        assert!(started.elapsed() < Duration::from_secs(5));
        let child = std::fs::read_to_string(dir.path().join("child")).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim()));
        let gone = || state().map_or(true, |stat| stat.contains(") Z "));
        for _ in 0..100 {
            if gone() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the child outlived its agent: {:?}", state());
    }

    #[test]
    fn an_agent_that_leaves_a_child_behind_has_ended() {
        let started = Instant::now();
        let (outcome, _dir) = script("sleep 3 & exit 0", "", 60_000);
        assert_eq!(outcome.result, Ok(()));
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }

    #[test]
    fn garbage_without_end_is_cut_and_made_printable() {
        let (outcome, _dir) = script(
            "head -c 3000000 /dev/urandom; printf 'last\\033[31m\\377\\nwords'; exit 1",
            "",
            20_000,
        );
        assert_eq!(outcome.result, Err(OpError::Agent(1)));
        assert!(outcome.output.len() <= 3 * OUTPUT_BYTES_MAX, "{}", outcome.output.len());
        assert!(outcome.output.ends_with("| words"), "{}", outcome.output);
        assert!(!outcome.output.contains(char::is_control));
        let (outcome, _dir) = script("exec cat /dev/zero", "", 300);
        assert_eq!(outcome.result, Err(OpError::TimedOut));
    }

    #[test]
    fn an_agent_that_does_not_read_and_one_that_is_not_there() {
        let (outcome, _dir) = script("exec <&-; exit 0", &"key=value\n".repeat(3_000), 10_000);
        assert_eq!(outcome.result, Ok(()));
        let outcome = run(somebody(), Command::new("/no/such/agent"), String::new(), 1_000);
        assert_eq!(outcome.result, Err(OpError::Errno(2)));
    }

    fn a_run() -> Run {
        (somebody(), "/bin/agent".into(), "action=off\n".into())
    }

    /// A disk that does not answer holds up even the start of what is on it.
    #[test]
    fn an_agent_that_cannot_start_is_not_waited_for() {
        let started = Instant::now();
        let (release, held) = channel::<()>();
        let outcome = watched(a_run(), 100, move || {
            let _ = held.recv();
            (fine(), None)
        });
        assert_eq!(outcome.result, Err(OpError::TimedOut));
        assert!(outcome.output.contains("could not be started"), "{}", outcome.output);
        assert!(started.elapsed() < Duration::from_secs(10));
        drop(release);
    }

    fn fine() -> Outcome {
        Outcome { result: Ok(()), output: String::new() }
    }

    /// Every further one would hold a thread and a child as well, for as long as the disk does not answer.
    #[test]
    fn a_run_that_hangs_is_not_started_again_before_it_ended() {
        let run = a_run();
        let (release, held) = channel::<()>();
        let outcome = watched(run.clone(), 0, move || {
            let _ = held.recv();
            (fine(), None)
        });
        assert_eq!(outcome.result, Err(OpError::TimedOut));

        let started = Instant::now();
        let outcome = watched(run.clone(), 60_000, || unreachable!("the first one hangs"));
        assert_eq!(outcome.result, Err(OpError::TimedOut));
        assert!(outcome.output.contains("hangs since"), "{}", outcome.output);
        assert!(started.elapsed() < Duration::from_secs(10));
        let another = (run.0, run.1.clone(), "action=off\nplug=2\n".into());
        assert_eq!(watched(another, 60_000, || (fine(), None)), fine());

        drop(release);
        let end = Instant::now() + Duration::from_secs(10);
        while watched(run.clone(), 60_000, || (fine(), None)) != fine() {
            assert!(Instant::now() < end, "the first one ended");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(
            watched(run, 60_000, || (fine(), None)),
            fine(),
            "one that ended is over at once"
        );
    }

    /// As one in the kernel's uninterruptible sleep: the outcome is there, and the child still is.
    #[test]
    fn a_run_whose_child_does_not_end_is_not_started_again() {
        let run = a_run();
        let mut command = Command::new("/bin/sh");
        let mut child = command.args(["-c", "read end"]).stdin(Stdio::piped()).spawn().unwrap();
        let end = child.stdin.take();
        assert_eq!(watched(run.clone(), 60_000, move || (fine(), Some(child))), fine());
        let outcome = watched(run.clone(), 60_000, || unreachable!("its child is still there"));
        assert_eq!(outcome.result, Err(OpError::TimedOut));
        drop(end);
        let late = Instant::now() + Duration::from_secs(10);
        while watched(run.clone(), 60_000, || (fine(), None)) != fine() {
            assert!(Instant::now() < late, "the child ended");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// It started after its time: it is killed, and never hears whom it should have fenced.
    #[test]
    fn an_agent_that_starts_too_late_is_told_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("cat > {}/input", dir.path().display()));
        let (mut child, pipe) = start(command, "action=off\n", Instant::now()).unwrap();
        let result = follow(&mut child, pipe, Instant::now(), &mut Vec::new());
        assert_eq!(result, Err(OpError::TimedOut));
        child.wait().unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("input")).unwrap_or_default(), "");
    }
}
