//! The RAM disk that carries all virtual regions of this node.
//!
//! ```text
//! block 0          our mark
//! block 1 + 256 i  area i: one region, one block per slot (255 of the 256 are used)
//! ```
//!
//! A device is ours if it bears our mark, and is taken if all of it is zero and nobody holds it. The one that regions
//! stand on comes before all others: on a second one a daemon would find none of them, and take what the keeper beats
//! for them for leftovers.
//! Blocks are read and written one by one and around the page cache: the kernel and the keeper
//! write their slots next to each other, and a cached page over them would put back old ones.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{major, minor};
use o2bridge_keeper::{AREA_BLOCKS, AREA_MAX, Area, SLOT_MAX, Slot, block_number};

use crate::ShimError;

const MARK: &[u8] = b"o2bridge heartbeat slots, layout 1\n";

/// More than this is somebody's data, not ours: it is not even read.
const BYTES_MAX: u64 = 64 << 20;

/// Room for 63 regions; what brd is loaded with, and the size of the file behind a loop device.
const MADE_KIB: u64 = 8192;

/// Works for every logical block size that a region may have.
const ALIGNMENT: usize = 4096;

/// Where to look for a RAM disk, and how to make one.
#[derive(Debug, Clone)]
pub(in super::super) struct DiskSettings {
    /// The device; without it the one that regions stand on, or the first `ram*` or `loop*` that is ours, or the first
    /// `ram*` that is free, and else a loop device.
    pub(in super::super) device: Option<PathBuf>,
    /// `/dev`.
    pub(in super::super) dev: PathBuf,
    /// `/sys/dev/block`.
    pub(in super::super) sys_dev_block: PathBuf,
    /// A directory on a tmpfs, for the loop device's file.
    pub(in super::super) run_dir: PathBuf,
    /// Runs before a RAM disk is looked for, if there is none: loads the module.
    pub(in super::super) modprobe: PathBuf,
    /// Makes loop devices.
    pub(in super::super) losetup: PathBuf,
}

/// The disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) block_bytes: u32,
    /// How many regions it can carry.
    pub(super) areas: u16,
}

impl Disk {
    /// Finds our disk, or takes or makes one. `beaten`: the devices that regions stand on, by the kernel's names.
    pub(super) fn prepare(
        settings: &DiskSettings,
        beaten: &BTreeSet<String>,
    ) -> Result<Self, ShimError> {
        if let Some(path) = &settings.device {
            return Self::take(path, settings);
        }
        if let Some((path, file)) = find_beaten(&settings.dev, beaten)? {
            return Self::measure(&path, &file, settings);
        }
        if !settings.dev.join("ram0").exists() {
            // What comes of it is seen by looking again.
            let size = format!("rd_size={MADE_KIB}");
            let _ = run(&settings.modprobe, &["brd", "rd_nr=1", &size]);
        }
        let (ram, loops) = (devices(&settings.dev, "ram"), devices(&settings.dev, "loop"));
        let is_ours = |path: &&PathBuf| {
            let file = open(path, Access::LookAlone);
            file.and_then(|file| is_marked(&file)).unwrap_or(false)
        };
        if let Some(path) = ram.iter().chain(&loops).find(is_ours) {
            return Self::take(path, settings);
        }
        let free = ram.iter().find_map(|path| Self::take(path, settings).ok());
        free.map_or_else(|| Self::take(&make_loop(settings)?, settings), Ok)
    }

    /// Takes this device if it is ours or free.
    fn take(path: &Path, settings: &DiskSettings) -> Result<Self, ShimError> {
        let failed = |step| move |error| ShimError::file(step, path, error);
        let file = open(path, Access::Take).map_err(failed("open"))?;
        let disk = Self::measure(path, &file, settings)?;
        if !is_marked(&file).map_err(failed("read"))? {
            if !is_blank(&file).map_err(failed("read"))? {
                return Err(disk.not_ours("it holds somebody's data"));
            }
            mark(&file, disk.block_bytes).map_err(failed("mark"))?;
        }
        Ok(disk)
    }

