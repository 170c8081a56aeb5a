//! One volume: its region, its mounts, its storage. The tables are in [`super`].

use std::collections::BTreeMap;

use nix::sys::stat::{major, minor};
use o2bridge_core::saved::SavedService;
use o2bridge_core::{Event, GroupId, Now, Reply, RequestId, ServiceName};
use o2bridge_shim::volume::{Beats, Guarded, Health, Mount, Present, Stack, Superblock};

use super::claim::{Claim, Cluster, Which, judge};
use super::storage::Storage;
use super::usage::{Ids, RETRY_MS, Step, Usage};
use super::{Decision, LOCKSPACE, OnLoss, Policy, SERVICE, Serves, TOOL_PATIENCE_MS};

/// The pause between two looks for beats on the disk of a volume that is in use through its region.
pub(super) const RECHECK_MS: u64 = 60_000;

/// Begins the name of a service whose mountpoint cannot be one.
const NAMELESS: &str = "mount of ";

/// What all volumes have in common.
pub(super) struct World<'a> {
    pub(super) serves: Serves,
    pub(super) which: &'a Which,
    pub(super) cluster: Option<&'a Cluster>,
    /// The watch has spoken of volumes and of mounts.
    pub(super) is_known: bool,
    pub(super) is_stopping: bool,
    pub(super) on_loss: OnLoss,
    pub(super) loss_ms: u64,
}

/// Who beats on the disk, as far as we asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Not asked, or asked too long ago.
    Never,
    Asked,
    Quiet,
    Beating {
        slots: Vec<u8>,
        here: bool,
        again_at: Now,
    },
    Unknown {
        why: String,
        again_at: Now,
    },
}

/// One volume.
#[derive(Debug)]
pub(super) struct Volume {
    uuid: GroupId,
    present: Vec<Present>,
    /// The last one that could be read.
    pub(super) superblock: Option<Superblock>,
    /// `None` while no superblock could be read.
    pub(super) claim: Option<Claim>,
    pub(super) look: Look,
    /// When to look again while the region stands.
    recheck_at: Now,
    pub(super) region: Usage,
    mounts: BTreeMap<ServiceName, Usage>,
    /// The mounts that there are.
    pub(super) table: BTreeMap<ServiceName, Mount>,
    pub(super) storage: Storage,
    guarded: Option<Guarded>,
    /// Whether it has a lockspace in the kernel.
    has_lockspace: bool,
    /// What a tool began and nobody else ends, and how long that is believed without a mount.
    tool: Option<(Usage, Option<Now>)>,
    /// Whether it was said that this use of another cluster's volume is one.
    is_stranger_said: bool,
}

impl Volume {
    pub(super) fn new(uuid: GroupId, ids: &mut Ids) -> Self {
        Self {
            uuid,
            present: Vec::new(),
            superblock: None,
            claim: None,
            look: Look::Never,
            recheck_at: Now(0),
            region: Usage::new(service(SERVICE), ids),
            mounts: BTreeMap::new(),
            table: BTreeMap::new(),
            storage: Storage::default(),
            guarded: None,
            has_lockspace: false,
            tool: None,
            is_stranger_said: false,
        }
    }

    pub(super) fn uuid(&self) -> GroupId {
        self.uuid
    }

    pub(super) fn present(&self) -> &[Present] {
        &self.present
    }

    pub(super) fn guarded(&self) -> Option<&Guarded> {
        self.guarded.as_ref()
    }

    pub(super) fn inherit(
        &mut self,
        saved: &SavedService,
        serves: Serves,
        ids: &mut Ids,
        now: Now,
        out: &mut Vec<Event>,
    ) {
        let name = saved.name.clone();
        let is_mount = name.as_str().starts_with('/') || name.as_str().starts_with(NAMELESS);
        let is_lockspace = name.as_str() == LOCKSPACE;
        if serves.is_user() && saved.live && name.is_ocfs2() {
            return self.take_over(now, ids);
        }
        let mut step = Step { now, group: self.uuid, cluster: None, ids, out };
        if name.as_str() == SERVICE {
            self.region = Usage::inherit(name, saved.live, &mut step);
            self.recheck_at = now.after(RECHECK_MS);
        } else if (is_mount || is_lockspace) && saved.live {
            self.mounts.insert(name.clone(), Usage::inherit(name, true, &mut step));
        }
    }

