//! Kernel set-up for OCFS2: **a skeleton, nothing is here yet.**
//!
//! What will be here, in place of the `o2cb.init` script:
//! - a probe that only reads: which drivers are there, which stack the kernel runs, what configfs
//!   holds, whether o2cb or a user stack is in use;
//! - set-up and tear-down: loading drivers, mounting configfs, the stack selection, the node table.
//!   Everything is validated first, then done, and undone if a later step fails.
//!
//! Until then use your distribution's `o2cb` service, if the kernel needs one. The `record` shim,
//! the only one there is so far, needs no kernel set-up at all.