    fn measure(path: &Path, file: &File, settings: &DiskSettings) -> Result<Self, ShimError> {
        let size = size(file).map_err(|error| ShimError::file("measure", path, error))?;
        let block_bytes = block_bytes(file, &settings.sys_dev_block)?;
        let areas = (size / u64::from(block_bytes)).saturating_sub(1) / AREA_BLOCKS;
        let disk = Self {
            path: path.into(),
            block_bytes,
            areas: u16::try_from(areas).unwrap_or(u16::MAX).min(AREA_MAX + 1),
        };
        if areas == 0 || size > BYTES_MAX {
            return Err(disk.not_ours("it has not the size of our RAM disk"));
        }
        Ok(disk)
    }

    /// The kernel's name of it, as a region's `dev` reads.
    pub(super) fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Where an area begins, in blocks.
    pub(super) fn start_block(area: Area) -> u64 {
        block_number(area, Slot(0))
    }

    /// Which area begins there.
    pub(super) fn area(&self, start_block: u64) -> Option<Area> {
        let area = u16::try_from(start_block.checked_sub(1)? / AREA_BLOCKS).ok()?;
        (area < self.areas && Self::start_block(Area(area)) == start_block).then_some(Area(area))
    }

    /// Reads the blocks of all slots of an area.
    pub(super) fn read_area(&self, area: Area) -> Result<Vec<u8>, ShimError> {
        let block_bytes = u64::from(self.block_bytes);
        let bytes = usize::try_from(block_bytes * (u64::from(SLOT_MAX) + 1)).unwrap_or(usize::MAX);
        open(&self.path, Access::Look)
            .and_then(|file| read(&file, bytes, Self::start_block(area) * block_bytes))
            .map_err(|error| ShimError::file("read", &self.path, error))
    }

    fn not_ours(&self, why: &str) -> ShimError {
        ShimError::Unusable(format!("{} cannot carry regions: {why}", self.path.display()))
    }
}

/// All devices of a kind that there are, in the order of their numbers.
fn devices(dev: &Path, kind: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dev).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| number(entry.file_name().to_str()?, kind));
    let numbers: BTreeSet<u32> = numbers.collect();
    numbers.into_iter().map(|number| dev.join(format!("{kind}{number}"))).collect()
}

/// The number of a device of this kind.
fn number(name: &str, kind: &str) -> Option<u32> {
    name.strip_prefix(kind)?.parse().ok()
}

/// The disk of ours that a region stands on. The disks of others are not looked at: one that hangs would hold us up.
/// Of a device of a kind that we make it must be known whose it is.
fn find_beaten(
    dev: &Path,
    beaten: &BTreeSet<String>,
) -> Result<Option<(PathBuf, File)>, ShimError> {
    let may_be_ours = |name: &&String| ["ram", "loop"].iter().any(|it| number(name, it).is_some());
    for path in beaten.iter().filter(may_be_ours).map(|name| dev.join(name)) {
        let looked = open(&path, Access::Look)
            .and_then(|file| Ok(is_marked(&file)?.then_some(file)))
            .map_err(|source| ShimError::Refused {
                step: "look at",
                path: path.clone(),
                source,
                why: WHOSE,
            })?;
        if let Some(file) = looked {
            return Ok(Some((path, file)));
        }
    }
    Ok(None)
}

const WHOSE: &str = "a heartbeat region stands on it, and without its first block nobody knows whether that is ours: \
                     make it readable, or unmount what uses the region, and start o2bridged again";

/// What a device is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// To read, whoever holds it.
    Look,
    /// To read, unless it is mounted, or part of something that is.
    LookAlone,
    /// The same to write, too.
    Take,
}

/// Around the page cache. A file, as tests have it, may be on a file system that cannot do so.
fn open(path: &Path, access: Access) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::Take);
    if std::fs::metadata(path)?.file_type().is_block_device() {
        let alone = if access == Access::Look { 0 } else { libc::O_EXCL };
        options.custom_flags(libc::O_DIRECT | alone);
    }
    options.open(path)
}