    pub(super) fn set_present(&mut self, present: Vec<Present>) {
        self.present = present;
    }

    pub(super) fn set_lockspace(&mut self, has_lockspace: bool) {
        self.has_lockspace = has_lockspace;
    }

    /// What a tool began for a mount is ours to end.
    pub(super) fn take_over(&mut self, now: Now, ids: &mut Ids) {
        let usage = Usage::of_tool(service(ServiceName::OCFS2), ids);
        self.tool = Some((usage, Some(now.after(TOOL_PATIENCE_MS))));
    }

    /// A mount whose device could never be read is known by its name, if it was begun under it.
    pub(super) fn set_mounts(&mut self, mounts: &[Mount]) {
        let named = mounts.iter().map(|mount| (name_of(mount), mount));
        let ours = named.filter(|(name, mount)| match mount.uuid {
            Some(uuid) => uuid == self.uuid,
            None => self.mounts.contains_key(name),
        });
        self.table = ours.map(|(name, mount)| (name, mount.clone())).collect();
    }

    /// Something was in the way that may be no more.
    pub(super) fn hurry(&mut self, now: Now) {
        self.region.hurry(now);
        self.mounts.values_mut().for_each(|mount| mount.hurry(now));
    }

    pub(super) fn handle_beats(&mut self, beats: Beats, now: Now) -> Option<Decision> {
        if self.look != Look::Asked {
            return None;
        }
        let is_begun = self.region.is_begun();
        let pause_ms = if is_begun { RECHECK_MS } else { RETRY_MS };
        let again_at = now.after(pause_ms);
        self.recheck_at = again_at;
        self.look = match beats {
            Beats::Quiet => Look::Quiet,
            Beats::Beating { slots, here } => Look::Beating { slots, here, again_at },
            Beats::Unknown { why } => Look::Unknown { why, again_at },
        };
        let who = self.beating().filter(|_| is_begun)?;
        let why = format!(
            "{who} beats on the disk of volume {}, which this node uses without: the volume will be \
             destroyed; unmount it there, now, and start o2bridged before it is mounted again",
            self.uuid
        );
        Some(Decision::Report { uuid: self.uuid, why })
    }

    /// Who beats on the disk, in words.
    pub(super) fn beating(&self) -> Option<String> {
        match &self.look {
            Look::Beating { slots, here, .. } => {
                let numbers: Vec<String> = slots.iter().map(u8::to_string).collect();
                let nodes = format!("o2cb node {}", numbers.join(", "));
                Some(match (slots.is_empty(), here) {
                    (true, _) => "this node's kernel".into(),
                    (false, true) => format!("this node's kernel ({nodes})"),
                    (false, false) => nodes,
                })
            }
            Look::Never | Look::Asked | Look::Quiet | Look::Unknown { .. } => None,
        }
    }

    pub(super) fn handle_storage(&mut self, health: Health, now: Now) {
        // A word about a guard that was sent home meanwhile counts for nothing.
        if self.guarded.is_some() {
            self.storage.handle(health, now);
        }
    }

    pub(super) fn take_loss(&mut self, policy: &Policy, now: Now) -> Option<Decision> {
        let uuid = self.uuid;
        self.loss_at(policy.on_storage_loss, policy.storage_loss_ms).filter(|at| *at <= now)?;
        self.storage.take_loss(policy.storage_loss_ms, now).then(|| {
            let why = format!(
                "the storage of volume {uuid}, which is mounted here, is lost: {}",
                super::view::health(self.storage.health())
            );
            match policy.on_storage_loss {
                OnLoss::Reset => Decision::Reset { uuid, why },
                OnLoss::Report => Decision::Report { uuid, why },
            }
        })
    }

