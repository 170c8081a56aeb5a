//! o2bridge: the daemon of a node, the operator's command, and a client library.
#![forbid(unsafe_code)]

pub mod adapter;
pub mod client;
pub mod config;
pub mod door;
pub mod driver;
pub mod exec;
pub mod kernel;
pub mod log;
pub mod machine;
pub mod manage;
pub mod start;
pub mod status;
pub mod views;
pub mod volumes;
pub mod window;
