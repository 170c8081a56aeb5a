//! The callbacks, and where they put what they hear.
//!
//! rust-corosync calls back with its global lock held and from C: a callback must not call it again,
//! must not block, and must not panic (the process would abort). So these only copy their arguments
//! onto a list of this thread, and [`collect`] takes the list after dispatch returned. They carry
//! neither context nor a usable group name (both are garbage in version 3.2.0): whose events these are
//! is known to the one who dispatched.

use std::cell::RefCell;

use corosync::cpg::{self, Address};
use corosync::{CsError, quorum};
use o2bridge_core::types::{Member, NodeId, Pid, Reason, RingId};
use rust_corosync as corosync;

/// What one callback said.
#[derive(Debug)]
pub(crate) enum Heard {
    Confchg { members: Vec<Member>, left: Vec<(Member, Reason)>, joined: Vec<(Member, Reason)> },
    Totem { ring: RingId, nodes: Vec<NodeId> },
    Message { from: Member, bytes: Vec<u8> },
    Quorum { quorate: bool, ring: RingId, nodes: Vec<NodeId> },
    Left { ring: RingId, nodes: Vec<NodeId> },
}

thread_local! {
    static HEARD: RefCell<Vec<Heard>> = const { RefCell::new(Vec::new()) };
}

/// Runs a dispatch and returns what its callbacks heard, also when it failed in the end.
pub(crate) fn collect(
    dispatch: impl FnOnce() -> Result<(), CsError>,
) -> (Vec<Heard>, Result<(), CsError>) {
    let result = match dispatch() {
        Ok(()) | Err(CsError::CsErrTryAgain) => Ok(()),
        Err(error) => Err(error),
    };
    (HEARD.take(), result)
}

/// Nothing in here panics: a thread that ends, or a list that is borrowed, loses the event. Neither
/// can happen inside [`collect`].
fn hear(heard: Heard) {
    let _ = HEARD.try_with(|list| list.try_borrow_mut().map(|mut list| list.push(heard)));
}

/// The callbacks of every CPG handle.
pub(crate) fn cpg_model() -> cpg::ModelData {
    cpg::ModelData::ModelV1(cpg::Model1Data {
        flags: cpg::Model1Flags::None,
        deliver_fn: Some(on_deliver),
        confchg_fn: Some(on_confchg),
        totem_confchg_fn: Some(on_totem),
    })
}

/// The callbacks of the quorum handle. Of what the node list notification says, only who left is not
/// also in the quorum notification after it.
pub(crate) fn quorum_model() -> quorum::ModelData {
    quorum::ModelData::ModelV1(quorum::Model1Data {
        flags: quorum::Model1Flags::None,
        quorum_notification_fn: Some(on_quorum),
        nodelist_notification_fn: Some(on_nodelist),
    })
}

fn on_deliver(
    _: &cpg::Handle,
    _garbage: String,
    node: corosync::NodeId,
    pid: u32,
    bytes: &[u8],
    _: usize,
) {
    let from = Member { node: node_id(node), pid: Pid(pid) };
    hear(Heard::Message { from, bytes: bytes.to_vec() });
}

fn on_confchg(
    _: &cpg::Handle,
    _garbage: &str,
    members: Vec<Address>,
    left: Vec<Address>,
    joined: Vec<Address>,
) {
    let with_reason = |list: &[Address]| list.iter().map(|a| (member(a), reason(a))).collect();
    hear(Heard::Confchg {
        members: members.iter().map(member).collect(),
        left: with_reason(&left),
        joined: with_reason(&joined),
    });
}

fn on_totem(_: &cpg::Handle, ring: cpg::RingId, nodes: Vec<corosync::NodeId>) {
    let ring = RingId { seq: ring.seq, node: node_id(ring.nodeid) };
    hear(Heard::Totem { ring, nodes: nodes.into_iter().map(node_id).collect() });
}

fn on_quorum(
    _: &quorum::Handle,
    quorate: bool,
    ring: quorum::RingId,
    nodes: Vec<corosync::NodeId>,
) {
    let ring = RingId { seq: ring.seq, node: node_id(ring.nodeid) };
    hear(Heard::Quorum { quorate, ring, nodes: nodes.into_iter().map(node_id).collect() });
}

fn on_nodelist(
    _: &quorum::Handle,
    ring: quorum::RingId,
    _: Vec<corosync::NodeId>,
    _: Vec<corosync::NodeId>,
    left: Vec<corosync::NodeId>,
) {
    if !left.is_empty() {
        let ring = RingId { seq: ring.seq, node: node_id(ring.nodeid) };
        hear(Heard::Left { ring, nodes: left.into_iter().map(node_id).collect() });
    }
}

fn node_id(node: corosync::NodeId) -> NodeId {
    NodeId(node.into())
}

fn member(address: &Address) -> Member {
    Member { node: node_id(address.nodeid), pid: Pid(address.pid) }
}

fn reason(address: &Address) -> Reason {
    match address.reason {
        cpg::Reason::Join => Reason::Join,
        cpg::Reason::Leave => Reason::Leave,
        cpg::Reason::NodeDown => Reason::NodeDown,
        cpg::Reason::NodeUp => Reason::NodeUp,
        cpg::Reason::ProcDown => Reason::ProcDown,
        cpg::Reason::Undefined => Reason::Undefined,
    }
}
