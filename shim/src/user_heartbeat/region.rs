//! The carrier for stock kernels: a virtual heartbeat region.
//!
//! The kernel believes that it shares a disk with its peers. The disk is in this node's memory; the
//! kernel beats our slot, and the keeper beats those of the peers. A slot that beats is a node that
//! is up; one block with generation 0 is its death, or its leave.

mod areas;
mod disk;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use o2bridge_core::{GroupId, Incarnation};
use o2bridge_keeper::{Area, Generation, Slot};

pub(super) use disk::DiskSettings;

use super::beats::{BeatError, Beats};
use super::carrier::{Carrier, Lives, Look, Region, RegionView, Standing};
use super::gates::Gates;
use super::reference;
use super::tree::{self, Cluster, Ground};
use crate::ShimError;
use areas::{Areas, Found, Seen};
use disk::Disk;

/// The kernel uses a node's number as an index without looking at this attribute, so all are there.
const BLOCKS: &str = "255";

/// How long a slot may take to be seen as live: two rounds of the kernel's, 2 s each; three times
/// that, because rounds are late on a busy node.
const LIVE_WAIT: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 12_000 });
const LIVE_POLL: Duration = Duration::from_millis(100);
/// How long to wait where debugfs does not say what is live.
const BLIND_WAIT: Duration = Duration::from_secs(8);

/// Where the region carrier finds its things.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) configfs: PathBuf,
    pub(super) sys_o2cb: PathBuf,
    pub(super) debugfs: PathBuf,
    pub(super) gates: Gates,
}

/// The carrier.
pub(super) struct VirtualRegion {
    debugfs: PathBuf,
    areas: Areas,
    ground: Box<dyn Ground>,
    gates: Gates,
}

impl VirtualRegion {
    /// Prepares the RAM disk, starts the keeper on it, and takes over what an earlier daemon left.
    pub(super) fn start(
        places: Places,
        disk: &DiskSettings,
        ground: Box<dyn Ground>,
        start: impl FnOnce(&Path, u32) -> Result<Arc<dyn Beats>, BeatError>,
    ) -> Result<Self, ShimError> {
        let seen = Seen { configfs: places.configfs, sys_o2cb: places.sys_o2cb };
        let disk = Disk::prepare(disk, &seen.devices()?)?;
        let beats = start(&disk.path, disk.block_bytes)
            .map_err(|source| ShimError::Keeper { step: "start", source })?;
        let areas = Areas::new(seen, disk, beats);
        let shim = Self { debugfs: places.debugfs, areas, ground, gates: places.gates };
        shim.areas.take_over(|region| shim.live(region))?;
        Ok(shim)
    }

    /// Makes the region unless it stands. Where tools count their uses, under their mutex: a plain
    /// mount waits until all peers are seen.
    fn stand(
        &self,
        region: &Region,
        locked: Option<&reference::Locked>,
        own_slot: u8,
        peers: &Lives,
    ) -> Result<(), ShimError> {
        let dir = self.areas.dir(region.name())?;
        match self.areas.find(&dir)? {
            Found::Ours(_) => return locked.map_or(Ok(()), reference::Locked::keep),
            Found::Disk(device) => {
                return Err(ShimError::DiskHeartbeat { region: region.name().into(), device });
            }
            Found::HalfMade => self.remove(region, &dir)?,
            Found::Nothing => {}
        }
        if region.is_shared() {
            self.no_disk_heartbeat()?;
        }
        locked.map_or(Ok(()), reference::Locked::renew)?;
        let reserved = self.areas.reserve();
        let made = reserved.and_then(|of| self.make(region, of.area, own_slot, peers));
        if made.is_err() && self.areas.find(&dir)? == Found::Nothing {
            // Else the next tool's disk heartbeat would never be without a user.
            locked.map_or(Ok(()), reference::Locked::give_back)?;
        }
        made
    }

    /// In global mode one heartbeat serves all volumes. Where it is on disks, that one does.
    fn no_disk_heartbeat(&self) -> Result<(), ShimError> {
        let disk = self.areas.survey()?.into_iter().find_map(|(region, found)| match found {
            Found::Disk(device) => Some(ShimError::DiskHeartbeat { region, device }),
            Found::Nothing | Found::HalfMade | Found::Ours(_) => None,
        });
        disk.map_or(Ok(()), Err)
    }

