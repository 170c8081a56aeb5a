//! Guests with real kernels.
#![forbid(unsafe_code)]
