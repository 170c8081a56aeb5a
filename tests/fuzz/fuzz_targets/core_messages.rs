//! A live core among peers that say anything at all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_core::{BootId, Saved};
use o2bridge_fuzz::Node;

fuzz_target!(|data: &[u8]| Node::start(data, BootId(1), Saved::default()).run());
