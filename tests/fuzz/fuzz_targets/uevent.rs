//! The kernel's broadcasts of its devices.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_shim::volume::uevent::block_device;

fuzz_target!(|message: &[u8]| {
    let Some(name) = block_device(message) else { return };
    assert!(!name.contains(['/', '\0']), "{name:?} is no directory of sysfs");
    assert!(name.len() < message.len());
    let said = format!("change@/x\0SUBSYSTEM=block\0DEVNAME={name}\0");
    assert_eq!(block_device(said.as_bytes()), Some(name));
});
