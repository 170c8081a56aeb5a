//! The decisions of o2bridge: who is in the cluster, who died, who may mount, what the kernel hears.
//!
//! Pure: no I/O, no clock, no randomness, no logging, no dependency. One entry changes it,
//! [`Core::handle`]; what it wants done it appends to a list that the driver carries out in order.
//!
//! ```text
//!   corosync ──confchg, totem, message, quorum──┐                 ┌──▶ corosync: join, depart, mcast,
//!   tools ─────begin, complete, leave───────────┤                 │            kill node
//!   shim ──────done(op)─────────────────────────┼─▶ Core::handle ─┼──▶ shim: attach, suspend, node_down,
//!   fence agent  done(op)───────────────────────┤                 │          resume, detach
//!   clock ─────timer(generation)────────────────┘                 ├──▶ state file, fence agent, mount table
//!                                                                 └──▶ tools: reply
//!
//!   Core ─┬─ node::Nodes     ring, quorum, daemons, agreement, debts
//!         │    └─ fence::Lost    one per node that a quorate ring goes on without
//!         └─ group::Group    one per mountgroup: its users, its dead
//!              ├─ lane::Lane       which verb comes next
//!              └─ service::Service one per tool
//! ```
//!
//! The order that is never broken: a view changes; quorum, ring and all daemons of the ring agree on
//! it; the shim is suspended; each dead node is fenced, then told to the shim; the shim is resumed
//! with the new members; only then does a newcomer's tool hear "go ahead".
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod action;
pub mod config;
mod corosync;
mod effects;
pub mod event;
pub mod fence;
mod foreign;
mod group;
mod handle;
mod hello;
mod invariant;
mod lane;
mod locking;
mod lost;
mod node;
mod outvoted;
pub mod proto;
mod reconcile;
mod request;
pub mod saved;
mod service;
pub mod snapshot;
mod stop;
pub mod timer;
pub mod types;
mod users;
mod waiting;
mod witness;

pub use action::{Action, Actions, Note, Refusal, Reply, Verb, Waiting};
pub use config::{Config, Fencing, Tunables};
pub use event::{Begin, Event, Finding, OpError};
pub use handle::Core;
pub use locking::{Locking, LockingProtocol};
pub use saved::{Saved, SavedGroup, SavedService, User, Users};
pub use snapshot::Snapshot;
pub use types::*;
