//! The kernel's broadcasts of its devices.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_shim::volume::uevent::{Uevent, about};

fuzz_target!(|message: &[u8]| {
    let name = match about(message) {
        Some(Uevent::Block(name)) => name,
        Some(Uevent::Lockspace) => return,
        Some(Uevent::Lost) => panic!("a message was read, and none is said to be lost"),
        None => return,
    };
    assert!(!name.contains(['/', '\0']), "{name:?} is no directory of sysfs");
    assert!(name.len() < message.len());
    let said = format!("change@/x\0SUBSYSTEM=block\0DEVNAME={name}\0");
    assert_eq!(about(said.as_bytes()), Some(Uevent::Block(name)));
});
