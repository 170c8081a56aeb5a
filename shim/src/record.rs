//! The shim that needs no kernel: it appends one JSON line per verb, and that is all. What a line looks like: [`o2bridge_wire::record`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::time::{ClockId, clock_gettime};
use o2bridge_core::{GroupId, Incarnation, NodeId, Peers, Verb};
use o2bridge_wire::record::Line;

use crate::{Shim, ShimError};

/// Whether a verb returns only after its line is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// The line survives a crash of the daemon.
    No,
    /// The line survives a crash of the node, and a verb waits for the disk.
    Yes,
}

/// The backend's name, as in the configuration.
pub const NAME: &str = "record";

/// How far back from its end a file is searched for the end of its last whole line.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// The record file. One lock over all groups is allowed here, because nothing else is done under it
/// than the write of one line.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    sync: Sync,
    file: Mutex<File>,
}

impl Record {
    /// Opens or makes the file. A line that a crash left unfinished at its end is cut off.
    ///
    /// # Errors
    /// The file cannot be opened, or its end not be mended.
    pub fn open(path: &Path, sync: Sync) -> Result<Self, ShimError> {
        let file = OpenOptions::new()
            .append(true)
            .read(true)
            .create(true)
            .open(path)
            .map_err(|error| ShimError::file("open", path, error))?;
        cut_torn_line(&file).map_err(|error| ShimError::file("mend", path, error))?;
        Ok(Self { path: path.into(), sync, file: Mutex::new(file) })
    }

    fn line(&self, group: GroupId, verb: Verb) -> Result<(), ShimError> {
        let (at_us, boot_us) =
            (clock_us(ClockId::CLOCK_REALTIME), clock_us(ClockId::CLOCK_BOOTTIME));
        let line = format!("{}\n", Line { at_us, boot_us, verb, group });
        // A poisoned lock guards nothing that a panic could have left half done.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        append(&mut *file, line.as_bytes())
            .map_err(|error| ShimError::file("write", &self.path, error))?;
        match self.sync {
            Sync::No => Ok(()),
            Sync::Yes => {
                file.sync_data().map_err(|error| ShimError::file("sync", &self.path, error))
            }
        }
    }
}

impl Shim for Record {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attach(&self, group: GroupId, peers: &Peers) -> Result<(), ShimError> {
        self.line(group, Verb::Attach(peers.clone()))
    }

    fn suspend(&self, group: GroupId) -> Result<(), ShimError> {
        self.line(group, Verb::Suspend)
    }

    fn node_down(
        &self,
        group: GroupId,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), ShimError> {
        self.line(group, Verb::NodeDown(node, incarnation))
    }

    fn resume(&self, group: GroupId, peers: &Peers) -> Result<(), ShimError> {
        self.line(group, Verb::Resume(peers.clone()))
    }

    fn detach(&self, group: GroupId) -> Result<(), ShimError> {
        self.line(group, Verb::Detach)
    }
}

fn clock_us(clock: ClockId) -> i64 {
    // Both clocks exist on every kernel since 2.6.39, and reading them has no other error.
    clock_gettime(clock).map_or(0, |time| {
        time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_nsec() / 1_000)
    })
}

/// What a line is appended to; a file, or in tests one that is full.
trait Target {
    fn size(&mut self) -> io::Result<u64>;
    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize>;
    fn cut(&mut self, size: u64) -> io::Result<()>;
}

