//! What concerns real kernels: `[o2cb]`, `[user_heartbeat]`, `[control]`, `[keeper]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use o2bridge_core::GroupId;
use serde::Deserialize;

use super::Bounded;

/// `[o2cb]`: the kernel's cluster in configfs. Must be equal on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct O2cbSection {
    /// The TCP port of o2net, on every node.
    pub port: Bounded<1, 65_534>,
    /// Node number in the kernel by corosync's node id, where they differ.
    pub slots: BTreeMap<String, Bounded<0, 254>>,
    /// One heartbeat region for each volume, or one for all.
    pub heartbeat_mode: HeartbeatMode,
    /// Rounds of two seconds without a beat after which the kernel buries a node by itself.
    pub dead_threshold: Bounded<3, 1_000>,
    /// How long o2net waits for a silent peer.
    pub idle_timeout_ms: Bounded<5_000, 600_000>,
    /// After how much silence o2net asks whether the peer is there.
    pub keepalive_delay_ms: Bounded<1_000, 300_000>,
    /// The pause before o2net connects again.
    pub reconnect_delay_ms: Bounded<100, 60_000>,
}

impl Default for O2cbSection {
    fn default() -> Self {
        Self {
            port: Bounded(7_777),
            slots: BTreeMap::new(),
            heartbeat_mode: HeartbeatMode::Local,
            dead_threshold: Bounded(31),
            idle_timeout_ms: Bounded(30_000),
            keepalive_delay_ms: Bounded(2_000),
            reconnect_delay_ms: Bounded(2_000),
        }
    }
}

/// `o2cb.heartbeat_mode`: as the volumes were made with `mkfs.ocfs2 --global-heartbeat`, or without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeartbeatMode {
    /// A region for each volume.
    #[default]
    Local,
    /// One region for the cluster.
    Global,
}

/// `[user_heartbeat]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UserHeartbeatSection {
    /// How "node up" and "node down" get into the kernel.
    pub carrier: Carrier,
    /// The volumes whose regions stand ahead of any mount.
    pub volumes: Volumes,
    /// How long the disk of a mounted volume may fail or not answer.
    pub storage_loss_ms: Bounded<4_000, 600_000>,
    /// What happens then.
    pub on_storage_loss: StorageLoss,
}

impl Default for UserHeartbeatSection {
    fn default() -> Self {
        Self {
            carrier: Carrier::Auto,
            volumes: Volumes::default(),
            storage_loss_ms: Bounded(20_000),
            on_storage_loss: StorageLoss::Reset,
        }
    }
}

/// `user_heartbeat.carrier`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// Links where the kernel has the driver for them, else a region.
    #[default]
    Auto,
    /// A heartbeat region on a RAM disk.
    Region,
    /// Links in configfs, for kernels with the user-heartbeat driver.
    Symlink,
}

/// `user_heartbeat.volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\", \"none\" or a list of UUIDs")]
pub enum Volumes {
    /// A word.
    Word(VolumesWord),
    /// These, by UUID.
    List(Vec<String>),
}

impl Default for Volumes {
    fn default() -> Self {
        Self::Word(VolumesWord::Auto)
    }
}

/// The words of [`Volumes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumesWord {
    /// Every volume of our cluster that is present or appears.
    Auto,
    /// Only what tools begin.
    None,
}

/// `user_heartbeat.on_storage_loss`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageLoss {
    /// This node is reset: its heartbeat goes to memory, so the kernel would never notice.
    #[default]
    Reset,
    /// The log and status say it.
    Report,
}

/// `[control]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlSection {
    /// To run on a kernel of which nobody knows whether telling it of a death crashes it.
    pub risk_kernel_bug: bool,
}

/// `[keeper]`: the process that beats for the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeeperSection {
    /// The program; without it `o2bridge-keeper` beside `o2bridged`.
    pub program: Option<PathBuf>,
    /// How long the daemon may be away before the keeper resets the node.
    pub daemon_back_ms: Bounded<1_000, 600_000>,
    /// A hardware watchdog that the keeper feeds, for the case that it stops itself.
    pub watchdog: Option<PathBuf>,
}

impl Default for KeeperSection {
    fn default() -> Self {
        Self { program: None, daemon_back_ms: Bounded(20_000), watchdog: None }
    }
}

impl O2cbSection {
    /// Node numbers by corosync's node id.
    #[must_use]
    pub fn slots(&self) -> BTreeMap<u32, u8> {
        let entries = self.slots.iter();
        entries
            .filter_map(|(node, slot)| Some((node.parse().ok()?, u8::try_from(slot.get()).ok()?)))
            .collect()
    }

    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let is_id =
            |text: &str| text.parse::<u32>().is_ok_and(|id| id > 0 && id.to_string() == text);
        let bad = self.slots.keys().filter(|node| !is_id(node));
        let mut problems: Vec<String> = bad
            .map(|node| format!("o2cb.slots: \"{node}\" is not a node id of corosync.conf"))
            .collect();
        let mut owners: BTreeMap<u64, &str> = BTreeMap::new();
        for (node, slot) in &self.slots {
            if let Some(other) = owners.insert(slot.get(), node) {
                problems.push(format!(
                    "o2cb.slots: nodes {other} and {node} both have node number {}",
                    slot.get()
                ));
            }
        }
        if self.idle_timeout_ms.get() <= self.keepalive_delay_ms.get() {
            problems.push(format!(
                "o2cb.idle_timeout_ms ({}) must be greater than o2cb.keepalive_delay_ms ({})",
                self.idle_timeout_ms.get(),
                self.keepalive_delay_ms.get()
            ));
        }
        problems
    }

    /// How long after the loss of a peer's connection o2net's own quorum rule may reset a node.
    #[must_use]
    pub fn o2quo_ms(&self) -> u64 {
        self.idle_timeout_ms.get() + (self.dead_threshold.get() + 2) * ROUND_MS
    }
}

/// One round of the kernel's heartbeat.
const ROUND_MS: u64 = 2_000;

impl UserHeartbeatSection {
    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let Volumes::List(list) = &self.volumes else { return Vec::new() };
        let bad = list.iter().filter(|uuid| uuid.parse::<GroupId>().is_err());
        bad.map(|uuid| {
            format!(
                "user_heartbeat.volumes: \"{uuid}\" is not a UUID of 32 hex digits without dashes, as \
                 `mounted.ocfs2 -d` shows it"
            )
        })
        .collect()
    }
}

impl KeeperSection {
    /// What is wrong, one sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let named = [("program", &self.program), ("watchdog", &self.watchdog)];
        let relative = named.into_iter().filter_map(|(key, path)| Some((key, path.as_ref()?)));
        relative
            .filter(|(_, path)| !path.is_absolute())
            .map(|(key, path)| format!("keeper.{key}: \"{}\" needs its full path", path.display()))
            .collect()
    }
}
