//! The superblock of an OCFS2 volume.
//!
//! It lies in block 2 of the volume, and how large a block is, only the superblock tells: so there
//! are four places to look. Offsets below count from the start of that block.

use std::path::Path;

use o2bridge_core::GroupId;

use super::disk::{Disk, VolumeError};
use super::field::{bytes, le16, le32, le64, text};

/// How much of a device has to be read to find a superblock, in bytes.
pub const HEAD_BYTES: usize = 16 * 1024;

const SIGNATURE: &[u8] = b"OCFSV2";
/// The superblock's block number, which it also says of itself.
const BLOCK: u64 = 2;
const AT_BLOCK: usize = 0x50;
const AT_INCOMPAT: usize = 0xE0;
const AT_SYSTEM_DIR: usize = 0xF0;
const AT_BLOCK_BITS: usize = 0xF8;
const AT_CLUSTER_BITS: usize = 0xFC;
const AT_SLOTS_MAX: usize = 0x100;
const AT_LABEL: usize = 0x110;
const AT_UUID: usize = 0x150;
const AT_STACK: usize = 0x160;
const AT_STACK_FLAGS: usize = 0x164;
const AT_CLUSTER: usize = 0x168;

/// Block sizes, as powers of two: 512 bytes to 4 KiB.
const BLOCK_BITS: std::ops::RangeInclusive<u32> = 9..=12;
/// Cluster sizes, as powers of two: 4 KiB to 1 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 12..=20;

const INCOMPAT_HEARTBEAT_DEVICE: u32 = 0x0002;
const INCOMPAT_RESIZING: u32 = 0x0004;
const INCOMPAT_LOCAL_MOUNT: u32 = 0x0008;
const INCOMPAT_TUNING: u32 = 0x0020;
/// Set for user stacks: the stack's name is on the disk.
const INCOMPAT_USER_STACK: u32 = 0x0080;
/// Set for o2cb: the stack's name is on the disk.
const INCOMPAT_CLUSTER_INFO: u32 = 0x4000;
const STACK_GLOBAL_HEARTBEAT: u8 = 1;

/// What a volume says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// The volume's UUID, which is also its mountgroup's name.
    pub uuid: GroupId,
    /// The administrator's name for it; empty if it has none. Bytes that are no UTF-8 are replaced.
    pub label: String,
    /// Who it was formatted for.
    pub stack: Stack,
    /// The filesystem's block size in bytes, 512 to 4096.
    pub block_bytes: u32,
    /// The unit of allocation in bytes, 4 KiB to 1 MiB.
    pub cluster_bytes: u32,
    /// How many nodes may mount it at a time.
    pub slots_max: u16,
    /// Formatted for a single node: no cluster is ever involved.
    pub is_local: bool,
    /// A device that carries nothing but a cluster's heartbeat.
    pub is_heartbeat_device: bool,
    /// A resize or tunefs.ocfs2 is under way, or was broken off.
    pub is_in_repair: bool,
    /// The block that the system directory's inode lies in.
    pub(super) system_dir_block: u64,
}

impl Superblock {
    /// Where the superblock lies on its device, in bytes.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        BLOCK * self.block_bytes as u64
    }
}

/// Who a volume was formatted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stack {
    /// o2cb, made before the disk told the name of the cluster, or by a mkfs without one.
    Classic,
    /// The names are on the disk.
    Named {
        /// `o2cb`, or a user stack: `pcmk`, `cman`.
        stack: String,
        /// The name of the cluster, at most 16 bytes.
        cluster: String,
        /// Whether the cluster beats on a few devices for all volumes, not on each volume.
        global_heartbeat: bool,
    },
}

/// Why some bytes are no superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Nothing here says that it is one.
    NoSignature,
    /// It has the signature, and this cannot be true.
    Unsound(&'static str),
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSignature => f.write_str("no OCFS2 superblock"),
            Self::Unsound(what) => write!(f, "an OCFS2 superblock with an impossible {what}"),
        }
    }
}

