//! The block devices that may hold a volume, from sysfs, and the kernel's word that they changed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use nix::sys::stat::{major, minor, stat};
use o2bridge_core::DeviceId;

use super::mounts;
pub(super) use super::uevent::Uevent;
use super::uevent::about;

/// Devices that hold no volume of a cluster: memory, and what makes a noise when it is opened.
const PASSED_OVER: [&str; 4] = ["ram", "zram", "fd", "sr"];

/// Of a disk that does not say, and of an image in a file.
const BLOCK_BYTES_DEFAULT: u32 = 512;
const BLOCK_BYTES: std::ops::RangeInclusive<u32> = 512..=4096;

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name for it: `sdb`, `dm-0`.
    pub name: String,
    /// Its node in `/dev`, by the kernel's name: a device mapper's own names can change.
    pub path: PathBuf,
    /// Its number.
    pub number: DeviceId,
    /// Its size in units of 512 bytes.
    pub sectors: u64,
}

/// The block devices worth looking at, in the order of their names: of a size, not held by another
/// device. `sys` is `/sys`, `dev` is `/dev`.
///
/// A device that another one is built upon is passed over, and so are its partitions: the leg of a
/// multipath device shows the same volume, but is not the way to it.
///
/// # Errors
/// There is no `class/block` in `sys`.
pub fn list(sys: &Path, dev: &Path) -> io::Result<Vec<Device>> {
    let mut devices = Vec::new();
    for entry in std::fs::read_dir(sys.join("class/block"))? {
        // Devices come and go meanwhile; what is gone is not there.
        let Ok(entry) = entry else { continue };
        devices.extend(entry.file_name().to_str().and_then(|name| find(sys, dev, name)));
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(devices)
}

/// The block device of this name, as sysfs has it, if [`list`] would have it.
pub(super) fn find(sys: &Path, dev: &Path, name: &str) -> Option<Device> {
    let is_noise = PASSED_OVER.iter().any(|kind| is_of_kind(name, kind));
    (!is_noise).then(|| device(&sys.join("class/block").join(name), name, dev)).flatten()
}

/// `ram0`, but not `ramdisk`.
fn is_of_kind(name: &str, kind: &str) -> bool {
    let number = name.strip_prefix(kind);
    number.is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
}

fn device(entry: &Path, name: &str, dev: &Path) -> Option<Device> {
    let sectors = word(&entry.join("size"))?.parse().ok()?;
    let number = mounts::device(word(&entry.join("dev"))?.as_bytes())?;
    let is_held = |path: &Path| {
        let holders = std::fs::read_dir(path.join("holders"));
        holders.is_ok_and(|mut holders| holders.next().is_some())
    };
    let real = std::fs::canonicalize(entry).ok()?;
    let whole = real.join("partition").exists().then(|| real.parent()).flatten();
    if sectors == 0 || is_held(&real) || whole.is_some_and(is_held) {
        return None;
    }
    // The kernel writes a slash in a device's name as an exclamation mark.
    let path = dev.join(name.replace('!', "/"));
    Some(Device { name: name.into(), path, number, sectors })
}

fn word(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The unit of a device's heartbeat slots, in bytes. It cannot change while the device is there.
pub(super) fn logical_block_bytes(path: &Path) -> u32 {
    let number = stat(path).map(|stat| stat.st_rdev).unwrap_or(0);
    let entry = PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number)));
    let of_disk = word(&entry.join("queue/logical_block_size"));
    // Of a partition, its disk tells. The entry is a link, so its parent needs to be looked up.
    let said = of_disk.or_else(|| {
        let real = std::fs::canonicalize(&entry).ok()?;
        word(&real.parent()?.join("queue/logical_block_size"))
    });
    let bytes = said.and_then(|text| text.parse().ok());
    bytes.filter(|bytes| BLOCK_BYTES.contains(bytes)).unwrap_or(BLOCK_BYTES_DEFAULT)
}

/// The kernel's broadcast of what happens to devices.
#[derive(Debug)]
pub(super) struct Uevents {
    socket: File,
}

