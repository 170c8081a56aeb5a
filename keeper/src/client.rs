//! The daemon's handle of its keeper.

use std::collections::BTreeMap;

use crate::{Area, Generation, KeeperError, Notice, Settings, Slot};

/// The daemon's handle of its keeper.
pub struct Keeper;

impl Keeper {
    /// Connects to the keeper that runs already and beats (adopts it), or starts one.
    ///
    /// # Errors
    /// No keeper can be started, or the running one serves another daemon that is alive.
    pub fn start(
        _settings: Settings,
        _log: Box<dyn Fn(Notice) + Send + Sync>,
    ) -> Result<Self, KeeperError> {
        Err(KeeperError::NotStarted("to come".into()))
    }

    /// What it beats now; after an adoption, what the predecessor had told it.
    #[must_use]
    pub fn table(&self) -> BTreeMap<(Area, Slot), Generation> {
        BTreeMap::new()
    }

    /// Beats the slot from now on; returns after the first write.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn beat(&self, _: Area, _: Slot, _: Generation) -> Result<(), KeeperError> {
        Err(KeeperError::Stopped)
    }

    /// Writes generation 0 once, and beats the slot no more. Can be repeated.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn down(&self, _: Area, _: Slot) -> Result<(), KeeperError> {
        Err(KeeperError::Stopped)
    }

    /// The region is gone: forgets all slots of the area and fills it with zeros.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn clear(&self, _: Area) -> Result<(), KeeperError> {
        Err(KeeperError::Stopped)
    }

    /// Resets this node, now.
    ///
    /// # Errors
    /// The system refused.
    pub fn reset_node(&self, _why: &str) -> Result<(), KeeperError> {
        Err(KeeperError::Stopped)
    }

    /// Ends the process; refused while it beats anything.
    ///
    /// # Errors
    /// See [`KeeperError`].
    pub fn stop(&self) -> Result<(), KeeperError> {
        Err(KeeperError::Stopped)
    }

    /// The process id of the keeper that runs now.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        None
    }

    /// Says that the daemon's own work goes on. See the module.
    pub fn alive(&self) {}
}
