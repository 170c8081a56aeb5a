//! Daemons of another version. There is one version so far, so the next one is made up: the frozen
//! envelope of a message between daemons of different kinds is rewritten on its way to name versions
//! that the reader does not speak. What follows the envelope stays as it is.

use o2bridge_core::{Event, NodeId};

/// Where the envelope names the lowest and the highest version (`o2bridge_core::proto`).
const VERSIONS: std::ops::Range<usize> = 5..9;
/// Two versions, little-endian, that nobody here speaks.
const STRANGE: [u8; 4] = [9, 0, 9, 0];

/// What a daemon on `node` reads when it is told this.
pub fn translate(event: Event, is_foreign: impl Fn(NodeId) -> bool, node: NodeId) -> Event {
    match event {
        Event::Message { channel, from, mut bytes }
            if is_foreign(from.node) != is_foreign(node) =>
        {
            if let Some(versions) = bytes.get_mut(VERSIONS) {
                versions.copy_from_slice(&STRANGE);
            }
            Event::Message { channel, from, bytes }
        }
        event => event,
    }
}
