//! The manager of volumes: a tool inside the daemon. It begins a service `volume` for each volume
//! of our cluster that is present, so that the group is joined and the region stands before anybody
//! mounts, and a service for each mount, named by its mountpoint, so that nothing is left under it.
//!
//! Pure: what the watch sees and what the core answers comes in with the time; what goes out is
//! events for the core, orders for the watch, and decisions.
//!
//! The region of a volume (the service `volume`; its requests are the table in `usage`):
//!
//! | region \ event | ours and present | quiet | beats | nothing known | refused | not ours or gone: unmounted | the same: mounted | stop |
//! |---|---|---|---|---|---|---|---|---|
//! | none   | → asked, order | - | - | - | - | - | - | - |
//! | asked  | - | → begun | → beating | → asking again | - | → none | → none | → none |
//! | beating, asking again | after a pause: → asked, order | - | - | - | - | → none | → none | → none |
//! | begun  | from time to time: order | - | report | - | → refused | → leaving | - | → leaving |
//! | refused | after a pause: → none | - | - | - | - | after a pause: → none | - | - |
//! | leaving | - | - | - | - | asked again | - | - | - |
//!
//! A mount of a volume (a service named by its mountpoint):
//!
//! | mount \ event | in the table, region begun or leaving | in the table, no region | not in the table |
//! |---|---|---|---|
//! | none  | → begun | left alone: the kernel hears the classic heartbeat, or with a global one another volume's region, which is warned of | - |
//! | begun | - | stays | → leaving; a tool's own: after a pause |
//!
//! A mount in the moment of a stop ends the stop: what is leaving under it cannot be left.
//!
//! "Somebody beats" is the one finding that must not be missed: two nodes that use different
//! carriers for one volume take each other for dead and destroy it. So a disk that cannot be read
//! is not quiet, and every begin needs a look of its own.
//!
//! **User stacks** have no regions and no beats. Where the kernel has to be told, the service `volume` holds the
//! group of each volume of ours that is present. Everywhere a mount has its service as above, and a
//! lockspace without a mount has one, too: the kernel's word is all there is, because the tools of these
//! stacks say less than half, or nothing. What a tool began for a mount (`ocfs2`) is ended once the
//! mount's own service lives, or the mount table shows no mount.
//!
//! | user stack \ event | present | in use | not in use |
//! |---|---|---|---|
//! | ours, the kernel has to be told | `volume` begun | its own service, too | that ends |
//! | ours, watched | - | its own service | that ends |
//! | another cluster's, the kernel has to be told | - | its own service, naming no cluster; report | that ends |
//! | another cluster's, watched | - | cannot be: the kernel compares the names | - |
//!
//! Neither the volumes nor the mounts of a predecessor are judged before the watch has spoken of
//! both.

mod claim;
mod ready;
mod storage;
mod usage;
mod view;
mod volume;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use o2bridge_core::{Begin, Event, GroupId, Now, Reply, RequestId, Saved, ServiceName, Snapshot};
use o2bridge_kmod_ctl::Mode;
use o2bridge_shim::volume::{Change, Guarded, Lockspaces, Mount, Order, Present};

pub use claim::Which;
use claim::{Cluster, may_carry_beats};
use usage::Ids;
pub use view::VolumeView;
use volume::{Volume, World};

/// The service that holds the region of a volume for as long as the volume is present.
pub const SERVICE: &str = "volume";

/// How long a stop waits for the next region to be left: longer than a tool may hold one up.
const LEAVE_PATIENCE_MS: u64 = 90_000;

/// How long the core may take to end after it was told to. A daemon that still lives then was refused, or waits for
/// corosync, and refuses every begin.
const STOP_PATIENCE_MS: u64 = 30_000;

/// The service that says that a volume's lockspace stands without a mount: a tool is at work that says
/// nothing by itself.
pub const LOCKSPACE: &str = "lockspace";

