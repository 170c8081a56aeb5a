//! Kernel set-up for OCFS2 on the stack `o2cb`, in place of the `o2cb.init` script: drivers,
//! mounts, the choice of the stack, and the node table in configfs, filled from corosync's own node
//! list.
//!
//! Everything is validated first, then done, and undone if a later step fails. Everything can be
//! repeated. What is there already and agrees is adopted and not written again; what contradicts is
//! refused with both values. Attributes that accept a write and ignore it are read back.
//!
//! ```text
//!   Wanted (corosync, o2bridge.toml) --+                      +-- tree found in configfs
//!   /etc/ocfs2/cluster.conf -- slots --+-- compare -- plan ---+
//!                                                      |
//!                                                      v
//!                              steps -- run -- read back, or undo in reverse
//! ```
//!
//! The order that is kept: a node is added before anybody new mounts (the caller's duty: on *all*
//! nodes), and its directory is removed only after its membership is down. The kernel forbids that
//! order's breach only in part: a remote node may be removed while its heartbeat is live, so
//! [`O2cb::update`] is told which slots are in use and leaves those alone.
//!
//! # What is never done
//! - `local` is never written 0: the kernel would take this node out of the cluster under its
//!   mounts.
//! - Regions are neither made nor removed here.
//! - Modules are not unloaded, and `hb_ctl_path` is left as it is.

pub mod cluster_conf;
mod compare;
mod configfs;
mod drivers;
mod error;
mod kernel;
mod o2cb;
mod plan;
mod run;
mod slots;
mod wanted;

pub use drivers::Prepared;
pub use error::{Difference, Error, ModuleCause};
pub use o2cb::{O2cb, Online, Paths, Pending};
pub use plan::{Waiting, Why};
pub use slots::{Origin, SlotError, SlotMap};
pub use wanted::{Mode, Node, Problem, Wanted};
