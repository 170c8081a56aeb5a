//! What an earlier daemon told the kernel, as it was kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_shim::user_heartbeat::told::{decode, encode};

fuzz_target!(|text: &str| {
    let Some(told) = decode(text) else { return };
    assert_eq!(encode(&told), text, "nothing but what is written is understood");
    assert_eq!(told.len(), text.lines().count());
});
