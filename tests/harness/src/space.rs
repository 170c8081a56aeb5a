//! The outer namespaces: a shell that holds them, and commands that run inside.
//!
//! The holder is process 1 of its own pid namespace and ends when its standard input does. So the
//! end of the test process, however it comes, ends every process of every node.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::HarnessError;

/// How long the kernel and a shell get for a step that takes milliseconds.
pub(crate) const STEP_LIMIT: Duration = Duration::from_secs(10);

/// Where Debian keeps corosync, ip and mount; an ordinary user's PATH lacks them.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";

/// A process that holds namespaces open, and the processes between it and us.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    pid: Pid,
}

impl Holder {
    /// Starts `command`, waits for its line `ready`, and takes its descendant `depth` generations
    /// down as the holder.
    pub(crate) fn start(mut command: Command, depth: usize, stderr: &Path) -> Result<Self, String> {
        let file = fs::File::create(stderr).map_err(|error| error.to_string())?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        if line.trim() != "ready" {
            let _ = child.kill();
            let _ = child.wait();
            return Err(fs::read_to_string(stderr).unwrap_or_default().trim().to_owned());
        }
        let mut pid = raw_pid(child.id());
        for _ in 0..depth {
            pid = child_of(pid).ok_or_else(|| format!("process {pid} has no child"))?;
        }
        Ok(Self { child, pid })
    }

    /// The holder, as seen from the test process.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }
}

impl Drop for Holder {
    /// Ends every process of the pid namespace, and returns when the last one is gone.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// The namespaces around all nodes of a cluster.
#[derive(Debug)]
pub(crate) struct Space {
    holder: Holder,
    user_namespace: bool,
}

impl Space {
    /// Makes the namespaces, as root directly and else inside a user namespace.
    pub(crate) fn new(directory: &Path) -> Result<Self, HarnessError> {
        let user_namespace = !geteuid().is_root();
        let mut command = program("unshare");
        if user_namespace {
            command.args(["--user", "--map-root-user"]);
        }
        command
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"])
            .args(["sh", "-c", "ip link set lo up && echo ready && cat >/dev/null; exit"]);
        let holder = Holder::start(command, 1, &directory.join("space.err"))
            .map_err(|detail| HarnessError::NoNamespaces { detail })?;
        Ok(Self { holder, user_namespace })
    }

    /// A command in all the outer namespaces.
    pub(crate) fn command(&self, argv: &[&str]) -> Command {
        let mut command = self.enter(self.holder.pid(), &["--mount", "--net", "--pid"]);
        command.args(argv);
        command
    }

    /// nsenter(1) into these namespaces of a process. The caller adds the program.
    pub(crate) fn enter(&self, target: Pid, namespaces: &[&str]) -> Command {
        let mut command = program("nsenter");
        command.arg(format!("--target={target}"));
        if self.user_namespace {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.args(namespaces).arg("--");
        command
    }

    /// Runs lines of ip(8) in the network namespace of `target`, or the outer one. Pids in the
    /// lines are as the test process sees them.
    pub(crate) fn ip(&self, target: Option<Pid>, lines: &str) -> Result<(), HarnessError> {
        let mut command = self.enter(target.unwrap_or(self.holder.pid()), &["--net"]);
        let what = format!("ip -batch ({})", lines.trim().replace('\n', "; "));
        let mut child = command
            .args(["ip", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(HarnessError::io(&what))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(lines.as_bytes()).map_err(HarnessError::io(&what))?;
        }
        let output = child.wait_with_output().map_err(HarnessError::io(&what))?;
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(HarnessError::Command { what, detail: format!("{}: {stderr}", output.status) })
    }
}

/// A command with a PATH that has the system's programs.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:{SBIN}"));
    command
}

/// Finds out before the first step what is not installed.
pub(crate) fn check_programs() -> Result<(), HarnessError> {
    let needed = [
        ("unshare", "util-linux"),
        ("nsenter", "util-linux"),
        ("mount", "mount"),
        ("hostname", "hostname"),
        ("ip", "iproute2"),
        ("corosync", "corosync"),
        ("corosync-quorumtool", "corosync"),
    ];
    let path = format!("{}:{SBIN}", std::env::var("PATH").unwrap_or_default());
    for (program, package) in needed {
        if !path.split(':').any(|directory| Path::new(directory).join(program).exists()) {
            return Err(HarnessError::MissingProgram { program, package });
        }
    }
    Ok(())
}

/// The first child of a process, once it has one. `None` when there is none in time.
pub(crate) fn child_of(parent: Pid) -> Option<Pid> {
    let deadline = Instant::now() + STEP_LIMIT;
    while Instant::now() < deadline {
        match first_child(parent) {
            Some(child) => return Some(child),
            None if !Path::new(&format!("/proc/{parent}")).exists() => return None,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    None
}

/// Reads the children of a process. `/proc/PID/task/PID/children` is not in every kernel, so this
/// asks every process for its parent.
pub(crate) fn first_child(parent: Pid) -> Option<Pid> {
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        // "pid (comm) state ppid ...": comm may hold anything, so start after its last parenthesis.
        let ppid = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if ppid.and_then(|text| text.parse().ok()) == Some(parent.as_raw()) {
            return Some(Pid::from_raw(pid));
        }
    }
    None
}

/// A child's id in the type of the signal calls. Pids fit into 22 bits.
pub(crate) fn raw_pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap_or(i32::MAX))
}
