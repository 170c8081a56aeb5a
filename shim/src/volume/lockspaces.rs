//! The lockspaces of fs/dlm that belong to volumes, and who uses them as the kernel was told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};

use o2bridge_core::{GroupId, NodeId};

/// The users of each volume's lockspace on this node.
pub type Lockspaces = BTreeMap<GroupId, BTreeSet<NodeId>>;

/// Where fs/dlm is.
#[derive(Debug, Clone)]
pub struct Places {
    /// The lockspaces that there are: `/sys/kernel/dlm`.
    pub sys: PathBuf,
    /// Their users, as dlm_controld has written them: `/sys/kernel/config/dlm`.
    pub configfs: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { sys: "/sys/kernel/dlm".into(), configfs: "/sys/kernel/config/dlm".into() }
    }
}

/// Reads them. Lockspaces of others than volumes are left out; where fs/dlm is not loaded there are none.
///
/// # Errors
/// They cannot be read, which says nothing about them.
pub fn lockspaces(places: &Places) -> io::Result<Lockspaces> {
    let spaces = entries(&places.configfs)?.into_iter().map(|it| it.path().join("spaces"));
    let spaces: Vec<PathBuf> = spaces.collect();
    let mut found = Lockspaces::new();
    for entry in entries(&places.sys)? {
        if let Some(group) = parsed::<GroupId>(&entry) {
            let mut nodes = BTreeSet::new();
            for space in &spaces {
                let users = entries(&space.join(entry.file_name()).join("nodes"))?;
                nodes.extend(users.iter().filter_map(parsed::<u32>).map(NodeId));
            }
            found.insert(group, nodes);
        }
    }
    Ok(found)
}

/// None if there is no such directory.
fn entries(directory: &Path) -> io::Result<Vec<DirEntry>> {
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

fn parsed<T: std::str::FromStr>(entry: &DirEntry) -> Option<T> {
    entry.file_name().to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "19D19F8ECA01475EBA67AFD6D84C3B45";

    #[test]
    fn those_of_volumes_with_their_users() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let places = Places { sys: at("sys"), configfs: at("config") };
        assert_eq!(lockspaces(&places).unwrap(), Lockspaces::new(), "fs/dlm is not there");
        for path in [format!("sys/{UUID}"), "sys/clvmd".into()] {
            std::fs::create_dir_all(at(&path)).unwrap();
        }
        let group: GroupId = UUID.parse().unwrap();
        assert_eq!(lockspaces(&places).unwrap(), [(group, BTreeSet::new())].into());
        for node in ["1", "20", "x"] {
            let path = format!("config/cluster/spaces/{UUID}/nodes/{node}");
            std::fs::create_dir_all(at(&path)).unwrap();
        }
        let users = BTreeSet::from([NodeId(1), NodeId(20)]);
        assert_eq!(lockspaces(&places).unwrap(), [(group, users)].into());
        let broken = Places { sys: at("file"), configfs: at("config") };
        std::fs::write(at("file"), "").unwrap();
        assert!(lockspaces(&broken).is_err());
    }
}
