//! One process inside a node.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

pub use nix::sys::signal::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::HarnessError;
use crate::space::{first_child, raw_pid};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(2);

/// A process inside a node. Dropping it kills the process (not what the process started: that ends
/// with the node).
#[derive(Debug)]
pub struct Proc {
    name: String,
    /// nsenter; its child is a shell, the shell's child is the process.
    child: Child,
    pid: Option<Pid>,
    stdout: PathBuf,
    stderr: PathBuf,
    stdout_start: u64,
}

/// What a finished command left.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + N after signal N.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The shell stays between nsenter and the process because nsenter stops and continues itself with
/// its child, which would undo a freeze. It says nothing of its own.
const SHELL: &str =
    "cd \"$1\" || exit 127; shift; exec 3>&2 2>/dev/null; \"$@\" 2>&3 3>&-; exit $?";

impl Proc {
    /// Starts `command` behind `enter` (nsenter with its options).
    pub(crate) fn start(
        name: &str,
        mut enter: Command,
        command: &Command,
        directory: &Path,
    ) -> Result<Self, HarnessError> {
        let stdout = directory.join(format!("{name}.out"));
        let stderr = directory.join(format!("{name}.err"));
        let open = |path: &Path| fs::File::options().create(true).append(true).open(path);
        let what = || format!("start {name}");
        let output = open(&stdout).map_err(HarnessError::io(what()))?;
        let errors = open(&stderr).map_err(HarnessError::io(what()))?;
        let stdout_start = output.metadata().map_err(HarnessError::io(what()))?.len();
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => enter.env(key, value),
                None => enter.env_remove(key),
            };
        }
        let child = enter
            .args(["sh", "-c", SHELL, "sh"])
            .arg(command.get_current_dir().unwrap_or(directory))
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .map_err(HarnessError::io(what()))?;
        let name = name.to_owned();
        let mut proc = Self { name, child, pid: None, stdout, stderr, stdout_start };
        proc.find_pid()?;
        Ok(proc)
    }

    /// Walks from nsenter over the shell to the process. A process that ended already has no pid.
    fn find_pid(&mut self) -> Result<(), HarnessError> {
        let deadline = Instant::now() + crate::space::STEP_LIMIT;
        while self.is_running() && Instant::now() < deadline {
            let shell = first_child(raw_pid(self.child.id()));
            self.pid = shell.and_then(first_child);
            if self.pid.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.is_running() {
            return Err(self.timed_out("start", crate::space::STEP_LIMIT));
        }
        Ok(())
    }

    /// Its name: that of its output files.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pid as the test process sees it (inside the node it has another one). `None` if it ended
    /// before it could be seen.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid.map(|pid| pid.as_raw().unsigned_abs())
    }

    /// Its pid as the node sees it, and as CPG reports it. `None` if it ended.
    #[must_use]
    pub fn inner_pid(&self) -> Option<u32> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        line.split_whitespace().last()?.parse().ok()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal. A process that ended is left alone.
    pub fn signal(&mut self, signal: Signal) {
        if !self.is_running() {
            return;
        }
        if let Some(pid) = self.pid {
            let _ = kill(pid, signal);
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It did not end in time; it is still running then.
    pub fn wait(&mut self, limit: Duration) -> Result<i32, HarnessError> {
        let deadline = Instant::now() + limit;
        loop {
            let what = || format!("wait for {}", self.name);
            if let Some(status) = self.child.try_wait().map_err(HarnessError::io(what()))? {
                use std::os::unix::process::ExitStatusExt;
                return Ok(status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
            }
            if Instant::now() >= deadline {
                return Err(self.timed_out("end", limit));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Its standard input. Once; dropping it closes it.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Writes to its standard input.
    ///
    /// # Errors
    /// It is closed.
    pub fn write_line(&mut self, line: &str) -> io::Result<()> {
        use std::io::Write;
        let stdin = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(stdin, "{line}")?;
        stdin.flush()
    }

    /// The file of its standard output. Processes of the same name append to the same file.
    #[must_use]
    pub fn stdout_path(&self) -> &Path {
        &self.stdout
    }

    /// The file of its standard error.
    #[must_use]
    pub fn stderr_path(&self) -> &Path {
        &self.stderr
    }

    /// What this process wrote to its standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = fs::File::open(&self.stdout) {
            let start = file.seek(SeekFrom::Start(self.stdout_start));
            let _ = start.and_then(|_| file.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until its standard output holds a line that contains `text`, and returns the line.
    ///
    /// # Errors
    /// No such line in time, or the process ended without it.
    pub fn wait_line(&mut self, text: &str, limit: Duration) -> Result<String, HarnessError> {
        let deadline = Instant::now() + limit;
        loop {
            // Asked before the reading, so that the last words of an ended process are read.
            let running = self.is_running();
            let output = self.stdout();
            let complete = output.rsplit_once('\n').map_or("", |(lines, _)| lines);
            if let Some(line) = complete.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if !running || Instant::now() >= deadline {
                return Err(self.timed_out(&format!("print '{text}'"), limit));
            }
            std::thread::sleep(POLL);
        }
    }

    fn timed_out(&self, what: &str, limit: Duration) -> HarnessError {
        HarnessError::TimedOut {
            what: format!("{} was to {what}", self.name),
            limit,
            detail: format!("{}{}", tail(&self.stdout), tail(&self.stderr)),
        }
    }

    /// Its whole output, after the end.
    pub(crate) fn output(&self, code: i32) -> Output {
        let stderr = fs::read_to_string(&self.stderr).unwrap_or_default();
        Output { code, stdout: self.stdout(), stderr }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a file, with its name, for an error's text.
pub(crate) fn tail(path: &Path) -> String {
    const LINES: usize = 20;
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    format!("--- {} ({} lines)\n{}\n", path.display(), lines.len(), last.join("\n"))
}
