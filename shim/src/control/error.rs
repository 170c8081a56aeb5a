//! Why `control` could not do it, and what is to be done.

use std::fmt;
use std::io;

use nix::libc;
use o2bridge_core::NodeId;

/// Why a verb of `control` failed. The caller repeats it.
#[derive(Debug)]
pub enum ControlError {
    /// Nobody listens where dlm_controld does.
    Absent,
    /// dlm_controld has not answered in time.
    Slow {
        /// How long was waited, in ms.
        for_ms: u64,
    },
    /// The connection to dlm_controld failed in another way.
    Connection(io::Error),
    /// Not root's process listens there.
    Stranger {
        /// The user that it runs as.
        uid: u32,
    },
    /// What came is no answer.
    Strange,
    /// dlm_controld runs without `enable_fscontrol=1`.
    NotAsked,
    /// dlm_controld refused with this error number.
    Refused(i32),
    /// The kernel has the lockspace, and dlm_controld does not know it.
    UnknownLockspace,
    /// dlm_controld has not stopped the lockspace for the death of this node yet.
    NotStopped(NodeId),
    /// dlm_controld has not taken the word about this node yet.
    NotTaken(NodeId),
    /// Corosync has not said which node this is.
    NoNode,
    /// This node itself: to tell a kernel that it is dead itself is a kernel BUG.
    Ourselves(NodeId),
    /// What the kernel says of its locking protocol is no version.
    Protocol(String),
    /// The daemons have not chosen the locking protocol yet.
    NoProtocol,
}

impl ControlError {
    /// The nearest errno.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::Absent => libc::ECONNREFUSED,
            Self::Slow { .. } => libc::ETIMEDOUT,
            Self::Connection(error) => error.raw_os_error().unwrap_or(libc::EIO),
            Self::Stranger { .. } => libc::EPERM,
            Self::Strange => libc::EPROTO,
            Self::NotAsked => libc::EOPNOTSUPP,
            Self::Refused(errno) => *errno,
            Self::UnknownLockspace => libc::ENOENT,
            Self::NotStopped(_) | Self::NotTaken(_) => libc::EAGAIN,
            Self::NoNode | Self::NoProtocol => libc::ENODEV,
            Self::Ourselves(_) => libc::EINVAL,
            Self::Protocol(_) => libc::EPROTONOSUPPORT,
        }
    }
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str(
                "dlm_controld does not run here: start it, or, if a volume is mounted, reset this node, \
                 because a new one takes no lockspace over",
            ),
            Self::Slow { for_ms } => write!(f, "dlm_controld has not answered for {for_ms} ms"),
            Self::Connection(error) => write!(f, "cannot talk to dlm_controld: {error}"),
            Self::Stranger { uid } => {
                write!(f, "where dlm_controld should listen, a process of user {uid} does; end it")
            }
            Self::Strange => {
                f.write_str("dlm_controld answers in a protocol that is not known here")
            }
            Self::NotAsked => f.write_str(
                "dlm_controld does not ask filesystems: start it with enable_fscontrol=1 on all \
                 nodes, or set shim.kind = \"observe\"",
            ),
            Self::Refused(errno) => {
                write!(f, "dlm_controld refused: {}", io::Error::from_raw_os_error(*errno))
            }
            Self::UnknownLockspace => f.write_str(
                "the kernel has the lockspace and dlm_controld does not know it: another one made \
                 it; this node must be reset",
            ),
            Self::NotStopped(node) => write!(
                f,
                "dlm_controld has not stopped the lockspace for the death of node {node} yet"
            ),
            Self::NotTaken(node) => {
                write!(f, "dlm_controld has not taken the word about node {node} yet")
            }
            Self::NoNode => f.write_str("corosync has not said yet which node this is"),
            Self::Ourselves(node) => {
                write!(f, "node {node} is this node: its kernel is never told that it is dead")
            }
            Self::Protocol(found) => write!(
                f,
                "the kernel says that its locking protocol goes up to '{found}', which is no version"
            ),
            Self::NoProtocol => f.write_str(
                "the daemons of the cluster have not chosen OCFS2's locking protocol yet",
            ),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            Self::Absent
            | Self::Slow { .. }
            | Self::Stranger { .. }
            | Self::Strange
            | Self::NotAsked
            | Self::Refused(_)
            | Self::UnknownLockspace
            | Self::NotStopped(_)
            | Self::NotTaken(_)
            | Self::NoNode
            | Self::NoProtocol
            | Self::Ourselves(_)
            | Self::Protocol(_) => None,
        }
    }
}
