//! What survives the daemon: one file per group in use, and one that says since when there is a
//! memory at all. They lie on a tmpfs: they must survive a crash of the daemon, and should be gone
//! with the boot. So they are written by rename and never synced, and a file of another boot counts
//! for nothing.
//!
//! A file that cannot be understood stops the start: it may be the only witness of a death that is
//! still to be told.

pub mod file;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use o2bridge_core::{BootId, GroupId, Incarnation, Saved, SavedGroup};

use file::Memory;

/// The file beside those of the groups.
const MEMORY: &str = "memory.json";
/// How far the incarnations of a new daemon begin above those of the one before, should the wall
/// clock have gone back: more than one daemon gives out. Small, because it is also how far they run
/// ahead of the clock when a daemon is restarted in a loop.
const INCARNATIONS_PER_DAEMON: u64 = 1 << 16;

/// The state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory or a file in it cannot be read or written.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is not what an o2bridged of this version writes.
    #[error(
        "the state file {} cannot be understood: {reason}. It may tell of a group in use. If no OCFS2 \
         volume is mounted on this node, remove the file and start again; otherwise reset the node",
        path.display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What an earlier daemon left, and where this one begins.
#[derive(Debug)]
pub struct Loaded {
    /// For the core.
    pub saved: Saved,
    /// For the core's configuration.
    pub first_incarnation: Incarnation,
}

/// The directory of the state.
#[derive(Debug, Clone)]
pub struct StateDir {
    dir: PathBuf,
    boot: BootId,
}

impl StateDir {
    /// Names the directory; nothing is touched yet.
    #[must_use]
    pub fn new(dir: PathBuf, boot: BootId) -> Self {
        Self { dir, boot }
    }

    /// Reads what is there, removes what another boot left, and notes the start of this daemon.
    /// `wall_us` is the wall clock in microseconds.
    ///
    /// # Errors
    /// A file cannot be read or understood, or the directory not be written: no start without memory.
    pub fn load(&self, wall_us: u64) -> Result<Loaded, StateError> {
        std::fs::create_dir_all(&self.dir).map_err(io_error("make", &self.dir))?;
        let mut saved = Saved::default();
        let mut first = wall_us;
        for entry in std::fs::read_dir(&self.dir).map_err(io_error("read", &self.dir))? {
            let path = entry.map_err(io_error("read", &self.dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".tmp") {
                // A crash before the rename; what it was to replace is still there.
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            } else if name == MEMORY {
                let memory = read(&path, Memory::decode)?;
                first = first.max(memory.last_first.0.saturating_add(INCARNATIONS_PER_DAEMON));
                saved.memory_from = (memory.boot == self.boot).then_some(memory.memory_from);
            } else {
                let group =
                    group_of(name).ok_or_else(|| damaged(&path, "its name is no group's"))?;
                if let Some(image) = self.read_group(&path)? {
                    first = first.max(image.incarnation.0.saturating_add(1));
                    saved.groups.insert(group, image);
                }
            }
        }
        let first_incarnation = Incarnation(first);
        let memory = Memory {
            boot: self.boot,
            memory_from: saved.memory_from.unwrap_or(first_incarnation),
            last_first: first_incarnation,
        };
        self.write(MEMORY, &memory.encode()).map_err(io_error("write", &self.dir.join(MEMORY)))?;
        Ok(Loaded { saved, first_incarnation })
    }

    fn read_group(&self, path: &Path) -> Result<Option<SavedGroup>, StateError> {
        let (boot, image) = read(path, file::decode_group)?;
        if boot != self.boot {
            std::fs::remove_file(path).map_err(io_error("remove", path))?;
            return Ok(None);
        }
        Ok(Some(image))
    }

    /// Keeps the image of a group, or forgets the group.
    ///
    /// # Errors
    /// What was kept before is kept still.
    pub fn save(&self, group: GroupId, image: Option<&SavedGroup>) -> io::Result<()> {
        let name = format!("{group}.json");
        match image {
            Some(image) => self.write(&name, &file::encode_group(self.boot, image)),
            None => match std::fs::remove_file(self.dir.join(name)) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            },
        }
    }

    fn write(&self, name: &str, text: &[u8]) -> io::Result<()> {
        let new = self.dir.join(format!("{name}.tmp"));
        std::fs::write(&new, text)?;
        std::fs::rename(&new, self.dir.join(name))
    }
}

fn group_of(name: &str) -> Option<GroupId> {
    let group: GroupId = name.strip_suffix(".json")?.parse().ok()?;
    (format!("{group}.json") == name).then_some(group)
}

fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_path_buf();
    move |source| StateError::Io { step, path, source }
}

fn damaged(path: &Path, reason: impl Into<String>) -> StateError {
    StateError::Damaged { path: path.into(), reason: reason.into() }
}

