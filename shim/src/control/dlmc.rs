//! What dlm_controld understands on its sockets: requests of 96 bytes, answers of the same form with a
//! payload behind. Pure. Numbers are in this machine's byte order.
//!
//! | offset | type | header |
//! |---|---|---|
//! | 0 | u32 | magic |
//! | 4 | u32 | version; its upper half must be equal |
//! | 8 | u32 | command |
//! | 12 | u32 | option |
//! | 16 | u32 | bytes of header and payload |
//! | 20 | s32 | a request's argument, an answer's result |
//! | 24 | u32, u32 | flags, unused |
//! | 32 | 64 bytes | name of the lockspace, filled up with zeros |
//!
//! The protocol is spoken here rather than taken from libdlmcontrol: five requests are less than the
//! binding to a C library would be; that library waits without limit for a daemon that is stopped, on
//! the very way of a death; and it is not there on machines without the development files.

use o2bridge_core::{GroupId, NodeId};

/// The length of a request, and of an answer's header.
pub const HEADER_BYTES: usize = 96;
/// What follows an answer about a lockspace.
pub const LOCKSPACE_BYTES: usize = 140;
/// What follows an answer about a node.
pub const NODE_BYTES: usize = 40;

const MAGIC: u32 = 0xD13C_D13C;
const VERSION: u32 = 0x0001_0001;
const NAME_BYTES: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// What becomes of a lockspace.
    LockspaceInfo,
    /// What becomes of a node in a lockspace.
    NodeInfo,
    /// A lockspace starts again only when its filesystem has said of each dead node that it knows.
    Register,
    /// The filesystem is gone. Never answered.
    Unregister,
    /// The filesystem knows that this node is dead.
    Notified,
}

impl Command {
    const fn number(self) -> u32 {
        match self {
            Self::LockspaceInfo => 3,
            Self::NodeInfo => 4,
            Self::Register => 7,
            Self::Unregister => 8,
            Self::Notified => 9,
        }
    }

    /// Bytes behind the header of an answer.
    #[must_use]
    pub const fn payload_bytes(self) -> usize {
        match self {
            Self::LockspaceInfo => LOCKSPACE_BYTES,
            Self::NodeInfo => NODE_BYTES,
            Self::Register | Self::Unregister | Self::Notified => 0,
        }
    }
}

/// A request.
#[must_use]
pub fn request(command: Command, group: GroupId, node: Option<NodeId>) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let data = node.map_or(0, |node| node.0);
    let length = u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX);
    let fields = [MAGIC, VERSION, command.number(), 0, length, data];
    for (place, field) in bytes.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&field.to_ne_bytes());
    }
    let name = group.to_string();
    let place = &mut bytes[32..32 + NAME_BYTES];
    place.iter_mut().zip(name.bytes()).for_each(|(byte, letter)| *byte = letter);
    bytes
}

/// The result of an answer to this command; `None` if it is no such answer.
#[must_use]
pub fn result(command: Command, header: &[u8; HEADER_BYTES]) -> Option<i32> {
    let field = |at| word(header, at);
    let is_ours =
        field(0)? == MAGIC && field(4)? >> 16 == VERSION >> 16 && field(8)? == command.number();
    is_ours.then(|| field(20)).flatten().map(|data| i32::from_ne_bytes(data.to_ne_bytes()))
}

/// What dlm_controld knows of a lockspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lockspace {
    /// No lock is granted.
    pub is_stopped: bool,
    /// It waits for its filesystem when a node dies.
    pub is_registered: bool,
    /// It has had members: the first one may still be on its way.
    pub has_started: bool,
}

/// What dlm_controld knows of a node in a lockspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// It is a user of the lockspace.
    pub is_member: bool,
    /// It died, and the filesystem is waited for.
    pub is_awaited: bool,
}

const KERNEL_STOPPED: u32 = 4;
const FS_REGISTERED: u32 = 8;
const MEMBER: u32 = 1;
const CHECK_FS: u32 = 0x10;

