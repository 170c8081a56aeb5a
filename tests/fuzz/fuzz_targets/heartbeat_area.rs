//! The way to a volume's own heartbeat area, over a disk of any content.
#![no_main]

use std::cell::Cell;

use libfuzzer_sys::fuzz_target;
use o2bridge_shim::volume::heartbeat::{SLOTS, beats};
use o2bridge_shim::volume::layout::heartbeat_file;
use o2bridge_shim::volume::{VolumeError, parse};

/// What is read of a directory.
const DIR_BYTES_MAX: usize = 64 * 1024;

fuzz_target!(|disk: &[u8]| {
    let Ok(superblock) = parse(disk) else { return };
    let reads = Cell::new(0);
    let read = |offset: u64, len: usize| {
        reads.set(reads.get() + 1);
        assert!(len <= DIR_BYTES_MAX, "{len} bytes at once");
        let start = usize::try_from(offset).ok();
        let bytes = start.and_then(|start| disk.get(start..start.checked_add(len)?));
        bytes.map(<[u8]>::to_vec).ok_or(VolumeError::NoHeartbeat("beyond the end of the disk"))
    };
    let found = heartbeat_file(&superblock, &read);
    assert!(reads.get() <= 3, "two inodes and one directory");
    let Ok(area) = found else { return };
    assert!(area.offset > 0 && area.len > 0);
    assert_eq!(area.offset % u64::from(superblock.block_bytes), 0);
    assert_eq!(area.len % u64::from(superblock.cluster_bytes), 0);
    for slot_bytes in [512, 4096] {
        let start = usize::try_from(area.offset).unwrap_or(usize::MAX);
        let beats = beats(disk.get(start..).unwrap_or_default(), slot_bytes);
        assert!(beats.iter().all(|beat| beat.slot < SLOTS && (beat.generation | beat.seq) != 0));
        assert!(beats.is_sorted_by_key(|beat| beat.slot) && beats.len() <= SLOTS.into());
    }
});