fn read<T>(path: &Path, decode: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<T, StateError> {
    let text = std::fs::read(path).map_err(io_error("read", path))?;
    decode(&text).map_err(|reason| damaged(path, reason))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use o2bridge_core::saved::SavedService;
    use o2bridge_core::{DeviceId, NodeId, ServiceName, User};

    use super::*;

    const BOOT: BootId = BootId(0xB001);
    const GROUP: GroupId = GroupId(0x19D1_9F8E_CA01_475E_BA67_AFD6_D84C_3B45);

    fn image() -> SavedGroup {
        let user =
            |n: u64| User { incarnation: Incarnation(n), boot: BootId(u128::MAX - u128::from(n)) };
        SavedGroup {
            incarnation: Incarnation(u64::MAX - 5),
            services: vec![
                SavedService { name: ServiceName::new("ocfs2").unwrap(), live: true },
                SavedService { name: ServiceName::new("/mnt/\"ü\\ x").unwrap(), live: false },
            ],
            device: Some(DeviceId(u64::MAX)),
            told: BTreeMap::from([(NodeId(1), user(1)), (NodeId(u32::MAX), user(u64::MAX))]),
            unfinished: true,
        }
    }

    fn state(dir: &tempfile::TempDir) -> StateDir {
        StateDir::new(dir.path().join("state"), BOOT)
    }

    #[test]
    fn the_first_start_has_no_memory_and_begins_one() {
        let dir = tempfile::tempdir().unwrap();
        let loaded = state(&dir).load(1_000).unwrap();
        assert_eq!(loaded.saved, Saved::default());
        assert_eq!(loaded.first_incarnation, Incarnation(1_000));
        let loaded = state(&dir).load(2_000_000_000_000).unwrap();
        assert_eq!(loaded.saved.memory_from, Some(Incarnation(1_000)));
        assert_eq!(loaded.first_incarnation, Incarnation(2_000_000_000_000));
    }

    #[test]
    fn groups_survive_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (image(), SavedGroup { device: None, told: BTreeMap::new(), ..image() });
        state(&dir).load(1).unwrap();
        state(&dir).save(GROUP, Some(&two)).unwrap();
        state(&dir).save(GROUP, Some(&one)).unwrap();
        state(&dir).save(GroupId(7), Some(&two)).unwrap();
        state(&dir).save(GroupId(8), Some(&two)).unwrap();
        state(&dir).save(GroupId(8), None).unwrap();
        state(&dir).save(GroupId(9), None).unwrap();
        let loaded = state(&dir).load(2).unwrap();
        assert_eq!(loaded.saved.groups, BTreeMap::from([(GROUP, one), (GroupId(7), two)]));
        assert_eq!(loaded.first_incarnation, Incarnation(u64::MAX - 4), "above every saved one");
    }

    #[test]
    fn a_wall_clock_that_goes_back_gives_no_incarnation_twice() {
        let dir = tempfile::tempdir().unwrap();
        state(&dir).load(5_000_000).unwrap();
        let second = state(&dir).load(1_000).unwrap().first_incarnation;
        assert!(second.0 > 5_000_000 + 50_000, "{second:?}");
        let third = state(&dir).load(1_000).unwrap().first_incarnation;
        assert!(third > second);
    }

    #[test]
    fn another_boots_files_count_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let rebooted = StateDir::new(dir.path().join("state"), BootId(0xB002));
        state(&dir).load(5_000_000).unwrap();
        state(&dir).save(GROUP, Some(&image())).unwrap();
        let loaded = rebooted.load(4_000_000).unwrap();
        assert_eq!(loaded.saved, Saved::default());
        assert!(loaded.first_incarnation > Incarnation(5_000_000), "above the boot before");
        assert!(state(&dir).load(1).unwrap().saved.groups.is_empty(), "removed");
    }

    #[test]
    fn what_cannot_be_understood_stops_the_start_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        state(&dir).load(1).unwrap();
        state(&dir).save(GROUP, Some(&image())).unwrap();
        let path = dir.path().join("state").join(format!("{GROUP}.json"));
        let whole = std::fs::read_to_string(&path).unwrap();
        let broken = [
            (&whole[..whole.len() / 2], "EOF"),
            ("", "EOF"),
            (&whole.replace("\"version\":1", "\"version\":2"), "version 2"),
            (&whole.replace("unfinished", "finished"), "unknown field"),
            (&whole.replace("\"ocfs2\"", "\"\""), "a service is named by"),
        ];
        for (text, wanted) in broken {
            std::fs::write(&path, text).unwrap();
            let message = state(&dir).load(2).unwrap_err().to_string();
            assert!(message.contains(wanted) && message.contains("remove the file"), "{message}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        std::fs::remove_file(&path).unwrap();
        for name in ["notes.txt", "19d19f8eca01475eba67afd6d84c3b45.json", "19D1.json"] {
            let stranger = dir.path().join("state").join(name);
            std::fs::write(&stranger, &whole).unwrap();
            assert!(matches!(state(&dir).load(2), Err(StateError::Damaged { .. })), "{name}");
            std::fs::remove_file(&stranger).unwrap();
        }
        assert!(state(&dir).load(2).is_ok());
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_image_before() {
        let dir = tempfile::tempdir().unwrap();
        state(&dir).load(1).unwrap();
        state(&dir).save(GROUP, Some(&image())).unwrap();
        let torn = dir.path().join("state").join(format!("{GROUP}.json.tmp"));
        std::fs::write(&torn, "{\"ver").unwrap();
        assert_eq!(state(&dir).load(2).unwrap().saved.groups[&GROUP], image());
        assert!(!torn.exists());
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let missing = StateDir::new(dir.path().join("state"), BOOT);
        assert_eq!(missing.save(GROUP, Some(&image())).unwrap_err().kind(), ErrorKind::NotFound);
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(matches!(StateDir::new(file, BOOT).load(1), Err(StateError::Io { .. })));
    }
}