/// The service that a tool names, if only the manager begins and ends it. Ended by another hand, its volume would
/// have no region for a while, and a mount would begin a heartbeat on the disk, beside the nodes that use ours.
#[must_use]
pub fn reserved_service(event: &Event) -> Option<&ServiceName> {
    let (Event::Begin(Begin { service, .. })
    | Event::Complete { service, .. }
    | Event::Leave { service, .. }) = event
    else {
        return None;
    };
    [SERVICE, LOCKSPACE].contains(&service.as_str()).then_some(service)
}

/// What whoever names one is told.
#[must_use]
pub fn reserved_by_us(service: &ServiceName) -> String {
    format!("'{service}' is o2bridged's own service of a volume: it begins and ends it by itself")
}

/// How long a tool's word about a mount is believed before the mount table has to show it.
const TOOL_PATIENCE_MS: u64 = 2_000;

/// Volumes of which stacks, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// The stack o2cb, each volume with a region ahead of any mount.
    O2cb,
    /// User stacks, each volume with its group ahead of any mount: the kernel has to be told.
    UserAhead,
    /// User stacks, each volume while it is used: the kernel needs nobody.
    UserSeen,
}

impl Serves {
    const fn is_user(self) -> bool {
        match self {
            Self::O2cb => false,
            Self::UserAhead | Self::UserSeen => true,
        }
    }
}

/// What the administrator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Of which stacks.
    pub serves: Serves,
    /// Which volumes.
    pub which: Which,
    /// How long the storage of a mounted volume may fail or not answer, in ms.
    pub storage_loss_ms: u64,
    /// What happens then.
    pub on_storage_loss: OnLoss,
}

/// What a lost storage of a mounted volume leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// This node is reset.
    Reset,
    /// It is said once.
    Report,
}

/// What is to be done beyond the core and the watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Reset this node now. Said again every few seconds for as long as the reason holds.
    Reset {
        /// The volume.
        uuid: GroupId,
        /// A sentence.
        why: String,
    },
    /// Tell the operator, who must act.
    Report {
        /// The volume.
        uuid: GroupId,
        /// A sentence.
        why: String,
    },
}

/// What became of the wish to stop. [`Event::Stop`] is among the events whenever its time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopAnswer {
    /// Something is in use. Nothing is left; the core is told to stop, and will say what it is.
    Refused,
    /// Nothing but regions that nobody uses: they are left, and then the core is told to stop.
    Leaving,
    /// There is nothing to leave: the core is told to stop.
    Going,
}

/// Where a stop stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    /// Until then one more region must be left, and so on: one that its kernel does not let go of ends it.
    Leaving {
        until: Now,
        left: usize,
    },
    Said {
        until: Now,
    },
}

/// The manager.
#[derive(Debug)]
pub struct Volumes {
    policy: Policy,
    cluster: Option<Cluster>,
    volumes: BTreeMap<GroupId, Volume>,
    ids: Ids,
    has_seen_volumes: bool,
    mounts: Option<Vec<Mount>>,
    lockspaces: Lockspaces,
    stop: Stop,
    orders: Vec<Order>,
    guards: BTreeMap<GroupId, Guarded>,
    decisions: VecDeque<Decision>,
}

