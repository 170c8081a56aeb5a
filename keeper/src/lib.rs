//! The keeper: a process of its own that goes on beating a node's heartbeat slots while `o2bridged`
//! is away, and resets the node if it stays away.
//!
//! A stock kernel takes a heartbeat slot that falls silent for a dead peer, and recovers the journals
//! of a node that lives. So the slots that o2bridge writes must not depend on a daemon that may be
//! killed, upgraded or may crash. The keeper writes them; the daemon tells it which.
//!
//! ```text
//!   o2bridged                           o2bridge-keeper                      kernel
//!   Keeper (client) ── record, socket ──> process ── one block a beat ──> RAM disk
//!        │  starts it, watches it,             └── sysrq, watchdog
//!        └─ replaces it, replays the table
//! ```
//!
//! For a kernel of a user stack there is nothing to beat: there the keeper holds a [line](mod@line) to the kernel
//! that must not be cut.
//!
//! [`Keeper`] is the daemon's handle. [`state`] decides in the process, and does nothing else;
//! [`record`] is what the two say to each other; [`block`] is what the kernel reads; [`check`] is
//! the arithmetic that makes all of it safe. [`process`] is the process itself.

#![forbid(unsafe_code)]

pub mod block;
mod client;
pub mod clock;
mod error;
pub mod line;
mod notice;
pub mod process;
pub mod record;
mod settings;
pub mod state;
mod timing;

use std::fmt;
use std::num::NonZeroU64;

pub use client::{Keeper, SignOfLife};
pub use error::KeeperError;
pub use line::Line;
pub use notice::{Missing, Notice};
pub use settings::{Settings, SettingsError};
pub use timing::{
    BEAT_MS_MAX, DAEMON_BACK_MS_MIN, KERNEL_ROUND_MS, MARGIN_MS, PING_MS, TimingError,
    WATCHDOG_MS_MIN, check,
};

/// The last area of a device; each is one heartbeat region.
pub const AREA_MAX: u16 = 255;
/// The last slot of an area: the highest node number of o2cb.
pub const SLOT_MAX: u8 = 254;
/// Blocks from the start of one area to the start of the next.
pub const AREA_BLOCKS: u64 = 256;
/// Slots that one keeper beats at most; more are refused.
pub const BEATS_MAX: usize = 4096;

/// One heartbeat region's place on the device, 0 to 255.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Area(pub u16);

/// A node's place in a region: its number in o2cb's node table, 0 to 254.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u8);

/// One life of the node behind a slot. Zero means "gone" on the device, so no life has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub NonZeroU64);

impl Generation {
    /// `None` for 0, which means "gone".
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }
}

/// The block of the device that holds a slot. Block 0 of the device is no slot's.
#[must_use]
pub fn block_number(area: Area, slot: Slot) -> u64 {
    1 + u64::from(area.0) * AREA_BLOCKS + u64::from(slot.0)
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "area {}", self.0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {:#x}", self.0)
    }
}
