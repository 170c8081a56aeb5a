//! Volumes that nobody may mount yet.
//!
//! A mount that finds no region makes one on the disk: the classic heartbeat, in which it sees none of
//! the nodes that use ours. It would mount beside them, take their journals for those of the dead, and
//! replay them. So the tools' mutex of a volume of ours is held from when it is first seen until its
//! region stands, and from before its region goes for as long as the volume is ours. A mount waits as long.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use o2bridge_core::GroupId;

use super::reference::{self, Locked};
use super::tree::Cluster;
use crate::ShimError;

/// The gates that are closed. Clones share them. All are opened by the kernel if this process dies.
#[derive(Debug, Clone)]
pub struct Gates {
    configfs: PathBuf,
    closed: Arc<Mutex<BTreeMap<String, Gate>>>,
}

#[derive(Debug)]
struct Gate {
    locked: Locked,
    /// Put back by who could not make the region, or removed it: until somebody makes it, there is none, whatever the
    /// manager believes.
    is_lost: bool,
}

impl Gates {
    /// None is closed.
    #[must_use]
    pub fn new(configfs: &Path) -> Self {
        Self { configfs: configfs.into(), closed: Arc::default() }
    }

    /// Closes the gate of a volume, unless a region of that name stands: then there is nothing to
    /// prevent any more. Right when repeated. Whether it is closed, or need not be.
    ///
    /// Never waits for a tool. But to look for a region that is not there is to wait for all that are being removed, 2 s
    /// each. So that comes last: not if the mutex is ours already, nor if somebody has it, such as who removes this one.
    ///
    /// # Errors
    /// The semaphores of the tools cannot be used.
    pub fn close(&self, volume: GroupId) -> Result<bool, ShimError> {
        let name = volume.to_string();
        if self.closed().get(&name).is_some_and(|gate| gate.locked.is_held()) {
            return Ok(true);
        }
        let Some(locked) = reference::try_lock(&name)? else { return Ok(false) };
        if self.stands(&name) {
            locked.open();
        } else {
            self.insert(&name, locked, false);
        }
        Ok(true)
    }

    /// Whether the kernel has a cluster already: then it is too late to hold everybody back.
    #[must_use]
    pub fn is_too_late(&self) -> bool {
        Cluster::find(&self.configfs).is_ok()
    }

    /// Opens all gates but those of the unready, and of ours that lost their regions.
    pub fn open_others(&self, unready: &BTreeSet<GroupId>, ours: &BTreeSet<GroupId>) {
        let [unready, ours] = [unready, ours].map(names);
        let mut closed = self.closed();
        let (kept, others) = std::mem::take(&mut *closed).into_iter().partition(|(name, gate)| {
            unready.contains(name) || (gate.is_lost && ours.contains(name))
        });
        *closed = kept;
        let others: BTreeMap<String, Gate> = others;
        others.into_values().for_each(|gate| gate.locked.open());
    }

    /// Opens all gates.
    pub fn open_all(&self) {
        self.open_others(&BTreeSet::new(), &BTreeSet::new());
    }

    /// The region stands: there is nothing to prevent.
    pub(super) fn open(&self, region: &str) {
        if let Some(gate) = self.closed().remove(region) {
            gate.locked.open();
        }
    }

    /// The mutex of a region, from its gate or, in that way, from the tools.
    pub(super) fn take(
        &self,
        region: &str,
        lock: fn(&str) -> Result<Locked, ShimError>,
    ) -> Result<(Locked, bool), ShimError> {
        // Nobody may wait for the map while we wait for a tool.
        let gate = self.closed().remove(region);
        match gate.map(|gate| gate.locked).filter(Locked::is_held) {
            Some(locked) => Ok((locked, true)),
            None => Ok((lock(region)?, false)),
        }
    }

    /// The region does not stand: its gate is closed.
    pub(super) fn put_back(&self, region: &str, locked: Locked) {
        self.insert(region, locked, true);
    }

