//! What the client and the keeper say to each other: one record of fixed size a packet.
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | 4 bytes | `o2kp` |
//! | 4 | le16 | version, 1 |
//! | 6 | u8 | operation |
//! | 7 | u8 | status; a request says 0 |
//! | 8 | le16 | area |
//! | 10 | u8 | slot |
//! | 11 | u8 | zero |
//! | 12 | le32 | id: the answer says that of its request |
//! | 16 | le64 | generation |
//! | 24 | le64 | value: see [`Op`] |
//!
//! A keeper may be older or younger than the daemon that talks to it, so this layout stays: a later
//! version may only add operations and statuses.

use std::fmt;

/// Bytes of a record.
pub const RECORD_BYTES: usize = 32;
/// The version that is spoken here.
pub const VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"o2kp";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Tell the slot whose place in the table the value says: answered with [`Status::Entry`], or,
    /// past the end of it, with [`Status::Held`] if a line is held, and after that with
    /// [`Status::Done`], whose value has a bit for each protection that the
    /// system refused, and whose generation is the checksum of the keeper's settings. No sign of
    /// life: looking at a keeper is not taking it over.
    Hello,
    /// Beat this slot from now on. Answered after the first write.
    Beat,
    /// Write generation 0 once, and beat it no more. Answered after the write.
    Down,
    /// Forget all slots of the area, and fill it with zeros.
    Clear,
    /// The daemon is alive.
    Ping,
    /// Reset the node.
    Reset,
    /// End. Refused while a slot is beaten or a line held.
    Stop,
    /// Hold the line to the kernel that the generation says, as [`crate::Line::to_bits`] has it.
    /// Answered when hands are shaken.
    Hold,
    /// Let go of the line. **With a volume mounted that resets the node.**
    Release,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Done,
    /// A slot of the table.
    Entry,
    /// No record of this protocol. The connection is closed.
    BadRecord,
    /// The caller is not root, nor the keeper's own user. The connection is closed.
    NotAllowed,
    /// Another daemon is connected and alive. The connection is closed.
    Busy,
    /// No such area or slot on the device.
    OutOfRange,
    /// As many slots as there can be are beaten already.
    Full,
    /// The slot is beaten with another generation. It must go down first: a change is a death.
    OtherGeneration,
    /// The device could not be read or written.
    Device,
    /// The hardware watchdog could not be opened, so nothing is beaten.
    Watchdog,
    /// A stop while slots are beaten or a line is held.
    Beating,
    /// The node is being reset; nothing is accepted any more.
    Resetting,
    /// The system refused the reset.
    ResetFailed,
    /// The line that is held, in the generation.
    Held,
    /// Another line is held.
    OtherLine,
    /// The kernel's control device could not be opened, or refused the handshake.
    Control,
}

/// One record, request or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What is asked for.
    pub op: Op,
    /// How it went.
    pub status: Status,
    /// Which area; not checked here.
    pub area: u16,
    /// Which slot; not checked here.
    pub slot: u8,
    /// Answers say that of their request.
    pub id: u32,
    /// Which generation.
    pub generation: u64,
    /// See [`Op`].
    pub value: u64,
}

const OPS: [(Op, u8); 9] = [
    (Op::Hello, 1),
    (Op::Beat, 2),
    (Op::Down, 3),
    (Op::Clear, 4),
    (Op::Ping, 5),
    (Op::Reset, 6),
    (Op::Stop, 7),
    (Op::Hold, 8),
    (Op::Release, 9),
];

const STATUSES: [(Status, u8); 16] = [
    (Status::Done, 0),
    (Status::Entry, 1),
    (Status::BadRecord, 2),
    (Status::NotAllowed, 3),
    (Status::Busy, 4),
    (Status::OutOfRange, 5),
    (Status::Full, 6),
    (Status::OtherGeneration, 7),
    (Status::Device, 8),
    (Status::Watchdog, 9),
    (Status::Beating, 10),
    (Status::Resetting, 11),
    (Status::ResetFailed, 12),
    (Status::Held, 13),
    (Status::OtherLine, 14),
    (Status::Control, 15),
];

