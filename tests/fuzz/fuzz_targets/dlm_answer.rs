//! What comes from the sockets of dlm_controld.
#![no_main]

use libfuzzer_sys::fuzz_target;
use o2bridge_core::{GroupId, NodeId};
use o2bridge_shim::control::dlmc::{
    Command, HEADER_BYTES, LOCKSPACE_BYTES, NODE_BYTES, lockspace, node, request, result,
};

const COMMANDS: [Command; 5] = [
    Command::LockspaceInfo,
    Command::NodeInfo,
    Command::Register,
    Command::Unregister,
    Command::Notified,
];

fuzz_target!(|bytes: &[u8]| {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return };
    // An answer is one to one command at most, and of no other version.
    let results: Vec<i32> =
        COMMANDS.iter().filter_map(|command| result(*command, header)).collect();
    assert!(results.len() < 2, "{header:?} answers {results:?}");
    for at in 0..4 {
        let mut other = *header;
        other[at] ^= 1;
        let is_taken = COMMANDS.iter().any(|command| result(*command, &other).is_some());
        assert!(results.is_empty() || !is_taken, "{other:?} has another magic number");
    }
    // What we ask for reads like an answer to it, whose result is the node.
    if let (Some(number), Some(group)) = (payload.first_chunk(), payload.last_chunk()) {
        let number = u32::from_ne_bytes(*number);
        let group = GroupId(u128::from_ne_bytes(*group));
        for command in COMMANDS {
            let asked = request(command, group, Some(NodeId(number)));
            assert_eq!(result(command, &asked).map(i32::to_ne_bytes), Some(number.to_ne_bytes()));
            assert!(asked[32..].starts_with(group.to_string().as_bytes()));
        }
    }
    // Too little is nothing, and what stands behind does not matter.
    assert_eq!(lockspace(payload).is_some(), payload.len() >= LOCKSPACE_FLAGS_END);
    assert_eq!(node(payload).is_some(), payload.len() >= NODE_FLAGS_END);
    let cut = |bytes_max: usize| payload.get(..bytes_max).unwrap_or(payload);
    assert_eq!(lockspace(payload), lockspace(cut(LOCKSPACE_BYTES)));
    assert_eq!(node(payload), node(cut(NODE_BYTES)));
});

/// Where the flags end in each.
const LOCKSPACE_FLAGS_END: usize = 68;
const NODE_FLAGS_END: usize = 8;
