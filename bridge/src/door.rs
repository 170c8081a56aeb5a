//! The two doors of the group API, from the daemon's side.
//!
//! - the old one: the abstract socket of the stock OCFS2 tools, 256-byte messages.
//! - the new one: a socket in the file system, JSON, for our own command and everyone else.
//!
//! Both are dialects of one server, and their words are in [`o2bridge_wire`]. It turns bytes into
//! [`Event`]s, takes the core's replies back, and answers by itself what only reads. It never blocks
//! and has no threads; what it holds is bounded:
//!
//! ```text
//!             ready, tick                     handle
//!  sockets ──────────────▶ Doors ──▶ events ─────────▶ core
//!     ▲                    │   ▲                        │
//!     └────────────────────┘   └──── reply, changed ────┘
//!        view.status, dump
//! ```
//!
//! The daemon's loop:
//! 1. [`Doors::ready`] for every mio event whose token [`Doors::owns`]; [`Doors::tick`] when
//!    [`Doors::deadline`] is reached. Both append events for the core.
//! 2. [`Doors::reply`] for every [`o2bridge_core::Action::Reply`].
//! 3. [`Doors::changed`] after the core took an event that status could show. It only sets a mark, so
//!    it may be called on the death path; what watches status is served at a later tick.
//!
//! # Who may what
//! Reading the status and the lists is open to every local user. Changing anything, and the dump,
//! which may hold names that are not for everyone, needs root: uid 0 of the daemon's user namespace,
//! or the user that the daemon itself runs as, who could do anything to it anyway. Strangers get only
//! [`STRANGERS_MAX`] of the connections, may not idle, and see a status that is a little old at most,
//! so that nobody without rights can starve the tools or the loop.

mod connection;
mod desk;
mod device;
mod dialect;
mod legacy;
mod server;
pub mod varlink;

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use mio::{Registry, Token};
use o2bridge_core::{Event, Now, Reply, RequestId};

use crate::machine::Machine;
use crate::status::{LogLevel, Status};
use desk::Desk;
use legacy::Legacy;
use server::{Listener, Server};
use varlink::Varlink;

/// Connections to one door at the same time. One more is told so and closed.
pub const CLIENTS_MAX: usize = 2048;

/// How many of them may belong to users who may only read.
pub const STRANGERS_MAX: usize = 64;

/// How many may watch the status at the same time.
pub const STREAMS_MAX: usize = 64;

/// The pause between two statuses of a stream.
pub const STREAM_PAUSE_MS: u64 = 200;

/// The abstract name of the old door.
pub const LEGACY_NAME: &str = "ocfs2_controld_sock";

/// The path of the new door.
pub const VARLINK_PATH: &str = "/run/o2bridge/io.o2bridge";

/// What the doors may see of the daemon.
pub trait View {
    /// Everything that status shows. Called on request, and for streams at most once per
    /// [`STREAM_PAUSE_MS`].
    fn status(&self) -> Status;

    /// What this machine allows. Any local user may ask, as often as it likes.
    fn machine(&mut self) -> Machine;

    /// The daemon's memory of what happened. Held in the daemon's locked memory until its reader has
    /// taken it: it should not be more than a MiB.
    fn dump(&self) -> String;

    /// Logs this much from now on.
    fn set_log_level(&mut self, level: LogLevel);
}

/// What a door needs for one call: the time, the daemon, and where events for the core go.
pub struct Turn<'a> {
    /// This moment.
    pub now: Now,
    /// The daemon.
    pub view: &'a mut dyn View,
    /// Events are appended.
    pub out: &'a mut Vec<Event>,
}

/// Where the doors are, and who may change things.
#[derive(Debug, Clone)]
pub struct Places {
    /// The abstract name of the old door; `None` leaves it closed.
    pub legacy: Option<String>,
    /// The path of the new door. Its directory must exist.
    pub varlink: Option<PathBuf>,
    /// The users who may change things.
    pub trusted_uids: Vec<u32>,
}

impl Default for Places {
    /// The real ones.
    fn default() -> Self {
        Self {
            legacy: Some(LEGACY_NAME.to_owned()),
            varlink: Some(PathBuf::from(VARLINK_PATH)),
            trusted_uids: vec![0, nix::unistd::geteuid().as_raw()],
        }
    }
}