    /// The peers beat before the kernel begins to listen, so that it has seen them all when it says
    /// that the region stands.
    fn make(
        &self,
        region: &Region,
        area: Area,
        own_slot: u8,
        peers: &Lives,
    ) -> Result<(), ShimError> {
        // Also puts memory behind every block, so that no later write has to ask for any.
        keeper("clear", self.areas.beats.clear(area))?;
        for (slot, incarnation) in peers {
            keeper(
                "beat",
                self.areas.beats.beat(area, Slot(*slot), generation(*slot, *incarnation)?),
            )?;
        }
        let dir = self.areas.dir(region.name())?;
        self.ground.make(&dir).map_err(|error| ShimError::file("make", &dir, error))?;
        let slots = peers.keys().copied().chain([own_slot]).collect();
        let made = self.configure(&dir, area).and_then(|()| self.await_live(region, &slots, true));
        if made.is_err() {
            // The first error is the one to tell; what is left is removed by the next try.
            let _ = self.ground.remove(&dir);
        }
        made
    }

    fn configure(&self, dir: &Path, area: Area) -> Result<(), ShimError> {
        tree::write(&dir.join("block_bytes"), &self.areas.disk.block_bytes.to_string())?;
        tree::write(&dir.join("start_block"), &Disk::start_block(area).to_string())?;
        tree::write(&dir.join("blocks"), BLOCKS)?;
        let device = File::options().read(true).write(true).open(&self.areas.disk.path);
        let device =
            device.map_err(|error| ShimError::file("open", &self.areas.disk.path, error))?;
        let dev = dir.join("dev");
        self.ground.start(&dev, &device).map_err(|error| ShimError::file("start", &dev, error))?;
        match self.areas.find(dir)? {
            Found::Ours(found) if found == area => Ok(()),
            _ => Err(ShimError::Lied {
                reads: tree::read(&dev)?,
                path: dev,
                wrote: self.areas.disk.name().into(),
            }),
        }
    }

    /// Removes a region of its own, with all counted uses of it. False: it is a heartbeat on the disk, and stays.
    fn end(
        &self,
        region: &Region,
        dir: &Path,
        locked: &reference::Locked,
    ) -> Result<bool, ShimError> {
        match self.areas.find(dir)? {
            Found::Disk(_) => return Ok(false),
            Found::Nothing => {}
            Found::Ours(_) | Found::HalfMade => {
                let others = locked.count()?.saturating_sub(1);
                if others > 0 {
                    let by = format!("{others} more than us, by the count of the OCFS2 tools");
                    return Err(ShimError::InUse { region: region.name().into(), by });
                }
                self.remove(region, dir)?;
            }
        }
        locked.clear()?;
        Ok(true)
    }

    fn remove(&self, region: &Region, dir: &Path) -> Result<(), ShimError> {
        match self.ground.remove(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                let by = "a lock domain of the kernel holds it".into();
                Err(ShimError::InUse { region: region.name().into(), by })
            }
            result => result.map_err(|error| ShimError::file("remove", dir, error)),
        }
    }

    /// Whether nothing stands there, after a verb that failed.
    fn is_gone(&self, dir: &Path) -> bool {
        matches!(self.areas.find(dir), Ok(Found::Nothing))
    }

    /// The slots that the kernel sees as live; `None` if it cannot be asked.
    fn live(&self, region: &str) -> Option<BTreeSet<u8>> {
        let path = self.debugfs.join("o2hb").join(region).join("livenodes");
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.split_whitespace().filter_map(|word| word.parse().ok()).collect())
    }
}

