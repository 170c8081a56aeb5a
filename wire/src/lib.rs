//! The words of the outside world, as pure code: no socket, clock, thread or system call.
//!
//! - [`legacy`]: the old door, which the stock OCFS2 tools speak.
//! - [`varlink`]: the new door.
//! - [`record`]: the line that the record shim writes for each verb.
//!
//! Both doors make a core [`Event`](o2bridge_core::Event) of what a tool asks for and bytes of the
//! core's [`Reply`](o2bridge_core::Reply). Who asks, what a device's number is, and whatever else the
//! operating system knows is handed in.
#![forbid(unsafe_code)]

pub mod errno;
pub mod legacy;
pub mod record;
pub mod varlink;

use o2bridge_core::{ClientId, RequestId};

/// Who asks, and what the answer will be known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// The request.
    pub request: RequestId,
    /// The connection that it came by.
    pub client: ClientId,
}
