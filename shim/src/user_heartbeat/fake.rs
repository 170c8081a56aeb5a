//! Stand-ins for tests: plain directories for configfs, a table for the keeper.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use o2bridge_keeper::{Area, Generation, Slot, block, block_number};

use super::tree::Ground;
use super::{BeatError, Beats, Paths};

/// Everything below one directory.
pub(super) fn paths(root: &Path) -> Paths {
    Paths {
        configfs: root.join("config"),
        debugfs: root.join("debug"),
        sys_o2cb: root.join("o2cb"),
        sys_ocfs2: root.join("ocfs2"),
        dev: root.join("dev"),
        sys_dev_block: root.join("block"),
        run_dir: root.join("run"),
    }
}

/// Writes a file and makes the directories above it.
pub(super) fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A cluster `c` whose nodes are `n<number>`; the first is local. No lock domain is in debugfs.
pub(super) fn cluster(paths: &Paths, nodes: &[u8]) -> PathBuf {
    fs::create_dir_all(paths.debugfs.join("o2dlm")).unwrap();
    let dir = paths.configfs.join("cluster/c");
    for (index, slot) in nodes.iter().enumerate() {
        let node = dir.join(format!("node/n{slot}"));
        put(&node.join("num"), &format!("{slot}\n"));
        put(&node.join("local"), if index == 0 { "1\n" } else { "0\n" });
    }
    put(&dir.join("heartbeat/mode"), "local\n");
    dir
}

/// System V semaphores are root's here, as they are in earnest.
pub(super) fn semaphores_work(test: &str) -> bool {
    let works = nix::unistd::geteuid().is_root();
    if !works {
        crate::skipped(&format!("SKIPPED {test}: the semaphores of the OCFS2 tools are root's"));
    }
    works
}

/// Regions in a plain directory: attributes are there at once and go with it, and a file `pinned`
/// stands for a lock domain.
pub(super) struct Directory;

impl Ground for Directory {
    fn make(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)?;
        ["block_bytes", "start_block", "blocks", "dev"]
            .iter()
            .try_for_each(|attribute| fs::write(dir.join(attribute), ""))
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        if dir.join("pinned").exists() {
            return Err(Errno::EBUSY.into());
        }
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        fs::remove_dir(dir)
    }

    fn start(&self, dev: &Path, device: &fs::File) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        if dev.with_file_name("blocks").metadata()?.len() == 0 {
            return Err(Errno::EINVAL.into());
        }
        let device = fs::read_link(format!("/proc/self/fd/{}", device.as_raw_fd()))?;
        fs::write(dev, format!("{}\n", device.file_name().unwrap().to_str().unwrap()))
    }
}

/// A keeper that remembers what it was told, and writes it to the RAM disk like the real one.
#[derive(Debug, Default)]
pub(super) struct FakeKeeper {
    pub(super) table: Mutex<BTreeMap<(Area, Slot), Generation>>,
    /// `area.slot=generation`, `area.slot down`, `area clear`, in order.
    pub(super) said: Mutex<Vec<String>>,
    pub(super) is_dead: AtomicBool,
    device: PathBuf,
}

impl FakeKeeper {
    pub(super) fn on(device: &Path) -> Arc<Self> {
        Arc::new(Self { device: device.into(), ..Self::default() })
    }

    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    /// What it was told since the last call.
    pub(super) fn take_said(&self) -> Vec<String> {
        std::mem::take(&mut *self.said.lock().unwrap())
    }

    fn say(&self, what: String) -> Result<(), BeatError> {
        if self.is_dead.load(Ordering::Relaxed) {
            return Err("it is dead".into());
        }
        self.said.lock().unwrap().push(what);
        Ok(())
    }

    fn write(&self, area: Area, slot: Slot, generation: u64) -> Result<(), BeatError> {
        let heartbeat = block::Heartbeat { seq: 1, node: slot.0, generation, dead_ms: 0 };
        let mut bytes = [0; 512];
        block::encode(&heartbeat, &mut bytes).unwrap();
        let device = fs::File::options().write(true).open(&self.device)?;
        Ok(device.write_all_at(&bytes, block_number(area, slot) * 512)?)
    }
}

impl Beats for FakeKeeper {
    fn table(&self) -> BTreeMap<(Area, Slot), Generation> {
        self.table.lock().unwrap().clone()
    }

    fn beat(&self, area: Area, slot: Slot, generation: Generation) -> Result<(), BeatError> {
        self.say(format!("{}.{}={:x}", area.0, slot.0, generation.0))?;
        self.table.lock().unwrap().insert((area, slot), generation);
        self.write(area, slot, generation.0.get())
    }

    fn down(&self, area: Area, slot: Slot) -> Result<(), BeatError> {
        self.say(format!("{}.{} down", area.0, slot.0))?;
        self.table.lock().unwrap().remove(&(area, slot));
        self.write(area, slot, 0)
    }

    fn clear(&self, area: Area) -> Result<(), BeatError> {
        self.say(format!("{} clear", area.0))?;
        self.table.lock().unwrap().retain(|(of, _), _| *of != area);
        (0..255).try_for_each(|slot| self.write(area, Slot(slot), 0))
    }
}
