//! The keeper's few lines: one write each, without an allocation.

use std::fmt;
use std::io::{self, Cursor, Write};

/// Longer lines are cut.
const LINE_BYTES: usize = 240;

/// Writes one line to standard error, which is the log. Nobody can be told if that fails.
pub(super) fn say(line: fmt::Arguments<'_>) {
    let mut bytes = [0; LINE_BYTES];
    let mut cursor = Cursor::new(bytes.as_mut_slice());
    let _ = write!(cursor, "o2bridge-keeper: {line}");
    let end = usize::try_from(cursor.position()).unwrap_or(0).min(LINE_BYTES - 1);
    bytes[end] = b'\n';
    let _ = io::stderr().write_all(&bytes[..=end]);
}
