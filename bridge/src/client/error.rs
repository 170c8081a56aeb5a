//! What can go wrong for a client, what is left behind, and what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use o2bridge_wire::varlink::INTERFACE;
use serde::Deserialize;
use serde_json::Value;

/// The daemon's no.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// A stable word: the codes of [`o2bridge_core::Refusal`], and the door's own `BadGroup`,
    /// `BadService`, `BadDevice`, `PermissionDenied`, `TooMany`.
    pub code: String,
    /// The nearest Linux error number.
    pub errno: i32,
    /// What is wrong, for humans.
    pub message: String,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens. Nothing was changed.
    #[error(
        "o2bridged is not running ({}: {source}); start it with 'systemctl start o2bridged', or see \
         why it ended with 'journalctl -u o2bridged'",
        path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket cannot be used by us. Nothing was changed.
    #[error("cannot connect to {}: {source}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The daemon says no. Nothing was changed, unless the message says so.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No answer in our time. The daemon goes on with the call, and this connection is dead.
    #[error(
        "{method}: no answer from o2bridged within {} s; it may still go on with it: 'o2bridge status' \
         shows how far it is",
        timeout.as_secs_f32()
    )]
    TimedOut {
        /// The call.
        method: &'static str,
        /// The limit.
        timeout: Duration,
    },
    /// The connection ended before the answer. Whether the call was carried out is not known, and this
    /// connection is dead.
    #[error(
        "{method}: o2bridged ended the connection ({source}); whether it was done is not known: see \
         'o2bridge status', and 'journalctl -u o2bridged'"
    )]
    Lost {
        /// The call.
        method: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The answer is not one that we understand: the daemon is older or newer than we, or no o2bridged.
    #[error("{method}: strange answer ({what}); is o2bridged of the same version as this program?")]
    Strange {
        /// The call.
        method: &'static str,
        /// What is strange.
        what: String,
    },
    /// An earlier call on this connection failed half-way. Nothing was sent: connect again.
    #[error("the connection died with an earlier call; connect again")]
    Dead,
}

impl ClientError {
    /// Whether the same call on a new connection may go better after a while.
    #[must_use]
    pub fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::NotRunning { .. } | Self::TimedOut { .. } | Self::Lost { .. } | Self::Dead => {
                true
            }
            Self::Refused(refused) => matches!(
                refused.code.as_str(),
                "Busy" | "NoCluster" | "TimedOut" | "TooMany" | "Stopping"
            ),
            Self::Unreachable { .. } | Self::Strange { .. } => false,
        }
    }

    pub(super) fn from_connect(path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                Self::NotRunning { path, source }
            }
            _ => Self::Unreachable { path, source },
        }
    }

    /// An error reply.
    pub(super) fn from_reply(method: &'static str, name: &str, parameters: Value) -> Self {
        let is_refused = name.strip_prefix(INTERFACE) == Some(".Refused");
        let what = format!("{name} {parameters}");
        match serde_json::from_value(parameters) {
            Ok(refused) if is_refused => Self::Refused(refused),
            Ok(_) | Err(_) => Self::Strange { method, what },
        }
    }
}