impl Uevents {
    /// Begins to listen. It needs no privilege, but some sandboxes do not let it through.
    pub(super) fn open() -> io::Result<Self> {
        const FROM_THE_KERNEL: u32 = 1;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &NetlinkAddr::new(0, FROM_THE_KERNEL))?;
        Ok(Self { socket: socket.into() })
    }

    /// The next one about a block device or a lockspace; `None` when there is nothing more to read.
    pub(super) fn next(&mut self) -> Option<Uevent> {
        let mut message = [0; 8 * 1024];
        loop {
            match self.socket.read(&mut message) {
                Ok(len) => {
                    let about = about(message.get(..len).unwrap_or_default());
                    if about.is_some() {
                        return about;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    return Some(Uevent::Lost);
                }
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::makedev;
    use std::os::unix::fs::symlink;

    /// Makes a device in a sysfs of ours.
    fn plug(sys: &Path, at: &str, size: &str, number: &str, holders: &[&str]) {
        let dir = sys.join("devices").join(at);
        std::fs::create_dir_all(dir.join("holders")).unwrap();
        std::fs::write(dir.join("size"), format!("{size}\n")).unwrap();
        std::fs::write(dir.join("dev"), format!("{number}\n")).unwrap();
        if at.contains('/') {
            std::fs::write(dir.join("partition"), "1\n").unwrap();
        }
        for holder in holders {
            std::fs::write(dir.join("holders").join(holder), "").unwrap();
        }
        std::fs::create_dir_all(sys.join("class/block")).unwrap();
        symlink(&dir, sys.join("class/block").join(dir.file_name().unwrap())).unwrap();
    }

    #[test]
    fn what_is_looked_at() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        plug(sys, "sda", "2048", "8:0", &[]);
        plug(sys, "sda/sda1", "1024", "8:1", &[]);
        plug(sys, "sdb", "2048", "8:16", &["dm-0"]);
        plug(sys, "sdb/sdb1", "1024", "8:17", &[]);
        plug(sys, "sdc", "2048", "8:32", &["dm-0"]);
        plug(sys, "dm-0", "2048", "253:0", &[]);
        plug(sys, "ram0", "2048", "1:0", &[]);
        plug(sys, "zram0", "2048", "251:0", &[]);
        plug(sys, "sr0", "2048", "11:0", &[]);
        plug(sys, "ramdisk", "2048", "90:0", &[]);
        plug(sys, "loop0", "0", "7:0", &[]);
        plug(sys, "odd", "x", "7:1", &[]);
        plug(sys, "cciss!c0d0", "8", "104:0", &[]);
        let devices = list(sys, Path::new("/dev")).unwrap();
        let names: Vec<&str> = devices.iter().map(|device| device.name.as_str()).collect();
        assert_eq!(names, ["cciss!c0d0", "dm-0", "ramdisk", "sda", "sda1"]);
        assert_eq!(devices[0].path, Path::new("/dev/cciss/c0d0"));
        let dm = Device {
            name: "dm-0".into(),
            path: "/dev/dm-0".into(),
            number: DeviceId(makedev(253, 0)),
            sectors: 2048,
        };
        assert_eq!(devices[1], dm);
        assert_eq!(find(sys, Path::new("/dev"), "dm-0"), Some(dm));
        for name in ["sdb", "ram0", "loop0", "gone"] {
            assert_eq!(find(sys, Path::new("/dev"), name), None, "{name}");
        }
    }

    #[test]
    fn this_machine() {
        let devices = list(Path::new("/sys"), Path::new("/dev")).unwrap();
        for device in devices {
            assert!(device.sectors > 0, "{device:?}");
        }
        assert!(list(Path::new("/no/such"), Path::new("/dev")).is_err());
        assert_eq!(logical_block_bytes(Path::new("/etc/passwd")), 512, "an image");
    }

    #[test]
    fn the_broadcast_can_be_opened_and_is_silent() {
        match Uevents::open() {
            Ok(mut uevents) => {
                while uevents.next().is_some() {}
                assert_eq!(uevents.next(), None);
            }
            Err(error) => {
                crate::skipped(&format!(
                    "SKIPPED the_broadcast_can_be_opened_and_is_silent: {error}"
                ));
            }
        }
    }
}
