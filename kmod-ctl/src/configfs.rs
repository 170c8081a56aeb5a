//! The node table as configfs shows it: `/sys/kernel/config/cluster`. Thin: reads and single steps.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::kernel::Kernel;
use crate::wanted::Wanted;

const EEXIST: i32 = 17;
const EBUSY: i32 = 16;

/// A node directory: what it has, or what it shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) slot: u8,
    pub(crate) address: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) is_local: bool,
}

impl Entry {
    /// Whoever made it did not get to its end: the kernel does not know the node.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.address.is_unspecified() || self.port == 0
    }
}

/// The attributes that this program writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attribute {
    Mode,
    DeadThreshold,
    IdleTimeout,
    KeepaliveDelay,
    ReconnectDelay,
}

impl Attribute {
    pub(crate) const ALL: [Self; 5] = [
        Self::Mode,
        Self::DeadThreshold,
        Self::IdleTimeout,
        Self::KeepaliveDelay,
        Self::ReconnectDelay,
    ];

    /// Below the cluster's directory.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Mode => "heartbeat/mode",
            Self::DeadThreshold => "heartbeat/dead_threshold",
            Self::IdleTimeout => "idle_timeout_ms",
            Self::KeepaliveDelay => "keepalive_delay_ms",
            Self::ReconnectDelay => "reconnect_delay_ms",
        }
    }

    pub(crate) fn of(self, wanted: &Wanted) -> String {
        match self {
            Self::Mode => wanted.mode.to_string(),
            Self::DeadThreshold => wanted.dead_threshold.to_string(),
            Self::IdleTimeout => wanted.idle_timeout_ms.to_string(),
            Self::KeepaliveDelay => wanted.keepalive_delay_ms.to_string(),
            Self::ReconnectDelay => wanted.reconnect_delay_ms.to_string(),
        }
    }
}

/// The one cluster that the kernel can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) cluster: String,
    /// Those that there are, in the order of [`Attribute::ALL`].
    pub(crate) attributes: Vec<(Attribute, String)>,
    pub(crate) nodes: Vec<Entry>,
    pub(crate) regions: Vec<String>,
}

/// How a node's directory went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    Gone,
    /// The kernel still uses it.
    Busy,
}

/// configfs, at a place.
pub(crate) struct Configfs<'a> {
    kernel: &'a dyn Kernel,
    /// `/sys/kernel/config/cluster`
    root: PathBuf,
    /// Whether attributes may be missing.
    may_lack: bool,
}

impl<'a> Configfs<'a> {
    pub(crate) fn new(kernel: &'a dyn Kernel, configfs: &Path, may_lack: bool) -> Self {
        Self { kernel, root: configfs.join("cluster"), may_lack }
    }

    pub(crate) fn cluster_path(&self, cluster: &str) -> PathBuf {
        self.root.join(cluster)
    }

    fn node_path(&self, cluster: &str, node: &str) -> PathBuf {
        self.root.join(cluster).join("node").join(node)
    }

    /// Reads everything.
    pub(crate) fn read(&self) -> Result<Option<Table>, Error> {
        let Some(cluster) = self.directories(&self.root)?.into_iter().next() else {
            return Ok(None);
        };
        let path = self.cluster_path(&cluster);
        let mut attributes = Vec::new();
        for attribute in Attribute::ALL {
            if self.has(&cluster, attribute) {
                attributes.push((attribute, self.value(&path.join(attribute.path()))?));
            }
        }
        let mut nodes = Vec::new();
        for name in self.directories(&path.join("node"))? {
            nodes.push(self.node(&cluster, name)?);
        }
        let regions = self.directories(&path.join("heartbeat"))?;
        Ok(Some(Table { cluster, attributes, nodes, regions }))
    }

    /// Whether the kernel has this attribute, or must have it.
    fn has(&self, cluster: &str, attribute: Attribute) -> bool {
        let path = self.cluster_path(cluster).join(attribute.path());
        !self.may_lack || self.kernel.is_there(&path)
    }

    /// The attributes that this kernel does not have and need not have.
    pub(crate) fn lacking(&self, cluster: &str) -> Vec<Attribute> {
        let all = Attribute::ALL.into_iter();
        all.filter(|attribute| !self.has(cluster, *attribute)).collect()
    }

    fn node(&self, cluster: &str, name: String) -> Result<Entry, Error> {
        let path = self.node_path(cluster, &name);
        let slot = self.parsed(&path.join("num"))?;
        let address = self.parsed(&path.join("ipv4_address"))?;
        let port = self.parsed(&path.join("ipv4_port"))?;
        let is_local = self.value(&path.join("local"))? != "0";
        Ok(Entry { name, slot, address, port, is_local })
    }

