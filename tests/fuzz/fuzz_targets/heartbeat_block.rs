//! A block of a heartbeat region, as it may stand on a disk.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_keeper::block::{BlockError, Heartbeat, decode, encode, is_block_size, seq};

fuzz_target!(|data: &[u8]| {
    match decode(data) {
        Ok(heartbeat) => again(heartbeat, data),
        Err(BlockError::Size(bytes)) => {
            assert_eq!(bytes, data.len());
            assert!(!is_block_size(bytes));
        }
        Err(BlockError::Checksum { found, expected }) => {
            assert_ne!(found, expected);
            let mut mended = data.to_vec();
            mended[12..16].copy_from_slice(&expected.to_le_bytes());
            let heartbeat = decode(&mended).expect("the checksum was all that was wrong");
            again(heartbeat, &mended);
        }
    }
    let Some((fields, rest)) = data.split_first_chunk::<24>() else { return };
    written(fields, rest);
});

/// What was read, written into a block, is read again.
fn again(heartbeat: Heartbeat, data: &[u8]) {
    assert_eq!(heartbeat.seq, seq(data));
    let mut block = data.to_vec();
    encode(&heartbeat, &mut block).expect("it has a block's size");
    assert_eq!(decode(&block), Ok(heartbeat));
}

/// What is written is read, and one bit more or less is a miss.
fn written(fields: &[u8; 24], rest: &[u8]) {
    let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("8 bytes"));
    let heartbeat = Heartbeat {
        seq: number(0),
        node: fields[8],
        generation: number(16),
        dead_ms: number(8) as u32,
    };
    let mut block = [0xAA; 512];
    encode(&heartbeat, &mut block).expect("512 is a block's size");
    assert_eq!(decode(&block), Ok(heartbeat));
    let bit = rest.iter().fold(0, |sum, byte| (sum * 31 + usize::from(*byte)) % 4096);
    block[bit / 8] ^= 1 << (bit % 8);
    assert!(matches!(decode(&block), Err(BlockError::Checksum { .. })), "bit {bit}");
}
