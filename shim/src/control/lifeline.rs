//! What `control` needs of the keeper.

use o2bridge_keeper::{Keeper, Line};

use crate::user_heartbeat::BeatError;

/// The keeper, or in tests its stand-in.
pub trait Lifeline: Send + Sync {
    /// The line that it holds.
    fn line(&self) -> Option<Line>;

    /// Holds a line; returns when hands are shaken. Right when repeated.
    ///
    /// # Errors
    /// It holds none, or another one.
    fn hold(&self, line: Line) -> Result<(), BeatError>;

    /// Lets go of it. Right when repeated.
    ///
    /// # Errors
    /// It may hold it still.
    fn release(&self) -> Result<(), BeatError>;
}

impl Lifeline for Keeper {
    fn line(&self) -> Option<Line> {
        Self::line(self)
    }

    fn hold(&self, line: Line) -> Result<(), BeatError> {
        Self::hold(self, line).map_err(Into::into)
    }

    fn release(&self) -> Result<(), BeatError> {
        Self::release(self).map_err(Into::into)
    }
}