    fn insert(&self, region: &str, locked: Locked, is_lost: bool) {
        self.closed().insert(region.into(), Gate { locked, is_lost });
    }

    fn stands(&self, region: &str) -> bool {
        Cluster::find(&self.configfs).is_ok_and(|cluster| cluster.region(region).exists())
    }

    fn closed(&self) -> MutexGuard<'_, BTreeMap<String, Gate>> {
        // Entries come and go in one step each.
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(volumes: &BTreeSet<GroupId>) -> BTreeSet<String> {
    volumes.iter().map(GroupId::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_heartbeat::fake::{self, semaphores_work};

    #[test]
    fn a_closed_gate_keeps_the_tools_out() {
        if !semaphores_work("a_closed_gate_keeps_the_tools_out") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let gates = Gates::new(dir.path());
        let volume = GroupId(u128::from(std::process::id()) << 64 | 0xC << 124);
        let name = volume.to_string();
        assert!(gates.close(volume).unwrap() && gates.close(volume).unwrap());
        assert!(reference::try_lock(&name).unwrap().is_none(), "a tool waits");
        let (locked, was_closed) = gates.take(&name, reference::lock).unwrap();
        assert!(was_closed);
        assert!(!gates.close(volume).unwrap(), "held by who makes the region");
        gates.put_back(&name, locked);
        assert!(gates.close(volume).unwrap());
        gates.open_others(&BTreeSet::from([volume]), &BTreeSet::new());
        assert!(reference::try_lock(&name).unwrap().is_none());
        gates.open_all();
        let used = reference::try_lock(&name).unwrap().expect("open");
        used.add(1).unwrap();
        drop(used);
        assert!(gates.close(volume).unwrap());
        gates.open_all();
        assert_eq!(reference::count(&name).unwrap(), 1, "who counts a use still finds it");
        reference::try_lock(&name).unwrap().expect("open").clear().unwrap();
        assert!(gates.close(volume).unwrap());
        gates.open_all();
        let pair = crate::sys::SemaphorePair::find(reference::key(&name)).unwrap();
        assert_eq!(pair, None, "nothing is left where nobody is");
    }

    /// As by ipcrm. A mutex that is no more keeps nobody out, and beside it nothing can be counted.
    #[test]
    fn a_gate_whose_pair_was_removed_is_closed_anew() {
        if !semaphores_work("a_gate_whose_pair_was_removed_is_closed_anew") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let gates = Gates::new(dir.path());
        let volume = GroupId(u128::from(std::process::id()) << 64 | 0xE << 124);
        let name = volume.to_string();
        let find = || crate::sys::SemaphorePair::find(reference::key(&name)).unwrap();
        assert!(gates.close(volume).unwrap());
        find().unwrap().remove().unwrap();
        assert!(gates.close(volume).unwrap());
        assert!(reference::try_lock(&name).unwrap().is_none(), "a tool waits again");
        find().unwrap().remove().unwrap();
        let (locked, was_closed) = gates.take(&name, reference::lock).unwrap();
        assert!(!was_closed);
        locked.renew().unwrap();
        locked.remove().unwrap();
        gates.open_all();
        assert_eq!(find(), None);
    }

    #[test]
    fn nothing_is_closed_where_a_region_stands() {
        if !semaphores_work("nothing_is_closed_where_a_region_stands") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let paths = fake::paths(dir.path());
        let volume = GroupId(u128::from(std::process::id()) << 64 | 0xD << 124);
        let name = volume.to_string();
        let cluster = fake::cluster(&paths, &[1]);
        std::fs::create_dir_all(cluster.join("heartbeat").join(&name)).unwrap();
        let gates = Gates::new(&paths.configfs);
        assert!(gates.close(volume).unwrap());
        assert!(gates.closed().is_empty());
        let used = reference::try_lock(&name).unwrap().expect("open");
        assert!(!gates.close(volume).unwrap(), "somebody holds it, so nobody looks what stands");
        used.remove().unwrap();
    }
}
