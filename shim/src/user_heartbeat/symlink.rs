//! The carrier for kernels with the user-heartbeat driver: a node is up while a link to its
//! directory stands in the region's.
//!
//! The kernel acts before symlink(2) and unlink(2) return. Which node is up is decided by the
//! number of the link's target; a link's name means nothing to the kernel, and here it is the
//! node's. A directory of a node cannot go while a link to it stands, so a link never dangles.
//!
//! This driver has no fencing of its own, and nothing pins a region but its links: whether a lock
//! domain still needs it is looked up before it is taken down.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use o2bridge_core::{GroupId, Incarnation};

use super::carrier::{Carrier, Lives, Look, Region, RegionView, Standing};
use super::tree::{self, Cluster, Ground, Node};
use crate::ShimError;

const MODE: &str = "user";

/// Where the symlink carrier finds its things.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) configfs: PathBuf,
    /// Where the driver of 2006 has its mode file: `/sys/o2cb`.
    pub(super) sys_o2cb: PathBuf,
    pub(super) debugfs: PathBuf,
}

impl Places {
    /// The driver of 2007 has its mode file in configfs, the one of 2006 in sysfs.
    fn mode_files(&self) -> [PathBuf; 2] {
        [self.configfs.join("cluster/heartbeat_mode"), self.sys_o2cb.join("heartbeat_mode")]
    }

    /// What the driver says; `None` if there is none.
    pub(super) fn mode(&self) -> Result<Option<(PathBuf, String)>, ShimError> {
        for path in self.mode_files() {
            let mode = tree::read(&path)?;
            if !mode.is_empty() {
                return Ok(Some((path, mode)));
            }
        }
        Ok(None)
    }

    /// Whether the driver runs in user mode, or could. The one of 2006 does not say what it could:
    /// it refuses the mode when it is asked for.
    pub(super) fn can_be_user(&self) -> Result<bool, ShimError> {
        let available = tree::read(&self.configfs.join("cluster/heartbeat_available_modes"))?;
        let may_be = available.is_empty() || available.lines().any(|line| line == MODE);
        Ok(self.mode()?.is_some_and(|(_, mode)| mode == MODE || may_be))
    }
}

/// The carrier.
pub(super) struct Symlinks {
    places: Places,
    ground: Box<dyn Ground>,
}

impl Symlinks {
    /// Sees to it that the driver takes its news from links. It refuses to change its mind while
    /// there is a cluster, so this comes before the node table.
    pub(super) fn start(places: Places, ground: Box<dyn Ground>) -> Result<Self, ShimError> {
        match places.mode()? {
            Some((_, mode)) if mode == MODE => {}
            Some((path, _)) => tree::write(&path, MODE).map_err(mode_refused)?,
            None => {
                return Err(ShimError::Unusable(
                    "this kernel has no user-heartbeat driver: there is no file heartbeat_mode"
                        .into(),
                ));
            }
        }
        Ok(Self { places, ground })
    }

    fn cluster(&self) -> Result<Cluster, ShimError> {
        Cluster::find(&self.places.configfs)
    }

    /// The links of a region with the node that each leads to, our own first. A link may have
    /// been made by somebody else, under any name.
    fn links(&self, region: &Region) -> Result<Vec<(PathBuf, Node)>, ShimError> {
        let cluster = self.cluster()?;
        let dir = cluster.region(region.name());
        let nodes = cluster.nodes()?;
        let mut links = Vec::new();
        for name in tree::links(&dir)? {
            let path = dir.join(name);
            let target = fs::read_link(&path);
            let target = target.map_err(|error| ShimError::file("read", &path, error))?;
            let node = nodes.iter().find(|node| target.file_name() == Some(node.name.as_ref()));
            match node {
                Some(node) => links.push((path, node.clone())),
                None => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "it leads to no node");
                    return Err(ShimError::file("understand", &path, error));
                }
            }
        }
        links.sort_by_key(|(_, node)| !node.is_local);
        Ok(links)
    }

    fn node(&self, slot: u8) -> Result<(Cluster, Node), ShimError> {
        let cluster = self.cluster()?;
        let node = cluster.nodes()?.into_iter().find(|node| node.slot == slot);
        match node {
            Some(node) => Ok((cluster, node)),
            None => Err(ShimError::Unusable(format!(
                "the o2cb node table in {} has no node with the number {slot}",
                cluster.dir.display()
            ))),
        }
    }

    fn link(&self, region: &Region, slot: u8) -> Result<(), ShimError> {
        // A second link to one node would raise it twice.
        if self.links(region)?.iter().any(|(_, of)| of.slot == slot) {
            return Ok(());
        }
        let (cluster, node) = self.node(slot)?;
        let path = cluster.region(region.name()).join(&node.name);
        symlink(&node.dir, &path).map_err(|error| refused("link", &path, error))
    }

    fn unlink(path: &Path) -> Result<(), ShimError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|error| refused("unlink", path, error)),
        }
    }
}