impl Target for File {
    fn size(&mut self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

/// Appends a line by one write. A part of it that a full disk took is cut off again, so that the
/// repetition of the verb does not leave half a line before its own.
fn append(target: &mut impl Target, line: &[u8]) -> io::Result<()> {
    let size = target.size()?;
    let written = target.write_once(line)?;
    if written == line.len() {
        return Ok(());
    }
    target.cut(size)?;
    Err(io::Error::from_raw_os_error(nix::errno::Errno::ENOSPC as i32))
}

/// Cuts the file after its last newline.
fn cut_torn_line(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(());
    }
    let size = metadata.len();
    let from = size.saturating_sub(LINE_BYTES_MAX);
    let mut tail = vec![0; usize::try_from(size - from).unwrap_or(0)];
    file.read_exact_at(&mut tail, from)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole == tail.len() {
        return Ok(());
    }
    if whole == 0 && from > 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "its end holds no line of ours"));
    }
    file.set_len(from + whole as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(0x19D1_9F8E_CA01_475E_BA67_AFD6_D84C_3B45);

    fn peers(nodes: &[u32]) -> Peers {
        nodes.iter().map(|node| (NodeId(*node), Incarnation(u64::from(*node) << 52))).collect()
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "torn: {text:?}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn one_line_per_verb() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let shim = Record::open(&path, Sync::Yes).unwrap();
        shim.attach(GROUP, &peers(&[1, 2])).unwrap();
        shim.suspend(GROUP).unwrap();
        shim.node_down(GROUP, NodeId(2), Incarnation(u64::MAX)).unwrap();
        shim.resume(GROUP, &peers(&[1])).unwrap();
        shim.detach(GROUP).unwrap();

        let lines = lines(&path);
        let verbs: Vec<_> = lines.iter().map(|line| line["verb"].as_str().unwrap()).collect();
        assert_eq!(verbs, ["attach", "suspend", "node_down", "resume", "detach"]);
        assert_eq!(lines[0]["peers"]["1"], "10000000000000");
        assert_eq!(lines[0]["peers"]["2"], "20000000000000");
        assert_eq!(lines[2]["node"], 2);
        assert_eq!(lines[2]["incarnation"], "ffffffffffffffff");
        assert_eq!(lines[3]["peers"].as_object().unwrap().len(), 1);
        for line in &lines {
            assert_eq!(line["group"], "19D19F8ECA01475EBA67AFD6D84C3B45");
        }
        for clock in ["at_us", "boot_us"] {
            let times: Vec<_> = lines.iter().map(|line| line[clock].as_u64().unwrap()).collect();
            assert!(times[0] > 0 && times.is_sorted(), "{clock}: {times:?}");
        }
    }

    #[test]
    fn groups_in_parallel_leave_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let shim = Record::open(&path, Sync::No).unwrap();
        std::thread::scope(|scope| {
            for group in 0..8 {
                let shim = &shim;
                scope.spawn(move || {
                    for _ in 0..100 {
                        shim.resume(GroupId(group), &peers(&[1, 2, 3])).unwrap();
                    }
                });
            }
        });
        assert_eq!(lines(&path).len(), 800);
    }

    #[test]
    fn a_full_disk_is_an_error_with_its_errno() {
        let shim = Record::open(Path::new("/dev/full"), Sync::No).unwrap();
        for _ in 0..2 {
            let error = shim.suspend(GROUP).unwrap_err();
            assert_eq!(error.errno(), 28);
            assert!(error.to_string().contains("cannot write /dev/full"), "{error}");
        }
    }

    /// A disk with so many bytes left.
    struct Disk {
        bytes: Vec<u8>,
        capacity: usize,
    }

    impl Target for Disk {
        fn size(&mut self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }

        fn write_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = (self.capacity - self.bytes.len()).min(bytes.len());
            self.bytes.extend(&bytes[..room]);
            Ok(room)
        }

        fn cut(&mut self, size: u64) -> io::Result<()> {
            self.bytes.truncate(usize::try_from(size).unwrap());
            Ok(())
        }
    }

    #[test]
    fn a_line_that_half_fits_is_cut_off_and_repeated_whole() {
        let mut disk = Disk { bytes: b"one\n".to_vec(), capacity: 6 };
        let error = append(&mut disk, b"two\n").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(28));
        assert_eq!(disk.bytes, b"one\n");
        disk.capacity = 100;
        append(&mut disk, b"two\n").unwrap();
        assert_eq!(disk.bytes, b"one\ntwo\n");
    }

    #[test]
    fn a_line_torn_by_a_crash_is_cut_off_at_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        for (before, after) in [("{\"a\":1}\n{\"b", "{\"a\":1}\n"), ("{\"b", ""), ("", "")] {
            std::fs::write(&path, before).unwrap();
            Record::open(&path, Sync::No).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
    }

    #[test]
    fn a_file_that_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        std::fs::write(&path, vec![b'x'; 70_000]).unwrap();
        let error = Record::open(&path, Sync::No).unwrap_err();
        assert!(error.to_string().contains("cannot mend"), "{error}");
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 70_000);
    }
}
