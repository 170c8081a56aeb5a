//! Several corosync nodes on one machine, for tests and demonstrations.
//!
//! Every node has its own mount, network, host name and pid namespace inside one outer set, with
//! private `/run`, `/dev/shm`, `/var/lib/corosync`, `/etc/corosync` and its own boot id. No root is
//! needed where the kernel allows unprivileged user namespaces. When the test process ends, for
//! whatever reason, the kernel ends every process of every node.
//!
//! ```no_run
//! use std::process::Command;
//! use std::time::Duration;
//! use o2bridge_harness::Cluster;
//!
//! let cluster = Cluster::builder().nodes(3).start()?;
//! let uname = cluster.node(2).run(Command::new("uname").arg("-n"), Duration::from_secs(5))?;
//! assert_eq!(uname.stdout, "node2\n");
//! cluster.node(3).crash();
//! cluster.wait_members(&[1, 2], &[1, 2], Duration::from_secs(10))?;
//! # Ok::<(), o2bridge_harness::HarnessError>(())
//! ```
//!
//! The cluster's directory goes with the [`Cluster`], except when the test panics or
//! `O2BRIDGE_KEEP` is set in the environment: then it stays, and its path is printed.

mod conf;
mod error;
mod node;
mod proc;
mod space;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use error::HarnessError;
pub use node::Node;
pub use proc::{Output, Proc, Signal};

use conf::Settings;
use space::Space;

/// How long a cluster gets to form. It takes 0.1 s after the last corosync started.
const FORM_LIMIT: Duration = Duration::from_secs(20);
/// The largest cluster: a bigger one only starves a small machine.
const NODES_MAX: u32 = 16;

/// Some nodes, and the network between them.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    space: Arc<Space>,
    directory: Option<tempfile::TempDir>,
}

/// How a [`Cluster`] is to be.
#[derive(Debug, Clone)]
pub struct Builder {
    settings: Settings,
    corosync: bool,
}

impl Default for Builder {
    fn default() -> Self {
        let settings = Settings {
            nodes: 3,
            token_ms: 1000,
            token_coefficient_ms: 0,
            cluster_name: "lab".to_owned(),
            ipc_type: None,
        };
        Self { settings, corosync: true }
    }
}

impl Builder {
    /// How many nodes, with node ids from 1. Default 3.
    ///
    /// # Panics
    /// None, or more than 16.
    #[must_use]
    pub fn nodes(mut self, nodes: u32) -> Self {
        assert!((1..=NODES_MAX).contains(&nodes), "{nodes} nodes; 1 to {NODES_MAX} are possible");
        self.settings.nodes = nodes;
        self
    }

    /// `totem.token`: a death is noticed about 2.1 times this long after it. Default 1000.
    #[must_use]
    pub fn token_ms(mut self, token_ms: u32) -> Self {
        self.settings.token_ms = token_ms;
        self
    }

    /// `totem.token_coefficient`, added to the token for each node beyond the second. Default 0
    /// (corosync's own default is 650).
    #[must_use]
    pub fn token_coefficient_ms(mut self, coefficient_ms: u32) -> Self {
        self.settings.token_coefficient_ms = coefficient_ms;
        self
    }

    /// `totem.cluster_name`. Default `lab`.
    #[must_use]
    pub fn cluster_name(mut self, name: &str) -> Self {
        self.settings.cluster_name = name.to_owned();
        self
    }

    /// `system.qb_ipc_type`: `native`, `shm` or `socket`. Default: not set.
    #[must_use]
    pub fn ipc_type(mut self, ipc_type: &str) -> Self {
        self.settings.ipc_type = Some(ipc_type.to_owned());
        self
    }

    /// Whether corosync is started on all nodes. Default yes.
    #[must_use]
    pub fn corosync(mut self, start: bool) -> Self {
        self.corosync = start;
        self
    }

    /// Boots the nodes, and unless told otherwise starts corosync on them and waits until they are
    /// one quorate ring.
    ///
    /// # Errors
    /// Something is not installed or not allowed, or the ring did not form. The log directory is
    /// kept then.
    pub fn start(self) -> Result<Cluster, HarnessError> {
        space::check_programs()?;
        let what = "make a temporary directory";
        let directory = tempfile::Builder::new().prefix("o2bridge-lab-").tempdir();
        let directory = directory.map_err(HarnessError::io(what))?;
        if ["/run", "/dev", "/proc"].iter().any(|hidden| directory.path().starts_with(hidden)) {
            return Err(HarnessError::HiddenDirectory(directory.path().to_owned()));
        }
        let space = Arc::new(Space::new(directory.path())?);
        let mut cluster = Cluster { nodes: Vec::new(), space, directory: Some(directory) };
        let result = cluster.bring_up(&self);
        if result.is_err() {
            cluster.keep();
        }
        result.map(|()| cluster)
    }
}

