//! The outside world, one file each. An adapter turns what happens there into the core's events and
//! carries out what it is told; it decides nothing.

pub mod agent;
pub mod bus;
pub mod gatekeeper;
pub mod look;
pub mod nodetable;
pub mod process;
pub mod state;
pub mod systemd;
pub mod timers;
pub mod volumes;
pub mod workers;
