//! Which part of the RAM disk belongs to which region.
//!
//! Nothing of it is written down: a region whose `dev` is our RAM disk is ours, and its
//! `start_block` is its area. Who is up in it is the keeper's table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use o2bridge_keeper::{Area, Generation, SLOT_MAX, Slot, block};

use super::disk::Disk;
use super::{Beats, Cluster, keeper, tree};
use crate::ShimError;

/// What stands under a region's name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// Made, but never given a device: whoever was making it is dead, or is making it now.
    HalfMade,
    Ours(Area),
    /// On this device of somebody else's.
    Disk(String),
}

/// Where the regions are seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) configfs: PathBuf,
    /// It is there for as long as the driver is that has the regions.
    pub(super) sys_o2cb: PathBuf,
}

impl Seen {
    /// The cluster, if there is one. Where the driver has regions and nobody sees them, there may be.
    fn cluster(&self) -> Result<Option<Cluster>, ShimError> {
        match Cluster::find(&self.configfs) {
            Ok(cluster) => Ok(Some(cluster)),
            Err(ShimError::NoCluster { path }) if !path.is_dir() && self.has_driver() => {
                Err(ShimError::Unusable(format!(
                    "nobody can tell which heartbeat regions stand: mount configfs on {}",
                    self.configfs.display()
                )))
            }
            Err(ShimError::NoCluster { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn has_driver(&self) -> bool {
        self.sys_o2cb.join("interface_revision").exists()
    }

    /// What all regions stand on, ours or not, by the kernel's names.
    pub(super) fn devices(&self) -> Result<BTreeSet<String>, ShimError> {
        let Some(cluster) = self.cluster()? else { return Ok(BTreeSet::new()) };
        let regions = cluster.regions()?.into_iter();
        let devices = regions.map(|region| tree::read(&cluster.region(&region).join("dev")));
        devices.filter(|device| !device.as_ref().is_ok_and(String::is_empty)).collect()
    }
}

/// The RAM disk, with those who write to it.
pub(super) struct Areas {
    pub(super) seen: Seen,
    pub(super) disk: Disk,
    pub(super) beats: Arc<dyn Beats>,
    /// Areas of regions that are being made, which the kernel cannot tell of yet. Under its lock
    /// nothing is waited for but the keeper, and lists of directories.
    reserved: Mutex<BTreeSet<Area>>,
}

/// An area that nobody else can take; until dropped, by when the kernel tells of it.
pub(super) struct Reserved<'a> {
    areas: &'a Areas,
    pub(super) area: Area,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.areas.reserved().remove(&self.area);
    }
}

impl Areas {
    pub(super) fn new(seen: Seen, disk: Disk, beats: Arc<dyn Beats>) -> Self {
        Self { seen, disk, beats, reserved: Mutex::default() }
    }

    /// The place of a region, whether it stands or not.
    pub(super) fn dir(&self, region: &str) -> Result<PathBuf, ShimError> {
        Ok(Cluster::find(&self.seen.configfs)?.region(region))
    }

    /// What stands there.
    pub(super) fn find(&self, dir: &Path) -> Result<Found, ShimError> {
        if !dir.exists() {
            return Ok(Found::Nothing);
        }
        let device = tree::read(&dir.join("dev"))?;
        if device.is_empty() {
            return Ok(Found::HalfMade);
        }
        if device != self.disk.name() {
            return Ok(Found::Disk(device));
        }
        let path = dir.join("start_block");
        let reads = tree::read(&path)?;
        if reads.is_empty() {
            // It was removed since its device was read.
            return Ok(Found::Nothing);
        }
        match reads.parse().ok().and_then(|block| self.disk.area(block)) {
            Some(area) => Ok(Found::Ours(area)),
            None => Err(ShimError::Lied { path, wrote: "the start of an area".into(), reads }),
        }
    }

    /// Where this region of ours lies, if it stands.
    pub(super) fn of(&self, region: &str) -> Result<Option<Area>, ShimError> {
        match self.find(&self.dir(region)?)? {
            Found::Ours(area) => Ok(Some(area)),
            Found::Nothing | Found::HalfMade | Found::Disk(_) => Ok(None),
        }
    }

    /// All regions of the cluster, by name.
    pub(super) fn survey(&self) -> Result<BTreeMap<String, Found>, ShimError> {
        let Some(cluster) = self.seen.cluster()? else { return Ok(BTreeMap::new()) };
        let look = |name: String| {
            let found = self.find(&cluster.region(&name))?;
            Ok((name, found))
        };
        cluster.regions()?.into_iter().map(look).collect()
    }

    /// Takes a free area. What lay there before is gone when it is made into a region.
    pub(super) fn reserve(&self) -> Result<Reserved<'_>, ShimError> {
        let mut reserved = self.reserved();
        let used = self.used(&reserved)?;
        let area = (0..self.disk.areas).map(Area).find(|area| !used.contains(area));
        let area = area.ok_or(ShimError::NoArea { areas: self.disk.areas })?;
        reserved.insert(area);
        Ok(Reserved { areas: self, area })
    }

    /// Clears the areas that are beaten for no region.
    pub(super) fn sweep(&self) -> Result<(), ShimError> {
        let reserved = self.reserved();
        let used = self.used(&reserved)?;
        let beaten: BTreeSet<Area> = self.beats.table().keys().map(|(area, _)| *area).collect();
        let mut stale = beaten.difference(&used);
        stale.try_for_each(|area| keeper("clear", self.beats.clear(*area)))
    }

    /// Nothing may fall silent that the kernel still listens to, and nothing beat on for nobody. A
    /// keeper that outlived the daemon beats on; one that had to be replaced finds on the RAM disk
    /// what its predecessor beat, because whoever went down was overwritten.
    ///
    /// A slot that was silent and that the kernel sees as live no more (`live` asks it) was buried: to
    /// beat it again would bring back a node whose locks are given away.
    pub(super) fn take_over(
        &self,
        live: impl Fn(&str) -> Option<BTreeSet<u8>>,
    ) -> Result<(), ShimError> {
        self.sweep()?;
        let nodes = self.seen.cluster()?.map_or(Ok(Vec::new()), |cluster| cluster.nodes())?;
        let local = nodes.iter().find(|node| node.is_local).map(|node| node.slot);
        let table = self.beats.table();
        for (region, found) in self.survey()? {
            let Found::Ours(area) = found else { continue };
            let mut silent = self.beaten(area)?;
            silent.retain(|slot, _| Some(slot.0) != local && !table.contains_key(&(area, *slot)));
            let slots: BTreeSet<u8> = silent.keys().map(|slot| slot.0).collect();
            none_buried(&region, &slots, live(&region))?;
            for (slot, generation) in silent {
                keeper("beat", self.beats.beat(area, slot, generation))?;
            }
            // Again: one that was buried just then takes the kernel two rounds to come back.
            none_buried(&region, &slots, live(&region))?;
        }
        Ok(())
    }

    /// What the RAM disk says: the last beats of all slots that were not taken down, ours included.
    fn beaten(&self, area: Area) -> Result<BTreeMap<Slot, Generation>, ShimError> {
        let bytes = self.disk.read_area(area)?;
        let blocks = bytes.chunks(usize::try_from(self.disk.block_bytes).unwrap_or(usize::MAX));
        let beats = (0..=SLOT_MAX).zip(blocks).filter_map(|(slot, bytes)| {
            let heartbeat = block::decode(bytes).ok()?;
            Some((Slot(slot), Generation::new(heartbeat.generation)?))
        });
        Ok(beats.collect())
    }

    fn used(&self, reserved: &BTreeSet<Area>) -> Result<BTreeSet<Area>, ShimError> {
        Ok(self.ours()?.chain(reserved.iter().copied()).collect())
    }

    fn ours(&self) -> Result<impl Iterator<Item = Area>, ShimError> {
        Ok(self.survey()?.into_values().filter_map(|found| match found {
            Found::Ours(area) => Some(area),
            Found::Nothing | Found::HalfMade | Found::Disk(_) => None,
        }))
    }

    fn reserved(&self) -> MutexGuard<'_, BTreeSet<Area>> {
        // The set is changed in single steps: nothing is left half done.
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the kernel cannot be asked, nobody is.
fn none_buried(
    region: &str,
    slots: &BTreeSet<u8>,
    live: Option<BTreeSet<u8>>,
) -> Result<(), ShimError> {
    let buried: BTreeSet<u8> =
        live.map_or_else(BTreeSet::new, |live| slots.difference(&live).copied().collect());
    if buried.is_empty() {
        return Ok(());
    }
    Err(ShimError::Buried { region: region.into(), slots: buried })
}
