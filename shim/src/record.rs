//! The shim that needs no kernel.