impl Volumes {
    /// A manager that has heard nothing yet.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            cluster: None,
            volumes: BTreeMap::new(),
            ids: Ids::default(),
            has_seen_volumes: false,
            mounts: None,
            lockspaces: Lockspaces::new(),
            stop: Stop::No,
            orders: Vec::new(),
            guards: BTreeMap::new(),
            decisions: VecDeque::new(),
        }
    }

    /// Whether the answer to this request is for [`Self::reply`] and not for a door.
    #[must_use]
    pub fn owns(request: RequestId) -> bool {
        usage::is_ours(request)
    }

    /// Takes over what a predecessor had begun. To be called once, before anything else, with what
    /// the core is made of. A service whose tool had not completed is settled by the core.
    pub fn inherit(&mut self, saved: &Saved, now: Now, out: &mut Vec<Event>) {
        for (uuid, group) in &saved.groups {
            let volume = self.volumes.entry(*uuid);
            let volume = volume.or_insert_with(|| Volume::new(*uuid, &mut self.ids));
            for service in &group.services {
                volume.inherit(service, self.policy.serves, &mut self.ids, now, out);
            }
        }
        self.advance(now, out);
    }

    /// Corosync told what the cluster is called; the configuration, how it beats.
    pub fn set_cluster(&mut self, name: &str, mode: Mode, now: Now, out: &mut Vec<Event>) {
        self.cluster = Some(Cluster { name: name.into(), mode });
        self.volumes.values_mut().for_each(|volume| volume.hurry(now));
        self.advance(now, out);
    }

    /// Takes what the watch saw.
    pub fn change(&mut self, change: Change, now: Now, out: &mut Vec<Event>) {
        match change {
            Change::Volumes(present) => self.take_present(present),
            Change::Lockspaces(found) => self.take_lockspaces(&found),
            Change::Mounts(mounts) => self.mounts = Some(mounts),
            Change::Beats { uuid, beats } => {
                if let Some(volume) = self.volumes.get_mut(&uuid) {
                    self.decisions.extend(volume.handle_beats(beats, now));
                }
            }
            Change::Storage { uuid, health } => {
                if let Some(volume) = self.volumes.get_mut(&uuid) {
                    volume.handle_storage(health, now);
                }
            }
        }
        self.advance(now, out);
    }

    fn take_present(&mut self, present: Vec<Present>) {
        self.has_seen_volumes = true;
        let mut by_uuid: BTreeMap<GroupId, Vec<Present>> = BTreeMap::new();
        for present in present {
            by_uuid.entry(present.superblock.uuid).or_default().push(present);
        }
        for (uuid, volume) in &mut self.volumes {
            volume.set_present(by_uuid.remove(uuid).unwrap_or_default());
        }
        for (uuid, present) in by_uuid {
            let mut volume = Volume::new(uuid, &mut self.ids);
            volume.set_present(present);
            self.volumes.insert(uuid, volume);
        }
    }

    fn take_lockspaces(&mut self, found: &Lockspaces) {
        for uuid in found.keys() {
            let volume = self.volumes.entry(*uuid);
            volume.or_insert_with(|| Volume::new(*uuid, &mut self.ids));
        }
        for (uuid, volume) in &mut self.volumes {
            volume.set_lockspace(found.contains_key(uuid));
        }
        self.lockspaces.clone_from(found);
    }

    /// The lockspaces of volumes, and who uses them as the kernel was told.
    #[must_use]
    pub fn lockspaces(&self) -> &Lockspaces {
        &self.lockspaces
    }

    /// Takes the answer to a request that [`Self::owns`]. An answer that nobody waits for any more
    /// means nothing.
    pub fn reply(&mut self, request: RequestId, reply: &Reply, now: Now, out: &mut Vec<Event>) {
        for volume in self.volumes.values_mut() {
            volume.handle_reply(request, reply, &mut self.ids, now, out);
        }
        self.advance(now, out);
    }

    /// A tool that began a mount has gone without a word of what became of it, as those for user stacks
    /// do: its service has to be ended by somebody.
    pub fn tool_gone(&mut self, uuid: GroupId, now: Now, out: &mut Vec<Event>) {
        if self.policy.serves.is_user() {
            let volume = self.volumes.entry(uuid);
            let volume = volume.or_insert_with(|| Volume::new(uuid, &mut self.ids));
            volume.take_over(now, &mut self.ids);
            self.advance(now, out);
        }
    }

    /// Does what is due, and says one thing to be done. To be called again while [`Self::deadline`]
    /// is not in the future.
    pub fn tick(&mut self, now: Now, out: &mut Vec<Event>) -> Option<Decision> {
        self.advance(now, out);
        for volume in self.volumes.values_mut() {
            self.decisions.extend(volume.take_loss(&self.policy, now));
            self.decisions.extend(volume.take_stranger(self.policy.serves));
        }
        self.decisions.pop_front()
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Now> {
        let said = (!self.decisions.is_empty()).then_some(Now(0));
        let stop = match self.stop {
            Stop::Leaving { until, .. } | Stop::Said { until } => Some(until),
            Stop::No => None,
        };
        let world = self.world();
        let volumes = self.volumes.values().filter_map(|volume| volume.next_at(&world));
        volumes.chain(said).chain(stop).min()
    }

    /// The service manager asks the daemon to end; `snapshot` is the core's.
    pub fn stop(&mut self, snapshot: &Snapshot, now: Now, out: &mut Vec<Event>) -> StopAnswer {
        let mut services = snapshot.groups.iter().flat_map(|group| &group.services);
        let is_used = services.any(|service| service.service.as_str() != SERVICE)
            || self.volumes.values().any(Volume::is_in_use);
        if is_used {
            out.push(Event::Stop);
            return StopAnswer::Refused;
        }
        self.stop = Stop::Leaving { until: now.after(LEAVE_PATIENCE_MS), left: 0 };
        self.advance(now, out);
        match self.stop {
            Stop::Said { .. } => StopAnswer::Going,
            Stop::Leaving { .. } | Stop::No => StopAnswer::Leaving,
        }
    }

    /// What the watch is to do, since this was last asked.
    pub fn orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }

    /// The volumes that would be ours, or are about to be, and whose regions do not stand: a mount now
    /// would make a classic heartbeat, and see none of those who use ours. Where somebody beats on the
    /// disk the classic heartbeat is the right one. `None` while the watch has not spoken.
    #[must_use]
    pub fn unready(&self) -> Option<BTreeSet<GroupId>> {
        let is_known = self.has_seen_volumes && self.cluster.is_some();
        let unready = self.volumes.values().filter(|volume| volume.is_unready(self.policy.serves));
        is_known.then(|| unready.map(Volume::uuid).collect())
    }

    /// Those of the unready whose gates are to be closed. Whoever removes a region has closed its gate before, and to
    /// look for it then is to wait for all regions that are being removed.
    #[must_use]
    pub fn to_close(&self) -> BTreeSet<GroupId> {
        let is_leaving = |uuid: &GroupId| self.volumes.get(uuid).is_some_and(Volume::is_leaving);
        self.unready().into_iter().flatten().filter(|uuid| !is_leaving(uuid)).collect()
    }

    /// Those whose gates, where they are closed, stay so. A region that is being left may be gone while its volume is:
    /// when that comes back before the leave is answered, nobody would close its gate again.
    #[must_use]
    pub fn to_keep_closed(&self) -> BTreeSet<GroupId> {
        let leaving = self.volumes.values().filter(|volume| volume.is_leaving()).map(Volume::uuid);
        self.unready().into_iter().flatten().chain(leaving).collect()
    }

    /// Those that are unready should their regions not stand. Somebody else may have removed one, and the manager hears
    /// nothing of a resume that cannot make it again.
    #[must_use]
    pub fn ours(&self) -> BTreeSet<GroupId> {
        let ours = self.volumes.values().filter(|volume| volume.needs_region(self.policy.serves));
        ours.map(Volume::uuid).collect()
    }

    /// Those that other nodes use and that were not seen here. One may be mounted before it was read, so its gate is
    /// closed until it is judged. Nobody knows its stack, but the tools of others do not look at gates. One that is not
    /// wanted is not guarded later either, and with a global heartbeat no region is named like a volume.
    #[must_use]
    pub fn unseen(&self, used_elsewhere: &BTreeSet<GroupId>) -> BTreeSet<GroupId> {
        let is_local = self.cluster.as_ref().is_some_and(|cluster| cluster.mode == Mode::Local);
        let has_gates = is_local && !self.policy.serves.is_user();
        let is_unseen = |uuid: &&GroupId| self.volumes.get(uuid).is_none_or(Volume::is_absent);
        let unseen = used_elsewhere.iter().filter(|_| has_gates).filter(is_unseen);
        unseen.filter(|uuid| self.policy.which.wants(uuid)).copied().collect()
    }

    fn world(&self) -> World<'_> {
        World {
            serves: self.policy.serves,
            which: &self.policy.which,
            cluster: self.cluster.as_ref(),
            is_known: self.has_seen_volumes && self.mounts.is_some(),
            is_stopping: self.stop != Stop::No,
            on_loss: self.policy.on_storage_loss,
            loss_ms: self.policy.storage_loss_ms,
        }
    }

    /// Does whatever the state asks for.
    fn advance(&mut self, now: Now, out: &mut Vec<Event>) {
        if matches!(self.stop, Stop::Said { until } if until <= now) {
            self.stop = Stop::No;
        }
        let mut volumes = std::mem::take(&mut self.volumes);
        let mut ids = std::mem::take(&mut self.ids);
        let world = self.world();
        let mut looks = Vec::new();
        for volume in volumes.values_mut() {
            if let Some(mounts) = &self.mounts {
                volume.set_mounts(mounts);
            }
            if volume.advance(&world, &mut ids, now, out) {
                looks.push(volume.uuid());
            }
        }
        for uuid in looks {
            let devices = devices_of_beats(uuid, &volumes, self.cluster.as_ref());
            self.orders.push(Order::Beats { uuid, devices });
        }
        volumes.retain(|_, volume| !volume.is_forgotten());
        self.volumes = volumes;
        self.ids = ids;
        self.review_guards();
        if let Stop::Leaving { until, left } = self.stop {
            self.review_stop(until, left, now, out);
        }
    }

    fn review_stop(&mut self, until: Now, before: usize, now: Now, out: &mut Vec<Event>) {
        let left = self.volumes.values().filter(|volume| volume.is_left()).count();
        if self.volumes.values().all(Volume::is_left) {
            out.push(Event::Stop);
            self.stop = Stop::Said { until: now.after(STOP_PATIENCE_MS) };
        } else if until <= now || self.volumes.values().any(Volume::is_in_use) {
            // The core says what it is, as it does if the mount came before the stop.
            out.push(Event::Stop);
            self.stop = Stop::No;
        } else if left > before {
            self.stop = Stop::Leaving { until: now.after(LEAVE_PATIENCE_MS), left };
        }
    }

    fn review_guards(&mut self) {
        let guards = self
            .volumes
            .values()
            .filter_map(|volume| Some((volume.uuid(), volume.guarded()?.clone())));
        let guards: BTreeMap<GroupId, Guarded> = guards.collect();
        if guards != self.guards {
            self.guards.clone_from(&guards);
            self.orders.push(Order::Guard(guards));
        }
    }
}

/// Where beats for a volume would be seen: on its own devices, and with a global heartbeat on those
/// of the whole cluster.
fn devices_of_beats(
    uuid: GroupId,
    volumes: &BTreeMap<GroupId, Volume>,
    cluster: Option<&Cluster>,
) -> Vec<o2bridge_shim::volume::Device> {
    let is_global = cluster.is_some_and(|cluster| cluster.mode == Mode::Global);
    let shares = |present: &Present| {
        is_global && cluster.is_some_and(|cluster| may_carry_beats(cluster, &present.superblock))
    };
    let present = volumes.values().flat_map(Volume::present);
    let carriers = present.filter(|present| present.superblock.uuid == uuid || shares(present));
    carriers.map(|present| present.device.clone()).collect()
}

#[cfg(test)]
mod tests;
