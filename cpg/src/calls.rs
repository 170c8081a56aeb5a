//! The calls that can block without limit: a corosync that is stopped answers none of them. They run
//! on helper threads only.
//!
//! A handle in here is never dropped, only closed: rust-corosync finalizes on drop, and that can
//! block, or deadlock inside a callback. A forgotten handle costs memory; a dropped one, a death.

use std::mem::ManuallyDrop;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use corosync::cmap::{self, NotifyCallback, TrackType};
use corosync::{CsError, DispatchFlags, TrackFlags, cfg, cpg, quorum};
use o2bridge_core::types::{Channel, NodeId};
use rust_corosync as corosync;

use crate::config::Map;
use crate::crew::Void;
use crate::event::{Connected, NodeEntry, Unsuitable};
use crate::sink::{self, Heard};

/// How long a call that is told to try again waits. Corosync says so while it forms a ring: some
/// milliseconds.
const TRY_AGAIN_PAUSE: Duration = Duration::from_millis(5);
/// How long it keeps on.
const TRY_AGAIN_LIMIT: Duration = Duration::from_secs(5);

/// A CPG handle: good for one join.
#[derive(Debug)]
pub(crate) struct Cpg {
    handle: ManuallyDrop<HandleBox<cpg::Handle>>,
    fd: RawFd,
}

/// The quorum handle.
#[derive(Debug)]
pub(crate) struct Quorum {
    handle: ManuallyDrop<HandleBox<quorum::Handle>>,
    fd: RawFd,
}

/// A cmap handle with a tracker, whose descriptor is ready when the node list changed.
#[derive(Debug)]
pub(crate) struct Bell {
    handle: ManuallyDrop<HandleBox<cmap::Handle>>,
    fd: RawFd,
}

/// rust-corosync's handles know no Debug.
struct HandleBox<H>(H);

impl<H> std::fmt::Debug for HandleBox<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

/// Anything that must be closed on a helper thread.
#[derive(Debug)]
pub(crate) enum Handle {
    Cpg(Cpg),
    Quorum(Quorum),
    Bell(Bell),
}

/// What became of an attempt to connect.
#[derive(Debug)]
pub(crate) enum Connection {
    Made(Connected, Quorum),
    Unsuitable(Unsuitable),
}

/// libcpg copies the nodes of a ring and the members of a group to its stack, and has room for so many
/// (`CPG_MEMBERS_MAX`).
const NODES_MAX: usize = 128;

/// Opens the quorum service and reads the configuration.
pub(crate) fn connect() -> Result<Connection, CsError> {
    let map = cmap::initialize(cmap::Map::Icmap)?;
    let values = Map::read(&map);
    // Dropped here, on a helper thread, where it may block.
    drop(map);
    let values = values?;
    if values.is_reloading() {
        return Err(CsError::CsErrTryAgain);
    }
    if !values.is_whole() {
        return Ok(Connection::Unsuitable(Unsuitable::TornMap));
    }
    let Some(connected) = values.connected() else {
        return Ok(Connection::Unsuitable(Unsuitable::NoQuorum));
    };
    if connected.ipc_type == "socket" {
        return Ok(Connection::Unsuitable(Unsuitable::SocketIpc));
    }
    if connected.nodelist.len() > NODES_MAX {
        return Ok(Connection::Unsuitable(Unsuitable::TooManyNodes));
    }
    let (handle, _) = quorum::initialize(&sink::quorum_model(), 0)?;
    // An early return drops the handle: here it may block.
    let fd = quorum::fd_get(&handle)?;
    // `Changes` alone also sends the present state.
    quorum::trackstart(&handle, TrackFlags::Changes)?;
    let handle = ManuallyDrop::new(HandleBox(handle));
    Ok(Connection::Made(connected, Quorum { handle, fd }))
}