/// Behind two descriptions of changes, 32 bytes each.
const AT_LOCKSPACE_FLAGS: usize = 64;
/// Of the first of these, which is the last membership that was started: how many members it has.
const AT_MEMBERS: usize = 0;
const AT_NODE_FLAGS: usize = 4;

/// What stands behind an answer about a lockspace; `None` if it is too short.
#[must_use]
pub fn lockspace(payload: &[u8]) -> Option<Lockspace> {
    let flags = word(payload, AT_LOCKSPACE_FLAGS)?;
    let (is_stopped, is_registered) = (flags & KERNEL_STOPPED != 0, flags & FS_REGISTERED != 0);
    let has_started = word(payload, AT_MEMBERS)? != 0;
    Some(Lockspace { is_stopped, is_registered, has_started })
}

/// What stands behind an answer about a node; `None` if it is too short.
#[must_use]
pub fn node(payload: &[u8]) -> Option<Node> {
    let flags = word(payload, AT_NODE_FLAGS)?;
    Some(Node { is_member: flags & MEMBER != 0, is_awaited: flags & CHECK_FS != 0 })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(0x19D1_9F8E_CA01_475E_BA67_AFD6_D84C_3B45);

    fn answer(command: Command, data: i32) -> [u8; HEADER_BYTES] {
        let mut bytes = request(command, GROUP, None);
        bytes[20..24].copy_from_slice(&data.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_request_is_these_bytes() {
        let bytes = request(Command::Notified, GROUP, Some(NodeId(2)));
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let words: Vec<u32> = (0..32).step_by(4).map(word).collect();
        assert_eq!(words, [0xD13C_D13C, 0x0001_0001, 9, 0, 96, 2, 0, 0]);
        assert_eq!(&bytes[32..64], b"19D19F8ECA01475EBA67AFD6D84C3B45");
        assert_eq!(bytes[64..], [0; 32]);
    }

    #[test]
    fn results_are_signed_and_of_the_command() {
        assert_eq!(result(Command::Register, &answer(Command::Register, -114)), Some(-114));
        assert_eq!(result(Command::Register, &answer(Command::Notified, 0)), None);
        assert_eq!(result(Command::Register, &[0; HEADER_BYTES]), None);
        let mut newer = answer(Command::Register, 0);
        newer[4..8].copy_from_slice(&0x0001_0009_u32.to_ne_bytes());
        assert_eq!(result(Command::Register, &newer), Some(0), "a minor version");
        newer[4..8].copy_from_slice(&0x0002_0001_u32.to_ne_bytes());
        assert_eq!(result(Command::Register, &newer), None, "another major one");
    }

    #[test]
    fn flags_are_at_their_places() {
        let mut payload = [0; LOCKSPACE_BYTES];
        payload[64..68].copy_from_slice(&12_u32.to_ne_bytes());
        payload[0..4].copy_from_slice(&2_u32.to_ne_bytes());
        let all = Lockspace { is_stopped: true, is_registered: true, has_started: true };
        assert_eq!(lockspace(&payload), Some(all));
        payload[64..68].copy_from_slice(&3_u32.to_ne_bytes());
        payload[0..4].fill(0);
        let none = Lockspace { is_stopped: false, is_registered: false, has_started: false };
        assert_eq!(lockspace(&payload), Some(none));
        assert_eq!(lockspace(&payload[..66]), None);
        let mut payload = [0; NODE_BYTES];
        payload[4..8].copy_from_slice(&0x11_u32.to_ne_bytes());
        assert_eq!(node(&payload), Some(Node { is_member: true, is_awaited: true }));
        payload[4..8].copy_from_slice(&0x0E_u32.to_ne_bytes());
        assert_eq!(node(&payload), Some(Node { is_member: false, is_awaited: false }));
        assert_eq!(node(&[]), None);
    }
}
