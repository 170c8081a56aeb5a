//! The way to a volume's own heartbeat area: superblock, inode of the system directory, its entry
//! `heartbeat`, that file's inode, its one extent.
//!
//! Everything on the way is bounded and checked; a volume that is laid out otherwise is an error,
//! never "nobody beats".

use super::disk::VolumeError;
use super::field::{le16, le32, le64};
use super::superblock::Superblock;

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

/// Reads exactly so many bytes at an offset.
pub type Read<'a> = &'a dyn Fn(u64, usize) -> Result<Vec<u8>, VolumeError>;

/// A piece of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// From the start of the device.
    pub offset: u64,
    /// How many.
    pub len: u64,
}

/// Where the file `heartbeat` of a volume lies.
///
/// # Errors
/// The disk cannot be read, or the file not be found.
pub fn heartbeat_file(superblock: &Superblock, read: Read<'_>) -> Result<Extent, VolumeError> {
    let dir = inode(superblock, read, superblock.system_dir_block)?;
    let entries = contents(superblock, read, &dir)?;
    let number = lookup(&entries).ok_or(VolumeError::NoHeartbeat("no file of that name"))?;
    let file = inode(superblock, read, number)?;
    single_extent(&file, superblock)
}

fn inode(superblock: &Superblock, read: Read<'_>, number: u64) -> Result<Vec<u8>, VolumeError> {
    let offset = number.checked_mul(superblock.block_bytes.into());
    let offset = offset.ok_or(VolumeError::NoHeartbeat("a block beyond every disk"))?;
    let block = read(offset, superblock.block_bytes as usize)?;
    if !block.starts_with(INODE_SIGNATURE) || le64(&block, AT_OWN_BLOCK) != Some(number) {
        return Err(VolumeError::NoHeartbeat("no inode where one should be"));
    }
    Ok(block)
}

/// The start of a directory: all of it if it lies in the inode, else its first extent.
fn contents(superblock: &Superblock, read: Read<'_>, inode: &[u8]) -> Result<Vec<u8>, VolumeError> {
    let size = le64(inode, AT_SIZE).and_then(|size| usize::try_from(size).ok());
    let size = size.unwrap_or(usize::MAX).min(DIR_BYTES_MAX);
    if le16(inode, AT_FEATURES).unwrap_or(0) & FEATURE_INLINE_DATA != 0 {
        let data = inode.get(AT_INLINE_DATA..).unwrap_or_default();
        return Ok(data.get(..size).unwrap_or(data).to_vec());
    }
    let Extent { offset, len } = first_extent(inode, superblock)?;
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(size);
    read(offset, len)
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

/// Where a file lies that must be in one piece.
fn single_extent(inode: &[u8], superblock: &Superblock) -> Result<Extent, VolumeError> {
    if le16(inode, AT_USED) != Some(1) {
        return Err(VolumeError::NoHeartbeat("the file is not in one piece"));
    }
    first_extent(inode, superblock)
}

/// Where a file begins.
fn first_extent(inode: &[u8], superblock: &Superblock) -> Result<Extent, VolumeError> {
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
            let len = u64::from(clusters) * u64::from(superblock.cluster_bytes);
            Ok(Extent { offset, len })
        }
        _ => Err(odd("an extent that cannot be")),
    }
}

#[cfg(test)]
mod tests;