/// Hangs up a bell, then reads the node list: a change is in the list, or rings. No list while
/// corosync is in the middle of a reload.
pub(crate) fn nodelist() -> Result<(Bell, Option<Vec<NodeEntry>>), CsError> {
    // An early return drops the handle: here it may block.
    let handle = cmap::initialize(cmap::Map::Icmap)?;
    let fd = cmap::fd_get(&handle)?;
    let any = TrackType::ADD | TrackType::DELETE | TrackType::MODIFY | TrackType::PREFIX;
    cmap::track_add(&handle, "nodelist.", any, &NotifyCallback { notify_fn: None }, 0)?;
    let map = Map::read(&handle)?;
    if !map.is_whole() && !map.is_reloading() {
        return Err(CsError::CsErrInvalidParam);
    }
    let list = (!map.is_reloading()).then(|| map.nodelist());
    Ok((Bell { handle: ManuallyDrop::new(HandleBox(handle)), fd }, list))
}

/// Opens a new handle and joins. libcpg gives out its handles without a lock: one that is made while another is may
/// be bad from the start, and is made anew.
pub(crate) fn join(channel: Channel, void: &Void) -> Result<Cpg, CsError> {
    let open = || {
        let handle = patiently(void, || cpg::initialize(&sink::cpg_model(), 0))?;
        let fd = cpg::fd_get(&handle)?;
        patiently(void, || cpg::join(&handle, &channel.to_string()))?;
        Ok(Cpg { handle: ManuallyDrop::new(HandleBox(handle)), fd })
    };
    patiently(void, || {
        open().map_err(|error| match error {
            CsError::CsErrBadHandle => CsError::CsErrTryAgain,
            other => other,
        })
    })
}

/// Asks to leave. That we left is said by our own confchg. Only for a handle whose own join was
/// delivered: before that, libcpg spins.
pub(crate) fn leave(cpg: &Cpg, channel: Channel, void: &Void) -> Result<(), CsError> {
    match patiently(void, || cpg::leave(&cpg.handle.0, &channel.to_string())) {
        // It is not in the group (any more).
        Err(CsError::CsErrNotExist) => Ok(()),
        result => result,
    }
}

/// Frees handles. After corosync's death each can take 40 ms.
pub(crate) fn close(handles: Vec<Handle>) {
    for handle in handles {
        // A handle that could not be finalized is freed all the same.
        let _ = match handle {
            Handle::Cpg(cpg) => cpg::finalize(&cpg.handle.0),
            Handle::Quorum(quorum) => quorum::finalize(&quorum.handle.0),
            Handle::Bell(bell) => cmap::finalize(&bell.handle.0),
        };
    }
}

/// Has the corosync of a node end.
pub(crate) fn kill_node(node: NodeId, void: &Void) -> Result<(), CsError> {
    let callbacks = cfg::Callbacks { corosync_cfg_shutdown_callback_fn: None };
    let handle = patiently(void, || cfg::initialize(&callbacks))?;
    let reason = "o2bridge: its OCFS2 daemon is gone";
    patiently(void, || cfg::kill_node(&handle, node.0.into(), reason))
}

/// Calls until corosync no longer says: try again. A void call is not made: the answer of a dead
/// corosync is as good as any, since nobody hears it.
fn patiently<T>(void: &Void, mut call: impl FnMut() -> Result<T, CsError>) -> Result<T, CsError> {
    let start = Instant::now();
    while !void.is_set() {
        match call() {
            Err(CsError::CsErrTryAgain) if start.elapsed() < TRY_AGAIN_LIMIT => {
                std::thread::sleep(TRY_AGAIN_PAUSE);
            }
            result => return result,
        }
    }
    Err(CsError::CsErrLibrary)
}

impl Cpg {
    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Reads to the bottom. Does not block.
    pub(crate) fn dispatch(&self) -> (Vec<Heard>, Result<(), CsError>) {
        sink::collect(|| cpg::dispatch(&self.handle.0, DispatchFlags::All))
    }

    /// Hands a message to corosync. Does not block while few are on their way (see
    /// [`crate::link::IN_FLIGHT_MAX`]).
    pub(crate) fn send(&self, bytes: &[u8]) -> Result<(), CsError> {
        cpg::mcast_joined(&self.handle.0, cpg::Guarantee::TypeAgreed, bytes)
    }
}

impl Bell {
    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }
}

impl Quorum {
    pub(crate) fn fd(&self) -> RawFd {
        self.fd
    }

    /// Reads to the bottom. Does not block.
    pub(crate) fn dispatch(&self) -> (Vec<Heard>, Result<(), CsError>) {
        sink::collect(|| quorum::dispatch(&self.handle.0, DispatchFlags::All))
    }
}