fn number<T: PartialEq>(table: &[(T, u8)], wanted: &T) -> u8 {
    table.iter().find(|(word, _)| word == wanted).map_or(u8::MAX, |(_, number)| *number)
}

fn word<T: Copy>(table: &[(T, u8)], wanted: u8) -> Option<T> {
    table.iter().find(|(_, number)| *number == wanted).map(|(word, _)| *word)
}

impl Record {
    /// A request that needs no more than its name.
    #[must_use]
    pub fn new(op: Op) -> Self {
        Self { op, status: Status::Done, area: 0, slot: 0, id: 0, generation: 0, value: 0 }
    }

    /// The answer to this record.
    #[must_use]
    pub fn answer(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6] = number(&OPS, &self.op);
        bytes[7] = number(&STATUSES, &self.status);
        bytes[8..10].copy_from_slice(&self.area.to_le_bytes());
        bytes[10] = self.slot;
        bytes[12..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.generation.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.value.to_le_bytes());
        bytes
    }

    /// `None` for anything that [`Record::encode`] does not make.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        let [m0, m1, m2, m3, v0, v1, op, status, a0, a1, slot, zero, i0, i1, i2, i3, rest @ ..] =
            bytes;
        let is_ours = [*m0, *m1, *m2, *m3] == MAGIC && u16::from_le_bytes([*v0, *v1]) == VERSION;
        let (generation, value) = rest.split_at(8);
        if !is_ours || *zero != 0 {
            return None;
        }
        Some(Self {
            op: word(&OPS, *op)?,
            status: word(&STATUSES, *status)?,
            area: u16::from_le_bytes([*a0, *a1]),
            slot: *slot,
            id: u32::from_le_bytes([*i0, *i1, *i2, *i3]),
            generation: u64::from_le_bytes(generation.try_into().ok()?),
            value: u64::from_le_bytes(value.try_into().ok()?),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Entry => "a slot of the table",
            Self::BadRecord => "no record of this protocol",
            Self::NotAllowed => "only root may talk to the keeper",
            Self::Busy => "another daemon is connected and alive",
            Self::OutOfRange => "no such area or slot on the device",
            Self::Full => "it beats as many slots as it can",
            Self::OtherGeneration => {
                "the slot beats with another generation and must go down first"
            }
            Self::Device => "the device could not be read or written",
            Self::Watchdog => "the hardware watchdog could not be opened",
            Self::Beating => "it still beats slots or holds a line",
            Self::Resetting => "the node is being reset",
            Self::ResetFailed => "the system refused to reset the node",
            Self::Held => "the line that is held",
            Self::OtherLine => "a line with other values is held",
            Self::Control => "the kernel's control device could not be opened or refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_these_bytes() {
        let record = Record {
            op: Op::Down,
            status: Status::Full,
            area: 0x0102,
            slot: 0xfe,
            id: 0x0304_0506,
            generation: 0x1122_3344_5566_7788,
            value: 9,
        };
        let bytes = record.encode();
        assert_eq!(bytes[..12], [b'o', b'2', b'k', b'p', 1, 0, 3, 6, 2, 1, 0xfe, 0]);
        assert_eq!(bytes[12..16], [6, 5, 4, 3]);
        assert_eq!(bytes[16..24], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(bytes[24..], [9, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn all_words_survive_the_wire() {
        for (op, _) in OPS {
            for (status, _) in STATUSES {
                let record = Record { status, area: 255, slot: 254, ..Record::new(op) };
                assert_eq!(Record::decode(&record.encode()), Some(record));
            }
        }
    }

    #[test]
    fn anything_else_is_no_record() {
        let good = Record::new(Op::Ping).encode();
        for (at, byte) in [(0, b'x'), (3, 0), (4, 2), (5, 1), (6, 0), (6, 10), (7, 16), (11, 1)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Record::decode(&bad), None, "byte {at} = {byte}");
        }
        assert_eq!(Record::decode(&[]), None);
        assert_eq!(Record::decode(&good[..31]), None);
        assert_eq!(Record::decode(&[good.as_slice(), &[0]].concat()), None);
    }
}
