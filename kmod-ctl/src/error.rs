//! What can go wrong, and what is left behind.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::cluster_conf::ParseError;
use crate::slots::SlotError;
use crate::wanted::Problem;

/// Two places that say different things about the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// About what: `cluster`, `node 'a'`.
    pub subject: String,
    /// Which of its properties.
    pub key: &'static str,
    /// What is there: in cluster.conf, or in the kernel.
    pub there: String,
    /// What corosync and the configuration say.
    pub wanted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, key, there, wanted } = self;
        write!(f, "{subject}: {key} is {there} there, {wanted} is wanted")
    }
}

/// Why a program did not load a module.
#[derive(Debug)]
pub enum ModuleCause {
    /// It could not be started.
    Start(io::Error),
    /// It ended with this exit code (none: a signal) and this last line on standard error.
    Failed(Option<i32>, String),
    /// It said that it did, but what the module brings is not there.
    NotThere(PathBuf),
}

impl fmt::Display for ModuleCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => write!(f, "{error}"),
            Self::Failed(Some(code), line) => write!(f, "exit code {code}: {line}"),
            Self::Failed(None, line) => write!(f, "ended by a signal: {line}"),
            Self::NotThere(path) => write!(f, "it says done, but {} is not there", path.display()),
        }
    }
}

