//! The keeper: see the modules.
#![forbid(unsafe_code)]
