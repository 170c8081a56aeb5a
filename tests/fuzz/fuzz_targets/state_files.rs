//! What an earlier daemon left on the tmpfs, and the daemon that starts with it and lives on.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use o2bridge::adapter::state::file::{Memory, decode_group, encode_group};
use o2bridge_core::{BootId, GroupId, Incarnation, Saved};
use o2bridge_fuzz::Node;

fuzz_target!(|data: &[u8]| {
    // Two bytes say how long the file is; what stands behind it is what happens then.
    let Some((len, rest)) = data.split_first_chunk() else { return };
    let len = usize::from(u16::from_le_bytes(*len));
    let (text, life) = rest.split_at(len.min(rest.len()));
    match Memory::decode(text) {
        Ok(memory) => assert_eq!(Memory::decode(&memory.encode()), Ok(memory)),
        Err(reason) => assert!(!reason.is_empty()),
    }
    match decode_group(text) {
        Ok((boot, image)) => {
            let again = decode_group(&encode_group(boot, &image));
            assert_eq!(again, Ok((boot, image.clone())));
            let groups = BTreeMap::from([(GroupId(0xA), image)]);
            let saved = Saved { memory_from: Some(Incarnation(1)), groups };
            // A daemon never starts in the boot that stands for none.
            let boot = if boot == BootId::UNSEEN { BootId(1) } else { boot };
            Node::start(life, boot, saved).run();
        }
        Err(reason) => assert!(!reason.is_empty()),
    }
});