/// Why a call of [`crate::O2cb`] failed. What the call itself had changed was undone, except where
/// a variant says otherwise; loaded modules stay loaded.
#[derive(Debug)]
pub enum Error {
    /// The kernel could not take it. Nothing was changed.
    Wanted(Vec<Problem>),
    /// Not every node has a slot of its own. Nothing was changed.
    Slots(SlotError),
    /// cluster.conf cannot be understood. Nothing was changed.
    ClusterConf(PathBuf, ParseError),
    /// cluster.conf contradicts. Nothing was changed.
    Contradiction(PathBuf, Vec<Difference>),
    /// The node table in the kernel contradicts and is in use. Nothing was changed.
    Table(PathBuf, Vec<Difference>),
    /// There is no node table of this cluster to update. Nothing was changed.
    NotOnline(String),
    /// There is a cluster that was neither made nor adopted. Nothing was changed.
    NotOurs(PathBuf),
    /// Regions are active, so the table stays. Nothing was changed.
    InUse {
        /// The cluster's directory.
        cluster: PathBuf,
        /// The names of its regions.
        regions: Vec<String>,
    },
    /// The operating system refused a step. What was done before it was undone.
    Step {
        /// What was tried: `write '1' to`, `make`, `remove`, `read`, `mount configfs at` ...
        step: String,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A write succeeded and was ignored. What was done before it was undone.
    Ignored {
        /// The attribute.
        path: PathBuf,
        /// What was written.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A module could not be loaded. What was done before it was undone, modules stay.
    Module {
        /// The module.
        module: &'static str,
        /// Why not.
        cause: ModuleCause,
    },
    /// Another stack is chosen and in use. Nothing was changed but modules.
    Stack {
        /// The file that says so.
        path: PathBuf,
        /// The stack that is chosen.
        found: String,
    },
    /// The kernel speaks another interface than 5. Nothing was changed but modules.
    Interface {
        /// The file that says so.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// A step failed, and then not all could be undone: what the second list names is left behind.
    Undo(Box<Error>, Vec<Error>),
    /// Parts of a teardown failed; what they name is left behind, all else is gone.
    Teardown(Vec<Error>),
}

impl Error {
    pub(crate) fn step(step: impl Into<String>, path: &Path, source: io::Error) -> Self {
        Self::Step { step: step.into(), path: path.into(), source }
    }

    /// Whether the same call can succeed later without anybody changing a file.
    #[must_use]
    pub fn is_worth_retrying(&self) -> bool {
        match self {
            Self::InUse { .. } | Self::Step { .. } | Self::Stack { .. } | Self::Table(..) => true,
            Self::Undo(cause, _) => cause.is_worth_retrying(),
            Self::Teardown(list) => list.iter().any(Self::is_worth_retrying),
            Self::Wanted(_)
            | Self::Slots(_)
            | Self::ClusterConf(..)
            | Self::Contradiction(..)
            | Self::NotOnline(_)
            | Self::NotOurs(_)
            | Self::Ignored { .. }
            | Self::Module { .. }
            | Self::Interface { .. } => false,
        }
    }
}

impl From<SlotError> for Error {
    fn from(error: SlotError) -> Self {
        Self::Slots(error)
    }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}

/// What to do about an errno that configfs gives for reasons of its own.
fn next_step(path: &Path, source: &io::Error) -> &'static str {
    const ENOSPC: i32 = 28;
    const EADDRINUSE: i32 = 98;
    const EADDRNOTAVAIL: i32 = 99;
    match source.raw_os_error() {
        Some(EADDRNOTAVAIL) => {
            "; this node's address in corosync's nodelist must be up on one of its interfaces"
        }
        Some(EADDRINUSE) => "; another program listens on that port: end it, or change o2cb.port",
        Some(ENOSPC) => "; the kernel takes one cluster: take the other one offline",
        _ if source.kind() == io::ErrorKind::PermissionDenied => "; this needs root",
        _ if source.kind() == io::ErrorKind::NotFound && !path.exists() => {
            "; are the drivers of OCFS2 loaded and configfs mounted?"
        }
        _ => "",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted(problems) => f.write_str(&list(problems)),
            Self::Slots(error) => error.fmt(f),
            Self::ClusterConf(path, error) => write!(f, "{}, {error}", path.display()),
            Self::Contradiction(path, differences) => write!(
                f,
                "{} contradicts corosync: {}; correct it on all nodes, or remove it: it is not \
                 needed",
                path.display(),
                list(differences)
            ),
            Self::Table(path, differences) => write!(
                f,
                "the kernel's node table {} contradicts: {}; unmount all OCFS2 volumes of this \
                 node, take the cluster offline, and start again",
                path.display(),
                list(differences)
            ),
            Self::NotOnline(cluster) => {
                write!(f, "the kernel has no node table of cluster '{cluster}'; bring it online")
            }
            Self::NotOurs(cluster) => {
                write!(f, "{} stays: it was neither made nor adopted here", cluster.display())
            }
            Self::InUse { cluster, regions } => write!(
                f,
                "{} stays: heartbeat regions are active: {}; unmount their volumes first",
                cluster.display(),
                regions.join(", ")
            ),
            Self::Step { step, path, source } => {
                write!(f, "cannot {step} {}: {source}{}", path.display(), next_step(path, source))
            }
            Self::Ignored { path, wanted, found } => write!(
                f,
                "the kernel ignored a write to {}: {wanted} is wanted, {found} is there; while a \
                 heartbeat region is active it cannot be changed",
                path.display()
            ),
            Self::Module { module, cause } => write!(
                f,
                "cannot load module {module}: {cause}; install the modules of the running kernel"
            ),
            Self::Stack { path, found } => write!(
                f,
                "{} says '{found}', 'o2cb' is wanted, and '{found}' is in use: unmount all OCFS2 \
                 volumes and end its daemons",
                path.display()
            ),
            Self::Interface { path, found } => write!(
                f,
                "{} says '{found}': this program knows o2cb's interface 5 only",
                path.display()
            ),
            Self::Undo(cause, left) => write!(f, "{cause}; and left behind: {}", list(left)),
            Self::Teardown(left) => write!(f, "left behind: {}", list(left)),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Slots(error) => Some(error),
            Self::ClusterConf(_, error) => Some(error),
            Self::Step { source, .. } => Some(source),
            Self::Undo(cause, _) => Some(cause),
            Self::Module { cause: ModuleCause::Start(error), .. } => Some(error),
            Self::Wanted(_)
            | Self::Contradiction(..)
            | Self::Table(..)
            | Self::NotOnline(_)
            | Self::NotOurs(_)
            | Self::InUse { .. }
            | Self::Ignored { .. }
            | Self::Module { .. }
            | Self::Stack { .. }
            | Self::Interface { .. }
            | Self::Teardown(_) => None,
        }
    }
}
