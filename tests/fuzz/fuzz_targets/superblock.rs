//! The first bytes of a device that may hold a volume.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_shim::volume::superblock::{HEAD_BYTES, Stack, parse};

fuzz_target!(|head: &[u8]| {
    let Ok(found) = parse(head) else { return };
    assert!([512, 1024, 2048, 4096].contains(&found.block_bytes));
    assert!(found.cluster_bytes.is_power_of_two());
    assert!((4096..=1 << 20).contains(&found.cluster_bytes));
    assert_ne!(found.uuid.0, 0);
    let end = usize::try_from(found.offset() + u64::from(found.block_bytes)).expect("it fits");
    assert!(end <= HEAD_BYTES && end <= head.len(), "it lies within what is read");
    assert!(!found.label.contains('\0') && found.label.len() <= 3 * 64);
    if let Stack::Named { stack, cluster, .. } = &found.stack {
        for (name, bytes_max) in [(stack, 4), (cluster, 16)] {
            assert!((1..=bytes_max).contains(&name.len()));
            assert!(name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
    // What stands behind it does not matter, and the names end where they end.
    assert_eq!(parse(&head[..end]).as_ref(), Ok(&found));
    let mut longer = head[..end].to_vec();
    longer.resize(2 * HEAD_BYTES, 0xFF);
    assert_eq!(parse(&longer), Ok(found));
});