fn size(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// The logical block size: what a region's `block_bytes` must be. Files have 512.
fn block_bytes(file: &File, sys_dev_block: &Path) -> Result<u32, ShimError> {
    let failed = |error| ShimError::file("look at", sys_dev_block, error);
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.file_type().is_block_device() {
        return Ok(512);
    }
    let number = format!("{}:{}", major(metadata.rdev()), minor(metadata.rdev()));
    let path = sys_dev_block.join(number).join("queue/logical_block_size");
    let bytes = super::super::tree::read(&path)?;
    match bytes.parse() {
        Ok(bytes @ 512..=4096) => Ok(bytes),
        _ => Err(ShimError::Lied { path, wrote: "512 to 4096".into(), reads: bytes }),
    }
}

/// What has not the size of ours is not read.
fn is_marked(file: &File) -> io::Result<bool> {
    let has_our_size = (ALIGNMENT as u64..=BYTES_MAX).contains(&size(file)?);
    Ok(has_our_size && read(file, ALIGNMENT, 0)?.starts_with(MARK))
}

fn mark(file: &File, block_bytes: u32) -> io::Result<()> {
    let bytes = usize::try_from(block_bytes).unwrap_or(ALIGNMENT);
    let mut buffer = Aligned::new(bytes);
    buffer.bytes_mut()[..MARK.len()].copy_from_slice(MARK);
    file.write_all_at(buffer.bytes_mut(), 0)
}

fn is_blank(file: &File) -> io::Result<bool> {
    const CHUNK: usize = 1 << 20;
    let size = size(file)?;
    let mut buffer = Aligned::new(CHUNK);
    let mut at = 0;
    while at < size {
        let left = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
        let chunk = &mut buffer.bytes_mut()[..left];
        file.read_exact_at(chunk, at)?;
        if chunk.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += left as u64;
    }
    Ok(true)
}

fn read(file: &File, bytes: usize, at: u64) -> io::Result<Vec<u8>> {
    let mut buffer = Aligned::new(bytes);
    file.read_exact_at(buffer.bytes_mut(), at)?;
    Ok(buffer.bytes_mut().to_vec())
}

/// Memory at an address that `O_DIRECT` takes.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Aligned {
    fn new(bytes: usize) -> Self {
        let memory = vec![0; bytes + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, bytes }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.bytes]
    }
}

/// A loop device over a file on a ramfs, which unlike a tmpfs is never swapped to a disk.
fn make_loop(settings: &DiskSettings) -> Result<PathBuf, ShimError> {
    let dir = settings.run_dir.join("ramfs");
    std::fs::create_dir_all(&dir).map_err(|error| ShimError::file("make", &dir, error))?;
    mount(Some("ramfs"), &dir, Some("ramfs"), MsFlags::MS_NOEXEC, Some("mode=0700"))
        .map_err(|error| ShimError::file("mount a ramfs on", &dir, error.into()))?;
    let file = dir.join("slots");
    File::create(&file)
        .and_then(|file| file.set_len(MADE_KIB << 10))
        .map_err(|error| ShimError::file("make", &file, error))?;
    let device = run(&settings.losetup, &["--find", "--show", &file.to_string_lossy()]);
    let device = device
        .map_err(|error| ShimError::file("make a loop device with", &settings.losetup, error))?;
    Ok(device.trim().into())
}

