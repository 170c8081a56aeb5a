//! Some guests, what connects them, and what they share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::boot;
use crate::error::{LabError, Result};
use crate::fence::Fencing;
use crate::guest::{Corosync, Disk, Guest, Machine};
use crate::kernel::Kernel;
use crate::net::Net;

/// The most guests: they have two cores in mind.
const GUESTS_MAX: u8 = 4;

/// How the guests of a scenario are to be.
#[derive(Debug, Clone)]
pub struct Plan {
    guests: u8,
    memory_mib: u32,
    watchdog: bool,
    disks: Vec<(String, u32)>,
}

impl Plan {
    /// This many guests, with 512 MiB of memory each, no disk and no watchdog.
    ///
    /// # Panics
    /// None, or more than 4.
    #[must_use]
    pub fn new(guests: u8) -> Self {
        assert!(
            (1..=GUESTS_MAX).contains(&guests),
            "{guests} guests; 1 to {GUESTS_MAX} are possible"
        );
        Self { guests, memory_mib: 512, watchdog: false, disks: Vec::new() }
    }

    /// Another empty disk that all guests share: the first one is `/dev/vda`, the next `/dev/vdb`.
    #[must_use]
    pub fn disk(mut self, name: &str, size_mib: u32) -> Self {
        self.disks.push((name.to_owned(), size_mib));
        self
    }

    /// Each guest's memory.
    #[must_use]
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// A hardware watchdog in each guest (`modprobe i6300esb` there) that resets it.
    #[must_use]
    pub fn watchdog(mut self) -> Self {
        self.watchdog = true;
        self
    }
}

/// Where the lab finds and puts things on the host.
#[derive(Debug, Clone)]
pub struct Places {
    /// Directory of `lab-agent`, `fence_lab`, `o2bridged` and the others: in the guests `/lab/bin`.
    pub binaries: PathBuf,
    /// Everything that is kept of this run.
    pub directory: PathBuf,
    /// QEMU's `-accel`.
    pub accelerator: String,
}

/// The guests of one scenario. When it goes, they are switched off.
#[derive(Debug)]
pub struct Lab {
    /// The network between the guests.
    pub net: Net,
    /// Their power switch.
    pub fencing: Arc<Fencing>,
    guests: Vec<Arc<Guest>>,
    directory: PathBuf,
    started: Instant,
    /// Unix sockets want short paths.
    _sockets: tempfile::TempDir,
}

impl Lab {
    /// Makes disks and network, switches all guests on, and waits for them.
    ///
    /// # Errors
    /// The host lacks something, or a guest does not come up.
    pub fn boot(plan: &Plan, kernel: &Kernel, places: &Places) -> Result<Self> {
        let directory = &places.directory;
        fs::create_dir_all(directory).map_err(LabError::at(directory))?;
        let sockets = tempfile::Builder::new().prefix("lab").tempdir();
        let sockets = sockets.map_err(LabError::io("a directory for sockets"))?;
        let mut disks = Vec::new();
        for (name, size_mib) in &plan.disks {
            disks.push(Disk::new(name, *size_mib, directory)?);
        }
        let initramfs = boot::initramfs(kernel, directory)?;
        let modules = fs::canonicalize(kernel.root.join("lib/modules"))
            .map_err(LabError::at(&kernel.root))?;
        let boot =
            std::path::absolute(kernel.root.join("boot")).map_err(LabError::at(&kernel.root))?;
        let net = Net::new(plan.guests, sockets.path())?;
        let fencing = Arc::<Fencing>::default();
        let mut guests = Vec::new();
        for number in 1..=plan.guests {
            let name = format!("n{number}");
            let machine = Machine {
                directory: directory.join(&name),
                number,
                guests: plan.guests,
                memory_mib: plan.memory_mib,
                watchdog: plan.watchdog,
                accelerator: places.accelerator.clone(),
                kernel: kernel.image.clone(),
                modules: modules.clone(),
                boot: boot.clone(),
                initramfs: initramfs.clone(),
                binaries: places.binaries.clone(),
                disks: disks.clone(),
                netdev: net.argument(number),
                sockets: sockets.path().to_owned(),
                name: name.clone(),
            };
            let guest = Arc::new(Guest::new(machine, fencing.door(&name)));
            fencing.add(&guest);
            guests.push(guest);
        }
        let started = Instant::now();
        let directory = directory.clone();
        let lab = Self { net, fencing, guests, directory, started, _sockets: sockets };
        lab.start_all()?;
        Ok(lab)
    }

    /// All guests that are off, at a time.
    fn start_all(&self) -> Result<()> {
        self.step(&format!("switching {} guests on", self.guests.len()));
        let mut boots = Vec::new();
        for guest in &self.guests {
            boots.push(guest.power_on()?);
        }
        boots.into_iter().try_for_each(crate::guest::Boot::hello)?;
        self.step("all guests are up");
        Ok(())
    }

    /// The guest with this number, from 1.
    ///
    /// # Panics
    /// There is no such guest.
    #[must_use]
    pub fn guest(&self, number: u8) -> &Guest {
        &self.guests[usize::from(number) - 1]
    }

    /// All guests.
    pub fn guests(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter().map(AsRef::as_ref)
    }

    /// A line of the scenario's story, with the time since power-on; also in `story` among the logs.
    pub fn step(&self, text: &str) {
        let line = format!("  [{:7.2} s] {text}\n", self.started.elapsed().as_secs_f64());
        eprint!("{line}");
        append(&self.directory.join("story"), &line);
    }

    /// Plugs a new empty disk into guests that run; by that name it can be plugged into others later.
    ///
    /// # Errors
    /// A guest is off, or QEMU refuses.
    pub fn plug_disk(&self, name: &str, size_mib: u32, guests: &[u8]) -> Result<()> {
        let disk = Disk::new(name, size_mib, &self.directory)?;
        guests.iter().try_for_each(|number| self.guest(*number).plug_disk(&disk))
    }

    /// Starts corosync on these guests and waits until each sees all of them, quorate.
    ///
    /// # Errors
    /// The cluster does not form.
    pub fn form(&self, settings: &Corosync) -> Result<()> {
        for number in &settings.members {
            self.guest(*number).start_corosync(settings)?;
        }
        for number in &settings.members {
            self.guest(*number).wait_members(&settings.members, Duration::from_secs(30))?;
        }
        self.step(&format!("corosync has formed on {:?}", settings.members));
        Ok(())
    }

    /// Has every guest leave its kernel messages and its list of processes beside its logs.
    pub fn collect(&self) {
        self.guests().for_each(Guest::collect);
    }

    /// Where everything of this run is kept.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.guests().for_each(Guest::kill);
    }
}

fn append(path: &Path, text: &str) {
    use std::io::Write;
    let file = fs::OpenOptions::new().append(true).create(true).open(path);
    if let Ok(mut file) = file {
        let _ = file.write_all(text.as_bytes());
    }
}