impl Carrier for VirtualRegion {
    fn name(&self) -> &'static str {
        "region"
    }

    fn region(&self, group: GroupId) -> Result<Region, ShimError> {
        let cluster = Cluster::find(&self.areas.seen.configfs)?;
        Ok(if cluster.is_global()? {
            Region::Shared(shared_name(&cluster.name))
        } else {
            Region::Own(group.to_string())
        })
    }

    /// The mutex of the tools is not taken when there is nothing to do: on the way of a death
    /// nobody waits for a tool.
    fn open(&self, region: &Region, own_slot: u8, peers: &Lives) -> Result<(), ShimError> {
        let dir = self.areas.dir(region.name())?;
        let stands = matches!(self.areas.find(&dir)?, Found::Ours(_));
        if region.is_shared() {
            return if stands { Ok(()) } else { self.stand(region, None, own_slot, peers) };
        }
        if stands && reference::count(region.name())? > 0 {
            self.gates.open(region.name());
            return Ok(());
        }
        let (locked, was_closed) = self.gates.take(region.name(), reference::lock)?;
        let stands = self.stand(region, Some(&locked), own_slot, peers);
        if stands.is_err() && (was_closed || self.is_gone(&dir)) {
            self.gates.put_back(region.name(), locked);
        }
        stands
    }

    fn standing(&self, region: &Region) -> Result<Standing, ShimError> {
        let Some(area) = self.areas.of(region.name())? else { return Ok(Standing::new()) };
        let table = self.areas.beats.table().into_iter().filter(|((of, _), _)| *of == area);
        Ok(table.map(|((_, slot), life)| (slot.0, Some(Incarnation(life.0.get())))).collect())
    }

    fn up(&self, region: &Region, slot: u8, incarnation: Incarnation) -> Result<(), ShimError> {
        let dir = self.areas.dir(region.name())?;
        let area = self.areas.of(region.name())?.ok_or_else(|| gone(&dir))?;
        keeper("beat", self.areas.beats.beat(area, Slot(slot), generation(slot, incarnation)?))
    }

    fn down(&self, region: &Region, slot: u8) -> Result<(), ShimError> {
        match self.areas.find(&self.areas.dir(region.name())?)? {
            Found::Ours(area) => {
                keeper("take a slot down", self.areas.beats.down(area, Slot(slot)))
            }
            // Whoever is told down was up in a region of ours. A death that is not told must not count as told.
            Found::Disk(device) => {
                Err(ShimError::DiskHeartbeat { region: region.name().into(), device })
            }
            Found::Nothing | Found::HalfMade => Ok(()),
        }
    }

    fn sweep(&self) -> Result<(), ShimError> {
        self.areas.sweep()
    }

    fn unused(&self, group: GroupId) -> Result<(), ShimError> {
        tree::no_domain(&self.debugfs, &group.to_string())
    }

    /// The region goes first: a kernel that still uses it keeps its peers. No tool is waited for: whoever leaves
    /// can ask again, and a daemon that starts must come to its work.
    ///
    /// The mutex is kept when the region is gone. A mount that came while it went waits, and has no use counted: with
    /// the mutex it would begin a heartbeat on the disk, beside the nodes that go on with ours.
    fn close(&self, region: &Region) -> Result<(), ShimError> {
        let dir = self.areas.dir(region.name())?;
        if region.is_shared() {
            if matches!(self.areas.find(&dir)?, Found::Ours(_) | Found::HalfMade) {
                self.remove(region, &dir)?;
            }
            return self.areas.sweep();
        }
        let (locked, was_closed) = self.gates.take(region.name(), reference::lock_soon)?;
        let ended = self.end(region, &dir, &locked);
        let is_gone = ended.as_ref().map_or_else(|_| self.is_gone(&dir), |is_gone| *is_gone);
        if was_closed || is_gone {
            self.gates.put_back(region.name(), locked);
        }
        // A heartbeat on the disk stays, and what the keeper beat for the region that was here before goes.
        ended.and_then(|_| self.areas.sweep())
    }

    fn await_live(
        &self,
        region: &Region,
        slots: &BTreeSet<u8>,
        new: bool,
    ) -> Result<(), ShimError> {
        let end = Instant::now() + LIVE_WAIT;
        loop {
            let Some(live) = self.live(region.name()) else {
                std::thread::sleep(if new { BLIND_WAIT } else { Duration::ZERO });
                return Ok(());
            };
            let missing: BTreeSet<u8> = slots.difference(&live).copied().collect();
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(ShimError::NotLive { region: region.name().into(), slots: missing });
            }
            std::thread::sleep(LIVE_POLL);
        }
    }

    fn look(&self) -> Look {
        let mut look = Look { device: Some(self.areas.disk.path.clone()), ..Look::default() };
        let cluster = Cluster::find(&self.areas.seen.configfs).ok();
        look.shared = cluster
            .filter(|cluster| cluster.is_global().unwrap_or(false))
            .map(|cluster| shared_name(&cluster.name));
        let survey = self.areas.survey();
        look.is_partial = survey.is_err();
        for (name, found) in survey.unwrap_or_default() {
            match found {
                Found::Ours(area) => {
                    let up = self.standing(&Region::Own(name.clone()));
                    look.is_partial |= up.is_err();
                    let up = up.unwrap_or_default();
                    let live = self.live(&name);
                    look.regions.push(RegionView { name, area: Some(area.0), up, live });
                }
                Found::Disk(device) => {
                    look.disk.insert(name, device);
                }
                Found::Nothing | Found::HalfMade => {}
            }
        }
        look
    }
}

/// The name of the one region in global mode. All nodes must come to the same 32 characters: the
/// kernels compare them when one joins. It is the 128-bit FNV-1a of the cluster's name.
fn shared_name(cluster: &str) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash =
        cluster.bytes().fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032X}")
}

fn generation(slot: u8, incarnation: Incarnation) -> Result<Generation, ShimError> {
    Generation::new(incarnation.0).ok_or_else(|| {
        ShimError::Unusable(format!("the incarnation 0 of slot {slot} cannot be beaten"))
    })
}

fn keeper<T>(step: &'static str, result: Result<T, BeatError>) -> Result<T, ShimError> {
    result.map_err(|source| ShimError::Keeper { step, source })
}

fn gone(dir: &Path) -> ShimError {
    ShimError::file("beat in", dir, io::Error::from(io::ErrorKind::NotFound))
}
