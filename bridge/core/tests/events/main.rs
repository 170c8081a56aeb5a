//! Every event, through the public API: one file each, or one of a subject; the whole action list asserted.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "a test may panic")]

mod common;
mod returned;
mod rig;

mod begin;
mod client_gone;
mod complete;
mod confchg;
mod connected;
mod disconnected;
mod done;
mod errno;
mod fence_ack;
mod foreign;
mod last_word;
mod leave;
mod locking;
mod looked;
mod lost;
mod memory;
mod message;
mod nodelist;
mod noise;
mod quorum;
mod reconfigure;
mod stalled;
mod stop;
mod timer;
mod totem;