/// Reads the superblock of a block device or an image.
///
/// A plain read: on a disk that does not answer it does not return, for hours if need be. Only for
/// threads that nobody waits for; [`super::Watch`] has such.
///
/// # Errors
/// The device cannot be read, or holds no sound superblock.
pub fn read(path: &Path) -> Result<Superblock, VolumeError> {
    Disk::open(path)?.superblock()
}

/// Finds the superblock in the first [`HEAD_BYTES`] of a device; fewer bytes are searched as far as
/// they go.
///
/// # Errors
/// There is none, or it contradicts itself.
pub fn parse(head: &[u8]) -> Result<Superblock, Bad> {
    let mut bad = Bad::NoSignature;
    for bits in BLOCK_BITS {
        let start = (BLOCK as usize) << bits;
        let Some(block) = head.get(start..start + (1 << bits)) else { break };
        match parse_block(block, bits) {
            Ok(superblock) => return Ok(superblock),
            Err(Bad::NoSignature) => {}
            Err(unsound) => bad = unsound,
        }
    }
    Err(bad)
}

fn parse_block(block: &[u8], bits: u32) -> Result<Superblock, Bad> {
    let own = le64(block, AT_BLOCK) == Some(BLOCK) && le32(block, AT_BLOCK_BITS) == Some(bits);
    if !block.starts_with(SIGNATURE) || !own {
        return Err(Bad::NoSignature);
    }
    let missing = |what| move || Bad::Unsound(what);
    let incompat = le32(block, AT_INCOMPAT).ok_or_else(missing("feature word"))?;
    let cluster_bits = le32(block, AT_CLUSTER_BITS)
        .filter(|bits| CLUSTER_BITS.contains(bits))
        .ok_or_else(missing("cluster size"))?;
    let uuid = bytes(block, AT_UUID)
        .map(u128::from_be_bytes)
        .filter(|uuid| *uuid != 0)
        .ok_or_else(missing("UUID"))?;
    let label = bytes::<64>(block, AT_LABEL).ok_or_else(missing("label"))?;
    Ok(Superblock {
        uuid: GroupId(uuid),
        label: String::from_utf8_lossy(text(&label)).into_owned(),
        stack: parse_stack(block, incompat)?,
        block_bytes: 1 << bits,
        cluster_bytes: 1 << cluster_bits,
        slots_max: le16(block, AT_SLOTS_MAX).ok_or_else(missing("number of slots"))?,
        is_local: incompat & INCOMPAT_LOCAL_MOUNT != 0,
        is_heartbeat_device: incompat & INCOMPAT_HEARTBEAT_DEVICE != 0,
        is_in_repair: incompat & (INCOMPAT_RESIZING | INCOMPAT_TUNING) != 0,
        system_dir_block: le64(block, AT_SYSTEM_DIR).ok_or_else(missing("system directory"))?,
    })
}

/// Without the flags, the bytes of the names mean nothing, whatever they are.
fn parse_stack(block: &[u8], incompat: u32) -> Result<Stack, Bad> {
    if incompat & (INCOMPAT_USER_STACK | INCOMPAT_CLUSTER_INFO) == 0 {
        return Ok(Stack::Classic);
    }
    let stack = bytes::<4>(block, AT_STACK).and_then(|field| name(&field));
    let cluster = bytes::<16>(block, AT_CLUSTER).and_then(|field| name(&field));
    let flags = bytes::<1>(block, AT_STACK_FLAGS).unwrap_or_default();
    Ok(Stack::Named {
        stack: stack.ok_or(Bad::Unsound("stack name"))?,
        cluster: cluster.ok_or(Bad::Unsound("cluster name"))?,
        global_heartbeat: flags[0] & STACK_GLOBAL_HEARTBEAT != 0,
    })
}

/// The kernel and the tools compare these names bytewise; what cannot be printed is no name.
fn name(field: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(text(field)).ok()?;
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())).then(|| name.to_owned())
}

#[cfg(test)]
mod tests;
