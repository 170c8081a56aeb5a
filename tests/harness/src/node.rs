//! One node: its namespaces, its power switch, its cable and its corosync.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::HarnessError;
use crate::conf::{Settings, address, corosync_conf};
use crate::proc::{Output, Proc, Signal, tail};
use crate::space::{Holder, Space};

/// How long a corosync gets to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// `totem.config_version` of a node at first. Not 1, so that a test can give a node an older one.
const FIRST_CONFIG_VERSION: u64 = 2;
/// How long a question to corosync may take.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// Process 1 of a node. It makes the node's private places, then only reaps orphans. The ring
/// sequence in /var/lib/corosync outlives a reboot, as on a disk; /run and /dev/shm do not.
const INIT: &str = r#"
set -e
mount --bind "$1/run" /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount --bind "$1/lib" /var/lib/corosync
mount --bind "$1/etc" /etc/corosync
mount --bind "$1/boot_id" /proc/sys/kernel/random/boot_id
hostname "$2"
ip link set lo up
echo ready
while :; do sleep 3600; done
"#;

/// One node of a [`crate::Cluster`].
#[derive(Debug)]
pub struct Node {
    id: u32,
    directory: PathBuf,
    space: Arc<Space>,
    settings: Settings,
    state: Mutex<State>,
    runs: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// `None`: powered off.
    holder: Option<Holder>,
    corosync: Option<Proc>,
    boots: u32,
    bridge: usize,
    cable: bool,
    config_version: u64,
}

impl Node {
    pub(crate) fn new(
        id: u32,
        directory: PathBuf,
        space: Arc<Space>,
        settings: Settings,
    ) -> Result<Self, HarnessError> {
        for part in ["run", "lib", "etc"] {
            let path = directory.join(part);
            let what = format!("make {}", path.display());
            fs::create_dir_all(path).map_err(HarnessError::io(what))?;
        }
        let state = State {
            holder: None,
            corosync: None,
            boots: 0,
            bridge: 0,
            cable: true,
            config_version: FIRST_CONFIG_VERSION,
        };
        let runs = AtomicU64::new(0);
        Ok(Self { id, directory, space, settings, state: Mutex::new(state), runs })
    }