impl Cluster {
    /// Says how a cluster is to be, starting from three nodes with a token of one second.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn bring_up(&mut self, builder: &Builder) -> Result<(), HarnessError> {
        // A partition has at most one bridge per node.
        let bridges: String = (0..builder.settings.nodes)
            .map(|n| format!("link add br{n} type bridge mcast_snooping 0\nlink set br{n} up\n"))
            .collect();
        self.space.ip(None, &bridges)?;
        for id in 1..=builder.settings.nodes {
            let directory = self.dir().join(format!("node{id}"));
            let space = Arc::clone(&self.space);
            let node = Node::new(id, directory, space, builder.settings.clone())?;
            node.boot()?;
            self.nodes.push(node);
        }
        if !builder.corosync {
            return Ok(());
        }
        self.start_corosync()
    }

    /// Starts corosync on all nodes and waits until they are one quorate ring.
    ///
    /// # Errors
    /// They did not become one; the error holds the ends of the logs.
    pub fn start_corosync(&self) -> Result<(), HarnessError> {
        for node in &self.nodes {
            node.launch_corosync()?;
        }
        let all: Vec<u32> = self.nodes.iter().map(Node::id).collect();
        self.wait_members(&all, &all, FORM_LIMIT)
    }

    /// A node.
    ///
    /// # Panics
    /// There is none with this id.
    #[must_use]
    pub fn node(&self, id: u32) -> &Node {
        let index = usize::try_from(id).unwrap_or(0).wrapping_sub(1);
        self.nodes.get(index).unwrap_or_else(|| panic!("there is no node {id} in this cluster"))
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The cluster's directory; the nodes' directories are `nodeN` in it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.directory.as_ref().map_or(Path::new("/"), tempfile::TempDir::path)
    }

    /// Splits the network: nodes of one list see each other and nobody else. Nodes in no list stay
    /// with the first.
    ///
    /// # Errors
    /// ip(8) failed.
    ///
    /// # Panics
    /// A node id does not exist.
    pub fn partition(&self, sides: &[&[u32]]) -> Result<(), HarnessError> {
        let side_of = |id| sides.iter().position(|side| side.contains(&id)).unwrap_or(0);
        assert!(sides.iter().flat_map(|side| side.iter()).all(|id| self.node(*id).id() == *id));
        let lines: String =
            self.nodes.iter().map(|node| node.move_to(side_of(node.id()))).collect();
        self.space.ip(None, &lines)
    }

    /// Ends a [`Self::partition`], and every [`Node::mute`].
    ///
    /// # Errors
    /// ip(8) failed.
    pub fn heal(&self) -> Result<(), HarnessError> {
        self.nodes.iter().try_for_each(Node::unmute)?;
        self.partition(&[])
    }

    /// Waits until each of `observers` sees exactly `ring` as its ring. If the ring is a majority of
    /// the cluster, it also waits for quorum there.
    ///
    /// # Errors
    /// Not so in time; the error says what each saw last, with the ends of the logs.
    pub fn wait_members(
        &self,
        observers: &[u32],
        ring: &[u32],
        limit: Duration,
    ) -> Result<(), HarnessError> {
        let quorate = ring.len() * 2 > self.nodes.len();
        let deadline = Instant::now() + limit;
        for &id in observers {
            loop {
                let seen = self.node(id).members();
                if seen.as_ref().is_some_and(|(members, q)| members == ring && *q == quorate) {
                    break;
                }
                if Instant::now() >= deadline {
                    let what = format!("node {id} was to see the ring {ring:?}");
                    let detail = format!("it saw {seen:?}\n{}", self.node(id).corosync_log());
                    return Err(HarnessError::TimedOut { what, limit, detail });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Keeps the directory when the cluster goes, and says where it is.
    pub fn keep(&mut self) -> Option<PathBuf> {
        let path = self.directory.take()?.keep();
        eprintln!("the nodes' files are kept in {}", path.display());
        Some(path)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.crash();
        }
        if std::thread::panicking() || std::env::var_os("O2BRIDGE_KEEP").is_some() {
            self.keep();
        }
    }
}

/// Waits for a condition, looking every five milliseconds.
///
/// # Errors
/// It did not come true in time.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<(), HarnessError> {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            let (what, detail) = (what.to_owned(), String::new());
            return Err(HarnessError::TimedOut { what, limit, detail });
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Says on standard error that a test was skipped and why, past the capture of the test runner: a
/// skip must be seen.
pub fn skipped(test: &str, reason: &str) {
    use std::io::Write as _;
    // With nobody to read standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}
