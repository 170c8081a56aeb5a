//! Who was told up for which group, in which slot and incarnation.
//!
//! A slot has one generation, a symlink has none, and in global mode all groups share the slots. So
//! what a later verb must know stands in a file per group, on the run directory's tmpfs, and
//! survives the daemon: else a repeated `node_down` of a life that is over could take down the next
//! one. A claim is written before the kernel is told of a node, and taken back after it was told
//! that the node is gone: a claim without a beat is mended by the next verb, a beat without a claim
//! could not be told dead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use o2bridge_core::GroupId;

use super::told::{self, Told};
use crate::ShimError;

/// All groups of this node. Its lock is held for a write to a tmpfs at most.
#[derive(Debug)]
pub(super) struct Claims {
    dir: PathBuf,
    groups: Mutex<BTreeMap<GroupId, Told>>,
}

impl Claims {
    /// Reads what an earlier daemon of this boot left behind.
    pub(super) fn load(dir: &Path) -> Result<Self, ShimError> {
        fs::create_dir_all(dir).map_err(|error| ShimError::file("make", dir, error))?;
        let entries = fs::read_dir(dir).map_err(|error| ShimError::file("list", dir, error))?;
        let mut groups = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(|error| ShimError::file("list", dir, error))?;
            // Anything else is a temporary file of a daemon that was killed: written over later.
            let name = entry.file_name();
            let Some(group) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            groups.insert(group, read(&entry.path())?);
        }
        Ok(Self { dir: dir.into(), groups: Mutex::new(groups) })
    }

    /// Whom this group knows.
    pub(super) fn of(&self, group: GroupId) -> Told {
        self.lock().get(&group).cloned().unwrap_or_default()
    }

    /// All groups, known to the kernel or about to be.
    pub(super) fn groups(&self) -> BTreeSet<GroupId> {
        self.lock().keys().copied().collect()
    }

    /// The slots that some other group needs.
    pub(super) fn slots_of_others(&self, group: GroupId) -> BTreeSet<u8> {
        let groups = self.lock();
        let others = groups.iter().filter(|(of, _)| **of != group);
        others.flat_map(|(_, told)| told.values().map(|claim| claim.slot)).collect()
    }

    /// Replaces what this group knows.
    pub(super) fn set(&self, group: GroupId, told: Told) -> Result<(), ShimError> {
        let mut groups = self.lock();
        if groups.get(&group) != Some(&told) {
            write(&self.dir, group, &told)?;
            groups.insert(group, told);
        }
        Ok(())
    }

    /// The node in this slot died: none of these groups knows it any more.
    pub(super) fn bury(&self, slot: u8, of: &BTreeSet<GroupId>) -> Result<(), ShimError> {
        // A group whose claims are lost must not pass for one without peers.
        for group in self.groups().intersection(of) {
            let mut told = self.of(*group);
            told.retain(|_, claim| claim.slot != slot);
            self.set(*group, told)?;
        }
        Ok(())
    }

    /// Forgets a group.
    pub(super) fn remove(&self, group: GroupId) -> Result<(), ShimError> {
        let mut groups = self.lock();
        let path = self.dir.join(group.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ShimError::file("remove", &path, error));
            }
            _ => {}
        }
        groups.remove(&group);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Told>> {
        // The file is written first and the map changed in one step: nothing is left half done.
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(dir: &Path, group: GroupId, told: &Told) -> Result<(), ShimError> {
    let path = dir.join(group.to_string());
    let temporary = path.with_extension("new");
    fs::write(&temporary, told::encode(told))
        .map_err(|error| ShimError::file("write", &temporary, error))?;
    fs::rename(&temporary, &path).map_err(|error| ShimError::file("replace", &path, error))
}

fn read(path: &Path) -> Result<Told, ShimError> {
    let text = fs::read_to_string(path).map_err(|error| ShimError::file("read", path, error))?;
    told::decode(&text).ok_or_else(|| {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it holds no claims of ours");
        ShimError::file("read", path, error)
    })
}

#[cfg(test)]
mod tests {
    use o2bridge_core::{Incarnation, NodeId};

    use super::super::told::Claim;
    use super::*;

    fn told(nodes: &[(u32, u8, u64)]) -> Told {
        let claim = |slot, incarnation| Claim { slot, incarnation: Incarnation(incarnation) };
        nodes.iter().map(|(node, slot, life)| (NodeId(*node), claim(*slot, *life))).collect()
    }

    #[test]
    fn survive_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let claims = Claims::load(dir.path()).unwrap();
        claims.set(GroupId(1), told(&[(10, 0, 0xa), (u32::MAX, 254, u64::MAX)])).unwrap();
        claims.set(GroupId(2), told(&[(10, 0, 0xb)])).unwrap();
        claims.set(GroupId(3), told(&[])).unwrap();
        claims.remove(GroupId(3)).unwrap();
        claims.remove(GroupId(3)).unwrap();
        fs::write(dir.path().join("torn.new"), "1 2").unwrap();

        let claims = Claims::load(dir.path()).unwrap();
        assert_eq!(claims.groups(), BTreeSet::from([GroupId(1), GroupId(2)]));
        assert_eq!(claims.of(GroupId(1)), told(&[(10, 0, 0xa), (u32::MAX, 254, u64::MAX)]));
        assert_eq!(claims.slots_of_others(GroupId(1)), BTreeSet::from([0]));
        claims.bury(0, &claims.groups()).unwrap();
        assert_eq!(claims.of(GroupId(1)), told(&[(u32::MAX, 254, u64::MAX)]));
        assert_eq!(claims.of(GroupId(2)), told(&[]));
    }

    #[test]
    fn what_is_no_claim_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["1 2\n", "1 256 a\n", "1 2 x\n", "1 2 a b\n", "\n"] {
            fs::write(dir.path().join(GroupId(1).to_string()), text).unwrap();
            let error = Claims::load(dir.path()).unwrap_err();
            assert!(error.to_string().contains("holds no claims"), "{text:?}: {error}");
        }
    }
}
