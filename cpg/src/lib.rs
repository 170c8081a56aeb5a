//! Corosync, as events for a mio loop. To be documented.

mod bus;
mod calls;
mod config;
mod crew;
mod event;
mod link;
mod sink;
mod stack;

pub use bus::{Bus, NewError, Options, SHM_BYTES_PER_CHANNEL};
pub use event::{BusEvent, Connected, LostCause, NodeEntry, Notice, Unsuitable};
pub use stack::StackTooSmall;
