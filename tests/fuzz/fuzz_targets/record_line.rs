//! The record shim's line, which the tools around it read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_wire::record::Line;

fuzz_target!(|text: &str| {
    let Ok(line) = text.parse::<Line>() else { return };
    assert_eq!(line.to_string(), text, "nothing but what the shim writes is a line");
    assert!(!text.contains(['\n', '\r']));
});