fn run(program: &Path, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(if said.is_empty() { output.status.to_string() } else { said }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path, device: Option<&str>) -> DiskSettings {
        DiskSettings {
            device: device.map(|name| dir.join(name)),
            dev: dir.into(),
            sys_dev_block: dir.into(),
            run_dir: dir.into(),
            modprobe: "/bin/false".into(),
            losetup: "/bin/false".into(),
        }
    }

    fn prepare(dir: &tempfile::TempDir, device: Option<&str>) -> Result<Disk, ShimError> {
        Disk::prepare(&settings(dir.path(), device), &BTreeSet::new())
    }

    fn file(path: PathBuf, bytes: u64) -> File {
        let file = File::create_new(path).unwrap();
        file.set_len(bytes).unwrap();
        file
    }

    #[test]
    fn a_blank_one_is_marked_and_known_again() {
        let dir = tempfile::tempdir().unwrap();
        let raw = file(dir.path().join("ram0"), 512 * (1 + 256 * 3) + 511);
        let disk = prepare(&dir, Some("ram0")).unwrap();
        assert_eq!((disk.areas, disk.block_bytes, disk.name()), (3, 512, "ram0"));
        raw.write_all_at(b"beat", 512 * (1 + 256 + 7)).unwrap();
        assert_eq!(prepare(&dir, Some("ram0")).unwrap(), disk);
        assert!(disk.read_area(Area(1)).unwrap()[7 * 512..].starts_with(b"beat"));
    }

    #[test]
    fn ours_before_a_free_one_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path().join("ram0"), 1 << 20).write_all_at(b"\x01", (1 << 20) - 1).unwrap();
        file(dir.path().join("ram1"), 512 * 256);
        file(dir.path().join("ram2"), BYTES_MAX + 512);
        file(dir.path().join("ram3"), 1 << 20);
        file(dir.path().join("ram4"), 1 << 20);
        let disk = prepare(&dir, Some("ram4")).unwrap();
        assert_eq!(prepare(&dir, None).unwrap(), disk, "ours");
        std::fs::rename(dir.path().join("ram4"), dir.path().join("loop7")).unwrap();
        assert_eq!(prepare(&dir, None).unwrap().name(), "loop7", "ours");
        std::fs::remove_file(dir.path().join("loop7")).unwrap();
        assert_eq!(prepare(&dir, None).unwrap().name(), "ram3", "free");
        let error = prepare(&dir, Some("ram0")).unwrap_err();
        assert!(error.to_string().contains("somebody's data"), "{error}");
        for size in ["ram1", "ram2"] {
            let error = prepare(&dir, Some(size)).unwrap_err();
            assert!(error.to_string().contains("size of our RAM disk"), "{error}");
        }
    }

    /// As `losetup --find` makes it where sixteen are taken.
    #[test]
    fn ours_is_found_behind_many_others() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path().join("loop9"), 1 << 20);
        file(dir.path().join("loop-control"), 1 << 20);
        file(dir.path().join("loop116"), 1 << 20);
        let disk = prepare(&dir, Some("loop116")).unwrap();
        assert_eq!(prepare(&dir, None).unwrap(), disk);
    }

    #[test]
    fn the_one_that_regions_stand_on_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ram0", "ram1", "loop3", "loop16"] {
            file(dir.path().join(name), 1 << 20);
        }
        let free = |name: &str| prepare(&dir, Some(name)).unwrap();
        let (first, ours) = (free("ram0"), free("loop16"));
        let beaten = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let start = |beaten: &BTreeSet<String>| Disk::prepare(&settings(dir.path(), None), beaten);
        assert_eq!(start(&beaten(&["loop16", "loop3", "sdb"])).unwrap(), ours);
        assert_eq!(start(&beaten(&["loop3", "sdb"])).unwrap(), first, "those are not ours");
        let error = start(&beaten(&["loop17"])).unwrap_err().to_string();
        assert!(error.contains("loop17: a heartbeat region stands on it"), "{error}");
    }

    #[test]
    fn areas_lie_behind_each_other() {
        let disk = Disk { path: "/dev/ram0".into(), block_bytes: 512, areas: 3 };
        assert_eq!([0, 1, 2].map(|area| Disk::start_block(Area(area))), [1, 257, 513]);
        assert_eq!(
            [0, 1, 2, 257, 513, 769].map(|block| disk.area(block).map(|area| area.0)),
            [None, Some(0), None, Some(1), Some(2), None]
        );
    }
}
