//! QEMU's command line for a guest.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;
use serde_json::{Value, json};

use crate::boot;
use crate::error::{LabError, Result};
use crate::net;
use crate::power::Process;

const QEMU: &str = "qemu-system-x86_64";

/// A raw file that several guests use as a disk at a time.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    direct: bool,
}

impl Disk {
    /// An empty disk; one of that name that is there already is the same disk.
    pub(crate) fn new(name: &str, size_mib: u32, directory: &Path) -> Result<Self> {
        let path = directory.join(format!("{name}.disk"));
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(LabError::at(&path))?;
        file.set_len(u64::from(size_mib) << 20).map_err(LabError::at(&path))?;
        // Not every file system can do without the host's cache. With it all is well, too: all guests
        // are on the same host.
        let flags = OFlag::O_DIRECT.bits();
        let direct = OpenOptions::new().read(true).custom_flags(flags).open(&path).is_ok();
        Ok(Self { name: name.to_owned(), path, direct })
    }

    pub(crate) fn blockdev(&self) -> Value {
        json!({
            "node-name": self.name,
            "driver": "raw",
            "cache": { "direct": self.direct },
            "file": {
                "driver": "file",
                "filename": self.path,
                "locking": "off",
                "cache": { "direct": self.direct },
            },
        })
    }
}

/// What a guest is made of.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) number: u8,
    pub(crate) guests: u8,
    pub(crate) memory_mib: u32,
    pub(crate) watchdog: bool,
    pub(crate) accelerator: String,
    pub(crate) kernel: PathBuf,
    pub(crate) modules: PathBuf,
    pub(crate) boot: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) binaries: PathBuf,
    pub(crate) disks: Vec<Disk>,
    pub(crate) netdev: String,
    pub(crate) sockets: PathBuf,
    pub(crate) directory: PathBuf,
}

impl Machine {
    pub(crate) fn share(&self) -> PathBuf {
        self.directory.join("share")
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.directory.join("console")
    }

    pub(crate) fn socket(&self, kind: &str) -> PathBuf {
        self.sockets.join(format!("{}.{kind}", self.name))
    }

    /// Puts what the guest reads while it boots into its shared directory.
    pub(crate) fn prepare(&self) -> Result<()> {
        let share = self.share();
        let log = share.join("log");
        fs::create_dir_all(&log).map_err(LabError::at(&log))?;
        let environment = format!(
            "LAB_NAME={}\nLAB_ADDRESS={}\nLAB_MACHINE={:032x}\nLAB_BINARIES={}\nLAB_MODULES={}\nLAB_BOOT={}\n",
            self.name,
            net::address(self.number),
            0x1ab0 + u32::from(self.number),
            self.binaries.display(),
            self.modules.display(),
            self.boot.display(),
        );
        let mut hosts = "127.0.0.1 localhost\n".to_owned();
        for number in 1..=self.guests {
            hosts += &format!("{} n{number}\n", net::address(number));
        }
        for (name, text) in [("env", &*environment), ("hosts", &*hosts), ("stage2", boot::STAGE2)] {
            let path = share.join(name);
            fs::write(&path, text).map_err(LabError::at(&path))?;
        }
        for kind in ["qmp", "agent"] {
            let _ = fs::remove_file(self.socket(kind));
        }
        Ok(())
    }

    pub(crate) fn start(&self) -> Result<Process> {
        fn quiet(command: &mut Command) {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        Process::start(QEMU, &self.arguments(), quiet)
    }

    fn arguments(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let mut add = |key: &str, value: String| all.extend([format!("-{key}"), value]);
        add("name", self.name.clone());
        add("machine", "pc,vmport=off".into());
        add("accel", self.accelerator.clone());
        add("cpu", "max".into());
        add("smp", "1".into());
        add("m", self.memory_mib.to_string());
        add("rtc", "base=utc".into());
        add("display", "none".into());
        add("kernel", self.kernel.display().to_string());
        add("initrd", self.initramfs.display().to_string());
        add("append", COMMAND_LINE.into());
        add("chardev", format!("file,id=console,append=on,path={}", self.console().display()));
        add("serial", "chardev:console".into());
        for kind in ["qmp", "agent"] {
            let path = self.socket(kind).display().to_string();
            add("chardev", format!("socket,id={kind},server=on,wait=off,path={path}"));
        }
        add("mon", "chardev=qmp,mode=control".into());
        add("device", "virtio-serial-pci".into());
        add("device", format!("virtserialport,chardev=agent,name={}", crate::wire::PORT));
        add("netdev", self.netdev.clone());
        add("device", format!("virtio-net-pci,netdev=net,romfile=,mac={}", net::mac(self.number)));
        let local = "local,security_model=none,multidevs=remap";
        add("fsdev", format!("{local},id=host,path=/,readonly=on"));
        add("device", "virtio-9p-pci,fsdev=host,mount_tag=host".into());
        add("fsdev", format!("{local},id=share,path={}", self.share().display()));
        add("device", "virtio-9p-pci,fsdev=share,mount_tag=share".into());
        add("device", "virtio-rng-pci".into());
        for disk in &self.disks {
            let name = &disk.name;
            add("blockdev", disk.blockdev().to_string());
            add(
                "device",
                format!("virtio-blk-pci,drive={name},id={name},serial={name},share-rw=on"),
            );
        }
        if self.watchdog {
            add("device", "i6300esb".into());
            add("action", "watchdog=reset".into());
        }
        all.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
        all
    }
}

/// A panic resets at once. Nothing random in the way of the boot, and no kernel messages on the slow
/// console before the second stage: they cost a second in emulation. The time comes from QEMU's HPET: a
/// kernel that calibrates its TSC on a busy host may be wrong by a factor of several.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=4 panic=1 net.ifnames=0 mitigations=off nokaslr \
                            clocksource=hpet tsc=unstable no_timer_check nowatchdog \
                            random.trust_cpu=on";
