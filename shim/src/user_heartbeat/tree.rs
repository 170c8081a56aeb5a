//! The o2cb tree in configfs: the one cluster, its nodes, its regions.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::ShimError;

/// Steps that a plain directory, as tests have it, does not answer like configfs.
pub(super) trait Ground: Send + Sync {
    /// Makes a region.
    fn make(&self, dir: &Path) -> io::Result<()>;
    /// Removes a region; its attributes go with it.
    fn remove(&self, dir: &Path) -> io::Result<()>;
    /// Starts a region by handing it a device; blocks until it beats, 6 to 40 s.
    fn start(&self, dev: &Path, device: &fs::File) -> io::Result<()>;
}

/// The kernel.
pub(super) struct Configfs;

impl Ground for Configfs {
    fn make(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn remove(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    /// The number is that of a descriptor of the process that writes it.
    fn start(&self, dev: &Path, device: &fs::File) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        fs::write(dev, format!("{}\n", device.as_raw_fd()))
    }
}

/// The cluster's directory. There can be only one on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) dir: PathBuf,
    pub(super) name: String,
}

/// A node of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) dir: PathBuf,
    pub(super) name: String,
    pub(super) slot: u8,
    pub(super) is_local: bool,
}

impl Cluster {
    /// Looks below `configfs/cluster`.
    pub(super) fn find(configfs: &Path) -> Result<Self, ShimError> {
        let root = configfs.join("cluster");
        match dirs(&root)?.into_iter().next() {
            Some(name) => Ok(Self { dir: root.join(&name), name }),
            None => Err(ShimError::NoCluster { path: root }),
        }
    }

    /// Whether one heartbeat serves all volumes.
    pub(super) fn is_global(&self) -> Result<bool, ShimError> {
        Ok(read(&self.dir.join("heartbeat/mode"))?.starts_with("global"))
    }

    /// The place of a region.
    pub(super) fn region(&self, region: &str) -> PathBuf {
        self.dir.join("heartbeat").join(region)
    }

    /// All regions, whoever made them.
    pub(super) fn regions(&self) -> Result<Vec<String>, ShimError> {
        dirs(&self.dir.join("heartbeat"))
    }

    /// The node table.
    pub(super) fn nodes(&self) -> Result<Vec<Node>, ShimError> {
        let root = self.dir.join("node");
        let mut nodes = Vec::new();
        for name in dirs(&root)? {
            let dir = root.join(&name);
            // A node that is just being made has no number yet; one that goes has no files.
            let Ok(slot) = read(&dir.join("num"))?.parse() else { continue };
            let is_local = read(&dir.join("local"))? == "1";
            nodes.push(Node { dir, name, slot, is_local });
        }
        Ok(nodes)
    }
}

/// Nobody but the lock domains of the kernel can tell whether a mount still needs a name. Where they cannot be seen
/// there may be one.
pub(super) fn no_domain(debugfs: &Path, name: &str) -> Result<(), ShimError> {
    let domains = debugfs.join("o2dlm");
    let domain = domains.join(name);
    let is_blind = !fs::read_dir(debugfs).is_ok_and(|mut entries| entries.next().is_some());
    let by = if is_blind {
        format!(
            "nobody can tell whether a mount still needs it: mount debugfs on {}",
            debugfs.display()
        )
    } else if domain.exists() {
        format!("there is a lock domain {}", domain.display())
    } else {
        return Ok(());
    };
    Err(ShimError::InUse { region: name.into(), by })
}

/// The names of the directories in a directory; none if it is not there. Links are not directories.
pub(super) fn dirs(dir: &Path) -> Result<Vec<String>, ShimError> {
    entries(dir, fs::FileType::is_dir)
}

/// The names of the links in a directory; none if it is not there.
pub(super) fn links(dir: &Path) -> Result<Vec<String>, ShimError> {
    entries(dir, fs::FileType::is_symlink)
}

fn entries(dir: &Path, wanted: fn(&fs::FileType) -> bool) -> Result<Vec<String>, ShimError> {
    let failed = |error| ShimError::file("list", dir, error);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // What went since it was listed is not there.
        if entry.file_type().is_ok_and(|kind| wanted(&kind)) {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// An attribute without its newline; empty if it is not there.
pub(super) fn read(path: &Path) -> Result<String, ShimError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        // A directory that is being removed answers so.
        Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => Ok(String::new()),
        Err(error) => Err(ShimError::file("read", path, error)),
    }
}

/// Writes an attribute and reads it back: some of them accept what they then ignore.
pub(super) fn write(path: &Path, value: &str) -> Result<(), ShimError> {
    fs::write(path, format!("{value}\n")).map_err(|error| ShimError::file("write", path, error))?;
    let reads = read(path)?;
    if reads == value {
        return Ok(());
    }
    Err(ShimError::Lied { path: path.into(), wrote: value.into(), reads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_debugfs_there_may_be_a_lock_domain() {
        let dir = tempfile::tempdir().unwrap();
        let error = no_domain(dir.path(), "7").unwrap_err().to_string();
        assert!(error.contains("mount debugfs"), "{error}");
        fs::create_dir_all(dir.path().join("o2dlm/8")).unwrap();
        no_domain(dir.path(), "7").unwrap();
        assert!(no_domain(dir.path(), "8").is_err());
    }
}
