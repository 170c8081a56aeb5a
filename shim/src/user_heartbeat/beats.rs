//! What the virtual region needs of the keeper: only the keeper writes heartbeat slots.

use std::collections::BTreeMap;

use o2bridge_keeper::{Area, Generation, Keeper, Slot};

/// Why the keeper could not be told.
pub type BeatError = Box<dyn std::error::Error + Send + Sync>;

/// The keeper, or in tests its stand-in. All calls are quick: they end in a write to a RAM disk.
pub trait Beats: Send + Sync {
    /// What is beaten now.
    fn table(&self) -> BTreeMap<(Area, Slot), Generation>;

    /// Beats this slot with this generation from now on; returns after the first write.
    ///
    /// # Errors
    /// The slot may be silent.
    fn beat(&self, area: Area, slot: Slot, generation: Generation) -> Result<(), BeatError>;

    /// Writes generation 0 into this slot once and beats it no more. Right when repeated.
    ///
    /// # Errors
    /// The slot may go on beating.
    fn down(&self, area: Area, slot: Slot) -> Result<(), BeatError>;

    /// Forgets all slots of an area and fills it with zeros. No region may be on it.
    ///
    /// # Errors
    /// The area may hold beats.
    fn clear(&self, area: Area) -> Result<(), BeatError>;
}

impl Beats for Keeper {
    fn table(&self) -> BTreeMap<(Area, Slot), Generation> {
        Self::table(self)
    }

    fn beat(&self, area: Area, slot: Slot, generation: Generation) -> Result<(), BeatError> {
        Self::beat(self, area, slot, generation).map_err(Into::into)
    }

    fn down(&self, area: Area, slot: Slot) -> Result<(), BeatError> {
        Self::down(self, area, slot).map_err(Into::into)
    }

    fn clear(&self, area: Area) -> Result<(), BeatError> {
        Self::clear(self, area).map_err(Into::into)
    }
}
