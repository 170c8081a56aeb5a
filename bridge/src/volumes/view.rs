//! What status shows of a volume.

use o2bridge_core::snapshot::GroupStatus;
use o2bridge_core::{GroupId, NodeId, Snapshot, Waiting};
use o2bridge_kmod_ctl::Mode;
use o2bridge_shim::volume::{Health, Stack};
use serde::{Deserialize, Serialize};

use super::claim::{Claim, Cluster, may_carry_beats};
use super::usage::Usage;
use super::volume::{Look, Volume};
use super::{Serves, Volumes};

/// One volume, for status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// 32 upper-case hex digits.
    pub uuid: String,
    /// The devices that it was found on; empty if it is gone.
    pub devices: Vec<String>,
    /// Its label; empty if it has none.
    pub label: String,
    /// The stack that it is made for; empty if its superblock could never be read.
    pub stack: String,
    /// The cluster that it names.
    pub cluster: Option<String>,
    /// `region`, or of a user stack `ready`, `in use`, `not in use`; `leaving`, `another cluster`, or a word and its
    /// reason: `waiting: ...`, `refused: ...`, `disk heartbeat: ...`, `left alone: ...`.
    pub state: String,
    /// Where it is mounted.
    pub mountpoints: Vec<String>,
    /// `good`, `failing ...`, `no answer ...`; `unknown` unless it is mounted through us.
    pub storage: String,
    /// What an operator must act upon.
    pub warning: Option<String>,
}

/// What the views of all volumes have in common.
struct Around<'a> {
    serves: Serves,
    snapshot: &'a Snapshot,
    /// Our cluster, if all its volumes share one region and that stands.
    shares: Option<&'a Cluster>,
}

impl Volumes {
    /// What status shows: every volume that is present or in use, ours or not. The snapshot is the core's.
    #[must_use]
    pub fn view(&self, snapshot: &Snapshot) -> Vec<VolumeView> {
        let is_shared =
            |cluster: &&Cluster| !self.policy.serves.is_user() && cluster.mode == Mode::Global;
        let stands = snapshot.groups.iter().any(is_held);
        let shares = self.cluster.as_ref().filter(is_shared).filter(|_| stands);
        let around = Around { serves: self.policy.serves, snapshot, shares };
        self.volumes.values().map(|volume| volume.view(&around)).collect()
    }
}

