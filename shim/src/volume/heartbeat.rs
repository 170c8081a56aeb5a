//! Who beats on a volume's own heartbeat area.
//!
//! Two nodes that learn of each other's life by different carriers do not see each other, take the
//! other for dead and destroy the volume. So before a carrier of ours is used for a volume,
//! somebody has to look whether the classic one is in use: on the disk, in the system file
//! `heartbeat`.
//!
//! The way there: superblock, inode of the system directory, its entry `heartbeat`, that file's
//! inode, its one extent. Everything on the way is bounded and checked; a volume that is laid
//! out otherwise is an error, never "nobody beats".

use std::path::Path;
use std::time::Duration;

use super::disk::{Disk, VolumeError};
use super::field::{le16, le32, le64};
use super::superblock::Superblock;

/// Slots of a heartbeat area, one for each possible node number.
pub const SLOTS: u8 = 255;

/// How long two readings should lie apart: a node beats every 2 s, and one that is slow is still
/// not dead.
pub const PAUSE: Duration = Duration::from_secs(6);

const INODE_SIGNATURE: &[u8] = b"INODE01";
const AT_SIZE: usize = 0x20;
const AT_OWN_BLOCK: usize = 0x50;
const AT_FEATURES: usize = 0x76;
const FEATURE_INLINE_DATA: u16 = 1;
/// An extent list, or the data itself.
const AT_BODY: usize = 0xC0;
const AT_INLINE_DATA: usize = AT_BODY + 8;
const AT_DEPTH: usize = AT_BODY;
const AT_USED: usize = AT_BODY + 4;
const AT_RECORDS: usize = AT_BODY + 16;
const RECORD_BYTES: usize = 16;

/// The first entries of the system directory are mkfs's; `heartbeat` is among them.
const DIR_BYTES_MAX: usize = 64 * 1024;
const ENTRY_HEAD_BYTES: usize = 12;
const NAME: &[u8] = b"heartbeat";

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
        let dir = inode(&disk, &superblock, superblock.system_dir_block)?;
        let entries = contents(&disk, &superblock, &dir)?;
        let number = lookup(&entries).ok_or(VolumeError::NoHeartbeat("no file of that name"))?;
        let file = inode(&disk, &superblock, number)?;
        let (offset, len) = single_extent(&file, &superblock)?;
        if len < u64::from(SLOTS) * u64::from(slot_bytes) {
            return Err(VolumeError::NoHeartbeat("the file is too short"));
        }
        Ok(Self { disk, offset, slot_bytes })
    }

    fn beats(&self) -> Result<Vec<Beat>, VolumeError> {
        let slot_bytes = self.slot_bytes as usize;
        let bytes = self.disk.read(self.offset, usize::from(SLOTS) * slot_bytes)?;
        let slots = (0..SLOTS).zip(bytes.chunks_exact(slot_bytes));
        Ok(slots.filter_map(|(slot, block)| beat(slot, block)).collect())
    }
}

/// The checksum is not looked at: whoever writes here at all is somebody.
fn beat(slot: u8, block: &[u8]) -> Option<Beat> {
    let (seq, generation) = (le64(block, 0)?, le64(block, 16)?);
    (seq != 0 || generation != 0).then_some(Beat { slot, generation, seq })
}

fn inode(disk: &Disk, superblock: &Superblock, number: u64) -> Result<Vec<u8>, VolumeError> {
    let offset = number.checked_mul(superblock.block_bytes.into());
    let offset = offset.ok_or(VolumeError::NoHeartbeat("a block beyond every disk"))?;
    let block = disk.read(offset, superblock.block_bytes as usize)?;
    if !block.starts_with(INODE_SIGNATURE) || le64(&block, AT_OWN_BLOCK) != Some(number) {
        return Err(VolumeError::NoHeartbeat("no inode where one should be"));
    }
    Ok(block)
}

/// The start of a directory: all of it if it lies in the inode, else its first extent.
fn contents(disk: &Disk, superblock: &Superblock, inode: &[u8]) -> Result<Vec<u8>, VolumeError> {
    let size = le64(inode, AT_SIZE).and_then(|size| usize::try_from(size).ok());
    let size = size.unwrap_or(usize::MAX).min(DIR_BYTES_MAX);
    if le16(inode, AT_FEATURES).unwrap_or(0) & FEATURE_INLINE_DATA != 0 {
        let data = inode.get(AT_INLINE_DATA..).unwrap_or_default();
        return Ok(data.get(..size).unwrap_or(data).to_vec());
    }
    let (offset, len) = first_extent(inode, superblock)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(size);
    disk.read(offset, len)
}

/// The inode number of the entry `heartbeat`.
fn lookup(entries: &[u8]) -> Option<u64> {
    let mut rest = entries;
    loop {
        let number = le64(rest, 0)?;
        let record_len = usize::from(le16(rest, 8)?);
        let name_len = usize::from(*rest.get(10)?);
        let name = rest.get(ENTRY_HEAD_BYTES..ENTRY_HEAD_BYTES + name_len)?;
        if number != 0 && name == NAME {
            return Some(number);
        }
        // A record that leads nowhere ends the search, and nothing was found.
        rest = rest.get(record_len.max(ENTRY_HEAD_BYTES)..)?;
    }
}

/// Offset and length of the heartbeat file, in bytes.
fn single_extent(inode: &[u8], superblock: &Superblock) -> Result<(u64, u64), VolumeError> {
    if le16(inode, AT_USED) != Some(1) {
        return Err(VolumeError::NoHeartbeat("the file is not in one piece"));
    }
    first_extent(inode, superblock)
}

/// Offset and length of a file's first extent, in bytes.
fn first_extent(inode: &[u8], superblock: &Superblock) -> Result<(u64, u64), VolumeError> {
    let odd = VolumeError::NoHeartbeat;
    if le16(inode, AT_DEPTH) != Some(0) {
        return Err(odd("its extents are not in the inode"));
    }
    if le16(inode, AT_USED).unwrap_or(0) == 0 {
        return Err(odd("the file is empty"));
    }
    let record = inode.get(AT_RECORDS..AT_RECORDS + RECORD_BYTES).unwrap_or_default();
    let start = le32(record, 0);
    let clusters = le16(record, 4);
    let block = le64(record, 8).unwrap_or(0);
    let offset = block.checked_mul(superblock.block_bytes.into());
    match (start, clusters, offset) {
        (Some(0), Some(clusters @ 1..), Some(offset @ 1..)) => {
            Ok((offset, u64::from(clusters) * u64::from(superblock.cluster_bytes)))
        }
        _ => Err(odd("an extent that cannot be")),
    }
}

#[cfg(test)]
mod tests;