    /// A volume of another cluster that is in use in this one, in words.
    pub(super) fn stranger(&self, serves: Serves) -> Option<String> {
        let is_used = self.is_mounted() || self.has_lockspace;
        let is_stranger = self.claim == Some(Claim::OtherCluster) && serves == Serves::UserAhead;
        let name = named_by(self.superblock.as_ref()).filter(|_| is_stranger && is_used)?;
        Some(format!(
            "it names the cluster '{name}' and is in use in ours: deaths are told for it from now on, but no mount of \
             it can wait for a node that is not fenced, and the nodes of '{name}' are not known here; unmount it on all \
             nodes, and write our cluster's name on it with o2cluster before it is mounted again"
        ))
    }

    /// Says so once.
    pub(super) fn take_stranger(&mut self, serves: Serves) -> Option<Decision> {
        let stranger = self.stranger(serves);
        let was_said = std::mem::replace(&mut self.is_stranger_said, stranger.is_some());
        let why = stranger.filter(|_| !was_said)?;
        Some(Decision::Report { uuid: self.uuid, why: format!("volume {}: {why}", self.uuid) })
    }

    fn loss_at(&self, on_loss: OnLoss, loss_ms: u64) -> Option<Now> {
        let is_over = on_loss == OnLoss::Report && self.storage.was_said();
        self.storage.lost_at(loss_ms).filter(|_| !is_over)
    }

    pub(super) fn handle_reply(
        &mut self,
        request: RequestId,
        reply: &Reply,
        ids: &mut Ids,
        now: Now,
        out: &mut Vec<Event>,
    ) {
        let cluster = cluster_of(self.superblock.as_ref(), self.claim.as_ref());
        let tool = self.tool.iter_mut().map(|(usage, _)| usage);
        let mut usages = tool.chain([&mut self.region]).chain(self.mounts.values_mut());
        if let Some(usage) = usages.find(|usage| usage.waits_for(request)) {
            usage.handle_reply(reply, &mut Step { now, group: self.uuid, cluster, ids, out });
        }
    }

    /// Goes as far as it can. True: somebody has to look who beats on the disk.
    pub(super) fn advance(
        &mut self,
        world: &World<'_>,
        ids: &mut Ids,
        now: Now,
        out: &mut Vec<Event>,
    ) -> bool {
        self.judge(world);
        if self.claim != Some(Claim::Ours) && self.look != Look::Asked {
            self.look = Look::Never;
        }
        self.region.expire(now);
        let wants_region = self.wants_region(world);
        let cluster = cluster_of(self.superblock.as_ref(), self.claim.as_ref());
        let mut step = Step { now, group: self.uuid, cluster, ids, out };
        self.region.advance(wants_region, &mut step);
        if self.look == Look::Quiet {
            // Used, or of no use: the next begin needs a new one.
            self.look = Look::Never;
        }
        self.advance_mounts(world, ids, now, out);
        self.advance_tool(world, ids, now, out);
        self.review_guard(world.serves);
        let is_due = self.look_at(world).is_some_and(|at| at <= now);
        if is_due {
            self.look = Look::Asked;
        }
        is_due
    }

    /// Of several devices with this volume, such as a copy of it, one that is ours counts before all others, so
    /// that it is not mounted unguarded.
    fn judge(&mut self, world: &World<'_>) {
        let judge = |it: &Superblock| judge(world.serves, world.which, world.cluster, it);
        let mut present = self.present.iter().map(|it| &it.superblock);
        let ours = present.clone().find(|it| judge(it) == Claim::Ours);
        if let Some(superblock) = ours.or(present.next()) {
            self.superblock = Some(superblock.clone());
        }
        self.claim = self.superblock.as_ref().map(judge);
    }

    /// See [`super::Volumes::unready`].
    pub(super) fn is_unready(&self, serves: Serves) -> bool {
        self.needs_region(serves) && !self.region.is_live()
    }

