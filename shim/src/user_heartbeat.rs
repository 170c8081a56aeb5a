//! The shim `user-heartbeat`: tells o2dlm, the stack `o2cb`'s lock manager, which nodes are up.
//!
//! o2dlm listens to o2cb's heartbeat. A carrier brings "node up" and "node down" there: links
//! in configfs where the kernel has the user-heartbeat driver (`symlink`), and on stock kernels a
//! heartbeat region in memory (`region`). This file decides what goes up and down, and when:
//!
//! | verb | done here |
//! |---|---|
//! | attach | the region stands with us in it; peers up as below; the kernel sees all of them |
//! | suspend | nothing: o2dlm stops by itself when a node goes down |
//! | node_down | the slot goes down, if the group still knows this incarnation in it |
//! | resume | who is missing goes down: it left cleanly; who is new goes up; a new life both |
//! | detach | the region goes, and with it all slots; if it went before, what was beaten for it |
//!
//! In global mode all groups share one region. A slot is up while any group claims it; a death
//! takes it from all of them at once, because it is the node that died.

mod beats;
mod carrier;
mod claims;
#[cfg(test)]
mod fake;
mod gates;
mod probe;
mod reference;
mod region;
mod settings;
mod slots;
mod symlink;
#[cfg(test)]
mod tests;
pub mod told;
mod tree;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use o2bridge_core::{GroupId, Incarnation, NodeId, Peers};

pub use beats::{BeatError, Beats};
pub use carrier::RegionView;
pub use gates::Gates;
pub use probe::{Finding, probe};
pub use settings::{CarrierKind, Paths, Settings, StartKeeper};
pub use slots::Slots;
pub use view::View;

use carrier::{Carrier, Lives, Region};
use claims::Claims;
use told::{Claim, Told};
use tree::Configfs;

use crate::{Shim, ShimError};

/// The backend's name, as in the configuration.
pub const NAME: &str = "user-heartbeat";

/// How long a verb waits for the node table: it is filled once corosync has answered.
const SLOTS_WAIT: Duration = Duration::from_secs(10);

/// The shim.
pub struct UserHeartbeat {
    carrier: Box<dyn Carrier>,
    claims: Claims,
    slots: Slots,
    /// One lock per region: per group, or in global mode one for all of them.
    locks: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Groups whose peers this daemon has seen live in the kernel.
    settled: Mutex<BTreeSet<GroupId>>,
}

impl UserHeartbeat {
    /// Picks the carrier, and takes over what an earlier daemon of this boot left in the kernel.
    /// The sentence says which carrier, and why.
    ///
    /// # Errors
    /// No carrier can be used safely, or what was left behind cannot be understood.
    pub fn start(settings: &Settings) -> Result<(Self, String), ShimError> {
        let paths = &settings.paths;
        let finding = probe::pick(paths, settings.carrier)?;
        let carrier: Box<dyn Carrier> = match finding.carrier {
            CarrierKind::Symlink => {
                Box::new(symlink::Symlinks::start(paths.into(), Box::new(Configfs))?)
            }
            CarrierKind::Auto | CarrierKind::Region => {
                let places = region::Places {
                    configfs: paths.configfs.clone(),
                    sys_o2cb: paths.sys_o2cb.clone(),
                    debugfs: paths.debugfs.clone(),
                    gates: settings.gates.clone(),
                };
                let keeper = |device: &Path, block_bytes| (settings.keeper)(device, block_bytes);
                let disk = settings.disk();
                Box::new(region::VirtualRegion::start(places, &disk, Box::new(Configfs), keeper)?)
            }
        };
        let device = carrier.look().device;
        let on = device.map_or_else(String::new, |device| format!(", {}", device.display()));
        let shim = Self::with(carrier, &paths.run_dir, settings.slots.clone())?;
        Ok((shim, format!("carrier {}{on}: {}", finding.carrier, finding.because)))
    }

    fn with(carrier: Box<dyn Carrier>, run_dir: &Path, slots: Slots) -> Result<Self, ShimError> {
        let claims = Claims::load(&run_dir.join("heartbeat"))?;
        Ok(Self { carrier, claims, slots, locks: Mutex::default(), settled: Mutex::default() })
    }

    /// What there is in the kernel, for status.
    #[must_use]
    pub fn view(&self) -> View {
        View::new(self.carrier.name(), self.carrier.look(), self.claims.groups())
    }

    /// Attach and resume: the kernel knows these peers and no others.
    fn take(&self, group: GroupId, peers: &Peers) -> Result<(), ShimError> {
        let (local, own_slot) = self.slots.wait_local(SLOTS_WAIT).ok_or(ShimError::NoSlot(None))?;
        let wanted = self.wanted(peers, (local, own_slot), &self.claims.of(group))?;
        let region = self.carrier.region(group)?;
        let raised = {
            let lock = self.lock_of(&region);
            let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.carrier.open(&region, own_slot, &by_slot(&wanted))?;
            self.sync(group, &region, own_slot, wanted.clone())?
        };
        if self.settled().contains(&group) {
            return Ok(());
        }
        let mut slots: BTreeSet<u8> = wanted.values().map(|claim| claim.slot).collect();
        slots.insert(own_slot);
        self.carrier.await_live(&region, &slots, raised)?;
        self.settled().insert(group);
        Ok(())
    }

