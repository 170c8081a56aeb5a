//! The life-line: an open `/dev/ocfs2_control` that was shaken hands with. When its last holder is gone
//! while a volume of a user stack is mounted, the kernel resets the node. So the keeper holds one as
//! well as the daemon.
//!
//! Each opens its own instead of passing one on: the kernel itself then checks that all hold the same
//! line, and nobody has to trust a descriptor that came by mail.
//!
//! | who | says | bytes |
//! |---|---|---|
//! | kernel | `T01\n` | 4 |
//! | we | `T01\n` | 4 |
//! | we | `SETN <node, 8 hex digits>\n` | 14 |
//! | we | `SETV <major, 2 hex digits> <minor, 2 hex digits>\n` | 11 |
//!
//! One write each, of exactly these lengths. `SETN` with another node, or `SETV` with another version, than
//! somebody else holds is refused with EINVAL.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// The protocol of the device, as both sides say it.
const GREETING: [u8; 4] = *b"T01\n";

/// What is told the kernel of this node: all that hold a line must tell the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// This node's number, which the kernel writes on the volumes.
    pub node: u32,
    /// Major version of the locking protocol of OCFS2.
    pub major: u8,
    /// Its minor version.
    pub minor: u8,
}

impl Line {
    /// As one number, for a record.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        u64::from(self.node) | u64::from(self.major) << 32 | u64::from(self.minor) << 40
    }

    /// `None` for a number that [`Line::to_bits`] does not make.
    #[must_use]
    pub fn from_bits(bits: u64) -> Option<Self> {
        let [n0, n1, n2, n3, major, minor, zero, nil] = bits.to_le_bytes();
        let node = u32::from_le_bytes([n0, n1, n2, n3]);
        (zero == 0 && nil == 0).then_some(Self { node, major, minor })
    }

    /// The node's record.
    #[must_use]
    pub fn node_record(self) -> [u8; 14] {
        let mut record = *b"SETN 00000000\n";
        put_hex(self.node, &mut record[5..13]);
        record
    }

    /// The version's record.
    #[must_use]
    pub fn version_record(self) -> [u8; 11] {
        let mut record = *b"SETV 00 00\n";
        put_hex(u32::from(self.major), &mut record[5..7]);
        put_hex(u32::from(self.minor), &mut record[8..10]);
        record
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}, locking protocol {}.{}", self.node, self.major, self.minor)
    }
}

/// Fills the field with the number's last digits.
pub fn put_hex(number: u32, field: &mut [u8]) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    let mut rest = number;
    for digit in field.iter_mut().rev() {
        *digit = DIGITS[(rest & 0xF) as usize];
        rest >>= 4;
    }
}

/// Opens the device and shakes hands. Allocates nothing.
///
/// # Errors
/// It cannot be opened, speaks another protocol, or another line is held. Closed again in each case,
/// which harms nobody: only a line that is complete resets the node.
pub fn open(device: &Path, line: Line) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).open(device)?;
    let mut greeting = [0; GREETING.len()];
    file.read_exact(&mut greeting)?;
    if greeting != GREETING {
        return Err(io::ErrorKind::InvalidData.into());
    }
    say(&file, &GREETING)?;
    say(&file, &line.node_record())?;
    say(&file, &line.version_record())?;
    Ok(file)
}

/// One record in one write.
///
/// # Errors
/// The kernel refused it, or took a part, which it never does.
pub fn say(mut file: &File, record: &[u8]) -> io::Result<()> {
    match file.write(record)? {
        written if written == record.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_their_exact_lengths() {
        let line = Line { node: 0x0A00_00FE, major: 1, minor: 0x1F };
        assert_eq!(&line.node_record(), b"SETN 0A0000FE\n");
        assert_eq!(&line.version_record(), b"SETV 01 1F\n");
        let line = Line { node: u32::MAX, major: 255, minor: 255 };
        assert_eq!(&line.node_record(), b"SETN FFFFFFFF\n");
        assert_eq!(&line.version_record(), b"SETV FF FF\n");
    }

    #[test]
    fn a_line_is_a_number_and_back() {
        let line = Line { node: 0x0102_0304, major: 5, minor: 6 };
        assert_eq!(line.to_bits(), 0x0605_0102_0304);
        assert_eq!(Line::from_bits(line.to_bits()), Some(line));
        assert_eq!(Line::from_bits(1 << 48), None);
        assert_eq!(Line::from_bits(1 << 63), None);
        assert_eq!(line.to_string(), "node 16909060, locking protocol 5.6");
    }

    /// A plain file gives its greeting and takes what is written behind it.
    #[test]
    fn hands_are_shaken_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("control");
        let line = Line { node: 2, major: 1, minor: 0 };
        assert_eq!(open(&device, line).unwrap_err().kind(), io::ErrorKind::NotFound);
        for (greeting, kind) in
            [("T02\n", io::ErrorKind::InvalidData), ("T0", io::ErrorKind::UnexpectedEof)]
        {
            std::fs::write(&device, greeting).unwrap();
            assert_eq!(open(&device, line).unwrap_err().kind(), kind, "{greeting}");
            assert_eq!(std::fs::read_to_string(&device).unwrap(), greeting, "nothing was written");
        }
        std::fs::write(&device, "T01\n").unwrap();
        drop(open(&device, line).unwrap());
        let said = std::fs::read_to_string(&device).unwrap();
        assert_eq!(said, "T01\nT01\nSETN 00000002\nSETV 01 00\n");
    }
}
