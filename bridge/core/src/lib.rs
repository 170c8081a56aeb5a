//! The decisions of o2bridge.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod action;
pub mod config;
pub mod event;
pub mod fence;
pub mod saved;
pub mod snapshot;
pub mod timer;
pub mod types;

pub use action::{Action, Actions, Note, Refusal, Reply, Verb, Waiting};
pub use config::{Config, Fencing, Tunables};
pub use event::{Begin, Event, Finding, OpError};
pub use saved::{Saved, SavedGroup, SavedService, User, Users};
pub use snapshot::Snapshot;
pub use types::*;

/// The whole state of one node's daemon.
#[derive(Debug)]
pub struct Core {
    config: Config,
}

impl Core {
    /// A daemon that has just started, with what its predecessor in this boot left behind.
    #[must_use]
    pub fn new(config: Config, saved: Saved) -> Self {
        let _ = saved;
        Self { config }
    }

    /// Takes one event and appends what must be done. The only way to change the core.
    pub fn handle(&mut self, now: Now, event: Event, out: &mut Actions) {
        let _ = (now, event, out, &self.config);
    }

    /// Checks what must always hold; a sentence says what does not.
    ///
    /// # Errors
    /// An invariant is broken: a bug of ours, and no reason that came from outside.
    pub fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }

    /// A copy of the state for status and dump.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        snapshot::Snapshot {
            node: None,
            cluster: alloc::string::String::new(),
            connected: false,
            quorate: false,
            ring: None,
            settled: false,
            protocol: 1,
            fencing: "none",
            nodes: alloc::vec::Vec::new(),
            groups: alloc::vec::Vec::new(),
            garbage_messages: 0,
        }
    }
}