    /// Its corosync node id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        address(self.id)
    }

    /// Its private directory. The path is the same inside the node and outside. `run` in it is the
    /// node's /run, so that a test can connect to a socket that a daemon of the node made there.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.directory
    }

    /// What its kernel says in `/proc/sys/kernel/random/boot_id`.
    #[must_use]
    pub fn boot_id(&self) -> String {
        let text = fs::read_to_string(self.directory.join("boot_id")).unwrap_or_default();
        text.trim().to_owned()
    }

    /// Whether it is powered on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.lock().holder.is_some()
    }

    /// The pid of its process 1, as the test process sees it. `None` while it is off.
    #[must_use]
    pub fn init_pid(&self) -> Option<u32> {
        self.lock().holder.as_ref().map(|holder| holder.pid().as_raw().unsigned_abs())
    }

    /// Starts a program in the node. Program, arguments, environment and working directory (default:
    /// [`Self::dir`]) are taken from `command`; its output goes to `NAME.out` and `NAME.err` in
    /// [`Self::dir`].
    ///
    /// # Errors
    /// The node is off, or nsenter could not be started. A program that does not exist ends with
    /// code 127.
    pub fn spawn(&self, name: &str, command: &Command) -> Result<Proc, HarnessError> {
        let pid = self.holder_pid()?;
        let enter = self.space.enter(pid, &["--mount", "--net", "--uts", "--pid"]);
        Proc::start(name, with_path(enter), command, &self.directory)
    }

    /// Runs a program in the node to its end, with nothing on its standard input.
    ///
    /// # Errors
    /// As [`Self::spawn`]; or it did not end in time, then it was killed.
    pub fn run(&self, command: &Command, limit: Duration) -> Result<Output, HarnessError> {
        let name = format!("run-{}", self.runs.fetch_add(1, Ordering::Relaxed));
        let mut proc = self.spawn(&name, command)?;
        drop(proc.take_stdin());
        let code = proc.wait(limit)?;
        let output = proc.output(code);
        let _ = fs::remove_file(proc.stdout_path());
        let _ = fs::remove_file(proc.stderr_path());
        Ok(output)
    }

    /// Starts its corosync, and returns when corosync answers. It may not be quorate yet: see
    /// [`crate::Cluster::wait_members`].
    ///
    /// # Errors
    /// It did not start; the error holds the end of its log.
    pub fn start_corosync(&self) -> Result<(), HarnessError> {
        self.launch_corosync()?;
        let limit = crate::space::STEP_LIMIT;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            if self.members().is_some() {
                return Ok(());
            }
            let mut state = self.lock();
            if !state.corosync.as_mut().is_some_and(Proc::is_running) {
                break;
            }
            drop(state);
            std::thread::sleep(Duration::from_millis(20));
        }
        let what = format!("start corosync of node {}", self.id);
        Err(HarnessError::TimedOut { what, limit, detail: self.corosync_log() })
    }

    /// Starts its corosync and does not wait for anything.
    ///
    /// # Errors
    /// The node is off, or the process could not be started.
    pub fn launch_corosync(&self) -> Result<(), HarnessError> {
        let mut state = self.lock();
        let text = corosync_conf(&self.settings, state.config_version, &self.directory);
        let path = self.directory.join("etc/corosync.conf");
        let what = format!("write {}", path.display());
        fs::write(&path, text).map_err(HarnessError::io(what))?;
        let pid = state.holder.as_ref().ok_or(HarnessError::PoweredOff(self.id))?.pid();
        let enter = self.space.enter(pid, &["--mount", "--net", "--uts", "--pid"]);
        let mut command = Command::new("corosync");
        command.args(["-f", "-c", "/etc/corosync/corosync.conf"]);
        state.corosync = None;
        let proc = Proc::start("corosync", with_path(enter), &command, &self.directory)?;
        state.corosync = Some(proc);
        Ok(())
    }

    /// SIGKILL to its corosync alone.
    pub fn kill_corosync(&self) {
        self.lock().corosync = None;
    }

    /// SIGTERM to its corosync: a clean stop. Returns when it ended.
    ///
    /// # Errors
    /// It did not end within ten seconds.
    pub fn stop_corosync(&self) -> Result<(), HarnessError> {
        let mut state = self.lock();
        if let Some(corosync) = state.corosync.as_mut() {
            corosync.signal(Signal::SIGTERM);
            corosync.wait(STOP_LIMIT)?;
        }
        state.corosync = None;
        Ok(())
    }

    /// Whether its corosync runs (also when frozen).
    #[must_use]
    pub fn has_corosync(&self) -> bool {
        self.lock().corosync.as_mut().is_some_and(Proc::is_running)
    }

    /// The pid of its corosync, as the test process sees it.
    #[must_use]
    pub fn corosync_pid(&self) -> Option<u32> {
        self.lock().corosync.as_ref().and_then(Proc::pid)
    }

    /// SIGSTOP to its corosync.
    pub fn freeze_corosync(&self) {
        self.signal_corosync(Signal::SIGSTOP);
    }

    /// SIGCONT to its corosync.
    pub fn thaw_corosync(&self) {
        self.signal_corosync(Signal::SIGCONT);
    }

    fn signal_corosync(&self, signal: Signal) {
        if let Some(corosync) = self.lock().corosync.as_mut() {
            corosync.signal(signal);
        }
    }

    /// The `config_version` that the next start of its corosync uses (2 at first). Corosync ends
    /// itself when it meets a ring with a higher one.
    pub fn set_config_version(&self, version: u64) {
        self.lock().config_version = version;
    }

    /// Cuts its power: every process in it ends at once, its network is gone. Returns when the last
    /// process is gone. [`Proc`]s of this node see their end like any other.
    pub fn crash(&self) {
        let mut state = self.lock();
        state.holder = None;
        state.corosync = None;
    }

    /// [`Self::crash`], then power on: new boot id, empty /run and /dev/shm. Corosync is not
    /// started. A cable that was out is still out.
    ///
    /// # Errors
    /// The namespaces could not be made.
    pub fn reboot(&self) -> Result<(), HarnessError> {
        self.crash();
        self.boot()
    }

    /// Power on.
    pub(crate) fn boot(&self) -> Result<(), HarnessError> {
        let mut state = self.lock();
        let dir = &self.directory;
        let what = || format!("prepare {}", dir.display());
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid");
        fs::write(dir.join("boot_id"), uuid.map_err(HarnessError::io(what()))?)
            .map_err(HarnessError::io(what()))?;
        fs::remove_dir_all(dir.join("run")).map_err(HarnessError::io(what()))?;
        fs::create_dir(dir.join("run")).map_err(HarnessError::io(what()))?;
        let options = ["--mount", "--net", "--uts", "--pid", "--fork", "--kill-child"];
        let mut command = self.space.command(&["unshare"]);
        command.args(options).args(["--mount-proc", "--", "sh", "-c", INIT, "sh"]);
        command.arg(dir).arg(format!("node{}", self.id));
        // nsenter, then unshare, then the node's process 1.
        let holder = Holder::start(command, 2, &dir.join("init.err")).map_err(|detail| {
            HarnessError::Command { what: format!("boot node {}", self.id), detail }
        })?;
        state.boots += 1;
        self.plug(&state, holder.pid())?;
        state.holder = Some(holder);
        Ok(())
    }

    /// Gives the node its interface. The port's name differs for each boot, because the kernel takes
    /// its time to remove the last one; the MAC address is the same, so that peers need not learn it.
    fn plug(&self, state: &State, init: Pid) -> Result<(), HarnessError> {
        let (id, port) = (self.id, self.port(state));
        let updown = if state.cable { "up" } else { "down" };
        let bridge = state.bridge;
        self.space.ip(
            None,
            &format!(
                "link add {port} type veth peer name eth0 address 02:00:0a:4e:00:{id:02x} \
                 netns {init}\nlink set {port} master br{bridge} {updown}\n"
            ),
        )?;
        let address = self.address();
        self.space.ip(Some(init), &format!("addr add {address}/24 dev eth0\nlink set eth0 up\n"))
    }

    fn port(&self, state: &State) -> String {
        format!("n{}b{}", self.id, state.boots)
    }

    /// Pulls its network cable.
    ///
    /// # Errors
    /// ip(8) failed.
    pub fn cable_out(&self) -> Result<(), HarnessError> {
        self.set_cable(false)
    }

    /// Puts its network cable back.
    ///
    /// # Errors
    /// ip(8) failed.
    pub fn cable_in(&self) -> Result<(), HarnessError> {
        self.set_cable(true)
    }

    /// Whatever this node sends to another one is lost; the other way goes on. Until
    /// [`crate::Cluster::heal`], or a reboot.
    ///
    /// # Errors
    /// The node is off, or ip(8) failed.
    pub fn mute(&self, to: u32) -> Result<(), HarnessError> {
        let pid = self.holder_pid()?;
        self.space.ip(Some(pid), &format!("route add blackhole {}/32\n", address(to)))
    }

    /// Ends every [`Self::mute`].
    pub(crate) fn unmute(&self) -> Result<(), HarnessError> {
        match self.holder_pid() {
            Ok(pid) => self.space.ip(Some(pid), "route flush type blackhole\n"),
            // It forgot with its network.
            Err(_) => Ok(()),
        }
    }

    fn set_cable(&self, cable: bool) -> Result<(), HarnessError> {
        let mut state = self.lock();
        state.cable = cable;
        if state.holder.is_none() {
            return Ok(());
        }
        let updown = if cable { "up" } else { "down" };
        self.space.ip(None, &format!("link set {} {updown}\n", self.port(&state)))
    }

    /// The line of ip(8) that moves the node to a bridge. Empty while it is off: then the next boot
    /// does it.
    pub(crate) fn move_to(&self, bridge: usize) -> String {
        let mut state = self.lock();
        state.bridge = bridge;
        match state.holder {
            Some(_) => format!("link set {} master br{bridge}\n", self.port(&state)),
            None => String::new(),
        }
    }

    /// The nodes of its ring, and whether they are quorate. `None` while corosync does not answer.
    #[must_use]
    pub fn members(&self) -> Option<(Vec<u32>, bool)> {
        let mut command = Command::new("corosync-quorumtool");
        command.args(["-s", "-i"]);
        let output = self.run(&command, ASK_LIMIT).ok()?;
        let quorate = output.stdout.lines().find_map(|line| line.strip_prefix("Quorate:"))?;
        let (_, table) = output.stdout.split_once("Membership information")?;
        let ids = table.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok());
        Some((ids.collect(), quorate.trim() == "Yes"))
    }

    /// The end of corosync's log and of what it printed.
    #[must_use]
    pub fn corosync_log(&self) -> String {
        let parts = ["corosync.log", "corosync.out", "corosync.err"];
        parts.map(|part| tail(&self.directory.join(part))).concat()
    }

    fn holder_pid(&self) -> Result<Pid, HarnessError> {
        let state = self.lock();
        state.holder.as_ref().map(Holder::pid).ok_or(HarnessError::PoweredOff(self.id))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An ordinary user's PATH lacks corosync.
fn with_path(mut command: Command) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
