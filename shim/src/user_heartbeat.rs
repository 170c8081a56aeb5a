//! The shim `user-heartbeat`.
