//! One guest: switched on and off, frozen, asked to run commands.

mod qemu;
mod services;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::agent::{Agent, OnFence, Output};
use crate::error::{LabError, Result};
use crate::power::{Process, lock};
use crate::qmp::{self, Qmp};
use crate::wire::ToGuest;

pub(crate) use qemu::{Disk, Machine};
pub use services::Corosync;

/// How long a guest may take from power-on to its agent's first word, in emulation on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(150);
/// How long QEMU may take to open its sockets.
const SOCKET_LIMIT: Duration = Duration::from_secs(20);
/// How often something is looked at that does not announce itself.
const LOOK: Duration = Duration::from_millis(20);

/// How a guest went off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Off {
    /// Its kernel reset the machine: sysrq, a panic, an emergency restart, `reboot -f`.
    Reset,
    /// The hardware watchdog did.
    Watchdog,
    /// It powered itself off.
    PowerOff,
    /// The lab or a fence agent cut its power.
    Killed,
    /// QEMU itself ended; a fault of the lab.
    Broken(String),
}

/// A guest. All methods may be called from several threads.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    on_fence: FenceCall,
    running: Mutex<Option<Arc<Running>>>,
    off: Mutex<Option<(Off, Instant)>>,
}

struct FenceCall(Arc<OnFence>);

impl std::fmt::Debug for FenceCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FenceCall")
    }
}

#[derive(Debug)]
struct Running {
    process: Mutex<Process>,
    qmp: Qmp,
    agent: Arc<Agent>,
    boot_id: String,
    release: String,
}

impl Guest {
    pub(crate) fn new(machine: Machine, on_fence: Arc<OnFence>) -> Self {
        Self {
            machine,
            on_fence: FenceCall(on_fence),
            running: Mutex::default(),
            off: Mutex::default(),
        }
    }