impl Carrier for Symlinks {
    fn name(&self) -> &'static str {
        "symlink"
    }

    fn region(&self, group: GroupId) -> Result<Region, ShimError> {
        // Without a cluster there is none to speak of, and the caller must hear so.
        self.cluster()?;
        Ok(Region::Own(group.to_string()))
    }

    /// Our own link comes last: without it the kernel refuses a mount.
    fn open(&self, region: &Region, own_slot: u8, peers: &Lives) -> Result<(), ShimError> {
        let dir = self.cluster()?.region(region.name());
        if !dir.exists() {
            self.ground.make(&dir).map_err(|error| refused("make", &dir, error))?;
        }
        if !self.standing(region)?.contains_key(&own_slot) {
            peers.keys().try_for_each(|slot| self.link(region, *slot))?;
        }
        self.link(region, own_slot)
    }

    fn standing(&self, region: &Region) -> Result<Standing, ShimError> {
        Ok(self.links(region)?.into_iter().map(|(_, node)| (node.slot, None)).collect())
    }

    fn up(&self, region: &Region, slot: u8, _: Incarnation) -> Result<(), ShimError> {
        self.link(region, slot)
    }

    fn down(&self, region: &Region, slot: u8) -> Result<(), ShimError> {
        let mut links = self.links(region)?.into_iter().filter(|(_, of)| of.slot == slot);
        links.try_for_each(|(path, _)| Self::unlink(&path))
    }

    fn unused(&self, group: GroupId) -> Result<(), ShimError> {
        tree::no_domain(&self.places.debugfs, &group.to_string())
    }

    /// Links go with their region.
    fn sweep(&self) -> Result<(), ShimError> {
        Ok(())
    }

    /// Our own link goes first: a mount after that is refused, instead of missing a peer.
    fn close(&self, region: &Region) -> Result<(), ShimError> {
        let dir = self.cluster()?.region(region.name());
        if !dir.exists() {
            return Ok(());
        }
        tree::no_domain(&self.places.debugfs, region.name())?;
        for (path, _) in self.links(region)? {
            Self::unlink(&path)?;
        }
        match self.ground.remove(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                let by = "the kernel holds it".into();
                Err(ShimError::InUse { region: region.name().into(), by })
            }
            result => result.map_err(|error| refused("remove", &dir, error)),
        }
    }

    /// The kernel acted before symlink(2) returned.
    fn await_live(&self, _: &Region, _: &BTreeSet<u8>, _: bool) -> Result<(), ShimError> {
        Ok(())
    }

    fn look(&self) -> Look {
        let mut look = Look::default();
        let regions = match self.cluster().and_then(|cluster| cluster.regions()) {
            Err(ShimError::NoCluster { .. }) => Ok(Vec::new()),
            regions => regions,
        };
        look.is_partial = regions.is_err();
        for name in regions.unwrap_or_default() {
            let links = self.links(&Region::Own(name.clone()));
            look.is_partial |= links.is_err();
            let links = links.unwrap_or_default();
            let peers = links.iter().filter(|(_, node)| !node.is_local);
            let up = peers.map(|(_, node)| (node.slot, None)).collect();
            // What is linked is live.
            let live = Some(links.iter().map(|(_, node)| node.slot).collect());
            look.regions.push(RegionView { name, area: None, up, live });
        }
        look
    }
}

/// The errors that the driver is known for, in words.
fn refused(step: &'static str, path: &Path, error: io::Error) -> ShimError {
    let why = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM) => "this kernel's regions take no links to nodes",
        Some(Errno::ENOTEMPTY) => "a link was made in it meanwhile",
        _ => return ShimError::file(step, path, error),
    };
    ShimError::Refused { step, path: path.into(), source: error, why }
}

/// The same for its mode.
fn mode_refused(error: ShimError) -> ShimError {
    let ShimError::File { step, path, source } = error else { return error };
    let why = match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBUSY) => "the mode cannot change while there is a cluster: take it offline",
        Some(Errno::EINVAL) => "the driver's part for the user heartbeat is not loaded",
        _ => return ShimError::File { step, path, source },
    };
    ShimError::Refused { step, path, source, why }
}