/// A door does not open. The other one is closed again.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// Somebody else stands in it.
    #[error(
        "the door {name} is taken: another o2bridged, ocfs2_controld or o2cb_controld runs here; \
         end it first"
    )]
    Taken {
        /// The door.
        name: String,
    },
    /// The operating system refuses.
    #[error(
        "cannot open the door {name}: {source}; does its directory exist, and may we write it?"
    )]
    Io {
        /// The door.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// Both doors.
#[derive(Debug)]
pub struct Doors {
    first: Token,
    desk: Desk,
    legacy: Server<Legacy>,
    varlink: Server<Varlink>,
    varlink_path: Option<PathBuf>,
}

impl Doors {
    /// Opens them. Tokens from `first` upwards are theirs from now on, without an end.
    ///
    /// # Errors
    /// A door is taken or cannot be made; nothing is left open.
    pub fn open(registry: &Registry, first: Token, places: Places) -> Result<Self, DoorError> {
        let legacy = places.legacy.as_deref().map(bind_abstract).transpose()?;
        let varlink = places.varlink.as_deref().map(bind_path).transpose()?;
        let io = |name: &str, source| DoorError::Io { name: name.to_owned(), source };
        let doors = Self {
            first,
            desk: Desk::new(Token(first.0 + 2), places.trusted_uids),
            legacy: Server::new(registry, Token(first.0), legacy)
                .map_err(|source| io("old", source))?,
            varlink: Server::new(registry, Token(first.0 + 1), varlink)
                .map_err(|source| io("new", source))?,
            varlink_path: places.varlink,
        };
        Ok(doors)
    }

    /// Whether a readiness event is for us.
    #[must_use]
    pub fn owns(&self, token: Token) -> bool {
        token >= self.first
    }

    /// Serves one readiness event, as far as it goes without blocking and without keeping the loop
    /// for long; what is left over is done by [`Self::tick`].
    pub fn ready(&mut self, event: &mio::event::Event, turn: &mut Turn<'_>) {
        self.legacy.ready(event, &mut self.desk, turn);
        self.varlink.ready(event, &mut self.desk, turn);
    }

    /// Answers a request. Nothing happens if its client has gone.
    pub fn reply(&mut self, request: RequestId, reply: &Reply, now: Now) {
        if !self.legacy.reply(request, reply, now) {
            self.varlink.reply(request, reply, now);
        }
    }

    /// Says that status may show something new.
    pub fn changed(&mut self) {
        self.desk.changed();
    }

    /// When [`Self::tick`] wants to be called; possibly now.
    #[must_use]
    pub fn deadline(&self, now: Now) -> Option<Now> {
        let times = [self.legacy.deadline(now, &self.desk), self.varlink.deadline(now, &self.desk)];
        times.into_iter().flatten().min()
    }

    /// Does what is due: requests left over by a batch limit, streams, clients out of time. Harmless
    /// when called too early.
    pub fn tick(&mut self, turn: &mut Turn<'_>) {
        self.legacy.tick(&mut self.desk, turn);
        self.varlink.tick(&mut self.desk, turn);
    }
}

impl Drop for Doors {
    /// Takes the new door's socket out of the file system.
    fn drop(&mut self) {
        if let Some(path) = &self.varlink_path {
            // A leftover is harmless: the next daemon replaces it.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Opens the old door.
fn bind_abstract(name: &str) -> Result<Listener, DoorError> {
    let listener = SocketAddr::from_abstract_name(name)
        .and_then(|address| mio::net::UnixListener::bind_addr(&address));
    listener.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => DoorError::Taken { name: format!("@{name}") },
        _ => DoorError::Io { name: format!("@{name}"), source },
    })
}

/// Opens the new door, in place of one that a daemon which is gone left behind.
fn bind_path(path: &Path) -> Result<Listener, DoorError> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    let name = || path.display().to_string();
    let failed = |source| DoorError::Io { name: name(), source };
    let is_socket = |path: &Path| {
        std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
    };
    if is_socket(path) {
        // Not blocking: a daemon that hangs, with a queue before its door, is there as well.
        match mio::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) | Err(_) => return Err(DoorError::Taken { name: name() }),
        }
    }
    let listener = mio::net::UnixListener::bind(path).map_err(failed)?;
    // Everyone may knock; who may do what is decided by the peer's credentials.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok(listener)
}
