//! Who beats on a volume's own heartbeat area.
//!
//! Two nodes that learn of each other's life by different carriers do not see each other, take the
//! other for dead and destroy the volume. So before a carrier of ours is used for a volume,
//! somebody has to look whether the classic one is in use: on the disk, in the system file
//! `heartbeat`, to which [`super::layout`] knows the way.

use std::path::Path;
use std::time::Duration;

use super::disk::{Disk, VolumeError};
use super::field::le64;
use super::layout::heartbeat_file;

/// Slots of a heartbeat area, one for each possible node number.
pub const SLOTS: u8 = 255;

/// How long two readings should lie apart: a node beats every 2 s, and one that is slow is still
/// not dead.
pub const PAUSE: Duration = Duration::from_secs(6);

/// A slot that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// The node's number in o2cb.
    pub slot: u8,
    /// Names one life of the node's heartbeat; 0 when it left.
    pub generation: u64,
    /// Changes with every beat.
    pub seq: u64,
}

/// Reads the heartbeat area of the volume on this device. Slots that nobody ever used are left out;
/// those of nodes that left or died are not, so one reading says nothing about who lives: see
/// [`beating`]. Hangs as long as the disk does.
///
/// # Errors
/// The disk cannot be read, or the area not be found.
pub fn disk_heartbeat(path: &Path) -> Result<Vec<Beat>, VolumeError> {
    Area::find(path)?.beats()
}

/// Who beats on any of these devices: two readings with this pause in between (see [`PAUSE`]), and
/// the slots that changed. Hangs as long as the disks do.
///
/// # Errors
/// One of the disks cannot be read, or its area not be found: then nothing is known.
pub fn beating(paths: &[&Path], pause: Duration) -> Result<Vec<u8>, VolumeError> {
    let areas: Vec<Area> = paths.iter().map(|path| Area::find(path)).collect::<Result<_, _>>()?;
    let read = || areas.iter().map(Area::beats).collect::<Result<Vec<_>, _>>();
    let before = read()?;
    std::thread::sleep(pause);
    let after = read()?;
    let mut slots: Vec<u8> = Vec::new();
    for (before, after) in before.iter().zip(&after) {
        let both = before.iter().chain(after);
        let changed = both.filter(|beat| !(before.contains(beat) && after.contains(beat)));
        slots.extend(changed.map(|beat| beat.slot));
    }
    slots.sort_unstable();
    slots.dedup();
    Ok(slots)
}

/// Where a volume's heartbeat area lies.
#[derive(Debug)]
struct Area {
    disk: Disk,
    /// In bytes from the start of the device.
    offset: u64,
    /// Of one slot: the device's logical block size.
    slot_bytes: u32,
}

impl Area {
    fn find(path: &Path) -> Result<Self, VolumeError> {
        let disk = Disk::open(path)?;
        let superblock = disk.superblock()?;
        let slot_bytes = super::devices::logical_block_bytes(path);
        let file = heartbeat_file(&superblock, &|offset, len| disk.read(offset, len))?;
        if file.len < u64::from(SLOTS) * u64::from(slot_bytes) {
            return Err(VolumeError::NoHeartbeat("the file is too short"));
        }
        Ok(Self { disk, offset: file.offset, slot_bytes })
    }

    fn beats(&self) -> Result<Vec<Beat>, VolumeError> {
        let slot_bytes = self.slot_bytes as usize;
        let bytes = self.disk.read(self.offset, usize::from(SLOTS) * slot_bytes)?;
        Ok(beats(&bytes, slot_bytes))
    }
}

/// The slots of an area that are not empty.
#[must_use]
pub fn beats(area: &[u8], slot_bytes: usize) -> Vec<Beat> {
    let slots = (0..SLOTS).zip(area.chunks_exact(slot_bytes.max(1)));
    slots.filter_map(|(slot, block)| beat(slot, block)).collect()
}

/// The checksum is not looked at: whoever writes here at all is somebody.
fn beat(slot: u8, block: &[u8]) -> Option<Beat> {
    let (seq, generation) = (le64(block, 0)?, le64(block, 16)?);
    (seq != 0 || generation != 0).then_some(Beat { slot, generation, seq })
}

#[cfg(test)]
mod tests;
