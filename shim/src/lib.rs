//! The kernel-facing side of a group: five verbs, and one backend for each way to speak them.
//!
//! A shim knows how to tell a kernel that a node died, and nothing about clusters: it does not ask
//! who is alive, does not decide, does not wait for anybody but the kernel. Whoever calls it has
//! already decided, fenced and agreed.
//!
//! [`user_heartbeat`] tells o2dlm, the lock manager of the stack `o2cb`. [`control`] tells OCFS2 itself, where
//! fs/dlm and dlm_controld do the locks; [`observe`] watches where these do all of it. [`record`] tells no kernel: it
//! writes down what one would have been told. [`volume`] is what volumes say of themselves.

#![deny(unsafe_code)]

mod choose;
pub mod control;
mod error;
pub mod observe;
pub mod probe;
pub mod record;
mod sys;
pub mod user_heartbeat;
pub mod volume;

pub use choose::{Backend, Choice, ChooseError, Settings, check_kind, choose, pick};
pub use error::ShimError;

use o2bridge_core::{GroupId, Incarnation, NodeId, Peers};

/// The five verbs.
///
/// # Order
/// Of one group, verbs come one at a time, the next one only after the last one returned:
///
/// ```text
/// attach ── (suspend ── node_down* ── resume)* ── detach
/// ```
///
/// - Every `node_down` and every `resume` comes after a `suspend`, and `resume` ends it. A restarted
///   daemon goes on where the last one stopped: nothing is repeated if nothing was under way; if a
///   change was, the first verb is `suspend`, also when the attach before it had not been said yet;
///   `resume` then attaches the group.
/// - A `resume` whose peers lack a node of the last list, without a `node_down` of that node in
///   between, says that the node left cleanly. It is no death.
/// - A node is told dead at most once per incarnation by one daemon, never while it is a peer of a
///   later `attach` or `resume`, and never is it this node.
/// - `detach` may come in any state after `attach`, also while suspended.
///
/// This order is the caller's promise, and a shim must never break it on its own: it does not
/// reorder, merge, skip or postpone verbs, and when a verb returns `Ok`, the kernel has been told.
///
/// # Threads
/// Verbs of different groups come from different threads at the same time. Verbs of one group come
/// from changing threads, but never two at once. So a backend locks per group, or not at all; a lock
/// over all groups may only be held for a step that cannot block in a kernel.
///
/// # Blocking
/// A verb may block for seconds: the kernel may have to recover a journal before it answers. It is
/// called on a worker thread with 256 KiB of stack and memory that is locked, while the node's disks
/// may hang: on the way of `suspend`, `node_down` and `resume` a backend must not read or write
/// a disk, start a process, or ask a name service.
///
/// # Repetition
/// Each verb can be said twice, and must be right when it is: the caller repeats a verb that failed,
/// and after a crash of the daemon its successor repeats the last verb without knowing whether it
/// went through, and `suspend` and `resume` when in doubt. So `attach` of an attached group takes
/// the new peers, `detach` of an unknown group is done, and `node_down` of a node and incarnation
/// that the kernel has buried already is done.
///
/// # Errors
/// An error says that the kernel is not known to have been told. It is final for this call only:
/// the caller says the same verb again after a pause, for as long as the group is in use; it does
/// not go on to the next verb of the group. After a failed `resume` it may say `suspend` instead, if
/// there is something else to tell by then; a failed `attach` of a first user is followed by
/// `detach`, and the tool is refused. A group that could not be left is told what it has to know, and
/// if that fails, `detach` is said again before it. A backend does not retry by itself beyond a few
/// milliseconds, and does not log: the error names the object and the errno.
pub trait Shim: Send + Sync {
    /// The backend's name, as in the configuration.
    fn name(&self) -> &'static str;

    /// The group is about to be used here, together with these nodes, ourselves included. When it
    /// returns, a mount may begin. Must not touch other groups, and must not wait for a mount.
    ///
    /// # Errors
    /// The kernel is not ready for a mount of this group.
    fn attach(&self, group: GroupId, peers: &Peers) -> Result<(), ShimError>;

    /// The membership is about to change: no lock may be granted until the next resume. When it
    /// returns, none is. Must not say who is suspected: nothing is decided, and everyone may yet
    /// come back.
    ///
    /// # Errors
    /// Locks may still be granted.
    fn suspend(&self, group: GroupId) -> Result<(), ShimError>;

    /// This node died in this incarnation; it is fenced and every survivor knows. The kernel may
    /// recover it. Must not resume the group, and must not tell of any other node.
    ///
    /// # Errors
    /// The kernel may not know of the death.
    fn node_down(
        &self,
        group: GroupId,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<(), ShimError>;

    /// The membership is this now, ourselves included; locks may be granted again. Must not be taken
    /// for the news of a death: whoever is missing here without a `node_down` has left cleanly.
    ///
    /// # Errors
    /// The group may still be suspended, or with the membership before; or locks may be granted.
    fn resume(&self, group: GroupId, peers: &Peers) -> Result<(), ShimError>;

    /// The group is used here no more. Must not disturb the other users of the group: this node
    /// leaves, it does not die.
    ///
    /// # Errors
    /// Something of the group may be left in the kernel.
    fn detach(&self, group: GroupId) -> Result<(), ShimError>;

    /// What there is in the kernel now, for status; `None` if this backend has nothing there. Reads
    /// directories of the kernel, which a verb that removes something from them can hold up for
    /// seconds: for a worker thread, like the verbs.
    fn view(&self) -> Option<user_heartbeat::View> {
        None
    }

    /// What has to be looked after between verbs: on a thread of its own or of the verbs, every few seconds or when a stop
    /// finds that the keeper guards something yet. Lets go of what no group needs. A sentence says what is amiss.
    fn tend(&self) -> Option<String> {
        None
    }
}

/// Said past the test harness, which swallows what a test that passes prints.
#[cfg(test)]
fn skipped(sentence: &str) {
    use std::io::Write;
    // A standard error that is closed is nobody's to read.
    let _ = writeln!(std::io::stderr(), "{sentence}");
}
