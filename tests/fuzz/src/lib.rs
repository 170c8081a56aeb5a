//! What more than one file of the targets needs: a node whose core is fed from the fuzzer's bytes, and what
//! a core refuses.
//!
//! Around the node, corosync, shim and tools behave: they say what they may say at that moment. The peers' daemons do
//! not: what they send is anything at all.

mod kernel;
mod node;
mod peers;
mod refusals;

pub use node::Node;
pub use refusals::refusals;
