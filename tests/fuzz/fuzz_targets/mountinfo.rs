//! The mount table.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nix::sys::stat::{major, minor};
use o2bridge_shim::volume::mounts;

fuzz_target!(|table: &[u8]| {
    let found = mounts(table);
    // Line by line it says the same, and one line that is not understood spoils all.
    let lines = table.split_inclusive(|byte| *byte == b'\n');
    let each: Option<Vec<_>> = lines.map(mounts).collect();
    assert_eq!(found, each.map(|each| each.concat()));
    for mount in found.unwrap_or_default() {
        // Written as the kernel writes it, the line says the same.
        let (device, mut line) = (mount.device.0, b"36 35 ".to_vec());
        line.extend(format!("{}:{} / ", major(device), minor(device)).into_bytes());
        for byte in &mount.mountpoint {
            match byte {
                b' ' | b'\t' | b'\n' | b'\\' => line.extend(format!("\\{byte:03o}").into_bytes()),
                _ => line.push(*byte),
            }
        }
        line.extend(b" rw shared:1 - ocfs2 /dev/sdb rw\n");
        assert_eq!(mounts(&line), Some(vec![mount]));
    }
});