    fn directories(&self, path: &Path) -> Result<Vec<String>, Error> {
        self.kernel.directories(path).map_err(|error| Error::step("read", path, error))
    }

    fn value(&self, path: &Path) -> Result<String, Error> {
        let text = self.kernel.read(path).map_err(|error| Error::step("read", path, error))?;
        Ok(text.trim().to_owned())
    }

    fn parsed<T: std::str::FromStr>(&self, path: &Path) -> Result<T, Error> {
        let invalid = |_| {
            let error = io::Error::new(io::ErrorKind::InvalidData, "not a value of this attribute");
            Error::step("understand", path, error)
        };
        self.value(path)?.parse().map_err(invalid)
    }

    /// With a newline: some attributes insist on one, none minds it.
    fn write(&self, path: &Path, value: &str) -> Result<(), Error> {
        let result = self.kernel.write(path, &format!("{value}\n"));
        result.map_err(|error| Error::step(format!("write '{value}' to"), path, error))
    }

    /// Writes and reads back: some attributes say done and ignore it.
    fn write_checked(&self, path: &Path, value: &str) -> Result<(), Error> {
        self.write(path, value)?;
        let found = self.value(path)?;
        if found.eq_ignore_ascii_case(value) {
            return Ok(());
        }
        Err(Error::Ignored { path: path.into(), wanted: value.to_owned(), found })
    }

    fn make(&self, path: &Path) -> Result<(), Error> {
        self.kernel.make_directory(path).map_err(|error| Error::step("make", path, error))
    }

    fn remove(&self, path: &Path) -> Result<(), Error> {
        self.kernel.remove_directory(path).map_err(|error| Error::step("remove", path, error))
    }

    pub(crate) fn make_cluster(&self, cluster: &str) -> Result<(), Error> {
        self.make(&self.cluster_path(cluster))
    }

    pub(crate) fn remove_cluster(&self, cluster: &str) -> Result<(), Error> {
        self.remove(&self.cluster_path(cluster))
    }

    /// Writes an attribute unless it is so already, or the kernel has none. Says what it was if it
    /// was written.
    pub(crate) fn set(
        &self,
        cluster: &str,
        attribute: Attribute,
        value: &str,
    ) -> Result<Option<String>, Error> {
        if !self.has(cluster, attribute) {
            return Ok(None);
        }
        let path = self.cluster_path(cluster).join(attribute.path());
        let found = self.value(&path)?;
        if found.eq_ignore_ascii_case(value) {
            return Ok(None);
        }
        self.write_checked(&path, value)?;
        Ok(Some(found))
    }

    /// Makes a node. The kernel insists on this order. If it fails, its directory is removed again.
    pub(crate) fn add_node(&self, cluster: &str, node: &Entry) -> Result<(), Error> {
        let path = self.node_path(cluster, &node.name);
        self.make(&path)?;
        let fill = || {
            self.write_checked(&path.join("ipv4_port"), &node.port.to_string())?;
            self.write_checked(&path.join("ipv4_address"), &node.address.to_string())?;
            self.write_checked(&path.join("num"), &node.slot.to_string())?;
            if node.is_local {
                self.write_checked(&path.join("local"), "1")?;
            }
            Ok(())
        };
        fill().map_err(|cause| match self.remove(&path) {
            Ok(()) => cause,
            Err(left) => Error::Undo(Box::new(cause), vec![left]),
        })
    }

    pub(crate) fn remove_node(&self, cluster: &str, node: &str) -> Result<Removed, Error> {
        match self.remove(&self.node_path(cluster, node)) {
            Ok(()) => Ok(Removed::Gone),
            Err(Error::Step { source, .. }) if source.raw_os_error() == Some(EBUSY) => {
                Ok(Removed::Busy)
            }
            Err(error) => Err(error),
        }
    }

    /// A number that was never written reads 0, as slot 0 does: the write tells. It is refused
    /// where the number was written before.
    pub(crate) fn confirm_zero(&self, cluster: &str, node: &str) -> Result<(), Error> {
        match self.write(&self.node_path(cluster, node).join("num"), "0") {
            Err(Error::Step { source, .. })
                if matches!(source.raw_os_error(), Some(EEXIST | EBUSY)) =>
            {
                Ok(())
            }
            result => result,
        }
    }
}