    /// Whether a mount of it needs our region.
    pub(super) fn needs_region(&self, serves: Serves) -> bool {
        !serves.is_user()
            && !self.present.is_empty()
            && self.claim == Some(Claim::Ours)
            && !matches!(self.look, Look::Beating { .. })
    }

    /// Whether it is ours and its region, or group, does not stand yet, and nothing is known that keeps it away.
    pub(super) fn is_to_come(&self) -> bool {
        let is_ours = !self.present.is_empty() && self.claim == Some(Claim::Ours);
        let is_kept_away =
            self.region.is_refused_for_good() || matches!(self.look, Look::Beating { .. });
        is_ours && !self.region.is_live() && !is_kept_away
    }

    fn wants_region(&self, world: &World<'_>) -> bool {
        if world.is_stopping {
            return false;
        }
        let is_here = !self.present.is_empty();
        let is_ours = is_here && self.claim == Some(Claim::Ours);
        if !world.is_known {
            return !self.region.is_idle();
        }
        if self.region.is_idle() {
            return match world.serves {
                Serves::O2cb => is_ours && self.look == Look::Quiet,
                Serves::UserAhead => is_ours,
                Serves::UserSeen => false,
            };
        }
        let is_used = self.is_mounted() || self.has_lockspace;
        is_used || (is_here && self.claim.as_ref().is_some_and(Claim::keeps))
    }

    fn advance_mounts(&mut self, world: &World<'_>, ids: &mut Ids, now: Now, out: &mut Vec<Event>) {
        let is_user = world.serves.is_user();
        let lockspace =
            (is_user && self.has_lockspace && !self.is_mounted()).then(|| service(LOCKSPACE));
        for name in self.table.keys().chain(&lockspace) {
            let fresh = || Usage::new(name.clone(), ids);
            self.mounts.entry(name.clone()).or_insert_with(fresh);
        }
        // A region that is being left under a mount stays, and the mount has to say whose it is.
        let stands = self.region.is_live() || self.is_leaving();
        let is_followed = self.claim.as_ref().is_some_and(|it| it.is_followed(world.serves));
        let may_begin = (if is_user { is_followed } else { stands }) && !world.is_stopping;
        let cluster = cluster_of(self.superblock.as_ref(), self.claim.as_ref());
        for (name, usage) in &mut self.mounts {
            usage.expire(now);
            let is_there = self.table.contains_key(name)
                || lockspace.as_ref() == Some(name)
                || !world.is_known;
            let wanted = is_there && (may_begin || !usage.is_idle());
            let mut step = Step { now, group: self.uuid, cluster, ids, out };
            usage.advance(wanted, &mut step);
        }
        self.mounts.retain(|name, usage| !usage.is_idle() || self.table.contains_key(name));
    }

    /// A tool's own service goes once the mount's has taken its place, or there is no mount.
    fn advance_tool(&mut self, world: &World<'_>, ids: &mut Ids, now: Now, out: &mut Vec<Event>) {
        let is_replaced = self.mounts.values().any(Usage::is_live);
        let is_in_use = self.is_mounted() || self.has_lockspace;
        let Some((usage, until)) = &mut self.tool else { return };
        *until = until.filter(|at| *at > now);
        let waits = !world.is_known || until.is_some() || is_in_use;
        let cluster = cluster_of(self.superblock.as_ref(), self.claim.as_ref());
        let mut step = Step { now, group: self.uuid, cluster, ids, out };
        usage.advance(waits && !is_replaced, &mut step);
        if usage.is_idle() {
            self.tool = None;
        }
    }

    /// Guards the storage while the volume is mounted through us. A device that is gone goes on
    /// being asked by its old name: its loss is what the guard is for.
    fn review_guard(&mut self, serves: Serves) {
        let is_ours = self.region.is_begun() || self.mounts.values().any(Usage::is_live);
        // Nobody beats for a user stack, so a node that lost its storage lies to nobody.
        if !self.is_mounted() || !is_ours || serves.is_user() {
            self.guarded = None;
            self.storage = Storage::default();
            return;
        }
        let path = self.table.values().find_map(|mount| mount.path.clone());
        let before = self.guarded.take();
        let path = path.or(before.map(|before| before.path));
        let offset = self.superblock.as_ref().map_or(0, Superblock::offset);
        self.guarded = path.map(|path| Guarded { path, offset });
    }