    /// Its name, `n1` to `n4`; also its host name and its name in corosync.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.machine.name
    }

    /// Its number, from 1; also its corosync nodeid.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.machine.number
    }

    /// The directory on the host that the guest sees as `/lab/share`; its logs are in `log` there.
    #[must_use]
    pub fn share(&self) -> PathBuf {
        self.machine.share()
    }

    /// Switches it on and waits until it can run commands.
    ///
    /// # Errors
    /// It is on already, QEMU cannot be started, or the guest does not come up.
    pub fn start(&self) -> Result<()> {
        self.power_on()?.hello()
    }

    /// Switches it on; [`Boot::hello`] waits for it. So several can boot at a time.
    pub(crate) fn power_on(&self) -> Result<Boot<'_>> {
        if lock(&self.running).is_some() {
            return Err(LabError::Expect(format!("{} is on already", self.name())));
        }
        self.machine.prepare()?;
        *lock(&self.off) = None;
        let process = self.machine.start()?;
        let qmp = Qmp::new(qmp::connect(&self.machine.socket("qmp"), SOCKET_LIMIT)?)?;
        let line = qmp::connect(&self.machine.socket("agent"), SOCKET_LIMIT)?;
        let agent = Agent::new(self.name(), line, Arc::clone(&self.on_fence.0))?;
        Ok(Boot { guest: self, process, qmp, agent })
    }

    fn running(&self, what: &str) -> Result<Arc<Running>> {
        let running = lock(&self.running).clone();
        running.ok_or_else(|| LabError::Gone { guest: self.name().into(), what: what.into() })
    }

    /// Whether it is switched on, as far as is known.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.look();
        lock(&self.running).is_some()
    }

    /// The boot id of its kernel.
    ///
    /// # Errors
    /// It is off.
    pub fn boot_id(&self) -> Result<String> {
        Ok(self.running("boot id")?.boot_id.clone())
    }

    /// What `uname -r` says on it.
    ///
    /// # Errors
    /// It is off.
    pub fn release(&self) -> Result<String> {
        Ok(self.running("release")?.release.clone())
    }

    /// Runs a shell command to its end. Its standard input is empty. A daemon that it leaves behind
    /// is not waited for.
    ///
    /// # Errors
    /// It does not end within `limit` (its process group is killed then), or the guest is off. A
    /// command that fails is not an error.
    pub fn run(&self, command: &str, limit: Duration) -> Result<Output> {
        let job = self.spawn(command)?;
        let output = job.wait(limit);
        if output.is_err() {
            let _ = job.kill();
        }
        output
    }

    /// As [`Guest::run`] within 30 seconds, and the command must succeed; gives back its standard
    /// output without the last newline.
    ///
    /// # Errors
    /// As [`Guest::run`], and a failing command.
    pub fn ok(&self, command: &str) -> Result<String> {
        self.ok_within(command, Duration::from_secs(30))
    }

    /// [`Guest::ok`] with a limit.
    ///
    /// # Errors
    /// As [`Guest::ok`].
    pub fn ok_within(&self, command: &str, limit: Duration) -> Result<String> {
        let output = self.run(command, limit)?;
        if output.exit == 0 {
            return Ok(output.stdout.trim_end_matches('\n').to_owned());
        }
        let said = format!("{}{}", output.stdout, output.stderr);
        let exit = output.exit;
        Err(LabError::Expect(format!("{}: `{command}` exit {exit}: {said}", self.name())))
    }

    /// Starts a shell command and does not wait.
    ///
    /// # Errors
    /// The guest is off.
    pub fn spawn(&self, command: &str) -> Result<Job> {
        let agent = Arc::clone(&self.running(command)?.agent);
        let id = agent.number();
        agent.say(&ToGuest::Run { id, command: command.to_owned() })?;
        Ok(Job { agent, id, command: command.to_owned(), started: Instant::now() })
    }

    /// Writes a file in the guest, with mode 0644 and missing directories.
    ///
    /// # Errors
    /// The guest is off, or it cannot be written.
    pub fn put(&self, path: &str, text: &str) -> Result<()> {
        let agent = &self.running(path)?.agent;
        let id = agent.number();
        let (path, text) = (path.to_owned(), text.to_owned());
        agent.say(&ToGuest::Put { id, path: path.clone(), text, mode: 0o644 })?;
        let output = agent.output(id, &path, Duration::from_secs(30))?;
        match output.exit {
            0 => Ok(()),
            _ => Err(LabError::Expect(format!("{}: {path}: {}", self.name(), output.stderr))),
        }
    }

    /// Repeats a shell command, each time in its own process, until it succeeds.
    ///
    /// # Errors
    /// It does not within `limit`, or the guest is off.
    pub fn wait_until(&self, what: &str, limit: Duration, command: &str) -> Result<Output> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.run(command, left) {
                Ok(output) if output.exit == 0 => return Ok(output),
                Ok(output) if Instant::now() > end => {
                    let said = output.stderr;
                    let what = format!("{}: {what} (`{command}` said {said:?})", self.name());
                    return Err(LabError::Late { what, limit });
                }
                Ok(_) => thread::sleep(Duration::from_millis(200)),
                Err(LabError::Late { .. }) => {
                    let what = format!("{}: {what} (`{command}` hangs)", self.name());
                    return Err(LabError::Late { what, limit });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Cuts its power from outside. Returns once QEMU is gone; a guest that is off stays so.
    pub fn kill(&self) {
        self.look();
        let Some(running) = lock(&self.running).take() else { return };
        lock(&running.process).kill();
        *lock(&self.off) = Some((Off::Killed, Instant::now()));
    }

    /// Has its kernel reset the machine at once, without sync (sysrq b).
    ///
    /// # Errors
    /// It is off already, or does not go off.
    pub fn crash(&self) -> Result<Instant> {
        self.spawn("echo b > /proc/sysrq-trigger")?;
        self.wait_off(Duration::from_secs(20)).map(|(_, at)| at)
    }

    /// Holds it still: no instruction is executed until [`Guest::thaw`]. Its clocks stand still, too,
    /// and are behind by that much afterwards.
    ///
    /// # Errors
    /// It is off.
    pub fn freeze(&self) -> Result<()> {
        self.running("freeze")?.qmp.ask("stop", &json!({})).map(drop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is off.
    pub fn thaw(&self) -> Result<()> {
        self.running("thaw")?.qmp.ask("cont", &json!({})).map(drop)
    }

    /// Plugs another disk in while it runs; the kernel gives it the next free `/dev/vd?`.
    ///
    /// # Errors
    /// It is off, or QEMU refuses.
    pub(crate) fn plug_disk(&self, disk: &Disk) -> Result<()> {
        let qmp = &self.running("plug a disk")?.qmp;
        qmp.ask("blockdev-add", &disk.blockdev())?;
        let device = json!({
            "driver": "virtio-blk-pci",
            "id": disk.name,
            "drive": disk.name,
            "serial": disk.name,
            "share-rw": true,
        });
        qmp.ask("device_add", &device).map(drop)
    }

    /// Waits until it goes off by itself, and says how and when.
    ///
    /// # Errors
    /// It stays on for all of `limit`.
    pub fn wait_off(&self, limit: Duration) -> Result<(Off, Instant)> {
        let end = Instant::now() + limit;
        loop {
            self.look();
            if let Some(found) = lock(&self.off).clone() {
                return Ok(found);
            }
            if Instant::now() > end {
                let what = format!("{} going off", self.name());
                return Err(LabError::Late { what, limit });
            }
            thread::sleep(LOOK);
        }
    }

    /// As [`Guest::wait_off`], and it must be its own kernel, or its watchdog, that did it.
    ///
    /// # Errors
    /// As [`Guest::wait_off`], or it went off in another way.
    pub fn wait_reset(&self, limit: Duration) -> Result<Instant> {
        match self.wait_off(limit)? {
            (Off::Reset | Off::Watchdog, at) => Ok(at),
            (off, _) => Err(LabError::Expect(format!("{} was not reset: {off:?}", self.name()))),
        }
    }

    /// How it went off, if it is off.
    #[must_use]
    pub fn off(&self) -> Option<Off> {
        self.look();
        lock(&self.off).clone().map(|(off, _)| off)
    }

    /// Notices that QEMU has ended.
    fn look(&self) {
        let mut running = lock(&self.running);
        let Some(status) = running.as_ref().and_then(|r| lock(&r.process).ended()) else { return };
        let Some(gone) = running.take() else { return };
        // The last event may still be on its way to us.
        thread::sleep(LOOK);
        let events = gone.qmp.events();
        let off = match events.shutdown {
            _ if events.watchdog => Off::Watchdog,
            Some((ref reason, _)) if reason == "guest-reset" => Off::Reset,
            Some((ref reason, _)) if reason == "guest-shutdown" => Off::PowerOff,
            Some((ref reason, _)) => Off::Broken(reason.clone()),
            None => Off::Broken(status),
        };
        let at = events.shutdown.map_or_else(Instant::now, |(_, at)| at);
        *lock(&self.off) = Some((off, at));
    }

    /// Everything that its consoles said in this scenario, boots one after the other.
    #[must_use]
    pub fn console(&self) -> String {
        let bytes = fs::read(self.machine.console()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A log that its services have written to `/lab/share/log`; empty if there is none.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.share().join("log").join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its kernel's messages of this boot.
    ///
    /// # Errors
    /// It is off or does not answer.
    pub fn dmesg(&self) -> Result<String> {
        self.ok_within("dmesg", Duration::from_secs(10))
    }

    /// Leaves what only the running guest knows beside its logs.
    pub(crate) fn collect(&self) {
        let command = "dmesg >/lab/share/log/dmesg; ps -eo pid,stat,wchan:30,args >/lab/share/log/ps; \
                       cat /proc/mounts >/lab/share/log/mounts";
        if self.is_on() {
            let _ = self.thaw();
            let _ = self.run(command, Duration::from_secs(8));
        }
    }

    /// Where everything of this guest is kept on the host.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.machine.directory
    }
}

/// A guest on its way up.
pub(crate) struct Boot<'a> {
    guest: &'a Guest,
    process: Process,
    qmp: Qmp,
    agent: Arc<Agent>,
}

impl Boot<'_> {
    pub(crate) fn hello(self) -> Result<()> {
        let (boot_id, release) = self.agent.hello(BOOT_LIMIT)?;
        let process = Mutex::new(self.process);
        let running = Running { process, qmp: self.qmp, agent: self.agent, boot_id, release };
        *lock(&self.guest.running) = Some(Arc::new(running));
        Ok(())
    }
}

/// A command that runs in a guest.
#[derive(Debug)]
pub struct Job {
    agent: Arc<Agent>,
    id: u64,
    command: String,
    started: Instant,
}

impl Job {
    /// When it was started.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// What it has left, if it has ended.
    #[must_use]
    pub fn ended(&self) -> Option<Output> {
        self.agent.ended(self.id)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It takes longer than `limit` (it is left running), or the guest goes off.
    pub fn wait(&self, limit: Duration) -> Result<Output> {
        self.agent.output(self.id, &format!("`{}`", self.command), limit)
    }

    /// Kills its process group.
    ///
    /// # Errors
    /// The guest is off.
    pub fn kill(&self) -> Result<()> {
        self.agent.say(&ToGuest::Kill { id: self.id })
    }
}