impl Volume {
    fn view(&self, around: &Around<'_>) -> VolumeView {
        let stack = self.superblock.as_ref().map(|volume| &volume.stack);
        let (stack, cluster) = match stack {
            None => (String::new(), None),
            Some(Stack::Classic) => ("o2cb".into(), None),
            Some(Stack::Named { stack, cluster, .. }) => (stack.clone(), Some(cluster.clone())),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let devices =
            self.present().iter().map(|present| present.device.path.display().to_string());
        let label = self.superblock.as_ref().map(|volume| volume.label.clone());
        VolumeView {
            uuid: self.uuid().to_string(),
            devices: devices.collect(),
            label: label.unwrap_or_default(),
            stack,
            cluster,
            state: if around.serves.is_user() { self.use_state(around) } else { self.state() },
            mountpoints: self.table.values().map(|mount| text(&mount.mountpoint)).collect(),
            storage: health(self.storage.health()),
            warning: self.warning(around),
        }
    }

    /// Of a volume of a user stack.
    fn use_state(&self, around: &Around<'_>) -> String {
        let refusal = self.uses().find_map(Usage::refusal);
        let hindrance = hindrance(around.snapshot, self.uuid());
        match (refusal, &self.claim) {
            (Some(why), _) => format!("refused: {why}"),
            (None, _) if self.uses().any(Usage::is_live) => "in use".into(),
            (None, _) if self.region.is_leaving() => "leaving".into(),
            (None, _) if self.region.is_live() => {
                hindrance.map_or("ready".into(), |waiting| format!("waiting: {waiting}"))
            }
            (None, _) if self.region.is_begun() => "waiting: its group".into(),
            (None, None) => "waiting: its device cannot be read".into(),
            (None, Some(Claim::Ours)) if around.serves == Serves::UserSeen => "not in use".into(),
            (None, Some(claim)) => claim.to_string(),
        }
    }

    fn state(&self) -> String {
        if self.region.is_live() {
            return "region".into();
        }
        if self.region.is_leaving() {
            return "leaving".into();
        }
        if self.region.is_begun() {
            return "waiting: its group".into();
        }
        if let Some(why) = self.region.refusal() {
            return format!("refused: {why}");
        }
        if let Some(who) = self.beating() {
            return format!("disk heartbeat: {who} beats on the disk");
        }
        match (&self.look, &self.claim) {
            (_, None) => "waiting: its device cannot be read".into(),
            (Look::Asked, Some(Claim::Ours)) => "waiting: looking who beats on the disk".into(),
            (Look::Unknown { why, .. }, Some(_)) => format!("waiting: {why}"),
            (_, Some(_)) if self.present().is_empty() => "waiting: its device is gone".into(),
            (_, Some(claim)) => claim.to_string(),
        }
    }

    fn warning(&self, around: &Around<'_>) -> Option<String> {
        if let Some(who) = self.beating().filter(|_| self.region.is_begun()) {
            return Some(format!(
                "{who} beats on the disk: the volume is mounted there by other means"
            ));
        }
        let groups = &around.snapshot.groups;
        let has_group = groups.iter().any(|it| it.group == self.uuid() && is_held(it));
        let shares =
            around.shares.is_some_and(|cluster| !has_group && self.is_open_to_all(cluster));
        let unheld = shares.then(|| if self.is_mounted() { MOUNTED_UNHELD } else { UNHELD }.into());
        unheld.or_else(|| self.stranger(around.serves))
    }

    /// Whether the region that all volumes share lets it be mounted.
    fn is_open_to_all(&self, cluster: &Cluster) -> bool {
        let mut present = self.present().iter().map(|it| &it.superblock);
        present.any(|it| may_carry_beats(cluster, it) && !it.is_local && !it.is_heartbeat_device)
    }
}

/// Whether the shim has this group attached.
fn is_held(group: &GroupStatus) -> bool {
    group.grip != "detached"
}

/// Of a volume that could be mounted, and must not be.
const UNHELD: &str = "do not mount it now: the region that all volumes share stands, so a mount would succeed, but \
                      this volume is not held here, and a node that uses it, or died in it, may be unknown to this \
                      kernel; mount it once its state is 'region'";
/// Of one that was.
const MOUNTED_UNHELD: &str = "it is mounted here and not held: the region that all volumes share stands for another \
                              one, and a node that uses this one, or died in it, may be unknown to this kernel; \
                              unmount it, and mount it once its state is 'region'";

/// What a mount of this group, which is attached, should wait for: its tools may ask nobody, and dlm_controld has nothing
/// to stop where nobody has mounted it. What a lost node used is not in the snapshot, and as long as it is not fenced it
/// may be this, too.
fn hindrance(snapshot: &Snapshot, group: GroupId) -> Option<Waiting> {
    if !snapshot.connected {
        return Some(Waiting::Cluster);
    }
    if !snapshot.quorate {
        return Some(Waiting::Quorum);
    }
    let is_writing = |fencing: &str| !matches!(fencing, "none" | "fenced");
    let mut nodes = snapshot.nodes.iter();
    let unfenced: Option<NodeId> =
        nodes.find(|node| is_writing(node.fencing)).map(|node| node.node);
    let group = snapshot.groups.iter().find(|it| it.group == group);
    let of_group = || Some(group?.waiting.clone()).filter(|it| *it != Waiting::Nothing);
    unfenced.map(Waiting::Fencing).or_else(of_group)
}

/// The state of a storage, in words.
pub(super) fn health(health: Option<Health>) -> String {
    match health {
        None => "unknown".into(),
        Some(Health::Good) => "good".into(),
        Some(Health::Failing { errno, for_ms }) => {
            let error = std::io::Error::from_raw_os_error(errno);
            format!("failing for {for_ms} ms: {error}")
        }
        Some(Health::Silent { for_ms }) => format!("no answer for {for_ms} ms"),
    }
}
