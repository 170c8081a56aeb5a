//! One block of a heartbeat region, as the kernel reads and writes it.
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | le64 | seq: any change is a beat |
//! | 8 | u8 | node number |
//! | 12 | le32 | checksum |
//! | 16 | le64 | generation: one life of the node; 0 is "gone" |
//! | 24 | le32 | the writer's dead threshold in milliseconds; 0 is "not said" |
//!
//! All else is zero. The checksum covers the whole block with its own field zero. It is the usual
//! CRC-32 polynomial, but begins with 0 and is not inverted at the end, so that a block of zeros is a
//! valid slot that never beat.

use crc32fast::Hasher;

/// The smallest block: a sector.
pub const BLOCK_BYTES_MIN: usize = 512;
/// The largest block: a page.
pub const BLOCK_BYTES_MAX: usize = 4096;

const CHECKSUM: std::ops::Range<usize> = 12..16;

/// What a slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Any change is a beat; neither order nor distance matter.
    pub seq: u64,
    /// The node's number.
    pub node: u8,
    /// One life of the node; 0 is "gone".
    pub generation: u64,
    /// The writer's threshold in milliseconds; the kernel logs a difference. 0 is "not said".
    pub dead_ms: u32,
}

/// A block that cannot be read as a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockError {
    /// Not a block's size: a power of two, 512 to 4096.
    Size(usize),
    /// The kernel would count it as a miss.
    Checksum {
        /// What the block says.
        found: u32,
        /// What it should say.
        expected: u32,
    },
}

impl std::fmt::Display for BlockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Size(bytes) => write!(f, "a heartbeat block has no {bytes} bytes"),
            Self::Checksum { found, expected } => {
                write!(f, "heartbeat block with checksum {found:#010x}, not {expected:#010x}")
            }
        }
    }
}

impl std::error::Error for BlockError {}

/// Whether a block may have this size.
#[must_use]
pub fn is_block_size(bytes: usize) -> bool {
    bytes.is_power_of_two() && (BLOCK_BYTES_MIN..=BLOCK_BYTES_MAX).contains(&bytes)
}

/// Fills `block`, all of it.
///
/// # Errors
/// The block has no block's size; it is untouched then.
pub fn encode(heartbeat: &Heartbeat, block: &mut [u8]) -> Result<(), BlockError> {
    if !is_block_size(block.len()) {
        return Err(BlockError::Size(block.len()));
    }
    block.fill(0);
    block[0..8].copy_from_slice(&heartbeat.seq.to_le_bytes());
    block[8] = heartbeat.node;
    block[16..24].copy_from_slice(&heartbeat.generation.to_le_bytes());
    block[24..28].copy_from_slice(&heartbeat.dead_ms.to_le_bytes());
    let sum = checksum(block);
    block[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// Reads a block.
///
/// # Errors
/// Not a block's size, or a wrong checksum.
pub fn decode(block: &[u8]) -> Result<Heartbeat, BlockError> {
    if !is_block_size(block.len()) {
        return Err(BlockError::Size(block.len()));
    }
    let found = u32_at(block, CHECKSUM.start);
    let expected = checksum(block);
    if found != expected {
        return Err(BlockError::Checksum { found, expected });
    }
    let generation = u64_at(block, 16);
    Ok(Heartbeat { seq: seq(block), node: block[8], generation, dead_ms: u32_at(block, 24) })
}

/// The seq of a block, whatever else is in it; 0 of less than a block.
#[must_use]
pub fn seq(block: &[u8]) -> u64 {
    u64_at(block, 0)
}

/// The checksum that a block should have; what its field holds is ignored.
fn checksum(block: &[u8]) -> u32 {
    let (head, rest) = block.split_at(CHECKSUM.start);
    // The hasher inverts the value that it is given, and its result.
    let mut hasher = Hasher::new_with_initial(!0);
    hasher.update(head);
    hasher.update(&[0; 4]);
    hasher.update(rest.get(4..).unwrap_or_default());
    !hasher.finalize()
}

fn u64_at(block: &[u8], at: usize) -> u64 {
    let bytes = block.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.unwrap_or_default())
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    let bytes = block.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    u32::from_le_bytes(bytes.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(heartbeat: &Heartbeat, bytes: usize) -> u32 {
        let mut block = vec![0xaa; bytes];
        encode(heartbeat, &mut block).unwrap();
        assert_eq!(decode(&block), Ok(*heartbeat));
        u32_at(&block, 12)
    }

    #[test]
    fn the_kernels_own_block() {
        let seen = Heartbeat {
            seq: 1_767_225_613,
            node: 1,
            generation: 0x57d5_c6f5_5a4c_efda,
            dead_ms: 6000,
        };
        assert_eq!(sum(&seen, 512), 0x9048_ccb3);
    }

    #[test]
    fn both_block_sizes() {
        let small = Heartbeat { seq: 1, node: 2, generation: 1, dead_ms: 0 };
        assert_eq!(sum(&small, 512), 0x319d_1ee0);
        assert_eq!(sum(&small, 4096), 0xcd06_e7f8);
    }

    #[test]
    fn a_block_of_zeros_is_valid_and_gone() {
        let empty = Heartbeat { seq: 0, node: 0, generation: 0, dead_ms: 0 };
        assert_eq!(decode(&[0; 512]), Ok(empty));
        assert_eq!(sum(&empty, 4096), 0);
    }

    #[test]
    fn every_flipped_bit_is_a_miss() {
        let mut block = [0; 512];
        encode(&Heartbeat { seq: 7, node: 3, generation: 9, dead_ms: 62_000 }, &mut block).unwrap();
        for bit in 0..512 * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&block), Err(BlockError::Checksum { .. })), "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn what_is_no_block_is_refused_and_untouched() {
        let heartbeat = Heartbeat { seq: 1, node: 1, generation: 1, dead_ms: 1 };
        for bytes in [0, 1, 28, 511, 513, 1000, 8192] {
            let mut block = vec![0xaa; bytes];
            assert_eq!(encode(&heartbeat, &mut block), Err(BlockError::Size(bytes)));
            assert!(block.iter().all(|byte| *byte == 0xaa));
            assert_eq!(decode(&block), Err(BlockError::Size(bytes)));
        }
        assert_eq!(seq(&[1; 3]), 0);
    }
}
