//! One guest: switched on and off, frozen, asked to run commands.

mod command;
mod logs;
mod off;
mod qemu;
mod services;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::agent::{Agent, OnFence};
use crate::error::{LabError, Result};
use crate::power::{Process, lock};
use crate::qmp::{self, Qmp};
use crate::wire::ToGuest;

pub use command::Job;
pub use off::Off;
pub(crate) use qemu::{Disk, Machine};
pub use services::Corosync;

/// How long a guest may take from power-on to its agent's first word, in emulation on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(150);
/// How long QEMU may take to open its sockets.
const SOCKET_LIMIT: Duration = Duration::from_secs(20);
/// How often something is looked at that does not announce itself.
const LOOK: Duration = Duration::from_millis(20);

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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(0);
        let nanoseconds = i64::from(now.subsec_nanos());
        self.agent.say(&ToGuest::Clock { seconds, nanoseconds })?;
        let process = Mutex::new(self.process);
        let running = Running { process, qmp: self.qmp, agent: self.agent, boot_id, release };
        *lock(&self.guest.running) = Some(Arc::new(running));
        Ok(())
    }
}