    /// When somebody has to look who beats on the disk.
    fn look_at(&self, world: &World<'_>) -> Option<Now> {
        let is_ours = self.claim == Some(Claim::Ours) && !self.present.is_empty();
        if !is_ours || world.is_stopping || !world.is_known || world.serves.is_user() {
            return None;
        }
        match self.look {
            Look::Never if self.region.is_idle() => Some(Now(0)),
            Look::Never if self.region.is_live() => Some(self.recheck_at),
            Look::Beating { again_at, .. } | Look::Unknown { again_at, .. } => Some(again_at),
            Look::Never | Look::Asked | Look::Quiet => None,
        }
    }

    /// The mounts, and a lockspace without one.
    pub(super) fn uses(&self) -> impl Iterator<Item = &Usage> {
        self.mounts.values()
    }

    /// When something is due.
    pub(super) fn next_at(&self, world: &World<'_>) -> Option<Now> {
        let usages = self.mounts.values().chain([&self.region]).filter_map(Usage::next_at);
        let loss = self.loss_at(world.on_loss, world.loss_ms);
        let tool =
            self.tool.iter().flat_map(|(usage, until)| usage.next_at().into_iter().chain(*until));
        usages.chain(loss).chain(self.look_at(world)).chain(tool).min()
    }

    pub(super) fn is_mounted(&self) -> bool {
        !self.table.is_empty()
    }

    /// Whether a mount needs what we have in the kernel.
    pub(super) fn is_in_use(&self) -> bool {
        self.is_mounted() && !self.is_left()
    }

    /// Whether the core has nothing of its region.
    pub(super) fn is_left(&self) -> bool {
        self.region.is_idle() || self.region.refusal().is_some()
    }

    /// Whether its region is on its way out.
    pub(super) fn is_leaving(&self) -> bool {
        self.region.is_leaving()
    }

    /// Whether it is on no device, and the core has nothing of its region.
    pub(super) fn is_absent(&self) -> bool {
        self.present.is_empty() && self.is_left()
    }

    /// Whether there is nothing left to know of it.
    pub(super) fn is_forgotten(&self) -> bool {
        let is_unused = self.region.is_idle() && self.mounts.is_empty() && self.tool.is_none();
        self.present.is_empty() && is_unused && !self.has_lockspace
    }
}

/// The cluster that a begin names: of a volume that names another one and is followed nevertheless, none, or the core
/// would refuse it.
fn cluster_of<'a>(superblock: Option<&'a Superblock>, claim: Option<&Claim>) -> Option<&'a str> {
    named_by(superblock).filter(|_| claim != Some(&Claim::OtherCluster))
}

/// The cluster that a volume names.
fn named_by(superblock: Option<&Superblock>) -> Option<&str> {
    match &superblock?.stack {
        Stack::Classic => None,
        Stack::Named { cluster, .. } => Some(cluster),
    }
}

/// A mountpoint that is too long for the core, or no text, is named by its device. All such mounts
/// of a volume share that name, and it goes with the last of them.
fn name_of(mount: &Mount) -> ServiceName {
    let text = std::str::from_utf8(&mount.mountpoint).ok();
    let name = text.and_then(|text| ServiceName::new(text).ok());
    name.unwrap_or_else(|| {
        let device = mount.device.0;
        service(&format!("{NAMELESS}{}:{}", major(device), minor(device)))
    })
}

/// A name of ours, which is always one.
fn service(name: &str) -> ServiceName {
    match ServiceName::new(name) {
        Ok(name) => name,
        Err(_) => unreachable!("a short text without control characters"),
    }
}