    /// The peers in their slots, without us: our own slot is the carrier's business.
    fn wanted(
        &self,
        peers: &Peers,
        (local, own_slot): (NodeId, u8),
        before: &Told,
    ) -> Result<Told, ShimError> {
        let others = peers.iter().filter(|(node, _)| **node != local);
        let claim = |(node, incarnation): (&NodeId, &Incarnation)| {
            // A node that was taken off the list while it is up keeps its slot.
            let claimed = || before.get(node).map(|claim| claim.slot);
            let slot = self.slots.wait(*node, Duration::ZERO).or_else(claimed);
            let slot = slot.or_else(|| self.slots.wait(*node, SLOTS_WAIT));
            let slot = slot.filter(|slot| *slot != own_slot);
            let slot = slot.ok_or(ShimError::NoSlot(Some(*node)))?;
            Ok((*node, Claim { slot, incarnation: *incarnation }))
        };
        others.map(claim).collect()
    }

    /// First whoever goes, then whoever comes. Whether anyone came.
    fn sync(
        &self,
        group: GroupId,
        region: &Region,
        own_slot: u8,
        wanted: Told,
    ) -> Result<bool, ShimError> {
        let mut standing = self.carrier.standing(region)?;
        let shared = self.claims_of_others(group, region);
        let before = by_slot(&self.claims.of(group));
        let after = by_slot(&wanted);
        // Slots of others stay as they are: the node is up, for whomever.
        standing.remove(&own_slot);
        for (slot, beats) in standing.iter().filter(|(slot, _)| !shared.contains(slot)) {
            let known = before.get(slot).copied().or(*beats);
            let is_another = |new: &Incarnation| known.is_some_and(|old| old != *new);
            if after.get(slot).is_none_or(is_another) {
                self.carrier.down(region, *slot)?;
            }
        }
        self.claims.set(group, wanted)?;
        let standing = self.carrier.standing(region)?;
        let mut raised = false;
        for (slot, incarnation) in after.iter().filter(|(slot, _)| !standing.contains_key(slot)) {
            self.carrier.up(region, *slot, *incarnation)?;
            raised = true;
        }
        Ok(raised)
    }

    /// The slots of a shared region that other groups need.
    fn claims_of_others(&self, group: GroupId, region: &Region) -> BTreeSet<u8> {
        if region.is_shared() { self.claims.slots_of_others(group) } else { BTreeSet::new() }
    }

    /// The slot that the dead incarnation is in; `None` if it is there no more, or another one is.
    fn grave(
        &self,
        group: GroupId,
        region: &Region,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<Option<u8>, ShimError> {
        if self.claims.groups().contains(&group) {
            let claim = self.claims.of(group).remove(&node);
            return Ok(claim.filter(|of| of.incarnation == incarnation).map(|of| of.slot));
        }
        // Our claims are lost, or were never written. The region's own word is as good.
        let Some(slot) = self.slots.wait(node, Duration::ZERO) else { return Ok(None) };
        let beats = self.carrier.standing(region)?.remove(&slot);
        Ok(beats.filter(|of| of.is_none_or(|of| of == incarnation)).map(|_| slot))
    }

    fn bury(
        &self,
        group: GroupId,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), ShimError> {
        let region = self.carrier.region(group)?;
        let lock = self.lock_of(&region);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(slot) = self.grave(group, &region, node, incarnation)? else { return Ok(()) };
        self.carrier.down(&region, slot)?;
        let of = if region.is_shared() { self.claims.groups() } else { BTreeSet::from([group]) };
        self.claims.bury(slot, &of)
    }

    fn leave(&self, group: GroupId) -> Result<(), ShimError> {
        self.settled().remove(&group);
        let region = match self.carrier.region(group) {
            Err(ShimError::NoCluster { .. }) => {
                self.carrier.sweep()?;
                return self.claims.remove(group);
            }
            region => region?,
        };
        let lock = self.lock_of(&region);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = self.claims.groups().iter().all(|other| *other == group);
        if region.is_shared() && !alone {
            // To take a peer down under a mount is to tell the kernel that it died.
            self.carrier.unused(group)?;
            let others = self.claims_of_others(group, &region);
            for claim in self.claims.of(group).values() {
                if !others.contains(&claim.slot) {
                    self.lower(&region, claim.slot)?;
                }
            }
        } else {
            self.carrier.close(&region)?;
        }
        self.claims.remove(group)
    }

    /// A slot that a group needs no more. That of a region which is another's by now is down.
    fn lower(&self, region: &Region, slot: u8) -> Result<(), ShimError> {
        match self.carrier.down(region, slot) {
            Err(ShimError::DiskHeartbeat { .. }) => Ok(()),
            lowered => lowered,
        }
    }

    fn lock_of(&self, region: &Region) -> Arc<Mutex<()>> {
        // Entries are only added, in one step.
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(locks.entry(region.name().into()).or_default())
    }

    fn settled(&self) -> MutexGuard<'_, BTreeSet<GroupId>> {
        // Entries come and go in one step each.
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shim for UserHeartbeat {
    fn name(&self) -> &'static str {
        NAME
    }

    fn attach(&self, group: GroupId, peers: &Peers) -> Result<(), ShimError> {
        self.take(group, peers)
    }

    fn suspend(&self, _: GroupId) -> Result<(), ShimError> {
        Ok(())
    }

    fn node_down(
        &self,
        group: GroupId,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), ShimError> {
        self.bury(group, node, incarnation)
    }

    fn resume(&self, group: GroupId, peers: &Peers) -> Result<(), ShimError> {
        self.take(group, peers)
    }

    fn detach(&self, group: GroupId) -> Result<(), ShimError> {
        self.leave(group)
    }

    fn view(&self) -> Option<View> {
        Some(Self::view(self))
    }

    /// A region that somebody removed may have left beats, and nobody a word.
    fn tend(&self) -> Option<String> {
        self.carrier.sweep().err().map(|error| error.to_string())
    }
}

fn by_slot(told: &Told) -> Lives {
    told.values().map(|claim| (claim.slot, claim.incarnation)).collect()
}
